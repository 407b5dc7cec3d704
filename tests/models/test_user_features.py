import numpy as np
import polars as pl
import pytest

from reelrank.models.user_features import MAX_VOCABULARY, UserFeatures


def users(**columns):
    n = len(next(iter(columns.values())))
    return pl.DataFrame({"user_id": np.arange(n, dtype=np.int32), **columns}, strict=False)


def test_vocabulary_is_of_train_users_and_zero_is_unseen_or_null():
    table = users(degree=["high", "low", "high", None, "new"])
    features = UserFeatures.from_frame(table, [0, 1, 2, 3])
    assert features.codes[:, 0].tolist() == [1, 2, 1, 0, 0]
    assert features.cardinalities == (3,)
    assert features.fields == ("degree",)


def test_many_numeric_values_become_train_deciles():
    values = [*range(100), 10**9, None, -5]
    features = UserFeatures.from_frame(users(follows=values), range(100))
    codes = features.codes[:, 0]
    assert np.bincount(codes[:100].numpy()).tolist() == [0] + [10] * 10
    assert codes[100:].tolist() == [10, 0, 1]
    assert features.cardinalities == (11,)


def test_few_numeric_values_and_named_codes_are_a_vocabulary():
    many = list(range(100))
    table = users(flag=[0, 1] * 50, code=many, number=many)
    features = UserFeatures.from_frame(table, range(100), categorical=["code"])
    assert features.cardinalities == (3, 101, 11)


def test_an_unbounded_text_column_cannot_grow_the_table():
    n = MAX_VOCABULARY + 50
    features = UserFeatures.from_frame(users(name=[f"u{i}" for i in range(n)]), range(n))
    assert features.cardinalities == (MAX_VOCABULARY + 1,)
    assert (features.codes == 0).sum() == 50


def test_nan_is_null_and_no_attribute_is_allowed():
    table = users(x=[float("nan"), 1.0, 2.0])
    assert UserFeatures.from_frame(table, range(3)).codes[:, 0].tolist() == [0, 1, 2]
    empty = UserFeatures.from_frame(table.select("user_id"), range(3))
    assert empty.codes.shape == (3, 0)


def test_bad_tables_are_refused():
    table = users(x=[1, 2, 3])
    with pytest.raises(ValueError, match="0 … n−1 in order"):
        UserFeatures.from_frame(table.reverse(), [0])
    with pytest.raises(ValueError, match=r"lacks: \['y'\]"):
        UserFeatures.from_frame(table, [0], categorical=["y"])
