"""The planted-truth world of KuaiSAR: generation, and the official folder with the truth beside it.

Two scenarios share items, users and social graph; a user's interest in search is the interest in recommendation turned by a planted angle,
so that what one scenario teaches about the other is known: cos(angle).

Source: METHODS §8.2 (synthetic generator), §5.2; ARCHITECTURE choices 2 and 7. Rates of the feed are those of KuaiRand's
single-column tab, clicks of results those of its two-column tab at a rate of the parameters: no real KuaiSAR row was at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from reelrank.sources import kuaisar_schema as official
from reelrank.worlds import kuaisar_files as files
from reelrank.worlds import latent
from reelrank.worlds.folder import EXPOSURES_FILE, REQUESTS_FILE, TRUTH_FOLDER, write_once
from reelrank.worlds.kuaisar_options import WorldOptions
from reelrank.worlds.kuaisar_search import Searches, draw_searches, turned
from reelrank.worlds.kuaisar_truth import save_search_truth
from reelrank.worlds.policy import Policy, calibrate
from reelrank.worlds.population import draw_population, logging_policy, seed_of
from reelrank.worlds.response import (
    HEAD_QUALITY,
    HEADS,
    N_TABS,
    USER,
    Doubles,
    Response,
    skip_records,
    tab_records,
    video_records,
)
from reelrank.worlds.sessions import HOURLY, SESSION_COLUMNS, Log, Schedule, simulate, tab_cdf
from reelrank.worlds.truth import save_truth

__all__ = ["World", "WorldOptions", "generate", "write_world"]

LOG_DURATION = (11.1, 0.98)  # mean and sd of log ms
DURATION_BOUNDS_MS = (5_000, 1_200_000)
PICTURE_SHARE = 0.05
LATE_SHARE = 0.2  # of items uploaded while the log runs; the others in the 60 days before it
EARLIEST_DAY, LATEST_DAY = -60, 7
CALIBRATION_REQUESTS = 600
ROWS_AT_ONCE = 100_000  # of a log file


class World(NamedTuple):
    """A generated world before it is written."""

    feed: Response
    search: Response
    policy: Policy
    catalogue: files.Catalogue
    graph: latent.SocialGraph
    topics: latent.Floats
    logs: list[Log]
    searches: Searches


def write_world(options: WorldOptions, root: Path) -> Path:
    """Write the world to ``root`` unless it stands there already.

    ``<root>/<official folder>`` gets every official file, ``<root>/_truth`` what
    :class:`reelrank.worlds.kuaisar_truth.ScenarioTruth` reads.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds files that no world wrote.
    """
    return write_once(root, options, lambda folder: _write(options, generate(options), folder))


def generate(options: WorldOptions) -> World:
    """Draw latents, calibrate the responses, simulate the feed and the searches that follow its requests."""
    o = options
    topics, items, _, graph, interests = draw_population(o, o.items)
    rng = latent.stream(o.seed, "scenarios")
    towards, across = (latent.draw_interests(rng, o.users, topics) for _ in range(2))
    in_search = turned(interests, towards, across, o.scenario_angle)
    catalogue = _draw_catalogue(o, items.topic)
    feed, search = _draw_responses(o, interests, in_search, items, catalogue)
    policy = logging_policy(o, catalogue.popularity)
    rng = latent.stream(o.seed, "schedule")
    activity = np.exp(rng.normal(0, o.activity_sd, o.users))
    rows_of_user = o.exposures_per_user * activity / activity.mean()
    start_ms, stop_ms = official.PERIODS[o.variant]
    feed, p_return = calibrate(
        feed,
        policy,
        rng.choice(o.users, CALIBRATION_REQUESTS, p=rows_of_user / rows_of_user.sum()),
        rng.integers(start_ms, stop_ms, CALIBRATION_REQUESTS),
        seed=seed_of(o.seed, "calibration"),
        n_shown=max(1, min(o.candidates, round(o.request_rows))),
        return_rule=(o.return_rule.intercept, o.return_rule.slope),
    )
    schedule = _schedule(o, rows_of_user, p_return)
    logs = simulate(seed_of(o.seed, "log"), feed, policy, schedule, rows_of_user)
    searches = draw_searches(
        latent.stream(o.seed, "searches"),
        o,
        files.feed_of(logs),
        search,
        topics,
        catalogue.topic.astype(np.int64),
        catalogue.popularity,
        catalogue.is_picture,
        stop_ms,
    )
    search.tabs["tap"][official.SEARCH] = searches.tap
    return World(feed, search, policy, catalogue, graph, topics, logs, searches)


def _draw_catalogue(o: WorldOptions, topic: latent.Ints) -> files.Catalogue:
    rng = latent.stream(o.seed, "catalogue")
    popularity = np.exp(rng.normal(0, o.popularity_sd, o.items))
    duration = np.exp(rng.normal(*LOG_DURATION, o.items)).clip(*DURATION_BOUNDS_MS)
    late = rng.random(o.items) < LATE_SHARE
    day = np.where(
        late,
        rng.integers(1, LATEST_DAY + 1, o.items),
        rng.integers(EARLIEST_DAY, 1, o.items),
    )
    is_picture = rng.random(o.items) < PICTURE_SHARE
    return files.Catalogue(topic, np.rint(duration).astype(np.int64), day, is_picture, popularity)


def _draw_responses(
    o: WorldOptions,
    interests: latent.Interests,
    in_search: latent.Interests,
    items: latent.Items,
    catalogue: files.Catalogue,
) -> tuple[Response, Response]:
    """Responses of feed and search, which differ in interests alone; intercepts are still to be calibrated."""
    rng = latent.stream(o.seed, "response")
    start_ms, _ = official.PERIODS[o.variant]
    pairs = rng.integers(0, o.users, 20_000), rng.integers(0, o.items, 20_000)
    cosine = np.einsum("nd,nd->n", interests.start[pairs[0]], items.vector[pairs[1]])
    scale = np.float32(o.affinity_sd / cosine.std())
    users = np.zeros(o.users, USER)
    users["speed"] = interests.speed
    users["engage"] = rng.normal(0, o.user_sd / 2, o.users)
    first_day_ms = start_ms - (start_ms + official.UTC_OFFSET_MS) % official.DAY_MS
    videos = video_records(
        catalogue.duration_ms, first_day_ms + catalogue.upload_day * official.DAY_MS
    )
    videos["quality"] = rng.normal(0, o.quality_sd, o.items)
    for head, slope in zip(HEADS, HEAD_QUALITY, strict=True):
        users[head] = rng.normal(0, o.user_sd, o.users)
        videos[head] = slope * videos["quality"] + rng.normal(0, o.item_sd, o.items)
    tabs = tab_records()
    feed = Response(
        start=interests.start * scale,
        turn=interests.turn * scale,
        vectors=items.vector,
        users=users,
        videos=videos,
        tabs=tabs,
        skips=skip_records(tabs, videos),
        origin_ms=start_ms,
    )
    search = feed._replace(
        start=in_search.start * scale, turn=in_search.turn * scale, tabs=tabs.copy()
    )
    return feed, search


def _schedule(o: WorldOptions, rows_of_user: Doubles, p_return: float) -> Schedule:
    """Times between sessions that give each user the rows to expect, under the return rule."""
    start_ms, stop_ms = official.PERIODS[o.variant]
    days = (stop_ms - start_ms) / official.DAY_MS
    relative = rows_of_user / o.exposures_per_user
    soon, after = 0.52, 1.0  # mean days to a return within 24 h, and least days to a later one
    shortest = p_return * soon + (1 - p_return) * (after + 0.05)
    sessions = np.minimum(rows_of_user / (o.session_rows * relative**0.3), 0.95 * days / shortest)
    gap = np.minimum(days / sessions, days)
    later = np.maximum((gap - p_return * soon) / (1 - p_return) - after, 0.02)
    only_rec = np.zeros(N_TABS)
    only_rec[official.REC] = 1.0
    return Schedule(
        gap_ms=gap * official.DAY_MS,
        later_ms=later * official.DAY_MS,
        session_rows=rows_of_user / sessions,
        request_rows=o.request_rows,
        start_ms=start_ms,
        stop_ms=stop_ms,
        random_start_ms=stop_ms,
        random_rate=0.0,
        hourly=HOURLY / HOURLY.max(),
        utc_offset_ms=official.UTC_OFFSET_MS,
        tab_cdf=tab_cdf(only_rec),
        tab_stay=0.0,
        return_intercept=o.return_rule.intercept,
        return_slope=o.return_rule.slope,
    )


def _write(o: WorldOptions, world: World, root: Path) -> None:
    """Write official files and truth under ``root``."""
    folder, truth = root / official.FOLDERS[o.variant][0], root / TRUTH_FOLDER
    for path in (folder, truth):
        path.mkdir(parents=True)
    words = files.vocabulary(latent.stream(o.seed, "words"), o.topics)
    searches, start_ms = world.searches, official.PERIODS[o.variant][0]
    rec = files.rec_inter(world.logs, world.catalogue, searches)
    src = files.src_inter(latent.stream(o.seed, "queries"), searches, words)
    n_rec = np.bincount(rec["user_id"], minlength=o.users)
    n_search = np.bincount(searches.user, minlength=o.users)
    tables = {
        "rec_inter": rec.drop("request", "position", "propensity"),
        "src_inter": src,
        "user_features": files.user_features(latent.stream(o.seed, "users"), n_rec, n_search),
        "item_features": files.item_features(
            latent.stream(o.seed, "files"), world.catalogue, words, start_ms
        ),
        "social_network": files.social_network(world.graph),
    }
    for role, table in tables.items():
        table.write_csv(folder / f"{role}.csv", datetime_format="%Y-%m-%d %H:%M:%S", batch_size=ROWS_AT_ONCE)  # fmt: skip
    _write_truth(o, world, rec, truth)


def _write_truth(o: WorldOptions, world: World, rec: pl.DataFrame, folder: Path) -> None:
    rec.select(
        pl.lit("rec_inter.csv", pl.Enum(["rec_inter.csv"])).alias("file"),
        pl.int_range(2, pl.len() + 2, dtype=pl.Int64).alias("line"),
        "propensity",
        pl.col("position").cast(pl.Int16),
        "request",
    ).write_ipc(folder / EXPOSURES_FILE)
    candidates = np.concatenate([log.candidates for log in world.logs])
    pl.DataFrame({"request": np.arange(len(candidates)), "candidates": candidates}).with_columns(
        pl.col("candidates").arr.to_list()
    ).write_ipc(folder / REQUESTS_FILE)
    sessions = np.concatenate([log.sessions for log in world.logs])
    pl.DataFrame(sessions, schema=list(SESSION_COLUMNS), orient="row").with_columns(
        pl.col("user_id", "start_ms", "end_ms", "n_rows").cast(pl.Int64),
        pl.col("returned").cast(pl.Boolean),
    ).write_parquet(folder / "sessions.parquet")
    edges = pl.DataFrame({"src": world.graph.src, "dst": world.graph.dst})
    edges.write_parquet(folder / "social_edges.parquet")
    save_truth(folder, o.model_dump(mode="json"), world.feed, world.policy)
    searches = world.searches
    queries = pl.DataFrame(
        {
            "search_session_id": np.arange(1, len(searches.user) + 1),
            "user_id": searches.user,
            "ts_ms": searches.ts_ms,
            "topic": searches.topic,
            "rec_line": searches.feed_row + 2,
        }
    ).with_columns(rec_line=pl.when(pl.col("rec_line") >= 2).then("rec_line"))
    save_search_truth(folder, world.search, world.topics, queries)
