"""L2, L8: scalers, fills and vocabularies of the value features are those of train rows."""

import numpy as np
import polars as pl
import pytest
from support.feature_logs import DAY, START, items_of, log_of
from support.leaks import honest, leaky

from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import NodeFeatures, edge_features

N_USERS, N_VIDEOS, N_TRAIN, N_LATER = 8, 12, 90, 60
TRAIN_USERS, TRAIN_ITEMS = 5, 8  # those with a smaller id have train rows, the others later ones
LATER_MS = START + 4 * DAY


def case(seed):
    """Train rows, and what belongs to their users and items, are always the same; all else depends on the seed."""
    fixed, free = np.random.default_rng(0), np.random.default_rng(seed + 1)

    def column(n_train, n, low, high):
        drawn = [fixed.integers(low, high, n_train), free.integers(low, high, n - n_train) + high]
        return np.concatenate(drawn).tolist()

    ids = (column(TRAIN_ITEMS, N_VIDEOS, 1, 50) for _ in range(5))
    names = ("author_id", "music_id", "category_1", "category_2", "duration_ms")
    items = items_of(
        N_VIDEOS,
        **dict(zip(names, ids, strict=True)),
        upload_ts=[START - d * DAY for d in column(TRAIN_ITEMS, N_VIDEOS, 1, 50)],
        video_type=["NORMAL"] * TRAIN_ITEMS + [f"T{seed}"] * (N_VIDEOS - TRAIN_ITEMS),
    )
    users = pl.DataFrame(
        {
            "user_id": pl.Series(range(N_USERS), dtype=pl.Int32),
            "fans_user_num": column(TRAIN_USERS, N_USERS, 0, 300),
            "onehot_feat3": column(TRAIN_USERS, N_USERS, 0, 1075),
            "user_active_degree": ["full_active"] * TRAIN_USERS + [f"d{seed}"] * (N_USERS - TRAIN_USERS),
        }
    )  # fmt: skip
    log = log_of(
        user_id=np.append(fixed.integers(TRAIN_USERS, size=N_TRAIN), free.integers(N_USERS, size=N_LATER)),
        item_id=np.append(fixed.integers(TRAIN_ITEMS, size=N_TRAIN), free.integers(N_VIDEOS, size=N_LATER)),
        ts_ms=np.append(
            START + fixed.integers(4 * 144, size=N_TRAIN) * 600_000, LATER_MS + free.integers(2 * 144, size=N_LATER) * 600_000
        ),
        watch_ratio=np.append(fixed.gamma(1, 0.8, N_TRAIN), free.gamma(3, 2, N_LATER)),
    )  # fmt: skip
    past = histories(log, ItemCodes.of(items), HistoryOptions())
    is_train = (log["ts_ms"] < LATER_MS).to_numpy()
    return NodeFeatures.of(users, items), edge_features(log, past, items), is_train


def train_rows(nodes, edges, is_train):
    return nodes, edges.filter(is_train)


def all_rows(nodes, edges, is_train):
    return nodes, edges


def every_item_besides(nodes, edges, is_train):
    """Train rows, and one of each item that has none: a vocabulary of the whole catalogue."""
    unseen = edges.filter(~is_train).unique("item_id", maintain_order=True)
    return nodes, pl.concat([edges.filter(is_train), unseen])


def check(subject, encoding):
    def fitted(seed):
        nodes, edges = subject(*case(seed))
        options = ValueFeatureOptions(encoding=encoding)
        return ValueEncoder.fit(nodes, [edges], options).model_dump(mode="json")

    expected = fitted(0)
    assert expected["rows"] > 0
    for seed in (1, 2):
        assert fitted(seed) == expected, "what was fitted depends on val or test rows"


@pytest.mark.parametrize("encoding", ["typed", "poster_literal"])
@pytest.mark.parametrize(
    "variant",
    [
        *honest(train_rows),
        *leaky("depends on val or test rows", all_rows, every_item_besides),
    ],
)
def test_later_rows_do_not_change_the_encoder(variant, encoding, judge):
    judge(check, variant, encoding)
