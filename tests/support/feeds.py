"""Small feeds made by hand, with a response that is known."""

import numpy as np
import torch

from reelrank.models.feed import (
    RESPONSES,
    WATCH_TIME,
    Decisions,
    FeedBatch,
    FeedInputs,
    FeedRows,
    ItemFeatures,
)
from reelrank.models.user_features import UserFeatures

HOUR = 3_600_000
START = 1_650_000_000_000


def planted_rates(n_items, seed=0):
    """P of the six binary responses of each item, and its mean watch time in s, (n_items, 7)."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.05, 0.9, (n_items, len(RESPONSES)))
    rates[:, WATCH_TIME] = rng.uniform(2, 60, n_items)
    return rates


def draw_responses(rng, rates):
    """Responses (…, 7) by planted rates (…, 7); watch times are exponential."""
    out = (rng.random(rates.shape) < rates).astype(np.float32)
    out[..., WATCH_TIME] = rng.exponential(rates[..., WATCH_TIME])
    return out


def planted_feed(
    n_users=60, rows_of_user=40, n_items=12, seed=0, unknown=(), shares=None, n_scenarios=2
):
    """A feed of single-row decisions, the first 60 % of a user's rows train, then 20 % val and 20 % test; every fifth row is random.

    ``unknown`` names responses that are not logged; ``shares`` are the items' shares of exposure.
    """
    rng = np.random.default_rng(seed)
    n = n_users * rows_of_user
    item = rng.choice(n_items, n, p=shares)
    response = draw_responses(rng, planted_rates(n_items)[item])
    for name in unknown:
        response[:, RESPONSES.index(name)] = np.nan
    place = np.tile(np.arange(rows_of_user), n_users)
    ts = torch.from_numpy(START + place * HOUR)
    split = np.select([place < 0.6 * rows_of_user, place < 0.8 * rows_of_user], [0, 1], 2)
    items = torch.from_numpy(item)
    responses = torch.from_numpy(response)
    decisions = Decisions(
        user=torch.arange(n_users).repeat_interleave(rows_of_user),
        ts_ms=ts,
        scenario=torch.from_numpy(rng.integers(0, n_scenarios, n)),
        row=torch.arange(n),
        next=torch.full((n,), -1),
        candidates=items[:, None],
        shown=torch.ones(n, 1, dtype=torch.bool),
        response=responses[:, None],
        split=torch.from_numpy(split.astype(np.int8)),
        is_rand=torch.from_numpy(place % 5 == 4),
    )
    rows = FeedRows(items, ts, responses, torch.arange(n_users + 1) * rows_of_user)
    users = UserFeatures(torch.from_numpy(rng.integers(0, 3, (n_users, 2))), (3, 3), ("a", "b"))
    features = ItemFeatures(torch.from_numpy(rng.integers(0, 4, (n_items, 1))), (4,), ("c",))
    return FeedInputs(rows, decisions, users, features)


def batch_of(inputs, rows, history=10, candidates=None):
    """The decisions at ``rows`` of a :func:`planted_feed`, each with the same candidates (default: all items)."""
    rows = torch.as_tensor(rows)
    user = inputs.decisions.user[rows]
    place = rows[:, None] - history + torch.arange(history)
    inside = place >= inputs.rows.first[user][:, None]
    place = place.clamp(min=0)
    if candidates is None:
        candidates = torch.arange(len(inputs.items.codes))
    shown = candidates.expand(len(rows), -1)
    return FeedBatch(
        user_codes=inputs.users.codes[user],
        scenario=inputs.decisions.scenario[rows],
        hour=(inputs.decisions.ts_ms[rows] // HOUR + 8) % 24,
        history=torch.where(inside, inputs.rows.item[place], -1),
        feedback=torch.where(inside[..., None], inputs.rows.response[place], 0.0),
        candidates=shown,
        item_codes=inputs.items.codes[shown.clamp(min=0)],
    )
