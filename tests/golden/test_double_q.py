"""METHODS Appendix A: r=1, γ=.5, Q_main(s')=[.2,.7], Q_target(s')=[.9,.4] → 1.2 with double Q, 1.45 with the plain max."""

import pytest
import torch

from reelrank.pipelines.mt_dqn.losses import best_next, td_target

MAIN = torch.tensor([[0.2, 0.7]])
TARGET = torch.tensor([[0.9, 0.4]])


@pytest.mark.parametrize(("q_main", "expected"), [(MAIN, 1.2), (None, 1.45)])
def test_double_q(q_main, expected):
    following = best_next(TARGET, torch.ones(1, 2, dtype=torch.bool), q_main)
    y = td_target(torch.tensor([1.0]), following, gamma=0.5, limit=100.0)
    assert y.item() == pytest.approx(expected)
