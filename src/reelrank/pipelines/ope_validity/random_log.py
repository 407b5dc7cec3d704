"""OP-04: the same policies valued from KuaiRand's random log (known 1/|pool|) and from the standard log (estimated π_b)."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from reelrank.evaluation.off_policy import (
    OffPolicyOptions,
    equal_entropy_temperature,
    estimate_policy_value,
    softened,
)
from reelrank.evaluation.results import ResultRow
from reelrank.pipelines.ope_validity.options import RandomLogOptions
from reelrank.pipelines.ope_validity.population import FloatArray, IntArray
from reelrank.worlds.truth import Truth

RESPONSES = ("click", "long_view", "like")
ESTIMATORS = ("snipw", "ncis", "ipw")
RANDOM, STANDARD, PLANTED = "random log", "standard log", "truth"
ALL = "all policies"
MAX_CONTEXTS = 2_000  # [D] of the planted value


def item_policies(
    train: pl.DataFrame, items: pl.DataFrame, pool: IntArray, options: RandomLogOptions
) -> dict[str, FloatArray]:
    """Policies that know items only, (|pool|,) each, equally random.

    Args:
        train: standard train rows (L2).
        items: ``Items``.
        pool: dense ids of the random log's items.
        options: smoothing and entropy.
    """
    counts = np.bincount(train["item_id"], minlength=items.height).astype(np.float64)
    scores = {"popularity": np.log(counts + 1), "unpopularity": -np.log(counts + 1)}
    for response in RESPONSES:
        known = train.drop_nulls(response)
        item = known["item_id"].to_numpy()
        total = np.bincount(item, known[response].to_numpy().astype(np.float64), items.height)
        seen = np.bincount(item, minlength=items.height)
        mean = total.sum() / max(seen.sum(), 1)
        rate = (total + options.smoothing * mean) / (seen + options.smoothing)
        scores[f"{response}_rate"] = rate
        scores[f"worst_{response}_rate"] = -rate
    duration = items["duration_ms"].cast(pl.Float64)
    scores["short"] = -np.log(duration.fill_null(duration.median()).to_numpy())
    entropy = options.entropy_share * float(np.log(pool.size))
    policies = {"uniform": np.full(pool.size, 1 / pool.size)}
    for name, score in scores.items():
        own = score[pool][None]
        if np.ptp(own) > 0:
            policies[name] = softened(own, equal_entropy_temperature(own, entropy))[0]
    return policies


def logging_frequencies(
    train: pl.DataFrame, scenario: IntArray, pool: IntArray, smoothing: float
) -> FloatArray:
    """(scenarios, |pool|) π̂_b(a|scenario): train frequencies, shrunk to those of all scenarios. What the user is, it does not see."""
    position = np.searchsorted(pool, train["item_id"].to_numpy())
    n_scenarios = int(max(scenario.max(), train["scenario"].to_numpy().max())) + 1
    counts = np.zeros((n_scenarios, pool.size))
    np.add.at(counts, (train["scenario"].to_numpy(), position), 1)
    overall = (counts.sum(axis=0) + 1) / (counts.sum() + pool.size)
    frequency: FloatArray = (counts + smoothing * pool.size * overall) / (
        counts.sum(axis=1, keepdims=True) + smoothing * pool.size
    )
    return frequency


def op_04(
    interactions: pl.DataFrame,
    items: pl.DataFrame,
    options: RandomLogOptions,
    truth: Truth | None = None,
    raw_user: IntArray | None = None,
    raw_item: IntArray | None = None,
) -> dict[str, list[ResultRow]]:
    """Values per response from either log, and the rank correlation of the two over the policies that are reliable in both.

    ``mips`` uses weights of the first tag instead of the item.

    Args:
        interactions: with ``split``; policies and π̂_b come from standard train rows, values from the random log and from standard
            test rows, which are of the same weeks.
        items: ``Items``.
        options: sizes.
        truth: of a world; then the planted value in the random log's contexts is given too.
        raw_user: (users,) raw ids, with ``truth``.
        raw_item: (items,) raw ids, with ``truth``.

    Raises:
        ValueError: there are no random rows.
    """
    random = interactions.filter(pl.col("is_rand") == 1)
    if random.is_empty():
        raise ValueError("OP-04 needs the random log: rows with is_rand = 1")
    pool = random["item_id"].unique().sort().to_numpy().astype(np.int64)
    standard = interactions.filter(pl.col("is_rand") == 0, pl.col("item_id").is_in(pool))
    train, test = (standard.filter(pl.col("split") == part) for part in ("train", "test"))
    policies = item_policies(train, items, pool, options)
    scenario = test["scenario"].to_numpy().astype(np.int64)
    frequency = logging_frequencies(train, scenario, pool, options.smoothing)
    uniform = np.full((1, pool.size), 1 / pool.size)
    logs = {
        RANDOM: (random, uniform, np.zeros(random.height, np.int64)),
        STANDARD: (test, frequency, scenario),
    }
    category = items["tags"].list.first().fill_null(-1).rank("dense").to_numpy().astype(np.int64)[pool] - 1  # fmt: skip
    cells: dict[str, list[ResultRow]] = {RANDOM: [], STANDARD: [], PLANTED: [], "agreement": []}
    value: dict[tuple[str, str, str], dict[str, tuple[float, bool]]] = {}
    for cell, (rows, behaviour, context) in logs.items():
        for response in RESPONSES:
            for name, policy in policies.items():
                for row in _estimates(
                    rows, response, policy, behaviour, context, pool, category, name, options
                ):
                    cells[cell].append(row)
                    if row.metric not in {"ess", "clip_rate"}:
                        key = (cell, response, row.metric)
                        value.setdefault(key, {})[name] = (row.value, row.reliable)
    if truth is not None and raw_user is not None and raw_item is not None:
        for response, of_policy in _planted(
            random, policies, pool, truth, raw_user, raw_item, options.seed
        ).items():
            n = min(random.height, MAX_CONTEXTS)
            cells[PLANTED] += [
                ResultRow(p, "bandit_value", v, n, group=response) for p, v in of_policy.items()
            ]
            value[(PLANTED, response, "bandit_value")] = {
                p: (v, True) for p, v in of_policy.items()
            }
    cells["agreement"] = _agreement(value)
    return {cell: rows for cell, rows in cells.items() if rows}


def _estimates(
    rows: pl.DataFrame,
    response: str,
    policy: FloatArray,
    behaviour: FloatArray,
    context: IntArray,
    pool: IntArray,
    category: IntArray,
    name: str,
    options: RandomLogOptions,
) -> list[ResultRow]:
    """Estimates of one policy from one log: by item, and by category (``mips``)."""
    known = rows[response].is_not_null().to_numpy()
    column = np.searchsorted(pool, rows["item_id"].to_numpy()[known])
    of_row = context[known]
    settings = OffPolicyOptions(caps=(), replicates=options.replicates, seed=options.seed)
    frame = rows.filter(pl.Series(known)).select(
        "user_id", pl.col(response).cast(pl.Float64).alias("reward")
    )
    by_item = frame.with_columns(
        action=pl.Series(column), propensity=pl.Series(behaviour[of_row, column])
    )
    table = estimate_policy_value(by_item, policy[column], ESTIMATORS, options=settings)
    found = table.rows(name, group=response)
    grouped = np.zeros((pool.size, int(category.max()) + 1))
    grouped[np.arange(pool.size), category] = 1
    marginal = (behaviour @ grouped)[of_row, category[column]]
    by_category = frame.with_columns(
        action=pl.Series(category[column]), propensity=pl.Series(marginal).clip(0, 1)
    )
    # IPW whose actions are categories is obp's marginalised IPW
    mips = estimate_policy_value(
        by_category, (policy @ grouped)[category[column]], ("ipw",), options=settings
    )["ipw"]
    found.append(ResultRow.from_estimate(name, "mips", mips.estimate, group=response))
    return found


def _planted(
    random: pl.DataFrame,
    policies: dict[str, FloatArray],
    pool: IntArray,
    truth: Truth,
    raw_user: IntArray,
    raw_item: IntArray,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Response → policy → Σ_a π_e(a) P(response|x, a), mean over contexts of the random log."""
    some = random.sample(min(random.height, MAX_CONTEXTS), seed=seed).sort("user_id", "ts_ms")
    expected = truth.expected(
        raw_user[some["user_id"].to_numpy()][:, None],
        raw_item[pool][None],
        some["ts_ms"].to_numpy()[:, None],
        some["scenario"].to_numpy()[:, None],
    )
    return {
        response: {name: float(expected[response].mean(axis=0) @ policy) for name, policy in policies.items()}
        for response in RESPONSES
    }  # fmt: skip


def _agreement(value: dict[tuple[str, str, str], dict[str, tuple[float, bool]]]) -> list[ResultRow]:
    """Rank correlation between the logs, and of either with the truth; over policies that both call reliable, and over all."""
    rows = []
    for response in RESPONSES:
        true = value.get((PLANTED, response, "bandit_value"))
        for estimator in (*ESTIMATORS, "mips"):
            found = {log: value[(log, response, estimator)] for log in (RANDOM, STANDARD)}
            pairs = {"random log × standard log": (found[RANDOM], found[STANDARD])}
            if true is not None:
                pairs |= {f"{log} × truth": (own, true) for log, own in found.items()}
            for label, (one, other) in pairs.items():
                kept = [name for name in one if one[name][1] and other[name][1]]
                for metric, names in (("rank_correlation", kept), ("rank_correlation_all", list(one))):  # fmt: skip
                    enough = len(names) >= 3
                    r = spearmanr([one[n][0] for n in names], [other[n][0] for n in names]).statistic if enough else np.nan  # fmt: skip
                    rows.append(
                        ResultRow(
                            label, metric, float(r), len(names), group=response, weighting=estimator,
                            reliable=metric == "rank_correlation" and enough,
                        )
                    )  # fmt: skip
    return rows
