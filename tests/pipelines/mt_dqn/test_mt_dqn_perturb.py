"""Each perturbation does what it says, and nothing else."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from support.feature_logs import cuts_after, random_log
from support.model_inputs import HOUR, N_EVENTS, N_ITEMS, N_USERS, modal_frame, model_inputs

from reelrank.features.events import assemble_events
from reelrank.features.modal import pooled_vectors
from reelrank.features.rewards import RewardOptions, reward_terms, rewards
from reelrank.features.splits import assign_split
from reelrank.pipelines.mt_dqn.perturb import (
    NoisyTokens,
    misaligned,
    permute_times,
    perturbed,
    without_edges,
)
from reelrank.pipelines.mt_dqn.rewarding import rewarded
from reelrank.pipelines.mt_dqn.study_options import (
    NOTHING,
    LagOptions,
    NoiseOptions,
    Perturbation,
)
from reelrank.tables import MODALITIES

CUTS = cuts_after(4, 1, 6)
AUDIO = MODALITIES.index("audio")


def toy_events(options=None, seed=0):
    """The events of a random log, as ``compute_rewards`` and ``assemble`` make them."""
    log, options = random_log(seed), options or RewardOptions()
    splits = assign_split(log, CUTS)
    train = log.filter(splits["split"] == "train")["item_id"].unique().sort()
    made = rewards(
        log,
        splits,
        pooled_vectors(modal_frame(), train.to_numpy()),
        terms=reward_terms(log.lazy()),
        cuts=CUTS,
        options=options,
    )
    return assemble_events(log.lazy(), splits.lazy(), made.lazy())


def same_tokens(left, right):
    pairs = zip(
        (left.x, left.mask, left.present), (right.x, right.mask, right.present), strict=True
    )
    return all(torch.equal(a, b) for a, b in pairs)


def test_nothing_is_nothing():
    inputs = model_inputs()
    same = perturbed(inputs, NOTHING, seed=0)
    assert same.stream is inputs.stream
    assert all(map(same_tokens, same.items.modalities, inputs.items.modalities))


def test_an_absent_modality_is_absent_of_every_item_and_the_others_stay():
    inputs = model_inputs()
    visual, audio, text = perturbed(inputs, Perturbation(absent=["audio"]), 0).items.modalities
    assert not audio.present.any() and not audio.mask.any() and not audio.x.any()
    assert same_tokens(visual, inputs.items.modalities[0])
    assert same_tokens(text, inputs.items.modalities[2])


def test_a_ring_of_items_exchanges_its_tokens():
    inputs = model_inputs(absent=((1, "audio"), (2, "audio")))
    audio = inputs.items.modalities[AUDIO]
    moved = {}
    for share, n in (
        (0.25, 2),
        (0.5, 5),
        (1.0, 10),
    ):  # of the 10 items that have it; .25 · 10 rounds to 2
        now = misaligned(audio, share, seed=3)
        other = [i for i in range(N_ITEMS) if not torch.equal(now.x[i], audio.x[i])]
        assert len(other) == n
        assert not {1, 2} & set(other)
        # the same tokens, at other places
        assert torch.equal(now.x.flatten(1).sum(1).sort()[0], audio.x.flatten(1).sum(1).sort()[0])
        moved[share] = set(other)
    assert moved[0.25] < moved[0.5] < moved[1.0]


@pytest.mark.parametrize("snr_db", [20.0, 0.0, -5.0])
def test_noise_has_the_power_that_was_asked_for_and_is_drawn_anew(snr_db):
    items = model_inputs().items
    noisy = NoisyTokens.of(items, NoiseOptions(snr_db=snr_db))
    clean = items.modalities[AUDIO]
    everything = torch.arange(N_ITEMS)
    torch.manual_seed(0)
    drawn = torch.stack([noisy.select(everything).modalities[AUDIO].x - clean.x for _ in range(200)])  # fmt: skip
    signal = clean.x[clean.mask].square().mean()
    noise = drawn[:, clean.mask].square().mean()
    assert 10 * torch.log10(signal / noise) == pytest.approx(snr_db, abs=0.2)
    assert not torch.equal(drawn[0], drawn[1])
    assert not drawn[:, ~clean.mask].any()  # padding stays padding
    for k in (0, 2):
        assert same_tokens(noisy.select(everything).modalities[k], items.modalities[k])


def test_late_sound_is_late_of_every_item_and_the_others_stay():
    inputs = model_inputs()
    late = perturbed(inputs, Perturbation(lag=LagOptions(seconds=2, token_seconds=2)), 0).items
    old, new = inputs.items.modalities[AUDIO], late.modalities[AUDIO]
    assert not new.x[:, 0].any()
    second = old.mask[:, 1]
    assert torch.equal(new.x[second, 1], old.x[second, 0])
    assert torch.equal(new.mask, old.mask)
    for k in (0, 2):
        assert same_tokens(late.modalities[k], inputs.items.modalities[k])


def test_dropped_events_are_seen_by_nobody_and_learnt_from_as_before():
    stream = model_inputs().stream
    users = torch.arange(N_USERS)
    late = torch.full((N_USERS,), int(stream.ts_ms[-1]) + HOUR)
    sizes = []
    before, held = stream.last_k(users, late, N_EVENTS)
    kept = None
    for share in (0.25, 0.75):
        thin = without_edges(stream, share, seed=1)
        position, mask = thin.last_k(users, late, N_EVENTS)
        seen = set(position[mask].tolist())
        items, item_mask = thin.last_k(N_USERS + torch.arange(N_ITEMS), late[:1].expand(N_ITEMS), N_EVENTS)  # fmt: skip
        # an event is there for both of its ends, or for none
        assert seen == set(items[item_mask].tolist())
        assert seen < set(before[held].tolist())
        assert kept is None or seen < kept
        kept = seen
        sizes.append(len(seen) / N_EVENTS)
        for user in range(N_USERS):  # in the old order
            own = [p for p in before[user][held[user]].tolist() if p in seen]
            assert position[user][mask[user]].tolist() == own
        assert torch.equal(thin.trained_rows(), stream.trained_rows())
        assert torch.equal(thin.next_pos, stream.next_pos)
    assert sizes == pytest.approx([0.75, 0.25], abs=0.12)


def test_an_empty_graph_can_be_read():
    inputs = model_inputs()
    empty = perturbed(inputs, Perturbation(dropped_edges=1.0), seed=0).stream
    late = torch.full((N_USERS + N_ITEMS,), int(empty.ts_ms[-1]) + HOUR)
    _, mask = empty.last_k(torch.arange(N_USERS + N_ITEMS), late, 3)
    assert not mask.any()


def test_permuted_times_stay_with_their_user_part_and_session():
    events = toy_events()
    moved = permute_times(events, seed=0)
    assert moved["ts_ms"].is_sorted()
    by_part = ["user_id", "split", "ts_ms", "session_id"]
    assert_frame_equal(events.select(by_part).sort(by_part), moved.select(by_part).sort(by_part))
    rest = [c for c in events.columns if c not in ("ts_ms", "session_id")]
    assert_frame_equal(events.select(rest).sort("row_id"), moved.select(rest).sort("row_id"))
    changed = events.sort("row_id")["ts_ms"] != moved.sort("row_id")["ts_ms"]
    assert changed.mean() > 0.8
    again = permute_times(events, seed=0)
    assert_frame_equal(moved, again)


def test_rewards_made_anew_are_those_of_the_run():
    events = toy_events()
    assert_frame_equal(rewarded(events, modal_frame(), CUTS, RewardOptions()), events)
    options = RewardOptions(gamma=0.8, lambda_retention=1.0, lambda_interest=0.0)
    again = rewarded(events, modal_frame(), CUTS, options)
    assert_frame_equal(again, toy_events(options))
    by_hand = (again["r_immediate"] + again["r_retention"]).cast(pl.Float32)
    np.testing.assert_allclose(again["reward"].to_numpy(), by_hand.to_numpy(), atol=1e-6)


def test_rewards_of_another_order_are_linked_in_that_order():
    moved = rewarded(permute_times(toy_events(), 0), modal_frame(), CUTS, RewardOptions())
    linked = moved.with_row_index("at").filter(pl.col("next_pos") >= 0)
    following = moved[linked["next_pos"].to_numpy()]
    for column in ("user_id", "session_id", "split"):
        assert linked[column].equals(following[column])
    assert (linked["next_pos"] > linked["at"]).all()
    expected = linked["reward"] + 0.95 * following["return"]
    both = expected.is_not_null().to_numpy()
    np.testing.assert_allclose(
        linked["return"].to_numpy()[both], expected.to_numpy()[both], atol=1e-5
    )


def test_the_perturbations_of_a_record_are_together():
    inputs = model_inputs()
    both = perturbed(inputs, Perturbation(absent=["text"], noise=NoiseOptions(snr_db=0)), 0)
    assert not both.items.select(torch.tensor([0])).modalities[2].present.any()
    assert isinstance(replace(both).items, NoisyTokens)
