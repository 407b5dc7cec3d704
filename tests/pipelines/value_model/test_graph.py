import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from reelrank.pipelines.value_model.graph import build_graph

USER, ITEM = np.array([0, 0, 1]), np.array([0, 1, 1])


def dense(matrix):
    parts = (matrix.values.numpy(), matrix.indices.numpy(), matrix.indptr.numpy())
    return sp.csr_array(parts, shape=(len(matrix.indptr) - 1,) * 2).toarray()


def by_pyg(source, target, n):
    """PyG's normalised adjacency: row = node that receives."""
    index, weight = gcn_norm(torch.tensor(np.stack([source, target])), num_nodes=n)
    out = torch.zeros(n, n)
    return out.index_put_((index[1], index[0]), weight, accumulate=True).numpy()


def test_numbers_of_the_undirected_graph():
    # METHODS Appendix A: degrees [3, 2, 2, 3]
    found = dense(build_graph("honest", USER, ITEM, 2, 2).matrix)
    assert found.diagonal() == pytest.approx([1 / 3, 1 / 2, 1 / 2, 1 / 3])
    assert found[0, [2, 3]] == pytest.approx([0.4082, 0.3333], abs=5e-5)
    assert found[1, [2, 3]] == pytest.approx([0, 0.4082], abs=5e-5)
    assert np.array_equal(found, found.T)


def test_numbers_of_the_poster_graph():
    # METHODS Appendix A: degrees [1, 1, 2, 3]
    found = dense(build_graph("poster_literal", USER, ITEM, 2, 2).matrix)
    assert found[:2] == pytest.approx(np.eye(4)[:2])
    assert found[2] == pytest.approx([0.7071, 0, 0.5, 0], abs=5e-5)
    assert found[3] == pytest.approx([0.5774, 0.5774, 0, 0.3333], abs=5e-5)


interactions = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(interactions)
def test_both_graphs_are_pygs(pairs):
    user, item = np.array(pairs, np.int64).reshape(-1, 2).T
    literal = build_graph("poster_literal", user, item, 5, 6)
    assert dense(literal.matrix) == pytest.approx(by_pyg(user, item + 5, 11), abs=1e-6)
    assert dense(literal.transposed) == pytest.approx(dense(literal.matrix).T)
    u, v = np.unique(np.stack([user, item]), axis=1)
    source, target = np.concatenate([u, v + 5]), np.concatenate([v + 5, u])
    honest = build_graph("honest", user, item, 5, 6)
    assert dense(honest.matrix) == pytest.approx(by_pyg(source, target, 11), abs=1e-6)


@pytest.mark.parametrize("kind", ["honest", "poster_literal"])
def test_a_layer_and_its_gradients_are_gcnconvs(kind):
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, 300), rng.integers(0, 40, 300)
    graph = build_graph(kind, user, item, 30, 40)
    if kind == "honest":
        u, v = np.unique(np.stack([user, item]), axis=1)
        index = torch.tensor(np.stack([np.r_[u, v + 30], np.r_[v + 30, u]]))
    else:
        index = torch.tensor(np.stack([user, item + 30]))
    peer = GCNConv(20, 20)
    x, weight = torch.randn(70, 20, requires_grad=True), torch.randn(70, 20)
    (peer(x, index) * weight).sum().backward()
    expected, x.grad = x.grad, None
    found = graph.propagate(x @ peer.lin.weight.T) + peer.bias
    assert torch.allclose(found, peer(x, index), atol=1e-5)
    (found * weight).sum().backward()
    assert torch.allclose(x.grad, expected, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_product_does_not_depend_on_threads(threads):
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 500, 20_000), rng.integers(0, 90, 20_000)
    graph = build_graph("honest", user, item, 500, 90)
    x = torch.randn(590, 40)  # enough for threads to be started
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = graph.matrix.times(x)
        torch.set_num_threads(threads)
        assert torch.equal(graph.matrix.times(x), expected)
    finally:
        torch.set_num_threads(before)


def test_ids_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"item_id 0 … 2, expected 0 … 1"):
        build_graph("honest", np.array([0, 1]), np.array([0, 2]), 2, 2)
