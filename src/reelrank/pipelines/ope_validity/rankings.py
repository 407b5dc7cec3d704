"""OP-09 … OP-11: what the order of methods owes to the weighting of GAUC, to sampled candidates, and to the length of videos."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from scipy.stats import spearmanr

from reelrank.evaluation.duration_bias import DurationDeciles, duration_panel
from reelrank.evaluation.full_ranking import Competitors, TargetRanks, full_ranks, sampled_ranks
from reelrank.evaluation.grouped import Weighting, group_auc
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.pipelines.ope_validity.options import RankingOptions
from reelrank.pipelines.ope_validity.population import FloatArray

Cells = dict[str, list[ResultRow]]
WEIGHTINGS: tuple[Weighting, ...] = ("impressions", "positives", "uniform")
GROUPS = {"user": "user_id", "session": "session_id", "request": "request_id", "scenario": "scenario"}  # fmt: skip
ALL = "all methods"
HEADLINE = ("user", "impressions")  # METHODS §2


def split_rows(interactions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Standard train and test rows with a known long view, watch time and duration."""
    known = interactions.filter(pl.col("is_rand") == 0).drop_nulls(
        ["long_view", "play_ms", "duration_ms"]
    )
    return known.filter(pl.col("split") == "train"), known.filter(pl.col("split") == "test")


def click_scores(
    train: pl.DataFrame, test: pl.DataFrame, items: pl.DataFrame, options: RankingOptions
) -> dict[str, FloatArray]:
    """Scores of test rows by simple methods fitted on train rows (L2)."""
    label = train["long_view"].cast(pl.Float64).to_numpy()
    item, user = (train[c].to_numpy() for c in ("item_id", "user_id"))
    to_item, to_user = (test[c].to_numpy() for c in ("item_id", "user_id"))
    tag = items["tags"].list.first().fill_null(-1).rank("dense").to_numpy().astype(np.int64) - 1
    n_tags = int(tag.max()) + 1
    item_rate = _rate(item, label, items.height, options.smoothing)
    user_rate = _rate(user, label, int(max(user.max(), to_user.max())) + 1, options.smoothing)
    cell = user.astype(np.int64) * n_tags + tag[item]
    taste = _rate(cell, label, len(user_rate) * n_tags, options.smoothing / 4)
    duration = items["duration_ms"].cast(pl.Float64)
    return {
        "popularity": np.bincount(item, minlength=items.height)[to_item].astype(np.float64),
        "item_rate": item_rate[to_item],
        "user_and_item_rate": item_rate[to_item] + user_rate[to_user],
        "user_taste": taste[to_user.astype(np.int64) * n_tags + tag[to_item]],
        "short_first": -duration.fill_null(duration.median()).to_numpy()[to_item],
    }


def op_09(
    train: pl.DataFrame, test: pl.DataFrame, items: pl.DataFrame, options: RankingOptions
) -> Cells:
    """GAUC of long views by three weightings and four groups, and the order of the methods against the headline's.

    Intervals resample users; scenarios hold many users each and have none.
    """
    scores = click_scores(train, test, items, options)
    label = test["long_view"].to_numpy()
    bootstrap = UserBootstrap(test["user_id"], options.replicates, options.seed)
    rows: list[ResultRow] = []
    value: dict[tuple[str, str], dict[str, float]] = {}
    for group, column in GROUPS.items():
        owner = test.group_by(column).agg(owner=pl.col("user_id").first()).sort(column)
        for name, score in scores.items():
            by_group = group_auc(label, score, test[column])
            defined = ~np.isnan(by_group.value)
            for weighting in WEIGHTINGS:
                weight = by_group.weights(weighting)
                mean = by_group.mean(weighting)
                value.setdefault((group, weighting), {})[name] = mean.value
                if group == "scenario":
                    rows.append(ResultRow(name, "gauc", mean.value, mean.n_rows, group=group, weighting=weighting))  # fmt: skip
                    continue
                estimate = bootstrap.ratio(
                    owner["owner"].to_numpy()[defined],
                    (by_group.value * weight)[defined],
                    weight[defined],
                    n=mean.n_rows,
                )
                rows.append(ResultRow.from_estimate(name, "gauc", estimate, group=group, weighting=weighting))  # fmt: skip
            rows.append(ResultRow(name, "groups_excluded", mean.groups_excluded, by_group.n.size, group=group))  # fmt: skip
    order = [
        _agreement(found, value[HEADLINE], group, weighting)
        for (group, weighting), found in value.items()
    ]
    return {"gauc": rows, "order against GAUC by user, weighted by impressions": order}


def op_10(train: pl.DataFrame, test: pl.DataFrame, n_items: int, options: RankingOptions) -> Cells:
    """NDCG@K of every long view of test in the whole catalogue and among sampled items; items watched in train are hidden."""
    liked = train.filter(pl.col("long_view") == 1)
    seen = train.select("user_id", "item_id").unique()
    targets = (
        test.filter(pl.col("long_view") == 1)
        .select("user_id", "item_id")
        .unique()
        .join(seen, on=["user_id", "item_id"], how="anti")
        .sort("user_id", "item_id")
    )
    users = targets["user_id"].unique().sort().to_numpy()
    query = np.searchsorted(users, targets["user_id"].to_numpy())
    hidden = seen.filter(pl.col("user_id").is_in(users)).sort("user_id", "item_id")
    competitors = Competitors(
        np.searchsorted(users, hidden["user_id"].to_numpy()), hidden["item_id"].to_numpy()
    )
    counts = np.bincount(train["item_id"], minlength=n_items)
    bootstrap = UserBootstrap(users, options.replicates, options.seed)
    metric = f"ndcg@{options.k}"
    value: dict[str, dict[str, float]] = {}
    rows: list[ResultRow] = []
    for name, (queries, vectors) in _embeddings(liked, users, n_items, options).items():
        given = (queries, vectors, query, targets["item_id"].to_numpy(), competitors)
        protocols: list[TargetRanks] = [
            full_ranks(*given),
            sampled_ranks(*given, n=options.n_sampled, seed=options.seed),
            sampled_ranks(*given, n=options.n_sampled, sampling="popularity", popularity=counts + 1.0, seed=options.seed),
        ]  # fmt: skip
        for ranks in protocols:
            full_name, lists, per_list = ranks.per_list("ndcg", options.k)
            of_user = users[lists if ranks.protocol == "full" else query[lists]]
            estimate = bootstrap.mean(of_user, per_list)
            rows.append(ResultRow.from_estimate(name, full_name, estimate, group=ranks.protocol))
            value.setdefault(ranks.protocol, {})[name] = estimate.value
    order = [
        _agreement(found, value["full"], protocol, metric) for protocol, found in value.items()
    ]
    return {"ndcg": rows, "order against full ranking": order}


def op_11(
    train: pl.DataFrame, test: pl.DataFrame, items: pl.DataFrame, options: RankingOptions
) -> Cells:
    """Watch-time scores: GXAUC by decile of duration, rank correlation with duration, and the two metrics that take duration out."""
    deciles = DurationDeciles.fit(train["duration_ms"], train["play_ms"])
    watched = train["play_ms"].cast(pl.Float64).to_numpy()
    gain = np.nan_to_num(deciles.watch_time_gain(watched, train["duration_ms"]))
    item, to_item = (t["item_id"].to_numpy() for t in (train, test))
    duration = test["duration_ms"].cast(pl.Float64).to_numpy()
    scores = {
        "duration": duration,
        "mean_watch_time": _rate(item, watched, items.height, options.smoothing)[to_item],
        "mean_gain": _rate(item, gain, items.height, options.smoothing)[to_item],
        "long_view_rate": click_scores(train, test, items, options)["item_rate"],
    }
    t, user = test["play_ms"].cast(pl.Float64).to_numpy(), test["user_id"].to_numpy()
    rows: list[ResultRow] = []
    by_decile: list[ResultRow] = []
    for name, score in scores.items():
        panel = duration_panel(t, score, duration, user, user, deciles, options.k_lists)
        n = test.height
        rows += [
            ResultRow(name, "spearman_duration", panel.spearman, n),
            ResultRow(name, "gxauc_wtg", panel.gxauc_wtg.value, panel.gxauc_wtg.n_rows),
            ResultRow(name, f"dcg@{options.k_lists}_wtg", panel.dcg_wtg, n),
        ]
        by_decile += [
            ResultRow(name, "gxauc", row["value"], row["n_rows"], group=f"decile={row['decile'] + 1}")
            for row in panel.by_decile.iter_rows(named=True)
        ]  # fmt: skip
    return {"panel": rows, "by decile of duration": by_decile}


def _embeddings(
    liked: pl.DataFrame, users: npt.NDArray[np.int32], n_items: int, options: RankingOptions
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Queries and items of popularity and of truncated SVDs of the users' long views."""
    own = liked.filter(pl.col("user_id").is_in(users)).select("user_id", "item_id").unique()
    cells = (np.searchsorted(users, own["user_id"].to_numpy()), own["item_id"].to_numpy())
    matrix = csr_array((np.ones(own.height), cells), shape=(users.size, n_items))
    popularity = np.bincount(liked["item_id"], minlength=n_items).astype(np.float64)[:, None]
    most = min(max(options.ranks), min(matrix.shape) - 1)
    left, spread, right = svds(matrix, k=most, rng=np.random.default_rng(options.seed))
    largest = np.argsort(-spread)
    found = {"popularity": (np.ones((users.size, 1)), popularity)}
    for rank in options.ranks:
        kept = largest[:rank]
        found[f"svd_{rank}"] = (left[:, kept] * spread[kept], np.ascontiguousarray(right[kept].T))
    return found


def _rate(index: npt.NDArray[np.integer], label: FloatArray, size: int, smoothing: float) -> FloatArray:  # fmt: skip
    """(size,) mean label of each index, shrunk to the mean of all."""
    total, count = np.bincount(index, label, size), np.bincount(index, minlength=size)
    rate: FloatArray = (total + smoothing * label.mean()) / (count + smoothing)
    return rate


def _agreement(
    found: Mapping[str, float], headline: Mapping[str, float], group: str, weighting: str
) -> ResultRow:
    names = [n for n in headline if not np.isnan(found[n]) and not np.isnan(headline[n])]
    enough = len(names) >= 3
    r = spearmanr([found[n] for n in names], [headline[n] for n in names]).statistic if enough else np.nan  # fmt: skip
    return ResultRow(ALL, "rank_correlation", float(r), len(names), group=group, weighting=weighting)  # fmt: skip
