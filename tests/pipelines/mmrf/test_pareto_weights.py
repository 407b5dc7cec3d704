import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize, nnls

from reelrank.pipelines.mmrf.baselines.pareto import code_step, min_norm_weights

ENTRY = st.floats(-5, 5, allow_nan=False, width=32)
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 9))


def by_nnls(gradients):
    """min ‖gᵀw‖ s.t. w ≥ 0 and, by a heavy row of ones, Σ w = 1."""
    heavy = 1e4 * max(1.0, np.abs(gradients).max())
    system = np.vstack([gradients.T, np.full(len(gradients), heavy)])
    weights, _ = nnls(system, np.append(np.zeros(gradients.shape[1]), heavy))
    return weights / weights.sum()


def norm(gradients, weights):
    return float(np.square(gradients.T @ weights).sum())


@given(SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=ENTRY)))
@settings(max_examples=150, deadline=None)
def test_weights_lie_on_the_simplex_and_solve_the_problem(gradients):
    weights = min_norm_weights(gradients @ gradients.T)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    scale = max(np.square(gradients).sum(1).max(), 1e-12)
    assert norm(gradients, weights) <= norm(gradients, by_nnls(gradients)) + 1e-6 * scale
    # optimality: no vertex lies lower along the gradient of the norm
    slope = gradients @ (gradients.T @ weights)
    assert (slope >= weights @ slope - 1e-6 * scale).all()


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_slsqp(seed):
    gradients = np.random.default_rng(seed).normal(size=(7, 40)) + 0.3
    gram = gradients @ gradients.T
    found = minimize(
        lambda w: w @ gram @ w,
        np.full(7, 1 / 7),
        jac=lambda w: 2 * gram @ w,
        bounds=[(0, 1)] * 7,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    weights = min_norm_weights(gram)
    assert weights @ gram @ weights == pytest.approx(found.fun, rel=1e-6)
    np.testing.assert_allclose(weights, found.x, atol=1e-5)


def test_known_answers():
    # opposite gradients cancel; of two in one direction the shorter wins; orthogonal ones weigh as 1/‖g‖²
    np.testing.assert_allclose(min_norm_weights(np.array([[4.0, -2], [-2, 1]])), [1 / 3, 2 / 3])
    np.testing.assert_allclose(min_norm_weights(np.array([[4.0, 2], [2, 1]])), [0, 1])
    np.testing.assert_allclose(min_norm_weights(np.diag([1.0, 4.0])), [0.8, 0.2])
    np.testing.assert_allclose(min_norm_weights(np.zeros((3, 3))), np.full(3, 1 / 3))
    np.testing.assert_allclose(min_norm_weights(np.ones((3, 3))).sum(), 1)
    # a gradient that is 0 is the shortest vector itself
    np.testing.assert_allclose(min_norm_weights(np.diag([1.0, 0.0, 2.0])), [0, 1, 0])


def test_the_codes_step_by_hand():
    weights = torch.tensor([0.5, 0.5]).double()
    gram = torch.tensor([[4.0, 0.0], [0.0, 2.0]]).double()
    # ⟨g, g_i⟩ = (2, 1): 0.5 − 0.1·2, 0.5 − 0.1·1, then divided by their sum
    torch.testing.assert_close(code_step(weights, gram, 0.1, 1000.0), torch.tensor([3 / 7, 4 / 7]).double())  # fmt: skip
    clipped = code_step(weights, gram * 1e9, 1e-10, 1000.0)
    torch.testing.assert_close(clipped, weights)  # as published the weights hardly move
    assert code_step(weights, gram, 0.4, 1000.0).tolist() == [0.0, 1.0]
