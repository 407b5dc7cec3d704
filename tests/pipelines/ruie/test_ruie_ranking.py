"""Places of targets: against brute force, in any block, at the time of the target, and for models without a query."""

import numpy as np
import polars as pl
import pytest
import torch
from support.scenario_log import LENGTH, build, event_frame, sequences

from reelrank.evaluation.full_ranking import sampled_ranks
from reelrank.models.sequence_options import BEHAVIOURS
from reelrank.pipelines.ruie.protocol import last_batch
from reelrank.pipelines.ruie.ranking import din_scores, rank_targets, ranked_frame, target_positions
from reelrank.pipelines.ruie.run_options import RankingOptions

OPTIONS = RankingOptions(block_rows=3, block_pairs=7, sampled=5)
ALWAYS = np.zeros(20, np.int64)


def brute_force(scores, item, available=None, ts=None):
    """1 + items above + half of the items level, item by item."""
    ranks = []
    for row, target in enumerate(item):
        rank = 1.0
        for other in range(scores.shape[1]):
            if other != target and (available is None or available[other] <= ts[row]):
                rank += float(scores[row, other] > scores[row, target])
                rank += 0.5 * float(scores[row, other] == scores[row, target])
        ranks.append(rank)
    return np.array(ranks)


def exact_scores(model, log, positions):
    batch = last_batch(log, positions, LENGTH)
    with torch.no_grad():
        return (model.last_queries(batch).double() @ model.item_vectors().double().T).numpy()


@pytest.mark.parametrize("name", ["ruie", "sasrec", "caser", "pepnet"])
def test_full_ranks_are_those_of_brute_force(name):
    log = sequences()
    model = build(name, log).eval()
    positions = target_positions(log, "test")
    found = rank_targets(model, log, positions, ALWAYS, OPTIONS)
    expected = brute_force(exact_scores(model, log, positions), log.item[positions].tolist())
    assert found.rank == pytest.approx(expected)


def test_dins_places_are_those_of_its_scores_whatever_the_chunks():
    log = sequences()
    model = build("din", log).eval()
    positions = target_positions(log, "test")
    with torch.no_grad():
        whole = din_scores(model, log, positions, 10**6)
        pieces = din_scores(model, log, positions, 7)
        history = last_batch(log, positions, LENGTH).history
        one = model.scores(history, log.item[positions][:, None]).squeeze(1)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(whole.gather(1, log.item[positions][:, None]).squeeze(1), one)
    found = rank_targets(model, log, positions, ALWAYS, OPTIONS)
    assert found.rank == pytest.approx(brute_force(pieces.numpy(), log.item[positions].tolist()))


def test_din_beyond_its_limit_of_pairs_is_ranked_among_drawn_items_in_place_of_all():
    """METHODS §5.6; the 5 items of the sampled ranking are the first of the 9 drawn."""
    log = sequences()
    model = build("din", log).eval()
    positions = target_positions(log, "test")
    limited = OPTIONS.model_copy(update={"pair_limit": 10, "in_place": 9})
    found = rank_targets(model, log, positions, ALWAYS, limited)
    free = rank_targets(model, log, positions, ALWAYS, OPTIONS)
    wide = rank_targets(model, log, positions, ALWAYS, OPTIONS.model_copy(update={"sampled": 9}))
    assert np.isnan(found.rank).all() and not np.isnan(free.rank).any()
    assert (found.n_sampled, found.n_in_place, free.n_in_place) == (5, 9, 0)
    assert (found.sampled == free.sampled).all() and (found.in_place == wide.sampled).all()
    assert np.isnan(free.in_place).all()
    alone = rank_targets(model, log, positions, ALWAYS, limited, sample=False)
    assert (alone.in_place == found.in_place).all() and np.isnan(alone.sampled).all()


def test_din_beyond_its_limit_scores_only_the_items_drawn(monkeypatch):
    log = sequences()
    model = build("din", log).eval()
    positions = target_positions(log, "test")
    monkeypatch.setattr(model, "scores_of_all", None)
    limited = OPTIONS.model_copy(update={"pair_limit": 10, "in_place": 9})
    assert not np.isnan(rank_targets(model, log, positions, ALWAYS, limited).in_place).any()


def test_items_that_are_not_there_yet_do_not_compete():
    """L7."""
    log = sequences()
    model = build("nextitnet", log).eval()
    positions = target_positions(log, "test")
    item, ts = log.item[positions].numpy(), log.ts_ms[positions].numpy()
    available = np.where(np.isin(np.arange(20), item), 0, ts.max() + 1)
    found = rank_targets(model, log, positions, available, OPTIONS)
    expected = brute_force(exact_scores(model, log, positions), item, available, ts)
    assert found.rank == pytest.approx(expected)
    assert found.rank.max() <= len(set(item.tolist()))


def test_a_target_whose_item_is_uploaded_later_is_not_ranked_and_says_so():
    log = sequences()
    model = build("nextitnet", log).eval()
    positions = target_positions(log, "test")
    late = int(log.item[positions[0]])
    available = ALWAYS.copy()
    available[late] = int(log.ts_ms.max()) + 1
    found = rank_targets(model, log, positions, available, OPTIONS)
    is_late = log.item[positions].numpy() == late
    assert (np.isnan(found.rank) == is_late).all() and (np.isnan(found.sampled) == is_late).all()


def test_every_model_meets_the_same_sampled_items_in_any_block():
    """A model of constant scores puts every target level with all: only the draws' number shows."""
    log = sequences()
    model = build("sasrec", log).eval()
    positions = target_positions(log, "test")
    found = rank_targets(model, log, positions, ALWAYS, OPTIONS)
    wide = rank_targets(model, log, positions, ALWAYS, OPTIONS.model_copy(update={"block_rows": 99}))  # fmt: skip
    back = rank_targets(model, log, positions.flip(0), ALWAYS, OPTIONS)
    assert (found.sampled == wide.sampled).all() and (found.sampled == back.sampled[::-1]).all()
    assert found.n_sampled == 5 and found.sampled.max() <= 6


def test_keys_name_the_draws():
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(4, 3)), rng.normal(size=(50, 3))
    target, key = np.array([3, 9, 20, 41]), np.array([7, 1, 5, 2])
    together = sampled_ranks(queries, items, np.arange(4), target, n=10, key=key).rank
    apart = [
        sampled_ranks(queries[i : i + 1], items, [0], target[i : i + 1], n=10, key=key[i : i + 1]).rank[0]
        for i in range(4)
    ]  # fmt: skip
    assert together.tolist() == apart
    with pytest.raises(ValueError, match="key"):
        sampled_ranks(queries, items, np.arange(4), target, n=10, key=key[:2])


def test_a_catalogue_smaller_than_the_sample_is_sampled_whole():
    log = sequences()
    model = build("gru4rec", log).eval()
    positions = target_positions(log, "test")
    found = rank_targets(model, log, positions, ALWAYS, RankingOptions(sampled=99))
    assert found.n_sampled == 19
    assert (found.sampled == found.rank).all()


def test_the_frame_holds_each_val_and_test_event_once():
    events = event_frame()
    log = sequences(events)
    frame = ranked_frame(events, build("star", log).eval(), log, ALWAYS, OPTIONS)
    later = events.filter(pl.col("split") != "train")
    assert sorted(frame["row_id"]) == sorted(later["row_id"])
    joined = frame.join(events, on="row_id", how="left")
    for column in ("user_id", "scenario", "split", *BEHAVIOURS):
        assert joined[column].eq_missing(joined[f"{column}_right"]).all(), column
    # nine events a user: seven of train before val, eight before test
    assert set(frame.select("split", "history").iter_rows()) == {("val", 7), ("test", 8)}


def test_a_target_without_a_history_is_ranked():
    events = event_frame(n_users=3).with_columns(
        split=pl.when(pl.col("user_id") == 0).then(pl.lit("test")).otherwise("split")
    )
    events = pl.concat([events.filter(user_id=0).head(1), events.filter(pl.col("user_id") > 0)])
    log = sequences(events)
    for name in ("ruie", "caser", "din", "popularity_of_items"):
        frame = ranked_frame(events, build(name, log).eval(), log, ALWAYS, OPTIONS)
        alone = frame.filter(user_id=0)
        assert alone.height == 1 and alone["history"][0] == 0
        assert 1 <= alone["rank"][0] <= 20, name


def test_dins_first_layer_is_that_of_the_concatenated_input():
    """[h, t, h − t, h ⊙ t] in one product, as METHODS §5.6 writes it."""
    log = sequences()
    model = build("din", log).eval()
    batch = last_batch(log, target_positions(log, "test"), LENGTH)
    items = torch.arange(20).expand(len(batch.user), -1)
    with torch.no_grad():
        past = model.items(batch.history.item.clamp_min(0)) * batch.history.mask[..., None]
        t = model.items(items)
        h, wide = past[:, None].expand(-1, 20, -1, -1), t[:, :, None].expand(-1, -1, LENGTH, -1)
        weight = torch.sigmoid(model.attention(torch.cat([h, wide, h - wide, h * wide], -1)))
        interest = (weight * batch.history.mask[:, None, :, None] * h).sum(2)
        expected = model.output(torch.cat([interest, t, interest * t], -1)).squeeze(-1)
        torch.testing.assert_close(model.scores(batch.history, items), expected)
        torch.testing.assert_close(model.scores_of_all(batch.history, items[0]), expected)


@pytest.mark.parametrize("name", ["nextitnet", "sasrec", "gru4rec"])
@torch.no_grad()
def test_queries_of_histories_of_one_length_are_those_of_mixed_ones(name):
    log = sequences()
    model = build(name, log).eval()
    positions = torch.arange(len(log))
    mixed = last_batch(log, positions, LENGTH)
    assert mixed.history.length.unique().tolist() == list(range(LENGTH + 1))
    expected = model.last_queries(mixed)
    for length in range(LENGTH + 1):
        own = mixed.history.length == length
        found = model.last_queries(last_batch(log, positions[own], LENGTH))
        torch.testing.assert_close(found, expected[own])


def test_encoding_side_by_side_changes_neither_places_nor_the_number_of_threads():
    log = sequences()
    model = build("sasrec", log).eval()
    positions = target_positions(log, "test")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = rank_targets(model, log, positions, ALWAYS, RankingOptions())
        torch.set_num_threads(2)
        found = rank_targets(model, log, positions, ALWAYS, RankingOptions())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found.rank.tolist() == alone.rank.tolist()
