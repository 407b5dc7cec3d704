"""Layout mult: a stack per ordered pair of modalities."""

import math

import pytest
import torch
from pydantic import ValidationError
from support.model_inputs import N_ITEMS, TINY, dirty_under_masks, model_inputs

from reelrank.models.fusion_layouts import fusion_network
from reelrank.models.inputs import InputSpec
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.options import ConfidenceOptions, FusionOptions
from reelrank.models.pairwise_fusion import PairwiseFusion, _AttentionLayers

ABSENT = ((1, "audio"), (2, "visual"), (2, "audio"), (2, "text"))
PAIRS = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]  # who asks, who tells


def built(**changes):
    torch.manual_seed(0)
    spec = InputSpec.of(model_inputs())
    options = TINY["mt_dqn"].fusion.model_copy(update={"layout": "mult", **changes})
    return fusion_network(options, spec.token_lengths, spec.token_dims).eval()


@pytest.fixture(params=["scalar", "vector", "even"])
def fusion(request):
    return built(gate=request.param, layers=2, self_layers=2)


def with_content(tokens, modality, items, value):
    """The tokens of one modality of some items replaced by a value."""
    changed = list(tokens.modalities)
    own = changed[modality]
    x = own.x.clone()
    x[items] = value
    changed[modality] = ModalTokens(x, own.mask, own.present)
    return ItemTokens(tuple(changed))


def without_audio(tokens):
    visual, audio, text = tokens.modalities
    nothing = ModalTokens(*(torch.zeros_like(t) for t in (audio.x, audio.mask, audio.present)))
    return ItemTokens((visual, nothing, text))


def test_shapes_and_who_is_told_by_whom(fusion):
    assert isinstance(fusion, PairwiseFusion)
    found = zip(fusion.pair_target.tolist(), fusion.pair_source.tolist(), strict=True)
    assert list(found) == PAIRS
    fused = fusion(model_inputs(absent=ABSENT).items)
    assert fused.f.shape == (N_ITEMS, fusion.options.d_f)
    gate = fused.gate if fused.gate.dim() == 3 else fused.gate.unsqueeze(-1)
    assert (gate[1, 1] == 0).all() and (gate[2] == 0).all() and (gate[0] > 0).all()
    torch.testing.assert_close(fused.f[2], fusion.out.bias)


def test_what_an_absent_modality_holds_changes_nothing(fusion):
    tokens = model_inputs(absent=ABSENT).items
    clean = fusion(tokens)
    for modality, items in ((1, [1, 2]), (0, [2]), (2, [2])):
        changed = fusion(with_content(tokens, modality, items, 50.0))
        assert torch.equal(clean.f, changed.f) and torch.equal(clean.gate, changed.gate)


def test_masked_tokens_of_a_present_modality_change_nothing(fusion):
    tokens = model_inputs(absent=ABSENT).items
    dirty = dirty_under_masks(tokens)
    torch.testing.assert_close(fusion(dirty).f, fusion(tokens).f, rtol=0, atol=0)


def test_an_absent_source_is_as_if_it_had_no_stack():
    """Audio is absent everywhere: whatever its stacks hold, visual and text are as before."""
    fusion = built(gate="even")
    tokens = without_audio(model_inputs().items)
    before = fusion(tokens).f
    told_by_audio = [p for p, (_, source) in enumerate(PAIRS) if source == 1]
    with torch.no_grad():
        for layer in fusion.pairs:
            for part in (layer.key_value, layer.out):
                part.weight[told_by_audio] += 3.0
                part.bias[told_by_audio] -= 2.0
    assert torch.equal(fusion(tokens).f, before)


def test_gradients_reach_every_parameter_and_stay_finite():
    fusion = built(layers=2, self_layers=2, confidence=ConfidenceOptions()).train()
    fused = fusion(model_inputs(absent=ABSENT).items)
    torch.manual_seed(1)
    (fused.f * torch.randn_like(fused.f)).sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # every pair and every modality of a group, not the group as a whole
        per_member = parameter.grad.flatten(1) if parameter.dim() > 2 else parameter.grad.flatten()[None]  # fmt: skip
        assert (per_member.abs().sum(1) > 0).all(), name


def test_one_attention_by_hand():
    """Two pairs, one head of width 2: identity projections, so that logits are inner products of normed tokens."""
    options = FusionOptions(d_model=4, layers=1, heads=1, dropout=0.0, layout="mult")
    layer = _AttentionLayers(2, 2, options).eval()
    with torch.no_grad():
        for part in (layer.query, layer.key_value, layer.out):
            part.bias.zero_()
            part.weight.copy_(
                torch.eye(2).repeat(1, part.weight.shape[2] // 2).expand_as(part.weight)
            )
        layer.out.weight[1] *= 2  # the second pair speaks twice as loud
        layer.ffn[2].weight.zero_()
        layer.ffn[2].bias.zero_()
    asks = torch.tensor([[3.0, 1.0]])  # normed: (1, −1)
    tells = torch.tensor([[5.0, 1.0], [0.0, 4.0], [9.0, 0.0]])  # normed: (1, −1), (−1, 1), masked
    x = asks.expand(2, 1, 1, 2)
    source = tells.expand(2, 1, 3, 2)
    mask = torch.tensor([True, True, False]).expand(2, 1, 3)
    out = layer(x, source, mask, torch.tensor([[1.0], [0.5]]))
    # logits ±2/√2, so the message is (t, −t) with t = tanh √2; half of twice is the same
    t = math.tanh(math.sqrt(2))
    expected = torch.tensor([3 + t, 1 - t]).expand(2, 1, 1, 2)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


def test_what_is_told_is_shared_between_the_others(fusion):
    tokens = model_inputs(absent=ABSENT).items
    mass = fusion.attention_mass(tokens)
    options = fusion.options
    assert mass.shape == (options.layers, options.heads, 3, 3)
    torch.testing.assert_close(mass.sum(-1), torch.ones(options.layers, options.heads, 3))
    assert (mass.diagonal(dim1=2, dim2=3) == 0).all()
    # audio tells nothing where it is absent: all that visual hears there is text
    only = fusion.attention_mass(tokens.select(torch.tensor([1])))
    assert (only[..., 1] == 0).all() and (only[..., 0, 2] == 1).all() and (only[..., 1, :] == 0).all()  # fmt: skip


def test_without_trust_a_modality_tells_as_little_as_if_it_were_absent():
    fusion = built(gate="even", confidence=ConfidenceOptions())
    with torch.no_grad():
        for network in fusion.confidence.networks:
            network[2].weight.zero_()
            network[2].bias.fill_(40.0)
        fusion.confidence.networks[1][2].bias.fill_(-80.0)
    tokens = model_inputs().items
    found, expected = fusion(tokens).f, fusion(without_audio(tokens)).f
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_sizes_of_the_paper_by_hand():
    options = FusionOptions(layout="mult")  # six layers, twelve heads, d = 768
    with torch.device("meta"):
        fusion = fusion_network(options, (16, 16, 64), (2048, 512, 768))
    d, wide = 768, 2 * 768

    def layer(width):
        """Four projections, the feed-forward layer four times as wide, three norms."""
        return 4 * width * (width + 1) + 8 * width**2 + 5 * width + 6 * width

    assert sum(p.numel() for p in fusion.pairs.parameters()) == 6 * 6 * layer(d)
    assert sum(p.numel() for p in fusion.selves.parameters()) == 3 * layer(wide)


def test_pairs_without_layers_are_refused():
    with pytest.raises(ValidationError, match="layout mult needs layers ≥ 1"):
        FusionOptions(d_model=8, heads=2, layers=0, layout="mult")
