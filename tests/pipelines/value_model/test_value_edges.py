"""Labelled edges and the examples that are made of them."""

import numpy as np
import polars as pl
import pytest
from support.feature_logs import DAY, N_ITEMS, START, cuts_after, items_of, random_log

from reelrank.buckets import BucketedTable, bucket_path, finish_table, write_bucket
from reelrank.features.heads import HEADS, HeadRule
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.splits import assign_split
from reelrank.features.value_encoder import ValueFeatureOptions
from reelrank.features.value_features import FEATURE_BLOCKS, NodeFeatures
from reelrank.pipelines.value_model.assembly import ValueTables
from reelrank.pipelines.value_model.edges import edge_table
from reelrank.pipelines.value_model.fitting import context_graph
from reelrank.pipelines.value_model.options import EdgeOptions, GnnOptions

LOG = random_log(0)
ITEMS = items_of(N_ITEMS, category_1=[i % 3 for i in range(N_ITEMS)], duration_ms=[9000] * N_ITEMS)
CUTS = cuts_after(3, 1, 6)
NODES = NodeFeatures.of(
    pl.DataFrame({"user_id": range(6), "follow_user_num": range(6)}, schema_overrides={"user_id": pl.Int32}),
    ITEMS,
)  # fmt: skip


def edges_of(log, **options):
    return edge_table(
        log,
        histories(log, ItemCodes.of(ITEMS), HistoryOptions()),
        assign_split(log, CUTS),
        items=ITEMS,
        bursts=None,
        heads=HeadRule(),
        options=EdgeOptions(**options),
        clock="local",
    )


def stored(folder, *frames):
    folder.mkdir()
    for bucket, frame in enumerate(frames):
        write_bucket(frame, bucket_path(folder, bucket))
    finish_table(folder, len(frames), sum(f.height for f in frames))
    return BucketedTable.open(folder)


@pytest.fixture
def tables(tmp_path):
    """Two buckets of users."""
    logs = [LOG.filter(pl.col("user_id") % 2 == k) for k in range(2)]

    def build(**options):
        edges = stored(tmp_path / "edges", *(edges_of(log, **options) for log in logs))
        return ValueTables(edges, stored(tmp_path / "log", *logs), NODES, EdgeOptions(**options))

    return build


def test_labels_and_parts_are_those_of_the_row():
    edges = edges_of(LOG)
    assert edges["row_id"].equals(LOG["row_id"])
    assert edges.columns[6:10] == list(HEADS) and set(FEATURE_BLOCKS["edge"]) <= set(edges.columns)
    first = LOG["ts_ms"] < START + 3 * DAY
    assert (edges["split"] == "train").equals(first.alias("split"))
    assert edges["rewatch"].equals((LOG["watch_ratio"] >= 2).cast(pl.Int8).alias("rewatch"))
    assert edges["neg"].null_count() == LOG["play_ms"].null_count() > 0


def test_a_share_of_the_rows_is_drawn_whatever_the_bucket():
    whole = edges_of(LOG, share=0.5, seed=3)
    assert 0.4 < whole.height / LOG.height < 0.6
    halves = [edges_of(LOG.filter(pl.col("user_id") < 3), share=0.5, seed=3),
              edges_of(LOG.filter(pl.col("user_id") >= 3), share=0.5, seed=3)]  # fmt: skip
    assert pl.concat(halves)["row_id"].equals(whole["row_id"])
    # a drawn row is what it was: histories see all rows
    assert whole.equals(edges_of(LOG).filter(pl.col("row_id").is_in(whole["row_id"].to_list())))
    assert not edges_of(LOG, share=0.5, seed=4)["row_id"].equals(whole["row_id"])


@pytest.mark.parametrize("graph", ["all", "labelled"])
def test_the_graph_holds_all_train_pairs_or_the_labelled_ones(tables, graph):
    made = tables(share=0.3, graph=graph)
    parts = made.split_by(CUTS)
    examples = made.assemble(parts, made.fit_encoder(parts, ValueFeatureOptions())).examples
    found = context_graph(GnnOptions(width=4), examples, "test")
    n_links = (len(found.matrix.values) - 6 - N_ITEMS) // 2
    rows = LOG if graph == "all" else pl.concat(made.edges.iter_buckets())
    train = rows.filter(pl.col("ts_ms") < START + 3 * DAY)
    assert n_links == train.select("user_id", "item_id").n_unique()


def test_examples_are_the_edges_in_order_with_their_parts(tables):
    made = tables()
    parts = made.split_by(CUTS)
    assembly = made.assemble(parts, made.fit_encoder(parts, ValueFeatureOptions()))
    edges = pl.concat(made.edges.iter_buckets())
    assert assembly.keys["row_id"].equals(edges["row_id"])
    examples = assembly.examples
    assert np.array_equal(examples.inputs.item_id, edges["item_id"].to_numpy())
    labels = edges.select(pl.col(HEADS).fill_null(-1)).to_numpy()
    assert np.array_equal(examples.labels, labels)
    for part in ("train", "val", "test"):
        assert (assembly.keys["split"].gather(getattr(examples, part)) == part).all()
    p = np.full((len(examples.test), 4), 0.5, np.float32)
    table = assembly.predictions("test", p)
    expected = edges.filter(split="test")
    assert table.select("row_id", *HEADS).equals(expected.select("row_id", *HEADS))


def test_the_clock_is_that_of_the_encoder_whatever_the_edges_were_made_with(tables):
    made = tables()
    parts = made.split_by(CUTS)
    found = {
        clock: made.fit_encoder(parts, ValueFeatureOptions(clock=clock)) for clock in ("local", "utc")
    }  # fmt: skip
    sines = {}
    for clock, encoder in found.items():
        column = encoder.names("edge")[0].index("hour_sin")
        scale = next(c for c in encoder.edge if c.name == "hour_sin")
        inputs = made.assemble(parts, encoder).examples.inputs
        sines[clock] = inputs.edge.continuous[:, column] * scale.deviation + scale.mean
    edges = pl.concat(made.edges.iter_buckets())
    hours = (edges["ts_ms"] // 3_600_000 % 24).to_numpy()
    assert sines["utc"] == pytest.approx(np.sin(hours * np.pi / 12), abs=1e-5)
    assert sines["local"] == pytest.approx(np.sin((hours + 8) * np.pi / 12), abs=1e-5)
