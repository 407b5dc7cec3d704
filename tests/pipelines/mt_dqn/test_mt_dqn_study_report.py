"""The section on experiments stands where cells were run, and shows values beside differences."""

import polars as pl

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.pipelines.mt_dqn import study_report

COMMON = {
    "system": "mt_dqn", "source": "kuairand", "split": "s/test", "seed": 0, "data_kind": "world", "config_hash": "",
}  # fmt: skip


def frame(experiment, cell, *rows):
    return results_frame(rows, **COMMON, experiment=experiment, cell=cell)


def pair(metric, value, difference, group="all", weighting="", against="mt_dqn"):
    where = {"group": group, "weighting": weighting}
    return (
        ResultRow("mt_dqn", metric, value, 9, value - 0.1, value + 0.1, **where),
        ResultRow("mt_dqn", metric, difference, 9, difference - 0.1, difference + 0.1, **where, paired_with=against),
    )  # fmt: skip


MAIN = frame("MT-01", "main", *pair("ndcg@5", 0.7, 0.2, "logged", "binary", "popularity"))


def test_without_cells_there_is_no_section():
    assert study_report.sections(MAIN, study_report.figure(MAIN)) == []


def test_a_cell_is_a_row_with_its_difference_and_a_hacked_reward_is_named():
    gate = frame(
        "MT-02", "no_gate", *pair("ndcg@5", 0.6, -0.1, "logged", "binary"), *pair("f1", 0.5, 0.05, weighting="macro"),
        ResultRow("mt_dqn", "failure_warnings", 2.0, 10),
    )  # fmt: skip
    greedy = frame(
        "MT-10", "greedy", *pair("ndcg@5", 0.4, -0.3, "logged", "binary"),
        *pair("proxy_reward@5", 1.5, 0.4, "catalogue"), *pair("true_long_view@5", 0.2, -0.2, "catalogue"),
        ResultRow("mt_dqn", "reward_hacking", 1.0, 9, group="catalogue"),
    )  # fmt: skip
    results = pl.concat([MAIN, gate, greedy])
    drawn = study_report.figure(results)
    assert list(drawn.data[0].y) == ["MT-02: no gate", "MT-10: greedy"]
    assert list(drawn.data[0].x) == [-0.1, -0.3]
    (section,) = study_report.sections(results, drawn)
    worth, brought, monitors = section.tables
    shown = dict(zip(worth.columns, worth.rows[0], strict=False))
    assert [r[1].text for r in worth.rows] == ["no gate", "greedy"]
    assert shown["NDCG@5, logged"].text == "0.600"
    at = list(worth.columns).index("NDCG@5, logged") + 1
    assert (worth.rows[0][at].text, worth.rows[0][at].detail) == ("-0.100", "[-0.200, +0.000]")
    assert worth.rows[0][-1].text == "the run's own model"
    assert [r[1].text for r in brought.rows] == ["greedy"]
    assert [c.text for c in brought.rows[0][2:6]] == ["1.500", "+0.400", "0.200", "-0.200"]
    assert monitors.rows[0][-1].text == "2.000" and monitors.rows[1][-1].text == "–"
