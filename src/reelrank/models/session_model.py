"""Sessions as a log has them: how many requests, how far apart, and whether good answers bring a user back.

Source: METHODS §4.8 [D: a feedback simulator says nothing of when users leave and return; the A/B test needs both].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from reelrank.models.feed import FeedInputs

Doubles = NDArray[np.float64]
DAY_MS = 86_400_000
GRID = np.linspace(0, 1, 65)


@dataclass(frozen=True)
class SessionModel:
    """Geometric lengths, empirical pauses, and a logistic return rule.

    Attributes:
        rows_of_request: mean rows of a request.
        requests: mean requests of a session.
        pause_ms: (65,) quantiles of the time between requests of a session.
        soon_ms: (65,) quantiles of the time to the next session, where it came within 24 hours.
        later_ms: (65,) the same of all others.
        intercept: log-odds of a return within 24 h at mean standardised responses of 0.
        weights: (7,) on the session's mean standardised responses.
        scenario_share: (S,) cumulative shares of the requests.
        scenario_stay: P(a request stays in the scenario before it).
    """

    rows_of_request: float
    requests: float
    pause_ms: Doubles
    soon_ms: Doubles
    later_ms: Doubles
    intercept: float
    weights: Doubles
    scenario_share: Doubles
    scenario_stay: float

    def p_return(self, mean: Doubles) -> Doubles:
        """P(next session within 24 h) of mean standardised responses (…, 7); unknown ones count 0."""
        return np.asarray(1 / (1 + np.exp(-self.intercept - np.nan_to_num(mean) @ self.weights)))


def fit_sessions(
    inputs: FeedInputs, standardised: Tensor, wanted: Tensor, *, gap_s: float = 1800.0
) -> SessionModel:
    """Fit on some rows of a log.

    The return rule sees only sessions whose next 24 hours lie in the log.

    Args:
        inputs: the feed.
        standardised: (R, 7) responses of all rows in train sds.
        wanted: (R,) bool, rows to learn from: train, of the users of a fold; of a user a stretch of time.
        gap_s: longest gap inside a session, s. Source: METHODS §1.3.

    Raises:
        ValueError: no row is wanted.
    """
    if not bool(wanted.any()):
        raise ValueError("no rows to fit sessions on")
    chosen = wanted.cpu().numpy()
    ts = inputs.rows.ts_ms.cpu().numpy()[chosen]
    counts = inputs.rows.first.diff().cpu().numpy()
    user = np.repeat(np.arange(len(counts)), counts)[chosen]
    answers = np.nan_to_num(standardised.cpu().numpy()[chosen].astype(np.float64))
    same = user[1:] == user[:-1]
    gap = np.diff(ts)
    new_session = np.r_[True, ~same | (gap > 1000 * gap_s)]
    new_request = np.r_[True, ~same | (gap > 0)]
    first = np.flatnonzero(new_session)
    rows = np.diff(np.r_[first, len(ts)])
    mean = np.add.reduceat(answers, first) / rows[:, None]
    end = ts[np.r_[first[1:], len(ts)] - 1]
    to_next = np.where(
        np.r_[user[first[1:]] == user[first[:-1]], False], np.r_[ts[first[1:]], 0] - end, -1
    )
    soon = (to_next >= 0) & (to_next <= DAY_MS)
    judged = soon | (end + DAY_MS <= ts.max())
    intercept, weights = _return_rule(mean[judged], soon[judged])
    within = same & (gap > 0) & (gap <= 1000 * gap_s)
    scenario = inputs.decisions.scenario[inputs.decisions.split == 0].cpu().numpy()
    owner = inputs.decisions.user[inputs.decisions.split == 0].cpu().numpy()
    share = np.bincount(scenario).cumsum() / max(len(scenario), 1)
    return SessionModel(
        rows_of_request=float(len(ts) / new_request.sum()),
        requests=float(new_request.sum() / len(first)),
        pause_ms=_quantiles(gap[within], 60_000.0),
        soon_ms=_quantiles(to_next[soon], 0.5 * DAY_MS),
        later_ms=_quantiles(to_next[to_next > DAY_MS], 2.0 * DAY_MS),
        intercept=intercept,
        weights=weights,
        scenario_share=share,
        scenario_stay=_stay(scenario, owner),
    )


def _stay(scenario: NDArray[np.int64], owner: NDArray[np.int64]) -> float:
    """P(no new draw) such that draws by share make as many equal neighbours as the log has."""
    pairs = owner[1:] == owner[:-1]
    if not pairs.any():
        return 0.0
    equal = float((scenario[1:] == scenario[:-1])[pairs].mean())
    by_chance = float(((np.bincount(scenario) / len(scenario)) ** 2).sum())
    return max(0.0, (equal - by_chance) / (1 - by_chance)) if by_chance < 1 else 0.0


def _return_rule(mean: Doubles, soon: NDArray[np.bool_]) -> tuple[float, Doubles]:
    if soon.all() or not soon.any():  # also where no session can be judged
        return (6.0 if len(soon) and soon.all() else -6.0), np.zeros(mean.shape[1])
    fitted = LogisticRegression(C=1.0, max_iter=500).fit(mean, soon)
    return float(fitted.intercept_[0]), np.asarray(fitted.coef_[0], np.float64)


def _quantiles(values: NDArray[np.int64], without: float) -> Doubles:
    """(65,) quantiles; ``without`` where there are no values."""
    return np.quantile(values, GRID) if len(values) else np.full(len(GRID), without)
