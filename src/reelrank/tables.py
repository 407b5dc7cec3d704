"""The canonical tables: columns, types, units, nullability. The one contract that everybody shares.

Source: METHODS §1.1. The catalog validates these models on save; ``docs/data_dictionary.md`` is generated from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pandera.polars as pa
import polars as pl

SPLITS = ("train", "val", "test")
SplitName = pl.Enum(SPLITS)
FEEDBACKS = ("click", "like", "follow", "comment", "forward", "hate", "long_view")
MODALITIES = ("visual", "audio", "text")
MODAL_SOURCES = ("raw", "pre_extracted", "metadata_proxy", "synthetic")


class CanonicalTable(pa.DataFrameModel):
    """A table whose columns may be selected, ordered and described from one declaration."""

    class Config:
        strict = True
        ordered = False

    @classmethod
    def polars_schema(cls) -> dict[str, pl.DataType]:
        """Column name to Polars type, in declaration order."""
        columns = cls.to_schema().columns
        return {name: cast(pl.DataType, column.dtype.type) for name, column in columns.items()}

    @classmethod
    def conform(cls, frame: pl.DataFrame) -> pl.DataFrame:
        """Select the declared columns in order and cast them; a value that does not fit raises."""
        return frame.select(pl.col(n).cast(t) for n, t in cls.polars_schema().items())

    @classmethod
    def validate(cls, check_obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (pandera's signature)
        """Validate a frame, or every bucket of a bucketed table without holding more than one of them."""
        if hasattr(check_obj, "iter_buckets"):
            for bucket in cast("Iterator[pl.DataFrame]", check_obj.iter_buckets()):
                super().validate(bucket, *args, **kwargs)
            return check_obj
        return super().validate(check_obj, *args, **kwargs)


def _binary(description: str) -> Any:  # noqa: ANN401 (pandera's Field has no public type)
    return pa.Field(nullable=True, isin=[0, 1], description=description, metadata={"unit": "0/1"})


class Interactions(CanonicalTable):
    """One row per (user, item, exposure), sorted by (user_id, ts_ms, row_id); every user whole in one bucket."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id; raw id in `user_map`")
    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id; raw id in `item_map`")
    ts_ms: pl.Int64 = pa.Field(
        ge=0,
        description="time of the exposure (KuaiSAR: of distribution in the feed, of the search session in search)",
        metadata={"unit": "UTC epoch ms"},
    )
    row_id: pl.Int64 = pa.Field(
        ge=0,
        description="original file order: file number · 2⁴⁰ + line of the file (header is line 1); breaks ties of ts_ms",
    )
    scenario: pl.Int16 = pa.Field(
        ge=0,
        description="place in the app (KuaiRand: tab 0–14; KuaiSAR: 0 search, 1 recommendation)",
    )
    request_id: pl.Int64 = pa.Field(
        ge=0, description="dense id of (user_id, ts_ms): items sent together"
    )
    session_id: pl.Int64 = pa.Field(
        ge=0, description="maximal run of a user's rows with gaps ≤ session_gap_s"
    )
    play_ms: pl.Int32 = pa.Field(
        nullable=True, ge=0, description="time watched", metadata={"unit": "ms"}
    )
    duration_ms: pl.Int32 = pa.Field(
        nullable=True,
        gt=0,
        description="length of the video; 0 in the log is null",
        metadata={"unit": "ms"},
    )
    watch_ratio: pl.Float32 = pa.Field(
        nullable=True, ge=0, description="play_ms / duration_ms; null where either is null"
    )
    click: pl.Int8 = _binary(
        "click in two-column tabs, valid play in single-column tabs (as logged)"
    )
    like: pl.Int8 = _binary("pressed like")
    follow: pl.Int8 = _binary("followed the author")
    comment: pl.Int8 = _binary("wrote a comment")
    forward: pl.Int8 = _binary("forwarded (shared) the video")
    hate: pl.Int8 = _binary("pressed dislike")
    long_view: pl.Int8 = _binary("play ≥ min(duration, 18 s), as logged")
    is_rand: pl.Int8 = pa.Field(
        isin=[0, 1], description="1 = uniformly random exposure", metadata={"unit": "0/1"}
    )


class Items(CanonicalTable):
    """One row per item, ``item_id`` = row number."""

    item_id: pl.Int32 = pa.Field(ge=0, unique=True, description="dense item id")
    author_id: pl.Int64 = pa.Field(nullable=True, description="raw author id")
    duration_ms: pl.Int32 = pa.Field(
        nullable=True, gt=0, description="length of the video", metadata={"unit": "ms"}
    )
    upload_ts: pl.Int64 = pa.Field(
        nullable=True,
        description="upload time (start of the local day where only a date is known)",
        metadata={"unit": "UTC epoch ms"},
    )
    category_1: pl.Int32 = pa.Field(
        nullable=True, description="first-level category id; −124 is null"
    )
    category_2: pl.Int32 = pa.Field(nullable=True, description="second-level category id")
    category_3: pl.Int32 = pa.Field(nullable=True, description="third-level category id")
    category_4: pl.Int32 = pa.Field(nullable=True, description="fourth-level category id")
    tags: pl.List(pl.Int32) = pa.Field(
        nullable=True, description="key categories of the video, most important first"
    )
    music_id: pl.Int64 = pa.Field(nullable=True, description="background music id; ≤ 0 is null")
    music_type: pl.Int16 = pa.Field(nullable=True, description="background music type")
    width: pl.Int32 = pa.Field(
        nullable=True, description="width on the server", metadata={"unit": "px"}
    )
    height: pl.Int32 = pa.Field(
        nullable=True, description="height on the server", metadata={"unit": "px"}
    )
    video_type: pl.String = pa.Field(nullable=True, description="NORMAL, AD, UNKNOWN")
    upload_type: pl.String = pa.Field(nullable=True, description="how the video was uploaded")
    caption: pl.String = pa.Field(nullable=True, description="text by the author")
    cover_text: pl.String = pa.Field(nullable=True, description="text on the cover")


class Users(CanonicalTable):
    """One row per user, ``user_id`` = row number; every other column is a static attribute of the source."""

    user_id: pl.Int32 = pa.Field(ge=0, unique=True, description="dense user id")

    class Config:
        strict = False


class IdMap(CanonicalTable):
    """Raw id of each dense id."""

    dense_id: pl.Int32 = pa.Field(ge=0, unique=True, description="0 … n−1")
    raw_id: pl.Int64 = pa.Field(
        unique=True, description="id in the official files; where ids are text a 63-bit hash of it"
    )
    raw_text: pl.String = pa.Field(nullable=True, description="the id where ids are text")


class Quarantine(CanonicalTable):
    """Rows that could not be used, with the place they came from and the reason."""

    file: pl.String = pa.Field(description="file name")
    line: pl.Int64 = pa.Field(ge=1, description="line in the file; the header is line 1")
    reason: pl.String = pa.Field(description="what is wrong, with the column")
    text: pl.String = pa.Field(description="the line as it stands, at most 500 characters")


class Splits(CanonicalTable):
    """The part of each interaction under one named rule (METHODS §1.4); a row that the rule leaves out has none here."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id (bucket key)")
    row_id: pl.Int64 = pa.Field(ge=0, description="key of `interactions`")
    split: pl.Enum(SPLITS) = pa.Field(description="train, val or test")


class Bursts(CanonicalTable):
    """The stretches of local days in which a log was collected (METHODS §6.1); no rows = the log is one piece."""

    burst_id: pl.Int16 = pa.Field(ge=0, unique=True, description="0 … in order of time")
    start_ms: pl.Int64 = pa.Field(
        ge=0, description="midnight before the first day", metadata={"unit": "UTC epoch ms"}
    )
    end_ms: pl.Int64 = pa.Field(
        ge=0, description="midnight after the last day", metadata={"unit": "UTC epoch ms"}
    )
    rows: pl.Int64 = pa.Field(ge=1, description="rows of the log inside")


class Sessions(CanonicalTable):
    """The sessions that each of several gaps makes of the log (METHODS §1.3); none spans two bursts."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id (bucket key)")
    gap_s: pl.Int32 = pa.Field(
        ge=1, description="longest gap inside a session", metadata={"unit": "s"}
    )
    first_row_id: pl.Int64 = pa.Field(
        ge=0, description="first row of the session, key of `interactions`"
    )
    burst_id: pl.Int16 = pa.Field(
        nullable=True, ge=0, description="key of `bursts`; null = outside of all"
    )
    start_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the first row", metadata={"unit": "UTC epoch ms"}
    )
    end_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the last row", metadata={"unit": "UTC epoch ms"}
    )
    n_rows: pl.Int32 = pa.Field(
        ge=1, description="rows of the session: an outcome, never an input (L5)"
    )
    previous_n_rows: pl.Int32 = pa.Field(
        nullable=True, ge=1, description="rows of the session before; null for a burst's first"
    )
    gap_hours: pl.Float32 = pa.Field(
        ge=0,
        description="since the session before ended; 0 for a burst's first [A]",
        metadata={"unit": "h"},
    )


def _average(of: str) -> Any:  # noqa: ANN401 (pandera's Field has no public type)
    return pa.Field(nullable=True, description=f"EMA of {of}")


class Histories(CanonicalTable):
    """What a user had done strictly before each row (L1, METHODS §6.3). Exponential moving averages, weight ``alpha`` on the newest row."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id (bucket key)")
    row_id: pl.Int64 = pa.Field(ge=0, description="key of `interactions`")
    n_before: pl.Int32 = pa.Field(ge=0, description="rows of the user before this one")
    hours_since_last: pl.Float32 = pa.Field(
        nullable=True, ge=0, description="since the user's row before", metadata={"unit": "h"}
    )
    ema_long_view: pl.Float32 = _average("long_view")
    ema_click: pl.Float32 = _average("click")
    ema_like: pl.Float32 = _average("like")
    ema_watch_ratio: pl.Float32 = _average("min(watch_ratio, 2)")
    ema_complete: pl.Float32 = _average("the head complete (METHODS §6.2)")
    ema_long: pl.Float32 = _average("the head long")
    ema_rewatch: pl.Float32 = _average("the head rewatch")
    ema_neg: pl.Float32 = _average("the head neg")
    ema_category_long_view: pl.Float32 = _average(
        "long_view over the user's rows of this row's first category"
    )
    ema_category_complete: pl.Float32 = _average(
        "the head complete over the user's rows of this row's first category"
    )
    category_entropy: pl.Float32 = pa.Field(
        nullable=True,
        ge=0,
        description="entropy of the second category over the user's rows so far, 0 at the start; null = the source has none",
        metadata={"unit": "nat"},
    )
    interest_drift: pl.Float32 = pa.Field(
        nullable=True,
        ge=0,
        le=1,
        description="cosine distance of a fast and a slow moving histogram of the first category",
    )
    author_seen: pl.Int8 = pa.Field(
        nullable=True,
        isin=[0, 1],
        description="1 = the user has had a row of this author in this burst; null = no author",
        metadata={"unit": "0/1"},
    )
    author_days_since_last: pl.Float32 = pa.Field(
        nullable=True,
        ge=0,
        description="since the user's last row of this author in this burst",
        metadata={"unit": "d"},
    )
    author_days_since_completion: pl.Float32 = pa.Field(
        nullable=True,
        ge=0,
        description="since the user last completed a video of this author in this burst",
        metadata={"unit": "d"},
    )
    previous_session_rows: pl.Int32 = pa.Field(
        nullable=True, ge=1, description="rows of the session before; null in a burst's first"
    )
    session_gap_hours: pl.Float32 = pa.Field(
        ge=0,
        description="between the session before and this one; 0 in a burst's first [A]",
        metadata={"unit": "h"},
    )


class Rewards(CanonicalTable):
    """The three-part reward of MT-DQN, Eq. 15 (METHODS §3.8), one row per interaction."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id (bucket key)")
    row_id: pl.Int64 = pa.Field(ge=0, description="key of `interactions`")
    r_immediate: pl.Float32 = pa.Field(
        ge=-1, le=2, description="watch, like, forward, follow, comment, hate"
    )
    r_retention: pl.Float32 = pa.Field(
        nullable=True,
        ge=0,
        le=1,
        description="1 on a session's last row if the user is back within the window; null = censored",
    )
    r_interest: pl.Float32 = pa.Field(
        ge=-1.0001,
        le=1.0001,
        description="cosine of the item's frozen feature with the user's EMA before the row",
    )
    reward: pl.Float32 = pa.Field(
        nullable=True, description="r_immediate + λ1 r_retention + λ2 r_interest; null = censored"
    )
    return_: pl.Float32 = pa.Field(
        alias="return",
        nullable=True,
        description="discounted sum of reward inside session and split; null = a censored row follows",
    )
    next_row_id: pl.Int64 = pa.Field(
        nullable=True, description="the user's next row of the same session and split; null = done"
    )


class Events(CanonicalTable):
    """All interactions of all users in order of (ts_ms, row_id), with split, rewards and link to the next row."""

    row_id: pl.Int64 = pa.Field(ge=0, unique=True, description="key of `interactions`")
    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id")
    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id")
    ts_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the exposure", metadata={"unit": "UTC epoch ms"}
    )
    scenario: pl.Int16 = pa.Field(ge=0, description="place in the app")
    session_id: pl.Int64 = pa.Field(ge=0, description="session of the user")
    request_id: pl.Int64 = pa.Field(ge=0, description="items sent together")
    split: pl.Enum(SPLITS) = pa.Field(description="train, val or test")
    is_rand: pl.Int8 = pa.Field(
        isin=[0, 1], description="1 = uniformly random exposure", metadata={"unit": "0/1"}
    )
    play_ms: pl.Int32 = pa.Field(
        nullable=True, ge=0, description="time watched", metadata={"unit": "ms"}
    )
    duration_ms: pl.Int32 = pa.Field(
        nullable=True, gt=0, description="length of the video", metadata={"unit": "ms"}
    )
    watch_ratio: pl.Float32 = pa.Field(nullable=True, ge=0, description="play_ms / duration_ms")
    click: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="click, as logged")
    like: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="pressed like")
    follow: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="followed the author")
    comment: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="wrote a comment")
    forward: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="forwarded the video")
    hate: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="pressed dislike")
    long_view: pl.Int8 = pa.Field(nullable=True, isin=[0, 1], description="long view, as logged")
    r_immediate: pl.Float32 = pa.Field(description="see `rewards`")
    r_retention: pl.Float32 = pa.Field(nullable=True, description="see `rewards`; null = censored")
    r_interest: pl.Float32 = pa.Field(description="see `rewards`")
    reward: pl.Float32 = pa.Field(nullable=True, description="see `rewards`; null = censored")
    return_: pl.Float32 = pa.Field(
        alias="return", nullable=True, description="see `rewards`; null = a censored row follows"
    )
    next_pos: pl.Int64 = pa.Field(
        ge=-1,
        description="position in this table of the user's next row of the same session and split; −1 = done",
    )


class ItemModal(CanonicalTable):
    """One row per (item, modality): a sequence of vectors (METHODS §8.2)."""

    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id")
    modality: pl.Enum(MODALITIES) = pa.Field(description="visual, audio or text")
    n_tokens: pl.Int16 = pa.Field(ge=0, description="T: vectors in the sequence")
    dim: pl.Int16 = pa.Field(ge=1, description="D: width of a vector")
    array: pl.List(pl.Float32) = pa.Field(description="T·D values, row by row")
    present: pl.Boolean = pa.Field(
        description="false = the item lacks this modality; never encoded as zeros without this flag"
    )
    source: pl.Enum(MODAL_SOURCES) = pa.Field(description="where the vectors come from")


class SocialEdges(CanonicalTable):
    """Who follows whom."""

    src: pl.Int32 = pa.Field(ge=0, description="dense user id of the follower")
    dst: pl.Int32 = pa.Field(ge=0, description="dense user id of the followed")
    ts: pl.Int64 = pa.Field(
        nullable=True, description="time of the edge where known", metadata={"unit": "UTC epoch ms"}
    )


class Results(CanonicalTable):
    """One evaluated number (ARCHITECTURE choice 6)."""

    run_id: pl.String = pa.Field(description="Kedro's run id")
    system: pl.String = pa.Field(description="pipeline")
    variant: pl.String = pa.Field(description="the model in it")
    track: pl.String = pa.Field(
        isin=["honest", "paper_literal"], description="honest or paper_literal"
    )
    source: pl.String = pa.Field(description="data set")
    split: pl.String = pa.Field(
        description="name of the split rule and part, e.g. kuairand_time/test"
    )
    seed: pl.Int64 = pa.Field(description="seed of the training run")
    metric: pl.String = pa.Field(description="name of the metric")
    group: pl.String = pa.Field(description="response, head, behaviour or scenario, or `all`")
    weighting: pl.String = pa.Field(description="how groups were averaged, or empty")
    value: pl.Float64 = pa.Field(
        nullable=True, description="the number; null where it is not defined (reason in `reliable`)"
    )
    ci_low: pl.Float64 = pa.Field(
        nullable=True, description="95 % user-cluster bootstrap, lower end"
    )
    ci_high: pl.Float64 = pa.Field(
        nullable=True, description="95 % user-cluster bootstrap, upper end"
    )
    n: pl.Int64 = pa.Field(ge=0, description="rows, lists or contexts that the value rests on")
    reliable: pl.Boolean = pa.Field(description="false: may not be ranked")
    paired_with: pl.String = pa.Field(
        nullable=True, description="the variant subtracted, for a paired difference"
    )
    p_value: pl.Float64 = pa.Field(
        nullable=True, description="two-sided bootstrap p of a paired difference"
    )
    data_kind: pl.String = pa.Field(isin=["world", "real"], description="world: generated data")
    config_hash: pl.String = pa.Field(description="hash of the parameters")
    code_version: pl.String = pa.Field(description="package version + hash of its sources")
    experiment: pl.String = pa.Field(nullable=True, description="experiment id (METHODS §9)")
    cell: pl.String = pa.Field(nullable=True, description="cell of the experiment's grid")


class LastNeighbours(CanonicalTable):
    """The last rows of the same user, or of the same item, strictly before each row (METHODS §3.6)."""

    node_id: pl.Int32 = pa.Field(ge=0, description="dense user id or item id (bucket key)")
    row_id: pl.Int64 = pa.Field(ge=0, description="key of `interactions`")
    neighbours: pl.List(pl.Int64) = pa.Field(
        description="row_id of the node's last k rows, newest first, −1 where there are fewer"
    )


class CandidateSets(CanonicalTable):
    """What could have been shown at each request: its items, and a sample of the others with known probabilities."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id (bucket key)")
    request_id: pl.Int64 = pa.Field(ge=0, description="request of `interactions`")
    item_id: pl.Int32 = pa.Field(ge=0, description="candidate, once per request")
    shown: pl.Int8 = pa.Field(
        isin=[0, 1], description="1 = was shown in the request", metadata={"unit": "0/1"}
    )
    probability: pl.Float32 = pa.Field(
        gt=0,
        le=1,
        description="probability that the item is in this set, given the request: 1 if shown, else of the draw",
    )


class Observed(CanonicalTable):
    """What was watched of every item by every one of some users, whatever had been recommended (KuaiRec's small matrix)."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id")
    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id; each (user, item) stands once")
    ts_ms: pl.Int64 = pa.Field(
        nullable=True, ge=0, description="time of the play, where known", metadata={"unit": "UTC epoch ms"}
    )  # fmt: skip
    play_ms: pl.Int32 = pa.Field(ge=0, description="time watched", metadata={"unit": "ms"})
    duration_ms: pl.Int32 = pa.Field(
        nullable=True, gt=0, description="length of the video; 0 is null", metadata={"unit": "ms"}
    )
    watch_ratio: pl.Float32 = pa.Field(
        nullable=True, ge=0, description="play_ms / duration_ms; null where the duration is"
    )


class ItemDaily(CanonicalTable):
    """Statistics of an item on one day over the whole platform; every other column is a count of that day, as named by the source.

    At time t only days before the day of t may be used (L4).
    """

    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id")
    date: pl.Date = pa.Field(description="local day; each (item, date) stands once")

    class Config:
        strict = False


class ItemTopics(CanonicalTable):
    """Topics (hashtags) that an item's author gave it."""

    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id")
    place: pl.Int16 = pa.Field(ge=0, description="place in the author's list, from 0")
    topic: pl.String = pa.Field(description="text of the topic")


class Queries(CanonicalTable):
    """What users searched for, one row per search session and query; its results are the `interactions` of that user and time."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id")
    ts_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the search session", metadata={"unit": "UTC epoch ms"}
    )
    search_session_id: pl.Int64 = pa.Field(ge=0, description="id in the official file")
    word_ids: pl.List(pl.Int32) = pa.Field(
        nullable=True, description="hashed words of the query, one vocabulary with `item_words`"
    )
    search_source: pl.String = pa.Field(nullable=True, description="how the search was begun")
    clicked: pl.Int8 = pa.Field(
        isin=[0, 1],
        description="1 = something was clicked, whatever its type",
        metadata={"unit": "0/1"},
    )


class ItemWords(CanonicalTable):
    """Captions as hashed words, one row per item that has one."""

    item_id: pl.Int32 = pa.Field(ge=0, unique=True, description="dense item id")
    word_ids: pl.List(pl.Int32) = pa.Field(
        description="hashed words of the caption, one vocabulary with `queries`"
    )


class RecSearches(CanonicalTable):
    """Recommended items from which the user went to search. The search came after the exposure: never an input of its row."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id")
    item_id: pl.Int32 = pa.Field(ge=0, description="dense item id of the recommended item")
    ts_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the item's distribution", metadata={"unit": "UTC epoch ms"}
    )
    related: pl.Int8 = pa.Field(
        nullable=True,
        isin=[0, 1],
        description="1 = what was searched for has to do with the item",
        metadata={"unit": "0/1"},
    )


class AuthorPosts(CanonicalTable):
    """Posts with counts of what all readers did (Weibo, Tianchi's files): nobody is named but the author, so these are no interactions."""

    item_id: pl.Int32 = pa.Field(ge=0, unique=True, description="dense post id")
    author_id: pl.Int32 = pa.Field(ge=0, description="dense author id; raw id in `user_map`")
    ts_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the post", metadata={"unit": "UTC epoch ms"}
    )
    forward_count: pl.Int32 = pa.Field(
        nullable=True, ge=0, description="forwards one week after the post; null in part predict"
    )
    comment_count: pl.Int32 = pa.Field(nullable=True, ge=0, description="comments, likewise")
    like_count: pl.Int32 = pa.Field(nullable=True, ge=0, description="likes, likewise")
    text: pl.String = pa.Field(nullable=True, description="the post as written")
    part: pl.Enum(("train", "predict")) = pa.Field(description="file that holds the post")


class Cascades(CanonicalTable):
    """One row per forward of a post: who forwarded it, from whom, when."""

    item_id: pl.Int32 = pa.Field(ge=0, description="dense post id")
    user_id: pl.Int32 = pa.Field(ge=0, description="dense id of the user who forwarded")
    parent_id: pl.Int32 = pa.Field(
        nullable=True, ge=0, description="dense id of the user whose forward was forwarded; null = the post itself"
    )  # fmt: skip
    ts_ms: pl.Int64 = pa.Field(
        ge=0, description="time of the forward", metadata={"unit": "UTC epoch ms"}
    )


class RewardsGiven(CanonicalTable):
    """A reward that a log itself gives (events), one row per interaction; bucketed as `interactions` and in its order."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id (bucket key)")
    row_id: pl.Int64 = pa.Field(ge=0, description="key of `interactions`")
    reward: pl.Float32 = pa.Field(nullable=True, description="as logged; null where it is empty")


def _share(description: str) -> Any:  # noqa: ANN401 (pandera's Field has no public type)
    return pa.Field(ge=0, le=1, description=description)


def _quantile(column: str) -> Any:  # noqa: ANN401 (pandera's Field has no public type)
    return pa.Field(
        nullable=True,
        ge=0,
        le=1.0001,
        description=f"share of noisy draws with a lower `{column}`, equal ones half; null = no noise",
    )


class SessionResiduals(CanonicalTable):
    """What the head weights do not explain, one row per session (METHODS §6.7): shown minus simulated, the K highest of w·p̂ by weights of other users.

    ``expected_*``: the same for a session drawn from softmax(w·p̂ / T) without replacement, on average; a residual minus it is what noise of the feed does not explain.
    """

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id")
    session_id: pl.Int64 = pa.Field(ge=0, description="session or request that was ranked")
    burst_id: pl.Int16 = pa.Field(ge=-1, description="key of `bursts`; −1 = outside of all")
    ts_start: pl.Int64 = pa.Field(
        ge=0, description="time of the ranking", metadata={"unit": "UTC epoch ms"}
    )
    split: pl.Enum(SPLITS) = pa.Field(description="train, val or test")
    fold: pl.Int8 = pa.Field(
        ge=0, description="fold of the user; the weights were fitted without it"
    )
    n_shown: pl.Int32 = pa.Field(ge=1, description="K: an outcome, never an input (L5)")
    n_candidates: pl.Int32 = pa.Field(ge=1, description="items that could have been shown")
    overlap: pl.Float32 = _share("items in both, of K")
    jaccard: pl.Float32 = _share("items in both, of the items in either")
    rbo: pl.Float32 = pa.Field(
        ge=0,
        le=1.0001,
        description="rank-biased overlap of the two orders, extrapolated (Webber, Moffat, Zobel 2010, Eq. 32): 1 = the same order, whatever K",
    )
    d_mean: pl.Float32 = pa.Field(description="D_mean: mean w·p̂ of the items")
    d_sd: pl.Float32 = pa.Field(description="D_sd: standard deviation (of K) of w·p̂")
    loss: pl.Float32 = pa.Field(ge=0, description="L_s: squared length of `delta_mu`")
    delta_mu: pl.List(pl.Float32) = pa.Field(description="H values: mean embedding of the items")
    delta_category: pl.List(pl.Float32) = pa.Field(
        description="share of each category, the last is `unknown`; sums to 0"
    )
    expected_overlap: pl.Float32 = _share("of `overlap` under noise")
    expected_d_mean: pl.Float32 = pa.Field(description="of `d_mean` under noise")
    expected_d_sd: pl.Float32 = pa.Field(description="of `d_sd` under noise")
    expected_loss: pl.Float32 = pa.Field(ge=0, description="of `loss` under noise")
    noise_quantile_overlap: pl.Float32 = _quantile("overlap")
    noise_quantile_d_mean: pl.Float32 = _quantile("d_mean")
    noise_quantile_d_sd: pl.Float32 = _quantile("d_sd")
    expected_delta_mu: pl.List(pl.Float32) = pa.Field(description="of `delta_mu` under noise")
    expected_delta_category: pl.List(pl.Float32) = pa.Field(
        description="of `delta_category` under noise"
    )


class CandidateResiduals(CanonicalTable):
    """The items that a session could have shown, with their places in the two orders (METHODS §6.7)."""

    user_id: pl.Int32 = pa.Field(ge=0, description="dense user id")
    session_id: pl.Int64 = pa.Field(ge=0, description="key of `session_residuals`")
    item_id: pl.Int32 = pa.Field(ge=0, description="candidate, once per session")
    shown: pl.Int8 = pa.Field(isin=[0, 1], description="1 = was shown", metadata={"unit": "0/1"})
    rank_obs: pl.Int32 = pa.Field(
        nullable=True, ge=1, description="place in which it was shown; null = not shown"
    )
    rank_sim: pl.Int32 = pa.Field(
        ge=1, description="place by score among all candidates; equal scores by the lower row"
    )
    score: pl.Float32 = pa.Field(description="w·p̂")
    rank_residual: pl.Int32 = pa.Field(
        description="places by which it was shown earlier than simulated; beyond K every place counts as K + 1"
    )


ALL_TABLES: tuple[type[CanonicalTable], ...] = (
    Interactions, Items, Users, IdMap, Quarantine, SocialEdges, Splits, Histories, Rewards, Events, ItemModal, Results,
    LastNeighbours, CandidateSets, Bursts, Sessions,
    Observed, ItemDaily, ItemTopics,
    Queries, ItemWords, RecSearches,
    AuthorPosts, Cascades, RewardsGiven,
    SessionResiduals, CandidateResiduals,
)  # fmt: skip
