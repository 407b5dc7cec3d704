"""The planted-truth world of Weibo: a follow graph whose users pass posts on, in files that name the viewers.

What the feed shows does not depend on who forwarded what: influence acts on forwarding only, so that its planted strength is what an
unconfounded comparison finds. Source: METHODS §8.2 (synthetic generator), MT-07; ARCHITECTURE choices 2 and 7.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reelrank.worlds import latent
from reelrank.worlds.folder import write_once
from reelrank.worlds.population import draw_population
from reelrank.worlds.weibo_files import Posts, Views, WeiboWorld, write_files
from reelrank.worlds.weibo_options import WeiboWorldOptions
from reelrank.worlds.weibo_truth import ACTIONS, DAY_MS, WeiboResponse, sigmoid

START_MS = 1_433_088_000_000  # 2015-06-01 00:00 Asia/Shanghai
HOUR_MS = 3_600_000
ROW_GAP_MS = 20_000  # between two posts of a session
ROWS_AT_ONCE = 1 << 20
AUTHORS_LOOKED_AT = 8


def write_world(options: WeiboWorldOptions, root: Path) -> Path:
    """Write the world to ``root`` unless it stands there already.

    ``mapping.yml`` with its four files serves the variant viewers, Tianchi's folders (same posts, counts in place of viewers) the variant
    tianchi, ``_truth`` what :class:`reelrank.worlds.weibo_truth.WeiboTruth` reads.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds files that no world wrote.
    """
    return write_once(root, options, lambda folder: write_files(options, generate(options), folder))


def generate(options: WeiboWorldOptions) -> WeiboWorld:
    """Draw latents, posts and a feed, and let forwards spread over the follow graph."""
    o = options
    _, items, own, graph, interests = draw_population(o, o.posts)
    response = _draw_response(o, interests, items)
    posts = _draw_posts(o, own, items)
    user, post, ts_ms = _draw_views(o, graph, posts)
    logits = response.logits(user, post, ts_ms)
    chance = latent.stream(o.seed, "actions").random(logits.shape)
    followed_from = np.searchsorted(graph.src, np.arange(o.users + 1))
    forward = ACTIONS.index("forward")
    forwarded, influenced, parent = _spread(
        user,
        post,
        ts_ms,
        logits[forward],
        chance[forward],
        o.influence,
        round(o.influence_window_h * HOUR_MS),
        followed_from,
        graph.dst,
        o.posts,
    )
    probability = sigmoid(logits)
    done = chance < probability
    done[forward] = forwarded
    views = Views(user, post, ts_ms, probability, influenced, done, parent)
    return WeiboWorld(response, posts, graph, views)


def _draw_response(
    o: WeiboWorldOptions, interests: latent.Interests, items: latent.Items
) -> WeiboResponse:
    rng = latent.stream(o.seed, "response")
    pairs = rng.integers(0, o.users, 20_000), rng.integers(0, o.posts, 20_000)
    cosine = np.einsum("nd,nd->n", interests.start[pairs[0]], items.vector[pairs[1]])
    scale = np.float32(o.affinity_sd / cosine.std())
    rates = np.array([getattr(o.rates, name) for name in ACTIONS])
    return WeiboResponse(
        start=interests.start * scale,
        turn=interests.turn * scale,
        speed=interests.speed,
        vectors=items.vector,
        quality=rng.normal(0, o.quality_sd, o.posts),
        intercepts=np.log(rates / (1 - rates)),
        origin_ms=START_MS,
    )


def _draw_posts(o: WeiboWorldOptions, own: latent.Floats, items: latent.Items) -> Posts:
    """Authors of like interest, times from ``feed_days`` before the log on."""
    rng = latent.stream(o.seed, "posts")
    seen = rng.integers(0, o.users, (o.posts, AUTHORS_LOOKED_AT))
    cosine = np.einsum("pkd,pd->pk", own[seen], items.vector)
    chosen = np.argmax(o.homophily * cosine + rng.gumbel(size=seen.shape), axis=1)
    stop = START_MS + o.days * DAY_MS
    ts_ms = np.sort(rng.integers(START_MS - round(o.feed_days * DAY_MS), stop, o.posts))
    author = seen[np.arange(o.posts), chosen].astype(np.int32)
    popularity = rng.normal(0, o.popularity_sd, o.posts)
    return Posts(author, items.topic, ts_ms // 1000 * 1000, popularity)


def _draw_views(
    o: WeiboWorldOptions, graph: latent.SocialGraph, posts: Posts
) -> tuple[latent.Ints, latent.Ints, NDArray[np.int64]]:
    """User, post and time of all views in order of time; nobody sees a post twice.

    A session is a run of views ``ROW_GAP_MS`` apart. The feed looks at a few posts that are young enough and shows one, followed authors and
    popular posts first.
    """
    rng = latent.stream(o.seed, "feed")
    activity = rng.normal(0, o.activity_sd, o.users)
    mean_rows = o.exposures_per_user * np.exp(activity - np.log(np.mean(np.exp(activity))))
    n_rows = np.maximum(rng.poisson(mean_rows), 1)
    n_sessions = np.maximum(np.rint(n_rows / o.session_rows).astype(np.int64), 1)
    begin = rng.integers(START_MS, START_MS + o.days * DAY_MS - HOUR_MS, n_sessions.sum())
    user = np.repeat(np.arange(o.users, dtype=np.int32), n_rows)
    within = (rng.random(len(user)) * n_sessions[user]).astype(np.int64)
    session = np.sort((np.cumsum(n_sessions) - n_sessions)[user] + within)
    rank = np.arange(len(user)) - np.searchsorted(session, session)
    ts_ms = begin[session] // 1000 * 1000 + rank * ROW_GAP_MS
    edges = graph.src * np.int64(o.users) + graph.dst
    post = np.empty(len(user), np.int32)
    for start in range(0, len(user), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        post[rows] = _show(o, rng, edges, posts, user[rows], ts_ms[rows])
    order = np.lexsort((user, ts_ms))
    order = order[post[order] >= 0]
    _, first = np.unique(user[order] * np.int64(o.posts) + post[order], return_index=True)
    order = order[np.sort(first)]
    return user[order], post[order], ts_ms[order]


def _show(
    o: WeiboWorldOptions,
    rng: np.random.Generator,
    edges: NDArray[np.int64],
    posts: Posts,
    user: latent.Ints,
    ts_ms: NDArray[np.int64],
) -> latent.Ints:
    """The post that each view shows, −1 where none is young enough; ``edges`` are sorted keys src · U + dst."""
    oldest = np.searchsorted(posts.ts_ms, ts_ms - round(o.feed_days * DAY_MS))
    n_young = np.searchsorted(posts.ts_ms, ts_ms) - oldest
    looked = rng.random((len(user), o.candidates)) * np.maximum(n_young, 1)[:, None]
    candidate = np.minimum(oldest[:, None] + looked.astype(np.int64), o.posts - 1)
    keys = user[:, None] * np.int64(o.users) + posts.author[candidate]
    is_followed = np.isin(keys, edges)
    score = posts.popularity[candidate] + o.follow_bonus * is_followed + rng.gumbel(size=keys.shape)
    shown = candidate[np.arange(len(user)), np.argmax(score, axis=1)]
    return np.where(n_young > 0, shown, -1).astype(np.int32)


@njit(cache=True, nogil=True)
def _spread(
    user: NDArray[np.int32],
    post: NDArray[np.int32],
    ts_ms: NDArray[np.int64],
    logit: NDArray[np.float64],
    chance: NDArray[np.float64],
    influence: float,
    window_ms: int,
    followed_from: NDArray[np.int64],
    followed: NDArray[np.int32],
    n_posts: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int32]]:
    """Walk the views in order of time and decide who forwards.

    Args:
        user: (n,) who sees.
        post: (n,) what.
        ts_ms: (n,) when, not decreasing.
        logit: (n,) log-odds of forwarding without influence.
        chance: (n,) uniform draws.
        influence: log-odds added where a followed user forwarded the post before.
        window_ms: how long ago that may have been.
        followed_from: (U + 1,) where each user's followed start in ``followed``.
        followed: (E,) sorted inside a user.
        n_posts: number of posts.

    Returns:
        Whether each view led to a forward, whether it was influenced, and the latest influencer who was passed on (−1 = none).
    """
    forwarded, influenced = np.zeros(len(user), np.bool_), np.zeros(len(user), np.bool_)
    parent = np.full(len(user), -1, np.int32)
    latest = np.full(n_posts, -1, np.int64)  # a post's last forward, and from each the one before
    before = np.full(len(user), -1, np.int64)
    for i in range(len(user)):
        own = followed[followed_from[user[i]] : followed_from[user[i] + 1]]
        source = -1
        j = latest[post[i]]
        while j >= 0 and ts_ms[i] - ts_ms[j] <= window_ms:
            if ts_ms[j] < ts_ms[i]:
                at = np.searchsorted(own, user[j])
                if at < len(own) and own[at] == user[j]:
                    source = user[j]
                    break
            j = before[j]
        influenced[i] = source >= 0
        odds = logit[i] + influence * influenced[i]
        if chance[i] < 1.0 / (1.0 + np.exp(-odds)):
            forwarded[i] = True
            parent[i] = source
            before[i] = latest[post[i]]
            latest[post[i]] = i
    return forwarded, influenced, parent
