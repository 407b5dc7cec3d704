"""The canonical tables and the page generated from them."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from reelrank.tables import ALL_TABLES, Splits

ROOT = Path(__file__).parents[1]


def test_data_dictionary_is_current():
    spec = importlib.util.spec_from_file_location("d", ROOT / "docs" / "make_data_dictionary.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render(), "run `make docs`"


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda t: t.__name__)
def test_every_column_is_described(table):
    assert all(column.description for column in table.to_schema().columns.values())


def test_conform_orders_and_casts_and_validate_refuses_what_does_not_fit():
    frame = pl.DataFrame({"split": ["val"], "row_id": [7], "user_id": [1]})
    good = Splits.conform(frame)
    assert good.columns == ["user_id", "row_id", "split"]
    assert Splits.validate(good).equals(good)
    with pytest.raises(Exception, match="user_id"):
        Splits.validate(good.with_columns(user_id=pl.lit(-1, pl.Int32)))
    with pytest.raises(pl.exceptions.InvalidOperationError):
        Splits.conform(frame.with_columns(split=pl.lit("holdout")))
