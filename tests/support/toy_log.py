"""A small log with every column of the events table, and the inputs and models made of it."""

import numpy as np
import polars as pl
import torch

from reelrank.features.candidates import availability_ts, item_popularity
from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.item_tokens import ItemTokens
from reelrank.models.negatives import NegativeSampler
from reelrank.models.options import FusionOptions, TGNNOptions
from reelrank.models.policy import RankingModel
from reelrank.models.registry import build
from reelrank.models.user_features import UserFeatures
from reelrank.pipelines.mt_dqn import baselines, model  # noqa: F401 (they register their models)
from reelrank.pipelines.mt_dqn.options import (
    ConcatModalOptions,
    HeadOptions,
    MTDQNOptions,
    VanillaDQNOptions,
)
from reelrank.tables import FEEDBACKS, SPLITS, SplitName
from reelrank.training.device import seed_everything

T0 = 1_650_000_000_000
HOUR = 3_600_000
GAMMA = 0.95
HEAD = HeadOptions(hidden=(16, 8), value_hidden=8)
CONFIGS = {
    "mt_dqn": MTDQNOptions(
        fusion=FusionOptions(d_model=8, layers=1, heads=2, d_f=8),
        tgnn=TGNNOptions(d_h=8, layers=2, fanout=(3, 2), time_dim=4, message_dim=4, content_dim=4),
        head=HEAD,
        link_head=True,
    ),
    "concat_modal": ConcatModalOptions(d_f=8, d_user=4, head=HEAD),
    "vanilla_dqn": VanillaDQNOptions(d_id=4, history=3, head=HEAD),
}


def toy_events(n_users=6, n_items=15, sessions=9, rows=4, seed=0):
    """Each user has ``sessions`` sessions of ``rows`` rows, 5 hours apart; the first 5 are train, then 2 val, 2 test."""
    rng = np.random.default_rng(seed)
    n = n_users * sessions * rows
    user = np.repeat(np.arange(n_users), sessions * rows)
    session = np.tile(np.repeat(np.arange(sessions), rows), n_users)
    ts = T0 + session * 5 * HOUR + np.tile(np.arange(rows), n_users * sessions) * 60_000 + user * 7
    item = rng.integers(0, n_items, n)
    ratio = np.clip(item / n_items + rng.normal(0, 0.3, n), 0, 2)
    split = np.where(session < 5, 0, np.where(session < 7, 1, 2))
    frame = pl.DataFrame(
        {
            "user_id": user.astype(np.int32),
            "item_id": item.astype(np.int32),
            "ts_ms": ts,
            "scenario": np.ones(n, np.int16),
            "session_id": user * sessions + session,
            "split": pl.Series([SPLITS[s] for s in split], dtype=SplitName),
            "is_rand": (rng.random(n) < 0.05).astype(np.int8),
            "play_ms": (ratio * 10_000).astype(np.int32),
            "watch_ratio": ratio.astype(np.float32),
            **{f: (rng.random(n) < 0.2).astype(np.int8) for f in FEEDBACKS},
        }
    ).with_columns(long_view=(pl.col("watch_ratio") > 0.6).cast(pl.Int8))
    return with_rewards(frame.sort("ts_ms").with_row_index("row_id"))


def with_rewards(events):
    """Rewards, returns and links to the next row, from the feedback columns; frame in order of time."""
    events = events.with_columns(
        r_immediate=(0.5 * pl.col("watch_ratio") + 0.5 * pl.col("like")).cast(pl.Float32)
    ).with_columns(reward=pl.col("r_immediate"))
    position = pl.int_range(pl.len(), dtype=pl.Int64)
    # the discounted sum from a row on, by the recursion over the reversed session
    folded = [
        float(np.sum(r.to_numpy() * GAMMA ** np.arange(len(r))))
        for r in (
            events["reward"].filter((events["session_id"] == s) & (events["ts_ms"] >= t))
            for s, t in zip(events["session_id"], events["ts_ms"], strict=True)
        )
    ]
    return events.with_columns(
        pl.Series("return", folded, dtype=pl.Float32),
        next_pos=position.shift(-1).over("session_id").fill_null(-1),
    )


def toy_inputs(events, n_users=6, n_items=15, seed=0):
    rng = np.random.default_rng(seed)
    modal = pl.DataFrame(
        [
            {
                "item_id": i, "modality": m, "n_tokens": 2, "dim": 3,
                "array": rng.normal(size=6).astype(np.float32).tolist(), "present": True,
            }
            for m in ("visual", "audio", "text") for i in range(n_items)
        ]
    )  # fmt: skip
    users = pl.DataFrame({"user_id": np.arange(n_users), "kind": np.arange(n_users) % 2})
    return ModelInputs(
        stream=EventStream.from_frame(events, n_users, n_items),
        items=ItemTokens.from_frame(modal, n_items, np.arange(n_items)),
        users=UserFeatures.from_frame(users, np.arange(n_users)),
    )


def toy_availability(events, n_items=15):
    items = pl.DataFrame(
        {"item_id": np.arange(n_items, dtype=np.int32), "upload_ts": np.full(n_items, T0 - HOUR)}
    )
    return availability_ts(events, items)


def toy_sampler(events, n_items=15):
    train = events.filter(pl.col("split") == "train", pl.col("is_rand") == 0)
    popularity = item_popularity(train["item_id"].to_numpy(), n_items)
    return NegativeSampler.fit(toy_availability(events, n_items), popularity)


def toy_model(name, inputs, seed=0):
    seed_everything(seed)
    built = build(name, CONFIGS[name], InputSpec.of(inputs), RankingModel)
    built.refresh(inputs)
    return built


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(t, right[n]) for n, t in left.items())
