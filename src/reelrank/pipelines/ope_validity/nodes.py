"""Thin nodes of the validity studies; torch is imported where π̂_b is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.options import Options
from reelrank.pipelines.ope_validity import matrix, random_log, rankings
from reelrank.pipelines.ope_validity.options import (
    BanditOptions,
    MatrixOptions,
    RandomLogOptions,
    RankingOptions,
)
from reelrank.provenance import config_hash
from reelrank.sources.manifest import Manifest
from reelrank.tables import Results
from reelrank.worlds.truth import Truth

SYSTEM = "ope_validity"


def study_bandit(
    raw_manifest: dict[str, Any],
    interactions: BucketedTable,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    items: pl.DataFrame,
    bandit: BanditOptions,
) -> pl.DataFrame:
    """OP-01, 02, 05 … 08 on the world's requests; no rows where the files are real, since their values are not known."""
    from reelrank.pipelines.ope_validity import bandit as study
    from reelrank.pipelines.ope_validity import feed as feeds

    manifest = Manifest.from_dict(raw_manifest)
    if manifest.kind != "world":
        return _frame({}, manifest, "requests", bandit.seed, bandit)
    feed = feeds.read_feed(manifest, interactions.scan().collect(), user_map, item_map, items)
    train, val, _ = study.parts_by_time(feed, bandit)
    fitted = feeds.fit_logging_policy(feed, train, val, bandit.behaviour)
    estimated = feeds.fitted_probabilities(feed, fitted)
    studies = {
        "OP-01": study.op_01(feed, estimated, bandit),
        "OP-02": study.op_02(feed, estimated, bandit),
        "OP-05": study.op_05(feed, bandit),
        "OP-06": study.op_06(feed, bandit),
        "OP-07": study.op_07(feed, bandit),
        "OP-08": study.op_08(feed, bandit),
    }
    return _frame(studies, manifest, "requests", bandit.seed, bandit)


def study_matrix(
    raw_manifest: dict[str, Any],
    observed: pl.DataFrame,
    interactions: BucketedTable,
    items: pl.DataFrame,
    options: MatrixOptions,
) -> pl.DataFrame:
    """OP-03 on KuaiRec's small matrix, of a world or real."""
    columns = ["user_id", "item_id"]
    big = interactions.scan().select(columns).collect()
    cells = matrix.op_03(observed, big, items, options)
    manifest = Manifest.from_dict(raw_manifest)
    return _frame({"OP-03": cells}, manifest, "small_matrix", options.seed, options)


def study_random_log(
    raw_manifest: dict[str, Any],
    interactions: BucketedTable,
    splits: BucketedTable,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    items: pl.DataFrame,
    split_cuts: dict[str, Any],
    options: RandomLogOptions,
) -> pl.DataFrame:
    """OP-04 on KuaiRand's two logs; with the planted value where there is one."""
    manifest = Manifest.from_dict(raw_manifest)
    truth = Truth.load(manifest.root.parent) if manifest.kind == "world" else None
    cells = random_log.op_04(
        _with_split(interactions, splits),
        items,
        options,
        truth,
        user_map["raw_id"].to_numpy(),
        item_map["raw_id"].to_numpy(),
    )
    return _frame({"OP-04": cells}, manifest, f"{split_cuts['rule']}/test", options.seed, options)


def study_rankings(
    raw_manifest: dict[str, Any],
    interactions: BucketedTable,
    splits: BucketedTable,
    items: pl.DataFrame,
    split_cuts: dict[str, Any],
    options: RankingOptions,
) -> pl.DataFrame:
    """OP-09, OP-10 and OP-11 on the test part of the standard log."""
    train, test = rankings.split_rows(_with_split(interactions, splits))
    studies = {
        "OP-09": rankings.op_09(train, test, items, options),
        "OP-10": rankings.op_10(train, test, items.height, options),
        "OP-11": rankings.op_11(train, test, items, options),
    }
    manifest = Manifest.from_dict(raw_manifest)
    return _frame(studies, manifest, f"{split_cuts['rule']}/test", options.seed, options)


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)


def _frame(
    studies: Mapping[str, Mapping[str, Sequence[ResultRow]]],
    manifest: Manifest,
    split: str,
    seed: int,
    options: Options,
) -> pl.DataFrame:
    none = Results.conform(pl.DataFrame(schema=Results.polars_schema()))
    frames = [
        results_frame(
            rows,
            system=SYSTEM,
            source=manifest.source,
            split=split,
            seed=seed,
            data_kind="world" if manifest.kind == "world" else "real",
            config_hash=config_hash(options),
            experiment=experiment,
            cell=cell,
        )
        for experiment, cells in studies.items()
        for cell, rows in cells.items()
    ]
    return pl.concat([none, *frames])


def _with_split(interactions: BucketedTable, splits: BucketedTable) -> pl.DataFrame:
    of_row = splits.scan().select("row_id", pl.col("split").cast(pl.String))
    return interactions.scan().join(of_row, on="row_id").collect()
