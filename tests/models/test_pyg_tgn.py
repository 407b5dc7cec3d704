"""PyG's TGN held to the window implementation on the same events."""

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from support.model_inputs import (
    HOUR,
    N_EVENTS,
    N_ITEMS,
    N_USERS,
    TINY,
    events_frame,
    model_inputs,
    users_frame,
    with_feedback_changed_from,
)

from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.policy import RankingModel
from reelrank.models.pyg_tgn import MemoryTGN
from reelrank.models.registry import build
from reelrank.models.tgnn import WindowTGNN, graph_network
from reelrank.models.user_features import UserFeatures
from reelrank.pipelines.mt_dqn.perturb import without_edges

D_F = 6
NODES = torch.arange(N_USERS + N_ITEMS)


def options(**changes):
    return TINY["mt_dqn"].tgnn.model_copy(update={"kind": "pyg_tgn", "block": 20, **changes})


def make(inputs, **changes):
    torch.manual_seed(0)
    return graph_network(options(**changes), InputSpec.of(inputs), D_F).eval()


def memory():
    return torch.randn(N_ITEMS, D_F, generator=torch.Generator().manual_seed(1))


def at(inputs, row):
    return inputs.stream.ts_ms[row].expand(len(NODES))


def test_the_parameter_chooses_the_implementation():
    inputs = model_inputs()
    assert isinstance(make(inputs), MemoryTGN)
    assert isinstance(make(inputs, kind="window"), WindowTGNN)


@pytest.mark.parametrize(("block", "k"), [(1, 6), (7, 2), (20, 2), (20, 6)])
def test_the_same_neighbours_in_the_same_windows(block, k):
    # items 0 and 1 get most of a block's events: PyG alone would keep any k of them
    events = events_frame().with_columns(
        ts_ms=pl.lit(1_650_000_000_000) + pl.int_range(N_EVENTS) * HOUR,
        item_id=pl.when(pl.int_range(N_EVENTS) % 4 > 0).then(pl.int_range(N_EVENTS) % 2).otherwise("item_id").cast(pl.Int32),
    )  # fmt: skip
    inputs = model_inputs(events=events)
    tgn = make(inputs, block=block, fanout=(k, 1))
    for row in (0, 61, N_EVENTS - 1):
        tgn(inputs, NODES, at(inputs, row), memory())
        found, seen = tgn.neighbours(NODES)
        # what a full block does not hold yet is not seen
        first = inputs.stream.ts_ms[row // block * block]
        expected, mask = inputs.stream.last_k(NODES, first.expand(len(NODES)), k)
        assert torch.equal(seen, mask)
        assert torch.equal(found, expected)


def test_events_that_the_graph_lacks_are_not_played():
    inputs = model_inputs()
    thin = replace(inputs, stream=without_edges(inputs.stream, 0.5, seed=0))
    tgn = make(inputs, block=1, fanout=(5, 1))
    tgn(thin, NODES, at(inputs, -1), memory())
    found, seen = tgn.neighbours(NODES)
    expected, mask = thin.stream.last_k(NODES, at(inputs, -1), 5)
    assert torch.equal(seen, mask) and torch.equal(found, expected)
    empty = replace(inputs, stream=without_edges(inputs.stream, 1.0, seed=0))
    assert tgn(empty, NODES, at(inputs, -1), memory()).isfinite().all()


def shared(window, tgn):
    """Give both the weights under which Eq. 11 and a ``TransformerConv`` on an empty memory say the same."""
    d, big = window.options.d_h, 100.0
    layer, conv = window.layers[0], tgn.layers[0]
    n_event = window.options.message_dim + window.options.content_dim
    with torch.no_grad():
        for name in ("user_base", "item_base", "feedback", "content"):
            getattr(tgn, name).load_state_dict(getattr(window, name).state_dict())
        # Φ is of other times on either side: without weight
        layer.time_kv.weight.zero_()
        layer.query.weight[:, d:] = 0
        # PyG has one map of edges for keys and values
        edge = layer.event_kv.weight[:d, d:]
        layer.event_kv.weight[d:, d:] = edge
        conv.lin_edge.weight.zero_()
        conv.lin_edge.weight[:, :n_event] = edge
        conv.lin_query.weight.copy_(layer.query.weight[:, :d])
        conv.lin_query.bias.copy_(layer.query.bias)
        for mine, rows in ((conv.lin_key, slice(0, d)), (conv.lin_value, slice(d, None))):
            mine.weight.copy_(layer.event_kv.weight[rows, :d])
            mine.bias.copy_(layer.event_kv.bias[rows])
        # the merge hands the context on: ReLU(c + x) − c
        first, _, last = layer.merge
        first.weight.zero_()
        first.weight[:, :d] = torch.eye(d)
        first.bias.fill_(big)
        last.weight.copy_(torch.eye(d))
        last.bias.fill_(-big)
        conv.lin_skip.weight.zero_()
        conv.lin_skip.bias.zero_()
        tgn.norms[0].load_state_dict(layer.norm.state_dict())
        # an update gate that is shut: the memory stays 0
        tgn.memory.gru.bias_hh[d : 2 * d] = 1e4
    return window.double(), tgn.double()


def test_equal_outputs_with_shared_weights_where_the_mathematics_is_equal():
    events = events_frame().with_columns(ts_ms=pl.lit(1_650_000_000_000) + pl.int_range(N_EVENTS) * HOUR)  # fmt: skip
    inputs = model_inputs(events=events)
    stream = replace(inputs.stream, message=inputs.stream.message.double())
    inputs = replace(inputs, stream=stream)
    sizes = {"layers": 1, "fanout": (4,), "block": 1}
    window, tgn = shared(make(inputs, kind="window", **sizes), make(inputs, **sizes))
    for row in (0, 3, 90, N_EVENTS - 1):
        with torch.no_grad():
            expected = window(inputs, NODES, at(inputs, row), memory().double())
            found = tgn(inputs, NODES, at(inputs, row), memory().double())
        assert found.shape == expected.shape == (len(NODES), 4)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_only_events_strictly_before_are_seen():
    inputs = model_inputs()
    t = inputs.stream.ts_ms[100]
    ts = t.expand(len(NODES))
    later = with_feedback_changed_from(inputs, t)
    tgn = make(inputs, block=1)
    assert torch.equal(tgn(inputs, NODES, ts, memory()), tgn(later, NODES, ts, memory()))
    earlier = with_feedback_changed_from(inputs, t - 10 * HOUR)
    assert not torch.equal(tgn(inputs, NODES, ts, memory()), tgn(earlier, NODES, ts, memory()))


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_a_state_depends_on_its_time_alone_not_on_the_calls_before(mode):
    inputs = model_inputs()
    tgn = make(inputs, dropout=0.0).train(mode)
    rows = torch.tensor([150, 20, 90, 21, 0, 149, 60])
    ts, nodes = inputs.stream.ts_ms[rows], NODES[: len(rows)]
    together = tgn(inputs, nodes, ts, memory())
    for i in (2, 0, 4, 6, 1):  # forth and back
        alone = tgn(inputs, nodes[i : i + 1], ts[i : i + 1], memory())
        torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=1e-5)
    fresh = make(inputs, dropout=0.0)(inputs, nodes, ts, memory())
    torch.testing.assert_close(fresh, together, atol=1e-6, rtol=1e-5)


def test_the_memory_learns_and_is_no_part_of_the_weights():
    inputs = model_inputs()
    tgn = make(inputs).train()
    tgn(inputs, NODES, at(inputs, 150), memory()).sum().backward()
    assert tgn.memory.gru.weight_ih.grad.abs().sum() > 0
    assert not any(name.startswith("memory.memory") for name in tgn.state_dict())
    twin = copy.deepcopy(tgn).eval()
    again = tgn.eval()(inputs, NODES, at(inputs, 155), memory())
    torch.testing.assert_close(twin(inputs, NODES, at(inputs, 155), memory()), again)


def test_a_whole_model_learns_on_it():
    inputs = model_inputs()
    config = TINY["mt_dqn"].model_copy(update={"tgnn": options()})
    torch.manual_seed(0)
    model = build("mt_dqn", config, InputSpec.of(inputs), RankingModel)
    model.refresh(inputs)
    users, ts = inputs.stream.user[100:110], inputs.stream.ts_ms[100:110]
    items = inputs.stream.item[100:110].unsqueeze(1)
    model.train()(inputs, users, items, ts).q.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    restored = build("mt_dqn", config, InputSpec.of(inputs), RankingModel)
    restored.load_state_dict(model.eval().state_dict())
    model.refresh(inputs)
    restored.eval().refresh(inputs)
    torch.testing.assert_close(
        restored.scores(inputs, users, items, ts), model.scores(inputs, users, items, ts)
    )


def planted_stream(n=1600, n_users=40, n_items=40, groups=4, seed=0):
    """Users take nine of ten items from their own group, which the items' vectors tell."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, n_users, n)
    stray = rng.random(n) < 0.1
    group = np.where(stray, rng.integers(0, groups, n), user % groups)
    item = rng.integers(0, n_items // groups, n) * groups + group
    events = events_frame(n).with_columns(
        user_id=pl.Series(user.astype(np.int32)),
        item_id=pl.Series(item.astype(np.int32)),
        ts_ms=pl.lit(1_650_000_000_000) + pl.int_range(n) * 60_000,
    )
    inputs = ModelInputs(
        EventStream.from_frame(events, n_users, n_items),
        model_inputs().items,
        UserFeatures.from_frame(users_frame(n_users), range(n_users)),
    )
    content = np.eye(groups)[np.arange(n_items) % groups] + rng.normal(0, 0.1, (n_items, groups))
    return inputs, torch.from_numpy(content.astype(np.float32))


def next_interaction_ap(kind):
    """AP of the last quarter's events against one negative each, after three passes over the rest."""
    inputs, content = planted_stream()
    stream = inputs.stream
    torch.manual_seed(0)
    sizes = {"d_h": 16, "layers": 1, "fanout": (6,), "time_dim": 8, "message_dim": 8, "content_dim": 8, "block": 50, "dropout": 0.0}  # fmt: skip
    network = graph_network(options(kind=kind, **sizes), InputSpec.of(inputs), 4)
    link = torch.nn.Linear(16, 16)
    optimiser = torch.optim.Adam([*network.parameters(), *link.parameters()], 1e-2)
    generator = torch.Generator().manual_seed(0)

    def logits(rows):
        user, item, ts = stream.user[rows], stream.item[rows], stream.ts_ms[rows]
        other = torch.randint(0, stream.n_items, item.shape, generator=generator)
        nodes = torch.cat([user, stream.n_users + item, stream.n_users + other])
        u, v, w = network(inputs, nodes, ts.repeat(3), content).chunk(3)
        return (link(u).repeat(2, 1) * torch.cat([v, w])).sum(1)

    def truth(rows):
        return torch.cat([torch.ones(len(rows)), torch.zeros(len(rows))])

    everything = torch.arange(len(stream))
    train, test = everything[:1200], everything[1200:]
    for _ in range(3):
        for rows in train.split(50):
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(logits(rows), truth(rows)).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        score = torch.cat([logits(rows).view(2, -1) for rows in test.split(50)], 1)
    return average_precision_score(truth(test).numpy(), score.flatten().numpy())


def test_both_find_a_planted_preference_alike():
    window, memory_tgn = next_interaction_ap("window"), next_interaction_ap("pyg_tgn")
    assert window == pytest.approx(memory_tgn, abs=0.05)
    assert min(window, memory_tgn) > 0.75  # chance is 0.5
