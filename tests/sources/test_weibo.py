"""Weibo: Tianchi's posts without viewers, and releases with viewers."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.buckets import EngineOptions
from reelrank.sources.errors import EmptyFile, MissingRawFiles, TooManyBadRows, WrongHeader
from reelrank.sources.ingest import LogOptions
from reelrank.sources.text_log import WrongMapping
from reelrank.sources.weibo import NoViewers, find_files, fold_actions, ingest, ingest_posts
from reelrank.tables import (
    AuthorPosts,
    Cascades,
    IdMap,
    Interactions,
    Items,
    Quarantine,
    SocialEdges,
    Users,
)

T0 = 1_433_088_000  # 2015-06-01 00:00 Asia/Shanghai
MAPPING = """\
layout: {separator: "\\t", quotes: false}
actions:
  files: [actions.txt]
  user: uid
  post: mid
  time: {column: at, unit: s}
  action: what
  view: [view]
  like: [like]
  forward: [forward, repost]
  unused: [login]
posts: {file: posts.txt, post: mid, author: uid, time: {column: at, unit: iso, utc_offset_h: 8}, text: text}
follows: {file: follows.txt, src: from, dst: to}
cascades: {file: cascades.txt, post: mid, user: uid, parent: source, time: {column: at, unit: s}}
"""
ACTIONS = (
    ("ann", "p1", "view", T0),
    ("ann", "p1", "like", T0),
    ("ann", "p2", "view", T0 + 10),
    ("bob", "p1", "repost", T0 + 20),
    ("bob", "p1", "like", T0 + 21),
    ("ann", "p1", "view", T0),
    ("bob", "", "login", T0 + 30),
    ("bob", "p1", "login", T0 + 30),
)
POSTS = (
    ("mid", "uid", "at", "text"),
    ("p1", "eve", "2015-06-01 00:00:00", 'say "hi'),
    ("p2", "bob", "2015-05-31T23:00:00Z", ""),
    ("p3", "zoe", "", "nobody saw me"),
)
FOLLOWS = (("from", "to"), ("bob", "ann"), ("ann", "eve"), ("bob", "ann"), ("dan", "ann"))
CASCADES = (("mid", "uid", "source", "at"), ("p1", "bob", "ann", T0 + 20), ("p1", "ann", "", T0 + 5))  # fmt: skip


def tsv(rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def actions(*rows):
    return tsv([("uid", "mid", "what", "at"), *(rows or ACTIONS)])


def write(root, mapping=MAPPING, **files):
    root = Path(root)
    root.mkdir(exist_ok=True)
    contents = {
        "mapping.yml": mapping, "actions.txt": actions(), "posts.txt": tsv(POSTS),
        "follows.txt": tsv(FOLLOWS), "cascades.txt": tsv(CASCADES),
    } | files  # fmt: skip
    for name, content in contents.items():
        if content is not None:
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def run(root, n_buckets=2, **options):
    options = LogOptions(**({"max_bad_share": 1.0} | options))
    engine = EngineOptions(n_buckets=n_buckets, staging=Path(root).parent / "staging")
    return ingest(find_files(Path(root), "viewers"), options, engine)


def named(got):
    """Interactions with raw texts in order of the file."""
    frame = got.interactions.scan().collect()
    for side, ids in (("user", got.user_map), ("item", got.item_map)):
        texts = ids.select(pl.col("dense_id").alias(f"{side}_id"), pl.col("raw_text").alias(side))
        frame = frame.join(texts, on=f"{side}_id")
    return frame.sort("row_id")


def name_of(ids):
    return dict(ids.select("dense_id", "raw_text").iter_rows())


# --- releases with viewers ------------------------------------------------------------------------------------


def test_actions_of_one_user_post_and_time_are_one_row(tmp_path):
    got = run(write(tmp_path / "raw"))
    Interactions.validate(got.interactions)
    columns = ("user", "item", "ts_ms", "row_id", "like", "forward", "comment", "click", "play_ms")
    assert named(got).select(columns).rows() == [
        ("ann", "p1", T0 * 1000, 2, 1, 0, None, None, None),  # view and like; comments are not logged
        ("ann", "p2", (T0 + 10) * 1000, 4, 0, 0, None, None, None),  # a view alone: zeros
        ("bob", "p1", (T0 + 20) * 1000, 5, 0, 1, None, None, None),
        ("bob", "p1", (T0 + 21) * 1000, 6, 1, 0, None, None, None),  # a second later: another row
    ]  # fmt: skip
    assert [(step["step"], step["rows"]) for step in got.report["steps"]] == [
        ("rows read", 8),
        ("rows that parse and pass the checks", 7),
        ("rows that are interactions", 6),
        ("rows without exact duplicates", 5),
        ("canonical rows, one per user, post and time", 4),
    ]
    assert got.report["files"][1]["excluded"] == {"what is login": 1}
    assert got.quarantine.select("file", "line", "reason").rows() == [("actions.txt", 8, "item is empty")]  # fmt: skip


def test_tables_beside_the_actions(tmp_path):
    got = run(write(tmp_path / "raw"))
    edges, cascades = got.extras["social_edges"], got.extras["cascades"]
    for table, frame in ((Users, got.users), (Items, got.items), (SocialEdges, edges), (Cascades, cascades), (Quarantine, got.quarantine)):  # fmt: skip
        table.validate(frame)
    for ids in (got.user_map, got.item_map):
        IdMap.validate(ids)
    user, post = name_of(got.user_map), name_of(got.item_map)
    # dan only follows and eve is only followed: users without rows; zoe only wrote: no user
    assert set(user.values()) == {"ann", "bob", "dan", "eve"}
    assert got.users.height == 4
    assert {(user[s], user[d]) for s, d, _ in edges.iter_rows()} == {("bob", "ann"), ("ann", "eve"), ("dan", "ann")}  # fmt: skip
    assert edges.height == 3
    assert edges["ts"].null_count() == 3
    assert [(post[p], user[u], user.get(s), t) for p, u, s, t in cascades.iter_rows()] == [
        ("p1", "ann", None, (T0 + 5) * 1000),
        ("p1", "bob", "ann", (T0 + 20) * 1000),
    ]
    items = got.items.with_columns(name=got.item_map["raw_text"]).sort("name")
    assert items.select("name", "upload_ts", "caption").rows() == [
        ("p1", T0 * 1000, 'say "hi'),
        ("p2", (T0 + 7 * 3600) * 1000, None),
        ("p3", None, "nobody saw me"),
    ]
    # an author who is a user has the user's raw id
    raw = dict(got.user_map.select("raw_text", "raw_id").iter_rows())
    assert items["author_id"].to_list()[:2] == [raw["eve"], raw["bob"]]
    duplicates = {file["file"]: file["duplicates"] for file in got.report["files"]}
    assert duplicates == {"mapping.yml": 0, "actions.txt": 1, "posts.txt": 0, "follows.txt": 1, "cascades.txt": 0}  # fmt: skip


def test_only_actions_are_needed(tmp_path):
    text = MAPPING[: MAPPING.index("posts:")].replace("forward: [forward, repost]", "comment: [repost]")  # fmt: skip
    root = write(tmp_path / "raw", text, **dict.fromkeys(("posts.txt", "follows.txt", "cascades.txt")))  # fmt: skip
    got = run(root)
    assert named(got)["comment"].to_list() == [0, 0, 1, 0]
    assert named(got)["forward"].null_count() == 4
    assert got.extras["social_edges"].is_empty()
    assert got.extras["cascades"].is_empty()
    assert got.items["caption"].null_count() == got.report["unknown_items"] == 2


def test_integer_ids(tmp_path):
    text = MAPPING + "user_ids: integer\npost_ids: integer\n"
    number = str.maketrans({"p": ""})
    people = {"ann": "10", "bob": "20", "eve": "30", "zoe": "40", "dan": "50"}
    files = {}
    for name, rows in {"actions": [("uid", "mid", "what", "at"), *ACTIONS], "posts": POSTS, "follows": FOLLOWS, "cascades": CASCADES}.items():  # fmt: skip
        body = [[people.get(v, v.translate(number) if v in ("p1", "p2", "p3") else v) for v in map(str, row)] for row in rows]  # fmt: skip
        files[f"{name}.txt"] = tsv(body)
    got = run(write(tmp_path / "raw", text, **files))
    assert got.user_map["raw_id"].to_list() == [10, 20, 30, 50]
    assert got.user_map["raw_text"].null_count() == 4
    assert got.item_map["raw_id"].to_list() == [1, 2, 3]
    assert got.extras["social_edges"].rows() == [(0, 2, None), (1, 0, None), (3, 0, None)]
    assert got.interactions.n_rows == 4
    assert got.items["author_id"].to_list() == [30, 20, 40]


def test_a_cascade_of_a_post_that_no_table_knows(tmp_path):
    rows = [*CASCADES, ("p9", "bob", "", T0), ("p9", "gus", "ann", T0 + 1)]
    got = run(write(tmp_path / "raw", **{"cascades.txt": tsv(rows)}))
    reason = "post is in neither posts nor actions"
    assert got.quarantine.filter(file="cascades.txt").rows() == [
        ("cascades.txt", 4, reason, f"p9\tbob\t\t{T0}"),
        ("cascades.txt", 5, reason, f"p9\tgus\tann\t{T0 + 1}"),
    ]
    assert got.extras["cascades"].height == got.report["cascade_rows"] == 2
    assert {file["file"]: file["bad"] for file in got.report["files"]}["cascades.txt"] == 2
    with pytest.raises(TooManyBadRows, match=r"cascades\.txt: 2 of 4 rows"):
        run(tmp_path / "raw", max_bad_share=0.3)


def test_an_action_on_a_post_that_no_table_knows_is_kept_and_counted(tmp_path):
    got = run(write(tmp_path / "raw", **{"actions.txt": actions(*ACTIONS, ("ann", "p9", "view", T0))}))  # fmt: skip
    assert got.interactions.n_rows == 5
    assert got.report["unknown_items"] == 1
    assert got.items.filter(pl.col("upload_ts").is_null() & pl.col("caption").is_null()).height == 1


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("actions.txt", f"ann\tp1\tpoke\t{T0}", "kind must be one of view, like, forward, repost, login, is poke"),
        ("actions.txt", f"ann\tp1\tlike\t{T0}000", f"time must be a Unix time in s from 1990-01-01 to 2099-12-31, is {T0}000"),
        ("actions.txt", f"ann,p1,like,{T0}", "wrong number of fields: 1 instead of 4"),
        ("actions.txt", f"\tp1\tlike\t{T0}", "user is empty"),
        ("posts.txt", "p4\teve\tyesterday\tx", "time must be an ISO time from 1990-01-01 to 2099-12-31, is yesterday"),
        ("posts.txt", "p1\teve\t2015-06-01 00:00:01\tanother", "post stands twice with other values"),
        ("posts.txt", "p4\teve\t2015-06-01 00:00:00\tone\ttwo", "wrong number of fields: 5 instead of 4"),
        ("follows.txt", "ann\t", "dst is empty"),
        ("follows.txt", "ann\tb\0b", "NUL byte"),
        ("cascades.txt", "p1\t\tann\t9", "user is empty"),
        ("cascades.txt", "p1\tann\t\t-9", "time must be a Unix time in s from 1990-01-01 to 2099-12-31, is -9"),
        ("cascades.txt", b"p1\tann\t\xe9\t9", "not UTF-8"),
    ],
)  # fmt: skip
def test_damaged_lines_are_quarantined(tmp_path, name, line, reason):
    root = write(tmp_path / "raw")
    raw = line if isinstance(line, bytes) else line.encode()
    path = root / name
    path.write_bytes(path.read_bytes() + raw + b"\n")
    got = run(root)
    found = got.quarantine.filter(file=name).tail(1).row(0)
    n_lines = path.read_bytes().count(b"\n")
    assert found == (name, n_lines, reason, raw.decode(errors="replace").replace("\0", "␀"))
    assert got.interactions.n_rows == 4


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"mapping.yml": None}, MissingRawFiles, r"mapping\.yml not found"),
        ({"actions.txt": None}, MissingRawFiles, r"actions\.files: no file 'actions\.txt'"),
        ({"actions.txt": b""}, EmptyFile, r"actions\.txt"),
        ({"actions.txt": b"\x1f\x8b\x08" + bytes(50)}, WrongHeader, "packed .gzip."),
        ({"actions.txt": actions().replace("\t", ",")}, WrongMapping, r"actions\.user names the column 'uid', which actions\.txt does not have\. It has: \['uid,mid,what,at'\]"),
        ({"posts.txt": "post\tuid\tat\ttext\n"}, WrongMapping, r"posts\.post names the column 'mid', which posts\.txt"),
        ({"follows.txt": b""}, WrongMapping, r"follows\.src names the column 'from'"),
        ({"cascades.txt": None}, MissingRawFiles, r"cascades\.file: no file 'cascades\.txt'"),
        ({"mapping.yml": MAPPING.replace("[view]", "[like]")}, WrongMapping, "must name every value of what once"),
        ({"mapping.yml": MAPPING.replace("quotes: false", "quotes: false, header: false, columns: [a]")}, WrongMapping, r"layout\.header must be true"),
    ],
)  # fmt: skip
def test_damaged_releases_are_refused(tmp_path, files, error, message):
    with pytest.raises(error, match=message):
        find_files(write(tmp_path, **files), "viewers")


def test_folding_keeps_the_first_row_and_every_flag():
    base = dict.fromkeys(Interactions.polars_schema()) | {
        "user_id": 0, "item_id": 1, "ts_ms": 5, "scenario": 0, "request_id": 0, "session_id": 0, "is_rand": 0,
    }  # fmt: skip
    rows = [
        base | {"row_id": 3, "like": 0, "comment": 1},
        base | {"row_id": 4, "item_id": 2, "like": 0, "comment": 0},
        base | {"row_id": 7, "like": 1, "comment": 0},
        base | {"row_id": 8, "ts_ms": 6, "like": 0, "comment": 0},
    ]
    folded = fold_actions(pl.DataFrame(rows, Interactions.polars_schema()))
    assert folded.select("row_id", "item_id", "ts_ms", "like", "comment", "forward").rows() == [
        (3, 1, 5, 1, 1, None),
        (4, 2, 5, 0, 0, None),
        (8, 1, 6, 0, 0, None),
    ]


ACTION = st.tuples(
    st.sampled_from(["ann", "bob", "é", ""]),
    st.sampled_from(["p1", "p2"]),
    st.sampled_from(["view", "like", "repost", "login", "poke"]),
    st.integers(T0, T0 + 2),
)


@settings(max_examples=10, deadline=None)
@given(lines=st.lists(ACTION, max_size=25), size=st.integers(8, 150), n_buckets=st.integers(1, 4))
def test_chunks_and_buckets_never_change_results(tmp_path_factory, lines, size, n_buckets):
    root = write(tmp_path_factory.mktemp("weibo") / "raw", **{"actions.txt": actions(*ACTIONS, *lines)})  # fmt: skip
    whole, cut = run(root), run(root, n_buckets, chunk_mb=size / 2**20)
    assert named(whole).equals(named(cut))
    assert whole.quarantine.equals(cut.quarantine)
    assert whole.report == cut.report
    for name in ("social_edges", "cascades"):
        assert whole.extras[name].equals(cut.extras[name])
    keys = named(whole).select("user_id", "item_id", "ts_ms")
    assert keys.is_unique().all()
    wanted = {(u, p, t * 1000) for u, p, a, t in (*ACTIONS, *lines) if u and p and a not in ("login", "poke")}  # fmt: skip
    assert set(named(whole).select("user", "item", "ts_ms").iter_rows()) == wanted


# --- Tianchi --------------------------------------------------------------------------------------------------

A, B = "a" * 32, "b" * 32
M1, M2, M3, M4 = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)
TRAIN = (
    (A, M1, "2015-02-23 17:41:29", 0, 1, 2, 'an unbalanced "quote #topic# @user'),
    (B, M2, "2015-07-31 23:59:59", 41_850, 0, 0, ""),
    (A, M3, "2015-03-01 00:00:00", 0, 0, 0, "三"),
)
PREDICT = ((B, M4, "2015-08-01 00:00:00", "later"),)


TRAIN_TEXT, PREDICT_TEXT = tsv(TRAIN), tsv(PREDICT)


def tianchi(root, train=TRAIN_TEXT, predict=PREDICT_TEXT, suffix="(new)"):
    for part, content in (("train", train), ("predict", predict)):
        if content is not None:
            folder = root / f"weibo_{part}_data{suffix}"
            folder.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (folder / f"weibo_{part}_data.txt").write_bytes(data)
    return root


def posts(root, **options):
    return ingest_posts(find_files(root, "tianchi"), LogOptions(**({"max_bad_share": 1.0} | options)))  # fmt: skip


@pytest.mark.parametrize("suffix", ["(new)", ""])
def test_tianchi_gives_posts_and_authors(tmp_path, suffix):
    got = posts(tianchi(tmp_path, suffix=suffix))
    AuthorPosts.validate(got.author_posts)
    Items.validate(got.items)
    post, author = name_of(got.item_map), name_of(got.author_map)
    rows = {post[row[0]]: (author[row[1]], *row[2:]) for row in got.author_posts.iter_rows()}
    assert rows == {
        M1: (A, 1_424_684_489_000, 0, 1, 2, 'an unbalanced "quote #topic# @user', "train"),
        M2: (B, 1_438_358_399_000, 41_850, 0, 0, None, "train"),
        M3: (A, 1_425_139_200_000, 0, 0, 0, "三", "train"),
        M4: (B, 1_438_358_400_000, None, None, None, "later", "predict"),
    }
    assert dict(got.authors.select(pl.col("author_id").replace_strict(author), "n_posts").iter_rows()) == {A: 2, B: 2}  # fmt: skip
    facts = {fact["fact"]: (fact["measured"], fact["status"]) for fact in got.report["facts"]}
    assert facts == {"train_posts": (3, "partial"), "train_authors": (2, "partial"), "predict_posts": (1, "partial")}  # fmt: skip
    assert "no interactions" in got.report["note"]


def test_tianchi_without_its_predict_file(tmp_path):
    got = posts(tianchi(tmp_path, predict=None))
    assert got.author_posts["part"].unique().to_list() == ["train"]
    assert got.report["facts"][2]["measured"] == 0


def test_who_needs_interactions_is_told_that_tianchi_has_none(tmp_path):
    manifest = find_files(tianchi(tmp_path / "raw"), "tianchi")
    engine = EngineOptions(staging=tmp_path)
    with pytest.raises(NoViewers, match=r"name no viewer.*set weibo\.raw\.variant to viewers"):
        ingest(manifest, LogOptions(), engine)
    viewers = find_files(write(tmp_path / "viewers"), "viewers")
    with pytest.raises(ValueError, match="author posts are made of variant tianchi"):
        ingest_posts(viewers, LogOptions())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ((A, M4, "2015-03-01 00:00:00", -1, 0, 0, "x"), "forward_count must be an integer, 0…2147483647, is -1"),
        ((A, M4, "2015-03-01 00:00:00", 0, "many", 0, "x"), "comment_count must be an integer, 0…2147483647, is many"),
        ((A, M4, "2016-03-01 00:00:00", 0, 0, 0, "x"), "time must be an ISO time from 2015-01-31 to 2015-09-01, is 2016-03-01 00:00:00"),
        ((A, M4, "2015-03-01", 0, 0, 0, "x"), "time must be an ISO time from 2015-01-31 to 2015-09-01, is 2015-03-01"),
        (("", M4, "2015-03-01 00:00:00", 0, 0, 0, "x"), "author is empty"),
        ((A, M1, "2015-03-01 00:00:00", 0, 0, 0, "x"), "post stands twice with other values"),
        ((A, M4, "2015-03-01 00:00:00", 0, 0, 0), "wrong number of fields: 6 instead of 7"),
        ((A, M4, "2015-03-01 00:00:00", 0, 0, 0, "x", "y"), "wrong number of fields: 8 instead of 7"),
        (("x" * 10,), "wrong number of fields: 1 instead of 7"),
    ],
)  # fmt: skip
def test_damaged_tianchi_lines_are_quarantined(tmp_path, line, reason):
    root = tianchi(tmp_path, tsv([*TRAIN, TRAIN[0], line]), None)
    got = posts(root)
    text = "\t".join(map(str, line))
    assert got.quarantine.rows() == [("weibo_train_data.txt", 5, reason, text)]
    assert got.author_posts.height == 3
    assert got.report["files"][0]["duplicates"] == 1
    with pytest.raises(TooManyBadRows, match=r"weibo_train_data\.txt: 1 of 5 rows"):
        posts(root, max_bad_share=0.1)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (None, MissingRawFiles, r"weibo_train_data\(new\).*231574.*do not redistribute"),
        (b"", EmptyFile, "weibo_train_data"),
        (b"\x1f\x8b\x08" + bytes(50), WrongHeader, "packed .gzip."),
    ],
)
def test_damaged_tianchi_files_are_refused(tmp_path, train, error, message):
    with pytest.raises(error, match=message):
        find_files(tianchi(tmp_path, train), "tianchi")


def test_tianchi_with_the_wrong_separator_or_encoding(tmp_path):
    root = tianchi(tmp_path / "commas", TRAIN_TEXT.replace("\t", ","))
    with pytest.raises(TooManyBadRows, match="wrong number of fields: 1 instead of 7"):
        posts(root, max_bad_share=0.5)
    root = tianchi(tmp_path / "utf-16", TRAIN_TEXT.encode("utf-16-le"), None)
    with pytest.raises(TooManyBadRows, match="NUL byte"):
        posts(root, max_bad_share=0.5)
    with pytest.raises(ValueError, match="None of the rows of"):
        posts(root)


@settings(max_examples=10, deadline=None)
@given(size=st.integers(20, 300))
def test_chunks_never_change_posts(tmp_path_factory, size):
    root = tianchi(tmp_path_factory.mktemp("posts"), tsv([*TRAIN, TRAIN[0], ("x",), (B, M1, "2015-03-01 00:00:00", 1, 1, 1, "")]))  # fmt: skip
    whole, cut = posts(root), posts(root, chunk_mb=size / 2**20)
    assert whole.author_posts.equals(cut.author_posts)
    assert whole.quarantine.equals(cut.quarantine)
    assert whole.report == cut.report
