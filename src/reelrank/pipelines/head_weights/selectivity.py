"""GV-09: do recommendations beyond the rule change how choosy a user is?

A user skips what is worth less than a threshold: P(neg) = σ(b·(τ_s − v)) with v = w·p̂ of a shown item and τ_s the selectivity of
session s. The change of τ around a session is regressed on that session's residual:

    Δτ̃_s = α + β_μ D_μ,s + β_σ D_σ,s,   Δτ_s = τ_{s+1} − τ_{s−1},   D = D_mean, D_sd

τ is read before and after, never from the items whose D is the treatment: both are made of the same predictions, and their errors
would answer each other [D]. The placebo puts D_{s+2} for D_s, which comes after both readings and must explain nothing.

Source: METHODS §6.7 (follow-up design [A]), §9 GV-09; the poster's future direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field
from scipy.special import expit

from reelrank.evaluation.off_policy.folds import FOLDS, user_folds
from reelrank.options import Options
from reelrank.pipelines.head_weights.problem import RankingSessions

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TREATMENTS = ("d_mean", "d_sd")
EFFECT, PLACEBO = "effect", "placebo lead"
_STEPS = 50
_LONGEST_STEP = 2.0  # logits
_DONE = 1e-9


class SelectivityOptions(Options):
    """The proxy and its regression."""

    min_shown: int = Field(
        5, ge=2, description="shown items of a session for a threshold [S: §6.6]"
    )
    trim: float = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="share of sessions left out at each end of each treatment [A]",
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="1 − confidence; level of the placebo")
    seed: int = Field(0, ge=0, description="of the folds of users")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Skip thresholds of sessions.

    Attributes:
        slope: b > 0, logits per unit of predicted value.
        tau: (S,) τ_s in units of predicted value; NaN for sessions with fewer than ``min_shown`` judged items.
        n_short: sessions without a threshold.
    """

    slope: float
    tau: FloatArray
    n_short: int


@dataclass(frozen=True, slots=True)
class Selectivity:
    """The regression and its placebo.

    Attributes:
        coefficients: role (``effect``, ``placebo lead``), term, estimate, se clustered by user, ci_low, ci_high, p_value, n, users.
        p_joint: role → p that both β are 0 (F clustered by user).
        trimmed: role → sessions left out at the ends of the treatments.
        placebo_passed: the lead explains nothing at level alpha.
        sentence: what was found, in words.
    """

    coefficients: pl.DataFrame
    p_joint: dict[str, float]
    trimmed: dict[str, int]
    placebo_passed: bool
    sentence: str


def session_thresholds(
    sessions: RankingSessions,
    value: npt.ArrayLike,
    neg: npt.ArrayLike,
    options: SelectivityOptions | None = None,
) -> Thresholds:
    """Fit b by a logistic regression of neg on v over all shown items, then τ_s session by session.

    τ_s = a_s / b, where a_s is the intercept of the session's own logistic regression with offset −b·v by Firth's penalised
    likelihood [R: Firth 1993]: finite where everything or nothing was skipped, free of bias to first order in few items, and not
    shrunk, which would shrink β. b itself is an average over sessions: where τ varies much (sd of b·τ above 1) it is some 10 % low.

    Args:
        sessions: S sessions with N candidates.
        value: (N,) w·p̂.
        neg: (N,) 1 = skipped within 2 s, 0 = not; NaN = not known, and anything for items not shown.
        options: shortest session.

    Raises:
        ValueError: sizes differ, a label is not 0, 1 or NaN, or skips do not fall with the value.
    """
    import statsmodels.api as sm  # noqa: PLC0415 (slow to import)

    o = options or SelectivityOptions()
    v, y = np.asarray(value, np.float64), np.asarray(neg, np.float64)
    if len(v) != len(sessions.item_id) or len(y) != len(v):
        raise ValueError(f"{len(v)} values and {len(y)} labels for {len(sessions.item_id)} candidates")  # fmt: skip
    judged = (sessions.rank_shown > 0) & ~np.isnan(y)
    if not np.isin(y[judged], (0, 1)).all():
        raise ValueError("neg of a shown item must be 0, 1 or NaN")
    n_sessions = len(sessions.session_id)
    of_row = np.repeat(np.arange(n_sessions), np.diff(sessions.first))[judged]
    count = np.bincount(of_row, minlength=n_sessions)
    used = count[of_row] >= o.min_shown
    v, y, of_row = v[judged][used], y[judged][used], of_row[used]
    if len(np.unique(y)) < 2 or np.ptp(v) == 0:
        raise ValueError(f"{len(y)} judged items in sessions of {o.min_shown} and more: neg and value must vary for a threshold")  # fmt: skip
    pooled = sm.Logit(y, sm.add_constant(v)).fit(disp=0)
    slope = -float(pooled.params[1])
    if slope <= 0:
        raise ValueError(f"neg rises with the predicted value (slope {-slope:.3g}): no threshold is defined; look at weights and heads")  # fmt: skip
    intercept = _firth_intercepts(y, -slope * v, of_row, n_sessions, float(pooled.params[0]))
    tau = np.where(count >= o.min_shown, intercept / slope, np.nan)
    return Thresholds(slope, tau, int((count < o.min_shown).sum()))


def _firth_intercepts(
    y: FloatArray, offset: FloatArray, of_row: IntArray, n: int, start: float
) -> FloatArray:
    """Roots of Σ (y − π) + Σ h·(½ − π) / Σ h = 0 with h = π(1 − π), for each session at once."""
    a = np.full(n, start)
    for _ in range(_STEPS):
        p = expit(a[of_row] + offset)
        h = p * (1 - p)
        information = np.bincount(of_row, h, n) + 1e-300
        score = np.bincount(of_row, y - p, n) + np.bincount(of_row, h * (0.5 - p), n) / information
        step = np.clip(score / information, -_LONGEST_STEP, _LONGEST_STEP)
        a += step
        if np.abs(step).max() < _DONE:
            break
    return a


def selectivity_regression(
    residuals: pl.DataFrame,
    tau: npt.ArrayLike,
    covariates: pl.DataFrame,
    options: SelectivityOptions | None = None,
) -> Selectivity:
    """β of the residual of a session on the change of selectivity around it, and of the placebo.

    Treatments are the residuals minus what noise alone leaves. Sessions of a user and burst follow each other by ts_start. Δτ and
    both treatments are taken minus their linear prediction from ``covariates`` by the sessions of other folds of users.

    Args:
        residuals: ``SessionResiduals``, S rows.
        tau: (S,) from ``session_thresholds``, in the same order.
        covariates: (S, q) numeric columns known before each session, same order, no nulls; may have no column.
        options: trimming, level.

    Raises:
        ValueError: sizes differ, a covariate is null, or fewer than 30 sessions have what a regression needs.
    """
    o = options or SelectivityOptions()
    n = residuals.height
    t = np.asarray(tau, np.float64)
    if len(t) != n or covariates.shape[0] not in (n, 0):
        raise ValueError(f"{len(t)} thresholds and {covariates.height} rows of covariates for {n} sessions")  # fmt: skip
    x = covariates.to_numpy().astype(np.float64) if covariates.width else np.empty((n, 0))
    if not np.isfinite(x).all():
        raise ValueError("covariates hold nulls or NaN: fill them (diagnostics.design does)")
    user = residuals["user_id"].to_numpy()
    d = np.column_stack(
        [(residuals[k] - residuals[f"expected_{k}"]).to_numpy().astype(np.float64) for k in TREATMENTS]
    )  # fmt: skip
    later = _shifts(residuals)
    change = np.where(later[1] < 0, np.nan, t[later[1]]) - np.where(later[-1] < 0, np.nan, t[later[-1]])  # fmt: skip
    lead = np.where((later[2] < 0)[:, None], np.nan, d[later[2]])
    fold = user_folds(user, o.seed)
    parts, p_joint, trimmed = [], {}, {}
    for role, treatment in ((EFFECT, d), (PLACEBO, lead)):
        complete = np.isfinite(change) & np.isfinite(treatment).all(axis=1)
        low, high = (
            np.quantile(treatment[complete], [o.trim, 1 - o.trim], axis=0)
            if complete.any()
            else np.zeros((2, 2))
        )
        inside = complete & ((treatment >= low) & (treatment <= high)).all(axis=1)
        trimmed[role] = int(complete.sum() - inside.sum())
        if inside.sum() < 30:
            raise ValueError(f"{role}: {inside.sum()} sessions have a threshold before and after and a treatment; 30 are needed")  # fmt: skip
        y = np.column_stack([change, treatment])[inside]
        net = partialled_out(y, x[inside], fold[inside])
        frame, p_joint[role] = _clustered(net[:, 0], net[:, 1:], user[inside], role, o)
        parts.append(frame)
    coefficients = pl.concat(parts)
    passed = p_joint[PLACEBO] >= o.alpha
    return Selectivity(
        coefficients, p_joint, trimmed, passed, _in_words(coefficients, p_joint, passed, o)
    )


def partialled_out(y: FloatArray, x: FloatArray, fold: IntArray) -> FloatArray:
    """(n, m) y minus its least-squares prediction from x, fitted on the other folds; a fold without others takes the mean.

    Args:
        y: (n, m).
        x: (n, q), q may be 0.
        fold: (n,).
    """
    z = np.column_stack([np.ones(len(x)), x])
    net = np.empty_like(y)
    for f in range(FOLDS):
        own = fold == f
        others = ~own if not own.all() else own
        net[own] = y[own] - z[own] @ np.linalg.lstsq(z[others], y[others], rcond=None)[0]
    return net


def _shifts(residuals: pl.DataFrame) -> dict[int, IntArray]:
    """Row of the user's session so many places later in the burst, −1 where there is none."""
    over = ["user_id", "burst_id"]
    frame = residuals.select(*over, "ts_start", "session_id").with_row_index("row")
    ordered = frame.sort(*over, "ts_start", "session_id").with_columns(
        pl.col("row").cast(pl.Int64).shift(-k).over(over).fill_null(-1).alias(str(k))
        for k in (-1, 1, 2)
    )
    back = ordered.sort("row")
    return {k: back[str(k)].to_numpy() for k in (-1, 1, 2)}


def _clustered(
    y: FloatArray, d: FloatArray, user: npt.NDArray[np.int32], role: str, options: SelectivityOptions
) -> tuple[pl.DataFrame, float]:  # fmt: skip
    import statsmodels.api as sm  # noqa: PLC0415 (slow to import)

    cluster = np.unique(user, return_inverse=True)[1]
    fit = sm.OLS(y, sm.add_constant(d, has_constant="add")).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True
    )
    interval = fit.conf_int(options.alpha)
    frame = pl.DataFrame(
        {
            "role": [role] * 3,
            "term": ["constant", *TREATMENTS],
            "estimate": fit.params,
            "se": fit.bse,
            "ci_low": interval[:, 0],
            "ci_high": interval[:, 1],
            "p_value": fit.pvalues,
            "n": [len(y)] * 3,
            "users": [int(cluster.max()) + 1] * 3,
        }
    )
    return frame, float(fit.f_test(np.eye(3)[1:]).pvalue)


def _in_words(
    coefficients: pl.DataFrame, p_joint: dict[str, float], passed: bool, options: SelectivityOptions
) -> str:
    effect = coefficients.filter(pl.col("role") == EFFECT, pl.col("term") != "constant")
    values = ", ".join(
        f"{row['term']} {row['estimate']:+.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
        for row in effect.iter_rows(named=True)
    )
    if not passed:
        return f"the placebo fails (p {p_joint[PLACEBO]:.2g}): what comes after predicts the past, so {values} is no effect"
    found = "selectivity moves" if p_joint[EFFECT] < options.alpha else "no change of selectivity is seen"  # fmt: skip
    return f"{found} with the residual ({values}; p {p_joint[EFFECT]:.2g}); the placebo passes (p {p_joint[PLACEBO]:.2g})"
