"""Corrupted tokens are what they are called, and the confidence of a modality learns to tell."""

import pytest
import torch
from support.model_inputs import N_ITEMS, TINY, model_inputs

from reelrank.models.corruption import corrupted, delayed
from reelrank.models.fusion import CrossModalFusion
from reelrank.models.inputs import InputSpec
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.options import ConfidenceOptions, CorruptionOptions
from reelrank.models.policy import RankingModel
from reelrank.models.registry import build
from reelrank.pipelines.mt_dqn import model as _model  # noqa: F401 (registers it)

ABSENT = ((1, "audio"), (2, "visual"), (2, "audio"), (2, "text"))


def ramp(n_tokens):
    x = torch.arange(1.0, 5.0).view(1, 4, 1)
    mask = (torch.arange(4) < n_tokens).unsqueeze(0)
    return ModalTokens(x * mask.unsqueeze(2), mask, torch.tensor([True]))


@pytest.mark.parametrize(
    ("lag", "n_tokens", "expected"),
    [
        (0.0, 4, [1, 2, 3, 4]),
        (1.0, 4, [0, 1, 2, 3]),
        (0.5, 4, [0.5, 1.5, 2.5, 3.5]),
        (2.0, 3, [0, 0, 1, 0]),  # the fourth place is no token
        (5.0, 4, [0, 0, 0, 0]),
    ],
)
def test_a_late_modality_by_hand(lag, n_tokens, expected):
    late = delayed(ramp(n_tokens), torch.tensor([lag]))
    assert late.x.flatten().tolist() == pytest.approx(expected)
    assert torch.equal(late.mask, ramp(n_tokens).mask)


def test_one_modality_of_some_items_changes_and_nothing_else():
    tokens = model_inputs(absent=ABSENT).items
    options = CorruptionOptions(probability=0.5)
    hits = torch.zeros(N_ITEMS, 3)
    for seed in range(60):
        torch.manual_seed(seed)
        made, hit = corrupted(tokens, options)
        assert int(hit.sum(1).max()) <= 1
        hits += hit
        for k, (old, new) in enumerate(zip(tokens.modalities, made.modalities, strict=True)):
            kept = ~hit[:, k]
            assert torch.equal(old.x[kept], new.x[kept]) and torch.equal(old.mask[kept], new.mask[kept])  # fmt: skip
            assert not new.x[~new.mask].any()
            assert torch.equal(old.present, new.present)
    assert not hits[1, 1] and not hits[2].any()  # absent ones never are
    assert float(hits[0].sum() / 60) == pytest.approx(0.5, abs=0.2)


def fusion_with(gate="scalar", **changes):
    torch.manual_seed(0)
    spec = InputSpec.of(model_inputs())
    options = TINY["mt_dqn"].fusion.model_copy(update={"gate": gate, **changes})
    return CrossModalFusion(options, spec.token_lengths, spec.token_dims).eval()


@pytest.mark.parametrize("gate", ["scalar", "vector", "even"])
def test_full_confidence_is_no_confidence_and_none_shuts_a_modality(gate):
    tokens = model_inputs(absent=ABSENT).items
    plain = fusion_with(gate)
    fusion = fusion_with(gate, confidence=ConfidenceOptions())
    fusion.load_state_dict(plain.state_dict(), strict=False)

    def trust(values):
        with torch.no_grad():
            for network, value in zip(fusion.confidence.networks, values, strict=True):
                network[2].weight.zero_()
                network[2].bias.fill_(value)

    trust((50.0, 50.0, 50.0))
    for found, expected in zip(fusion(tokens), plain(tokens), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fusion.attention_mass(tokens), plain.attention_mass(tokens))
    trust((50.0, -50.0, 50.0))
    other = fusion(tokens).gate[torch.tensor([0, 3, 4]), 1]
    assert float(other.detach().abs().max()) < 1e-6
    assert float(fusion.attention_mass(tokens)[:, :, 0, 1].max()) < 1e-6
    if gate != "even":  # Eq. 6 balances the others by all of z
        return
    audio = tokens.modalities[1].select(torch.arange(N_ITEMS).roll(1))
    shuffled = ItemTokens((tokens.modalities[0], audio, tokens.modalities[2]))
    rows = torch.arange(4, N_ITEMS)  # have all modalities, before and after
    torch.testing.assert_close(fusion(shuffled).f[rows], fusion(tokens).f[rows], atol=1e-5, rtol=1e-5)  # fmt: skip


def confident_model(**corruption):
    config = TINY["mt_dqn"].model_copy(
        update={
            "fusion": TINY["mt_dqn"].fusion.model_copy(update={"confidence": ConfidenceOptions()}),
            "corruption": CorruptionOptions(**corruption),
        }
    )
    inputs = model_inputs()
    torch.manual_seed(0)
    model = build("mt_dqn", config, InputSpec.of(inputs), RankingModel)
    model.refresh(inputs)
    return model, inputs


def test_confidence_learns_to_tell_noise():
    model, inputs = confident_model(probability=0.6, snr_db=[-20.0])
    optimiser = torch.optim.Adam(model.fusion.parameters(), 1e-2)
    everything = torch.arange(N_ITEMS).repeat(4)
    losses = []
    for _ in range(120):
        loss = model.confidence_loss(inputs, everything)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    tokens = inputs.items
    loud = tokens.modalities[0]
    noisy = ModalTokens(loud.x + 10 * torch.randn_like(loud.x) * loud.mask.unsqueeze(2), loud.mask, loud.present)  # fmt: skip
    clean, noised = (
        model.fusion.log_confidence(ItemTokens((first, *tokens.modalities[1:])))[:, 0].exp().mean()
        for first in (loud, noisy)
    )
    assert float(noised) < float(clean) - 0.2


def test_the_item_memory_keeps_what_it_knew_of_corrupted_items():
    model, inputs = confident_model(probability=1.0)
    before = model.item_memory.clone()
    users, ts = inputs.stream.user[100:110], inputs.stream.ts_ms[100:110]
    items = torch.arange(10).unsqueeze(1)
    model.train()(inputs, users, items, ts).q.sum().backward()
    assert torch.equal(model.item_memory, before)


def test_confidence_asks_for_its_options():
    with pytest.raises(RuntimeError, match=r"fusion\.confidence"):
        fusion_with().log_confidence(model_inputs().items)
