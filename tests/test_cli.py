"""``kedro reelrank``: experiments with verdicts, rows of a run, two runs side by side."""

import json

import click
import polars as pl
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from reelrank.cli import cli
from reelrank.evaluation.results import ResultRow, results_frame

COMMON = {"system": "ruie", "source": "kuaisar", "split": "s/test", "seed": 0, "data_kind": "world", "config_hash": "c1"}  # fmt: skip
OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"
OTHER = "2026-01-03T00.00.00.000Z"


def write(root, namespace, run_id, rows, experiment="RU-01", cell="main", **common):
    folder = root / "08_reporting/results/test" / namespace
    folder.mkdir(parents=True, exist_ok=True)
    frame = results_frame(rows, **(COMMON | common), run_id=run_id, experiment=experiment, cell=cell)  # fmt: skip
    frame.write_parquet(folder / f"{run_id}.parquet")


def values(own, low, high, gain):
    return [
        ResultRow("ruie", "ndcg@10", own, 50, own - 0.01, own + 0.01, weighting="macro"),
        ResultRow(
            "ruie", "ndcg@10", gain, 50, low, high, weighting="macro", paired_with="nextitnet"
        ),
    ]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write(root, "ruie", OLD, values(0.30, -0.02, 0.04, 0.01), code_version="1+a")
    write(root, "ruie", NEW, values(0.35, 0.02, 0.08, 0.05), code_version="1+b", config_hash="c2")
    # another feed marks its rows with the same experiment: no answer to RU-01
    write(root, "ruie_kuairand", OTHER, values(0.1, -0.2, -0.1, -0.15), source="kuairand", code_version="1+b")  # fmt: skip
    lost = [ResultRow("ruie", "ndcg@10", -0.05, 50, -0.08, -0.02, weighting="macro", paired_with="ruie")]  # fmt: skip
    write(root, "experiments", OTHER.replace("03T", "04T"), lost, "RU-09", "history_length", code_version="1+b")  # fmt: skip
    return root


@pytest.fixture(scope="module")
def call(project, data_root):
    metadata = bootstrap_project(project)

    def run(*words, root=data_root):
        given = ["reelrank", *words, "--env", "test", "--data-root", str(root)]
        return CliRunner().invoke(cli, given, obj=metadata, env={"COLUMNS": "200"})

    return run


def loaded(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_experiments_have_verdicts_of_the_newest_rows(call):
    found = {row["experiment"]: row for row in loaded(call("experiments", "--json"))}
    assert len(found) == 64
    assert found["RU-01"]["verdict"] == "holds" and found["RU-01"]["run_id"] == NEW
    assert found["RU-01"]["sources"] == "kuaisar"
    assert found["RU-09"]["verdict"] == "holds"
    assert "-0.05 [-0.08, -0.02]" in found["RU-09"]["sentence"]
    assert found["GV-01"]["verdict"] == "not run"
    assert found["RU-01"]["question"].endswith("?")


def test_a_family_is_listed_alone_and_an_unknown_one_names_those_near_it(call):
    found = loaded(call("experiments", "--family", "op", "--json"))
    assert [row["experiment"] for row in found] == [f"OP-{k:02d}" for k in range(1, 12)]
    wrong = call("experiments", "--family", "RU-99")
    assert wrong.exit_code == 2 and "near it: RU-" in wrong.output
    shown = call("experiments", "--family", "RU-01")
    assert "holds" in shown.output and "synthetic" in shown.output


def test_show_takes_a_system_or_a_run(call):
    assert {row["run_id"] for row in loaded(call("show", "ruie", "--json"))} == {NEW}
    rows = loaded(call("show", OLD, "--json"))
    assert [row["value"] for row in rows] == [0.30, 0.01]
    assert "0.35" in call("show", "ruie").output
    assert len(loaded(call("show", "ruie", "--metric", "ndcg@10", "--json"))) == 2


def test_what_is_not_there_names_what_is_near(call, tmp_path):
    wrong = call("show", OLD.replace("01-01", "01-09"))
    assert wrong.exit_code == 2 and OLD in wrong.output
    assert "near it: ruie" in call("show", "ruje").output
    assert "ruie has no row of metric ndcg@11; near it: ndcg@10" in call("show", "ruie", "--metric", "ndcg@11").output  # fmt: skip
    assert "holds no result rows yet" in call("show", "ruie", root=tmp_path).output


def test_compare_gives_differences_and_says_what_is_not_alike(call):
    found = loaded(call("compare", OLD, NEW, "--json"))
    rows = {row["paired_with"]: row for row in found["rows"]}
    assert rows[None]["difference"] == pytest.approx(0.05)
    assert rows["nextitnet"]["value_a"] == 0.01 and rows["nextitnet"]["value_b"] == 0.05
    assert rows[None]["same_code"] is False and rows[None]["same_config"] is False
    assert found["notes"] == [
        "code_version differs: 1+a, 1+b",
        "config_hash differs in 2 of 2 rows",
    ]
    assert loaded(call("compare", NEW, NEW, "--json"))["notes"] == []


def test_compare_keeps_rows_that_only_one_run_has(call):
    found = loaded(call("compare", NEW, OTHER, "--json"))
    assert len(found["rows"]) == 4 and all(row["difference"] is None for row in found["rows"])
    assert f"2 rows are of {NEW} alone" in found["notes"]
    shown = call("compare", OLD, NEW)
    assert "code_version differs" in shown.stderr and "0.05" in shown.output


def completions(metadata, *words, part):
    complete = ShellComplete(cli, {"obj": metadata}, "kedro", "_KEDRO_COMPLETE")
    return {item.value for item in complete.get_completions(["reelrank", *words], part)}


def test_the_shell_completes_families_systems_runs_and_environments(project, data_root):
    metadata = bootstrap_project(project)
    where = ("--env", "test", "--data-root", str(data_root))
    assert completions(metadata, part="") == {"experiments", "show", "compare"}
    assert completions(metadata, "experiments", "--family", part="R") == {"RU"}
    assert completions(metadata, "show", *where, part="ru") == {"ruie", "ruie_kuairand"}
    assert completions(metadata, "compare", *where, part=OLD[:9]) == {OLD, NEW, OTHER, OTHER.replace("03T", "04T")}  # fmt: skip
    assert completions(metadata, "show", "--env", part="t") == {"test"}


def test_kedro_finds_the_commands(project):
    from kedro.framework.cli.cli import KedroCLI

    groups = KedroCLI(project).project_groups
    assert any("reelrank" in group.list_commands(click.Context(group)) for group in groups)


def test_rows_of_the_fixture_are_result_rows(data_root):
    from reelrank.tables import Results

    for file in data_root.rglob("*.parquet"):
        Results.validate(pl.read_parquet(file))
