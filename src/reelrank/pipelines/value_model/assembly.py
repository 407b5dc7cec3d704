"""From stored edges to examples: encoded, with their labels, parts and the links that make a graph.

Source: METHODS §6.3, §6.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.features.heads import HEADS
from reelrank.features.splits import FittedSplit, assign_split
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import Clock, NodeFeatures, moment_features
from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.models.value_model import Floats
from reelrank.pipelines.value_model.edges import KEYS
from reelrank.pipelines.value_model.fitting import Examples, Links, Part, Rows, as_labels
from reelrank.pipelines.value_model.options import EdgeOptions
from reelrank.tables import SPLITS

Parts = Callable[[int], pl.DataFrame]
"""``Splits`` of one bucket."""


@dataclass(frozen=True)
class Assembly:
    """Examples and whose they are.

    Attributes:
        examples: E edges.
        keys: E rows: ``KEYS``, split.
    """

    examples: Examples
    keys: pl.DataFrame

    def predictions(self, part: Part, probabilities: Floats) -> pl.DataFrame:
        """Keys, labels (null = unknown) and p_<head> of the edges of a part."""
        rows: Rows = getattr(self.examples, part)
        labels = pl.DataFrame(self.examples.labels[rows], schema=list(HEADS))
        known = labels.with_columns(pl.when(pl.col(h) >= 0).then(h).alias(h) for h in HEADS)
        p = pl.DataFrame(probabilities, schema=[f"p_{h}" for h in HEADS])
        return pl.concat([self.keys[rows], known, p], how="horizontal")


@dataclass(frozen=True)
class ValueTables:
    """The tables of one log that examples are made of.

    Attributes:
        edges: from :func:`edge_table`.
        interactions: ``Interactions``.
        nodes: static features of users and items.
        options: which edges are in graphs.
    """

    edges: BucketedTable
    interactions: BucketedTable
    nodes: NodeFeatures
    options: EdgeOptions

    def split_by(self, split: FittedSplit) -> Parts:
        """The parts under a rule of one's own."""
        return lambda bucket: assign_split(self.interactions.read(bucket), split)

    def fit_encoder(self, parts: Parts, options: ValueFeatureOptions) -> ValueEncoder:
        """Scalers and vocabularies of train edges (L2)."""
        rows = self._rows(parts, options.clock)
        return ValueEncoder.fit(self.nodes, (r.filter(split="train") for r in rows), options)

    def assemble(self, parts: Parts, encoder: ValueEncoder) -> Assembly:
        """All edges that have a part, encoded, with their labels.

        Raises:
            ValueError: train or val is empty.
        """
        nodes = encoder.encode_nodes(self.nodes)
        keys, blocks, labels = [], [], []
        for rows in self._rows(parts, encoder.options.clock):
            keys.append(rows.select(*KEYS, "split"))
            blocks.append(encoder.with_edges(nodes, rows).edge)
            labels.append(as_labels(rows.select(pl.col(HEADS).cast(pl.Float32)).to_numpy()))
        table = pl.concat(keys)
        continuous, categorical = (
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("continuous", "categorical")
        )
        edge = FeatureBlock(continuous, categorical, blocks[0].cardinalities)
        ids = (table[name].to_numpy() for name in ("user_id", "item_id"))
        part = table["split"].to_physical().to_numpy()
        train, val, test = (np.flatnonzero(part == k) for k in range(len(SPLITS)))
        links = self._links(parts) if self.options.graph == "all" else None
        inputs = ValueInputs(*nodes, edge, *ids)
        return Assembly(Examples(inputs, np.concatenate(labels), train, val, test, links), table)

    def _rows(self, parts: Parts, clock: Clock) -> Iterator[pl.DataFrame]:
        """Edges bucket by bucket, with their part and with hour and weekend of the clock asked for."""
        for bucket in range(self.edges.n_buckets):
            rows = self.edges.read(bucket).drop("split")
            of_rows = parts(bucket).select("row_id", "split")
            rows = rows.join(of_rows, on="row_id", how="inner", maintain_order="left")
            yield rows.with_columns(moment_features(rows["ts_ms"], clock))

    def _links(self, parts: Parts) -> Links:
        """Every interaction that has a part."""
        found = pl.concat(
            self.interactions.read(bucket, ["row_id", "user_id", "item_id"])
            .join(parts(bucket).select("row_id", "split"), on="row_id", how="inner", maintain_order="left")
            .select("user_id", "item_id", pl.col("split").to_physical().cast(pl.Int8))
            for bucket in range(self.interactions.n_buckets)
        )  # fmt: skip
        return Links(*(found[name].to_numpy() for name in found.columns))
