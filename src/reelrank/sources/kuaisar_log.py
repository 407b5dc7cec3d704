"""KuaiSAR's logs: rows of recommendation and search → raw interactions.

``ts_ms`` of a recommended row is the time of its distribution, so that several rows of a user share it; the time of a search row is
that of its search session. Search rows of what is no video (users, live rooms, goods, music, adverts) are no interactions.

Source: METHODS §1.1, §5.2; SCHEMAS §3 [S].
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reelrank.sources.kuaisar_schema import (
    ITEM_TYPES,
    N_VIDEO_TYPES,
    REC,
    SEARCH,
    Variant,
    file_columns,
)
from reelrank.sources.log_csv import CsvFormat

WORD_LIST = r"^(\[ *(\d{1,9}( *, *\d{1,9})*)? *\])?$"
_EXCLUDED = {code: name for code, name in enumerate(ITEM_TYPES) if code >= N_VIDEO_TYPES}


def log_format(role: str, variant: Variant, path: Path) -> CsvFormat:
    """The format of the log with this role, in the spelling of its own header."""
    to_rows = {"rec_inter": rec_rows, "src_inter": search_rows}[role]
    return CsvFormat(file_columns(role, variant, path), to_rows)


def rec_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of rec_inter.csv → columns of ``RAW_COLUMNS``; a duration of 0 is null."""
    return raw.select(
        "user_id",
        "item_id",
        ts_ms="timestamp",
        scenario=pl.lit(REC, pl.Int16),
        play_ms="playing_time",
        duration_ms=pl.when(pl.col("duration_ms") > 0).then("duration_ms"),
        click="click",
        like="like",
        follow="follow",
        forward="forward",
    )


def search_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of src_inter.csv → columns of ``RAW_COLUMNS``: click is all the feedback there is."""
    return raw.select(
        "user_id",
        "item_id",
        ts_ms="search_session_timestamp",
        scenario=pl.lit(SEARCH, pl.Int16),
        click=(pl.col("click_cnt") >= 1).cast(pl.Int8),
        excluded=pl.col("item_type").replace_strict(
            _EXCLUDED, default=None, return_dtype=pl.String
        ),
        reason=not_words("keyword"),
    )


def not_words(name: str) -> pl.Expr:
    """Why a text is no list of word ids (``[20, 34, 3]``); null where it is one."""
    text = pl.col(name)
    return pl.when(~text.str.contains(WORD_LIST)).then(
        pl.format(f"{name} is not a list of word ids: '{{}}'", text.str.slice(0, 40))
    )


def word_ids(name: str) -> pl.Expr:
    """The list of word ids that a text names; null where it names none."""
    inner = pl.col(name).str.strip_chars("[] ")
    words = inner.str.replace_all(" ", "", literal=True).str.split(",")
    return pl.when(inner != "").then(words.cast(pl.List(pl.Int32), strict=False))
