"""The report says what its rows say."""

import polars as pl

from reelrank.pipelines.ruie.report import _calibration_figure, standing_text


def row(variant, value, *, other=None, interval=(None, None), group="all", n=50, cell="main"):
    return {
        "experiment": "RU-01" if cell == "main" else "RU-02", "cell": cell, "variant": variant, "metric": "ndcg@10", "group": group,
        "weighting": "macro" if group == "all" else "", "value": value, "n": n, "ci_low": interval[0], "ci_high": interval[1], "paired_with": other,
    }  # fmt: skip


def test_the_standing_is_read_from_the_intervals():
    main = [
        row("ruie", 0.09), row("popularity", 0.1), row("sasrec", 0.11), row("din", 0.05),
        row("ruie", 0.08, group="search", n=40), row("ruie", 0.1, group="feed", n=900),
        row("ruie", -0.01, other="popularity", interval=(-0.03, 0.01)),
        row("ruie", -0.02, other="sasrec", interval=(-0.03, -0.01)),
        row("ruie", 0.04, other="din", interval=(0.02, 0.06)),
    ]  # fmt: skip
    cells = [
        row("ruie", 0.091, cell="no_gate"),
        row("ruie", 0.001, other="ruie", interval=(-0.01, 0.012), cell="no_gate"),
        row("ruie", 0.02, other="ruie", interval=(0.01, 0.03), cell="ranks_by_backbone"),
    ]
    full = pl.DataFrame(main, infer_schema_length=None)
    text = standing_text(
        full, pl.DataFrame([*main, *cells], infer_schema_length=None), ["search", "feed"], "ndcg@10"
    )
    first, studies = text.split("\n\n")
    assert "above DIN (+0.0400 [+0.0200, +0.0600])" in first
    assert "below SASRec (-0.0200 [-0.0300, -0.0100])" in first
    assert "not to be told from Popularity." in first
    assert "1 of the 3 models that learn have more (SASRec)" in first
    assert "search, with 40 test events" in first
    assert "above RU-02 ranks by backbone (+0.0200" in studies
    assert "not to be told from RU-02 no gate." in studies
    without = standing_text(full, full, ["search", "feed"], "ndcg@10")
    assert "Studies" not in without


def test_calibration_is_drawn_by_cell_and_scenario_in_the_order_of_the_bins():
    rows = [
        {"experiment": "RU-06", "cell": cell, "variant": "ruie", "metric": metric, "group": f"{label}, bin {k}",
         "value": k / 20 + shift, "n": 10 + k}
        for cell in ("linear", "gamma_0_9") for label in ("search", "feed") for k in range(1, 13)
        for metric, shift in (("mean_p", 0.0), ("rate_of_scenario", 0.1))
    ]  # fmt: skip
    figure = _calibration_figure(pl.DataFrame(rows))
    curves = [trace for trace in figure.data if trace.name == "RUIE"]
    assert len(curves) == 4
    assert list(curves[3].x) == [k / 20 for k in range(1, 13)]
    assert list(curves[0].y) == [k / 20 + 0.1 for k in range(1, 13)]
    axes = [axis.title.text for axis in figure.select_xaxes()]
    assert axes[0] == "predicted P(linear, search)" and axes[3] == "predicted P(gamma 0 9, feed)"
    none = _calibration_figure(pl.DataFrame(rows).clear())
    assert not none.data
