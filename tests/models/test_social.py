"""Who follows whom, and what a user takes from those it follows."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from support.model_inputs import (
    HOUR,
    N_ITEMS,
    N_USERS,
    TINY,
    model_inputs,
    with_feedback_changed_from,
)

from reelrank.models.follow_graph import FollowGraph
from reelrank.models.inputs import InputSpec
from reelrank.models.options import SocialOptions
from reelrank.models.tgnn import graph_network

D_F = 6


def edges(pairs, ts=None):
    src, dst = zip(*pairs, strict=True) if pairs else ((), ())
    return pl.DataFrame(
        {"src": src, "dst": dst, "ts": [None] * len(pairs) if ts is None else ts},
        schema={"src": pl.Int32, "dst": pl.Int32, "ts": pl.Int64},
    )


PAIRS = [(0, 1), (0, 2), (1, 3), (4, 5)]


def followed(pairs=PAIRS):
    return replace(model_inputs(), follows=FollowGraph.from_frame(edges(pairs), N_USERS, 0))


def make(hops, seed=0):
    inputs = model_inputs()
    torch.manual_seed(seed)
    social = SocialOptions(hops=hops, heads=2, every_hours=5)
    options = TINY["mt_dqn"].tgnn.model_copy(update={"social": social})
    return graph_network(options, InputSpec.of(inputs), D_F).eval()


def memory():
    return torch.randn(N_ITEMS, D_F, generator=torch.Generator().manual_seed(1))


def states(network, inputs, row=120):
    users = torch.arange(N_USERS)
    return network(inputs, users, inputs.stream.ts_ms[row].expand(N_USERS), memory())


def test_edges_known_by_a_time_once_each_and_in_order():
    frame = edges([(0, 2), (0, 1), (0, 1), (2, 0), (1, 2)], [None, 5, 5, 6, 7])
    graph = FollowGraph.from_frame(frame, 3, known_by=6)
    assert graph.offset.tolist() == [0, 2, 2, 3]
    assert graph.followed.tolist() == [1, 2, 0]
    row, who = graph.of(torch.tensor([2, 1, 0]), most=1)
    assert row.tolist() == [0, 2] and who.tolist() == [0, 1]
    with pytest.raises(ValueError, match="edge 0 → 3 is outside 0 … 2"):
        FollowGraph.from_frame(edges([(0, 3)]), 3, 0)


def test_rewired_users_follow_as_many_and_never_themselves():
    rng = np.random.default_rng(0)
    graph = FollowGraph.from_frame(edges([tuple(p) for p in rng.integers(0, 50, (300, 2)).tolist()]), 50, 0)  # fmt: skip
    other = graph.rewired(seed=1)
    assert torch.equal(other.offset, graph.offset)
    row = torch.repeat_interleave(torch.arange(50), graph.offset.diff())
    assert not (other.followed == row).any()
    assert (other.followed == graph.followed).float().mean() < 0.1
    assert torch.equal(other.followed, graph.rewired(seed=1).followed)


@pytest.mark.parametrize(
    ("hops", "reached"), [(0, {0}), (1, {0, 1, 2}), (2, {0, 1, 2, 3})], ids=str
)
def test_a_user_hears_of_those_within_its_hops(hops, reached):
    """Feedback of one user's events reaches user 0 through edges alone: the inner network here is a user's own events."""
    inputs = followed()
    network = make(hops)
    own = states(network.network, inputs)
    for friend in range(6):
        stream = inputs.stream

        class Told(type(network.network)):
            """States of one user are other than they were."""

            def forward(self, inputs, nodes, ts, memory):
                h = super().forward(inputs, nodes, ts, memory)
                return h + (nodes == friend).unsqueeze(1).float()  # noqa: B023

        told = make(hops)
        told.network.__class__ = Told
        changed = not torch.allclose(states(told, inputs)[0], states(network, inputs)[0])
        assert changed == (friend in reached), friend
    assert own.shape == (len(torch.arange(N_USERS)), 4) and stream is inputs.stream


def test_items_keep_their_states_and_users_without_edges_are_alike_in_any_graph():
    network = make(1)
    inputs = followed()
    nodes = torch.arange(N_USERS, N_USERS + N_ITEMS)
    ts = inputs.stream.ts_ms[120].expand(N_ITEMS)
    assert torch.equal(
        network(inputs, nodes, ts, memory()), network.network(inputs, nodes, ts, memory())
    )
    alone, other = states(network, inputs), states(network, followed([(4, 5)]))
    torch.testing.assert_close(alone[[3, 6]], other[[3, 6]])


def test_what_diffuses_is_strictly_past():
    inputs = followed([(u, v) for u in range(N_USERS) for v in range(N_USERS) if u != v])
    network = make(2)
    t = inputs.stream.ts_ms[100]
    users = torch.arange(N_USERS)
    later = with_feedback_changed_from(inputs, t)
    assert torch.equal(
        network(inputs, users, t.expand(N_USERS), memory()),
        network(later, users, t.expand(N_USERS), memory()),
    )
    earlier = with_feedback_changed_from(inputs, t - 10 * HOUR)
    assert not torch.equal(
        network(inputs, users, t.expand(N_USERS), memory()),
        network(earlier, users, t.expand(N_USERS), memory()),
    )


def test_gradient_reaches_every_weight_and_a_source_without_edges_is_refused():
    network = make(2).train()
    states(network, followed()).sum().backward()
    assert all(p.grad is not None for p in network.layers.parameters())
    with pytest.raises(ValueError, match="social_edges"):
        states(network, model_inputs())
