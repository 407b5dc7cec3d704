"""The site on a handful of rows: what is shown equals the rows, versions of the code stay apart, every link leads somewhere."""

import csv
import io
import shutil
from html.parser import HTMLParser

import polars as pl
import pytest
from support.site_rows import NEW, OLD, PUBLISHED, draw, options, rows_of, store

from reelrank.datasets import SiteDataset
from reelrank.pipelines.reporting import nodes, published
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.options import PublishedOptions


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return store(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def site(root):
    return draw(root)


class Page(HTMLParser):
    """Links, ids, tables by caption, and tags with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.links, self.tags, self.tables, self.rows = [], [], {}, None
        self.cell, self.row, self.caption = None, [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag in {"a", "script"}:
            self.links += [attrs[k] for k in ("href", "src") if k in attrs]
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.row = []
        if tag in {"td", "th", "caption"}:
            self.cell = ""
        if tag == "small" and self.cell is not None:
            self.cell += "|"

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag == "caption":
            self.caption, self.cell = self.cell.strip(), None
        if tag in {"td", "th"}:
            self.row.append(self.cell.strip())
            self.cell = None
        if tag == "tr":
            self.rows.append(self.row)
        if tag == "table":
            self.tables[self.caption] = self.rows


def test_there_is_a_page_for_every_system_experiment_and_data_set(site):
    pages = {name for name in site if name.endswith(".html")}
    assert pages == {
        "index.html", "experiments.html", "validity.html", "models.html", "tuning.html", "glossary.html", "system-ruie.html", "experiment-ru-01.html",
        "data-kuaisar.html", "data-kuairec.html",
    }  # fmt: skip


def test_every_link_leads_to_a_file_or_a_part_of_the_page(site):
    for name, text in site.items():
        if not name.endswith(".html"):
            continue
        page = Page(text)
        ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        for link in page.links:
            assert (link[1:] in ids) if link.startswith("#") else (link in site), f"{name}: {link}"


def test_pages_are_self_contained_and_carry_plotly_only_where_something_is_drawn(site):
    for name, text in site.items():
        if name.endswith(".html"):
            page = Page(text)
            assert not [v for v in page.links if "//" in v]
            assert ("plotly.min.js" in page.links) == ('class="chart"' in text), name


def test_every_table_has_a_caption_sortable_heads_and_a_file_with_the_same_numbers(site):
    text = site["system-ruie.html"]
    page = Page(text)
    heads = sum(tag == "th" for tag, _ in page.tags)
    assert heads and heads == text.count('<th scope="col"')
    assert heads == sum(attrs.get("type") == "button" for tag, attrs in page.tags if tag == "button")  # fmt: skip
    files = [link for link in page.links if link.startswith("tables/")]
    shown = list(page.tables.values())
    assert len(files) == len(shown) > 3
    for file, rows in zip(files, shown, strict=True):
        stored = list(csv.reader(io.StringIO(site[file])))
        assert len(stored) == len(rows)
        assert [c for c in stored[0] if not c.endswith(", detail")] == rows[0]
    caption = next(c for c in page.tables if c == "Results")
    stored = list(csv.reader(io.StringIO(site[files[list(page.tables).index(caption)]])))
    assert stored[1][:2] == ["NDCG@10 · macro", "0.12"]


def test_numbers_shown_are_those_of_the_newest_version_and_older_ones_are_folded(site):
    page = Page(site["system-ruie.html"])
    results = {row[0]: row[1:] for row in page.tables["Results"][1:]}
    assert results["NDCG@10 · macro"] == ["0.1200|[0.1000, 0.1400]", "0.0800|[0.0600, 0.1000]", "90"]  # fmt: skip
    old = page.tables[f"Headline of run {OLD}, code version v1"]
    assert [row[2].split("|")[0] for row in old[1:]] == ["0.42", "0.38"]
    before, after = site["system-ruie.html"].split("<details>", 1)
    assert "0.42" not in before and "0.42" in after


def test_rows_of_two_versions_are_never_shown_together(root):
    rows = nodes.collect_rows(options(root))
    shown, older = kept.shown(kept.of_systems(rows)), kept.older(kept.of_systems(rows))
    assert set(shown["code_version"]) == {"v2"} and set(older["code_version"]) == {"v1"}
    assert shown.height + older.height == kept.of_systems(rows).height


def test_another_seed_or_source_of_an_earlier_run_is_not_history():
    rows = pl.concat(
        [
            rows_of("v1", 0).with_columns(run_id=pl.lit(OLD)),
            rows_of("v1", 0, seed=1).with_columns(run_id=pl.lit(NEW)),
            rows_of("v2", 0, source="kuairand").with_columns(run_id=pl.lit(NEW)),
        ]
    ).with_columns(namespace=pl.lit("ruie"))
    assert kept.shown(rows).height == rows.height
    assert kept.older(rows).is_empty()


def test_published_numbers_are_joined_with_their_rows_and_lost_cells_are_marked(site):
    page = Page(site["system-ruie.html"])
    table = page.tables["NDCG on KuaiSAR: paper against ours"]
    found = {tuple(row[:2]): row[2:] for row in table[1:]}
    assert found["RUIE", "ndcg@10"][:4] == ["0.075", "0.12|[0.1, 0.14]", "+0.045", "+60 %"]
    assert found["RUIE", "ndcg@5"][1] == "0.05 †|no interval"
    assert found["NextItNet", "ndcg@10"][:3] == ["lost|between 0.04 and 0.07", "0.08|[0.06, 0.1]", "–"]  # fmt: skip
    assert found["SASRec", "ndcg@5"][:2] == ["lost|not in the text at hand", "not run"]


def test_a_relative_change_is_the_paired_difference_over_the_baseline():
    table = PublishedOptions.model_validate(
        PUBLISHED | {"statistic": "relative_percent", "baseline": "nextitnet", "columns": ["ndcg@10"], "rows": {"ruie": [1.0]}, "scale": 1, "lost": []}
    )  # fmt: skip
    found = published.against(rows_of("v2", 0.0), table).row(0, named=True)
    assert (found["ours"], found["ci_low"], found["ci_high"]) == pytest.approx((50, 12.5, 87.5))
    assert found["difference"] == pytest.approx(49)


def test_a_printed_number_that_two_rows_answer_is_joined_with_neither():
    twice = pl.concat([rows_of("v2", 0.0), rows_of("v2", 0.1, seed=1)])
    found = published.against(twice, PublishedOptions.model_validate(PUBLISHED)).row(1, named=True)
    assert found["answers"] == 2 and found["ours"] is None


def test_failed_claims_are_named_on_the_front_page_and_shown_ones_are_no_verdict(site):
    page = Page(site["index.html"])
    (row,) = page.tables["Claims that failed"][1:]
    assert row[2:5] == ["small | is not worse", "1", "1"]
    assert "as it is" not in site["index.html"]


def test_the_front_page_counts_what_may_not_be_believed(site):
    page = Page(site["index.html"])
    (row,) = page.tables["Systems and data sets"][1:]
    assert row == ["RUIE", "KuaiSAR", "synthetic", NEW, "v2", "0", "2", "4", "1", "1"]


def test_an_experiment_has_its_verdict_by_version_and_one_without_rows_is_listed(site):
    page = Page(site["experiment-ru-01.html"])
    (row,) = page.tables["RU-01: numbers that the rule reads"][1:]
    assert row[:2] == ["RUIE", "NextItNet"] and row[3] == "+0.04|[+0.01, +0.07]"
    assert "RU-01, code version v1" in page.tables
    waiting = Page(site["experiments.html"]).tables["Experiments without rows"]
    assert waiting[1:] == [["RU-02", "What do parts carry?", "not wired yet"]]
    assert "experiment-ru-02.html" not in site


def test_world_and_real_rows_of_a_data_set_stand_side_by_side(site):
    page = Page(site["data-kuaisar.html"])
    shares = {tuple(row[:2]): row[2].split("|")[0] for row in page.tables["How often each feedback is given"][1:]}  # fmt: skip
    assert shares == {("sample", "like"): "0.5", ("real", "like"): "0.25"}
    sizes = {tuple(row[:2]): row[2] for row in page.tables["Tables on disk (sample)"][1:]}
    assert sizes["canonical", "interactions"] == "4" and sizes["canonical", "users"] == "missing"


def test_a_data_set_that_is_not_there_is_said_to_be_missing(site):
    assert "its ingestion has not run" in site["data-kuairec.html"]


def test_without_rows_the_front_page_says_one_sentence_and_nothing_breaks(tmp_path):
    site = draw(tmp_path)
    assert "No result rows were found under" in site["index.html"]
    assert "kedro run --pipelines ruie" in site["index.html"]
    assert len(Page(site["experiments.html"]).tables["Experiments without rows"]) == 3


def test_a_study_is_judged_by_seeds_that_chose_nothing(tmp_path):
    for system, best, gains in (("a", 0.5, [0.1, 0.2]), ("b", 0.5, [0.1, -0.3]), ("c", 0.4, [])):
        folder = tmp_path / "08_reporting/tuning/sample" / system
        folder.mkdir(parents=True)
        pl.DataFrame(
            {
                "study": f"{system}-1", "trial": [0, 1, 2], "state": ["complete", "complete", "given up"],
                "origin": ["defaults", None, None], "value": [0.4, best, 0.9], "seconds": [60.0, 60.0, None],
            }
        ).write_parquet(folder / "trials.parquet")  # fmt: skip
        confirmed = {"seed": list(range(len(gains))), "defaults": [0.4] * len(gains), "best": [0.4 + g for g in gains]}  # fmt: skip
        schema = {"seed": pl.Int64, "defaults": pl.Float64, "best": pl.Float64}
        pl.DataFrame(confirmed, schema).write_parquet(folder / "confirmed.parquet")
    table = Page(draw(tmp_path)["tuning.html"]).tables["Studies"][1:]
    said = {row[0]: row[-2] for row in table}
    assert said == {
        "a": "The gain holds.",
        "b": "The gain does not hold.",
        "c": "No trial was better than the defaults.",
    }
    assert [row[6] for row in table] == ["0.5", "0.5", "0.4"], "trials given up do not count"  # fmt: skip


def test_synthetic_rows_are_marked_and_abbreviations_are_explained(site):
    assert "synthetic data" in site["system-ruie.html"]
    terms = [row[0] for row in Page(site["system-ruie.html"]).tables["Terms used here"][1:]]
    assert {"NDCG", "macro", "paired"} <= set(terms)


def test_models_get_a_card_with_use_licence_and_limits(site):
    card = dict(row[:2] for row in Page(site["models.html"]).tables["Card of RUIE (RUIE)"][1:])
    assert {"intended use", "licence of the data", "limits", "run and code version"} <= set(card)
    assert "CC BY-NC-SA" in card["licence of the data"]


def test_an_unknown_system_is_shown_without_a_headline(root):
    site = draw(root, systems={"mmrf": {"title": "MMRF", "about": "Agents."}})
    assert "Numbers" in Page(site["system-ruie.html"]).tables


def test_a_long_table_is_cut_in_the_page_and_whole_in_the_file(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "data")
    path = copy / f"08_reporting/results/sample/ruie/{NEW}.parquet"
    rows = pl.read_parquet(path)
    many = [rows.with_columns(metric=pl.lit(f"m{k}"), cell=pl.lit("many")) for k in range(5)]
    pl.concat([rows, *many]).write_parquet(path)
    site = draw(copy, most_rows=10, systems={})
    assert len(Page(site["system-ruie.html"]).tables["Numbers"]) == 11
    assert "The first 10 of 24 numbers" in site["system-ruie.html"]
    assert pl.read_csv(io.StringIO(site["rows/ruie.csv"])).height == 24


def test_a_misspelt_column_is_named(root):
    wrong = {"ruie": {"title": "RUIE", "about": "x", "headline": {"metrik": "ndcg@10"}}}
    with pytest.raises(ValueError, match="metrik"):
        draw(root, systems=wrong)


def test_a_site_is_replaced_whole_and_a_failed_save_leaves_the_former_one(tmp_path):
    dataset = SiteDataset(filepath=str(tmp_path / "site/sample"))
    dataset.save({"index.html": "old", "tables/a.csv": "1"})
    with pytest.raises(Exception, match="must be str"):
        dataset.save({"index.html": "new", "b.html": None})
    assert dataset.load() == {"index.html": "old", "tables/a.csv": "1"}
    dataset.save({"index.html": "new"})
    assert dataset.load() == {"index.html": "new"}
    assert [p.name for p in (tmp_path / "site").iterdir()] == ["sample"]
