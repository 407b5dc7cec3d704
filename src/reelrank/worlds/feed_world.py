"""A written world as the environment of a feed's log: the log's users at a moment, with what they had seen by then."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reelrank.models.feed import PAD, RESPONSES, FeedInputs
from reelrank.models.feed_start import past_of
from reelrank.worlds.rollout import WorldEnvironment, WorldFeed, WorldRolloutOptions
from reelrank.worlds.truth import Truth

_EXPECTED = (*RESPONSES[:-1], "play_ms")
_BLOCK = 2048


def expected_responses(
    truth: Truth,
    inputs: FeedInputs,
    index: NDArray[np.int64],
    raw_users: NDArray[np.int64],
    raw_items: NDArray[np.int64],
) -> NDArray[np.float32]:
    """True expectations (D, C, 7) of the responses of decisions' candidates, watch time in s; NaN at a pad.

    Args:
        truth: of the world that wrote the log.
        inputs: the log.
        index: (D,) positions in ``Decisions``.
        raw_users: (n_users,) official id of each dense one.
        raw_items: (n_items,) the same of videos.
    """
    d = inputs.decisions
    user, ts, tab, items = (v.cpu().numpy()[index] for v in (d.user, d.ts_ms, d.scenario, d.candidates))  # fmt: skip
    out = np.full((*items.shape, len(RESPONSES)), np.nan, np.float32)
    for start in range(0, len(index), _BLOCK):
        some = slice(start, start + _BLOCK)
        found = truth.expected(
            raw_users[user[some]][:, None], raw_items[items[some].clip(min=0)], ts[some, None], tab[some, None]
        )  # fmt: skip
        values = np.stack([found[name] for name in _EXPECTED], axis=-1)
        values[..., -1] /= 1000
        out[some] = np.where((items[some] != PAD)[..., None], values, np.nan)
    return out


def environment_of_log(
    truth: Truth,
    inputs: FeedInputs,
    raw_users: NDArray[np.int64],
    raw_items: NDArray[np.int64],
    users: NDArray[np.int64],
    *,
    start_ms: int,
    options: WorldRolloutOptions,
) -> WorldEnvironment:
    """The world's environment with ids and codes of the log that it wrote.

    Args:
        truth: of the world.
        inputs: its log, on the CPU.
        raw_users: (n_users,) official id of each dense one.
        raw_items: (n_items,) the same of videos.
        users: (B,) dense ids to roll out.
        start_ms: time 0, UTC epoch ms; the log before it is the users' past.
        options: length and shape.

    Raises:
        ValueError: as :class:`~reelrank.worlds.rollout.WorldEnvironment`.
    """
    past = past_of(inputs, users, start_ms, options.history)
    seen = past.items.numpy()
    item_of = np.full(len(truth.response.videos), PAD, np.int64)
    item_of[raw_items] = np.arange(len(raw_items))
    codes = inputs.users.codes[users]
    return WorldEnvironment.from_truth(
        truth,
        WorldFeed(raw_users[users], codes, item_of, inputs.items),
        start_ms=start_ms,
        options=options,
        history=np.where(seen == PAD, PAD, raw_items[seen]),
        feedback=past.feedback.numpy(),
    )
