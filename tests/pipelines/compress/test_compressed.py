"""Pruned networks, eight bits, the precomputed item side and exported graphs against the network that they were made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_inputs import TINY, batch, model_inputs
from torch import nn

from reelrank.models import registry
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import RankingModel
from reelrank.pipelines.compress.compressed import Compressed, built, fusion_of, memory_of
from reelrank.pipelines.compress.export import ExportedParts
from reelrank.pipelines.compress.int8 import Int8Linear
from reelrank.pipelines.compress.latency import Server, largest_difference
from reelrank.pipelines.compress.options import QuantisationOptions
from reelrank.pipelines.compress.pruning import (
    ZeroKeeper,
    importance,
    unit_groups,
    without_units,
    without_weights,
)
from reelrank.pipelines.compress.quantise import quantised
from reelrank.pipelines.compress.serving import RequestScorer
from reelrank.pipelines.mt_dqn import create_pipeline as _declares_homes  # noqa: F401
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.ranking import restore


@pytest.fixture(scope="module")
def inputs():
    return model_inputs()


@pytest.fixture(scope="module")
def teacher(inputs):
    torch.manual_seed(0)
    spec = InputSpec.of(inputs)
    options = TINY["mt_dqn"]
    model = registry.build("mt_dqn", options, spec, RankingModel)
    config = {
        "name": "mt_dqn",
        "options": options.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
    }
    return ModelCheckpoint(config, model.state_dict(), model.state_dict())


def scores(checkpoint, inputs):
    with torch.no_grad():
        return restore(checkpoint, inputs).scores(inputs, *batch(inputs))


def test_units_that_nobody_reads_are_taken_out_first_and_change_nothing(teacher, inputs):
    model = built(teacher)
    with torch.no_grad():
        for units in unit_groups(model):
            reader = model.get_submodule(units.consumer)
            dead = units.columns[: len(units.columns) // 2].flatten()
            reader.weight[:, dead] = 0
            assert set(importance(model, units).argsort()[: len(units.rows) // 2].tolist()) == set(
                range(len(units.rows) // 2)
            )
    half_dead = ModelCheckpoint(teacher.config, model.state_dict(), model.state_dict())
    pruned = without_units(half_dead, 0.5)
    torch.testing.assert_close(scores(pruned, inputs), scores(half_dead, inputs), atol=1e-5, rtol=0)
    own, whole = (sum(t.numel() for n, t in c.best.items() if "layers" in n) for c in (pruned, half_dead))  # fmt: skip
    assert own < 0.65 * whole  # norms and output biases stay


def test_every_perceptron_and_attention_of_the_fusion_is_found(teacher):
    groups = {units.producer: units for units in unit_groups(built(teacher))}
    for layer in range(2):
        assert f"fusion.layers.{layer}.ffn.0" in groups
        heads = groups[f"fusion.layers.{layer}.qkv"]
        # head 1 of 2, width 4: its queries, keys and values
        assert heads.rows[1].tolist() == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]
        assert heads.columns.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert "heads.trunk.0" in groups and "heads.value.0" in groups


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_pruned_network_is_rebuilt_from_its_checkpoint(teacher, inputs, share):
    pruned = without_units(teacher, share)
    model = built(pruned)
    assert isinstance(model, Compressed)
    assert scores(pruned, inputs).isfinite().all()
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in built(teacher).parameters())  # fmt: skip


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_smallest_weights_become_zero_and_stay_so(teacher, share):
    model = built(without_weights(teacher, share))
    whole = built(teacher)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            zero = module.weight == 0
            before = whole.get_submodule(name).weight.abs()
            assert int(zero.sum()) == round(share * zero.numel())
            assert zero.all() or not zero.any() or before[zero].max() <= before[~zero].min()
    keeper = ZeroKeeper(model)
    zeros = {n: p == 0 for n, p in model.named_parameters() if n in keeper.kept}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    other = ZeroKeeper(whole)  # as after a restart
    other.load_state_dict(keeper.state_dict())
    other.after_step(model, 1)
    assert all(torch.equal(model.get_parameter(n) == 0, zero) for n, zero in zeros.items())


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 6), inner=st.integers(1, 40), out=st.integers(1, 40), biased=st.booleans(),
    size=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_eight_bits_round_weights_and_activations_to_127_levels(
    rows, inner, out, biased, size, seed
):
    torch.manual_seed(seed)
    layer, x = nn.Linear(inner, out, bias=biased), torch.randn(rows, 1, inner) * size
    rounded = Int8Linear.of(layer)
    assert ((rounded.weight - layer.weight).abs() <= layer.weight.abs().amax(1, keepdim=True) / 254 + 1e-7).all()  # fmt: skip
    # the same integers multiplied as numpy multiplies them
    scale = x.abs().max().numpy() / np.float32(127)
    integers = np.rint(x.numpy() / scale).astype(np.int64) @ rounded.weight_int8.numpy().astype(np.int64).T  # fmt: skip
    expected = integers * scale * rounded.scale.numpy()
    if biased:
        expected = expected + layer.bias.detach().numpy()
    actual = rounded(x)
    assert actual.shape == (rows, 1, out)
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-3, atol=1e-4 * size)


def test_loaded_weights_replace_what_was_packed():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    one, two = (Int8Linear.of(nn.Linear(8, 8)) for _ in range(2))
    one(x)
    one.load_state_dict(two.state_dict())
    torch.testing.assert_close(one(x), two(x))


def test_eight_bits_survive_a_checkpoint_and_change_scores_little(teacher, inputs, tmp_path):
    made = quantised(
        teacher, QuantisationOptions(parts=("fusion", "tgnn", "heads"), min_weights=16)
    )
    made.write(tmp_path)
    read = ModelCheckpoint.read(tmp_path)
    torch.testing.assert_close(scores(read, inputs), scores(made, inputs))
    model = built(read)
    assert isinstance(fusion_of(model).layers[0].qkv, Int8Linear)
    whole = scores(teacher, inputs)
    assert (scores(read, inputs) - whole).abs().max() < 0.2 * whole.std() + 0.05


def test_a_request_scored_from_the_index_gets_the_heads_scores(teacher, inputs):
    model = restore(teacher, inputs)
    users, items, ts = batch(inputs, size=3, candidates=12)
    with torch.no_grad():
        user = model.user_state(inputs, users[:1], ts[:1])
        state = model.item_state(inputs, items[0], ts[:1].expand(12))
        expected = model.head(user, state.unsqueeze(0)).q[0]
        scorer = RequestScorer(model, user.shape[1])
        index = scorer.index(state)
        chosen = torch.tensor([3, 0, 11])
        torch.testing.assert_close(scorer.scores(index, torch.arange(12), user), expected, atol=1e-5, rtol=1e-4)  # fmt: skip
        torch.testing.assert_close(scorer.scores(index, chosen, user), expected[chosen], atol=1e-5, rtol=1e-4)  # fmt: skip


@pytest.mark.long  # compiles C++
def test_an_exported_graph_computes_what_its_network_does_for_any_number_of_rows(
    teacher, inputs, tmp_path
):
    model = restore(teacher, inputs)
    config = TINY["mt_dqn"]
    widths = (config.tgnn.d_h, config.fusion.d_f + config.tgnn.d_h)
    tokens = inputs.items.select(torch.arange(3))
    parts = ExportedParts.of(model, tokens, widths, "program", tmp_path)
    eager, exported = Server(model, inputs), Server(model, inputs, parts)
    for n in (1, 2, 9):
        assert largest_difference(exported, eager, torch.arange(100, 100 + n)) < 1e-4


def test_a_video_seen_for_the_first_time_is_fused_and_kept(teacher, inputs):
    from reelrank.pipelines.compress.latency import _rows

    model = restore(teacher, inputs)
    rows = _rows(inputs, torch.arange(120, 125))
    expected = Server(model, inputs).cached(rows).q
    known = memory_of(model).clone()
    memory_of(model)[rows.items] = 0
    with torch.no_grad():
        fresh = Server(model, inputs).whole(rows).q
    torch.testing.assert_close(fresh, expected)
    torch.testing.assert_close(memory_of(model), known)
