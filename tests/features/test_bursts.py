from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from support.feature_logs import DAY, HOUR, START, log_of

from reelrank.features.bursts import (
    KUAIREC_BURSTS,
    BurstOptions,
    burst_edges,
    burst_of,
    day_rows,
    find_bursts,
)
from reelrank.features.local_time import day_start_ms, local_day, local_days
from reelrank.tables import Bursts


def test_local_days_turn_at_16_utc():
    before = int(datetime(2020, 7, 4, 15, 59, 59, 999_000, tzinfo=UTC).timestamp() * 1000)
    assert [local_day(before), local_day(before + 1)] == [date(2020, 7, 4), date(2020, 7, 5)]
    assert day_start_ms(date(2020, 7, 5)) == before + 1
    found = pl.DataFrame({"t": [before, before + 1]}).select(local_days("t"))
    assert found["t"].to_list() == [date(2020, 7, 4), date(2020, 7, 5)]


def log_on(*days: float) -> pl.DataFrame:
    n = len(days)
    return log_of(user_id=[0] * n, item_id=[0] * n, ts_ms=[START + int(d * DAY) for d in days])


def fitted(*days, **options):
    return find_bursts(day_rows(log_on(*days).lazy()), BurstOptions(rule="fitted", **options))


def test_bursts_are_maximal_runs_of_days_with_rows():
    found = fitted(0, 0.9, 1.5, 3.2, 6, 7.99)
    Bursts.validate(found)
    spans = [
        ((s - START) / DAY, (e - START) / DAY) for s, e in found.select("start_ms", "end_ms").rows()
    ]
    assert spans == [(0, 2), (3, 4), (6, 8)]
    assert found["burst_id"].to_list() == [0, 1, 2]
    assert found["rows"].to_list() == [3, 1, 2]


def test_a_day_with_too_few_rows_is_outside():
    found = fitted(0, 0.5, 1, 2, 2.5, min_day_rows=2)
    assert found["rows"].to_list() == [2, 2]
    ts = np.array([START, START + DAY, START + 2 * DAY, START + 3 * DAY - 1, START + 3 * DAY])
    assert burst_of(ts, found).tolist() == [0, -1, 1, 1, -1]


def test_published_bursts():
    days = [KUAIREC_BURSTS[0][0], KUAIREC_BURSTS[0][1], date(2020, 7, 13), KUAIREC_BURSTS[2][1]]
    frame = pl.DataFrame({"day": days, "rows": [5, 6, 7, 8]})
    found = find_bursts(frame, BurstOptions(rule="kuairec"))
    assert found["rows"].to_list() == [11, 8]  # nothing of the second is in this log
    assert [(b - a).days + 1 for a, b in KUAIREC_BURSTS] == [8, 10, 10]
    assert local_day(int(found["end_ms"][0]) - 1) == date(2020, 7, 12)


def test_no_bursts():
    days = day_rows(log_on(0, 5).lazy())
    none = find_bursts(days, BurstOptions())
    assert none.schema == pl.Schema(Bursts.polars_schema())
    assert none.is_empty()
    assert burst_edges(none).size == burst_edges(None).size == 0
    assert burst_of(np.array([START]), none).tolist() == [-1]
    for options in (BurstOptions(rule="kuairec"), BurstOptions(rule="fitted", min_day_rows=9)):
        with pytest.raises(ValueError, match=f"rule {options.rule} finds none"):
            find_bursts(days, options)


def test_two_bursts_may_touch():
    edges = [(START, START + DAY), (START + DAY, START + 2 * DAY)]
    frame = pl.DataFrame(edges, schema=["start_ms", "end_ms"], orient="row")
    assert burst_of(
        np.array([START + DAY - 1, START + DAY, START + DAY + HOUR]), frame
    ).tolist() == [0, 1, 1]
