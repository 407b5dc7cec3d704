r"""The search scenario: an interest of its own, queries from the topics' vocabulary, results and clicks.

A user's search interest is the recommendation interest turned by the planted angle a, at every time:

.. math:: \theta_s(t) = \cos(\omega t)(\cos a\,s + \sin a\,p) + \sin(\omega t)(\cos a\,\tau + \sin a\,q)

with p, q orthonormal to each other and to start s and turn τ, so that cos(θ_s(t), θ(t)) = cos a. A request of the feed is followed by a search with
a probability of the user; the query's topic is drawn by softmax of the search interest, or is that of the watched item. Results are items
of the query's topic by popularity. A result is clicked with probability σ(tap + affinity + quality + user level).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from reelrank.sources.kuaisar_schema import DAY_MS, ITEM_TYPES, N_VIDEO_TYPES, SEARCH
from reelrank.worlds.kuaisar_options import WorldOptions
from reelrank.worlds.latent import Floats, Interests, unit
from reelrank.worlds.response import Doubles, Response, expected_rows

Integers = NDArray[np.int64]
AFTER_REQUEST_MS = (5_000, 50_000)  # requests are at least a minute apart
OVERDRAW = 3  # results drawn per result shown: some repeat, some are not uploaded yet
FIRST_OTHER_ID = 10**11  # ids of what is no item lie beyond those of items
AT_ONCE = 50_000  # searches whose topics are drawn at once


class Feed(NamedTuple):
    """The rows of the recommendation log in (user, time) order, (n,) each."""

    user: Integers
    item: Integers
    ts_ms: Integers
    position: Integers  # in the request


class Searches(NamedTuple):
    """S search sessions in (user, time) order and the R things they showed."""

    user: Integers  # (S,)
    ts_ms: Integers  # (S,)
    topic: Integers  # (S,) of the query
    feed_row: Integers  # (S,) row of the feed from which the search was begun, −1 = none
    search: Integers  # (R,) session, ascending
    item: Integers  # (R,) raw id
    kind: Integers  # (R,) place in ITEM_TYPES
    clicks: Integers  # (R,)
    tap: float  # calibrated intercept of the click


def turned(interests: Interests, towards: Floats, across: Floats, angle: float) -> Interests:
    """Interests turned by ``angle`` out of their plane, towards ``towards`` and ``across`` (U, d)."""
    plane = [interests.start, interests.turn]
    for vectors in (towards, across):
        rest = vectors
        for _ in range(2):  # once more, for what rounding left
            for axis in plane:
                rest = rest - np.sum(rest * axis, axis=1, keepdims=True) * axis
        plane.append(unit(rest))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    start, turn, out, beside = plane
    return Interests(cos * start + sin * out, cos * turn + sin * beside, interests.speed)


def interests_at(response: Response, user: Integers, ts_ms: Integers) -> Floats:
    """Interests times the affinity scale, (n, d)."""
    angle = response.users["speed"][user] * (ts_ms - response.origin_ms) / DAY_MS
    cos, sin = (f(angle).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    return np.asarray(cos * response.start[user] + sin * response.turn[user], np.float32)


class _Begun(NamedTuple):
    """Search sessions before they show anything, (S,) each."""

    user: Integers
    ts_ms: Integers
    topic: Integers
    feed_row: Integers


def draw_searches(
    rng: np.random.Generator,
    o: WorldOptions,
    feed: Feed,
    response: Response,
    topics: Floats,
    item_topic: Integers,
    popularity: Doubles,
    is_picture: NDArray[np.bool_],
    stop_ms: int,
) -> Searches:
    """Searches after requests of the feed, with results and clicks.

    Args:
        rng: of the searches.
        o: parameters.
        feed: the recommendation log.
        response: of the search scenario; the intercept of its click does not matter.
        topics: topic centres (K, d).
        item_topic: topic of each item (V,).
        popularity: of each item (V,).
        is_picture: whether an item is a picture set (V,).
        stop_ms: end of the log.
    """
    begun = _begin(rng, o, feed, response, topics, item_topic, stop_ms)
    upload_ms = response.videos["upload_ms"]
    search, item = _results(rng, o, begun, upload_ms, item_topic, popularity)
    found, search = np.unique(search, return_inverse=True)  # a search without results is none
    begun = _Begun(*(values[found] for values in begun))
    is_other = item >= FIRST_OTHER_ID
    item_or_any = np.where(is_other, 0, item)
    other_kind = rng.integers(N_VIDEO_TYPES, len(ITEM_TYPES), len(item))
    kind = np.where(is_other, other_kind, is_picture[item_or_any])
    shown = (begun.user[search], item_or_any, begun.ts_ms[search], np.full(len(item), SEARCH))
    engagement = logit(expected_rows(response, *shown)[0]) - response.tabs["tap"][SEARCH]
    tap = _intercept(engagement[~is_other], o.search_click_rate)
    p = np.where(is_other, o.search_click_rate, expit(tap + engagement))
    clicks = (rng.random(len(item)) < p) * rng.geometric(0.8, len(item))
    return Searches(*begun, search, item, kind, clicks, tap)


def _begin(
    rng: np.random.Generator,
    o: WorldOptions,
    feed: Feed,
    response: Response,
    topics: Floats,
    item_topic: Integers,
    stop_ms: int,
) -> _Begun:
    """Who searches when, for what topic, and from which row of the feed."""
    first = np.flatnonzero(feed.position == 0)
    length = np.diff(first, append=len(feed.user))
    propensity = rng.gamma(2.0, 0.5, o.users)[feed.user[first]]
    rate = o.searches_per_user * o.users / propensity.sum()
    after = np.flatnonzero(rng.random(len(first)) < np.minimum(rate * propensity, 0.95))
    ts_ms = feed.ts_ms[first[after]] + rng.integers(*AFTER_REQUEST_MS, len(after))
    after, ts_ms = after[ts_ms < stop_ms], ts_ms[ts_ms < stop_ms]
    n, user = len(after), feed.user[first[after]]
    watched = first[after] + (rng.random(n) * length[after]).astype(np.int64)
    is_from_feed = rng.random(n) < o.from_feed
    is_related = is_from_feed & (rng.random(n) < o.related_share)
    topic = np.empty(n, np.int64)
    for start in range(0, n, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        logits = o.query_focus * interests_at(response, user[part], ts_ms[part]) @ topics.T
        topic[part] = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    topic = np.where(is_related, item_topic[feed.item[watched]], topic)
    return _Begun(user, ts_ms, topic, np.where(is_from_feed, watched, -1))


def _results(
    rng: np.random.Generator,
    o: WorldOptions,
    begun: _Begun,
    upload_ms: Doubles,
    item_topic: Integers,
    popularity: Doubles,
) -> tuple[Integers, Integers]:
    """Session and raw id of everything shown: distinct within a session, uploaded by then, (R,) each."""
    n = len(begun.user)
    n_shown = 1 + rng.poisson(o.search_rows - 1, n)
    search = np.repeat(np.arange(n), OVERDRAW * n_shown)
    is_about = rng.random(len(search)) < o.relevance
    item = _draw_by_topic(rng, begun.topic[search], is_about, item_topic, popularity, o.topics)
    is_new = np.zeros(len(search), bool)
    is_new[np.unique(search * len(item_topic) + item, return_index=True)[1]] = True
    keep = np.flatnonzero(is_new & (upload_ms[item] <= begun.ts_ms[search]))
    place = np.arange(len(keep)) - np.searchsorted(search[keep], search[keep])
    keep = keep[place < n_shown[search[keep]]]
    other = FIRST_OTHER_ID + rng.integers(0, 10**9, len(keep))
    return search[keep], np.where(rng.random(len(keep)) < o.other_types, other, item[keep])


def _draw_by_topic(
    rng: np.random.Generator,
    topic: Integers,
    is_about: NDArray[np.bool_],
    item_topic: Integers,
    popularity: Doubles,
    n_topics: int,
) -> Integers:
    """Items by popularity among those of a topic; among all where ``is_about`` is false or the topic has none, (n,)."""
    order = np.argsort(item_topic, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(popularity[order])])
    edge = np.searchsorted(item_topic[order], np.arange(n_topics + 1))
    low, high = edge[topic], edge[topic + 1]
    is_about = is_about & (low < high)
    low, high = np.where(is_about, low, 0), np.where(is_about, high, len(order))
    x = total[low] + rng.random(len(topic)) * (total[high] - total[low])
    place = np.clip(np.searchsorted(total, x, "right") - 1, low, high - 1)
    return np.asarray(order[place])


def _intercept(engagement: Doubles, rate: float) -> float:
    """The intercept that gives a mean click rate."""
    if not len(engagement):
        return float(logit(rate))
    return float(brentq(lambda tap: float(expit(tap + engagement).mean()) - rate, -30, 30))
