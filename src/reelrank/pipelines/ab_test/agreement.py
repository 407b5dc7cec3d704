r"""How far an estimate of effects may be believed: estimators against what really happened, over methods.

Kendall's τ over the pairs of methods, :math:`\tau = \frac{2}{M(M-1)} \sum_{i<j} sgn(x_i - x_j) sgn(y_i - y_j)`, ties counting 0; recomputed
in every resample of users, so its interval holds the noise of both sides.

Source: issue 6, METHODS §7.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, FloatArray
from reelrank.pipelines.ab_test.effects import estimate_of

TAU, SIGN, ERROR, COVERED = "kendall_tau", "sign_agreement", "effect_error", "truth_in_interval"
MIN_METHODS = 3  # fewer have no ranking to speak of


def kendall(x: FloatArray, y: FloatArray) -> FloatArray:
    """τ-a of (M,) against (M,), or of each column of (M, B); NaN where a value is."""
    first, second = np.triu_indices(len(x), 1)
    signs = np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])
    return np.asarray(signs.mean(axis=0))


def agreement_rows(
    estimator: str,
    outcome: str,
    estimated: Mapping[str, Estimate],
    truth: Mapping[str, Estimate],
    target: str,
) -> list[ResultRow]:
    """Rank correlation, share of methods with the true sign, mean |error| in points of per cent, and share of true effects inside the interval.

    Args:
        estimator: whose effects they are.
        outcome: of which response.
        estimated: effect in per cent of each method; those without a value are left out.
        truth: the same as it really was, on the same resamples.
        target: what is taken for the truth, in words.

    Returns:
        No rows for fewer than three methods.
    """
    names = [
        name
        for name, e in estimated.items()
        if name in truth and np.isfinite([e.value, truth[name].value]).all()
    ]
    if len(names) < MIN_METHODS:
        return []
    x, y = (_values(some, names) for some in (estimated, truth))
    xs, ys = (np.stack([some[n].replicates for n in names]) for some in (estimated, truth))
    correlation = estimate_of(float(kendall(x, y)), kendall(xs, ys), len(names), is_reliable=True)
    inside = [estimated[n].ci_low <= truth[n].value <= estimated[n].ci_high for n in names]
    shares = {
        SIGN: float((np.sign(x) == np.sign(y)).mean()),
        ERROR: float(np.abs(x - y).mean()),
        COVERED: float(np.mean(inside)),
    }
    return [
        ResultRow.from_estimate(estimator, TAU, correlation, group=outcome, weighting=target),
        *(ResultRow(estimator, metric, value, len(names), group=outcome, weighting=target) for metric, value in shares.items()),
    ]  # fmt: skip


def _values(effects: Mapping[str, Estimate], names: Sequence[str]) -> FloatArray:
    return np.array([effects[name].value for name in names])
