import polars as pl
import pytest

from reelrank.features.moments import Moments


def test_rows_are_standardised_with_the_moments_of_train():
    train = pl.DataFrame({"a": [1.0, 3.0, None], "b": [4, 4, 4], "c": ["x", "y", "z"]})
    moments = Moments.fit(train, ["a", "b"])
    assert (moments.mean, moments.deviation) == ({"a": 2.0, "b": 4.0}, {"a": 1.0, "b": 1.0})
    found = moments.apply(pl.DataFrame({"a": [None, 5.0], "b": [4, 6], "c": ["u", "v"]}))
    assert found.rows() == [(None, 0.0, "u"), (3.0, 2.0, "v")]
    assert found.schema["a"] == pl.Float32


def test_a_column_that_train_does_not_know_is_refused():
    with pytest.raises(ValueError, match="b: no value in train"):
        Moments.fit(pl.DataFrame({"a": [1.0], "b": [None]}), ["a", "b"])
