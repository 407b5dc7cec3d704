"""Hand-checked numbers of METHODS Appendix A, and the released code's defects of §5.5: each test fails if its defect is put in."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.pipelines.ruie.losses import (
    clashes,
    distance,
    double_q_target,
    draw_negatives,
    gate,
    raw_gate,
    shared_logsumexp,
    softmax_loss,
    triplet_loss,
)
from reelrank.pipelines.ruie.options import GateOptions, TripletOptions

P = torch.tensor([0.1, 0.5, 0.9, 0.99])


def test_double_q_by_hand():
    # METHODS Appendix A: r 1, γ .5, Q_main(s') [.2, .7], Q_target(s') [.9, .4] → 1.2, plain max 1.45
    y = double_q_target(
        torch.tensor([1.0, 1.0]),
        torch.tensor([False, True]),
        torch.tensor([[0.2, 0.7], [0.2, 0.7]]),
        torch.tensor([[0.9, 0.4], [0.9, 0.4]]),
        0.5,
    )
    assert y.tolist() == pytest.approx([1.2, 1.0])


def test_gates_by_hand():
    g = raw_gate(P, torch.zeros(4), GateOptions(epsilon=1e-9))
    assert g.tolist() == pytest.approx([1 / 0.9, 2, 10, 100], rel=1e-4)
    inverse = raw_gate(P, torch.zeros(4), GateOptions(form="inverse_p"))
    assert inverse.tolist() == pytest.approx([10, 2, 1 / 0.9, 1 / 0.99], rel=1e-4)
    sigmoid = raw_gate(P, torch.tensor([0.0, 1, -1, 2]), GateOptions(form="sigmoid_q"))
    assert sigmoid.tolist() == pytest.approx([1, 1.4621, 0.5379, 1.7616], abs=1e-4)


def test_a_gate_is_clipped_and_has_mean_one_in_each_scenario():
    scenario = torch.tensor([0, 0, 0, 1])
    g = gate(P, torch.zeros(4), scenario, GateOptions())
    assert g[:3].mean() == pytest.approx(1) and g[3] == pytest.approx(1)
    assert g[2] / g[0] == pytest.approx(10 / (1 / 0.9), rel=1e-4)
    plain = gate(P, torch.zeros(4), scenario, GateOptions(normalise="none"))
    assert plain.max() == 10  # 0.99 gives 100 without the clip
    whole = gate(P, torch.zeros(4), scenario, GateOptions(normalise="batch"))
    assert whole.mean() == pytest.approx(1) and whole[:3].mean() != pytest.approx(1)


@pytest.mark.parametrize("form", ["one_minus_p", "inverse_p", "sigmoid_q"])
@pytest.mark.parametrize("attached", [False, True])
def test_defect_6_the_loss_does_not_move_the_gate_unless_attached(form, attached):
    p = P.clone().requires_grad_()
    q = torch.zeros(4, requires_grad=True)
    options = GateOptions(form=form, attached=attached, normalise="none", clip=(0.01, 1000))
    g = gate(p, q, torch.zeros(4, dtype=torch.int64), options)
    assert g.requires_grad == attached


def test_defects_4_and_5_triplet_pulls_the_target_and_pushes_the_negatives_from_one_anchor():
    anchor = torch.tensor([[1.0, 0.0]], requires_grad=True)
    positive = torch.tensor([[0.0, 1.0]], requires_grad=True)
    negatives = torch.tensor([[[0.6, 0.8]]], requires_grad=True)
    valid = torch.tensor([[True]])
    loss = triplet_loss(anchor, positive, negatives, valid, TripletOptions())
    # d(ê, e⁺) = 1, d(ê, e⁻) = 1 − 0.6: 1 − 0.4 + 0.5
    assert loss.item() == pytest.approx(1.1)
    loss.sum().backward()
    assert positive.grad[0, 0] < 0 < negatives.grad[0, 0, 0]  # a step turns e⁺ to ê, e⁻ away
    # swapped, the hinge is closed: it would be open with the sign reversed
    assert triplet_loss(negatives[:, 0], negatives[:, 0], positive[:, None], valid, TripletOptions(margin=0.1)).item() == 0  # fmt: skip


@pytest.mark.parametrize("kind", ["l2", "dot", "cosine"])
def test_a_nearer_target_has_a_smaller_loss(kind):
    anchor, near, far = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.9, 0.4]]), torch.tensor([[-1.0, 0.2]])  # fmt: skip
    options = TripletOptions(distance=kind, margin=10)
    valid = torch.tensor([[True]])
    assert distance(anchor, near, kind) < distance(anchor, far, kind)
    good = triplet_loss(anchor, near, far[:, None], valid, options)
    assert good < triplet_loss(anchor, far, near[:, None], valid, options)


def test_l2_margin_70_is_always_active_for_normal_vectors():
    # METHODS §5.4: N(0, 1) vectors in R⁶⁴ are ≈ 11.3 apart, so the released margin makes a linear loss
    torch.manual_seed(0)
    a, b, c = torch.randn(3, 500, 64)
    assert distance(a, b, "l2").mean().item() == pytest.approx(11.3, abs=0.1)
    loss = triplet_loss(a, b, c[:, None], torch.ones(500, 1, dtype=torch.bool), TripletOptions(distance="l2", margin=70))  # fmt: skip
    assert loss.min() > 0
    assert loss.mean().item() == pytest.approx(70, abs=0.5)


def test_infonce_is_a_softmax_over_cosines():
    anchor, positive = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    negatives = torch.tensor([[[0.0, 1.0], [5.0, 0.0]]])
    options = TripletOptions(distance="infonce")
    loss = triplet_loss(anchor, positive, negatives, torch.tensor([[True, False]]), options)
    expected = F.cross_entropy(torch.tensor([[10.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


@given(st.integers(2, 30), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_defect_8_negatives_are_items_and_neither_target_nor_seen(n_items, seed):
    generator = torch.Generator().manual_seed(seed)
    history = torch.randint(-1, n_items, (5, 4), generator=generator)
    target = torch.randint(0, n_items, (5,), generator=generator)
    drawn, valid = draw_negatives(history, target, n_items, 6, generator)
    assert drawn.min() >= 0 and drawn.max() < n_items
    for row in range(5):
        forbidden = {*history[row].tolist(), target[row].item()}
        for item, may in zip(drawn[row].tolist(), valid[row].tolist(), strict=True):
            assert may == (item not in forbidden)


def test_a_place_without_a_valid_negative_has_no_loss():
    a = torch.ones(1, 2)
    assert triplet_loss(a, -a, a[:, None], torch.tensor([[False]]), TripletOptions()).item() == 0


def test_sampled_softmax_estimates_the_full_one():
    torch.manual_seed(0)
    queries, items = torch.randn(20, 8) / 2, torch.randn(200, 8) / 2
    target = torch.randint(200, (20,))
    generator = torch.Generator().manual_seed(1)
    full = softmax_loss(queries, items, target, None, generator)
    torch.testing.assert_close(full, F.cross_entropy(queries @ items.T, target, reduction="none"))
    draws = [softmax_loss(queries, items, target, 100, generator) for _ in range(300)]
    # its exponential, the sum over the target's own share, is without bias
    sums = torch.stack(draws).exp()
    z = (sums.mean(0) - full.exp()) / (sums.std(0) / 300**0.5)
    assert z.abs().max() < 4
    assert softmax_loss(queries, items, target, 199, generator).equal(full)


def test_a_sampled_target_is_not_its_own_competitor():
    # two items: every draw that is the target is left out, so the loss is that of one competitor or none
    queries, items = torch.zeros(1, 2), torch.zeros(3, 2)
    generator = torch.Generator().manual_seed(0)
    found = {round(softmax_loss(queries, items, torch.tensor([0]), 1, generator).item(), 4) for _ in range(50)}  # fmt: skip
    assert found == {0.0, round(float(torch.log(torch.tensor(4.0))), 4)}


def test_the_shared_logsumexp_and_its_gradient_are_those_of_autograd():
    torch.manual_seed(0)
    queries, vectors = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 7))
    left_out = torch.rand(5, 7) < 0.3
    assert left_out.any() and not left_out.all(1).any()
    expected = (queries @ vectors.T).masked_fill(left_out, -torch.inf).logsumexp(1)
    pairs = left_out.nonzero(as_tuple=True)
    torch.testing.assert_close(shared_logsumexp(queries, vectors, pairs), expected)
    assert torch.autograd.gradcheck(lambda q, v: shared_logsumexp(q, v, pairs), (queries, vectors))  # fmt: skip


def test_a_drawn_target_is_found_wherever_it_is_drawn_and_drawn_twice():
    drawn, target = torch.tensor([3, 1, 3, 0]), torch.tensor([2, 3, 0, 3])
    found = set(zip(*(side.tolist() for side in clashes(drawn, target, 5)), strict=True))
    assert found == {(1, 0), (1, 2), (2, 3), (3, 0), (3, 2)}


def test_the_cosine_distance_is_torchs_and_a_vector_of_zeros_has_a_gradient():
    a, b = torch.randn(4, 6, requires_grad=True), torch.randn(4, 3, 6)
    b[0, 0] = 0
    b.requires_grad_()
    found = distance(a[:, None], b, "cosine")
    torch.testing.assert_close(found, 1 - torch.cosine_similarity(a[:, None], b, dim=-1))
    found.sum().backward()
    assert torch.isfinite(a.grad).all() and torch.isfinite(b.grad).all()


def test_a_place_whose_sampled_items_are_all_its_target_has_no_loss_and_no_gradient():
    queries, items = torch.randn(3, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    left_out = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    lse = shared_logsumexp(queries, items[:2], left_out)
    loss = torch.logaddexp(queries[:, 0], lse) - queries[:, 0]
    loss.sum().backward()
    assert loss[0] == 0 and queries.grad[0].abs().max() == 0
    assert torch.isfinite(queries.grad).all() and torch.isfinite(items.grad).all()
