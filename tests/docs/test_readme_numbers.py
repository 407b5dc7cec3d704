"""README's generated parts: what the script writes from given rows, and that the page holds what was written."""

from pathlib import Path

import polars as pl
import pytest
from support.docs_scripts import docs_script

from reelrank.evaluation.results import ResultRow, results_frame

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker():
    return docs_script("make_numbers")


def rows(system, run_id, *, kind="sample", source="kuairand", reliable=True):
    found = results_frame(
        [ResultRow(system, "f1", 0.25, 9, 0.2, 0.3, weighting="macro", reliable=reliable), ResultRow("popularity", "f1", 0.5, 9, 0.4, 0.6, weighting="macro")],
        system=system, source=source, split="time/test", seed=0, data_kind="real" if kind == "real" else "world", config_hash="c", code_version="v1",
    )  # fmt: skip
    return found.with_columns(run_id=pl.lit(run_id), namespace=pl.lit(system), kind=pl.lit(kind))


def stored():
    return [
        rows("ruie", "2026-02-01", source="kuaisar", kind="test"),
        rows("mt_dqn", "2026-01-01"),
        rows("mt_dqn", "2026-03-01", reliable=False),
        rows("mt_dqn", "2026-02-01", kind="real"),
        rows("claims_ruie", "2026-02-01"),
    ]


STATUS = """\
| system | data | status |
| --- | --- | --- |
| mt_dqn | KuaiRand, real rows | 2 numbers, 0 of them not reliable; run 2026-02-01, code v1; `kedro run --pipelines mt_dqn --env real --params raw_root=…` |
| mt_dqn | KuaiRand, sample world | 2 numbers, 1 of them not reliable; run 2026-03-01, code v1; `kedro run --pipelines mt_dqn` |
| ruie | KuaiSAR, sample world, test sizes | 2 numbers, 0 of them not reliable; run 2026-02-01, code v1; `kedro run --pipelines ruie --env test` |"""


def test_the_table_names_the_newest_run_of_each_system_data_set_and_kind(maker):
    assert maker.status(pl.concat(stored())) == STATUS
    assert maker.status(pl.concat(reversed(stored()))) == STATUS


def test_the_page_gets_both_tables_and_nothing_else_changes(maker):
    page = "a\n<!-- status: s -->\nold\n<!-- /status -->\nb\n<!-- numbers: n -->\nold\n<!-- /numbers -->\nc\n"
    written = maker.page(page, pl.concat(stored()))
    head, tail = written.split(STATUS)
    assert head == "a\n<!-- status: s -->\n" and "old" not in tail
    assert "| F1, macro | 0.250 [0.200, 0.300] | – | – | 0.500 [0.400, 0.600] | – | 9 |" in tail
    assert "Run 2026-03-01, code v1." in tail and tail.endswith("<!-- /numbers -->\nc\n")
    assert maker.page(written, pl.concat(stored())) == written


def test_without_a_sample_run_the_numbers_stay(maker):
    page = "<!-- status: s -->\n<!-- /status -->\n<!-- numbers: n -->\nold\n<!-- /numbers -->"
    assert "\nold\n" in maker.page(page, stored()[0])


def test_a_page_without_markers_is_refused(maker):
    with pytest.raises(ValueError, match="0 pairs of markers <!-- status"):
        maker.page("no markers", pl.concat(stored()))


def test_rows_are_found_under_their_kinds(maker, tmp_path):
    for kind in ("real", "sample"):
        file = tmp_path / kind / "mt_dqn/2026-01-01.parquet"
        file.parent.mkdir(parents=True)
        rows("mt_dqn", "2026-01-01", kind=kind).drop("namespace", "kind").write_parquet(file)
    found = maker.stored([tmp_path])
    assert sorted(found["kind"].unique()) == ["real", "sample"] and found.height == 4
    with pytest.raises(SystemExit, match="no result rows under"):
        maker.stored([tmp_path / "nothing"])


def test_the_readme_has_what_the_script_writes(maker):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = text.split("<!-- status: docs/make_numbers.py -->\n")[1].split("\n<!-- /status -->")[0]  # fmt: skip
    head, rule, *lines = written.splitlines()
    assert [head, rule] == STATUS.splitlines()[:2] and lines
    known = {f"{of}" for of, _ in maker.KINDS.values()}
    for line in lines:
        system, data, told = line.strip("| ").split(" | ")
        source, kind = data.split(", ", 1)
        assert source in maker.SOURCES.values() and kind in known
        asked = next(asked for of, asked in maker.KINDS.values() if of == kind)
        assert told.endswith(f"`{f'kedro run --pipelines {system} {asked}'.strip()}`")
