from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.value_examples import random_inputs, random_labels

from reelrank.models.value_inputs import FeatureBlock
from reelrank.models.value_model import ValueSpec
from reelrank.pipelines.value_model import kernels
from reelrank.pipelines.value_model.graph import build_graph
from reelrank.pipelines.value_model.model import (
    GNN,
    EdgeMLP,
    FusedEdges,
    ValueTensors,
    can_fuse,
    edges_at,
    fused_loss,
    masked_loss,
)
from reelrank.pipelines.value_model.options import EdgeMlpOptions, GnnOptions


def networks(inputs, hidden=(16, 8)):
    torch.manual_seed(0)
    spec = ValueSpec.of(inputs)
    yield EdgeMLP(EdgeMlpOptions(hidden=hidden), spec)
    yield GNN(GnnOptions(hidden=hidden, width=12), spec)


def graph_of(inputs, kind="honest"):
    sizes = len(inputs.user.continuous), len(inputs.item.continuous)
    return build_graph(kind, inputs.user_id, inputs.item_id, *sizes)


def concatenated(network, data, vectors):
    """The unfactored form: one long row for every edge."""
    n_users = network.spec.n_users
    user = torch.cat([vectors[:n_users], network.user(data.user)], 1)[data.user_id]
    item = torch.cat([vectors[n_users:], network.item(data.item)], 1)[data.item_id]
    x = torch.cat([user, item, network.edge(data.edge)], 1)
    return network.rest(F.linear(x, network.first.weight, network.first.bias))


def test_factored_is_concatenated():
    inputs = random_inputs()
    data, graph = ValueTensors.of(inputs), graph_of(inputs)
    rows = torch.tensor([5, 5, 0, 59, 17])
    for network in networks(inputs):
        vectors = network.propagate(graph)
        expected = concatenated(network, data, vectors)
        assert torch.allclose(network(data, vectors), expected, atol=1e-5)
        assert torch.allclose(network(data, vectors, rows), expected[rows], atol=1e-5)
        network.refresh(graph)
        found = network.predict(inputs, block_rows=7)
        assert found.dtype == np.float32
        assert found == pytest.approx(expected.sigmoid().detach().numpy(), abs=1e-5)


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("edge_codes", [(5, 3), ()])
@pytest.mark.parametrize(("n_edges", "small"), [(60, 1 << 20), (700, 1 << 20), (700, 0)])
def test_fused_loss_and_gradients_are_torchs(edge_codes, n_edges, small, monkeypatch):
    monkeypatch.setattr(kernels, "_SMALL", small)  # 0: threads whatever the size
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compare_fused_with_torch(edge_codes, n_edges)
    finally:
        torch.set_num_threads(before)


def compare_fused_with_torch(edge_codes, n_edges):
    inputs = random_inputs(n_edges=n_edges, edge_codes=edge_codes)
    labels = random_labels(3, n_edges)
    rows = np.random.default_rng(4).permutation(n_edges)[: n_edges * 3 // 4]
    data, graph = ValueTensors.of(inputs), graph_of(inputs)
    edges = FusedEdges.of(inputs, labels, rows)
    assert (np.diff(edges.codes[:, 0]) >= 0).all()
    chosen = torch.from_numpy(rows)
    known = torch.from_numpy(labels)[chosen]
    for network in networks(inputs, hidden=(20,)):
        assert can_fuse(network)
        vectors = network.propagate(graph)
        plain = masked_loss(network(data, vectors, chosen), known)
        expected = gradients(network, plain)
        fused = fused_loss(network, edges, data, network.propagate(graph))
        found = gradients(network, fused)
        assert fused.item() == pytest.approx(plain.item(), abs=1e-5)
        assert found.keys() == expected.keys()
        for name, grad in expected.items():
            assert torch.allclose(found[name], grad, atol=1e-6, rtol=1e-4), name


def test_fused_loss_without_continuous_edge_features():
    inputs = random_inputs()
    none = np.zeros((60, 0), np.float32)
    edge = FeatureBlock(none, inputs.edge.categorical, inputs.edge.cardinalities)
    inputs = replace(inputs, edge=edge)
    labels, rows, data = random_labels(3, 60), np.arange(60), ValueTensors.of(inputs)
    network = next(networks(inputs, hidden=(20,)))
    fused = fused_loss(network, FusedEdges.of(inputs, labels, rows), data, network.vectors)
    plain = masked_loss(network(data, network.vectors), torch.from_numpy(labels))
    assert fused.item() == pytest.approx(plain.item(), abs=1e-5)


def test_a_loss_that_is_not_a_number_stays_visible():
    inputs = random_inputs()
    network = next(networks(inputs, hidden=(20,)))
    edges = FusedEdges.of(inputs, random_labels(3, 60), np.arange(60))
    torch.nn.init.constant_(network.rest[-1].bias, torch.nan)
    assert fused_loss(network, edges, ValueTensors.of(inputs), network.vectors).isnan()


def test_deep_networks_are_not_fused():
    assert not any(can_fuse(network) for network in networks(random_inputs()))


def test_unknown_heads_do_not_count():
    logits = torch.tensor([[0.0, 2.0, -1.0, 5.0], [1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, -1, -1], [-1, -1, -1, -1]], dtype=torch.int8)
    loss = masked_loss(logits, labels)
    assert loss.item() == pytest.approx((np.log(2) + np.log1p(np.exp(2))) / 2)
    loss.backward()
    assert (logits.grad[labels < 0] == 0).all()
    assert masked_loss(logits, torch.full_like(labels, -1)).item() == 0


def test_users_of_the_poster_graph_get_no_messages():
    inputs = random_inputs()
    graph = graph_of(inputs, "poster_literal")
    *_, network = networks(inputs)
    vectors = network.propagate(graph)
    alone = network.propagate(build_graph("honest", np.array([], int), np.array([], int), 7, 11))
    assert torch.allclose(vectors[:7], alone[:7], atol=1e-6)
    linked = torch.from_numpy(np.unique(inputs.item_id)).long() + 7
    assert (vectors[linked] - alone[linked]).abs().max(dim=1).values.min() > 1e-3


def test_a_cold_item_hears_from_nobody():
    inputs = random_inputs()  # item 10 has no edge
    *_, network = networks(inputs)
    before = network.propagate(graph_of(inputs))
    with torch.no_grad():
        network.embedding.weight[:10] += 1.0
    after = network.propagate(graph_of(inputs))
    assert torch.equal(after[17], before[17])
    network.refresh(graph_of(inputs))
    cold = replace(edges_at(inputs, slice(0, 3)), item_id=np.full(3, 10, np.int32))
    assert np.isfinite(network.predict(cold, 10)).all()


def test_predict_refuses_what_it_was_not_made_for():
    inputs = random_inputs()
    mlp, gnn = networks(inputs)
    with pytest.raises(RuntimeError, match="refresh"):
        gnn.predict(inputs, 10)
    with pytest.raises(ValueError, match=r"8 users, the model was made for 7"):
        mlp.predict(random_inputs(n_users=8), 10)
    bad = inputs.edge.categorical.copy()
    bad[4, 1] = 3
    edge = FeatureBlock(inputs.edge.continuous, bad, inputs.edge.cardinalities)
    with pytest.raises(ValueError, match=r"edge features, categorical column 1: codes 0 … 3"):
        mlp.predict(replace(inputs, edge=edge), 10)


def test_widths_of_embeddings():
    options = EdgeMlpOptions()
    # METHODS §6.3: min(32, max(4, round(8 · card^¼)))
    assert [options.embedding_dim(n) for n in (1, 2, 10, 100, 255, 10_000)] == [
        8,
        10,
        14,
        25,
        32,
        32,
    ]
