"""A written world as the environment of a feed's log: the log's users at a moment, with what they had seen by then."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reelrank.models.feed import PAD, FeedInputs
from reelrank.models.feed_start import past_of
from reelrank.worlds.rollout import WorldEnvironment, WorldFeed, WorldRolloutOptions
from reelrank.worlds.truth import Truth


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
