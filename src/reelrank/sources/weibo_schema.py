"""What Weibo's files hold: Tianchi's official ones, and the mapping of a release that names viewers.

Source: SCHEMAS §4 (no owner's schema is public; read in public code) [R]; METHODS §8.1.
"""

from __future__ import annotations

from datetime import date
from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.sources.text_fields import Layout
from reelrank.sources.text_log import (
    Column,
    CountColumn,
    FlagColumn,
    IdColumn,
    Ids,
    KindColumn,
    LogMapping,
    Text,
    TimeColumn,
)

Variant = Literal["tianchi", "viewers"]
LICENCES: dict[Variant, str] = {
    "tianchi": "no licence text is published; log-in at tianchi.aliyun.com; holds users' texts: do not redistribute",
    "viewers": "the release's own",
}
DOWNLOAD = "https://tianchi.aliyun.com/competition/entrance/231574"

# Tianchi: posts 2015-02-01 … 07-31 with counts, and 2015-08-01 … 08-31 without; local time, Asia/Shanghai
COUNTS = ("forward_count", "comment_count", "like_count")
TIANCHI_COLUMNS: dict[str, tuple[str, ...]] = {
    "train": ("uid", "mid", "time", *COUNTS, "content"),
    "predict": ("uid", "mid", "time", "content"),
}
TIANCHI_FOLDERS = ("weibo_{part}_data(new)", "weibo_{part}_data", "")
TIANCHI_FILE = "weibo_{part}_data.txt"
TIANCHI_PUBLISHED = {"train_posts": 1_229_618, "train_authors": 37_263, "predict_posts": 178_297}
_TIANCHI_TIME = TimeColumn(
    column="time",
    unit="iso",
    utc_offset_h=8,
    first_day=date(2015, 1, 31),  # a day of grace on both sides
    last_day=date(2015, 9, 1),
)


def tianchi_layout(part: str) -> Layout:
    """TAB, no header, and no quoting: posts hold unbalanced quotes."""
    return Layout(separator="\t", quotes=False, header=False, columns=TIANCHI_COLUMNS[part])


def tianchi_columns(part: str) -> dict[str, Column]:
    """What the columns of one of Tianchi's files mean."""
    counts = {name: CountColumn(column=name) for name in COUNTS if part == "train"}
    return {
        "author": IdColumn(column="uid"),
        "post": IdColumn(column="mid"),
        "time": _TIANCHI_TIME,
        **counts,
        "text": Column(column="content"),
    }


class ActionsMapping(Options):
    """The log: one row per user, post, action and time."""

    files: tuple[str, ...] = Field(min_length=1, description="files or patterns, in time order")
    user: Column = Field(description="who acted")
    post: Column = Field(description="on which post")
    time: TimeColumn = Field(description="when")
    action: Column = Field(description="what the user did: one of the values below")
    view: tuple[Text, ...] = Field((), description="values that mean: saw it, and no more")
    like: tuple[Text, ...] = Field((), description="values that mean a like; none = not logged")
    comment: tuple[Text, ...] = Field((), description="values that mean a comment, likewise")
    forward: tuple[Text, ...] = Field((), description="values that mean a forward, likewise")
    unused: tuple[Text, ...] = Field((), description="values to leave out, counted")

    @model_validator(mode="after")
    def _each_value_once(self) -> Self:
        values = [*self.used, *self.unused]
        if not self.used or len(set(values)) < len(values):
            raise ValueError(
                f"view, like, comment, forward and unused must name every value of {self.action.column} once: {values}"
            )
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """All values that make an interaction."""
        return self.view + self.like + self.comment + self.forward


class PostsMapping(Options):
    """The posts, if there is such a file."""

    file: str = Field(description="file beside the mapping")
    post: Column = Field(description="the post's id")
    author: Column | None = Field(None, description="who wrote it: an id of the users' kind")
    time: TimeColumn | None = Field(None, description="when it was posted")
    text: Column | None = Field(None, description="what it says")


class FollowsMapping(Options):
    """Who follows whom, if there is such a file."""

    file: str = Field(description="file beside the mapping")
    src: Column = Field(description="the follower")
    dst: Column = Field(description="the followed")
    time: TimeColumn | None = Field(None, description="since when")


class CascadesMapping(Options):
    """Who forwarded a post from whom, if there is such a file."""

    file: str = Field(description="file beside the mapping")
    post: Column = Field(description="the post")
    user: Column = Field(description="who forwarded it")
    parent: Column | None = Field(None, description="whose forward it was; empty = the post itself")
    time: TimeColumn = Field(description="when")


class WeiboMapping(Options):
    """``mapping.yml`` of a release with viewers: which files there are and what their columns mean."""

    layout: Layout = Field(Layout(separator="\t", quotes=False), description="of every file")
    user_ids: Ids = Field("text", description="text (any) or integer (0 or more)")
    post_ids: Ids = Field("text", description="text (any) or integer (0 or more)")
    actions: ActionsMapping = Field(description="what users did")
    posts: PostsMapping | None = Field(None, description="posts; none = ids only")
    follows: FollowsMapping | None = Field(None, description="follow edges")
    cascades: CascadesMapping | None = Field(None, description="forwards with their source")

    @model_validator(mode="after")
    def _one_layout_per_file(self) -> Self:
        if not self.layout.header:
            raise ValueError("layout.header must be true: every file names its own columns")
        return self

    @property
    def log(self) -> LogMapping:
        """The actions as a log of interactions: each row has one action, the others being 0."""
        a = self.actions
        logged = {"like": a.like, "comment": a.comment, "forward": a.forward}
        return LogMapping(
            user=a.user,
            item=a.post,
            user_ids=self.user_ids,
            item_ids=self.post_ids,
            time=a.time,
            kind=KindColumn(column=a.action.column, used=a.used, unused=a.unused),
            feedback={
                name: FlagColumn(column=a.action.column, ones=values)
                for name, values in logged.items()
                if values
            },
        )

    def side_columns(self, table: Literal["posts", "follows", "cascades"]) -> dict[str, Column]:
        """Every named column of a table beside the log under its key."""
        ids = dict.fromkeys(("author", "src", "dst", "user", "parent"), self.user_ids)
        ids["post"] = self.post_ids
        block = getattr(self, table)
        columns: dict[str, Column] = {}
        for key in type(block).model_fields:
            column = getattr(block, key)
            if isinstance(column, Column):
                columns[key] = (
                    IdColumn(column=column.column, ids=ids[key]) if key in ids else column
                )
        return columns
