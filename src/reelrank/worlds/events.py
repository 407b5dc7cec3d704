"""A store's log with planted truth: ``events.csv`` in two scenarios, its items and its mapping.

P(click) = σ(logit(rate of the scenario) + affinity), P(purchase | click) = σ(logit(buy rate) + affinity / 2); the reward is 1 for a click and
``purchase_reward`` more for a purchase. Search shows the best of a few products, home any.

Source: METHODS §8.1 (``events.csv``), ARCHITECTURE choice 7.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import save_file

from reelrank.worlds import latent
from reelrank.worlds.events_options import EventsWorldOptions
from reelrank.worlds.folder import TRUTH_FOLDER, write_once

START_MS = 1_714_521_600_000  # 2024-05-01 00:00 UTC
DAY_MS = 86_400_000
ROW_GAP_MS = 30_000  # between two rows of a visit
SCENARIOS = ("search", "home")
MAPPING = """\
# A store's own log: what its columns mean (reelrank.sources.events.EventsMapping).
logs: [events.csv]
user: user
item: item
time: {column: ts, unit: s}
scenario: {column: scenario, kind: text, values: [search, home]}
feedback: {click: click}
reward: reward
items: {file: items.csv, item: item, category_1: category, caption: title}
"""


def write_world(options: EventsWorldOptions, root: Path) -> Path:
    """Write the world to ``root`` unless it stands there already.

    ``_truth/rows.parquet`` has one row per line of the log: p_click and expected reward; ``_truth/arrays.safetensors`` interests (times the
    affinity scale) and product vectors, whose product is the affinity. Visitors and products are ``v<number>`` and ``i<number>``.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds files that no world wrote.
    """
    return write_once(root, options, lambda folder: _write(options, folder))


def _write(o: EventsWorldOptions, root: Path) -> None:
    (root / TRUTH_FOLDER).mkdir(parents=True)
    topics = latent.draw_topics(latent.stream(o.seed, "topics"), o.topics, o.latent_dim)
    items = latent.draw_items(latent.stream(o.seed, "items"), o.items, topics, o.topic_spread)
    interests = latent.draw_interests(latent.stream(o.seed, "interests"), o.users, topics)
    rng = latent.stream(o.seed, "log")
    pairs = rng.integers(0, o.users, 20_000), rng.integers(0, o.items, 20_000)
    cosine = np.einsum("nd,nd->n", interests[pairs[0]], items.vector[pairs[1]])
    interests = interests * np.float32(o.affinity_sd / cosine.std())
    user, ts_ms = _visits(o, rng)
    is_home = _scenarios(o, rng, user)
    shown = rng.integers(0, o.items, (len(user), o.candidates))
    affinities = np.einsum("nd,nkd->nk", interests[user], items.vector[shown])
    place = np.where(is_home, 0, np.argmax(affinities, axis=1))
    row = np.arange(len(user))
    item, affinity = shown[row, place], affinities[row, place].astype(np.float64)
    rate = np.where(is_home, o.home_rate, o.search_rate)
    p_click, p_buy = _raised(rate, affinity), _raised(o.buy_rate, affinity / 2)
    click = rng.random(len(user)) < p_click
    reward = click * (1 + o.purchase_reward * (rng.random(len(user)) < p_buy))
    order = np.lexsort((user, ts_ms))
    log = pl.DataFrame(
        {
            "user": _ids("v", user),
            "item": _ids("i", item),
            "scenario": np.array(SCENARIOS)[is_home.astype(int)],
            "ts": ts_ms // 1000,
            "reward": reward,
            "click": click.astype(np.int8),
        }
    )
    log[order].write_csv(root / "events.csv")
    numbers, topic = np.arange(o.items), items.topic
    pl.DataFrame({"item": _ids("i", numbers), "category": _ids("topic", topic)}).with_columns(
        title=pl.format('{}, the "{}"', "category", "item")
    ).write_csv(root / "items.csv")
    (root / "mapping.yml").write_text(MAPPING, encoding="utf-8")
    truth = {"p_click": p_click, "expected_reward": p_click * (1 + o.purchase_reward * p_buy)}
    pl.DataFrame(truth)[order].write_parquet(root / TRUTH_FOLDER / "rows.parquet")
    arrays = {"interests": interests, "vectors": items.vector}
    save_file(arrays, root / TRUTH_FOLDER / "arrays.safetensors")
    text = json.dumps({"options": o.model_dump(mode="json")}, indent=1)
    (root / TRUTH_FOLDER / "params.json").write_text(text + "\n", encoding="utf-8")


def _visits(
    o: EventsWorldOptions, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """User and time of every row, by user and time."""
    n_visits = 1 + rng.poisson(o.rows_per_user / o.session_rows, o.users)
    begin = START_MS + rng.integers(0, o.days * DAY_MS, n_visits.sum())
    visitor = np.repeat(np.arange(o.users), n_visits)
    n_rows = rng.geometric(1 / o.session_rows, len(begin))
    visit = np.repeat(np.arange(len(begin)), n_rows)
    rank = np.arange(len(visit)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    user, ts_ms = visitor[visit], begin[visit] + rank * ROW_GAP_MS
    order = np.lexsort((ts_ms, user))
    return user[order], ts_ms[order]


def _scenarios(
    o: EventsWorldOptions, rng: np.random.Generator, user: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each row is on the home page: drawn anew with P = 1 − ``stay``, else as the user's row before."""
    drawn = rng.random(len(user)) >= o.search_share
    is_new = (rng.random(len(user)) >= o.stay) | (np.diff(user, prepend=-1) != 0)
    return np.asarray(drawn[np.maximum.accumulate(np.where(is_new, np.arange(len(user)), 0))])


def _raised(rate: NDArray[np.float64] | float, affinity: NDArray[np.float64]) -> NDArray[np.float64]:  # fmt: skip
    """σ(logit(rate) + affinity)."""
    odds = np.asarray(rate) / (1 - np.asarray(rate)) * np.exp(affinity)
    return np.asarray(odds / (1 + odds))


def _ids(letter: str, numbers: NDArray[np.integer]) -> pl.Series:
    return pl.Series(letter, numbers).cast(pl.String).str.replace("^", letter)
