"""What an experiment's result rows say about its question, read by a rule that was written down before.

A claim asks whether a number lies in a region: above 0 (a gain), below a margin (not worse), between two margins (no difference
that matters). With a 95 % interval it holds if the whole interval lies inside, fails if the whole interval lies outside, and is
undecided in between. Source: METHODS §9, §7.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, Self

import polars as pl
from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.tables import Results

Verdict = Literal["holds", "fails", "undecided", "reported", "not run"]
Selector = str | tuple[str, ...] | None
HOLDS: Verdict = "holds"
FAILS: Verdict = "fails"
UNDECIDED: Verdict = "undecided"
REPORTED: Verdict = "reported"
NOT_RUN: Verdict = "not run"
SELECTED = ("variant", "paired_with", "metric", "group", "weighting", "cell", "source", "split", "track", "system")  # fmt: skip
SAME = ("variant", "metric", "group", "weighting", "source", "split", "track", "seed")
CELL = ("experiment", "cell", "system", "source", "track", "code_version")
NAMING = ("cell", "variant", "group", "weighting")
NAMED_ROWS = 3  # beyond, a sentence counts

VERDICTS: dict[str, type[pl.DataType]] = {
    "experiment": pl.String, "verdict": pl.String, "sentence": pl.String, "question": pl.String, "asked_by": pl.String,
    "rule": pl.String, "status": pl.String, "data_kind": pl.String, "sources": pl.String, "rows": pl.Int64,
    "code_version": pl.String, "run_id": pl.String, "newest": pl.Boolean,
}  # fmt: skip
"""Columns of :func:`verdicts`."""


class Claim(Options):
    """One sentence, and where its number must lie."""

    says: str = Field(min_length=1, description="what is claimed, as a sentence")
    where: dict[str, Selector] = Field(
        description="column of result rows → value, or values, with * for anything; null: the column is empty. paired_with that is "
        "not named is empty: a value, not a difference"
    )
    minus: dict[str, Selector] | None = Field(
        None,
        description="the same with other values: the number is the row's value minus that of the row which agrees in all else; "
        "for numbers that no paired difference is stored of",
    )
    above: float | None = Field(None, description="lower end of the region; null: none")
    below: float | None = Field(None, description="upper end of the region; null: none")
    every: bool = Field(True, description="all rows that are found must hold; false: one is enough")
    point: bool = Field(
        False, description="a number without an interval counts by itself; false: it is undecided"
    )

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        for name in (*self.where, *(self.minus or {})):
            if name not in SELECTED:
                raise ValueError(f"where names {name!r}, rows are chosen by {', '.join(SELECTED)}")
        if self.above is None and self.below is None:
            raise ValueError("a claim needs above or below")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"above {self.above} must be less than below {self.below}")
        return self


class Reading(Options):
    """How a verdict follows from result rows."""

    rule: str = Field(min_length=1, description="the rule in words")
    claims: tuple[Claim, ...] = Field(
        (),
        description="what must hold, all of it; none: the numbers are reported, nothing is decided",
    )


class Question(Options):
    """What an experiment asks."""

    question: str = Field(min_length=1, description="what it asks")
    asked_by: str = Field(min_length=1, description="where the question comes from")
    reading: Reading = Field(description="how a verdict follows")
    status: str | None = Field(None, description="why it, or a part of it, cannot run yet")


def verdicts(rows: pl.DataFrame, registry: Mapping[str, Question]) -> pl.DataFrame:
    """The verdict on every experiment, for each version of the code apart.

    Args:
        rows: ``Results`` of any runs; of a cell that was run several times by one version of the code, the newest run counts.
        registry: experiment id → question.

    Returns:
        Columns ``VERDICTS``, experiments in the order of the registry, newest version first; an experiment without rows has one row,
        ``not run``. ``sentence`` says for every claim what was found, and "synthetic" where rows come from a generated world.
    """
    found = []
    kept = newest(rows)
    for name, asked in registry.items():
        own = kept.filter(experiment=name)
        versions = (
            own.group_by("code_version").agg(pl.max("run_id")).sort("run_id", descending=True)
        )
        common = {
            "experiment": name,
            "question": asked.question,
            "asked_by": asked.asked_by,
            "rule": asked.reading.rule,
            "status": asked.status,
        }
        if versions.is_empty():
            sentence = f"not run{f': {asked.status}' if asked.status else ''}"
            found.append(common | {"verdict": NOT_RUN, "sentence": sentence, "rows": 0, "newest": True})  # fmt: skip
        for k, (version, run_id) in enumerate(versions.iter_rows()):
            part = own.filter(code_version=version)
            word, sentence = read(part, asked.reading)
            found.append(
                common
                | {
                    "verdict": word,
                    "sentence": sentence,
                    "data_kind": _listed(part["data_kind"]),
                    "sources": _listed(part["source"]),
                    "rows": part.height,
                    "code_version": version,
                    "run_id": run_id,
                    "newest": k == 0,
                }
            )
    return pl.DataFrame(found, schema=VERDICTS)


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """Of every cell and version of the code, the rows of its newest run."""
    columns = [*Results.polars_schema()]
    return rows.select(columns).filter(pl.col("run_id") == pl.col("run_id").max().over(CELL))


def read(rows: pl.DataFrame, reading: Reading) -> tuple[Verdict, str]:
    """The verdict on one experiment's rows of one version of the code, and the sentence that says why."""
    if rows.is_empty():
        return NOT_RUN, "not run"
    world = " (synthetic)" if (rows["data_kind"] == "world").any() else ""
    if not reading.claims:
        numbers = "1 number" if rows.height == 1 else f"{rows.height} numbers"
        return REPORTED, f"{numbers}, to be looked at: {reading.rule}{world}"
    judged = [judge(rows, claim) for claim in reading.claims]
    word = _together([word for word, _ in judged], every=True)
    return word, "; ".join(sentence for _, sentence in judged) + world


def judge(rows: pl.DataFrame, claim: Claim) -> tuple[Verdict, str]:
    """What the rows say about one claim, with the numbers."""
    numbers = _numbers(rows, claim)
    if not numbers:
        return UNDECIDED, f"{claim.says}: undecided, no row of these answers it"
    words = [_placed(number, claim) for number in numbers]
    word = _together(words, every=claim.every)
    if len(numbers) <= NAMED_ROWS:
        told = " · ".join(n.told(name) for n, name in zip(numbers, _names(numbers), strict=True))
    else:
        counts = (f"{words.count(w)} {w}" for w in (HOLDS, FAILS, UNDECIDED) if w in words)
        told = f"of {len(words)}: {', '.join(counts)}"
    return word, f"{claim.says}: {word}, {told}"


class _Number(Options):
    """A value with its interval, infinite where it has none."""

    parts: tuple[str, ...]
    value: float
    low: float | None
    high: float | None
    n: int
    reliable: bool

    def told(self, name: str) -> str:
        interval = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{name and f'{name}: '}{self.value:.4g}{interval} (n = {self.n}{'' if self.reliable else ', not reliable'})"


def _names(numbers: Sequence[_Number]) -> list[str]:
    """What tells the numbers of one claim apart; nothing if there is one."""
    differs = [len(set(part)) > 1 for part in zip(*(n.parts for n in numbers), strict=True)]
    return [", ".join(p for p, d in zip(n.parts, differs, strict=True) if d and p) for n in numbers]


def _numbers(rows: pl.DataFrame, claim: Claim) -> list[_Number]:
    """The rows of a claim, minus their counterparts if it has any."""
    own = matching(rows, claim.where)
    if claim.minus is None:
        return [_number(row) for row in own.drop_nulls("value").iter_rows(named=True)]
    changed = {*claim.minus} & {*SAME}
    other = matching(rows, {**claim.where, **claim.minus})
    keys = [name for name in SAME if name not in changed]
    pairs = own.join(other, on=keys, how="inner", suffix="_minus", nulls_equal=True)
    pairs = pairs.drop_nulls(["value", "value_minus"])
    return [_difference(row) for row in pairs.iter_rows(named=True)]


def matching(rows: pl.DataFrame, where: Mapping[str, Selector]) -> pl.DataFrame:
    """Rows whose columns have the wanted values (``*`` for anything, null for empty).

    A ``paired_with`` that is not named is empty: a value, not a difference.

    Raises:
        ValueError: ``where`` names no column of the rows.
    """
    unknown = sorted(set(where) - set(rows.columns))
    if unknown:
        raise ValueError(f"where names {unknown}; result rows have {rows.columns}")
    for column, wanted in {"paired_with": None, **where}.items():
        if wanted is None:
            rows = rows.filter(pl.col(column).is_null())
            continue
        patterns = (wanted,) if isinstance(wanted, str) else wanted
        present = rows[column].unique().drop_nulls().to_list()
        found = [v for v in present if any(fnmatchcase(v, p) for p in patterns)]
        rows = rows.filter(pl.col(column).is_in(found))
    return rows


def _number(row: Mapping[str, object]) -> _Number:
    low, high = row["ci_low"], row["ci_high"]
    known = low is not None and high is not None
    return _Number.model_validate(
        {
            "parts": [str(row[c] or "") for c in NAMING],
            "value": row["value"],
            "low": low if known else None,
            "high": high if known else None,
            "n": row["n"],
            "reliable": row["reliable"],
        }
    )


def _difference(row: Mapping[str, object]) -> _Number:
    """The interval of a difference of two independent numbers from theirs. Source: Zou and Donner 2008, Eq. 7."""
    a = _number(row)
    b = _number({c: row.get(f"{c}_minus", row.get(c)) for c in Results.polars_schema()})
    value = a.value - b.value
    low = high = None
    if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        low = value - math.hypot(a.value - a.low, b.high - b.value)
        high = value + math.hypot(a.high - a.value, b.value - b.low)
    return _Number(
        parts=tuple(x if x == y else f"{x} − {y}" for x, y in zip(a.parts, b.parts, strict=True)),
        value=value,
        low=low,
        high=high,
        n=min(a.n, b.n),
        reliable=a.reliable and b.reliable,
    )


def _placed(number: _Number, claim: Claim) -> Verdict:
    """Inside, outside or across the edge of the claim's region."""
    low, high = number.low, number.high
    if low is None or high is None:
        low = high = number.value
        if not claim.point:
            return UNDECIDED
    above = -math.inf if claim.above is None else claim.above
    below = math.inf if claim.below is None else claim.below
    if not number.reliable or math.isnan(low) or math.isnan(high):
        return UNDECIDED
    if low > above and high < below:
        return HOLDS
    if high <= above or low >= below:
        return FAILS
    return UNDECIDED


def _together(words: Iterable[Verdict], *, every: bool) -> Verdict:
    """All must hold, and one that fails is enough to fail; or one that holds is enough, and all must fail."""
    enough, needed = (FAILS, HOLDS) if every else (HOLDS, FAILS)
    found = set(words)
    if enough in found:
        return enough
    return needed if found == {needed} else UNDECIDED


def confirmed_gain(differences: pl.Series) -> str:
    """What differences on seeds by which nothing was chosen say of a gain, as a sentence."""
    if differences.is_empty():
        return "The gain was not confirmed with other seeds."
    if bool((differences > 0).all()):
        return "The gain holds."
    return "The gain is not sure." if differences.sum() > 0 else "The gain does not hold."


def _listed(column: pl.Series) -> str:
    return ", ".join(sorted(column.drop_nulls().unique().to_list()))
