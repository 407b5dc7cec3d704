from dataclasses import replace

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from support.model_inputs import (
    HOUR,
    N_ITEMS,
    N_USERS,
    TINY,
    batch,
    events_frame,
    model_inputs,
    with_feedback_changed_from,
)

from reelrank.models.inputs import InputSpec
from reelrank.models.options import TGNNOptions
from reelrank.models.tgnn import TimeEncoding, UserAttributes, WindowTGNN

D_F = 6


def build(inputs, **changes):
    torch.manual_seed(0)
    options = TINY["mt_dqn"].tgnn.model_copy(update=changes)
    return WindowTGNN(options, InputSpec.of(inputs), D_F).eval()


def memory():
    return torch.randn(N_ITEMS, D_F, generator=torch.Generator().manual_seed(1))


def naive_state(tgnn, inputs, node, ts, memory, *, depth=0):
    """Eq. 11 for one node, recursively, one event at a time."""
    if depth == len(tgnn.layers):
        return tgnn._base(inputs, torch.tensor([node]), memory)[0]
    stream, layer = inputs.stream, tgnn.layers[depth]
    h = naive_state(tgnn, inputs, node, ts, memory, depth=depth + 1)
    touches = (stream.user == node) | (stream.item + N_USERS == node)
    events = torch.nonzero(touches & (stream.ts_ms < ts)).flatten().flip(0)
    q = layer.query(torch.cat([h, tgnn.time(torch.tensor(0))])).view(layer.heads, -1)
    logits, values = [], []
    for e in events[: tgnn.options.fanout[depth]]:
        other = int(stream.item[e]) + N_USERS if node < N_USERS else int(stream.user[e])
        h_j = naive_state(tgnn, inputs, other, stream.ts_ms[e], memory, depth=depth + 1)
        message = torch.cat(
            [tgnn.feedback(stream.message[e]), tgnn.content(memory[stream.item[e]])]
        )
        kv = layer.event_kv(torch.cat([h_j, message]))
        kv = kv + layer.time_kv(tgnn.time(ts - stream.ts_ms[e]))
        key, value = kv.view(2, layer.heads, -1)
        logits.append((q * key).sum(-1) / key.shape[-1] ** 0.5)
        values.append(value)
    context = torch.zeros(h.shape[0])
    if logits:
        alpha = torch.softmax(torch.stack(logits), 0)
        context = (alpha.unsqueeze(-1) * torch.stack(values)).sum(0).flatten()
    return layer.norm(h + layer.merge(torch.cat([context, h])))


@pytest.mark.parametrize(("layers", "fanout"), [(1, (4,)), (2, (3, 2)), (3, (3, 2, 2))])
def test_equals_the_recursion_written_out(layers, fanout):
    inputs = model_inputs()
    tgnn = build(inputs, layers=layers, fanout=fanout)
    nodes = torch.arange(N_USERS + N_ITEMS)
    ts = inputs.stream.ts_ms[torch.linspace(0, 159, len(nodes)).long()]
    with torch.no_grad():
        found = tgnn(inputs, nodes, ts, memory())
        expected = [
            naive_state(tgnn, inputs, int(n), t, memory()) for n, t in zip(nodes, ts, strict=True)
        ]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_strictly_past_feedback_only():
    inputs = model_inputs()
    tgnn = build(inputs)
    t = inputs.stream.ts_ms[100]
    nodes = torch.arange(N_USERS + N_ITEMS)
    ts = t.expand(len(nodes))
    later = with_feedback_changed_from(inputs, t)
    assert torch.equal(tgnn(inputs, nodes, ts, memory()), tgnn(later, nodes, ts, memory()))
    earlier = with_feedback_changed_from(inputs, t - 10 * HOUR)
    assert not torch.equal(tgnn(inputs, nodes, ts, memory()), tgnn(earlier, nodes, ts, memory()))


def test_a_node_without_events_and_the_feedback_of_unrelated_nodes():
    events = events_frame().with_columns(
        user_id=pl.col("user_id").clip(1, 3), item_id=pl.col("item_id").clip(1, 4)
    )
    inputs = model_inputs(events=events)
    tgnn = build(inputs)
    state = tgnn(inputs, torch.tensor([0, N_USERS]), inputs.stream.ts_ms[-2:], memory())
    assert state.isfinite().all()
    changed = replace(inputs, stream=replace(inputs.stream, message=inputs.stream.message + 1))
    assert torch.equal(
        state, tgnn(changed, torch.tensor([0, N_USERS]), inputs.stream.ts_ms[-2:], memory())
    )


def test_a_root_does_not_depend_on_the_others_in_the_batch():
    inputs = model_inputs()
    tgnn = build(inputs)
    users, _, ts = batch(inputs, size=8)
    together = tgnn(inputs, users, ts, memory())
    for i in range(8):
        alone = tgnn(inputs, users[i : i + 1], ts[i : i + 1], memory())
        torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=1e-5)


def test_time_encoding_of_zero_is_its_phase_and_scales_by_the_mean_gap():
    encoding = TimeEncoding(4, mean_gap_hours=2.0)
    assert torch.equal(encoding(torch.tensor(0)), torch.ones(4))
    expected = torch.cos(1.5 * encoding.omega)
    torch.testing.assert_close(encoding(torch.tensor(3 * HOUR)), expected)


def test_attributes_share_one_table_without_collision():
    attributes = UserAttributes((3, 2), attribute_dim=2, out_dim=4)
    assert attributes.offsets.tolist() == [0, 3]
    assert attributes.embedding.num_embeddings == 5
    assert UserAttributes((), 2, 4)(torch.zeros(3, 0, dtype=torch.int64)).shape == (3, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2}, "needs 2 numbers"),
        ({"fanout": (10, 0, 3)}, "needs 3 numbers ≥ 1"),
        ({"heads": 3}, "heads 3 must divide d_h 128"),
    ],
)
def test_wrong_sizes_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        TGNNOptions(**options)
