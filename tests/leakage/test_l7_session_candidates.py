"""L7: what could have been shown in a session was uploaded and known when it began."""

import polars as pl
import pytest
from support.leaks import honest, leaky

from reelrank.features.candidate_features import (
    CandidateOptions,
    LogTables,
    candidate_rows,
    ranking_sessions,
)
from reelrank.features.candidates import availability_ts
from reelrank.features.histories import HistoryOptions, ItemCodes, histories

FIRST_DAY = 24 * 3_600_000


def by_default(events, items):
    return availability_ts(events, items), CandidateOptions()


def whole_catalogue(events, items):
    return availability_ts(events, items), CandidateOptions(catalogue="all")


def of_uploads_alone(events, items):
    return items["upload_ts"].fill_null(0).to_numpy(), CandidateOptions()


def check(rule, world):
    log, items = world.interactions, world.items
    past = histories(log, ItemCodes.of(items), HistoryOptions(), world.bursts)
    splits = log.select("user_id", "row_id", split=pl.lit("test"))
    sessions, _ = ranking_sessions(log, splits, world.bursts)
    tables = LogTables(log, past, items, HistoryOptions(), world.bursts)
    start_ms = sessions.select("start_ms").with_row_index("position")
    shown_from = log.group_by("item_id").agg(first_ms=pl.min("ts_ms"))
    rows = pl.concat(candidate_rows(tables, sessions, *rule(log, items)))
    assert rows.filter(pl.col("rank_shown") > 0).height == sessions["n_shown"].sum()
    others = (
        rows.filter(pl.col("rank_shown") == 0)
        .select(pl.col("position").cast(pl.UInt32), "item_id")
        .join(start_ms, on="position")
        .join(items.select("item_id", "upload_ts"), on="item_id")
        .join(shown_from, on="item_id", how="left")
    )
    assert others.height > sessions.height
    late = others.filter(pl.col("upload_ts") > pl.col("start_ms"))
    assert late.is_empty(), f"{late.height} candidates are not uploaded"
    in_first_day = pl.col("first_ms") < log["ts_ms"].min() + FIRST_DAY
    known = (pl.col("first_ms") < pl.col("start_ms")) | in_first_day
    unknown = others.filter(~known.fill_null(False))
    assert unknown.is_empty(), f"{unknown.height} candidates were not seen before"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(by_default),
        *leaky("are not uploaded", whole_catalogue),
        *leaky("were not seen before", of_uploads_alone),
    ],
)
def test_candidates_of_sessions_are_uploaded_and_seen(variant, judge, world):
    judge(check, variant, world)
