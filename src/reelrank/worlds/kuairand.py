"""The planted-truth world of KuaiRand: generation, and the official folder with the truth beside it.

Source: METHODS §8.2 (synthetic generator), ARCHITECTURE choices 2 and 7. Marginals are set from the real rows of KuaiRand-Pure
(``response.TAB_PROFILES``, ``sessions.HOURLY``); no row is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from reelrank.sources import kuairand_schema as official
from reelrank.worlds import kuairand_files as files
from reelrank.worlds import latent
from reelrank.worlds.folder import TRUTH_FOLDER, write_once
from reelrank.worlds.kuairand_logs import Scribe, write_logs
from reelrank.worlds.kuairand_options import WorldOptions
from reelrank.worlds.policy import Policy, calibrate
from reelrank.worlds.population import draw_items, draw_population, logging_policy, seed_of
from reelrank.worlds.response import (
    HEAD_QUALITY,
    HEADS,
    TAB_PROFILES,
    USER,
    Doubles,
    Response,
    skip_records,
    tab_records,
    video_records,
)
from reelrank.worlds.sessions import HOURLY, Schedule, simulate_blocks, tab_cdf
from reelrank.worlds.truth import save_truth

__all__ = ["World", "WorldOptions", "generate", "write_world"]

DAYS = (official.RELEASE_STOP_MS - official.RELEASE_START_MS) // official.DAY_MS
RANDOM_START_MS = official.RELEASE_START_MS + 14 * official.DAY_MS
EARLY_SHARE = (
    0.25  # videos uploaded in the week before the log, so that its first day has something to show
)
UPLOAD_SHARES = (0.373, 0.452, 0.175)  # of the rest on 04-09, 04-10, 04-11, as in the real file
LOG_DURATION = (
    11.1,
    0.98,
)  # mean and sd of log ms; real file 11.14 and 1.03, with a lighter upper tail
DURATION_BOUNDS_MS = (5_000, 1_200_000)
CALIBRATION_REQUESTS = 600
NULL_DURATION_EVERY = 64  # 1.56 % of rows: every 64th video by popularity


class World(NamedTuple):
    """A generated world before its logs are simulated; U users."""

    response: Response
    policy: Policy
    catalogue: files.Catalogue
    graph: latent.SocialGraph
    schedule: Schedule
    rows_of_user: Doubles  # (U,) to expect, random ones included


def write_world(options: WorldOptions, root: Path) -> Path:
    """Write the world to ``root`` unless it stands there already.

    ``<root>/KuaiRand-Pure/data`` gets every official file (no random log if nothing is shown at random), ``…/modal`` one Parquet file per modality, ``<root>/_truth`` what
    :class:`reelrank.worlds.truth.Truth` reads.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds files that no world wrote.
    """
    return write_once(root, options, lambda folder: _write(options, folder))


def generate(options: WorldOptions) -> World:
    """Draw latents and calibrate the response to the real rates."""
    o = options
    _, items, _, graph, interests = draw_population(o, o.videos)
    catalogue, popularity = _draw_catalogue(o, items.topic)
    response = _draw_response(o, interests, items, catalogue)
    policy = logging_policy(o, popularity)
    rng = latent.stream(o.seed, "schedule")
    rows_of_user = draw_rows_of_user(rng, o)
    sample = rng.choice(o.users, CALIBRATION_REQUESTS, p=rows_of_user / rows_of_user.sum())
    sample_ms = rng.integers(
        official.RELEASE_START_MS, official.RELEASE_STOP_MS, CALIBRATION_REQUESTS
    )
    response, p_return = calibrate(
        response,
        policy,
        sample,
        sample_ms,
        seed=seed_of(o.seed, "calibration"),
        n_shown=max(1, min(o.candidates, round(o.request_rows))),
        return_rule=(o.return_rule.intercept, o.return_rule.slope),
        feedback_rate=o.feedback_rate,
    )
    schedule = make_schedule(o, rows_of_user, p_return)
    all_rows = rows_of_user * (1 + o.random_per_user / o.exposures_per_user)
    return World(response, policy, catalogue, graph, schedule, all_rows)


def draw_rows_of_user(rng: np.random.Generator, o: WorldOptions) -> Doubles:
    """Rows of the standard logs to expect of each user, (U,)."""
    activity = rng.normal(0, o.activity_sd, o.users)
    relative = np.exp(activity - np.log(np.mean(np.exp(activity))))
    return np.asarray(o.exposures_per_user * relative)


def _draw_catalogue(o: WorldOptions, topic: latent.Ints) -> tuple[files.Catalogue, Doubles]:
    """What is published of the videos, and their popularity (V,)."""
    rng = latent.stream(o.seed, "catalogue")
    popularity = np.exp(rng.normal(0, o.popularity_sd, o.videos))
    duration = np.exp(rng.normal(*LOG_DURATION, o.videos)).clip(*DURATION_BOUNDS_MS)
    duration_ms = np.rint(duration).astype(np.int64)
    late = rng.choice([1, 2, 3], o.videos, p=UPLOAD_SHARES)
    # early ones are spread evenly over the popularity ranks, so that a small world has them too
    rank = np.argsort(np.argsort(-popularity))
    early = rank % round(1 / EARLY_SHARE) == 0
    day = np.where(early, rng.integers(-7, 0, o.videos), late)
    null = rank % NULL_DURATION_EVERY == NULL_DURATION_EVERY // 2
    return files.Catalogue(topic, duration_ms, np.where(null, 0, duration_ms), day), popularity


def _draw_response(
    o: WorldOptions, interests: latent.Interests, items: latent.Items, catalogue: files.Catalogue
) -> Response:
    """The response model with intercepts still to be calibrated."""
    rng = latent.stream(o.seed, "response")
    pairs = rng.integers(0, o.users, 20_000), rng.integers(0, o.videos, 20_000)
    cosine = np.einsum("nd,nd->n", interests.start[pairs[0]], items.vector[pairs[1]])
    scale = np.float32(o.affinity_sd / cosine.std())
    users = np.zeros(o.users, USER)
    users["speed"] = interests.speed
    users["engage"] = rng.normal(0, o.user_sd / 2, o.users)
    videos = video_records(
        catalogue.duration_ms, official.RELEASE_START_MS + catalogue.upload_day * official.DAY_MS
    )
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


def make_schedule(o: WorldOptions, rows_of_user: Doubles, p_return: float) -> Schedule:
    """Times between sessions that give each user the rows to expect, under the return rule."""
    relative = rows_of_user / o.exposures_per_user
    soon, after = 0.52, 1.0  # mean days to a return within 24 h, and least days to a later one
    shortest = p_return * soon + (1 - p_return) * (after + 0.05)
    sessions = np.minimum(rows_of_user / (o.session_rows * relative**0.3), 0.95 * DAYS / shortest)
    gap = np.minimum(DAYS / sessions, DAYS)
    later = np.maximum((gap - p_return * soon) / (1 - p_return) - after, 0.02)
    random_days = (official.RELEASE_STOP_MS - RANDOM_START_MS) / official.DAY_MS
    return Schedule(
        gap_ms=gap * official.DAY_MS,
        later_ms=later * official.DAY_MS,
        session_rows=rows_of_user / sessions,
        request_rows=o.request_rows,
        start_ms=official.RELEASE_START_MS,
        stop_ms=official.RELEASE_STOP_MS,
        random_start_ms=RANDOM_START_MS,
        random_rate=o.random_per_user / (o.exposures_per_user * random_days / DAYS),
        hourly=HOURLY / HOURLY.max(),
        utc_offset_ms=official.UTC_OFFSET_MS,
        tab_cdf=tab_cdf(TAB_PROFILES[:, 0]),
        tab_stay=o.tab_stay,
        return_intercept=o.return_rule.intercept,
        return_slope=o.return_rule.slope,
    )


def _write(o: WorldOptions, root: Path) -> None:
    """Write official files, modalities and truth under ``root``; two threads, the logs in one go with their simulation."""
    data, modal = (root / official.FOLDERS[o.variant] / name for name in ("data", "modal"))
    truth = root / TRUTH_FOLDER
    for path in (data, modal, truth):
        path.mkdir(parents=True)
    paths = {
        role: data / f"{n.format(variant=o.variant)}.csv" for role, (n, _) in official.FILES.items()
    }
    with ThreadPoolExecutor(2) as pool:
        # one thread writes the modalities while the other draws the users
        jobs = [pool.submit(_write_modal, o, draw_items(o, o.videos)[1].vector, modal)]
        world = generate(o)
        attributes: dict[str, Callable[[], pl.DataFrame]] = {
            "user_features": partial(
                files.user_features, latent.stream(o.seed, "users"), o.users, world.graph
            ),
            "video_features_basic": partial(
                files.video_basic, latent.stream(o.seed, "videos"), world.catalogue
            ),
            "captions": partial(files.captions, latent.stream(o.seed, "captions"), world.catalogue),
            "categories": partial(files.categories, world.catalogue),
        }
        jobs += [pool.submit(_write_table, make, paths[role]) for role, make in attributes.items()]
        jobs.append(pool.submit(_write_params, o, world, truth))
        scribe = Scribe(seed_of(o.seed, "files"), world.catalogue)
        blocks = simulate_blocks(
            scribe.write,
            pool,
            seed_of(o.seed, "log"),
            world.response,
            world.policy,
            world.schedule,
            world.rows_of_user,
        )
        write_logs(blocks, paths, truth)
        statistics = partial(files.video_statistics, *scribe.totals, world.catalogue)
        _write_table(statistics, paths["video_features_statistic"])
        for job in jobs:
            job.result()


def _write_table(make: Callable[[], pl.DataFrame], path: Path) -> None:
    make().write_csv(path)


def _write_modal(o: WorldOptions, vectors: latent.Floats, folder: Path) -> None:
    for name, m in (("visual", o.visual), ("audio", o.audio), ("text", o.text)):
        arrays, present = latent.modal_sequences(
            latent.stream(o.seed, f"modal/{name}"), vectors, **m.model_dump()
        )
        values = pl.Series(arrays.reshape(len(arrays), -1), dtype=pl.List(pl.Float32))
        pl.DataFrame(
            {
                "video_id": np.arange(len(arrays)),
                "n_tokens": np.where(present, m.tokens, 0).astype(np.int16),
                "dim": np.full(len(arrays), m.dim, np.int16),
                "array": values,
                "present": present,
            }
        ).with_columns(
            array=pl.when("present").then("array").otherwise(pl.lit([], pl.List(pl.Float32)))
        ).write_parquet(folder / f"{name}.parquet", compression="lz4", statistics=False)


def _write_params(o: WorldOptions, world: World, folder: Path) -> None:
    edges = pl.DataFrame({"src": world.graph.src, "dst": world.graph.dst})
    edges.write_parquet(folder / "social_edges.parquet")
    save_truth(folder, o.model_dump(mode="json"), world.response, world.policy)
