"""Verdicts by hand: the number, its interval, the region, and what follows."""

import math

import polars as pl
import pytest
from pydantic import ValidationError

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.evaluation.verdicts import VERDICTS, Claim, Question, Reading, judge, newest, verdicts

COMMON = {
    "system": "ruie", "source": "kuaisar", "split": "s/test", "seed": 0, "data_kind": "world", "config_hash": "c",
}  # fmt: skip


def frame(*rows, experiment="RU-02", run_id="r1", code_version="1+a", **common):
    made = [row if isinstance(row, tuple) else ("main", row) for row in rows]
    return pl.concat(
        results_frame(
            [row], **(COMMON | common), experiment=experiment, cell=cell, run_id=run_id,
            code_version=code_version,
        )
        for cell, row in made
    )  # fmt: skip


def row(value, low=None, high=None, *, paired="ruie", **kwargs):
    return ResultRow("ruie", "ndcg@10", value, 100, low, high, paired_with=paired, **kwargs)


def question(*claims):
    return Question(question="q", asked_by="paper", reading=Reading(rule="by hand", claims=claims))


GAIN = Claim(says="it gains", where={"metric": "ndcg@10", "paired_with": "*"}, above=0)


@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [(0.1, 0.02, 0.2, "holds"), (-0.1, -0.2, -0.02, "fails"), (0.1, -0.01, 0.2, "undecided"),
     (0.1, 0.0, 0.2, "undecided"), (-0.1, -0.2, 0.0, "fails"), (0.1, None, None, "undecided")],
)  # fmt: skip
def test_a_gain_is_an_interval_above_nought(value, low, high, word):
    assert judge(frame(row(value, low, high)), GAIN)[0] == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.01, 0.019, "holds"), (-0.03, 0.01, "undecided"), (0.03, 0.05, "fails"), (-0.5, 0.5, "undecided")],
)  # fmt: skip
def test_no_difference_that_matters_is_an_interval_between_the_margins(low, high, word):
    claim = GAIN.model_copy(update={"above": -0.02, "below": 0.02})
    assert judge(frame(row((low + high) / 2, low, high)), claim)[0] == word


def test_a_point_counts_only_where_the_claim_says_so():
    rows = frame(row(0.1))
    assert judge(rows, GAIN)[0] == "undecided"
    assert judge(rows, GAIN.model_copy(update={"point": True}))[0] == "holds"


def test_an_unreliable_row_decides_nothing():
    assert judge(frame(row(0.1, 0.05, 0.2, reliable=False)), GAIN)[0] == "undecided"


def test_all_rows_must_hold_or_one_is_enough():
    rows = frame(("a", row(0.1, 0.05, 0.2)), ("b", row(-0.1, -0.2, -0.05)))
    assert judge(rows, GAIN)[0] == "fails"
    assert judge(rows, GAIN.model_copy(update={"every": False}))[0] == "holds"
    rows = frame(("a", row(0.1, 0.05, 0.2)), ("b", row(0.1, -0.05, 0.2)))
    assert judge(rows, GAIN)[0] == "undecided"


def test_rows_are_chosen_by_name_or_star_and_values_are_not_differences():
    rows = frame(row(0.5, 0.4, 0.6, paired=None), row(-0.1, -0.2, -0.05), row(9.0, 8.0, 10.0, group="b"))  # fmt: skip
    value = Claim(says="it is something", where={"metric": "ndcg@*", "group": "all"}, above=0.1)
    word, sentence = judge(rows, value)
    assert word == "holds" and "0.5 [0.4, 0.6] (n = 100)" in sentence
    difference = Claim(says="it falls", where={"paired_with": "ruie", "group": "all"}, below=0)
    assert judge(rows, difference)[0] == "holds"
    nobody = Claim(says="x", where={"metric": "auc"}, above=0)
    assert judge(rows, nobody) == ("undecided", "x: undecided, no row of these answers it")


def test_an_unpaired_difference_has_the_interval_of_two_independent_numbers():
    rows = frame(("new", row(0.9, 0.6, 1.3, paired=None)), ("old", row(0.4, 0.0, 0.7, paired=None)))
    claim = Claim(says="new beats old", where={"cell": "new"}, minus={"cell": "old"}, above=0)
    word, sentence = judge(rows, claim)
    # 0.5 − √(0.3² + 0.3²), 0.5 + √(0.4² + 0.4²)
    low, high = 0.5 - math.sqrt(0.18), 0.5 + math.sqrt(0.32)
    assert word == "holds"
    assert f"0.5 [{low:.4g}, {high:.4g}]" in sentence


def test_several_numbers_are_named_by_what_tells_them_apart():
    rows = frame(row(0.1, 0.05, 0.2, group="a"), row(0.3, 0.25, 0.4, group="b"))
    assert judge(rows, GAIN)[1] == (
        "it gains: holds, a: 0.1 [0.05, 0.2] (n = 100) · b: 0.3 [0.25, 0.4] (n = 100)"
    )
    both = frame(*(("x", row(v, group=g)) for g, v in zip("ab", (0.1, 0.3), strict=True)), ("y", row(0.2, group="a")), ("y", row(0.2, group="b")))  # fmt: skip
    minus = GAIN.model_copy(update={"where": {**GAIN.where, "cell": "x"}, "minus": {"cell": "y"}})
    assert judge(both, minus)[1].endswith("a: -0.1 (n = 100) · b: 0.1 (n = 100)")


def test_versions_of_the_code_are_read_apart_and_the_newest_run_of_a_cell_counts():
    rows = pl.concat(
        [
            frame(row(-0.1, -0.2, -0.05), run_id="2026-01-01", code_version="1+a"),
            frame(row(0.1, 0.05, 0.2), run_id="2026-01-02", code_version="1+a"),
            frame(row(0.0, -0.05, 0.2), run_id="2026-01-03", code_version="1+b"),
        ]
    )
    assert newest(rows)["run_id"].to_list() == ["2026-01-02", "2026-01-03"]
    found = verdicts(rows, {"RU-02": question(GAIN), "RU-03": question(GAIN)})
    assert found.schema == VERDICTS
    assert found.select("experiment", "code_version", "verdict", "newest").rows() == [
        ("RU-02", "1+b", "undecided", True),
        ("RU-02", "1+a", "holds", False),
        ("RU-03", None, "not run", True),
    ]
    assert found["sentence"][0].endswith("(synthetic)")


def test_what_only_reports_is_reported_and_what_cannot_run_says_why():
    asked = question().model_copy(update={"status": "its cells are still to come"})
    found = verdicts(frame(row(0.1)), {"RU-02": asked, "RU-04": asked})
    assert found["verdict"].to_list() == ["reported", "not run"]
    assert "still to come" in found["sentence"][1]


@pytest.mark.parametrize(
    "wrong", [{}, {"above": 1, "below": 0}, {"above": 0, "where": {"sistem": "ruie"}}]
)
def test_a_claim_that_cannot_be_read_is_refused(wrong):
    with pytest.raises(ValidationError):
        Claim(**{"says": "x", "where": {}, **wrong})
