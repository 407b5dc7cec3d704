from datetime import date

import polars as pl
import pytest
from support.feature_logs import DAY, HOUR, START, log_of

from reelrank.features.daily import daily_before
from reelrank.features.local_time import local_day

TODAY = local_day(START)


def daily(*rows):
    frame = pl.DataFrame(rows, schema=["item_id", "date", "play_cnt"], orient="row")
    return frame.cast({"item_id": pl.Int32, "play_cnt": pl.Float64})


def test_each_row_gets_the_day_before():
    log = log_of(
        user_id=[0, 0, 0, 0],
        item_id=[3, 3, 4, 3],
        ts_ms=[START, START + DAY - 1, START + DAY - 1, START + DAY],
    )
    yesterday = date.fromordinal(TODAY.toordinal() - 1)
    found = daily_before(daily((3, yesterday, 7), (3, TODAY, 9), (5, TODAY, 1)), log)
    assert found.columns == ["user_id", "row_id", "play_cnt"]
    assert found["row_id"].equals(log["row_id"])
    assert found["play_cnt"].to_list() == [7, 7, None, 9]


def test_a_day_that_stands_twice_is_refused():
    log = log_of(user_id=[0], item_id=[3], ts_ms=[START + 5 * HOUR])
    with pytest.raises(ValueError, match=f"item_id 3 has more than one row on {TODAY}"):
        daily_before(daily((3, TODAY, 1), (3, TODAY, 2)), log)
