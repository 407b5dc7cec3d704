import json

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose
from sklearn.preprocessing import StandardScaler
from support.feature_logs import N_ITEMS, START, items_of, log_of, random_log

from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import (
    FEATURE_BY_NAME,
    FEATURE_GROUPS,
    FEATURE_NAMES,
    NodeFeatures,
    edge_features,
    value_features,
)

TYPED = ValueFeatureOptions()
LITERAL = ValueFeatureOptions(encoding="poster_literal")
BLOCKS = ("user", "item", "edge")


def users_of(n, **columns):
    return pl.DataFrame({"user_id": range(n)} | columns, schema_overrides={"user_id": pl.Int32})


def edges_of(log, items):
    return edge_features(log, histories(log, ItemCodes.of(items), HistoryOptions()), items)


def random_case(seed):
    """Nodes and edges with holes in every kind of column."""
    rng = np.random.default_rng(seed)
    items = items_of(
        N_ITEMS,
        author_id=[None, *(rng.integers(10**9, 10**10, N_ITEMS - 1).tolist())],
        category_1=[i % 3 for i in range(N_ITEMS)],
        category_2=[i % 5 for i in range(N_ITEMS)],
        duration_ms=[None if i == 4 else int(rng.integers(1000, 60_000)) for i in range(N_ITEMS)],
        video_type=["NORMAL", "AD", "UNKNOWN"] * (N_ITEMS // 3),
        upload_ts=[None if i % 5 == 0 else START - 10**8 * i for i in range(N_ITEMS)],
    )
    users = users_of(
        6,
        user_active_degree=["high_active", "full_active", None] * 2,
        follow_user_num=rng.integers(0, 500, 6),
        is_video_author=pl.Series([0, 1, None, 0, 1, 0], dtype=pl.Int8),
        onehot_feat3=rng.integers(0, 1075, 6),
    )
    log = random_log(seed, n_rows=200)
    return NodeFeatures.of(users, items), edges_of(log, items)


def encoded(encoder, inputs):
    """Every continuous column of every edge by name."""
    ids = {"user": inputs.user_id, "item": inputs.item_id, "edge": slice(None)}
    return {
        name: values
        for block in BLOCKS
        for name, values in zip(
            encoder.names(block)[0], getattr(inputs, block).continuous[ids[block]].T, strict=True
        )
    }


def codes(encoder, inputs, block, name):
    return getattr(inputs, block).categorical[:, encoder.names(block)[1].index(name)].tolist()


def test_hand_computed_typed_encoding():
    # user 0 has three train rows, user 1 has one, user 2 none
    log = log_of(user_id=[0, 0, 0, 1], item_id=[0, 0, 1, 1], ts_ms=[START + i for i in range(4)])
    items = items_of(3, author_id=[50, 7, 9], duration_ms=[1000, None, 5000])
    users = users_of(
        3,
        follow_user_num=[1, 5, 100],
        user_active_degree=["low", None, "high"],
        is_video_author=[1, None, 1],
    )
    nodes, edges = NodeFeatures.of(users, items), edges_of(log, items)
    encoder = ValueEncoder.fit(nodes, [edges], TYPED)
    inputs = encoder.encode(nodes, edges)
    user = dict(zip(encoder.names("user")[0], inputs.user.continuous.T.tolist(), strict=True))
    # mean (3·1 + 5) / 4 = 2, variance (3·1 + 9) / 4 = 3
    assert_allclose(user["follow_user_num"], [-1 / 3**0.5, 3**0.5, 98 / 3**0.5], rtol=1e-6)
    assert user["is_video_author"] == [1, 0, 1]
    assert user["is_video_author_missing"] == [0, 1, 0]
    assert codes(encoder, inputs, "user", "user_active_degree") == [
        1,
        0,
        0,
    ]  # "high" is not train's
    assert codes(encoder, inputs, "item", "author_id") == [2, 1, 0]
    assert inputs.item.cardinalities == (3,)
    item = dict(zip(encoder.names("item")[0], inputs.item.continuous.T.tolist(), strict=True))
    assert item["video_duration"] == [
        0,
        0,
        4000,
    ]  # one value in train has no spread; missing is the mean
    assert item["video_duration_missing"] == [0, 1, 0]
    assert (inputs.user_id.tolist(), inputs.item_id.tolist()) == ([0, 0, 0, 1], [0, 0, 1, 1])


def test_features_without_a_train_value_are_left_out_and_named():
    nodes, edges = random_case(0)
    encoder = ValueEncoder.fit(nodes, [edges], TYPED)
    known = {name for block in BLOCKS for names in encoder.names(block) for name in names}
    missing = encoder.missing()
    for name in FEATURE_NAMES:
        assert (name in known) == (missing.get(name, {"share": 0})["share"] < 1), name
    assert missing["music_id"]["share"] == 1
    assert missing["video_duration"]["share"] == pytest.approx((edges["item_id"] == 4).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_typed_numbers_are_standardised_as_scikit_learn_does(seed):
    nodes, edges = random_case(seed)
    table = value_features(edges, nodes)
    encoder = ValueEncoder.fit(nodes, [edges], TYPED)
    found = encoded(encoder, encoder.encode(nodes, edges))
    compared = 0
    for name, values in found.items():
        if name.endswith("_missing"):
            raw = table[name.removesuffix("_missing")]
            assert np.array_equal(values, raw.is_null().cast(pl.Float32).to_numpy())
        elif FEATURE_BY_NAME[name].kind == "continuous":
            raw = table[name].cast(pl.Float64).to_numpy()
            expected = np.nan_to_num(StandardScaler().fit_transform(raw[:, None])[:, 0])
            assert_allclose(values, expected, atol=2e-6, err_msg=name)
            compared += 1
        else:
            assert np.array_equal(values, table[name].fill_null(0).to_numpy())
    assert compared > 12


def test_literal_columns_are_all_numbers_with_the_authors_fills():
    nodes, edges = random_case(2)
    encoder = ValueEncoder.fit(nodes, [edges], LITERAL)
    inputs = encoder.encode(nodes, edges)
    assert [getattr(inputs, block).categorical.shape[1] for block in BLOCKS] == [0, 0, 0]
    filled = value_features(edges, nodes).with_columns(
        pl.col("author_days_since_last").fill_null(60),
        pl.col("user_active_degree").replace_strict({"full_active": 1, "high_active": 2}, default=0),
        pl.col("video_type").replace_strict({"AD": 1, "NORMAL": 2}, default=0),
    )  # fmt: skip
    found = encoded(encoder, inputs)
    left_out = {name for name, why in encoder.missing().items() if why["share"] == 1}
    assert set(found) == set(FEATURE_NAMES) - left_out
    for name, values in found.items():
        raw = filled[name].fill_null(0).cast(pl.Float64).to_numpy()
        expected = StandardScaler().fit_transform(raw[:, None])[:, 0]
        assert_allclose(values, expected, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("options", [TYPED, LITERAL], ids=["typed", "literal"])
def test_an_encoder_is_json_and_does_not_depend_on_pieces(options):
    nodes, edges = random_case(3)
    encoder = ValueEncoder.fit(nodes, [edges], options)
    stored = json.loads(json.dumps(encoder.model_dump(mode="json")))
    again = ValueEncoder.model_validate(stored)
    assert again == encoder
    pieces = ValueEncoder.fit(nodes, (edges[i : i + 17] for i in range(0, 200, 17)), options)
    whole, parts = encoder.encode(nodes, edges), pieces.encode(nodes, edges)
    for block in BLOCKS:
        assert pieces.names(block) == encoder.names(block)
        a, b = getattr(whole, block), getattr(parts, block)
        assert_allclose(b.continuous, a.continuous, atol=1e-5)
        assert np.array_equal(b.categorical, a.categorical)
        assert b.cardinalities == a.cardinalities


@pytest.mark.parametrize("group", list(FEATURE_GROUPS))
def test_a_dropped_group_is_gone_and_the_rest_as_before(group):
    nodes, edges = random_case(4)
    encoder = ValueEncoder.fit(nodes, [edges], TYPED)
    without = ValueEncoder.fit(nodes, [edges], ValueFeatureOptions(drop_groups=(group,)))
    dropped = set(FEATURE_GROUPS[group])
    for block in BLOCKS:
        for kept, all_names in zip(without.names(block), encoder.names(block), strict=True):
            expected = [n for n in all_names if n.removesuffix("_missing") not in dropped]
            assert kept == expected
    assert not dropped & set(without.missing())
    assert without.encode(nodes, edges).edge.continuous.shape[0] == edges.height


def test_categories_are_codes_below_their_cardinality():
    nodes, edges = random_case(5)
    train = edges.filter(pl.col("user_id") < 3)
    inputs = ValueEncoder.fit(nodes, [train], TYPED).encode(nodes, edges)
    for block in BLOCKS:
        columns = getattr(inputs, block)
        assert columns.continuous.dtype == np.float32
        assert columns.categorical.dtype == np.int32
        assert columns.continuous.flags.c_contiguous
        assert columns.categorical.shape[1] == len(columns.cardinalities)
        assert (columns.categorical >= 0).all()
        assert (columns.categorical < np.array(columns.cardinalities)).all()


def test_no_train_rows_are_refused():
    nodes, edges = random_case(6)
    with pytest.raises(ValueError, match="train: no rows"):
        ValueEncoder.fit(nodes, [edges.clear()], TYPED)
