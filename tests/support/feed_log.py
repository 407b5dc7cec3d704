"""A small feed: log with requests of several items, candidate sets, and the inputs and networks made of them."""

import numpy as np
import polars as pl
import torch
from support.feature_logs import DAY, START, items_of, log_of

from reelrank.features.candidate_sets import CandidatePool, CandidateSetOptions, candidate_sets
from reelrank.features.candidates import availability_ts
from reelrank.features.sessions import request_and_session_ids
from reelrank.models.feed import RESPONSES
from reelrank.models.feed_data import feed_inputs
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_options import FeedDataOptions, FeedEncoderOptions
from reelrank.pipelines.mmrf.actors import MMRFActors
from reelrank.pipelines.mmrf.critics import build_critics
from reelrank.pipelines.mmrf.options import ActorOptions, CriticOptions, UpdateOptions
from reelrank.pipelines.mmrf.updates import ActorCritic
from reelrank.tables import SPLITS, SplitName

N_ITEMS, N_USERS = 30, 8
ENCODER = FeedEncoderOptions(
    d_state=6, d_history=5, history=4, d_id=4, d_attributes=3, d_user=4, d_context=2
)
WIDTHS = {"hidden": 8, "heads": 2, "head_hidden": 7, "encoder": ENCODER}
DATA = FeedDataOptions(track="request", k=3)


def with_requests(log):
    request, session = request_and_session_ids(
        log["user_id"].to_numpy(), log["ts_ms"].to_numpy(), 1_800_000
    )
    return log.with_columns(request_id=request, session_id=session)


def with_split(log, train_days=4, val_days=1):
    part = ((pl.col("ts_ms") - START) // DAY >= train_days).cast(pl.Int8) + (
        (pl.col("ts_ms") - START) // DAY >= train_days + val_days
    ).cast(pl.Int8)
    names = log.select(part.alias("part"))["part"].to_list()
    return log.with_columns(split=pl.Series([SPLITS[p] for p in names], dtype=SplitName))


def random_feed_log(seed=0, n_requests=240, n_users=N_USERS, n_items=N_ITEMS, days=6):
    """Requests of 1 to 3 items; the last user has no train row."""
    rng = np.random.default_rng(seed)
    user = rng.integers(n_users, size=n_requests)
    day = np.where(user == n_users - 1, days - 1, rng.integers(days, size=n_requests))
    at = START + day * DAY + rng.integers(0, 200, n_requests) * 120_000
    size = rng.integers(1, 4, n_requests)
    n = int(size.sum())
    item = np.concatenate([rng.choice(n_items, s, replace=False) for s in size])
    rates = {
        "click": 0.5,
        "like": 0.3,
        "follow": 0.2,
        "comment": 0.2,
        "hate": 0.1,
        "long_view": 0.4,
    }
    log = log_of(
        user_id=np.repeat(user, size),
        item_id=item,
        ts_ms=np.repeat(at, size),
        scenario=np.repeat(rng.integers(1, 3, n_requests), size),
        is_rand=np.repeat(rng.random(n_requests) < 0.1, size).astype(np.int8),
        play_ms=rng.integers(0, 200_000, n),
        **{name: (rng.random(n) < rate).astype(np.int8) for name, rate in rates.items()},
    )
    # two requests of one user may fall on one time, and hold an item twice
    return with_split(with_requests(log.unique(["user_id", "ts_ms", "item_id"], keep="first")
                                    .sort("user_id", "ts_ms", "row_id")))  # fmt: skip


def toy_items(n=N_ITEMS):
    return items_of(
        n,
        author_id=[i % 7 for i in range(n)],
        category_1=[i % 4 for i in range(n)],
        duration_ms=[1000 * (i + 1) for i in range(n)],
        upload_ts=[START - DAY] * n,
    )


def toy_users(n=N_USERS):
    return pl.DataFrame({"user_id": np.arange(n, dtype=np.int32), "degree": np.arange(n) % 3})


def toy_sets(log, items, size=8):
    pool = CandidatePool.fit(availability_ts(log, items), np.ones(len(items), np.int64), "uniform")
    return candidate_sets(log, pool, CandidateSetOptions(size=size))


def toy_feed(seed=0, log=None, size=8, options=DATA):
    log = random_feed_log(seed) if log is None else log
    items = toy_items()
    return feed_inputs(log, items, toy_users(), options, toy_sets(log, items, size))


def toy_actors(inputs, seed=0, **options):
    torch.manual_seed(seed)
    return MMRFActors(ActorOptions(**(WIDTHS | options)), FeedSpec.of(inputs))


def toy_learner(inputs, seed=0, kind="linear", updates=None, critic=None, **options):
    actors = toy_actors(inputs, seed, **options)
    critic = CriticOptions(kind=kind, hidden=(9, 6), value_hidden=5, encoder=ENCODER, **(critic or {}))  # fmt: skip
    critics = build_critics(len(actors.options.agents), critic, FeedSpec.of(inputs))
    return ActorCritic(actors, critics, UpdateOptions(**(updates or {})))


class FixedFeedback:
    """Answers a constant that depends on the slot; counts its passes."""

    def __init__(self):
        self.passes = 0

    def fit_pass(self, generator):
        self.passes += 1
        return {"fit": 1.0 / self.passes}

    def simulate(self, batch, slots, generator):
        answer = slots.unsqueeze(-1).expand(-1, -1, len(RESPONSES)).float()
        return Answer(reward=answer / 10, response=answer)

    def state_dict(self):
        return {"passes": torch.tensor(self.passes)}

    def load_state_dict(self, state_dict):
        self.passes = int(state_dict["passes"])


class Answer:
    def __init__(self, reward, response):
        self.reward, self.response = reward, response
