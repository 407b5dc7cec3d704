import polars as pl
import pytest

from reelrank.reports.result_tables import UNRELIABLE, differences_table, results_table


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_metric_by_variant(results):
    table = results_table(results)
    assert list(table.columns) == ["metric", "MT-DQN", "Popularity", "n"]
    assert texts(table) == [
        ["NDCG@5", "0.5000", "0.4000", "900"],
        ["value MSE (lower is better)", "0.5000", "0.4000", "900"],
        ["F1 · share", "0.0100 †", "–", "900"],
    ]
    assert table.rows[0][1].detail == "[0.4500, 0.5500]"
    assert table.rows[2][1].muted and UNRELIABLE in table.note


def test_differences_are_corrected_inside_the_table(results):
    table = differences_table(results)
    assert [row[2:4] for row in texts(table)] == [["+0.1000", "0.040"], ["−0.1000", "0.300"]]
    assert table.rows[0][1].text == "MT-DQN − Popularity"
    assert UNRELIABLE not in table.note


def test_no_rows_make_an_empty_table(results):
    assert results_table(results.clear()).rows == differences_table(results.clear()).rows == []


@pytest.mark.parametrize("column", ["code_version", "source", "split", "track"])
def test_rows_that_differ_may_not_share_a_table(results, column):
    other = results.with_columns(pl.lit("other").alias(column))
    with pytest.raises(ValueError, match=f"different {column}"):
        results_table(pl.concat([results, other]))


def test_two_rows_for_one_cell(results):
    with pytest.raises(ValueError, match="two rows for one cell"):
        results_table(pl.concat([results, results]))
