"""What the figures draw is what the tables hold."""

import numpy as np
import polars as pl
import pytest

from reelrank.reports import figures as draw
from reelrank.reports.theme import variant_colour


def test_every_figure_has_title_caption_axis_titles_and_hover(figures):
    for figure in figures:
        title = figure.layout.title
        assert title.text and title.subtitle.text
        assert all(axis.title.text for axis in figure.select_xaxes()), title.text
        assert any(character.isdigit() for character in title.subtitle.text) or "rows" in str(title)
        for trace in figure.data:
            assert trace.hovertemplate or trace.hoverinfo == "skip", title.text
        figure.to_json()


def test_a_variant_has_one_colour_everywhere(figures):
    curves, bars = figures[0], figures[1]
    colour = variant_colour("mt_dqn")
    assert {t.line.color for t in curves.data if t.legendgroup == "mt_dqn"} == {colour}
    assert bars.data[0].marker.color[0] == colour
    assert variant_colour("unknown_model") == variant_colour("unknown_model")


def test_curves_skip_what_a_variant_does_not_have(history):
    loss_q = [t for t in draw.learning_curves(history).data if t.yaxis == "y2"]
    assert [len(t.x) for t in loss_q] == [4, 0]


def test_bars_show_intervals_and_pale_unreliable_values(results):
    figure = draw.metric_bars(results)
    ndcg, mse, f1 = figure.data
    np.testing.assert_allclose(ndcg.error_x.array, 0.05)
    assert "lower is better" in figure.layout.xaxis2.title.text
    assert len(mse.x) == 2 and len(f1.x) == 1  # the null value is left out
    assert f1.marker.opacity[0] < 1 == ndcg.marker.opacity[0]


def test_calibration_bins_hold_every_row_that_is_not_censored(predictions):
    figure = draw.q_against_returns(predictions)
    value, q = figure.data[:2]
    assert sum(value.customdata) == sum(q.customdata) == 90
    np.testing.assert_allclose(value.x, value.y, atol=1e-12)
    np.testing.assert_allclose(q.x, np.array(q.y) + 0.5, atol=1e-12)
    assert "10 censored" in figure.layout.title.subtitle.text


def test_reward_parts_are_weighted_and_in_split_order(rewards):
    figure = draw.reward_parts(rewards, 0.3, 0.2)
    means = {trace.name: list(trace.x) for trace in figure.data if trace.xaxis == "x"}
    assert list(figure.data[0].y) == ["train", "test"]
    assert means["r_immediate"] == [0.5, 0.5]
    np.testing.assert_allclose(means["λ2 r_interest"], [0.04, 0.04])
    assert means["λ1 r_retention"][0] == pytest.approx(0.15)
    assert "censored in 1" in figure.layout.title.subtitle.text


def test_steps_show_what_was_lost():
    steps = [{"step": "read", "rows": 1500}, {"step": "without duplicates", "rows": 1400}]
    assert draw.ingestion_steps({"steps": steps}).data[0].text == ("1,500", "1,400 (−100)")


def test_attention_is_the_mean_over_heads():
    mass = np.zeros((1, 2, 3, 3))
    mass[0, 0, :, 0] = mass[0, 1, :, 2] = 1
    np.testing.assert_allclose(draw.attention_heatmap(mass).data[0].z[0], [0.5, 0, 0.5])


def test_bad_input(results, history, gates, predictions):
    with pytest.raises(ValueError, match=r"attention mass must be .* not \(3, 3\)"):
        draw.attention_heatmap(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"\['step'\] are missing"):
        draw.learning_curves(history.drop("step"))
    with pytest.raises(ValueError, match="no items"):
        draw.gate_weights(gates.clear())
    with pytest.raises(ValueError, match="every return is censored"):
        draw.q_against_returns(predictions.with_columns(pl.lit(None, pl.Float64).alias("return")))
    with pytest.raises(ValueError, match="nothing to draw"):
        draw.metric_bars(results.clear())
    with pytest.raises(ValueError, match="nothing to draw"):
        draw.ingestion_steps({"steps": []})
