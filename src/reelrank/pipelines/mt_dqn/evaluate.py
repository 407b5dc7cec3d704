"""What the predictions are worth: behaviours, rankings and values, each with a user-cluster bootstrap.

Source: METHODS §2, §3.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from reelrank.evaluation.classification import best_f1_threshold, f1_counts
from reelrank.evaluation.ranking import ndcg, ndcg_from_ranks
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap, macro, paired
from reelrank.models.behaviours import behaviour_labels, label_names, watch_rule


class Key(NamedTuple):
    """What is measured."""

    metric: str
    group: str = "all"
    weighting: str = ""


Estimates = dict[Key, Estimate]


def logged_behaviours(events: pl.DataFrame) -> dict[str, pl.Series]:
    """Behaviours with the labels of all rows, of those that the source logs at all.

    Raises:
        ValueError: it logs none of them.
    """
    rule = watch_rule(events.lazy())
    labels = {b: events.select(y).to_series() for b, y in behaviour_labels(rule).items()}
    known = {b: y for b, y in labels.items() if y.null_count() < len(y)}
    if not known:
        raise ValueError(
            f"events: all of {list(label_names(rule).values())} are null, nothing can be judged"
        )
    return known


def behaviour_estimates(
    impressions: pl.DataFrame, events: pl.DataFrame, bootstrap: UserBootstrap
) -> Estimates:
    """F1 and AP of watch, like and share on test rows; F1's thresholds come from val rows (L9).

    Args:
        impressions: predictions of val and test rows, ``position`` = row of ``events``.
        events: the labels.
        bootstrap: resamples of the test users.
    """
    estimates: Estimates = {}
    parts = []
    behaviours = logged_behaviours(events)
    for behaviour, labels in behaviours.items():
        label = labels.gather(impressions["position"]).alias("y")
        rows = impressions.select("user_id", "split", p=f"p_{behaviour}").with_columns(label)
        val, test = (rows.filter(pl.col("split") == s).drop_nulls("y") for s in ("val", "test"))
        threshold = best_f1_threshold(val["y"], val["p"])
        judged = (test["user_id"], test["y"], test["p"])
        estimates[Key("f1", behaviour)] = bootstrap.f1(*judged, threshold)
        estimates[Key("ap", behaviour)] = bootstrap.average_precision(*judged)
        parts.append((test["user_id"], *f1_counts(test["y"], test["p"], threshold)))
    for metric in ("f1", "ap"):
        estimates[Key(metric, weighting="macro")] = macro(
            [estimates[Key(metric, behaviour)] for behaviour in behaviours]
        )
    users, numerator, denominator = (np.concatenate(column) for column in zip(*parts, strict=True))
    estimates[Key("f1", weighting="micro")] = bootstrap.ratio(users, numerator, denominator)
    return estimates


def list_estimates(lists: pl.DataFrame, bootstrap: UserBootstrap, k: int) -> Estimates:
    """NDCG@k over the test lists of logged impressions, binary and graded.

    Graded gain is 2^g − 1, g = r_immediate above the list's smallest [D: gains must not be negative].
    """
    test = lists.filter(pl.col("split") == "test")
    users = test.group_by("list_id").agg(pl.col("user_id").first()).sort("list_id")["user_id"]
    graded = test["graded"] - test.select(pl.col("graded").min().over("list_id")).to_series()
    return {
        Key(f"ndcg@{k}", "logged", weighting): bootstrap.mean(
            users, ndcg(test["score"], relevance, test["list_id"], k, gain="exponential")[1]
        )
        for weighting, relevance in (("binary", test["relevance"]), ("graded", graded))
    }


def catalogue_estimates(targets: pl.DataFrame, bootstrap: UserBootstrap, k: int) -> Estimates:
    """NDCG@k of the list's relevant items among all items available at its start.

    Args:
        targets: context_id, user_id, rank (1 = first) of each relevant item.
        bootstrap: resamples of the test users.
        k: cut-off.
    """
    contexts = targets.group_by("context_id").agg(pl.col("user_id").first()).sort("context_id")
    n_relevant = targets.select(pl.len().over("context_id")).to_series()
    _, value = ndcg_from_ranks(targets["rank"], targets["context_id"], n_relevant, k)
    return {Key(f"ndcg@{k}", "catalogue", "binary"): bootstrap.mean(contexts["user_id"], value)}


def value_estimates(
    impressions: pl.DataFrame,
    events: pl.DataFrame,
    bootstrap: UserBootstrap,
    *,
    learns_q: bool,
) -> Estimates:
    """Errors of the on-policy head and of Q̂ against the logged return (in train sds), and of the reward head.

    METHODS §3.9: Q̂ estimates another policy's value, so the head is what is judged, and Q̂ stands beside it where
    the ranking score is a Q at all (``learns_q``).
    """
    trained = events.filter(pl.col("split") == "train", pl.col("is_rand") == 0)
    sd = float(trained["return"].std() or 1.0)  # type: ignore[arg-type]  # polars' std of a float column
    test = impressions.filter(pl.col("split") == "test")
    logged = events.select("return", "r_immediate")[test["position"]]
    rows = test.with_columns(logged)
    judged = rows.drop_nulls("return")
    estimates: Estimates = {}
    for group, column in (("on_policy", "value"), *((("q", "q"),) if learns_q else ())):
        error = ((judged[column] - judged["return"]) / sd).to_numpy()
        estimates[Key("value_mse", group)] = bootstrap.mean(judged["user_id"], error**2)
        estimates[Key("value_mae", group)] = bootstrap.mean(judged["user_id"], np.abs(error))
    error = (rows["reward_hat"] - rows["r_immediate"]).to_numpy()
    estimates[Key("reward_mse")] = bootstrap.mean(rows["user_id"], error**2)
    return estimates


def truth_estimates(
    true_ndcg: pl.DataFrame, bootstrap: UserBootstrap, k: int
) -> dict[str, Estimates]:
    """Mean ``true_ndcg`` of each variant that was judged against a world's truth; empty on real data."""
    return {
        str(variant): {
            Key(f"true_ndcg@{k}", "catalogue"): bootstrap.mean(rows["user_id"], rows["value"])
        }
        for (variant,), rows in true_ndcg.group_by("variant", maintain_order=True)
    }


def variant_estimates(
    impressions: pl.DataFrame,
    lists: pl.DataFrame,
    targets: pl.DataFrame,
    events: pl.DataFrame,
    bootstrap: UserBootstrap,
    *,
    k: int,
    learns_q: bool,
) -> Estimates:
    """All that is measured of one variant without a truth."""
    return {
        **list_estimates(lists, bootstrap, k),
        **catalogue_estimates(targets, bootstrap, k),
        **behaviour_estimates(impressions, events, bootstrap),
        **value_estimates(impressions, events, bootstrap, learns_q=learns_q),
    }


def result_rows(estimates: Mapping[str, Estimates], main: str) -> list[ResultRow]:
    """Every estimate as a row, and the paired differences of ``main`` with each other variant.

    Args:
        estimates: variant to its estimates, from one bootstrap.
        main: the variant that the others are compared with.
    """
    rows = [
        ResultRow.from_estimate(
            variant, key.metric, estimate, group=key.group, weighting=key.weighting
        )
        for variant, table in estimates.items()
        for key, estimate in table.items()
    ]
    rows += [
        ResultRow.from_difference(
            main, rival, key.metric, paired(own, table[key]), group=key.group, weighting=key.weighting
        )
        for key, own in estimates[main].items()
        for rival, table in estimates.items()
        if rival != main and key in table
    ]  # fmt: skip
    return rows
