"""Small random model inputs, for the tests of models."""

from dataclasses import replace

import numpy as np
import polars as pl
import torch

from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import ModelInputs
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.options import FusionOptions, TGNNOptions
from reelrank.models.user_features import UserFeatures
from reelrank.pipelines.mt_dqn.options import (
    ConcatModalOptions,
    HeadOptions,
    MTDQNOptions,
    PopularityOptions,
    VanillaDQNOptions,
)
from reelrank.tables import FEEDBACKS, MODALITIES, ItemModal, SplitName

N_USERS, N_ITEMS, N_EVENTS = 7, 12, 160
HOUR = 3_600_000
TOKENS = {"visual": (3, 5), "audio": (2, 4), "text": (4, 6)}  # T_m, D_m
TINY = {
    "mt_dqn": MTDQNOptions(
        fusion=FusionOptions(d_model=8, layers=2, heads=2, d_f=6),
        tgnn=TGNNOptions(d_h=4, layers=2, fanout=(3, 2), time_dim=4, message_dim=4, content_dim=4),
        head=HeadOptions(hidden=(8, 4), value_hidden=4),
    ),
    "concat_modal": ConcatModalOptions(d_f=6, d_user=4, head=HeadOptions(hidden=(8, 4))),
    "vanilla_dqn": VanillaDQNOptions(d_id=4, history=3, head=HeadOptions(hidden=(8, 4))),
    "popularity": PopularityOptions(),
}


def events_frame(n=N_EVENTS, seed=0, n_users=N_USERS, n_items=N_ITEMS):
    """Chronological events with many equal times; the first 70 % train, then 10 % val, 20 % test."""
    rng = np.random.default_rng(seed)
    ts = 1_650_000_000_000 + np.sort(rng.integers(0, max(n // 3, 1), n)) * HOUR
    split = np.select([np.arange(n) < 0.7 * n, np.arange(n) < 0.8 * n], ["train", "val"], "test")
    return pl.DataFrame(
        {
            "row_id": np.arange(n),
            "user_id": rng.integers(0, n_users, n).astype(np.int32),
            "item_id": rng.integers(0, n_items, n).astype(np.int32),
            "ts_ms": ts,
            "split": pl.Series(split, dtype=SplitName),
            "is_rand": (rng.random(n) < 0.1).astype(np.int8),
            "play_ms": rng.integers(0, 60_000, n).astype(np.int32),
            "watch_ratio": (rng.random(n) * 2).astype(np.float32),
            **{f: (rng.random(n) < 0.3).astype(np.int8) for f in FEEDBACKS},
            "r_immediate": rng.normal(size=n).astype(np.float32),
            "reward": rng.normal(size=n).astype(np.float32),
            "return": rng.normal(size=n).astype(np.float32),
            "next_pos": np.full(n, -1),
        }
    )


def modal_frame(seed=0, n_items=N_ITEMS, absent=()):
    """Tokens of every item; ``absent`` holds (item, modality) pairs to mark as absent."""
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(n_items):
        for modality in MODALITIES:
            most, dim = TOKENS[modality]
            tokens = int(rng.integers(1, most + 1)) if item else most
            present = (item, modality) not in absent
            rows.append(
                {
                    "item_id": item,
                    "modality": modality,
                    "n_tokens": tokens,
                    "dim": dim,
                    "array": rng.normal(3, 2, tokens * dim).tolist(),
                    "present": present,
                    "source": "synthetic",
                }
            )
    return ItemModal.conform(pl.DataFrame(rows))


def users_frame(n_users=N_USERS, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": np.arange(n_users, dtype=np.int32),
            "degree": rng.choice(["low", "high"], n_users),
            "register_days": rng.integers(0, 5, n_users),
        }
    )


def model_inputs(seed=0, absent=(), events=None):
    """All inputs of a small random world."""
    events = events_frame(seed=seed) if events is None else events
    return ModelInputs(
        stream=EventStream.from_frame(events, N_USERS, N_ITEMS),
        items=ItemTokens.from_frame(modal_frame(seed, absent=absent), N_ITEMS, range(N_ITEMS)),
        users=UserFeatures.from_frame(users_frame(seed=seed), range(N_USERS)),
    )


def batch(inputs, size=5, candidates=4, seed=0):
    """Users, candidates and times of rows from the second half of the stream."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(inputs.stream) // 2, len(inputs.stream), (size,), generator=g)
    items = torch.randint(0, N_ITEMS, (size, candidates), generator=g)
    return inputs.stream.user[rows], items, inputs.stream.ts_ms[rows]


def with_feedback_changed_from(inputs, ts):
    """The same inputs, with messages, labels and rewards of events at or after ``ts`` replaced."""
    stream = inputs.stream
    late = stream.ts_ms >= ts

    def changed(values):
        mask = late.view(-1, *[1] * (values.dim() - 1))
        return torch.where(mask, torch.full_like(values, 7.0), values)

    names = ("message", "labels", "r_immediate", "reward", "value_return")
    return replace(
        inputs, stream=replace(stream, **{n: changed(getattr(stream, n)) for n in names})
    )


def dirty_under_masks(tokens):
    """The same tokens with 50 wherever there is none."""
    return ItemTokens(
        tuple(
            ModalTokens(torch.where(m.mask.unsqueeze(-1), m.x, 50.0), m.mask, m.present)
            for m in tokens.modalities
        )
    )
