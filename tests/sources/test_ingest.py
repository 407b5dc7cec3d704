"""One ingestion for every source: nothing depends on chunks, buckets, workers or engine."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reelrank.buckets import EngineOptions
from reelrank.sources.errors import TooManyBadRows
from reelrank.sources.ingest import LONG_RUN, LogOptions, ingest_logs, positions, ranks
from reelrank.sources.log_csv import Column, CsvFormat
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import RawFile
from reelrank.tables import Interactions

COLUMNS = tuple(Column(name, low=0) for name in ("user", "item", "ms", "note"))
KNOWN = np.arange(3)


def to_rows(raw):
    return raw.select(
        user_id="user",
        item_id="item",
        ts_ms="ms",
        excluded=pl.when(pl.col("note") == 9).then(pl.lit("note 9")),
    )


def write_log(path, lines):
    path.write_text("user,item,ms,note\n" + "".join(f"{line}\n" for line in lines))
    return LogFile(RawFile("log", path, path.stat().st_size), CsvFormat(COLUMNS, to_rows))


def run(tmp_path, *logs, chunk_mb=16.0, max_bad_share=1.0, gap=10, **engine):
    options = LogOptions(session_gap_s=gap, chunk_mb=chunk_mb, max_bad_share=max_bad_share)
    engine = EngineOptions(staging=tmp_path / "staging", **engine)
    return ingest_logs("toy", logs, KNOWN, KNOWN, options, engine, {"fingerprint": "f"})


def frame(ingested):
    table = Interactions.validate(ingested.interactions)
    return table.scan().collect().sort("row_id")


def test_order_numbers_and_duplicates_by_hand(tmp_path):
    first = write_log(tmp_path / "a.csv", ["7,1,5000,0", "0,5,2000,0", "7,1,5000,0", "x,1,1,0", "0,1,1000,9", "0,1,1000,0"])  # fmt: skip
    second = write_log(tmp_path / "b.csv", ["7,2,5000,0", "7,1,5000,1", "7,1,5000,0", "7,1,16000,0"])  # fmt: skip
    got = run(tmp_path, first, second, n_buckets=2)
    rows = got.interactions.scan().collect().sort("user_id", "ts_ms", "row_id")
    second_file = 2**40
    assert got.user_ids.tolist() == [0, 1, 2, 7]
    assert got.item_ids.tolist() == [0, 1, 2, 5]
    assert (got.unknown_users, got.unknown_items) == (1, 1)
    columns = ["user_id", "item_id", "ts_ms", "row_id", "request_id", "session_id"]
    assert rows.select(columns).rows() == [
        (0, 1, 1000, 7, 0, 0),
        (0, 3, 2000, 3, 1, 0),
        (3, 1, 5000, 2, 2, 1),
        (3, 2, 5000, second_file + 2, 2, 1),
        (3, 1, 5000, second_file + 3, 2, 1),  # its note differs
        (3, 1, 16000, second_file + 5, 3, 2),
    ]
    assert got.rows_read == {"a.csv": 6, "b.csv": 4}
    assert got.duplicates == {"a.csv": 1, "b.csv": 1}
    assert got.excluded == {"a.csv": {"note 9": 1}, "b.csv": {}}
    assert got.quarantine.rows() == [("a.csv", 5, "user is not an integer: 'x'", "x,1,1,0")]
    absent = ["click", "like", "play_ms", "watch_ratio"]
    assert rows.select(pl.col(absent).null_count()).row(0) == (6,) * 4
    assert rows.select(pl.col("scenario", "is_rand").sum()).row(0) == (0, 0)


def random_lines(n, seed=0):
    rng = np.random.default_rng(seed)
    table = np.stack([rng.integers(0, 9, n), rng.integers(0, 6, n), rng.integers(0, 40, n) * 1000, rng.integers(0, 2, n)], 1)  # fmt: skip
    return [",".join(map(str, row)) for row in table.tolist()]


ENGINES = [
    {"n_buckets": 3},
    {"n_buckets": 5, "workers": 3},
    {"n_buckets": 1, "chunk_mb": 0.0001},
    {"n_buckets": 8, "workers": 2, "chunk_mb": 0.001},
]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_depends_on_chunks_buckets_or_workers(tmp_path, engine):
    log = write_log(tmp_path / "a.csv", [*random_lines(2000), "bad"])
    one = run(tmp_path, log, n_buckets=1)
    other = run(tmp_path, log, **engine)
    assert frame(one).equals(frame(other))
    assert one.quarantine.equals(other.quarantine)
    assert one.duplicates == other.duplicates
    assert one.duplicates["a.csv"] == 2000 - len(set(random_lines(2000))) > 0


@pytest.mark.slow
def test_spark_makes_the_same_tables(tmp_path):
    pytest.importorskip("pyspark", reason="needs the extra [spark]")
    log = write_log(tmp_path / "a.csv", [*random_lines(2000), "bad"])
    settings = {"spark.ui.enabled": "false", "spark.executorEnv.PYTHONPATH": str(Path(__file__).parent)}  # fmt: skip
    spark = run(tmp_path, log, n_buckets=3, chunk_mb=0.01, engine="spark", spark={"master": "local[2]", "settings": settings})  # fmt: skip
    local = run(tmp_path, log, n_buckets=3, chunk_mb=0.01)
    assert frame(spark).equals(frame(local))
    assert spark.quarantine.equals(local.quarantine)
    assert (spark.duplicates, spark.rows_read) == (local.duplicates, local.rows_read)


def test_a_long_run_at_one_time_is_searched_too(tmp_path):
    lines = [f"1,{k},1000,0" for k in range(3 * LONG_RUN)]
    got = run(tmp_path, write_log(tmp_path / "a.csv", lines + lines))
    assert got.interactions.n_rows == len(lines)
    assert got.duplicates == {"a.csv": len(lines)}


def test_too_many_bad_rows_stop_the_run_and_leave_nothing(tmp_path):
    log = write_log(tmp_path / "a.csv", ["1,1,1,0"] * 8 + ["no", "no"])
    with pytest.raises(TooManyBadRows, match=r"a\.csv: 2 of 10 rows \(20\.00%\).*toy\.ingest\.max_bad_share allows 10\.00%.*line 10"):  # fmt: skip
        run(tmp_path, log, max_bad_share=0.1)
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_log_without_one_good_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"None of the 2 rows of the logs can be used; the first, a\.csv line 2: user"):  # fmt: skip
        run(tmp_path, write_log(tmp_path / "a.csv", ["no,1,1,1", "1,1,1,9"]))


def test_ranks_and_positions_of_any_ids():
    ids = np.array([2**60, -3, 5, 2**60])
    for values in (ids, np.array([9, 4, 9, 0]), np.empty(0, np.int64)):
        distinct, place = ranks(values)
        assert distinct.tolist() == sorted(set(values.tolist()))
        assert distinct[place].tolist() == values.tolist()
        assert positions(distinct, values).tolist() == place.tolist()
