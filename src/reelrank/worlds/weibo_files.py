"""The files of a generated Weibo world: a release with viewers and its mapping, Tianchi's files, and the truth."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.sources.weibo_schema import TIANCHI_COLUMNS, TIANCHI_FILE, TIANCHI_FOLDERS
from reelrank.worlds import latent
from reelrank.worlds.folder import TRUTH_FOLDER
from reelrank.worlds.weibo_options import WeiboWorldOptions
from reelrank.worlds.weibo_truth import ACTIONS, DAY_MS, Doubles, WeiboResponse, save_truth

TRAIN_SHARE = 0.85  # of the time span, in Tianchi's files (there: 6 months of 7)
WEEK_MS = 7 * DAY_MS  # counts are taken one week after the post
COMMON_WORDS = np.array(["today", "look", "new", "friends", "my", "best", "wow", "again", "daily", "fun"])  # fmt: skip
TOPIC_WORDS = 30
QUOTE_EVERY = 40  # posts with one stray quote, as the real ones have
MAPPING = """\
# A release with viewers: what its files and columns mean (reelrank.sources.weibo_schema.WeiboMapping).
layout: {separator: "\\t", quotes: false}
actions:
  files: [actions.txt]
  user: user
  post: post
  time: {column: time, unit: s}
  action: action
  view: [view]
  like: [like]
  comment: [comment]
  forward: [forward]
posts: {file: posts.txt, post: post, author: author, time: {column: time, unit: s}, text: text}
follows: {file: follows.txt, src: follower, dst: followed}
cascades: {file: cascades.txt, post: post, user: user, parent: parent, time: {column: time, unit: s}}
"""


class Posts(NamedTuple):
    """Posts in order of time, (P,) each."""

    author: latent.Ints
    topic: latent.Ints
    ts_ms: NDArray[np.int64]
    popularity: Doubles  # log


class Views(NamedTuple):
    """What was seen, in order of time, (n,) each: user, post, time, what the user did, and from whom a forward was taken (−1 = the post)."""

    user: latent.Ints
    post: latent.Ints
    ts_ms: NDArray[np.int64]
    probability: Doubles  # (3, n) of like, comment and forward without influence
    influenced: NDArray[np.bool_]
    done: NDArray[np.bool_]  # (3, n)
    parent: latent.Ints


class WeiboWorld(NamedTuple):
    """A generated world before it is written."""

    response: WeiboResponse
    posts: Posts
    graph: latent.SocialGraph
    views: Views


def write_files(o: WeiboWorldOptions, world: WeiboWorld, root: Path) -> None:
    """Write everything under ``root``, which is made."""
    (root / TRUTH_FOLDER).mkdir(parents=True)
    texts = _texts(o, world.posts)
    (root / "mapping.yml").write_text(MAPPING, encoding="utf-8")
    tables = {
        "actions": _actions(world.views),
        "posts": _posts(world.posts, texts),
        "follows": pl.DataFrame({"follower": _ids("u", world.graph.src), "followed": _ids("u", world.graph.dst)}),
        "cascades": _cascades(world.views),
    }  # fmt: skip
    for name, table in tables.items():
        table.write_csv(root / f"{name}.txt", separator="\t", quote_style="never")
    for part, table in _tianchi(o, world, texts).items():
        folder = root / TIANCHI_FOLDERS[0].format(part=part)
        folder.mkdir()
        path = folder / TIANCHI_FILE.format(part=part)
        table.write_csv(path, separator="\t", quote_style="never", include_header=False)
    views = world.views
    pl.DataFrame(
        {"user": views.user, "post": views.post, "ts_ms": views.ts_ms}
        | {f"p_{name}": views.probability[k] for k, name in enumerate(ACTIONS)}
        | {"influenced": views.influenced}
    ).write_parquet(root / TRUTH_FOLDER / "rows.parquet")
    save_truth(root / TRUTH_FOLDER, o.model_dump(mode="json"), world.response)


def _ids(letter: str, numbers: latent.Ints) -> pl.Series:
    return pl.Series(letter, numbers).cast(pl.String).str.replace("^", letter)


def _texts(o: WeiboWorldOptions, posts: Posts) -> pl.Series:
    """Hashtag and words of the topic between words that say nothing; now and then a stray quote."""
    rng = latent.stream(o.seed, "texts")
    n = len(posts.topic)
    words = rng.integers(0, TOPIC_WORDS, (3, n))
    common = COMMON_WORDS[rng.integers(0, len(COMMON_WORDS), (2, n))]
    frame = pl.DataFrame({"topic": posts.topic, **{f"w{k}": words[k] for k in range(3)}, "a": common[0], "b": common[1]})  # fmt: skip
    text = pl.format("#topic{}# t{}w{} {} t{}w{} t{}w{} {}", "topic", "topic", "w0", "a", "topic", "w1", "topic", "w2", "b")  # fmt: skip
    stray = pl.when(pl.int_range(n) % QUOTE_EVERY == 0).then(pl.lit('"')).otherwise(pl.lit(""))
    return frame.select(stray + text).to_series()


def _actions(views: Views) -> pl.DataFrame:
    """One line per view, and one more for each thing done at that moment."""
    n = len(views.user)
    seen = [(0, "view", np.arange(n))]
    done = [(k + 1, name, np.flatnonzero(views.done[k])) for k, name in enumerate(ACTIONS)]
    lines = pl.concat(
        pl.DataFrame({"row": rows, "order": order, "action": [action] * len(rows)}, {"row": pl.Int64, "order": pl.Int64, "action": pl.String})
        for order, action, rows in (*seen, *done)
    ).sort("row", "order")  # fmt: skip
    rows = lines["row"].to_numpy()
    return pl.DataFrame(
        {
            "user": _ids("u", views.user[rows]),
            "post": _ids("p", views.post[rows]),
            "action": lines["action"],
            "time": views.ts_ms[rows] // 1000,
        }
    )


def _posts(posts: Posts, texts: pl.Series) -> pl.DataFrame:
    numbers = np.arange(len(texts), dtype=np.int32)
    return pl.DataFrame(
        {
            "post": _ids("p", numbers),
            "author": _ids("u", posts.author),
            "time": posts.ts_ms // 1000,
            "text": texts,
        }
    )


def _cascades(views: Views) -> pl.DataFrame:
    rows = np.flatnonzero(views.done[ACTIONS.index("forward")])
    parent = views.parent[rows]
    return pl.DataFrame(
        {
            "post": _ids("p", views.post[rows]),
            "user": _ids("u", views.user[rows]),
            "parent": _ids("u", parent).set(pl.Series(parent < 0), None),
            "time": views.ts_ms[rows] // 1000,
        }
    )


def _tianchi(o: WeiboWorldOptions, world: WeiboWorld, texts: pl.Series) -> dict[str, pl.DataFrame]:
    """The same posts as Tianchi shows them: counts one week after the post, hashed ids, local time; the last ones without counts."""
    posts, views = world.posts, world.views
    n = len(texts)
    in_time = views.ts_ms - posts.ts_ms[views.post] < WEEK_MS
    counts = {
        f"{name}_count": np.bincount(views.post[views.done[k] & in_time], minlength=n)
        for k, name in enumerate(ACTIONS)
    }
    authors = [_hex(o.seed, "u", number) for number in range(o.users)]
    frame = pl.DataFrame(
        {
            "uid": pl.Series(authors)[posts.author],
            "mid": [_hex(o.seed, "p", number) for number in range(n)],
            "time": pl.Series(posts.ts_ms).cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone("Asia/Shanghai").dt.to_string("%Y-%m-%d %H:%M:%S"),
            "content": texts,
        }
        | counts
    )  # fmt: skip
    n_train = int(np.searchsorted(posts.ts_ms, np.quantile(posts.ts_ms[[0, -1]], TRAIN_SHARE)))
    rows = {"train": frame.head(n_train), "predict": frame.tail(n - n_train)}
    return {part: rows[part].select(TIANCHI_COLUMNS[part]) for part in rows}


def _hex(seed: int, letter: str, number: int) -> str:
    text = f"{seed}/{letter}{number}".encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest()
