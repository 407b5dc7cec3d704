"""The planted-truth world of KuaiRec: generation, and the official folder with the truth beside it.

One single-column feed in three bursts (the big matrix), and some users who watch every one of some videos (the small matrix). As in the
release no pair of the small matrix stands in the big one: the policy never draws those videos for those users, so its propensities
stay exact.

Source: METHODS §8.2 (synthetic generator), ARCHITECTURE choices 2 and 7. No likes are published, so watching is calibrated to the feed of
KuaiRand-Pure (tab 1); lengths of videos and the shares of the bursts are KuaiRec's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.sources import kuairec_schema as official
from reelrank.worlds import kuairec_files as files
from reelrank.worlds import latent
from reelrank.worlds.folder import EXPOSURES_FILE, REQUESTS_FILE, TRUTH_FOLDER, write_once
from reelrank.worlds.kuairand_files import Catalogue
from reelrank.worlds.kuairec_options import EARLY_SHARE, WorldOptions
from reelrank.worlds.policy import Policy, RandomState, alias_table, calibrate, seed_state
from reelrank.worlds.population import draw_population, logging_policy, seed_of
from reelrank.worlds.response import (
    DAY_MS,
    HEAD_QUALITY,
    HEADS,
    N_TABS,
    USER,
    VALUE_HEADS,
    Doubles,
    Odds,
    Response,
    affinity_of,
    interest_at,
    jit,
    odds_of,
    skip_records,
    tab_records,
    video_records,
)
from reelrank.worlds.sessions import (
    HOURLY,
    ROW_COLUMNS,
    SESSION_COLUMNS,
    Log,
    Schedule,
    observe,
    simulate,
)
from reelrank.worlds.shocks import ShockRule, draw_shocks
from reelrank.worlds.truth import Truth, save_truth

__all__ = ["World", "WorldOptions", "generate", "write_world"]

FEED_TAB = 1  # the feed of KuaiRand that watching is calibrated to
BURST_SHARES = tuple(n / sum(official.PUBLISHED_BURST_ROWS) for n in official.PUBLISHED_BURST_ROWS)
LOG_DURATION = 9.35  # mean of log ms: about 12 s
DURATION_BOUNDS_MS = (2_000, 315_072)  # the longest of the release
OLDEST_DAY, NEWEST_DAY = (
    -60,
    53,
)  # uploads, days from the release's first; the last burst has all videos
CALIBRATION_REQUESTS = 600
REQUEST_SPAN_MS = (
    58_000  # the rows of a request follow in less than the shortest minute to the next
)
PLAY = ROW_COLUMNS.index("play_time_ms")


class World(NamedTuple):
    """A generated world before it is written.

    ``log``: rows of the big matrix in (user, time) order: user_id, video_id, ts_ms, play_ms, then propensity, request, position, request_ms;
    ``candidates``: (m, C) of each request; ``observed``: user_id, video_id, ts_ms, play_ms, is_timed of every pair of the small matrix.
    """

    response: Response
    policy: Policy
    catalogue: Catalogue
    popularity: Doubles
    graph: latent.SocialGraph
    log: pl.DataFrame
    candidates: latent.Ints
    sessions: pl.DataFrame
    observed: pl.DataFrame


def write_world(options: WorldOptions, root: Path) -> Path:
    """Write the world to ``root`` unless it stands there already.

    ``<root>/KuaiRec 2.0/data`` gets the official files, ``<root>/_truth`` what :class:`reelrank.worlds.truth.Truth` reads (any scenario is the
    one feed; exposures have the time of their request in ``request_ms``, sessions are in request times and name their burst) and
    ``observed.parquet``: the true time of every row of the small matrix.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds files that no world wrote.
    """
    return write_once(root, options, lambda folder: _write(options, generate(options), folder))


def generate(options: WorldOptions) -> World:
    """Draw latents, calibrate the response, and simulate the big matrix burst by burst and the small one pair by pair."""
    o = options
    _, items, _, graph, interests = draw_population(o, o.videos)
    catalogue, popularity = _draw_catalogue(o, items.topic)
    rng = latent.stream(o.seed, "schedule")
    activity = rng.normal(0, o.activity_sd, o.users)
    rows_of_user = o.rows_per_user * np.exp(activity - np.log(np.mean(np.exp(activity))))
    response, policy, p_return = _calibrated(
        o, _draw_response(o, interests, items, catalogue), items.topic, popularity, rows_of_user
    )
    small_users, small_videos = _draw_small(o, catalogue)
    log, candidates, sessions = _simulate_big(
        o, response, policy, popularity, rows_of_user, p_return, small_users, small_videos
    )
    observed = _watch_all(o, response, small_users, small_videos)
    return World(
        response, policy, catalogue, popularity, graph, log, candidates, sessions, observed
    )


def _draw_catalogue(o: WorldOptions, topic: latent.Ints) -> tuple[Catalogue, Doubles]:
    """What is published of the videos, and their popularity (V,)."""
    rng = latent.stream(o.seed, "catalogue")
    popularity = np.exp(rng.normal(0, o.popularity_sd, o.videos))
    duration = np.exp(rng.normal(LOG_DURATION, o.duration_sd, o.videos)).clip(*DURATION_BOUNDS_MS)
    duration_ms = np.rint(duration).astype(np.int64)
    # early ones are spread evenly over the popularity ranks, so that a small world has popular ones too
    rank = np.argsort(np.argsort(-popularity))
    is_early = np.floor((rank + 1) * EARLY_SHARE) > np.floor(rank * EARLY_SHARE)
    early, late = rng.integers(OLDEST_DAY, 0, o.videos), rng.integers(0, NEWEST_DAY + 1, o.videos)
    day = np.where(is_early, early, late)
    return Catalogue(topic, duration_ms, duration_ms, day), popularity


def _draw_response(
    o: WorldOptions, interests: latent.Interests, items: latent.Items, catalogue: Catalogue
) -> Response:
    """The response model with intercepts still to be calibrated."""
    rng = latent.stream(o.seed, "response")
    pairs = rng.integers(0, o.users, 20_000), rng.integers(0, o.videos, 20_000)
    cosine = np.einsum("nd,nd->n", interests.start[pairs[0]], items.vector[pairs[1]])
    scale = np.float32(o.affinity_sd / cosine.std())
    users = np.zeros(o.users, USER)
    users["speed"] = interests.speed
    users["engage"] = rng.normal(0, o.user_sd / 2, o.users)
    upload_ms = official.RELEASE_START_MS + catalogue.upload_day * DAY_MS
    videos = video_records(catalogue.duration_ms, upload_ms)
    videos["quality"] = rng.normal(0, o.quality_sd, o.videos)
    for head, slope in zip(HEADS, HEAD_QUALITY, strict=True):
        users[head] = rng.normal(0, o.user_sd, o.users)
        videos[head] = slope * videos["quality"] + rng.normal(0, o.video_sd, o.videos)
    tabs = tab_records()
    return Response(
        start=interests.start * scale,
        turn=interests.turn * scale,
        vectors=items.vector,
        users=users,
        videos=videos,
        tabs=tabs,
        skips=skip_records(tabs, videos),
        origin_ms=official.RELEASE_START_MS,
    )


def _calibrated(
    o: WorldOptions,
    response: Response,
    topic: latent.Ints,
    popularity: Doubles,
    rows_of_user: Doubles,
) -> tuple[Response, Policy, float]:
    """The response as KuaiRand's feed in every tab, the logging policy, and the mean P(return within 24 h)."""
    value_weights = [getattr(o.value_weights, name) for name in VALUE_HEADS]
    policy = logging_policy(
        o, popularity, value_weights=value_weights if any(value_weights) else (), topic=topic
    )
    rng = latent.stream(o.seed, "calibration")
    burst = rng.choice(len(BURST_SHARES), CALIBRATION_REQUESTS, p=BURST_SHARES)
    start, stop = np.array(official.BURSTS).T
    response, p_return = calibrate(
        response,
        policy,
        rng.choice(o.users, CALIBRATION_REQUESTS, p=rows_of_user / rows_of_user.sum()),
        rng.integers(start[burst], stop[burst]),
        seed=seed_of(o.seed, "calibration"),
        n_shown=max(1, min(o.candidates, round(o.request_rows))),
        return_rule=(o.return_rule.intercept, o.return_rule.slope),
    )
    tabs = np.repeat(response.tabs[FEED_TAB : FEED_TAB + 1], N_TABS)
    skips = skip_records(tabs, response.videos)
    return response._replace(tabs=tabs, skips=skips), policy, p_return


def _draw_small(
    o: WorldOptions, catalogue: Catalogue
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and videos of the small matrix, sorted; the videos are older than the log, so that all can be watched at any time."""
    rng = latent.stream(o.seed, "small")
    early = np.flatnonzero(catalogue.upload_day < 0)
    users = rng.choice(o.users, o.small_users, replace=False)
    return np.sort(users), np.sort(rng.choice(early, o.small_videos, replace=False))


def _simulate_big(
    o: WorldOptions,
    response: Response,
    policy: Policy,
    popularity: Doubles,
    rows_of_user: Doubles,
    p_return: float,
    small_users: NDArray[np.int64],
    small_videos: NDArray[np.int64],
) -> tuple[pl.DataFrame, latent.Ints, pl.DataFrame]:
    """Rows, candidate sets and sessions of the big matrix: a simulation for each burst of those in the small matrix and of the others."""
    without = popularity.copy()
    without[small_videos] = 0
    others = np.setdiff1d(np.arange(o.users), small_users)
    rows: list[pl.DataFrame] = []
    sessions: list[pl.DataFrame] = []
    candidates: list[latent.Ints] = []
    n_requests = 0
    for users, weights in ((small_users, without), (others, popularity)):
        keep, other = alias_table(weights)
        own = response._replace(
            start=response.start[users], turn=response.turn[users], users=response.users[users]
        )
        drawing = policy._replace(alias_keep=keep, alias_other=other)
        for number, ((start, stop), share) in enumerate(zip(official.BURSTS, BURST_SHARES, strict=True)):  # fmt: skip
            expected = rows_of_user[users] * share
            schedule = _schedule(o, expected, p_return, start, stop)
            seed = seed_of(o.seed, f"log/{len(rows)}")
            for log in simulate(seed, own, drawing, schedule, expected):
                rows.append(_rows_of(log, users, n_requests))
                sessions.append(_sessions_of(log, users, number, seed, schedule.shock))
                candidates.append(log.candidates)
                n_requests += len(log.candidates)
    timed = _spread(latent.stream(o.seed, "times"), pl.concat(rows)).sort("user_id", "ts_ms")
    return timed, np.concatenate(candidates), pl.concat(sessions).sort("user_id", "start_ms")


def _schedule(o: WorldOptions, rows: Doubles, p_return: float, start: int, stop: int) -> Schedule:
    """Times between sessions that give each user the rows to expect in one burst, under the return rule.

    A burst is short beside the longer pauses, so the first session starts as in a stream of sessions that had been going on for
    long: uniform up to E[pause²] / E[pause], which may lie beyond the burst.
    """
    days = (stop - start) / DAY_MS
    soon, after = 0.52, 1.0  # mean days to a return within 24 h, and least days to a later one
    shortest = p_return * soon + (1 - p_return) * (after + 0.05)
    relative = rows / rows.mean()
    sessions = np.minimum(rows / (o.session_rows * relative**0.3), 0.95 * days / shortest)
    later = np.maximum((days / sessions - p_return * soon) / (1 - p_return) - after, 0.02)
    pause = p_return * soon + (1 - p_return) * (after + later)
    square = p_return * soon**2 * 4 / 3 + (1 - p_return) * ((after + later) ** 2 + later**2)
    return Schedule(
        gap_ms=square / pause * DAY_MS,
        later_ms=later * DAY_MS,
        session_rows=rows / sessions,
        request_rows=o.request_rows,
        start_ms=start,
        stop_ms=stop - REQUEST_SPAN_MS,
        random_start_ms=stop,
        random_rate=0.0,
        hourly=HOURLY / HOURLY.max(),
        utc_offset_ms=official.UTC_OFFSET_MS,
        tab_cdf=np.ones(N_TABS),
        tab_stay=0.0,
        return_intercept=o.return_rule.intercept,
        return_slope=o.return_rule.slope,
        shock=ShockRule(o.shock.sd, o.shock.endogenous, o.topics, official.UTC_OFFSET_MS),
    )


def _rows_of(log: Log, users: NDArray[np.int64], first_request: int) -> pl.DataFrame:
    columns = dict(zip(ROW_COLUMNS, log.rows, strict=True))
    return pl.DataFrame(
        {
            "user_id": users[columns["user_id"]],
            "video_id": columns["video_id"],
            "play_ms": columns["play_time_ms"],
            "propensity": log.propensity,
            "request": columns["request"].astype(np.int64) + first_request,
            "position": columns["position"].astype(np.int16),
            "request_ms": log.ts_ms,
        }
    )


def _sessions_of(
    log: Log, users: NDArray[np.int64], burst: int, seed: int, rule: ShockRule
) -> pl.DataFrame:
    sessions = pl.DataFrame(log.sessions, schema=list(SESSION_COLUMNS), orient="row").cast(
        {"user_id": pl.Int64, "start_ms": pl.Int64, "end_ms": pl.Int64, "n_rows": pl.Int64, "returned": pl.Boolean}
    )  # fmt: skip
    user_id = sessions["user_id"].to_numpy()
    topic, size = draw_shocks(seed, user_id, sessions["start_ms"].to_numpy(), rule)
    return sessions.with_columns(
        user_id=pl.Series(users[user_id]),
        burst=pl.lit(burst, pl.Int8),
        shock_topic=pl.Series(topic).replace(-1, None),
        shock_size=pl.Series(size),
    )


def _spread(rng: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with times of their own (``ts_ms``): those of a request follow one another within a minute."""
    place = (pl.col("position") + pl.Series(rng.random(rows.height))) / pl.len().over("request")
    return rows.with_columns(ts_ms=pl.col("request_ms") + (place * REQUEST_SPAN_MS).cast(pl.Int64))


def _watch_all(
    o: WorldOptions,
    response: Response,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
) -> pl.DataFrame:
    """Every user of the small matrix with every video of it, at times of their own."""
    rng = latent.stream(o.seed, "observed")
    shape = len(users), len(videos)
    ts_ms = rng.integers(official.RELEASE_START_MS, official.RELEASE_STOP_MS, shape)
    play_ms = watch_pairs(seed_of(o.seed, "watching"), odds_of(response), users, videos, ts_ms)
    return pl.DataFrame(
        {
            "user_id": np.repeat(users, len(videos)),
            "video_id": np.tile(videos, len(users)),
            "ts_ms": ts_ms.ravel(),
            "play_ms": play_ms.ravel(),
            "is_timed": rng.random(ts_ms.size) >= o.untimed_share,
        }
    )


@jit
def watch_pairs(
    seed: int,
    r: Odds,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
) -> latent.Ints:
    """Play time in ms of each user with each video at a time, all (B, C); each user has a random stream of their own."""
    start, turn, vectors, video_table = r.start, r.turn, r.vectors, r.videos
    out = np.empty(ts_ms.shape, np.int32)
    interest = np.empty(vectors.shape[1], np.float32)
    row = np.zeros((17, 1), np.int32)
    state: RandomState = np.zeros(1, np.uint64)
    tab = r.tabs[0]
    for i in range(len(users)):
        seed_state(state, seed, users[i])
        user = r.users[users[i]]
        for j in range(len(videos)):
            angle = user.speed * (ts_ms[i, j] - r.origin_ms) / DAY_MS
            interest_at(start, turn, users[i], angle, interest)
            affinity = affinity_of(vectors, videos[j], interest)
            observe(state, tab, user, video_table[videos[j]], affinity, row, 0)
            out[i, j] = row[PLAY, 0]
    return out


def _write(o: WorldOptions, world: World, root: Path) -> None:
    """Write official files and truth under ``root``."""
    data, truth = root / official.FOLDERS[o.variant][0] / "data", root / TRUTH_FOLDER
    for folder in (data, truth):
        folder.mkdir(parents=True)
    expected = Truth(root, {}, world.response, world.policy).expected_matrix

    def path_of(role: str) -> Path:
        return data / f"{official.FILES[role][0]}.csv"

    catalogue = world.catalogue
    files.write_matrix(world.log, catalogue, path_of("big_matrix"))
    files.write_matrix(files.small_order(world.observed), catalogue, path_of("small_matrix"))
    videos = latent.stream(o.seed, "videos")
    for role, table in {
        "user_features": files.user_features(latent.stream(o.seed, "users"), o.users, world.graph),
        "item_categories": files.item_categories(latent.stream(o.seed, "tags"), catalogue),
        "social_network": files.social_network(
            latent.stream(o.seed, "listed"), o.users, world.graph, o.listed_share
        ),
        "item_daily_features": files.item_daily(
            latent.stream(o.seed, "daily"),
            files.video_attributes(videos, catalogue),
            catalogue,
            o.daily_shows * world.popularity / world.popularity.mean(),
            files.mean_response(latent.stream(o.seed, "platform"), o.users, o.videos, expected),
        ),
    }.items():
        table.write_csv(path_of(role))
    files.write_captions(latent.stream(o.seed, "captions"), catalogue, path_of("captions"))
    _write_truth(o, world, truth)


def _requests(world: World) -> pl.DataFrame:
    """Candidates, user and session (place in ``world.sessions``) of every request, in the order in which requests are numbered."""
    rows = world.log.filter(pl.col("position") == 0).sort("request")
    sessions = world.sessions.select("user_id", request_ms="start_ms").with_row_index("session")
    placed = (
        rows.select("request", "user_id", "request_ms")
        .sort("user_id", "request_ms")
        .join_asof(sessions, on="request_ms", by="user_id", check_sortedness=False)
        .sort("request")
    )
    return placed.select(
        "request",
        candidates=pl.Series(world.candidates).arr.to_list(),
        user_id="user_id",
        session=pl.col("session").cast(pl.Int64),
    )


def _write_truth(o: WorldOptions, world: World, folder: Path) -> None:
    name = f"{official.FILES['big_matrix'][0]}.csv"
    world.log.select(
        pl.lit(name, pl.Enum([name])).alias("file"),
        line=pl.int_range(2, pl.len() + 2),
        propensity="propensity",
        position="position",
        request="request",
        request_ms="request_ms",
    ).write_ipc(folder / EXPOSURES_FILE)
    _requests(world).write_ipc(folder / REQUESTS_FILE)
    world.sessions.write_parquet(folder / "sessions.parquet")
    world.observed.drop("play_ms").write_parquet(folder / "observed.parquet")
    edges = pl.DataFrame({"src": world.graph.src, "dst": world.graph.dst})
    edges.write_parquet(folder / "social_edges.parquet")
    save_truth(folder, o.model_dump(mode="json"), world.response, world.policy)
