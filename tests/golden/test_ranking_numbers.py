"""METHODS Appendix A: NDCG and AUC test vectors."""

import numpy as np
import pytest

from reelrank.evaluation.classification import auc
from reelrank.evaluation.ranking import ndcg, ndcg_from_ranks


def test_single_target_at_rank_3():
    assert ndcg_from_ranks([3], [0], 1, 5)[1] == pytest.approx(0.5)
    assert ndcg([5, 4, 3, 2, 1], [0, 0, 1, 0, 0], np.zeros(5), 5)[1] == pytest.approx(0.5)


def test_hits_at_ranks_2_and_4_with_3_relevant():
    assert ndcg_from_ranks([2, 4, 6], [0, 0, 0], 3, 5)[1] == pytest.approx(0.498189, abs=5e-7)
    relevance = [0, 1, 0, 1, 0, 1]
    value = ndcg([6, 5, 4, 3, 2, 1], relevance, np.zeros(6), 5)[1]
    assert value == pytest.approx(0.498189, abs=5e-7)


def test_auc_by_user():
    assert auc([1, 0, 0, 1], [0.9, 0.8, 0.1, 0.4]) == 0.75
    assert auc([0, 1], [0.3, 0.3]) == 0.5
    assert np.isnan(auc([1, 1], [0.1, 0.2]))
    assert auc([0, 0, 1], [0.5, 0.2, 0.1]) == 0
