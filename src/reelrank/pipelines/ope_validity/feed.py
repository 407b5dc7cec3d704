"""The KuaiRand world's requests as a population: candidate sets with exact first-draw propensities, and planted responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from reelrank.evaluation.off_policy import (
    BehaviourOptions,
    BehaviourPolicy,
    BehaviourRows,
    fit_behaviour_policy,
    softened,
)
from reelrank.pipelines.ope_validity.population import FloatArray, IntArray, Population
from reelrank.sources.ingest import FILE_ROWS
from reelrank.sources.kuairand_schema import LOG_ROLES
from reelrank.sources.manifest import Manifest
from reelrank.worlds.policy import RandomState, seed_state
from reelrank.worlds.response import (
    DAY_MS,
    Odds,
    affinity_of,
    interest_at,
    jit,
    odds_of,
)
from reelrank.worlds.sessions import ROW_COLUMNS, observe
from reelrank.worlds.truth import REWARD_TERMS, Truth

WATCH_CAP = 2.0  # METHODS §3.8
PLAY = ROW_COLUMNS.index("play_time_ms")
LIKE, FOLLOW, COMMENT, FORWARD, HATE = (
    ROW_COLUMNS.index(f"is_{name}") for name in REWARD_TERMS[1:]
)


@dataclass(frozen=True, slots=True)
class Feed:
    """Requests of the standard log, users in order and each user's in the order of time.

    Attributes:
        population: the requests; actions are raw video ids.
        ts_ms: (R,) time of each request.
        scenario: (R,) tab.
        shown: (R,) column of the item that the log shows first.
        state: (R, d) what is known of the user before the request: shares of the categories shown to them and watched long.
        last: (R,) category of the last video before the request, the number of categories where there is none.
        popularity: (V,) exposures of each video + 1.
    """

    population: Population
    ts_ms: IntArray
    scenario: IntArray
    shown: IntArray
    state: FloatArray
    last: IntArray
    popularity: FloatArray


def read_feed(
    manifest: Manifest,
    interactions: pl.DataFrame,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    items: pl.DataFrame,
) -> Feed:
    """Join the log with the world's truth.

    Args:
        manifest: of a KuaiRand world.
        interactions: rows of the canonical table.
        user_map: dense to raw user ids.
        item_map: dense to raw video ids.
        items: ``Items``.

    Raises:
        FileNotFoundError: the files are no world.
    """
    truth = Truth.load(manifest.root.parent)
    category = _categories(items, item_map, len(truth.response.videos))
    rows = _shown_rows(truth, manifest, interactions, user_map, item_map)
    firsts = rows.filter(pl.col("position") == 0).unique("request", keep="first")
    firsts = firsts.sort("raw_user", "ts_ms", "request")
    user, ts, tab = (firsts[c].cast(pl.Int64).to_numpy() for c in ("raw_user", "ts_ms", "scenario"))
    action = np.array(firsts["candidates"].to_list(), np.int64)
    grid = (user[:, None], action, ts[:, None], tab[:, None])
    behaviour = softened(truth.logging_scores(*grid), 1.0)
    logged = firsts["raw_item"].to_numpy()
    shown = (action == logged[:, None]).argmax(axis=1)
    own = np.take_along_axis(behaviour, shown[:, None], axis=1)[:, 0]
    if not np.allclose(own, firsts["propensity"], rtol=1e-6):
        raise ValueError(f"{truth.root}: recomputed propensities differ from the stored ones")
    state, last = _states(rows, firsts, category)
    return Feed(
        population=Population(
            user=user,
            action=action,
            behaviour=behaviour,
            expected=truth.expected_immediate_reward(*grid),
            category=category,
            draw_reward=planted_reward(truth, user, ts, tab, action),
        ),
        ts_ms=ts,
        scenario=tab,
        shown=shown,
        state=state,
        last=last,
        popularity=np.bincount(rows["raw_item"], minlength=len(category)).astype(np.float64) + 1,
    )


def planted_reward(
    truth: Truth, user: IntArray, ts: IntArray, tab: IntArray, action: IntArray
) -> Any:  # noqa: ANN401 (a DrawReward; the name would hide what is drawn)
    """A draw of the immediate reward (METHODS §3.8, without the clip) of contexts × actions from the planted response."""
    odds = odds_of(truth.response)
    weights = np.array([truth.params["options"]["reward"][name] for name in REWARD_TERMS])

    def draw(rng: np.random.Generator, rows: IntArray, columns: IntArray) -> FloatArray:
        seed = int(rng.integers(2**62))
        return _draw_rewards(seed, odds, weights, user[rows], ts[rows], tab[rows], action[rows, columns])  # fmt: skip

    return draw


@jit
def _draw_rewards(
    seed: int,
    r: Odds,
    weights: FloatArray,
    users: IntArray,
    ts_ms: IntArray,
    tabs: IntArray,
    videos: IntArray,
) -> FloatArray:
    start, turn, vectors = r.start, r.turn, r.vectors
    user_table, video_table, tab_table = r.users, r.videos, r.tabs
    out = np.empty(len(users))
    interest = np.empty(vectors.shape[1], np.float32)
    row = np.zeros((17, 1), np.int32)
    state: RandomState = np.zeros(1, np.uint64)
    seed_state(state, seed, 0)
    for i in range(len(users)):
        user, video = user_table[users[i]], video_table[videos[i]]
        interest_at(start, turn, users[i], user.speed * (ts_ms[i] - r.origin_ms) / DAY_MS, interest)
        affinity = affinity_of(vectors, videos[i], interest)
        observe(state, tab_table[tabs[i]], user, video, affinity, row, 0)
        out[i] = (
            weights[0] * min(row[PLAY, 0] / video.duration_ms, WATCH_CAP)
            + weights[1] * row[LIKE, 0]
            + weights[2] * row[FOLLOW, 0]
            + weights[3] * row[COMMENT, 0]
            + weights[4] * row[FORWARD, 0]
            + weights[5] * row[HATE, 0]
        )
    return out


def behaviour_rows(feed: Feed, contexts: IntArray, columns: IntArray, *, leak: bool = False) -> BehaviourRows:  # fmt: skip
    """Choices as the model of π_b sees them.

    Args:
        feed: the requests.
        contexts: (n,) of them.
        columns: (n,) chosen column of each.
        leak: put the category of the chosen video where that of the last one before belongs (the defect that L6 forbids).
    """
    p = feed.population
    actions = p.action[contexts]
    chosen = actions[np.arange(len(actions)), columns]
    last = p.category[chosen] if leak else feed.last[contexts]
    n_categories = int(p.category.max()) + 1
    context = np.concatenate(
        [
            np.eye(int(feed.scenario.max()) + 1)[feed.scenario[contexts]],
            np.eye(n_categories + 1)[last],
            feed.state[contexts],
        ],
        axis=1,
    )
    return BehaviourRows(p.user[contexts], context, chosen, actions)


def fit_logging_policy(
    feed: Feed, train: IntArray, val: IntArray, options: BehaviourOptions, *, leak: bool = False
) -> BehaviourPolicy:
    """π̂_b from what the log shows first at the requests ``train``, calibrated on ``val``."""
    seen, held_out = (
        behaviour_rows(feed, rows, feed.shown[rows], leak=leak) for rows in (train, val)
    )
    return fit_behaviour_policy(seen, held_out, len(feed.population.category), options)


def fitted_probabilities(feed: Feed, fitted: BehaviourPolicy) -> FloatArray:
    """(R, C) π̂_b of every request, not below the floor, by the model that has not seen its user."""
    everything = np.arange(len(feed.shown))
    rows = behaviour_rows(feed, everything, feed.shown)
    return np.maximum(fitted.probabilities(rows), fitted.options.floor)


def _shown_rows(
    truth: Truth,
    manifest: Manifest,
    interactions: pl.DataFrame,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
) -> pl.DataFrame:
    """Rows of the standard log with their request's truth and raw ids."""
    number = {file.path.name: k for k, file in enumerate(manifest.files_of(*LOG_ROLES))}
    file_number = pl.col("file").cast(pl.String).replace_strict(number, return_dtype=pl.Int64)
    exposures = (
        truth.exposures()
        .filter(pl.col("request").is_not_null())
        .with_columns(row_id=file_number * FILE_ROWS + pl.col("line"))
        .collect()
    )
    rows = interactions.filter(pl.col("is_rand") == 0).join(exposures, on="row_id")
    raw_user, raw_item = (
        pl.Series(m["raw_id"].to_numpy()[rows[c].to_numpy()])
        for m, c in ((user_map, "user_id"), (item_map, "item_id"))
    )
    return rows.with_columns(raw_user=raw_user, raw_item=raw_item)


def _categories(items: pl.DataFrame, item_map: pl.DataFrame, n_videos: int) -> IntArray:
    """(V,) first tag of each raw video id, coded from 0; videos without one share a code."""
    code = items["tags"].list.first().fill_null(-1).rank("dense").to_numpy().astype(np.int64) - 1
    category = np.zeros(n_videos, np.int64)
    category[item_map["raw_id"].to_numpy()] = code
    return category


def _states(
    rows: pl.DataFrame, firsts: pl.DataFrame, category: IntArray
) -> tuple[FloatArray, IntArray]:
    """(R, 2G) shares of categories shown and watched long strictly before each request, and (R,) the last category."""
    n = int(category.max()) + 1
    order = dict(zip(firsts["request"].to_list(), range(firsts.height), strict=True))
    known = rows.filter(pl.col("request").is_in(list(order))).sort("ts_ms", "row_id")
    request = known["request"].replace_strict(order, return_dtype=pl.Int64).to_numpy()
    topic = category[known["raw_item"].to_numpy()]
    long = known["long_view"].fill_null(0).to_numpy()
    counts = np.zeros((firsts.height, 2 * n))
    np.add.at(counts, (request, topic), 1)
    np.add.at(counts, (request, n + topic), long)
    user = firsts["raw_user"].to_numpy()
    start = np.searchsorted(user, user)
    before = counts.cumsum(axis=0) - counts
    before -= before[start]
    total = before[:, :n].sum(axis=1, keepdims=True)
    of_request = np.zeros(firsts.height, np.int64)
    of_request[request] = topic  # rows are in time order: the last one stays
    last = np.where(start == np.arange(len(user)), n, np.roll(of_request, 1))
    return before / np.maximum(total, 1), last
