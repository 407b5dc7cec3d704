"""L4: no feature is a statistic over days that had not ended yet."""

import polars as pl
import pytest
from support.kuairand_files import write_release
from support.leaks import honest, leaky

from reelrank.buckets import EngineOptions
from reelrank.features.daily import daily_before
from reelrank.features.local_time import day_start_ms, local_day, local_days
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuairand import find_files, ingest
from reelrank.sources.kuairand_schema import VIDEO_STATISTIC_COLUMNS


def of_the_same_day(item_daily, interactions):
    known = interactions.select("user_id", "row_id", "item_id", date=local_days("ts_ms"))
    return known.join(item_daily, on=["item_id", "date"], how="left", maintain_order="left").drop(
        "item_id", "date"
    )


def of_all_days(item_daily, interactions):
    means = item_daily.group_by("item_id").agg(pl.exclude("date").mean())
    known = interactions.select("user_id", "row_id", "item_id")
    return known.join(means, on="item_id", how="left", maintain_order="left").drop("item_id")


def check(statistics_of, world):
    """Statistics of a day and of those after it change nothing for the rows until that day."""
    numbers = ["play_cnt", "show_cnt"]
    item_daily = world.item_daily.select("item_id", "date", pl.col(numbers).cast(pl.Float64))
    expected = statistics_of(item_daily, world.interactions)
    assert expected["play_cnt"].count() > expected.height / 2
    for start_ms in world.bursts["start_ms"]:
        day = local_day(start_ms + 3 * 24 * 3_600_000)
        until = pl.col("row_id").is_in(
            world.interactions.filter(pl.col("ts_ms") < day_start_ms(day) + 24 * 3_600_000)[
                "row_id"
            ].implode()
        )
        later = (
            pl.when(pl.col("date") >= day).then(pl.col(numbers) * 3 + 1).otherwise(pl.col(numbers))
        )
        found = statistics_of(item_daily.with_columns(later), world.interactions)
        assert found.filter(until).equals(expected.filter(until)), (
            "statistics of a day that has not ended"
        )


@pytest.mark.parametrize(
    "variant",
    [*honest(daily_before), *leaky("a day that has not ended", of_the_same_day, of_all_days)],
)
def test_daily_statistics_are_of_days_before(variant, judge, world):
    judge(check, variant, world)


def statistics_file(root, plays):
    """Month averages of KuaiRand's three videos."""
    folder = root / "KuaiRand-Pure" / "data"
    values = dict.fromkeys(VIDEO_STATISTIC_COLUMNS, 1) | {"play_cnt": plays}
    lines = [
        ",".join(str(v) for v in (values | {"video_id": video}).values()) for video in range(3)
    ]
    path = folder / "video_features_statistic_pure.csv"
    path.write_text("\n".join([",".join(values), *lines]) + "\n", encoding="utf-8")
    return path


def tables(root, staging):
    """Everything that KuaiRand's files become."""
    manifest = find_files(root, "pure")
    made = ingest(manifest, LogOptions(), EngineOptions(n_buckets=1, staging=staging))
    return [made.interactions.read(0), made.items, made.users, *(made.extras or {}).values()]


def tables_with_popular_items(root, staging):
    statistics = pl.read_csv(root / "KuaiRand-Pure" / "data" / "video_features_statistic_pure.csv")
    log, items, *rest = tables(root, staging)
    return [log, items.with_columns(popularity=statistics["play_cnt"]), *rest]


def check_month(read, folder):
    root = write_release(folder / "raw")
    found = []
    for plays in (10, 1000):
        statistics_file(root, plays)
        found.append(read(root, folder / f"staging{plays}"))
    same = [a.equals(b) for a, b in zip(*found, strict=True)]
    assert all(same), "a table holds averages over the whole month"


@pytest.mark.parametrize(
    "variant", [*honest(tables), *leaky("averages over the whole month", tables_with_popular_items)]
)
def test_month_averages_reach_no_table(variant, judge, tmp_path):
    judge(check_month, variant, tmp_path)
