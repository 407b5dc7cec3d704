"""Figures name their axes, show n, and refuse to be empty."""

import numpy as np
import polars as pl
import pytest

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.reports import figures
from reelrank.reports.result_tables import differences_table, results_table

COMMON = {
    "system": "mt_dqn", "source": "kuairand", "split": "s/test", "seed": 0, "data_kind": "world", "config_hash": "c",
}  # fmt: skip
RESULTS = results_frame(
    [
        ResultRow("mt_dqn", "ndcg@5", 0.7, 100, 0.6, 0.8, group="logged"),
        ResultRow("popularity", "ndcg@5", 0.5, 100, 0.4, 0.6, reliable=False, group="logged"),
        ResultRow("mt_dqn", "ndcg@5", 0.2, 100, 0.1, 0.3, group="logged", paired_with="popularity", p_value=0.02),
        ResultRow("mt_dqn", "f1", float("nan"), 3),
    ],
    **COMMON,
)  # fmt: skip
HISTORY = pl.DataFrame(
    {"variant": ["mt_dqn"] * 2, "epoch": [1, 2], "step": [10, 20], "train_loss": [1.0, 0.5], "val_ndcg@5": [0.5, None]}
)  # fmt: skip
GATES = pl.DataFrame(
    {"item_id": [0, 1], "gate_visual": [0.5, 0.2], "gate_audio": [0.25, 0.4], "gate_text": [0.25, 0.4]}
)  # fmt: skip
REWARDS = pl.DataFrame(
    {"split": ["train", "train", "test"], "r_immediate": [0.5, 0.0, 1.0], "r_retention": [None, 1.0, 0.0], "r_interest": [0.1, 0.0, -0.2]}
)  # fmt: skip
VALUES = pl.DataFrame({"q": np.arange(50.0), "value": np.arange(50.0), "return": [None, *np.arange(49.0)]})  # fmt: skip
STEPS = {"steps": [{"step": "rows read", "rows": 100}, {"step": "canonical", "rows": 90}]}
SIZES = pl.DataFrame({"split": ["train", "val", "test"], "rows": [7, 1, 2]})
CELLS = results_frame(
    [ResultRow("gnn_64", "auc", -0.1, 100, -0.2, 0.0, group="mean", paired_with="gnn_64, honest")],
    **COMMON, experiment="GV-02", cell="numeric ids",
)  # fmt: skip
BINS = pl.DataFrame(
    {"variant": ["gnn_64"] * 2, "group": ["neg"] * 2, "n": [9, 9], "predicted": [0.1, 0.6], "observed": [0.2, 0.5]}
)  # fmt: skip
DRAWN = {
    "learning_curves": lambda: figures.learning_curves(HISTORY),
    "metric_bars": lambda: figures.metric_bars(RESULTS),
    "paired_differences": lambda: figures.paired_differences(RESULTS),
    "cell_intervals": lambda: figures.cell_intervals(CELLS, "Leaks", "difference", zero=True),
    "reliability_curves": lambda: figures.reliability_curves(BINS),
    "gate_weights": lambda: figures.gate_weights(GATES),
    "attention_heatmap": lambda: figures.attention_heatmap(np.full((2, 4, 3, 3), 1 / 3)),
    "q_against_returns": lambda: figures.q_against_returns(VALUES),
    "reward_parts": lambda: figures.reward_parts(REWARDS, 0.3, 0.2),
    "ingestion_steps": lambda: figures.ingestion_steps(STEPS),
    "split_sizes": lambda: figures.split_sizes(SIZES),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_has_title_caption_axes_and_data(name):
    figure = DRAWN[name]()
    assert figure.layout.title.text and figure.layout.title.subtitle.text
    assert figure.data
    titles = [axis.title.text for axis in figure.select_xaxes()]
    assert any(titles), "no x axis says what it shows"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.metric_bars(RESULTS.clear()), "no result"),
        (lambda: figures.paired_differences(RESULTS.head(1)), "no paired difference"),
        (lambda: figures.cell_intervals(CELLS.clear(), "Leaks", "difference"), "no cell"),
        (lambda: figures.reliability_curves(BINS.clear()), "no bins"),
        (lambda: figures.reliability_curves(BINS.drop("n")), "'n'"),
        (lambda: figures.gate_weights(GATES.clear()), "no items"),
        (lambda: figures.gate_weights(GATES.drop("gate_text")), "gate_text"),
        (lambda: figures.attention_heatmap(np.ones((2, 3, 3))), "must be"),
        (lambda: figures.q_against_returns(VALUES.with_columns(pl.lit(None).alias("return"))), "censored"),
        (lambda: figures.ingestion_steps({"steps": []}), "no steps"),
        (lambda: figures.learning_curves(HISTORY.drop("train_loss", "val_ndcg@5")), "no loss"),
    ],
)  # fmt: skip
def test_an_empty_or_wrong_table_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_bars_leave_out_what_has_no_value_and_pale_what_is_unreliable():
    figure = figures.metric_bars(RESULTS)
    assert len(figure.data) == 1
    assert list(figure.data[0].x) == [0.7, 0.5]
    assert list(figure.data[0].marker.opacity) == [1.0, 0.4]


def test_ingestion_counts_are_exact():
    assert list(figures.ingestion_steps(STEPS).data[0].x) == [100, 90]


def test_tables_show_interval_n_and_reliability():
    table = results_table(RESULTS)
    assert table.columns == ["metric", "MT-DQN", "Popularity", "n"]
    row = table.rows[0]
    assert (row[1].text, row[1].detail) == ("0.7000", "[0.6000, 0.8000]")
    assert row[2].muted and row[2].text.endswith("†")
    difference = differences_table(RESULTS).rows[0]
    assert difference[2].text == "+0.2000" and difference[3].text == "0.020"


def test_rows_that_differ_in_code_version_never_share_a_table():
    other = RESULTS.with_columns(code_version=pl.lit("other"))
    with pytest.raises(ValueError, match="code_version"):
        results_table(pl.concat([RESULTS, other]))
