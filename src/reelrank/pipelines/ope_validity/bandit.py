"""OP-01, OP-02 and OP-05 … OP-08 on the requests of a KuaiRand world, where every value is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from reelrank.evaluation.off_policy import (
    OffPolicyOptions,
    mean_entropy,
    softened,
)
from reelrank.evaluation.off_policy.softening import GRID, equal_entropy_temperature
from reelrank.evaluation.results import ResultRow
from reelrank.pipelines.ope_validity.feed import (
    Feed,
    behaviour_rows,
    fit_logging_policy,
    fitted_probabilities,
)
from reelrank.pipelines.ope_validity.options import BanditOptions
from reelrank.pipelines.ope_validity.population import (
    FloatArray,
    IntArray,
    Population,
    draw_log,
    target_policies,
    values,
)
from reelrank.pipelines.ope_validity.repetitions import (
    ESTIMATED,
    TRUE,
    estimate,
    repeat,
    summarise,
    summary_rows,
    with_greedy,
)

Cells = dict[str, list[ResultRow]]  # rows by cell of the experiment
ALL = "all policies"
EXACT = ("ipw", "snipw", "sg-ipw", "ncis")  # METHODS §7.1: these return the on-policy mean
SWEPT = ("ipw", "snipw", "ncis")


def policies_of(feed: Feed, options: BanditOptions) -> dict[str, FloatArray]:
    """The policies to be valued."""
    found = target_policies(feed.population, feed.popularity, options.seed)
    return {name: found[name] for name in options.policies}


def parts_by_time(feed: Feed, options: BanditOptions) -> tuple[IntArray, IntArray, IntArray]:
    """Requests of train, val and test."""
    cuts = np.quantile(feed.ts_ms, [options.train_share, options.train_share + options.val_share])
    part = np.searchsorted(cuts, feed.ts_ms, side="right")
    train, val, test = (np.flatnonzero(part == k) for k in range(3))
    return train, val, test


def op_01(feed: Feed, estimated: FloatArray, options: BanditOptions) -> Cells:
    """π_e = π_b, true and estimated: how far each estimate lies from the on-policy mean, with the same π in both places."""
    p = feed.population
    log = draw_log(p, options.sizes[-1], options.rows_per_user, options.seed)
    names = (*EXACT, "dm", "dr", "sndr")
    cells: Cells = {}
    for cell, behaviour in ((TRUE, p.behaviour), (ESTIMATED, _proper(estimated))):
        table = estimate(p, log, behaviour, behaviour, names, options=_plain(options))
        on_policy = table.on_policy
        cells[cell] = [ResultRow.from_estimate("logging", "on_policy_mean", on_policy)]
        cells[cell] += [
            ResultRow("logging", "deviation", one.estimate.value - on_policy.value, on_policy.n, weighting=one.name)
            for one in table
        ]  # fmt: skip
    return cells


def op_02(feed: Feed, estimated: FloatArray, options: BanditOptions) -> Cells:
    """Bias, SE, RMSE and coverage of every estimator against the size of the log, with true and with estimated propensities."""
    p = feed.population
    policies = with_greedy(policies_of(feed, options))
    cells: Cells = {"truth": truth_rows(p, policies)}
    for cell, propensity, repetitions in (
        (TRUE, p.behaviour, options.repetitions),
        (ESTIMATED, estimated, options.repetitions_estimated),
    ):
        cells[cell] = []
        for n in options.sizes:
            repeated = repeat(
                p, policies, propensity, n=n, repetitions=repetitions,
                rows_per_user=options.rows_per_user, replicates=options.replicates, seed=options.seed,
            )  # fmt: skip
            cells[cell] += summary_rows(summarise(repeated, values(p, policies)), n)
    return cells


def truth_rows(population: Population, policies: Mapping[str, FloatArray]) -> list[ResultRow]:
    """The planted value of each policy and of the one that logged."""
    everyone = {"logging": population.behaviour, **policies}
    n = len(population.user)
    return [
        ResultRow(name, "bandit_value", value, n)
        for name, value in values(population, everyone).items()
    ]


def op_05(feed: Feed, options: BanditOptions) -> Cells:
    """L6: π̂_b whose state holds the category of the very action it is asked about, beside one whose state does not."""
    train, val, _ = parts_by_time(feed, options)
    p = feed.population
    policies = policies_of(feed, options)
    truth = values(p, policies)
    cells: Cells = {}
    for cell, leak in (("state before the action", False), ("state holds the action", True)):
        fitted = fit_logging_policy(feed, train, val, options.behaviour, leak=leak)
        quality = fitted.report.filter(part="train").row(0, named=True)
        rows = [
            ResultRow("logging", metric, quality[metric], int(quality["n"]))
            for metric in ("log_loss", "top1")
        ]
        found = []
        for k in range(options.sweep_repetitions):
            log = draw_log(p, options.sizes[-1], options.rows_per_user, options.seed + k)
            asked = behaviour_rows(feed, log.context, log.column, leak=leak)
            propensity = fitted.propensity(asked)
            for name, policy in policies.items():
                table = estimate(
                    p, log, policy, propensity, ("snipw",), options=_plain(options, 20)
                )
                d = table["snipw"].diagnostics
                found.append((name, table["snipw"].estimate.value - truth[name], d.mean_weight))
        frame = pl.DataFrame(found, ["policy", "bias", "mean_weight"], orient="row")
        for name, bias, weight in frame.group_by("policy", maintain_order=True).mean().iter_rows():
            n = options.sweep_repetitions
            rows += [
                ResultRow(name, "bias", bias, n, weighting="snipw"),
                ResultRow(name, "mean_weight", weight, n, weighting="snipw"),
            ]
        cells[cell] = rows
    return cells


def op_06(feed: Feed, options: BanditOptions) -> Cells:
    """π̂_b fitted on the test part (cross-fitted by user) against one fitted on train, both judged on the test part."""
    train, val, test = parts_by_time(feed, options)
    inside = np.zeros(len(feed.shown), np.bool_)
    inside[test] = True
    p = feed.population.subset(inside)
    policies = {name: policy[inside] for name, policy in policies_of(feed, options).items()}
    true = p.behaviour
    cells: Cells = {"truth": truth_rows(p, policies)}
    for cell, rows in (("fitted on train", train), ("fitted on test", test)):
        fitted = fit_logging_policy(feed, rows, val, options.behaviour)
        estimated = fitted_probabilities(feed, fitted)[inside]
        # Kullback and Leibler's divergence: what the log loss has above its least
        divergence = float((true * np.log(true / estimated)).sum(axis=1).mean())
        cells[cell] = [ResultRow("logging", "kl_divergence", divergence, len(true))]
        n = options.sizes[-1]
        repeated = repeat(
            p, policies, estimated, n=n, repetitions=options.sweep_repetitions,
            rows_per_user=options.rows_per_user, replicates=100, seed=options.seed,
            estimators=("snipw", "dr"),
        )  # fmt: skip
        cells[cell] += summary_rows(summarise(repeated, values(p, policies)), n)
    return cells


def op_07(feed: Feed, options: BanditOptions) -> Cells:
    """Caps and temperatures: does the order of the policies by estimated value change, and does it stay true?"""
    p = feed.population
    policies = policies_of(feed, options)
    truth = values(p, policies)
    cap = OffPolicyOptions(replicates=20, seed=options.seed)
    by_cap: dict[tuple[str, float], list[dict[str, float]]] = {}
    for k in range(options.sweep_repetitions):
        log = draw_log(p, options.sizes[-1], options.rows_per_user, options.seed + k)
        found: dict[tuple[str, float], dict[str, float]] = {}
        for name, policy in policies.items():
            sweep = estimate(p, log, policy, p.behaviour, ("ipw", "ncis"), options=cap).sweep
            for estimator, c, value in sweep.select("estimator", "cap", "value").iter_rows():
                found.setdefault((estimator, c), {})[name] = value
        for key, order in found.items():
            by_cap.setdefault(key, []).append(order)
    cells: Cells = {"cap": []}
    for (estimator, c), orders in by_cap.items():
        cells["cap"] += _agreement(orders, truth, f"cap={c:g}", estimator)
        cells["cap"] += [
            ResultRow(name, "value", float(np.mean([o[name] for o in orders])), len(orders), group=f"cap={c:g}", weighting=estimator)
            for name in policies
        ]  # fmt: skip
    cells["temperature"] = list(_temperatures(feed, options))
    return cells


def _temperatures(feed: Feed, options: BanditOptions) -> Iterator[ResultRow]:
    """The same scores at ½, 1 and 2 times the equal-entropy temperature."""
    p = feed.population
    rng = np.random.default_rng(options.seed)
    scores = {
        "popularity": np.log(feed.popularity)[p.action],
        "reward": p.expected,
        "noisy_reward": p.expected + rng.normal(0, p.expected.std(), p.expected.shape),
        "noise": rng.normal(size=p.expected.shape),
    }
    entropy = mean_entropy(p.behaviour)
    for factor in GRID:
        policies = {
            name: softened(score, factor * equal_entropy_temperature(score, entropy))
            for name, score in scores.items()
        }
        orders = []
        for k in range(options.sweep_repetitions):
            log = draw_log(p, options.sizes[-1], options.rows_per_user, options.seed + k)
            orders.append(
                {
                    name: estimate(p, log, policy, p.behaviour, ("snipw",), options=_plain(options, 20))["snipw"].estimate.value
                    for name, policy in policies.items()
                }
            )  # fmt: skip
        truth = values(p, policies)
        group = f"temperature×{factor:g}"
        yield from _agreement(orders, truth, group, "snipw")
        for name, value in truth.items():
            mean = float(np.mean([order[name] for order in orders]))
            yield ResultRow(name, "value", mean, len(orders), group=group, weighting="snipw")
            yield ResultRow(name, "bandit_value", value, len(p.user), group=group)


def op_08(feed: Feed, options: BanditOptions) -> Cells:
    """NCIS and PieceNCIS at small caps: bias and RMSE on the same logs."""
    p = feed.population
    policies = policies_of(feed, options)
    truth = values(p, policies)
    found = []
    cap = OffPolicyOptions(replicates=20, seed=options.seed, caps=options.small_caps)
    for k in range(options.sweep_repetitions):
        log = draw_log(p, options.sizes[-1], options.rows_per_user, options.seed + k)
        for name, policy in policies.items():
            table = estimate(p, log, policy, p.behaviour, ("ncis", "piece-ncis"), options=cap)
            found.append(
                table.sweep.select("estimator", "cap", error=pl.col("value") - truth[name], policy=pl.lit(name))
            )  # fmt: skip
    summary = (
        pl.concat(found)
        .group_by("policy", "cap", "estimator", maintain_order=True)
        .agg(bias=pl.col("error").mean(), rmse=(pl.col("error") ** 2).mean().sqrt())
    )
    rows = [
        ResultRow(row["policy"], metric, row[metric], options.sweep_repetitions, group=f"cap={row['cap']:g}", weighting=row["estimator"])
        for row in summary.iter_rows(named=True)
        for metric in ("bias", "rmse")
    ]  # fmt: skip
    return {TRUE: rows}


def _agreement(
    orders: list[dict[str, float]], truth: Mapping[str, float], group: str, estimator: str
) -> list[ResultRow]:
    """Mean rank correlation of the estimated order with the true one, and how often the two are the same."""
    from scipy.stats import spearmanr  # noqa: PLC0415 (scipy.stats is slow to import)

    names = list(truth)
    true = [truth[name] for name in names]
    correlation = [float(spearmanr([o[n] for n in names], true).statistic) for o in orders]
    same = [float(c > 1 - 1e-9) for c in correlation]
    return [
        ResultRow(ALL, metric, float(np.mean(found)), len(orders), group=group, weighting=estimator)
        for metric, found in (("rank_correlation", correlation), ("same_order", same))
    ]


def _plain(options: BanditOptions, replicates: int | None = None) -> OffPolicyOptions:
    return OffPolicyOptions(caps=(), replicates=replicates or options.replicates, seed=options.seed)


def _proper(estimated: FloatArray) -> FloatArray:
    proper: FloatArray = estimated / estimated.sum(axis=1, keepdims=True)
    return proper
