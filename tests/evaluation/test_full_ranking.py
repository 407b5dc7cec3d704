import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import ndcg_score

from reelrank.evaluation import full_ranking
from reelrank.evaluation.full_ranking import (
    Competitors,
    TargetRanks,
    full_ranks,
    sampled_items,
    sampled_ranks,
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of queries, tiles of items and pieces of rows even in a small case."""

    def shrink(queries, tile):
        monkeypatch.setattr(full_ranking, "_QUERIES", queries)
        monkeypatch.setattr(full_ranking, "_TILE", tile)

    return shrink


@st.composite
def tasks(draw):
    """Integer embeddings, whose products are exact and often tie, with targets, hidden items and times."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_queries, n_items = draw(st.integers(1, 9)), draw(st.integers(1, 30))
    width = draw(st.integers(1, 6))
    queries = rng.integers(-2, 3, (n_queries, width)).astype(np.float32)
    items = rng.integers(-2, 3, (n_items, width)).astype(np.float32)
    available_from, ts = rng.integers(0, 5, n_items), rng.integers(0, 6, n_queries)
    hidden = rng.random((n_queries, n_items)) < 0.3
    target = (rng.random((n_queries, n_items)) < 0.3) & ~hidden & (available_from <= ts[:, None])
    hidden_query, hidden_item = np.nonzero(hidden)
    twice = rng.integers(0, 2, hidden_query.size) + 1  # a pair may come twice
    pairs = rng.permutation(np.argwhere(target)).astype(np.int64).reshape(-1, 2)
    rules = Competitors(
        np.repeat(hidden_query, twice), np.repeat(hidden_item, twice), available_from, ts
    )
    return queries, items, pairs[:, 0], pairs[:, 1], rules


def by_sorting(queries, items, query, item, rules):
    """Average ranks of the whole catalogue, query by query."""
    score = queries.astype(np.float64) @ items.astype(np.float64).T
    if rules.ts is not None:
        score[np.asarray(rules.available_from) > np.asarray(rules.ts)[:, None]] = -np.inf
    score[rules.hidden_query, rules.hidden_item] = -np.inf
    return rankdata(-score, axis=1)[query, item]


@given(tasks(), st.sampled_from([(512, 8192), (2, 3), (3, 7)]))
@settings(max_examples=80, deadline=None)
def test_counting_agrees_with_sorting_whatever_the_blocks(task, blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_ranking, "_QUERIES", blocks[0])
        patch.setattr(full_ranking, "_TILE", blocks[1])
        found = full_ranks(*task)
    np.testing.assert_array_equal(found.rank, by_sorting(*task))
    np.testing.assert_array_equal(found.list_id, task[2])
    assert found.protocol == "full"


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_close_scores_are_decided_in_double_precision(kind, small_blocks):
    small_blocks(16, 1100)
    rng = np.random.default_rng(0)
    base = rng.normal(size=64)
    # neighbours differ by less than the rounding of a float32 product
    items = (base + 1e-7 * rng.normal(size=(1500, 64))).astype(kind)
    queries = rng.normal(size=(40, 64)).astype(kind)
    target = rng.integers(0, 1500, 40)
    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    expected = rankdata(-exact, axis=1)[np.arange(40), target]
    found = full_ranks(queries, items, np.arange(40), target).rank
    np.testing.assert_array_equal(found, expected)


def test_equal_items_tie_wherever_they_stand(small_blocks):
    small_blocks(4, 13)
    rng = np.random.default_rng(1)
    items = np.repeat(rng.normal(size=(1, 17)), 101, axis=0).astype(np.float32)
    queries = rng.normal(size=(9, 17)).astype(np.float32)
    # a collapsed model learns nothing from counting: every target is in the middle
    assert (full_ranks(queries, items, np.arange(9), np.arange(9)).rank == 51).all()


def test_ndcg_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    queries, items = rng.normal(size=(30, 8)), rng.normal(size=(200, 8))
    relevant = rng.random((30, 200)) < 0.05
    relevant[:, 0] = True
    name, ids, value = full_ranks(queries, items, *np.nonzero(relevant)).per_list("ndcg", 20)
    expected = [
        ndcg_score(r[None], s[None], k=20) for r, s in zip(relevant, queries @ items.T, strict=True)
    ]
    assert name == "ndcg@20" and ids.tolist() == list(range(30))
    np.testing.assert_allclose(value, expected, atol=1e-9)


def test_metrics_by_hand():
    ranks = TargetRanks("full", np.array([2.0, 4.0, 9.0, 1.0]), np.array([5, 5, 5, 8]))
    assert ranks.per_list("ndcg", 5)[2] == pytest.approx([0.498189, 1], abs=5e-7)
    assert ranks.per_list("hr", 3)[2].tolist() == [1, 1]
    assert ranks.per_list("mrr", 3)[2].tolist() == [0.5, 1]


QUERIES = np.array([[1.0, 0.0]])
ITEMS = np.array([[3.0, 0], [2, 0], [2, 0], [1, 0], [9, 0]])


@pytest.mark.parametrize(
    ("rules", "rank"),
    [
        (None, 3.5),  # two above, one level
        (Competitors([0], [4]), 2.5),
        (Competitors([0, 0], [4, 2]), 2.0),
        (Competitors(available_from=[0, 0, 0, 0, 5], ts=[4]), 2.5),
        (Competitors([0], [0], [0, 0, 0, 0, 5], [5]), 2.5),
    ],
)
def test_what_competes(rules, rank):
    assert full_ranks(QUERIES, ITEMS, [0], [1], rules).rank.tolist() == [rank]


def test_draws_are_the_right_items_and_the_rank_is_among_them():
    # item i has score i: a rank tells how many of the drawn items are above the target
    items = np.arange(50.0)[:, None]
    rules = Competitors([0] * 10, np.arange(10), np.r_[np.zeros(40), np.full(10, 9)], [1, 9])
    found = sampled_ranks([[1.0], [1.0]], items, [0, 1], [20, 20], rules, n=29)
    assert found.rank[0] == 20  # items 10 … 39 less the target are just 29: all are drawn
    assert found.protocol == "uniform29" and found.list_id.tolist() == [0, 1]
    assert found.per_list("mrr", 20)[0] == "mrr@20_uniform29"
    all_of_them = sampled_ranks([[1.0], [1.0]], items, [1], [20], n=49)
    assert all_of_them.rank.tolist() == full_ranks([[1.0], [1.0]], items, [1], [20]).rank.tolist()


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_draws_have_the_planned_weights(sampling):
    popularity = np.array([0, 1, 16, 81, 5, 5, 5])
    items, n_lists = np.arange(7.0)[:, None], 4000
    queries = np.ones((n_lists, 1))
    rank = sampled_ranks(
        queries, items, np.arange(n_lists), np.full(n_lists, 2), n=1, sampling=sampling,
        popularity=popularity,
    ).rank  # fmt: skip
    weight = popularity**0.75 if sampling == "popularity" else np.ones(7)
    weight[2] = 0  # the target is never drawn
    above = weight[3:].sum() / weight.sum()
    assert abs((rank == 2).mean() - above) < 4 * np.sqrt(above * (1 - above) / n_lists)


def test_rare_items_are_drawn_when_common_ones_are_used_up():
    # four items must be drawn, three of them a million times rarer than the first
    popularity = np.array([10**12, 1, 1, 1, 7, 0])
    rank = sampled_ranks(
        np.ones((1, 1)), np.array([[5.0], [4], [3], [2], [1], [6]]), [0], [4], n=4,
        sampling="popularity", popularity=popularity,
    ).rank  # fmt: skip
    assert rank.tolist() == [5]


def test_draws_depend_on_seed_query_and_target_alone():
    rng = np.random.default_rng(3)
    queries, items = rng.normal(size=(20, 4)), rng.normal(size=(300, 4))
    query, item = np.repeat(np.arange(20), 3), rng.integers(0, 300, 60)
    order = rng.permutation(60)
    found = sampled_ranks(queries, items, query, item)
    again = sampled_ranks(queries, items, query[order], item[order])
    np.testing.assert_array_equal(again.rank, found.rank[order])
    other = sampled_ranks(queries, items, query, item, seed=1)
    assert (other.rank != found.rank).any()
    part = sampled_ranks(queries, items, query[:5], item[:5])
    np.testing.assert_array_equal(part.rank, found.rank[:5])


def test_sampled_ranks_estimate_the_share_above_the_target():
    rng = np.random.default_rng(4)
    queries, items = rng.normal(size=(300, 4)), rng.normal(size=(1000, 4))
    query, item = np.arange(300), rng.integers(0, 1000, 300)
    share = (full_ranks(queries, items, query, item).rank - 1) / 999
    sampled = (sampled_ranks(queries, items, query, item).rank - 1) / 99
    error = sampled - share
    assert abs(error.mean()) < 4 * np.sqrt((share * (1 - share) / 99).mean() / 300)


def test_no_targets_no_ranks():
    none = np.zeros(0, np.int64)
    assert full_ranks(QUERIES, ITEMS, none, none).rank.size == 0
    assert sampled_ranks(QUERIES, ITEMS, none, none, n=2).rank.size == 0
    assert full_ranks(np.zeros((0, 2)), ITEMS, none, none).rank.size == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": [[1.0, np.nan]]}, "embedding of query row 0"),
        ({"items": ITEMS + np.array([0.0, np.inf])}, "embedding of item row 0"),
        ({"items": ITEMS[:, :1]}, "one width"),
        ({"items": ITEMS[:, 0]}, "two axes"),
        ({"target_item": [5]}, "target_item of row 0 is 5"),
        ({"target_item": [1.5]}, "row number"),
        ({"target_query": [0, -1], "target_item": [1, 1]}, "target_query of row 1 is -1"),
        ({"target_item": [1, 1]}, "one length"),
        ({"competitors": Competitors([0], [1])}, "target_item of row 0 is 1 .* not hidden"),
        ({"competitors": Competitors([0], [1, 2])}, "one length"),
        ({"competitors": Competitors(available_from=[0, 9, 0, 0, 0], ts=[3])}, "available when"),
        ({"competitors": Competitors(ts=[3])}, "together"),
        ({"competitors": Competitors(available_from=[0], ts=[3])}, "5 items"),
    ],
)
def test_bad_input_names_the_row(change, message):
    given = {"queries": QUERIES, "items": ITEMS, "target_query": [0], "target_item": [1]}
    with pytest.raises(ValueError, match=message):
        full_ranks(**(given | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 5}, "target row 0: only 4 items can be drawn for query 0, not 5"),
        ({"n": 0}, "n must"),
        ({"sampling": "popularity"}, "needs the items' train exposures"),
        ({"sampling": "popularity", "popularity": [1, 1, 0, 0, 0]}, "only 1 items"),
        ({"sampling": "popularity", "popularity": [1]}, "one length"),
        ({"sampling": "popularity", "popularity": [1, 1, 0, -1, 0]}, "popularity of row 3"),
    ],
)
def test_bad_draws(change, message):
    with pytest.raises(ValueError, match=message):
        sampled_ranks(QUERIES, ITEMS, [0], [1], **({"n": 2} | change))


def test_drawn_items_are_those_of_the_sampled_ranks_and_a_longer_draw_goes_on():
    rng = np.random.default_rng(3)
    queries, items = rng.normal(size=(6, 4)), rng.normal(size=(60, 4))
    target, key = rng.integers(0, 30, 6), np.array([9, 4, 8, 1, 0, 7])
    rules = Competitors(available_from=np.arange(60), ts=np.array([59, 40, 35, 50, 59, 33]))
    long = sampled_items(60, np.arange(6), target, rules, n=20, key=key)
    short = sampled_items(60, np.arange(6), target, rules, n=8, key=key)
    assert (long[:, :8] == short).all()
    assert all(len({*row, t}) == 21 for row, t in zip(long.tolist(), target.tolist(), strict=True))
    assert (long <= rules.ts[:, None]).all()
    own = np.einsum("qd,qd->q", queries, items[target])
    others = np.einsum("qd,qnd->qn", queries, items[short])
    found = sampled_ranks(queries, items, np.arange(6), target, rules, n=8, key=key)
    assert found.rank.tolist() == (1 + (others > own[:, None]).sum(1)).tolist()
    with pytest.raises(ValueError, match="only 33 items can be drawn"):
        sampled_items(60, np.arange(6), target, rules, n=34, key=key)
