"""Code in the pages of docs runs as it stands, and does what the page says."""

import re
from pathlib import Path

import polars as pl
import pytest
import torch

from reelrank.models import registry
from reelrank.models.feed_data import batch

ROOT = Path(__file__).parents[2]


def blocks(page, language):
    """(words after the language, text) of every such block."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}([^\n]*)\n(.*?)```", text, re.DOTALL)


def run_python(page, **names):
    """Run a page's Python; answers its names."""
    code = "\n".join(text for _, text in blocks(page, "python"))
    exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def feed_catalog(run, catalog_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="mmrf", to_nodes=["mmrf.make_feed"])
    return catalog_of(folder)


def test_a_model_of_ones_own_is_short_learns_and_is_tested(feed_catalog, capsys):
    (_, model), *_ = blocks("add_a_model.md", "python")
    assert len([line for line in model.splitlines() if line.strip()]) < 60
    made = run_python("add_a_model.md", catalog=feed_catalog)
    taste, fitted = made["taste"], made["fitted"].history
    assert fitted["val_minus_mse"].max() > fitted["val_minus_mse"][0]
    # a checkpoint's JSON becomes the same policy again
    spec = made["FeedSpec"].of(made["inputs"])
    again = registry.build("taste", made["options"], spec, torch.nn.Module)
    again.load_state_dict(made["fitted"].best)
    states = batch(made["inputs"], made["val"], made["options"].history)
    assert torch.equal(again.eval().scores(states), taste.eval().scores(states))
    assert torch.equal(taste.scores(states) == -torch.inf, ~states.mask)
    gains = made["found"]
    # the logging policy knows the planted interests
    assert gains["watch_time", "logging"].ci_low > 0
    assert gains["watch_time", "taste"].ci_low > 0
    assert re.search(r"taste: watch time \+\d", capsys.readouterr().out)


def test_a_log_with_a_mapping_and_one_of_another_format(tmp_path):
    for language in ("csv", "yaml", "json"):
        for words, text in blocks("add_a_source.md", language):
            (tmp_path / words.strip().removeprefix("file=")).write_text(text, encoding="utf-8")
    made = run_python("add_a_source.md", folder=tmp_path)
    assert made["rows"].height == 3
    assert made["rows"].sort("ts_ms")["play_ms"].to_list() == [12_500, None, 3_000]
    assert made["tables"].quarantine["line"].to_list() == [5]
    assert "2024-05-01" in made["tables"].quarantine["reason"][0]
    expected = pl.DataFrame({"like": [1, 0], "duration_ms": [30_000, 12_000]})
    assert made["likes"].sort("like", descending=True).cast(pl.Int64).equals(expected)
