"""One call: a logged data frame and a policy in, estimates with their uncertainty and their warnings out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from reelrank.evaluation.off_policy import estimators as e
from reelrank.evaluation.off_policy.diagnostics import Diagnostics
from reelrank.evaluation.off_policy.estimators import FloatArray, IntArray, Terms
from reelrank.evaluation.off_policy.log import (
    SUM_TOLERANCE,
    ByRow,
    LoggedRows,
    OnBadRows,
    read_log,
)
from reelrank.evaluation.off_policy.reward_model import action_means
from reelrank.evaluation.off_policy.table import EstimateTable, PolicyEstimate
from reelrank.evaluation.uncertainty import Estimate, Ratio, UserBootstrap
from reelrank.options import Options

DEFAULT = ("ipw", "snipw", "ncis")
DIAGNOSTIC = "ncis_gaussian_index"
UNIFORM_TOLERANCE = 1e-6


class OffPolicyOptions(Options):
    """Caps and shrinkage, and how the intervals are made."""

    cap: float = Field(e.CAP, gt=0, description="c of the NCIS family [A]")
    ipw_lambda: float = Field(math.inf, gt=0, description="cap of ipw, mips and dr [R: obp]")
    switch_lambda: float = Field(10.0, ge=0, description="switch-dr: above it, q̂ alone [D: c]")
    shrinkage_lambda: float = Field(400.0, ge=0, description="dr-os: weights ≤ √λ/2 [D: c]")
    sub_gaussian_lambda: float = Field(
        0.01, ge=0, lt=1, description="sg-ipw, sg-dr: weights ≤ 1/λ; its bias grows with λ [D]"
    )
    groups: int = Field(e.GROUPS, ge=1, description="piece-ncis: quantiles of the value model")
    caps: tuple[float, ...] = Field(
        (1, 2, 5, 10, 20, 50, 100, math.inf),
        description="cap sweep of the estimators that have a cap; empty = none (METHODS §7.3)",
    )
    replicates: int = Field(1000, ge=1, description="resamples of users [S: METHODS §7.3]")
    seed: int = Field(0, ge=0, description="seed of resamples and of the folds of a fitted q̂")


def estimate_policy_value(
    log: pl.DataFrame,
    policy: ByRow,
    estimators: Sequence[str] = DEFAULT,
    *,
    reward: str = "reward",
    reward_model: ByRow | None = None,
    context_value: ByRow | None = None,
    behaviour: ByRow | None = None,
    categories: npt.ArrayLike | None = None,
    options: OffPolicyOptions | None = None,
    on_bad_rows: OnBadRows = "error",
    bootstrap: UserBootstrap | None = None,
) -> EstimateTable:
    """Estimate what a policy would have earned in the logged contexts.

    The answer is a bandit value: the policy chooses each action anew in the contexts that the log visited; where another policy
    would have led to other contexts, only a roll-out tells. Intervals take propensities as they are given: where they were
    estimated, their own error is not in the interval.

    Args:
        log: a row per logged action: ``user_id``; ``action``, integer ≥ 0: an item of ``candidates`` where that column of lists is
            given, else a column of the policy's matrix; ``propensity`` π_b(action|x); the reward. Optional: ``candidates``;
            ``session``, for `ncis-trajectory`, its rows in the order of its steps; ``category`` of the action, for `mips`.
        policy: π_e as (n,) probabilities of the logged actions; or (n, A) of all actions, columns in the order of the row's
            candidates, 0 beyond their end; or a function of the log that returns one of these, e.g. from
            :func:`~reelrank.evaluation.off_policy.policy_probabilities`.
        estimators: of rm, ipw, snipw, sg-ipw, mips, dm, dr, sndr, switch-dr, dr-os, sg-dr, ncis, ncis-trajectory, piece-ncis.
        reward: column of the reward.
        reward_model: (n, A) q̂ of all actions, or a function of the log; fitted on other users' rows. By default the cross-fitted
            mean reward of each action.
        context_value: (n,) V(x) for `piece-ncis`, or a function of the log.
        behaviour: (n, A) π_b of all actions for `mips`, or a function of the log.
        categories: category of each action id, for `mips`; by default what the log's ``category`` says (an action that it
            never logged is then a category of its own).
        options: caps, shrinkage, resamples.
        on_bad_rows: ``error`` names the first bad row; ``exclude`` leaves bad rows out and counts them.
        bootstrap: resamples shared with another call, whose estimates then are paired
            (:func:`reelrank.evaluation.uncertainty.paired`).

    Raises:
        ValueError: an estimator is unknown or lacks what it needs, the shapes do not fit, or a bad row.

    Source: METHODS §7.
    """
    chosen = options or OffPolicyOptions()
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if DIAGNOSTIC in unknown:
        raise ValueError(f"{DIAGNOSTIC} is a diagnostic, not an estimate: call gaussian_index_diagnostic")  # fmt: skip
    if unknown or not estimators or len(set(estimators)) < len(estimators):
        raise ValueError(f"estimators {list(estimators)}: choose some of {list(ESTIMATORS)}, once")
    rows = read_log(log, policy, reward=reward, on_bad_rows=on_bad_rows)
    inputs = _inputs(
        estimators, rows, log, chosen, reward_model, context_value, behaviour, categories
    )
    tasks = [(name, chosen) for name in estimators]
    tasks += [
        (name, chosen.model_copy(update={CAPPED[name]: cap}))
        for name in estimators
        if name in CAPPED
        for cap in chosen.caps
    ]
    terms = [ESTIMATORS[name](inputs, settings) for name, settings in tasks]
    if bootstrap is None:
        user = rows.user
        bootstrap = UserBootstrap(user, chosen.replicates, chosen.seed)
    else:
        user = log["user_id"].filter(pl.Series(rows.kept)).to_numpy()
    logged = (Ratio(rows.reward, np.broadcast_to(1.0, rows.reward.shape)),)
    on_policy, *found = bootstrap.ratios(user, [logged, *(t.parts for t in terms)])
    judged = [
        _judged(name, estimate, inputs.raw(name), t.weight, rows.propensity)
        for (name, _), estimate, t in zip(tasks, found, terms, strict=True)
    ]
    asked = len(estimators)
    return EstimateTable(
        estimates=tuple(judged[:asked]),
        on_policy=on_policy,
        n_users=int(rows.user.max()) + 1,
        excluded=rows.excluded,
        sweep=_sweep([settings for _, settings in tasks[asked:]], judged[asked:]),
    )


def gaussian_index_diagnostic(
    user: npt.ArrayLike,
    reward: npt.ArrayLike,
    index: npt.ArrayLike,
    policy_index: npt.ArrayLike,
    behaviour_index: npt.ArrayLike,
    options: OffPolicyOptions | None = None,
) -> PolicyEstimate:
    """TSCAC's NCIS over item ranks; ``reliable`` is always false: ranks are no quantity, and any two policies overlap.

    Arguments are (n,), as in :func:`~reelrank.evaluation.off_policy.estimators.gaussian_index_weight`.

    Raises:
        ValueError: lengths differ, a value is not finite, or there are no rows.

    Source: METHODS §7.2 [A].
    """
    chosen = options or OffPolicyOptions()
    columns = [np.asarray(c, np.float64) for c in (reward, index, policy_index, behaviour_index)]
    if any(c.shape != columns[0].shape or not np.isfinite(c).all() for c in columns):
        raise ValueError("reward and indices must be finite and of one length")
    rewards, shown, wanted, usual = columns
    raw = e.gaussian_index_weight(shown, wanted, usual)
    terms = e.ncis(rewards, raw, chosen.cap)
    estimate = UserBootstrap(user, chosen.replicates, chosen.seed).ratios(user, [terms.parts])[0]
    reasons = ("distances between popularity ranks carry no meaning: a diagnostic only",)
    diagnostics = Diagnostics.of(raw, terms.weight, capped=True)
    return PolicyEstimate(DIAGNOSTIC, replace(estimate, reliable=False), diagnostics, reasons)


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What the estimators read, (n,) each; None where no estimator asked for it."""

    reward: FloatArray
    weight: FloatArray
    trajectory: FloatArray | None = None
    marginal: FloatArray | None = None
    matched: FloatArray | None = None
    q_policy: FloatArray | None = None
    q_logged: FloatArray | None = None
    group: IntArray | None = None

    def raw(self, name: str) -> FloatArray:
        """The estimator's weights before cap or shrinkage."""
        special = {"ncis-trajectory": self.trajectory, "mips": self.marginal}.get(name)
        return self.weight if special is None else special


# each reads the inputs that `_inputs` made because its name was asked for
ESTIMATORS: dict[str, Callable[[Any, OffPolicyOptions], Terms]] = {
    "rm": lambda i, o: e.rm(i.reward, i.matched),
    "ipw": lambda i, o: e.ipw(i.reward, i.weight, o.ipw_lambda),
    "snipw": lambda i, o: e.snipw(i.reward, i.weight),
    "sg-ipw": lambda i, o: e.sg_ipw(i.reward, i.weight, o.sub_gaussian_lambda),
    "mips": lambda i, o: e.ipw(i.reward, i.marginal, o.ipw_lambda),
    "dm": lambda i, o: e.dm(i.weight, i.q_policy),
    "dr": lambda i, o: e.dr(i.reward, i.weight, i.q_policy, i.q_logged, o.ipw_lambda),
    "sndr": lambda i, o: e.sndr(i.reward, i.weight, i.q_policy, i.q_logged),
    "switch-dr": lambda i, o: e.switch_dr(
        i.reward, i.weight, i.q_policy, i.q_logged, o.switch_lambda
    ),
    "dr-os": lambda i, o: e.dr_os(i.reward, i.weight, i.q_policy, i.q_logged, o.shrinkage_lambda),
    "sg-dr": lambda i, o: e.sg_dr(
        i.reward, i.weight, i.q_policy, i.q_logged, o.sub_gaussian_lambda
    ),
    "ncis": lambda i, o: e.ncis(i.reward, i.weight, o.cap),
    "ncis-trajectory": lambda i, o: e.ncis(i.reward, i.trajectory, o.cap),
    "piece-ncis": lambda i, o: e.piece_ncis(i.reward, i.weight, i.group, o.cap),
}
CAPPED = {  # the option that the sweep varies
    "ipw": "ipw_lambda", "mips": "ipw_lambda", "dr": "ipw_lambda", "switch-dr": "switch_lambda",
    "ncis": "cap", "ncis-trajectory": "cap", "piece-ncis": "cap",
}  # fmt: skip
MODELLED = {"dm", "dr", "sndr", "switch-dr", "dr-os", "sg-dr"}


def _inputs(
    names: Sequence[str],
    rows: LoggedRows,
    log: pl.DataFrame,
    options: OffPolicyOptions,
    reward_model: ByRow | None,
    context_value: ByRow | None,
    behaviour: ByRow | None,
    categories: npt.ArrayLike | None,
) -> _Inputs:
    """What the named estimators read."""
    made: dict[str, Any] = {}
    weight = rows.policy / rows.propensity
    if "rm" in names:
        made["matched"] = _matched(rows.policy)
    if "ncis-trajectory" in names:
        if rows.session is None:
            raise ValueError("ncis-trajectory needs the log's column session")
        made["trajectory"] = e.trajectory_weight(weight, rows.session)
    if "piece-ncis" in names:
        if context_value is None:
            raise ValueError("piece-ncis needs context_value: V(x) of each row, to group rows by")
        value = rows.by_row(context_value, log, "context_value")
        made["group"] = e.quantile_groups(value, options.groups)
    if "mips" in names:
        if behaviour is None:
            raise ValueError("mips needs behaviour: π_b of all actions")
        logging = rows.matrix(behaviour, log, "behaviour")
        matrix, actions = rows.of_all_actions("mips")
        category = _categories(rows, actions, log, categories)
        made["marginal"] = e.marginal_weight(matrix, logging, category, rows.position)
    if asked := sorted(MODELLED.intersection(names)):
        matrix, actions = rows.of_all_actions(", ".join(asked))
        if reward_model is None:
            q = action_means(rows.user, rows.position, actions, rows.reward, options.seed)
        else:
            q = rows.matrix(reward_model, log, "reward_model")
        made["q_policy"] = (matrix * q).sum(axis=1)
        made["q_logged"] = np.take_along_axis(q, rows.position[:, None], axis=1)[:, 0]
    return _Inputs(rows.reward, weight, **made)


def _matched(policy: FloatArray) -> FloatArray:
    """1 where a deterministic policy takes the logged action."""
    undecided = np.minimum(policy, 1 - policy) > SUM_TOLERANCE
    if undecided.any():
        raise ValueError(
            f"rm replays a deterministic policy, but π_e is {policy[undecided][0]:.3g} of some logged actions: "
            "use snipw, or give the greedy policy"
        )
    return np.round(policy)


def _categories(
    rows: LoggedRows, actions: IntArray, log: pl.DataFrame, categories: npt.ArrayLike | None
) -> IntArray:
    """(n, A) code of each action's category, −1 = none that the log holds."""
    if categories is not None:
        code = np.unique(np.asarray(categories), return_inverse=True)[1]
        if actions.max() >= code.size:
            raise ValueError(f"categories has {code.size} actions, the log action {actions.max()}")
        return np.where(actions >= 0, code[actions], -1)
    if "category" not in log.columns:
        raise ValueError("mips needs categories, or the log's column category")
    pairs = log.filter(pl.Series(rows.kept)).group_by("action").agg(
        pl.col("category").n_unique().alias("n"), pl.col("category").first()
    ).sort("action")  # fmt: skip
    torn = pairs.filter((pl.col("n") > 1) | pl.col("category").is_null())
    if torn.height:
        raise ValueError(f"action {torn['action'][0]} has no category, or several, in the log")
    known, code = pairs["action"].to_numpy(), pairs["category"].rank("dense").to_numpy()
    found = np.searchsorted(known, actions).clip(max=known.size - 1)
    return np.where(known[found] == actions, code[found].astype(np.int64), -1)


def _judged(
    name: str, estimate: Estimate, raw: FloatArray, used: FloatArray, propensity: FloatArray
) -> PolicyEstimate:
    """The estimate with its flag; ``raw`` are the weights before cap or shrinkage."""
    diagnostics = Diagnostics.of(raw, used, capped=name in CAPPED)
    reasons = diagnostics.reasons()
    if name == "rm" and np.ptp(propensity) > UNIFORM_TOLERANCE * propensity.max():
        reasons += ("propensities differ between rows: replay needs a log of uniform draws",)
    if not estimate.reliable:
        reasons += ("not defined in 95 % of the resamples of users",)
    notes = ("rests on q̂ alone: its bias is not in the interval",) if name == "dm" else ()
    return PolicyEstimate(
        name, replace(estimate, reliable=not reasons), diagnostics, reasons, notes
    )


def _sweep(settings: Sequence[OffPolicyOptions], judged: Sequence[PolicyEstimate]) -> pl.DataFrame:
    columns = ("cap", "value", "ci_low", "ci_high", "ess", "clip_rate")
    found = []
    for option, one in zip(settings, judged, strict=True):
        v, d = one.estimate, one.diagnostics
        cap = getattr(option, CAPPED[one.name])
        found.append((one.name, cap, v.value, v.ci_low, v.ci_high, d.ess, d.clip_fraction))
    return pl.DataFrame(found, {"estimator": pl.String} | dict.fromkeys(columns, pl.Float64), orient="row")  # fmt: skip
