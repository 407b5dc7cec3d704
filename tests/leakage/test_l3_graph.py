"""L3: what a node of the graph hears of happened strictly before, and who follows whom is known only from then on."""

import numpy as np
import polars as pl
import pytest
from support.feature_logs import distort_from, random_log
from support.leaks import honest, leaky

from reelrank.features.temporal_graph import follow_matrix, last_k_neighbours, last_neighbours

K = 5
LOG = random_log(seed=7, n_rows=400)
TIME_OF = dict(LOG.select("row_id", "ts_ms").iter_rows())


def of_users(log):
    return last_neighbours(log, "user_id", K)


def of_items(log):
    return last_neighbours(log.sort("item_id", "ts_ms", "row_id"), "item_id", K)


def with_rows_of_the_same_time(log):
    """Ties broken by ``row_id``: no two rows have one time any more, so rows of one request hear of each other."""
    return last_neighbours(
        log.with_columns(ts_ms=pl.int_range(pl.len()).over("user_id")), "user_id", K
    )


def with_the_row_itself(log):
    itself = pl.concat_list("row_id", pl.col("neighbours").list.head(K - 1))
    return of_users(log).with_columns(neighbours=itself)


def check(neighbours_of):
    found = neighbours_of(LOG)
    assert found.select(pl.col("neighbours").list.max() >= 0).to_series().sum() > LOG.height / 2
    for row_id, neighbours in found.select("row_id", "neighbours").iter_rows():
        times = [TIME_OF[n] for n in neighbours if n >= 0]
        assert all(t < TIME_OF[row_id] for t in times), "a neighbour is not in the past"
    for place in range(30, LOG.height, 60):
        row_id, ts_ms = LOG[place]["row_id"][0], LOG[place]["ts_ms"][0]
        here = pl.col("row_id") == row_id
        # all that happens from here on is removed, or its feedback and items are changed
        past = LOG.filter((pl.col("ts_ms") < ts_ms) | here)
        changed = distort_from(LOG, ts_ms, row_id, seed=place)
        for other in (past, changed):
            same = neighbours_of(other).filter(here).equals(found.filter(here))
            assert same, "neighbours depend on later rows"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(of_users, of_items),
        *leaky("is not in the past", with_rows_of_the_same_time, with_the_row_itself),
    ],
)
def test_neighbours_are_strictly_past(variant, judge):
    judge(check, variant)


def train_is_heard_of(node, ts_ms, split_ms):
    """val hears of train alone: neighbours at the cut."""
    at = np.minimum(ts_ms, split_ms)
    order = np.lexsort((np.arange(len(node)), at))
    positions = np.full((len(node), K), -1)
    positions[order] = last_k_neighbours(node[order], at[order], K)
    return np.where(positions >= 0, order[positions], -1)


def all_is_heard_of(node, ts_ms, split_ms):
    return last_k_neighbours(node, ts_ms, K)


def check_split(neighbours_of):
    log = LOG.sort("ts_ms", "row_id")
    ts_ms = log["ts_ms"].to_numpy()
    split_ms = int(np.quantile(ts_ms, 0.7))
    found = neighbours_of(log["user_id"].to_numpy(), ts_ms, split_ms)
    heard = found[ts_ms >= split_ms]
    assert (heard >= 0).any()
    assert (ts_ms[heard[heard >= 0]] < split_ms).all(), "val hears of val"


@pytest.mark.parametrize(
    "variant", [*honest(train_is_heard_of), *leaky("val hears of val", all_is_heard_of)]
)
def test_val_may_be_kept_to_the_edges_of_train(variant, judge):
    judge(check_split, variant)


EDGES = pl.DataFrame({"src": [0, 1, 2], "dst": [1, 2, 0], "ts": [100, 200, None]})


def edges_before(ts):
    return follow_matrix(EDGES, 3, before_ts=ts)


def edges_of_all_times(ts):
    return follow_matrix(EDGES, 3)


def check_edges(matrix_at):
    found = {tuple(pair) for pair in np.argwhere(matrix_at(200).toarray()).tolist()}
    assert (1, 2) not in found, "an edge is known before it exists"
    assert found == {(0, 1), (2, 0)}


@pytest.mark.parametrize(
    "variant", [*honest(edges_before), *leaky("known before it exists", edges_of_all_times)]
)
def test_social_edges_are_known_from_their_time_on(variant, judge):
    judge(check_edges, variant)
