r"""The planted response of a user to a video: watch time and feedback with closed-form expectations.

A row is *opened* with probability ``o`` (single-column tabs: a constant; two-column tabs: a tap, logistic in the
engagement e = affinity + quality + user bias). The play time of an opened row is a mixture of three lognormals,

.. math:: (1-g)\,LN(\mu_s, \sigma_s) + g(1-c)\,LN(\mu_p, \sigma_p) + g c\,LN(\log D + \mu_c, \sigma_c)

skip, partial and complete play of a video of length D; g = σ(engage_tab + e), c = σ(complete + e/2 − (log D − 11)/2),
μ_p = partial_tab + 0.4 (log D − 11) + 0.2 e. ``is_click`` is valid play in single-column tabs and the tap in two-column tabs,
``long_view`` the official rule on play time (SCHEMAS §2.1); like, follow, comment, forward (only if opened) and hate are
logistic. So every expectation is a sum of normal tails. The tab profiles were measured on the real rows of KuaiRand-Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from reelrank.worlds.latent import Floats

Doubles = NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])

EXPECTED = (
    "click", "long_view", "like", "follow", "comment", "forward", "hate", "watch_ratio", "play_ms",
)  # fmt: skip
HEADS = EXPECTED[2:7]  # the logistic heads; their order is that of every (…, 5) array
VALID_PLAY_MS = 7_000  # SCHEMAS §2.1: is_click in single-column tabs
LONG_VIEW_MS = 18_000  # SCHEMAS §2.1: long_view
WATCH_RATIO_CAP = 2.0  # METHODS §3.8
LOG_DURATION_CENTRE = 11.0  # log ms, about a minute
COMPLETE_INTERCEPT = -1.2
COMPLETE_MEAN, COMPLETE_SD = 0.04, 0.08
PARTIAL_SD = 1.2
SQRT2 = math.sqrt(2.0)

# One row per tab 0…14: share of standard rows, two-column?, P(opened) of single-column tabs, skip component (log ms, sd),
# then the rates to hold: click, long_view, like, follow, comment, forward, hate. Tabs of fewer than 1,000 real rows take the
# rare rates of all tabs; where clicks are never logged beside plays (11, 14) the share of played rows stands for the tap.
TAB_PROFILES: Doubles = np.array(
    [
        [0.08804, 1, 0.0000, 8.40, 1.10, 0.0845, 0.0369, 0.00506, 0.00033, 0.00073, 0.00020, 0.00087],
        [0.75991, 0, 0.9938, 7.46, 0.46, 0.4954, 0.3498, 0.01900, 0.00139, 0.00280, 0.00100, 0.00079],
        [0.02965, 0, 0.9951, 7.36, 0.41, 0.4965, 0.3748, 0.01542, 0.00336, 0.00336, 0.00158, 0.00198],
        [0.00141, 1, 0.0000, 8.40, 1.10, 0.0167, 0.0050, 0.00100, 0.00010, 0.00020, 0.00010, 0.00080],
        [0.05945, 0, 0.9701, 7.60, 0.55, 0.5917, 0.4530, 0.01873, 0.00030, 0.00237, 0.00049, 0.00059],
        [0.00261, 0, 0.9955, 7.46, 0.46, 0.2764, 0.1730, 0.01000, 0.00120, 0.00200, 0.00080, 0.00080],
        [0.04926, 0, 0.9995, 7.36, 0.44, 0.1521, 0.0847, 0.00738, 0.00190, 0.00143, 0.00024, 0.00048],
        [0.00053, 1, 0.0000, 8.40, 1.10, 0.4667, 0.2111, 0.01700, 0.00130, 0.00250, 0.00090, 0.00080],
        [0.00471, 1, 0.0000, 8.40, 1.10, 0.0461, 0.0249, 0.00250, 0.00020, 0.00050, 0.00010, 0.00080],
        [0.00052, 1, 0.0000, 8.40, 1.10, 0.9888, 0.2022, 0.01700, 0.00130, 0.00250, 0.00090, 0.00080],
        [0.00023, 1, 0.0000, 8.40, 1.10, 0.9900, 0.7250, 0.01700, 0.00130, 0.00250, 0.00090, 0.00080],
        [0.00097, 1, 0.0000, 8.40, 1.10, 0.3434, 0.1807, 0.01700, 0.00130, 0.00250, 0.00090, 0.00080],
        [0.00221, 1, 0.0000, 8.40, 1.10, 0.1114, 0.0928, 0.00500, 0.00040, 0.00080, 0.00030, 0.00080],
        [0.00040, 0, 0.9999, 7.46, 0.46, 0.6957, 0.4638, 0.01700, 0.00130, 0.00250, 0.00090, 0.00080],
        [0.00010, 1, 0.0000, 8.40, 1.10, 0.8125, 0.3750, 0.01700, 0.00130, 0.00250, 0.00090, 0.00080],
    ]
)  # fmt: skip
N_TABS = len(TAB_PROFILES)


class Response(NamedTuple):
    """Every array that the response depends on; U users, V videos, d latent width, 15 tabs, 5 heads."""

    start: Floats  # (U, d) interest at time 0, times the affinity scale
    turn: Floats  # (U, d) direction it rotates towards, times the affinity scale
    speed: Floats  # (U,) radians per day
    user_bias: Floats  # (U, 6) engagement, then the heads
    vector: Floats  # (V, d)
    quality: Floats  # (V,)
    video_bias: Floats  # (V, 5)
    log_duration: Doubles  # (V,) log ms
    head_affinity: Doubles  # (5,) slope of each head on the affinity
    head_quality: Doubles  # (5,) slope of each head on the quality
    two_column: NDArray[np.bool_]  # (15,)
    opened: Doubles  # (15,) P(opened) in single-column tabs
    tap: Doubles  # (15,) intercept of the tap in two-column tabs
    engage: Doubles  # (15,) intercept of g
    partial: Doubles  # (15,) location of the partial play, log ms
    head: Doubles  # (15, 5) intercepts of the heads
    skip_mean: Doubles  # (15,)
    skip_sd: Doubles  # (15,)
    log_valid: Doubles  # (V,) log of the least play time that is a valid play
    log_long: Doubles  # (V,) log of the least play time that is a long view
    complete_valid: Doubles  # (V,) P(valid play | complete play)
    complete_long: Doubles  # (V,)
    skip_valid: Doubles  # (15, V) P(valid play | skipped)
    skip_long: Doubles  # (15, V)
    skip_ratio: Doubles  # (15, V) E[min(play/duration, 2) | skipped]
    origin_ms: int  # time 0 of the interests, UTC epoch ms


def jit(function: F) -> F:
    """Compile with Numba, cached on disk and free of the interpreter lock."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@jit
def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)."""
    return 1.0 / (1.0 + math.exp(-x))


@jit
def tail(mean: float, sd: float, log_threshold: float) -> float:
    """P(X ≥ threshold) of a lognormal."""
    return 0.5 * math.erfc((log_threshold - mean) / (sd * SQRT2))


@jit
def capped_mean(mean: float, sd: float, log_cap: float) -> float:
    """E[min(X, cap)] of a lognormal."""
    below = 0.5 * math.erfc((mean + sd * sd - log_cap) / (sd * SQRT2))
    return math.exp(mean + 0.5 * sd * sd) * below + math.exp(log_cap) * tail(mean, sd, log_cap)


@jit
def interest_at(r: Response, user: int, ts_ms: int, out: Floats) -> None:
    """θ_u(t), scaled, into ``out`` (d,): exact at any time."""
    angle = r.speed[user] * (ts_ms - r.origin_ms) / 86_400_000.0
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    for k in range(len(out)):
        out[k] = cos * r.start[user, k] + sin * r.turn[user, k]


@jit
def affinity_of(r: Response, interest: Floats, video: int) -> float:
    """⟨θ_u(t), z_v⟩ on the logit scale."""
    total = np.float32(0.0)
    for k in range(len(interest)):
        total += interest[k] * r.vector[video, k]
    return float(total)


@jit
def play_parts(
    r: Response, tab: int, user: int, video: int, affinity: float
) -> tuple[float, float, float, float]:
    """P(opened), P(engaged | opened), P(complete | engaged), and the location of the partial play."""
    engagement = affinity + r.quality[video] + r.user_bias[user, 0]
    length = r.log_duration[video] - LOG_DURATION_CENTRE
    opened = sigmoid(r.tap[tab] + engagement) if r.two_column[tab] else r.opened[tab]
    engaged = sigmoid(r.engage[tab] + engagement)
    complete = sigmoid(COMPLETE_INTERCEPT + 0.5 * engagement - 0.5 * length)
    return opened, engaged, complete, r.partial[tab] + 0.4 * length + 0.2 * engagement


@jit
def head_probability(
    r: Response, tab: int, user: int, video: int, affinity: float, head: int
) -> float:
    """P(head | opened) of a logistic head; hate does not need the row to be opened."""
    return sigmoid(
        r.head[tab, head]
        + r.head_affinity[head] * affinity
        + r.head_quality[head] * r.quality[video]
        + r.user_bias[user, head + 1]
        + r.video_bias[video, head]
    )


@jit
def feedback(
    r: Response, tab: int, user: int, video: int, affinity: float
) -> tuple[float, float, float, float, float, float, float]:
    """P of click, long_view, like, follow, comment, forward, hate."""
    opened, engaged, complete, mean = play_parts(r, tab, user, video, affinity)
    valid = (1 - engaged) * r.skip_valid[tab, video] + engaged * (
        (1 - complete) * tail(mean, PARTIAL_SD, r.log_valid[video])
        + complete * r.complete_valid[video]
    )
    long = (1 - engaged) * r.skip_long[tab, video] + engaged * (
        (1 - complete) * tail(mean, PARTIAL_SD, r.log_long[video])
        + complete * r.complete_long[video]
    )
    return (
        opened if r.two_column[tab] else opened * valid,
        opened * long,
        opened * head_probability(r, tab, user, video, affinity, 0),
        opened * head_probability(r, tab, user, video, affinity, 1),
        opened * head_probability(r, tab, user, video, affinity, 2),
        opened * head_probability(r, tab, user, video, affinity, 3),
        head_probability(r, tab, user, video, affinity, 4),
    )


@jit
def watch(r: Response, tab: int, user: int, video: int, affinity: float) -> tuple[float, float]:
    """E[min(play/duration, 2)] and E[play time in ms]."""
    opened, engaged, complete, mean = play_parts(r, tab, user, video, affinity)
    log_d = r.log_duration[video]
    log_cap = math.log(WATCH_RATIO_CAP)
    ratio = (1 - engaged) * r.skip_ratio[tab, video] + engaged * (
        (1 - complete) * capped_mean(mean - log_d, PARTIAL_SD, log_cap)
        + complete * capped_mean(COMPLETE_MEAN, COMPLETE_SD, log_cap)
    )
    play = (1 - engaged) * math.exp(r.skip_mean[tab] + 0.5 * r.skip_sd[tab] ** 2) + engaged * (
        (1 - complete) * math.exp(mean + 0.5 * PARTIAL_SD**2)
        + complete * math.exp(log_d + COMPLETE_MEAN + 0.5 * COMPLETE_SD**2)
    )
    return opened * ratio, opened * play


@jit
def expected_rows(
    r: Response,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    tabs: NDArray[np.int64],
) -> Doubles:
    """The nine expectations of ``EXPECTED`` for each row, (9, n)."""
    out = np.empty((9, len(users)))
    interest = np.empty(r.vector.shape[1], np.float32)
    for i in range(len(users)):
        if i == 0 or users[i] != users[i - 1] or ts_ms[i] != ts_ms[i - 1]:
            interest_at(r, users[i], ts_ms[i], interest)
        affinity = affinity_of(r, interest, videos[i])
        p = feedback(r, tabs[i], users[i], videos[i], affinity)
        for k in range(7):
            out[k, i] = p[k]
        out[7, i], out[8, i] = watch(r, tabs[i], users[i], videos[i], affinity)
    return out


def play_tables(duration_ms: NDArray[np.int64]) -> dict[str, Any]:
    """The parts of :class:`Response` that follow from durations and tab profiles alone.

    Play times are rounded to whole ms, so a rule "play ≥ c" is P(X ≥ c − ½) of the unrounded lognormal.
    """
    two_column, opened, skip_mean, skip_sd = TAB_PROFILES[:, 1:5].T.copy()
    log_duration = np.log(duration_ms)
    log_valid = np.log(np.where(duration_ms <= VALID_PLAY_MS, duration_ms, VALID_PLAY_MS + 1) - 0.5)
    log_long = np.log(np.minimum(duration_ms, LONG_VIEW_MS) - 0.5)
    tails, means = np.vectorize(tail), np.vectorize(capped_mean)
    complete = log_duration + COMPLETE_MEAN
    skip = skip_mean[:, None], skip_sd[:, None]
    return {
        "two_column": two_column > 0,
        "opened": opened,
        "skip_mean": skip_mean,
        "skip_sd": skip_sd,
        "log_duration": log_duration,
        "log_valid": log_valid,
        "log_long": log_long,
        "complete_valid": tails(complete, COMPLETE_SD, log_valid),
        "complete_long": tails(complete, COMPLETE_SD, log_long),
        "skip_valid": tails(*skip, log_valid),
        "skip_long": tails(*skip, log_long),
        "skip_ratio": means(skip[0] - log_duration, skip[1], math.log(WATCH_RATIO_CAP)),
    }
