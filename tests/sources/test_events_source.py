"""A store's own log with a mapping: files to tables, wrong mappings, damaged files, given rewards."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.buckets import EngineOptions
from reelrank.sources.errors import EmptyFile, MissingRawFiles, TooManyBadRows, WrongHeader
from reelrank.sources.events import find_files, ingest
from reelrank.sources.ingest import FILE_ROWS, LogOptions
from reelrank.sources.text_fields import hash_texts
from reelrank.sources.text_log import WrongMapping
from reelrank.tables import IdMap, Interactions, Items, Quarantine, RewardsGiven, Users
from reelrank.worlds.events import MAPPING as WORLD_MAPPING
from reelrank.worlds.events import write_world
from reelrank.worlds.events_options import EventsWorldOptions
from reelrank.worlds.folder import TRUTH_FOLDER

T0 = 1_714_521_600
HEADER = "user,item,scenario,ts,reward,click"
LINES = (
    f"ann,shoe,home,{T0},1,1",
    f"bob,hat,search,{T0 + 5},0,0",
    f"ann,hat,home,{T0 + 60},,0",
    f"ann,hat,search,{T0 + 9999},2.5,1",
)
MAPPING = """\
logs: [events.csv]
user: user
item: item
time: {column: ts, unit: s}
scenario: {column: scenario, kind: text}
feedback: {click: click}
reward: reward
"""
ITEMS = """\
items: {file: items.csv, item: item, category_1: kind, category_2: {column: code, kind: integer}, caption: title, author_id: maker, duration_ms: length}
"""
ITEM_TABLE = "item,kind,code,title,maker,length\nhat,wear,3,A hat,m1,0\nshoe,wear,4,,m2,9\nsofa,home,,Sofa,m1,\n"


def write(root, mapping=MAPPING, **files):
    root = Path(root)
    root.mkdir(exist_ok=True)
    contents = {"events.csv": "\n".join([HEADER, *LINES, ""]), "mapping.yml": mapping} | files
    for name, content in contents.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (root / name).write_bytes(data)
    return root


def run(root, n_buckets=2, **options):
    options = LogOptions(**({"max_bad_share": 1.0} | options))
    engine = EngineOptions(n_buckets=n_buckets, staging=Path(root).parent / "staging")
    return ingest(find_files(Path(root)), options, engine)


def rows(got):
    return got.interactions.scan().sort("user_id", "ts_ms", "row_id").collect()


def named(got):
    """Rows with raw texts, and their rewards."""
    frame = rows(got)
    for side, ids in (("user", got.user_map), ("item", got.item_map)):
        texts = ids.select(pl.col("dense_id").alias(f"{side}_id"), pl.col("raw_text").alias(side))
        frame = frame.join(texts, on=f"{side}_id", maintain_order="left")
    rewards = got.extras["rewards_given"].scan().collect()
    return frame.join(rewards, on=["user_id", "row_id"], how="left", validate="1:1")


# --- what comes out -------------------------------------------------------------------------------------------


def test_a_log_becomes_canonical_tables(tmp_path):
    got = run(write(tmp_path / "raw", MAPPING + ITEMS, **{"items.csv": ITEM_TABLE}))
    for table, frame in ((Users, got.users), (Items, got.items), (Quarantine, got.quarantine)):
        table.validate(frame)
    for ids in (got.user_map, got.item_map):
        IdMap.validate(ids)
    Interactions.validate(got.interactions)
    RewardsGiven.validate(got.extras["rewards_given"])
    frame = named(got).sort("row_id")
    assert frame.select("user", "item", "ts_ms", "scenario", "click", "reward", "row_id").rows() == [
        ("ann", "shoe", T0 * 1000, 0, 1, 1.0, 2),
        ("bob", "hat", (T0 + 5) * 1000, 1, 0, 0.0, 3),
        ("ann", "hat", (T0 + 60) * 1000, 0, 0, None, 4),
        ("ann", "hat", (T0 + 9999) * 1000, 1, 1, 2.5, 5),
    ]  # fmt: skip
    assert frame["like"].null_count() == frame["play_ms"].null_count() == 4  # null, not zero
    # home came first, so it is 0
    assert got.report["scenarios"] == {"home": 0, "search": 1}
    assert got.report["rows_per_scenario"] == {"0": 2, "1": 2}
    assert frame.group_by("user").agg(pl.col("session_id").n_unique()).sort("user").rows() == [("ann", 2), ("bob", 1)]  # fmt: skip
    # a raw id is the text's hash, and dense ids follow it
    assert got.user_map["raw_id"].to_list() == sorted(hash_texts(pl.Series(["ann", "bob"])))
    items = got.items.with_columns(name=got.item_map["raw_text"]).sort("name")
    assert items.select("name", "category_1", "category_2", "caption", "duration_ms").rows() == [
        ("hat", 1, 3, "A hat", None),
        ("shoe", 1, 4, None, 9),
        ("sofa", 0, None, "Sofa", None),  # never seen, and known
    ]
    assert items["author_id"][0] == items["author_id"][2] != items["author_id"][1]
    assert got.report["categories"] == {"category_1": ["home", "wear"]}
    assert (got.report["users"], got.report["items"], got.report["unknown_items"]) == (2, 3, 0)


def test_the_order_of_rewards_is_that_of_interactions(tmp_path):
    got = run(write(tmp_path / "raw"))
    for bucket in range(2):
        keys = ["user_id", "row_id"]
        assert (
            got.extras["rewards_given"]
            .read(bucket, keys)
            .equals(got.interactions.read(bucket, keys))
        )
    assert got.extras["rewards_given"].n_rows == 4


def test_without_reward_scenario_and_items_nothing_is_invented(tmp_path):
    got = run(write(tmp_path / "raw", "\n".join(MAPPING.splitlines()[:4])))
    RewardsGiven.validate(got.extras["rewards_given"])
    assert named(got)["reward"].null_count() == 4
    assert rows(got).select(pl.col("scenario", "is_rand").sum()).row(0) == (0, 0)
    assert rows(got)["click"].null_count() == 4
    assert got.report["unknown_items"] == 2  # no file of items, so none is known
    assert got.items.drop("item_id").null_count().sum_horizontal().item() == 2 * 16


def test_integer_ids_stay_themselves_and_several_logs_are_one_table(tmp_path):
    text = MAPPING.replace("[events.csv]", "['part_*.csv', last.csv]") + "user_ids: integer\nitem_ids: integer\n"  # fmt: skip
    parts = {
        "part_2.csv": f"{HEADER}\n7,30,home,{T0},0,1\n",
        "part_1.csv": f"click,{HEADER.removesuffix(',click')}\n1,9,10,cart,{T0},0\n",
        "last.csv": f"{HEADER}\n7,10,search,{T0},0,1\n7,30,home,{T0},0,1\n",
    }
    got = run(write(tmp_path / "raw", text, **parts, **{"events.csv": None}))
    assert got.user_map.rows() == [(0, 7, None), (1, 9, None)]
    assert got.item_map["raw_id"].to_list() == [10, 30]
    assert rows(got)["row_id"].to_list() == [FILE_ROWS + 2, 2 * FILE_ROWS + 2, 2]
    assert got.report["scenarios"] == {"cart": 0, "home": 1, "search": 2}
    # the same line in two files is one event
    assert {f["file"]: f["duplicates"] for f in got.report["files"]} == {"mapping.yml": 0, "part_1.csv": 0, "part_2.csv": 0, "last.csv": 1}  # fmt: skip


def test_rows_of_another_kind_are_left_out_and_counted(tmp_path):
    text = MAPPING + "kind: {column: click, used: [1], unused: [0]}\n"
    got = run(write(tmp_path / "raw", text))
    assert rows(got)["click"].to_list() == [1, 1]
    assert got.report["files"][1]["excluded"] == {"click is 0": 2}
    assert [step["rows"] for step in got.report["steps"]] == [4, 4, 2, 2]
    assert got.extras["rewards_given"].scan().collect()["reward"].to_list() == [1.0, 2.5]


def test_csv_and_parquet_give_the_same_rows(tmp_path):
    from_csv = run(write(tmp_path / "csv", MAPPING + ITEMS, **{"items.csv": ITEM_TABLE}))
    text = (MAPPING + ITEMS).replace(".csv", ".parquet")
    root = write(tmp_path / "parquet", text, **{"events.csv": None})
    for name in ("events", "items"):
        pl.read_csv(tmp_path / f"csv/{name}.csv").write_parquet(root / f"{name}.parquet", row_group_size=2)  # fmt: skip
    from_parquet = run(root, chunk_mb=1e-6)
    # a Parquet file has no header line: its first row is line 1
    assert named(from_parquet).with_columns(pl.col("row_id") + 1).equals(named(from_csv))
    for table in ("items", "users", "user_map", "item_map"):
        assert getattr(from_parquet, table).equals(getattr(from_csv, table)), table


def test_parquet_quarantines_and_counts_repeats(tmp_path):
    text = MAPPING.replace(".csv", ".parquet")
    root = write(tmp_path / "raw", text, **{"events.csv": None})
    frame = pl.read_csv(write(tmp_path / "csv") / "events.csv", infer_schema_length=0)
    bad = frame.head(1).with_columns(click=pl.lit("x"), user=pl.lit(None, pl.String))
    pl.concat([frame, bad, frame.head(2)]).write_parquet(root / "events.parquet", row_group_size=3)
    got = run(root, chunk_mb=1e-6)
    assert got.quarantine.rows() == [("events.parquet", 5, "user is empty", f",shoe,home,{T0},1,x")]
    assert got.interactions.n_rows == 4
    assert got.report["files"][1]["duplicates"] == 2


ROW = st.tuples(
    st.sampled_from(["ann", "bob", "", "é"]),
    st.sampled_from(["hat", "shoe", '"sofa, red"']),
    st.sampled_from(["home", "search", ""]),
    st.integers(T0, T0 + 3).map(str) | st.just("soon"),
    st.sampled_from(["1", "-2.5", "", "x"]),
    st.sampled_from(["0", "1", "2"]),
)


@settings(max_examples=12, deadline=None)
@given(
    lines=st.lists(ROW.map(",".join) | st.just("a,b"), max_size=25),
    chunk_bytes=st.integers(8, 200),
    n_buckets=st.integers(1, 4),
)
def test_chunks_and_buckets_never_change_results(tmp_path_factory, lines, chunk_bytes, n_buckets):
    root = tmp_path_factory.mktemp("chunks") / "raw"
    write(root, **{"events.csv": "\n".join([HEADER, *LINES, *lines])})
    whole, cut = run(root), run(root, n_buckets, chunk_mb=chunk_bytes / 2**20)
    assert named(whole).equals(named(cut))
    assert whole.quarantine.equals(cut.quarantine)
    assert whole.report == cut.report
    assert whole.user_map.equals(cut.user_map)
    n_lines = 4 + len(lines)
    assert whole.interactions.n_rows + whole.quarantine.height + whole.report["files"][1]["duplicates"] == n_lines  # fmt: skip


# --- what is wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("user: user", "user: visitor", WrongMapping, r"user names the column 'visitor', which events\.csv does not have\. It has: \['user', 'item', 'scenario', 'ts', 'reward', 'click'\]"),
        ("click: click", "click: {column: clicked, ones: [1]}", WrongMapping, "click names the column 'clicked'"),
        ("category_1: kind", "category_1: sort", WrongMapping, r"items\.category_1 names the column 'sort', which items\.csv"),
        ("items.csv", "products.csv", MissingRawFiles, r"items\.file: no file 'products\.csv'"),
        ("[events.csv]", "[log.csv]", MissingRawFiles, r"logs: no file 'log\.csv'"),
        ("[events.csv]", "[]", WrongMapping, "logs: Tuple should have at least 1 item"),
        ("logs:", "log:", WrongMapping, "logs: Field required"),
        ("logs:", "layout: {header: false, columns: [user, item, scenario, ts, reward, click]}\nlogs:", WrongMapping, r"items\.layout is needed"),
    ],
)  # fmt: skip
def test_wrong_mappings_say_what_is_there(tmp_path, old, new, error, message):
    text = (MAPPING + ITEMS).replace(old, new, 1)
    root = write(tmp_path / "raw", text, **{"items.csv": ITEM_TABLE})
    with pytest.raises(error, match=message) as caught:
        find_files(root)
    assert "mapping.yml" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", EmptyFile, "no rows in"),
        (b"\x1f\x8b\x08\x00" + bytes(99), WrongHeader, "packed .gzip.: unpack it first"),
        ("\n".join([HEADER, *LINES]).replace(",", ";"), WrongMapping, r"It has: \['user;item;scenario"),
        (HEADER.replace("click", "clicks") + "\n", WrongMapping, "click names the column 'click'"),
        (HEADER.encode("utf-16"), WrongMapping, "user names the column"),
        (None, MissingRawFiles, r"no file 'events\.csv'"),
    ],
)  # fmt: skip
def test_damaged_logs_are_refused(tmp_path, content, error, message):
    with pytest.raises(error, match=message):
        find_files(write(tmp_path / "raw", **{"events.csv": content}))
    with pytest.raises(MissingRawFiles, match=r"mapping\.yml not found"):
        find_files(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"ann,hat,home,{T0},1", "wrong number of fields: 5 instead of 6"),
        (f"ann,hat,home,{T0},1,1,1", "wrong number of fields: 7 instead of 6"),
        (f"ann,hat,home,{T0},many,1", "reward must be a finite number, is many"),
        (f"ann,hat,home,{T0},1,-1", "click must be 0 or 1, is -1"),
        (f"ann,hat,,{T0},1,1", "scenario is empty"),
        ("ann,hat,home,12,1,1", "time must be a Unix time in s from 1990-01-01 to 2099-12-31, is 12"),
        (f"ann,hat\0,home,{T0},1,1", "NUL byte"),
        (f"ann,ha\xe9,home,{T0},1,1".encode("latin-1"), "not UTF-8"),
    ],
)  # fmt: skip
def test_damaged_lines_are_quarantined(tmp_path, line, reason):
    raw = line if isinstance(line, bytes) else line.encode()
    log = "\n".join([HEADER, *LINES]).encode() + b"\n" + raw + b"\n"
    got = run(write(tmp_path / "raw", **{"events.csv": log}))
    assert got.quarantine.select("file", "line", "reason").rows() == [("events.csv", 6, reason)]
    assert got.interactions.n_rows == 4
    with pytest.raises(TooManyBadRows, match=r"events\.ingest\.max_bad_share"):
        run(tmp_path / "raw", max_bad_share=0.1)


def test_a_log_of_which_nothing_can_be_used(tmp_path):
    root = write(tmp_path / "raw", **{"events.csv": f"{HEADER}\nx,y\n"})
    with pytest.raises(ValueError, match="None of the 1 rows of the logs can be used"):
        run(root)
    root = write(tmp_path / "raw", **{"events.csv": HEADER})
    with pytest.raises(ValueError, match="None of the 0 rows"):
        run(root)
    assert not any((tmp_path / "staging").iterdir())


def test_bad_items_are_quarantined_and_bounded(tmp_path):
    table = ITEM_TABLE + "hat,wear,5,Another,m1,\nbag,wear,x,,,\n,wear,1,,,\n"
    root = write(tmp_path / "raw", MAPPING + ITEMS, **{"items.csv": table})
    assert run(root).quarantine.rows() == [
        ("items.csv", 5, "item stands twice with other values", "hat,wear,5,Another,m1,"),
        ("items.csv", 6, "category_2 must be an integer, 0…2147483647, is x", "bag,wear,x,,,"),
        ("items.csv", 7, "item is empty", ",wear,1,,,"),
    ]
    with pytest.raises(TooManyBadRows, match=r"items\.csv: 3 of 6 rows"):
        run(root, max_bad_share=0.4)


# --- the sample world -----------------------------------------------------------------------------------------


def test_the_world_is_what_its_truth_says(tmp_path):
    options = EventsWorldOptions(users=400, seed=3)
    root = write_world(options, tmp_path / "world")
    assert (root / "mapping.yml").read_text() == WORLD_MAPPING
    got = run(root, max_bad_share=0)
    truth = pl.read_parquet(root / TRUTH_FOLDER / "rows.parquet")
    log = named(got).sort("row_id")
    assert log.height == truth.height == got.report["steps"][0]["rows"]
    p, value = truth["p_click"].to_numpy(), truth["expected_reward"].to_numpy()
    click, reward = log["click"].to_numpy(), log["reward"].to_numpy()
    assert set(np.unique(reward)) == {0.0, 1.0, 1.0 + options.purchase_reward}
    assert np.array_equal(reward > 0, click == 1)
    # calibrated inside every fifth of the planted probability: within 5 standard errors
    for part in np.array_split(np.argsort(p), 5):
        se = np.sqrt((p[part] * (1 - p[part])).mean() / len(part))
        assert abs(click[part].mean() - p[part].mean()) < 5 * se
        assert abs(reward[part].mean() - value[part].mean()) < 5 * reward[part].std() / len(part) ** 0.5  # fmt: skip
    share = log.select((pl.col("scenario") == 0).mean()).item()
    assert share == pytest.approx(options.search_share, abs=0.05)
    rates = log.group_by("scenario").agg(pl.col("click").mean()).sort("scenario")["click"]
    assert rates[0] > 2 * rates[1]  # search shows better and is clicked more
    assert got.items["category_1"].n_unique() == options.topics
    again = write_world(options, tmp_path / "again")
    assert (again / "events.csv").read_bytes() == (root / "events.csv").read_bytes()
