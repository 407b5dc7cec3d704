import pytest
import torch
from pydantic import ValidationError
from support.model_inputs import N_ITEMS, TINY, dirty_under_masks, model_inputs

from reelrank.models.fusion import CrossModalFusion
from reelrank.models.inputs import InputSpec
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.options import FusionOptions

ABSENT = ((1, "audio"), (2, "visual"), (2, "audio"), (2, "text"))


@pytest.fixture(params=["scalar", "vector"])
def fusion(request):
    torch.manual_seed(0)
    spec = InputSpec.of(model_inputs())
    options = TINY["mt_dqn"].fusion.model_copy(update={"gate": request.param})
    return CrossModalFusion(options, spec.token_lengths, spec.token_dims).eval()


def test_gate_is_a_distribution_and_zero_where_absent(fusion):
    tokens = model_inputs(absent=ABSENT).items
    fused = fusion(tokens)
    assert fused.f.shape == (N_ITEMS, fusion.options.d_f)
    gate = fused.gate if fusion.options.gate == "vector" else fused.gate.unsqueeze(-1)
    assert (gate[1, 1] == 0).all() and (gate[2] == 0).all()
    assert (gate[0] > 0).all()
    if fusion.options.gate == "scalar":
        torch.testing.assert_close(fused.gate[[0, 1]].sum(1), torch.ones(2))


def test_an_item_without_any_modality_gets_the_bias_and_a_finite_gradient(fusion):
    fused = fusion(model_inputs(absent=ABSENT).items)
    torch.testing.assert_close(fused.f[2], fusion.out.bias)
    fused.f.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


def test_content_under_the_mask_has_no_effect(fusion):
    tokens = model_inputs(absent=ABSENT).items
    dirty = dirty_under_masks(tokens)
    clean, changed = fusion(tokens), fusion(dirty)
    assert torch.equal(clean.f, changed.f)
    assert torch.equal(clean.gate, changed.gate)


def test_every_modality_attends_to_every_other(fusion):
    tokens = model_inputs().items
    x = [m.x.clone().requires_grad_() for m in tokens.modalities]
    inputs = ItemTokens(
        tuple(ModalTokens(v, m.mask, m.present) for v, m in zip(x, tokens.modalities, strict=True))
    )
    e, mask = fusion._embed(inputs)
    for layer in fusion.layers:
        e = layer(e, mask)
    visual, _ = fusion._pool(fusion.norm(e), inputs)
    visual[:, 0].pow(2).sum().backward()
    assert all((v.grad.abs().sum() > 0) for v in x)


def test_attention_mass_rows_sum_to_one_and_agree_with_the_training_path(fusion):
    tokens = model_inputs(absent=ABSENT).items
    mass = fusion.attention_mass(tokens)
    options = fusion.options
    assert mass.shape == (options.layers, options.heads, 3, 3)
    torch.testing.assert_close(mass.sum(-1), torch.ones(options.layers, options.heads, 3))
    # item 2 has nothing, so its (all-open) attention must not be in the mean
    without = fusion.attention_mass(tokens.select(torch.tensor([0, 1, *range(3, N_ITEMS)])))
    torch.testing.assert_close(mass, without)


def test_attention_to_an_absent_modality_has_no_mass(fusion):
    tokens = model_inputs(absent=tuple((i, "audio") for i in range(N_ITEMS))).items
    mass = fusion_like(fusion, tokens).attention_mass(tokens)
    assert (mass[..., 1] == 0).all() and (mass[..., 1, :] == 0).all()


def fusion_like(fusion, tokens):
    lengths = tuple(m.x.shape[1] for m in tokens.modalities)
    dims = tuple(m.x.shape[2] for m in tokens.modalities)
    return CrossModalFusion(fusion.options, lengths, dims).eval()


def test_heads_must_divide_the_width():
    with pytest.raises(ValidationError, match="heads 5 must divide d_model 8"):
        FusionOptions(d_model=8, heads=5)
