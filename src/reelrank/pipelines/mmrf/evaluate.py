"""From scores of logged decisions to metrics: how rows are ordered, and what a policy would have earned.

Source: METHODS §4.8, §7.2, §7.3, §2. Shapes: D decisions, C candidates, n shown rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation import beyond_accuracy
from reelrank.evaluation.grouped import GroupValues, group_auc
from reelrank.evaluation.off_policy import (
    OffPolicyOptions,
    equal_entropy_temperature,
    estimate_policy_value,
    mean_entropy,
    softened,
)
from reelrank.evaluation.off_policy.table import EstimateTable
from reelrank.evaluation.regression import above_train_median, group_xauc
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap, paired
from reelrank.models.feed import HATE, PAD, RESPONSES, WATCH_TIME
from reelrank.models.feed_options import WATCH_CAP_S
from reelrank.pipelines.mmrf.logged import FloatArray, IntArray, LoggedPart
from reelrank.pipelines.mmrf.run_options import LOGGED, EvaluationOptions

CAPPED_WATCH = "watch_time_180s"
MEDIAN = "gauc_final@median"
BANDIT = "bandit_value"
STANDARD = ("ncis", "ncis-trajectory", "piece-ncis", "snipw")
RANDOM = ("ncis", "snipw")
PAIRED = ("gauc_final", "ncis", BANDIT)
Estimates = dict[tuple[str, str], Estimate]
"""Metric and response to an estimate."""


@dataclass(frozen=True)
class Judge:
    """What all policies are judged by.

    Attributes:
        val: decisions of the logging policy on which temperatures are fitted (L9).
        test: decisions of the logging policy.
        random: uniformly random exposures of the test part; empty where the log has none.
        behaviour: π̂_b of the candidates, (D, C) of ``val`` and of ``test``.
        value: (n,) V(x) of the test rows.
        train_watch: users (m,) and watch times (m,) of the train rows, for the median.
        truth: (D, C, 7) expected responses of the test decisions' candidates; None on real rows.
        popularity: (n_items,) train exposures.
        category: (n_items,) code, −1 = none.
        k: places of a list.
        options: caps and resamples.
    """

    val: LoggedPart
    test: LoggedPart
    random: LoggedPart
    behaviour: tuple[FloatArray, FloatArray]
    value: FloatArray
    train_watch: tuple[IntArray, FloatArray]
    truth: npt.NDArray[np.float32] | None
    popularity: IntArray
    category: IntArray
    k: int
    options: EvaluationOptions

    def bootstrap(self) -> UserBootstrap:
        """Resamples of all users of the test part, shared by all that is compared."""
        users = np.concatenate([self.test.user, self.random.user])
        return UserBootstrap(users, self.options.replicates, self.options.seed)


@dataclass(frozen=True)
class Judged:
    """One method's numbers.

    Attributes:
        main: rows of the headline.
        random: of the random log.
        temperatures: of other temperatures, by their multiple.
        lists: of what its best K are like.
        estimates: what is paired with other methods.
    """

    main: list[ResultRow]
    random: list[ResultRow]
    temperatures: dict[str, list[ResultRow]]
    lists: list[ResultRow]
    estimates: Estimates


def judge_method(name: str, frame: pl.DataFrame, judge: Judge, bootstrap: UserBootstrap) -> Judged:
    """All numbers of one method.

    Args:
        name: of the method.
        frame: of ``scoring.predictions``.
        judge: of the feed.
        bootstrap: of :meth:`Judge.bootstrap`.
    """
    scores = frame["scores"].to_numpy()
    val, test, random_log = (_places(frame, p.decision) for p in (judge.val, judge.test, judge.random))  # fmt: skip
    # L9: softened until as random as π̂_b on val
    temperature = equal_entropy_temperature(scores[val], mean_entropy(judge.behaviour[0]))
    test_scores = scores[test]
    estimates: Estimates = {}
    main = ordering_rows(name, "gauc_final", test_scores, judge, bootstrap, estimates)
    if frame["heads"].null_count() < frame.height:
        heads = _heads(frame, test)
        main += head_rows(name, heads, judge, bootstrap)
    main.append(ResultRow(name, "temperature", temperature, len(judge.val.decision)))
    policy = softened(test_scores, temperature)
    main += value_rows(name, policy, judge, bootstrap, estimates)
    random: list[ResultRow] = []
    if len(judge.random.decision):
        random = random_rows(name, softened(scores[random_log], temperature), judge, bootstrap)
    others = {
        f"temperature x{factor:g}": value_rows(name, softened(test_scores, factor * temperature), judge, bootstrap, {}, (WATCH_TIME,))
        for factor in judge.options.temperatures
    }  # fmt: skip
    lists = list_rows(name, test_scores, judge, bootstrap)
    return Judged(main, random, others, lists, estimates)


def logged_rows(judge: Judge, bootstrap: UserBootstrap) -> list[ResultRow]:
    """The logging policy's own mean of each response, and the ordering by π̂_b."""
    found: list[ResultRow] = []
    part = judge.test
    for k, response in enumerate(RESPONSES):
        estimate = bootstrap.mean(part.row_user, part.response[:, k])
        found.append(ResultRow.from_estimate(LOGGED, "on_policy", estimate, group=response))
    found += ordering_rows(LOGGED, "gauc_final", judge.behaviour[1], judge, bootstrap, {})
    if judge.truth is not None:
        found += bandit_rows(LOGGED, judge.behaviour[1], judge, bootstrap, {})
    return found


def ordering_rows(
    name: str,
    metric: str,
    scores: npt.NDArray[np.floating],
    judge: Judge,
    bootstrap: UserBootstrap,
    estimates: Estimates,
) -> list[ResultRow]:
    """GAUC by user of each response with one score (D, C) for all; hate's label is 1 − hate, watch time's is GXAUC."""
    score = judge.test.of_shown(scores)
    columns = dict.fromkeys(range(len(RESPONSES)), score)
    rows = _gauc_rows(name, metric, columns, judge, bootstrap, estimates)
    return rows + _median_row(name, score, judge, bootstrap)


def head_rows(
    name: str, heads: FloatArray, judge: Judge, bootstrap: UserBootstrap
) -> list[ResultRow]:
    """``gauc_head``: each response ordered by its own head (n, 7); the hate agent is rewarded for no hate."""
    columns = {k: heads[:, k] for k in range(len(RESPONSES)) if not np.isnan(heads[:, k]).any()}
    return _gauc_rows(name, "gauc_head", columns, judge, bootstrap, {})


def value_rows(
    name: str,
    policy: FloatArray,
    judge: Judge,
    bootstrap: UserBootstrap,
    estimates: Estimates,
    responses: Sequence[int] = range(len(RESPONSES)),
) -> list[ResultRow]:
    """Off-policy values of probabilities (D, C), with what §7.3 prints beside; in a world the true bandit value too."""
    rows: list[ResultRow] = []
    part = judge.test
    log = _log(part, np.maximum(part.of_shown(judge.behaviour[1]), _FLOOR))
    for k in responses:
        settings = _settings(judge.options, sweep=k == WATCH_TIME and len(responses) > 1)
        table = _estimate(log, part, policy, part.response[:, k], STANDARD, settings, bootstrap, judge.value)  # fmt: skip
        rows += _table_rows(name, table, RESPONSES[k])
        estimates["ncis", RESPONSES[k]] = table["ncis"].estimate
        if k == WATCH_TIME and len(responses) > 1:
            capped = np.minimum(part.response[:, k], WATCH_CAP_S)
            table = _estimate(log, part, policy, capped, ("ncis",), _settings(judge.options), bootstrap, judge.value)  # fmt: skip
            rows += _table_rows(name, table, CAPPED_WATCH)
    if judge.truth is not None:
        rows += bandit_rows(name, policy, judge, bootstrap, estimates, responses)
    return rows


def random_rows(
    name: str, policy: FloatArray, judge: Judge, bootstrap: UserBootstrap
) -> list[ResultRow]:
    """The same from random exposures, whose propensity is known: 1/C, given the candidate set."""
    part = judge.random
    size = (part.candidates != PAD).sum(1)
    log = _log(part, 1.0 / size[part.of_row])
    rows: list[ResultRow] = []
    for k, response in enumerate(RESPONSES):
        if np.isnan(part.response[:, k]).all():
            continue
        table = _estimate(log, part, policy, part.response[:, k], RANDOM, _settings(judge.options), bootstrap, None)  # fmt: skip
        rows += _table_rows(name, table, response)
    return rows


def bandit_rows(
    name: str,
    policy: FloatArray,
    judge: Judge,
    bootstrap: UserBootstrap,
    estimates: Estimates,
    responses: Sequence[int] = range(len(RESPONSES)),
) -> list[ResultRow]:
    """True Σ_c π(c|s) E[r|s,c], a mean over the logged rows: what NCIS estimates. Source: METHODS §7.1."""
    assert judge.truth is not None
    rows = []
    part = judge.test
    for k in responses:
        value = (policy * np.nan_to_num(judge.truth[:, :, k])).sum(axis=1)[part.of_row]
        estimate = bootstrap.mean(part.row_user, value)
        estimates[BANDIT, RESPONSES[k]] = estimate
        rows.append(ResultRow.from_estimate(name, BANDIT, estimate, group=RESPONSES[k]))
    return rows


def list_rows(
    name: str, scores: npt.NDArray[np.floating], judge: Judge, bootstrap: UserBootstrap
) -> list[ResultRow]:
    """MM-04: what the best K of each test decision are like."""
    part, k = judge.test, judge.k
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    items = np.take_along_axis(part.candidates, best, axis=1)
    lists = np.repeat(np.arange(len(items)), k)
    flat = items.ravel()
    catalogue = np.unique(part.candidates[part.candidates != PAD])
    shown = beyond_accuracy.exposure(flat, len(judge.popularity))[catalogue]
    _, entropy = beyond_accuracy.category_entropy(judge.category[flat], lists)
    _, novelty = beyond_accuracy.novelty(flat, lists, judge.popularity)
    n = len(items)
    found = [
        ResultRow(name, f"coverage@{k}", float((shown > 0).mean()), n),
        ResultRow(name, "gini", beyond_accuracy.gini(shown), n),
    ]
    for metric, value in ((f"entropy@{k}", entropy), (f"novelty@{k}", novelty)):
        estimate = bootstrap.mean(part.user, value)
        found.append(ResultRow.from_estimate(name, metric, estimate))
    return found


def difference_rows(name: str, own: Estimates, rival: str, other: Estimates) -> list[ResultRow]:
    """``name − rival`` of each number that both have on the same rows."""
    return [
        ResultRow.from_difference(name, rival, metric, paired(e, other[metric, response]), group=response)
        for (metric, response), e in own.items()
        if metric in PAIRED and (metric, response) in other and other[metric, response].n == e.n
    ]  # fmt: skip


_FLOOR = 1e-4  # METHODS §7.2


def _places(frame: pl.DataFrame, decisions: IntArray) -> IntArray:
    """Row of each decision in the frame.

    Raises:
        ValueError: the predictions are not of this feed.
    """
    known = frame["decision"].to_numpy().astype(np.int64)
    at = np.searchsorted(known, decisions).clip(max=max(len(known) - 1, 0))
    if len(decisions) and not (len(known) and np.array_equal(known[at], decisions)):
        raise ValueError(
            "the predictions lack decisions of the feed: predict again from the same tables"
        )
    return at


def _heads(frame: pl.DataFrame, at: IntArray) -> FloatArray:
    flat = frame["heads"].gather(at).explode(empty_as_null=False).to_numpy()
    return flat.reshape(-1, len(RESPONSES)).astype(np.float64)


def _gauc_rows(
    name: str,
    metric: str,
    columns: Mapping[int, FloatArray],
    judge: Judge,
    bootstrap: UserBootstrap,
    estimates: Estimates,
) -> list[ResultRow]:
    rows = []
    part = judge.test
    for k, score in columns.items():
        label = part.response[:, k]
        known = ~np.isnan(label)
        label, user, own = label[known], part.row_user[known], score[known]
        if k == WATCH_TIME:
            groups = group_xauc(label, own, user)
        else:
            groups = group_auc(1 - label if k == HATE else label, own, user)
        estimate = _group_estimate(groups, bootstrap)
        estimates[metric, RESPONSES[k]] = estimate
        rows.append(ResultRow.from_estimate(name, metric, estimate, group=RESPONSES[k], weighting="impressions"))  # fmt: skip
    return rows


def _median_row(
    name: str, score: FloatArray, judge: Judge, bootstrap: UserBootstrap
) -> list[ResultRow]:
    """``gauc@median``: label 1[watch time > the user's train median]; users without a train row are out. Source: METHODS §2."""
    part = judge.test
    watch = part.response[:, WATCH_TIME]
    known = ~np.isnan(watch)
    users, times = judge.train_watch
    label = above_train_median(watch[known], part.row_user[known], times, users)
    has = ~np.isnan(label)
    groups = group_auc(label[has], score[known][has], part.row_user[known][has])
    estimate = _group_estimate(groups, bootstrap)
    return [ResultRow.from_estimate(name, MEDIAN, estimate, group=RESPONSES[WATCH_TIME], weighting="impressions")]  # fmt: skip


def _group_estimate(groups: GroupValues, bootstrap: UserBootstrap) -> Estimate:
    weight = groups.weights()
    rows = int(groups.n[weight > 0].sum())
    return bootstrap.ratio(groups.groups, np.nan_to_num(groups.value) * weight, weight, n=rows)


def _log(part: LoggedPart, propensity: FloatArray) -> pl.DataFrame:
    rows = np.arange(len(part.of_row))
    return pl.DataFrame(
        {
            "user_id": part.row_user,
            "action": part.candidates[part.of_row, part.column],
            "propensity": propensity.clip(max=1.0),
            "session": part.episode[part.of_row],
            "place": rows,
        }
    )


def _estimate(
    log: pl.DataFrame,
    part: LoggedPart,
    policy: FloatArray,
    reward: FloatArray,
    estimators: Sequence[str],
    settings: OffPolicyOptions,
    bootstrap: UserBootstrap,
    value: FloatArray | None,
) -> EstimateTable:
    known = ~np.isnan(reward)
    kept = pl.Series(known)
    frame = log.filter(kept).with_columns(reward=pl.Series(reward[known]))
    if "ncis-trajectory" not in estimators:
        frame = frame.drop("session")
    return estimate_policy_value(
        frame,
        part.of_shown(policy)[known],
        estimators,
        context_value=None if value is None else value[known],
        options=settings,
        bootstrap=bootstrap,
    )


def _settings(options: EvaluationOptions, *, sweep: bool = False) -> OffPolicyOptions:
    return OffPolicyOptions(
        cap=options.cap,
        caps=(*options.caps, math.inf) if sweep else (),
        replicates=options.replicates,
        seed=options.seed,
    )


def _table_rows(name: str, table: EstimateTable, response: str) -> list[ResultRow]:
    """Values with ESS and clip rate, the mean weight and the largest share, and the cap sweep."""
    rows = table.rows(name, group=response)
    for one in table:
        d = one.diagnostics
        rows += [
            ResultRow(name, metric, value, one.estimate.n, group=response, weighting=one.name)
            for metric, value in (("mean_weight", d.mean_weight), ("max_share", d.max_share))
        ]
    for row in table.sweep.iter_rows(named=True):
        if row["estimator"] == "ncis":
            rows.append(
                ResultRow(
                    name, "ncis", row["value"], table["ncis"].estimate.n, row["ci_low"], row["ci_high"],
                    reliable=False, group=response, weighting=f"cap {row['cap']:g}",
                )
            )  # fmt: skip
    return rows
