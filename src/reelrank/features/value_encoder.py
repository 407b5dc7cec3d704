"""The 64 features as arrays for the value models, with scalers and vocabularies of train rows.

Source: METHODS §6.3, §1.5 L2, L8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from reelrank.features.value_features import (
    FEATURE_BLOCKS,
    FEATURE_BY_NAME,
    FEATURE_NAMES,
    Block,
    Clock,
    Group,
    Kind,
    NodeFeatures,
    missing_report,
)
from reelrank.models.value_inputs import UNKNOWN, FeatureBlock, ValueInputs
from reelrank.options import Options

Vocabulary = tuple[int, ...] | tuple[str, ...]
Weights = npt.NDArray[np.int64]
D = TypeVar("D", np.float32, np.int32)
NO_SPREAD = 1e-9  # a deviation below this share of the mean is rounding


class ValueFeatureOptions(Options):
    """Which of the 64 features a value model reads, and how."""

    encoding: Literal["typed", "poster_literal"] = Field(
        "typed",
        description="typed: numbers standardised, missing flags, categories as codes; poster_literal: every column a standardised number [A]",
    )
    clock: Clock = Field(
        "local", description="of hour and weekend; utc is the author's slip [A: METHODS §1.3]"
    )
    drop_groups: tuple[Group, ...] = Field((), description="groups of features left out (GV-04)")


class EncodedColumn(Options):
    """How one feature is encoded."""

    name: str = Field(description="one of the 64")
    kind: Kind = Field(description="as the encoding reads it: categorical = a code")
    missing: float = Field(ge=0, le=1, description="share of train rows without a value")
    fill: float = Field(0.0, description="stands for a missing value before it is standardised")
    mean: float = Field(0.0, description="subtracted")
    deviation: float = Field(1.0, gt=0, description="divided by")
    flag: bool = Field(False, description="a second column says where the value is missing")
    vocabulary: Vocabulary | None = Field(
        None, description="values that got the codes 1, 2 …; every other one is 0"
    )


class ValueEncoder(Options):
    """A fitted encoder; ``model_dump(mode="json")`` stores it and ``model_validate`` reads it back.

    A feature without a single value in train is left out: there is nothing to learn of it.
    """

    options: ValueFeatureOptions = Field(description="what was asked for")
    rows: int = Field(ge=1, description="train rows")
    user: tuple[EncodedColumn, ...] = Field(description="columns of a user")
    item: tuple[EncodedColumn, ...] = Field(description="columns of an item")
    edge: tuple[EncodedColumn, ...] = Field(description="columns of an edge")

    @classmethod
    def fit(
        cls, nodes: NodeFeatures, train: Iterable[pl.DataFrame], options: ValueFeatureOptions
    ) -> Self:
        """Scalers and vocabularies of train rows; a user or an item counts as often as it has rows (L2, L8).

        Args:
            nodes: static features of all users and items; those without a train row are not looked at.
            train: ``edge_features`` of the train rows, in pieces (``[edges]`` for one).
            options: encoding, and the groups to leave out.

        Raises:
            ValueError: there are no train rows.
        """
        wanted = [n for n in FEATURE_NAMES if FEATURE_BY_NAME[n].group not in options.drop_groups]
        edge = {n: _Seen() for n in FEATURE_BLOCKS["edge"] if n in wanted}
        of_user = np.zeros(nodes.users.height, np.int64)
        of_item = np.zeros(nodes.items.height, np.int64)
        literal = options.encoding == "poster_literal"
        rows = 0
        for edges in train:
            rows += edges.height
            of_user += np.bincount(edges["user_id"].to_numpy(), minlength=len(of_user))
            of_item += np.bincount(edges["item_id"].to_numpy(), minlength=len(of_item))
            for name, seen in edge.items():
                seen.add(edges[name], None, _kind(name, literal), _fill(name, literal))
        if rows == 0:
            raise ValueError("train: no rows, so nothing to fit the value features on")
        fitted = {name: seen.column(name, rows, literal) for name, seen in edge.items()}
        for frame, weights in ((nodes.users, of_user), (nodes.items, of_item)):
            present = np.flatnonzero(weights)
            known, weight = frame[present], weights[present]
            for name in (n for n in frame.columns if n in wanted):
                seen = _Seen()
                seen.add(known[name], weight, _kind(name, literal), _fill(name, literal))
                fitted[name] = seen.column(name, rows, literal)
        blocks = {
            block: tuple(fitted[n] for n in names if n in fitted and fitted[n].missing < 1)
            for block, names in FEATURE_BLOCKS.items()
        }
        return cls(options=options, rows=rows, **blocks)

    def encode(self, nodes: NodeFeatures, edges: pl.DataFrame) -> ValueInputs:
        """Arrays of all users, all items and the given edges.

        Args:
            nodes: static features of all users and items.
            edges: from ``edge_features`` or ``candidate_rows``.
        """
        return self.with_edges(self.encode_nodes(nodes), edges)

    def encode_nodes(self, nodes: NodeFeatures) -> tuple[FeatureBlock, FeatureBlock]:
        """Blocks of all users and all items; work them out once where edges come in pieces."""
        return _block(self.user, nodes.users), _block(self.item, nodes.items)

    def with_edges(
        self, nodes: tuple[FeatureBlock, FeatureBlock], edges: pl.DataFrame
    ) -> ValueInputs:
        """Edges beside nodes from :meth:`encode_nodes`."""
        user_id, item_id = (edges[n].to_numpy().astype(np.int32) for n in ("user_id", "item_id"))
        return ValueInputs(*nodes, _block(self.edge, edges), user_id, item_id)

    def names(self, block: Block) -> tuple[list[str], list[str]]:
        """Names of a block's continuous and of its categorical columns, in order; ``…_missing`` is a flag."""
        columns = self._columns(block)
        numbers = [c.name for c in columns if c.kind != "categorical"]
        flags = [f"{c.name}_missing" for c in columns if c.flag]
        return numbers + flags, [c.name for c in columns if c.kind == "categorical"]

    def missing(self) -> dict[str, dict[str, Any]]:
        """Features that lack values in train: ``{feature: {share, reason}}``; a share of 1 is left out of the arrays.

        With ``drop_groups`` the dropped ones are not named.
        """
        shares = {c.name: c.missing for b in ("user", "item", "edge") for c in self._columns(b)}
        dropped = self.options.drop_groups
        wanted = [f.name for f in FEATURE_BY_NAME.values() if f.group not in dropped]
        return missing_report({name: shares.get(name, 1.0) for name in wanted})

    def _columns(self, block: Block) -> tuple[EncodedColumn, ...]:
        return {"user": self.user, "item": self.item, "edge": self.edge}[block]


def _kind(name: str, literal: bool) -> Kind:
    """As the encoding reads the feature: in the literal one all are numbers."""
    return "continuous" if literal else FEATURE_BY_NAME[name].kind


def _fill(name: str, literal: bool) -> float | None:
    """What stands for a missing value and is part of the moments; None = it is passed over."""
    return FEATURE_BY_NAME[name].literal_fill if literal else None


@dataclass
class _Seen:
    """What train rows show of one feature, piece by piece."""

    n: int = 0
    known: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean
    values: set[Any] = field(default_factory=set)
    coded: Vocabulary | None = None

    def add(
        self, column: pl.Series, weights: Weights | None, kind: Kind, fill: float | None
    ) -> None:
        """Let a piece in; ``weights`` (n,) = train rows behind each value, None = one each."""
        has = column.is_not_null().to_numpy()
        self.known += int(has.sum() if weights is None else weights[has].sum())
        if kind == "categorical":
            self.values.update(column.drop_nulls().unique().to_list())
        elif kind == "continuous":
            if column.dtype == pl.String:
                self.coded = tuple(sorted(column.drop_nulls().unique().to_list()))
                column = pl.select(_codes(pl.lit(column), self.coded)).to_series()
            if fill is None:
                column = column.drop_nulls()
                weights = None if weights is None else weights[has]
            values = column.cast(pl.Float64).fill_null(fill or 0.0).to_numpy()
            self._merge(values, np.ones(len(values)) if weights is None else weights)

    def _merge(self, values: npt.NDArray[np.float64], weights: npt.NDArray[Any]) -> None:
        n = int(weights.sum())
        if n == 0:
            return
        mean = float(np.average(values, weights=weights))
        squares = float(((values - mean) ** 2 * weights).sum())
        gap, total = mean - self.mean, self.n + n
        # moments of two parts together, Chan, Golub and LeVeque 1983
        self.squares += squares + gap**2 * self.n * n / total
        self.mean += gap * n / total
        self.n = total

    def column(self, name: str, rows: int, literal: bool) -> EncodedColumn:
        """What was learned, for ``rows`` train rows."""
        kind, missing = _kind(name, literal), 1 - self.known / rows
        if kind == "categorical":
            vocabulary = tuple(sorted(self.values))
            return EncodedColumn(name=name, kind=kind, missing=missing, vocabulary=vocabulary)
        flag = not literal and 0 < missing < 1
        if kind == "binary":
            return EncodedColumn(name=name, kind=kind, missing=missing, flag=flag)
        deviation = (self.squares / max(self.n, 1)) ** 0.5
        if deviation <= NO_SPREAD * max(abs(self.mean), 1.0):
            deviation = 1.0
        fill = _fill(name, literal)
        return EncodedColumn(
            name=name,
            kind=kind,
            missing=missing,
            fill=self.mean if fill is None else fill,
            mean=self.mean,
            deviation=deviation,
            flag=flag,
            vocabulary=self.coded,
        )


def _codes(column: pl.Expr, vocabulary: Vocabulary) -> pl.Expr:
    """Place of each value in the vocabulary, from 1; unknown and missing ones are ``UNKNOWN``."""
    places = list(range(1, len(vocabulary) + 1))
    coded = column.replace_strict(list(vocabulary), places, default=UNKNOWN, return_dtype=pl.Int32)
    return coded.fill_null(UNKNOWN)


def _number(column: EncodedColumn) -> pl.Expr:
    value = pl.col(column.name)
    if column.vocabulary is not None:
        value = _codes(value, column.vocabulary)
    missing = (column.fill - column.mean) / column.deviation
    return ((value - column.mean) / column.deviation).fill_null(missing).cast(pl.Float32)


def _block(columns: tuple[EncodedColumn, ...], rows: pl.DataFrame) -> FeatureBlock:
    coded = [c for c in columns if c.kind == "categorical"]
    flags = [pl.col(c.name).is_null().cast(pl.Float32).name.suffix("_missing") for c in columns if c.flag]  # fmt: skip
    return FeatureBlock(
        _array(
            rows, [*(_number(c) for c in columns if c.kind != "categorical"), *flags], np.float32
        ),
        _array(rows, [_codes(pl.col(c.name), c.vocabulary or ()) for c in coded], np.int32),
        tuple(len(c.vocabulary or ()) + 1 for c in coded),
    )


def _array(rows: pl.DataFrame, columns: list[pl.Expr], dtype: type[D]) -> npt.NDArray[D]:
    """(n, columns), row by row."""
    if not columns:
        return np.empty((rows.height, 0), dtype)
    return rows.select(columns).to_numpy(order="c").astype(dtype, order="C", copy=False)
