import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.feature_logs import DAY, HOUR, START, log_of, random_log

from reelrank.features.session_stats import SessionOptions, session_report, session_table
from reelrank.tables import Bursts, Sessions

MINUTE = 60_000


def bursts_of(*spans):
    frame = pl.DataFrame(spans, schema=["start_ms", "end_ms"], orient="row")
    return Bursts.conform(frame.with_columns(rows=pl.lit(1)).with_row_index("burst_id"))


LOG = log_of(
    user_id=[1] * 5 + [2],
    item_id=[0] * 6,
    ts_ms=[START + m * MINUTE for m in (0, 15, 46, 107, 108)] + [START + 5 * MINUTE],
)


def test_each_gap_makes_its_own_sessions():
    found = session_table(LOG, SessionOptions())
    Sessions.validate(found)
    rows = {
        gap: found.filter(pl.col("gap_s") == gap)
        .select("user_id", "first_row_id", "n_rows", "previous_n_rows")
        .rows()
        for gap in (900, 1800, 3600)
    }
    assert rows[900] == [(1, 0, 2, None), (1, 2, 1, 2), (1, 3, 2, 1), (2, 5, 1, None)]
    assert rows[1800] == rows[900]  # the gaps are 15, 31 and 61 minutes
    assert rows[3600] == [(1, 0, 3, None), (1, 3, 2, 3), (2, 5, 1, None)]
    assert found["gap_hours"][1] == pytest.approx(31 / 60)
    assert found["end_ms"][0] - found["start_ms"][0] == 15 * MINUTE
    assert found["burst_id"].null_count() == found.height


def test_no_session_spans_a_burst():
    bursts = bursts_of((START, START + 46 * MINUTE), (START + 107 * MINUTE, START + DAY))
    found = session_table(LOG, SessionOptions(gaps_s=(3600 * 2,)), bursts)
    columns = found.select("user_id", "burst_id", "n_rows", "previous_n_rows", "gap_hours")
    assert columns.rows() == [
        (1, 0, 2, None, 0),
        (1, None, 1, None, 0),
        (1, 1, 2, None, 0),
        (2, 0, 1, None, 0),
    ]


def test_report():
    report = session_report(session_table(LOG, SessionOptions(gaps_s=(3600, 900))).lazy())
    assert list(report) == ["900", "3600"]
    assert report["3600"] == {
        "sessions": 3, "rows": 6, "mean_rows": 2.0, "median_rows": 2.0, "max_rows": 3,
        "median_gap_hours": pytest.approx(61 / 60),
    }  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_sessions_part_the_rows(seed):
    log = random_log(seed, n_rows=120)
    bursts = bursts_of((START + DAY, START + 2 * DAY), (START + 3 * DAY, START + 4 * DAY))
    found = session_table(log, SessionOptions(gaps_s=(600, 3600)), bursts)
    of_gap = found.group_by("gap_s").agg(pl.col("n_rows").sum(), pl.len()).sort("gap_s")
    assert of_gap["n_rows"].to_list() == [120, 120]
    assert of_gap["len"][0] >= of_gap["len"][1]
    # the ingestion's sessions, cut at the bursts
    edges = pl.sum_horizontal(
        (pl.col("ts_ms") >= t).cast(pl.Int8) for t in (START + k * DAY for k in (1, 2, 3, 4))
    )
    expected = log.select("user_id", "session_id", edges.alias("at")).n_unique()
    assert session_table(log, SessionOptions(gaps_s=(1800,)), bursts).height == expected
    assert (found["gap_hours"] * HOUR > 0).sum() == found["previous_n_rows"].count()


def test_no_rows():
    assert session_table(LOG.clear(), SessionOptions()).schema == pl.Schema(
        Sessions.polars_schema()
    )
    assert session_report(session_table(LOG.clear(), SessionOptions()).lazy()) == {}


@pytest.mark.parametrize("gaps", [(), (0,), (900, 900)])
def test_wrong_gaps_are_refused(gaps):
    with pytest.raises(ValidationError):
        SessionOptions(gaps_s=gaps)
