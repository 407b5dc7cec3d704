"""What result rows and shares are made of: planted rankings, first places, category shares by hand."""

import numpy as np
import polars as pl
import pytest
from pipelines.head_weights.planted import PLANTED, planted_sessions, sessions_of

from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.pipelines.head_weights import evaluate
from reelrank.pipelines.head_weights.embeddings import l2_normalised
from reelrank.pipelines.head_weights.estimate import cross_fitted, whitened_heads
from reelrank.pipelines.head_weights.matching import cosine, matching
from reelrank.pipelines.head_weights.options import SoftOptions
from reelrank.pipelines.head_weights.ranked import Ranked, category_codes
from reelrank.pipelines.head_weights.unexplained import Categories, category_shares


@pytest.fixture(scope="module")
def problem():
    sessions, vectors, _ = planted_sessions(s=200, temperature=0.3)
    return matching(sessions, l2_normalised(vectors))


def test_without_noise_the_drawn_ranking_is_that_of_the_score(problem):
    drawn = evaluate.drawn_ranking(problem, PLANTED, 1e-9, np.random.default_rng(0))
    assert np.array_equal(drawn.rank_shown > 0, problem.selected(PLANTED @ problem.heads))
    assert np.array_equal(drawn.n_shown, problem.n_shown)


def test_later_places_become_candidates(problem):
    cut = evaluate.first_shown(problem.sessions, 2)
    assert (cut.n_shown == 2).all()
    kept = cut.rank_shown > 0
    assert np.array_equal(cut.rank_shown[kept], problem.sessions.rank_shown[kept])
    assert np.array_equal(cut.first, problem.sessions.first)


def test_cross_fitted_weights_leave_the_users_of_their_fold_out(problem):
    folds = cross_fitted(problem, SoftOptions(starts=1), PLANTED, 0)
    assert folds.shape == (5, 4)
    assert (cosine(folds, PLANTED) > 0.95).all()
    assert len(np.unique(folds.round(9), axis=0)) == 5


def test_variants_are_judged_on_the_sessions_they_are_given(problem):
    bootstrap = UserBootstrap(problem.users, 50, 0)
    rows = dict(
        ((row.metric, row.paired_with), row)
        for _, row in evaluate.compared(problem, problem, PLANTED, -PLANTED, "x", bootstrap)
        if row.metric != "weight"
    )
    assert rows["cosine_to_estimate", None].value == pytest.approx(-1)
    difference = rows["matching_loss", evaluate.SOFT]
    losses = problem.mean_losses(np.stack([PLANTED, -PLANTED]))
    assert difference.value == pytest.approx(losses[0] - losses[1])
    assert difference.ci_high < 0


def test_whitened_heads_have_unit_covariance(problem):
    vectors = whitened_heads(problem.sessions).vectors
    assert np.cov(vectors.T) == pytest.approx(np.eye(4), abs=0.01)


def test_category_shares_by_hand():
    """Shown: items 0, 1 (categories 7, 9), then 0, 2 (7, unknown); noise would move a tenth from 7 to 9."""
    sessions = sessions_of(np.zeros((2, 3, 4)), [[1, 2, 0], [1, 0, 2]])
    items = pl.DataFrame({"category_1": pl.Series([7, 9, None], dtype=pl.Int32)})
    code, n = category_codes(items)
    assert code.tolist() == [0, 1, -1] and n == 2
    residuals = pl.DataFrame(
        {
            "delta_category": [[0.5, -0.5, 0.0], [0.5, 0.0, -0.5]],
            "expected_delta_category": [[-0.1, 0.1, 0.0]] * 2,
        }
    )
    found = category_shares(sessions, residuals, Categories(code, n), items)
    assert found["category"].to_list() == ["7", "9", "unknown"]
    assert found["observed"].to_list() == pytest.approx([0.5, 0.25, 0.25])
    assert found["simulated"].to_list() == pytest.approx([0.0, 0.5, 0.5])
    assert found["expected"].to_list() == pytest.approx([-0.1, 0.6, 0.5])


def test_a_part_without_sessions_is_refused():
    nothing = pl.DataFrame(schema={"position": pl.Int32, "split": pl.String})
    with pytest.raises(ValueError, match="no session of val"):
        Ranked(nothing, nothing).problem("val")
