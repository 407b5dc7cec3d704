import numpy as np
import pytest
from pipelines.head_weights.planted import PLANTED, planted_sessions

from reelrank.pipelines.head_weights.embeddings import l2_normalised
from reelrank.pipelines.head_weights.inference import (
    angles_of,
    collinearity,
    direction_of,
    infer_hard,
    infer_soft,
    profiles,
)
from reelrank.pipelines.head_weights.matching import cosine, matching, on_sphere
from reelrank.pipelines.head_weights.options import InferenceOptions, SearchOptions, SoftOptions
from reelrank.pipelines.head_weights.search import directions, fit_soft, search

SMALL = {"directions": 64, "starts": 1, "generations": 10, "trials": 40, "adam_steps": 60}


def layout(**changes):
    sessions, vectors, t = planted_sessions(**changes)
    return matching(sessions, l2_normalised(vectors)), t


def test_directions_cover_the_sphere_evenly():
    w = directions(1000, 0)
    np.testing.assert_allclose(np.abs(w).sum(axis=1), 1)
    assert np.unique(np.sign(w), axis=0).shape == (16, 4)
    np.testing.assert_allclose(w.mean(axis=0), 0, atol=0.02)


def test_planted_weights_and_temperature_are_recovered():
    problem, t = layout()
    fit = fit_soft(problem, SoftOptions())
    assert cosine(fit.weights, PLANTED) > 0.98
    assert fit.converged
    # the inclusion formula lets T come out a few percent low with 5 of 20 shown
    assert fit.temperature == pytest.approx(t, rel=0.2)
    gradient = problem.soft(fit.beta).gradient.mean(axis=0)
    np.testing.assert_allclose(gradient * fit.beta, 0, atol=1e-4)


@pytest.mark.parametrize("method", ["cma", "nelder_mead", "tpe", "cmaes_sampler", "soft_topk"])
def test_searches_reach_the_planted_direction_at_low_noise(method):
    problem, _ = layout(temperature=0.05)
    found = search(problem, SearchOptions(method=method, **SMALL))
    assert np.abs(found.weights).sum() == pytest.approx(1)
    assert cosine(found.weights, PLANTED) > 0.95
    assert found.loss == pytest.approx(problem.losses(found.weights).mean())


def test_the_half_sphere_finds_the_same_where_it_reaches():
    problem, _ = layout(temperature=0.05)
    full = search(problem, SearchOptions(**SMALL))
    half = search(problem, SearchOptions(sphere="half", **SMALL))
    assert cosine(full.weights, half.weights) > 0.98


def test_a_search_repeats_itself():
    problem, _ = layout(s=60)
    first, second = (search(problem, SearchOptions(**SMALL)) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.stages == second.stages


def test_intervals_hold_the_truth_and_one_step_is_enough():
    problem, _ = layout()
    fit = fit_soft(problem, SoftOptions())
    step, full = (
        infer_soft(problem, fit, InferenceOptions(replicates=60, refit=refit), SoftOptions())
        for refit in ("one_step", "full")
    )
    assert full.identified and full.weight_identified.all() and full.verdict == "identified"
    assert ((full.ci[:, 0] < PLANTED) & (full.ci[:, 1] > PLANTED)).all()
    width = full.ci[:, 1] - full.ci[:, 0]
    np.testing.assert_allclose(step.ci, full.ci, atol=0.15 * width.min())
    assert full.sign_frequency.tolist() == [1, 1, 1, 1]
    assert full.cosine_low > 0.99


def test_intervals_of_the_hard_loss():
    problem, _ = layout(s=150)
    options = InferenceOptions(replicates=20, pool=64, polish_steps=10)
    start = search(problem, SearchOptions(**SMALL)).weights
    found = infer_hard(problem, start, options, SearchOptions())
    assert (found.ci[:, 0] <= found.ci[:, 1]).all()
    assert np.isnan(found.temperature) and np.isnan(found.p_flat)
    assert found.cosine_low > 0.9


def test_collinear_heads_are_not_identified():
    problem, _ = layout(same_heads=True)
    shared = collinearity(problem)
    assert shared.correlation[0, 1] == pytest.approx(1)
    assert shared.condition_index > 1000
    fit = fit_soft(problem, SoftOptions())
    found = infer_soft(problem, fit, InferenceOptions(replicates=20), SoftOptions())
    assert not found.identified
    assert found.weight_identified[:2].tolist() == [False, False]
    assert found.verdict.startswith("not identified: complete is a combination of the other heads")


def test_a_random_ranking_identifies_nothing():
    problem, _ = layout(temperature=np.inf)
    fit = fit_soft(problem, SoftOptions())
    found = infer_soft(problem, fit, InferenceOptions(replicates=60), SoftOptions())
    assert not found.identified
    assert found.p_flat > 0.01
    assert "does not depend on the heads" in found.verdict


def test_variance_inflation_is_that_of_a_regression():
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    sessions, vectors, _ = planted_sessions(s=50)
    heads = sessions.heads.reshape(50, 20, 4).astype(float)
    x = (heads - heads.mean(axis=1, keepdims=True)).reshape(-1, 4)
    expected = [variance_inflation_factor(x, j) for j in range(4)]
    shared = collinearity(matching(sessions, l2_normalised(vectors)))
    np.testing.assert_allclose(shared.vif, expected, rtol=1e-5)


def test_angles_and_back():
    w = directions(200, 1)
    back = np.stack([direction_of(angles_of(one)) for one in w])
    np.testing.assert_allclose(back, w, atol=1e-12)


def test_profiles_are_lowest_at_the_estimate():
    problem, _ = layout(s=100, temperature=0.05)
    options = InferenceOptions(angles=7, landscape=9)
    at = search(problem, SearchOptions(**SMALL))
    found = profiles(problem, at.weights, options, SearchOptions())
    assert (found.losses.argmin(axis=1) == 3).all()
    assert found.landscape[4, 4] == pytest.approx(at.loss)
    assert found.landscape.min() == pytest.approx(at.loss, rel=0.05)
    assert (found.rise_z > 3).all()


def test_a_direction_is_needed():
    with pytest.raises(ValueError, match="no direction"):
        on_sphere([0, 0, 0, 0])
