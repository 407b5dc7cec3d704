"""Tiny options of every baseline, and a feed whose watch time is the item's number."""

import torch
from support.feed_log import ENCODER, N_ITEMS, toy_feed

from reelrank.models.feed import HATE
from reelrank.models.feed_data import batch
from reelrank.pipelines.mmrf.baselines.options import (
    BCOptions,
    DeepFMOptions,
    LTROptions,
    MASSAOptions,
    ParetoOptions,
    ScorerOptions,
    TSCACOptions,
    WideDeepOptions,
)
from reelrank.pipelines.mmrf.options import (
    CriticOptions,
    LearningOptions,
    RateOptions,
    ReplayOptions,
)

ACTOR = ScorerOptions(hidden=(8, 7), encoder=ENCODER)
CRITIC = CriticOptions(hidden=(9, 6), value_hidden=5, encoder=ENCODER)
FAST = RateOptions(actor_lr=1e-2, critic_lr=1e-2, gamma=0.5, tau=0.01, critic_weight_decay=1e-4)
CRITICS = {"actor": ACTOR, "critic": CRITIC, "update": FAST}
FIELDS = {"embedding": 4, "hidden": (8, 6), "history": 4, "lr": 1e-2, "epochs": 25}
OPTIONS = {
    "bc": BCOptions(hidden=(12, 8), encoder=ENCODER, lr=1e-2, epochs=15),
    "wide_deep": WideDeepOptions(buckets=512, **FIELDS),
    "deepfm": DeepFMOptions(**FIELDS),
    "ltr": LTROptions(hidden=(8, 6), encoder=ENCODER, lr=1e-2, epochs=15),
    "pareto": ParetoOptions(**CRITICS),
    "tscac": TSCACOptions(**CRITICS),
    "massa": MASSAOptions(signal=3, signal_hidden=6, **CRITICS),
}
REPLAY = ReplayOptions(batch_size=32)
LEARNING = LearningOptions(epochs=2, steps=4, check_every=2, conflict_every=0)


def planted_feed(seed=0):
    """Watch time is 6 s times the item's number; the upper half is liked in every other way, the lower half hated."""
    feed = toy_feed(seed)
    d = feed.decisions
    number = d.candidates.unsqueeze(-1)
    upper = (number >= N_ITEMS // 2).float()
    answers = torch.cat([upper.expand(-1, -1, HATE), 1 - upper, upper, 6.0 * number], -1)
    d.response.copy_(torch.where(d.shown.unsqueeze(-1), answers, torch.nan))
    return feed


def rank_correlation(policy, feed, index):
    """Mean over decisions of the correlation of scores' and items' ranks."""
    states = batch(feed, index, ENCODER.history)
    with torch.no_grad():
        scores = policy.scores(states)
    pairs = [torch.stack([s[m].argsort().argsort(), c[m].argsort().argsort()]).double()
             for s, c, m in zip(scores, states.candidates, states.mask, strict=True)]  # fmt: skip
    return float(torch.stack([torch.corrcoef(p)[0, 1] for p in pairs]).mean())
