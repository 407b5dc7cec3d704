r"""The planted response of a user to a video: watch time and feedback with closed-form expectations.

A row is *opened* with probability ``o`` (single-column tabs: a constant; two-column tabs: a tap, logistic in the
engagement e = affinity + quality + user bias). The play time of an opened row is a mixture of three lognormals,

.. math:: (1-g)\,LN(\mu_s, \sigma_s) + g(1-c)\,LN(\mu_p, \sigma_p) + g c\,LN(\log D + \mu_c, \sigma_c)

skip, partial and complete play of a video of length D; g = σ(engage_tab + e), c = σ(complete_tab + e/2 − 0.7 (log D − 11)),
μ_p = 9.2 + 0.4 (log D − 11) + 0.2 e. ``is_click`` is valid play in single-column tabs and the tap in two-column tabs,
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
from scipy.special import ndtr

from reelrank.worlds.latent import Floats

Doubles = NDArray[np.float64]
Records = NDArray[np.void]
Record = Any  # one element of Records inside compiled code
F = TypeVar("F", bound=Callable[..., Any])

EXPECTED = (
    "click", "long_view", "like", "follow", "comment", "forward", "hate", "watch_ratio", "play_ms",
)  # fmt: skip
HEADS = EXPECTED[2:7]  # the logistic heads
VALUE_HEADS = ("complete", "long", "rewatch", "neg")  # METHODS §6.2
LONG_HEAD_MS, NEG_HEAD_MS = 12_000, 2_000
VALID_PLAY_MS = 7_000  # SCHEMAS §2.1: is_click in single-column tabs
LONG_VIEW_MS = 18_000  # SCHEMAS §2.1: long_view
LOG_CAP = math.log(2.0)  # METHODS §3.8: watch ratio capped at 2
DAY_MS = 86_400_000
LOG_DURATION_CENTRE = 11.0  # log ms, about a minute
PARTIAL_MEAN = 9.2  # log ms, of a video of that length
COMPLETE_MEAN, COMPLETE_SD = 0.04, 0.08
COMPLETE_RATIO = math.exp(
    COMPLETE_MEAN + COMPLETE_SD**2 / 2
)  # E[play/duration]; the cap at 2 is 8 sd away
PARTIAL_SD = 1.2
# slopes of the heads on affinity: like 0.8, follow 0.7, comment 0.4, forward 0.6, hate −0.7 [D: good videos please, bad ones are hated,
# no two heads collinear]; tenths, so that powers of one exponential serve all (`powers_of`)
HEAD_QUALITY = (0.6, 0.2, 0.9, 0.5, -0.3)

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


def _record(*names: str) -> np.dtype[np.void]:
    return np.dtype([(name, np.float64) for name in names])


# one record per user, video, tab, and (tab, video); what a head needs is the sum of its entries
USER = _record("speed", "engage", *HEADS)
VIDEO = _record(
    "quality", "log_duration", "log_valid", "log_long", "complete_valid", "complete_long", "upload_ms", *HEADS,
)  # fmt: skip
TAB = _record("two_column", "opened", "tap", "engage", "complete", "skip_mean", "skip_sd", *HEADS)
SKIP = _record("valid", "long", "ratio")
# the same as odds against, exp(−level): products of them and powers of exp(−affinity / 10) make every probability
USER_ODDS = _record("speed", "engage", "against", "half", *HEADS)
VIDEO_ODDS = _record(
    "quality", "log_duration", "duration_ms", "log_valid", "log_long", "complete_valid", "complete_long", "upload_ms",
    "against", "half", *HEADS,
)  # fmt: skip
TAB_ODDS = _record(
    "two_column", "opened", "tap", "engage", "complete", "skip_mean", "skip_sd", *HEADS
)
TAIL_REACH, TAIL_STEPS = 8.0, 64  # the table of the normal tail: sd on either side, places per sd


class Response(NamedTuple):
    """All that the response depends on; U users, V videos, d latent width, 15 tabs.

    ``users`` holds the speed of the interest (radians per day) and the user's own level of engagement and of each head;
    ``videos`` quality, log duration (ms), the least play times of the two rules (log ms), their probability in a complete play,
    upload time and level of each head; ``tabs`` the calibrated intercepts; ``skips`` the two rules and the capped watch ratio in a
    skipped play.
    """

    start: Floats  # (U, d) interest at time 0, times the affinity scale
    turn: Floats  # (U, d) direction it rotates towards, times the affinity scale
    vectors: Floats  # (V, d)
    users: Records  # (U,) USER
    videos: Records  # (V,) VIDEO
    tabs: Records  # (15,) TAB
    skips: Records  # (15, V) SKIP
    origin_ms: int  # time 0 of the interests, UTC epoch ms


class Odds(NamedTuple):
    """A ``Response`` in the form that compiled code works with; fields as there."""

    start: Floats
    turn: Floats
    vectors: Floats
    users: Records  # (U,) USER_ODDS
    videos: Records  # (V,) VIDEO_ODDS
    tabs: Records  # (15,) TAB_ODDS
    skips: Records
    origin_ms: int


def odds_of(r: Response) -> Odds:
    """Levels as odds against: exponentials are taken once per user, video and tab, not once per exposure."""
    users, videos = _odds(r.users, USER_ODDS), _odds(r.videos, VIDEO_ODDS)
    users["against"], users["half"] = np.exp(-r.users["engage"]), np.exp(-0.5 * r.users["engage"])
    length = r.videos["log_duration"] - LOG_DURATION_CENTRE
    videos["against"] = np.exp(-r.videos["quality"])
    videos["half"] = np.exp(-0.5 * r.videos["quality"] + 0.7 * length)
    videos["duration_ms"] = np.rint(np.exp(r.videos["log_duration"]))
    return Odds(r.start, r.turn, r.vectors, users, videos, tab_odds(r.tabs), r.skips, r.origin_ms)


def tab_odds(tabs: Records) -> Records:
    """``tabs`` (n,) TAB as TAB_ODDS."""
    odds = _odds(tabs, TAB_ODDS)
    for name in ("tap", "engage", "complete"):
        odds[name] = np.exp(-tabs[name])
    return odds


def _odds(levels: Records, dtype: np.dtype[np.void]) -> Records:
    odds = np.zeros(len(levels), dtype)
    for name in set(dtype.names or ()) & set(levels.dtype.names or ()):
        odds[name] = np.exp(-levels[name]) if name in HEADS else levels[name]
    return odds


def jit(function: F) -> F:
    """Compile with Numba, cached on disk, free of the interpreter lock; no value here is NaN or infinite."""
    compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)(function)
    return cast(F, compiled)


def jit_borrowing(function: F) -> F:
    """:func:`jit` of what allocates nothing: arguments are borrowed, so threads do not fight over their reference counts."""
    options: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": True, "_nrt": False}
    return cast(F, numba.njit(error_model="numpy", **options)(function))


def jit_inlined(function: F) -> F:
    """:func:`jit_borrowing` of a piece of a loop: arrays are dear to pass, each is ten values."""
    options: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": True, "_nrt": False}
    return cast(F, numba.njit(error_model="numpy", forceinline=True, **options)(function))


@jit
def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)."""
    return 1.0 / (1.0 + math.exp(-x))


_PLACES = np.linspace(-TAIL_REACH, TAIL_REACH, round(2 * TAIL_REACH) * TAIL_STEPS + 2)
TAIL_VALUES = ndtr(-_PLACES)
TAIL_SLOPES = -np.exp(-(_PLACES**2) / 2) / np.sqrt(2 * np.pi) * (_PLACES[1] - _PLACES[0])
TAIL_SCALE = 1 / float(_PLACES[1] - _PLACES[0])


@jit
def tail(mean: float, sd: float, log_threshold: float) -> float:
    """P(X ≥ threshold) of a lognormal, to 1e-9: cubic Hermite interpolation of a table."""
    z = min(max((log_threshold - mean) / sd, -TAIL_REACH), TAIL_REACH - 1e-9)
    x = (z + TAIL_REACH) * TAIL_SCALE
    k = int(x)
    u = x - k
    left, right = TAIL_VALUES[k], TAIL_VALUES[k + 1]
    rise, into, out = right - left, TAIL_SLOPES[k], TAIL_SLOPES[k + 1]
    return float(
        left + u * (into + u * (3.0 * rise - 2.0 * into - out + u * (into + out - 2.0 * rise)))
    )


@jit
def capped_mean(mean: float, sd: float, log_cap: float) -> float:
    """E[min(X, cap)] of a lognormal."""
    below = 1.0 - tail(mean + sd * sd, sd, log_cap)
    return math.exp(mean + 0.5 * sd * sd) * below + math.exp(log_cap) * tail(mean, sd, log_cap)


@jit
def interest_at(start: Floats, turn: Floats, user: int, angle: float, out: Floats) -> None:
    """cos(angle)·start + sin(angle)·turn of one user into ``out`` (d,)."""
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    for k in range(len(out)):
        out[k] = cos * start[user, k] + sin * turn[user, k]


@jit
def affinity_of(vectors: Floats, video: int, interest: Floats) -> float:
    """⟨θ_u(t), z_v⟩ on the logit scale."""
    total = np.float32(0.0)
    for k in range(len(interest)):
        total += interest[k] * vectors[video, k]
    return float(total)


Powers = tuple[float, float, float, float, float, float]


@jit
def powers_of(affinity: float) -> Powers:
    """exp(−k/10 · affinity) for k = 4, 5, 6, 7, 8, 10."""
    t = math.exp(-0.1 * affinity)
    t2 = t * t
    t4 = t2 * t2
    t5 = t4 * t
    return t4, t5, t4 * t2, t5 * t2, t4 * t4, t5 * t5


@jit
def play_parts(
    tab: Record, user: Record, video: Record, affinity: float, powers: Powers
) -> tuple[float, float, float, float]:
    """P(opened), P(engaged | opened), P(complete | engaged), and the location of the partial play."""
    against = powers[5] * video.against * user.against
    opened = 1.0 / (1.0 + tab.tap * against) if tab.two_column > 0.0 else tab.opened
    engaged = 1.0 / (1.0 + tab.engage * against)
    complete = 1.0 / (1.0 + tab.complete * powers[1] * user.half * video.half)
    length = video.log_duration - LOG_DURATION_CENTRE
    engagement = affinity + video.quality + user.engage
    return opened, engaged, complete, PARTIAL_MEAN + 0.4 * length + 0.2 * engagement


@jit
def heads_of(
    tab: Record, user: Record, video: Record, powers: Powers
) -> tuple[float, float, float, float, float]:
    """P of like, follow, comment, forward given that the row is opened, and P of hate."""
    hate = tab.hate * user.hate * video.hate
    return (
        1.0 / (1.0 + tab.like * user.like * video.like * powers[4]),
        1.0 / (1.0 + tab.follow * user.follow * video.follow * powers[3]),
        1.0 / (1.0 + tab.comment * user.comment * video.comment * powers[0]),
        1.0 / (1.0 + tab.forward * user.forward * video.forward * powers[2]),
        powers[3] / (powers[3] + hate),
    )


@jit
def feedback(
    tab: Record, user: Record, video: Record, skip: Record, affinity: float
) -> tuple[float, float, float, float, float, float, float]:
    """P of click, long_view, like, follow, comment, forward, hate."""
    powers = powers_of(affinity)
    opened, engaged, complete, mean = play_parts(tab, user, video, affinity, powers)
    whole, part, none = engaged * complete, engaged * (1.0 - complete), 1.0 - engaged
    if tab.two_column > 0.0:
        click = opened
    else:
        valid = tail(mean, PARTIAL_SD, video.log_valid)
        click = opened * (none * skip.valid + part * valid + whole * video.complete_valid)
    long = tail(mean, PARTIAL_SD, video.log_long)
    long_view = opened * (none * skip.long + part * long + whole * video.complete_long)
    like, follow, comment, forward, hate = heads_of(tab, user, video, powers)
    return (
        click,
        long_view,
        opened * like,
        opened * follow,
        opened * comment,
        opened * forward,
        hate,
    )


@jit
def opened_ratio(video: Record, skip: Record, parts: tuple[float, float, float, float]) -> float:
    """E[min(play/duration, 2)] given that the row is opened."""
    _, engaged, complete, mean = parts
    partial = capped_mean(mean - video.log_duration, PARTIAL_SD, LOG_CAP)
    whole = complete * COMPLETE_RATIO + (1.0 - complete) * partial
    return float((1.0 - engaged) * skip.ratio + engaged * whole)


@jit
def watch(
    tab: Record, user: Record, video: Record, skip: Record, affinity: float
) -> tuple[float, float]:
    """E[min(play/duration, 2)] and E[play time in ms]."""
    parts = play_parts(tab, user, video, affinity, powers_of(affinity))
    opened, engaged, complete, mean = parts
    whole, part, none = engaged * complete, engaged * (1.0 - complete), 1.0 - engaged
    play = (
        none * math.exp(tab.skip_mean + 0.5 * tab.skip_sd * tab.skip_sd)
        + part * math.exp(mean + 0.5 * PARTIAL_SD * PARTIAL_SD)
        + whole * video.duration_ms * COMPLETE_RATIO
    )
    return opened * opened_ratio(video, skip, parts), opened * play


@jit
def expected_reward(
    weights: Doubles, tab: Record, user: Record, video: Record, skip: Record, affinity: float
) -> float:
    """True expected immediate reward, METHODS §3.8 without the clip (linear in the feedback)."""
    powers = powers_of(affinity)
    like, follow, comment, forward, hate = heads_of(tab, user, video, powers)
    parts = play_parts(tab, user, video, affinity, powers)
    acts = weights[1] * like + weights[2] * follow + weights[3] * comment + weights[4] * forward
    watched = weights[0] * opened_ratio(video, skip, parts)
    return float(parts[0] * (watched + acts) + weights[5] * hate)


@jit
def reach(
    tab: Record, video: Record, parts: tuple[float, float, float, float], least_ms: float
) -> float:
    """P(play ≥ ``least_ms``) of an exposure, a whole number above 0: play times are rounded to whole ms."""
    opened, engaged, complete, mean = parts
    log_least = math.log(least_ms - 0.5)
    skipped = tail(tab.skip_mean, tab.skip_sd, log_least)
    part = tail(mean, PARTIAL_SD, log_least)
    whole = tail(video.log_duration + COMPLETE_MEAN, COMPLETE_SD, log_least)
    play = (1.0 - engaged) * skipped + engaged * ((1.0 - complete) * part + complete * whole)
    return float(opened * play)


@jit
def value_heads(
    tab: Record, user: Record, video: Record, affinity: float, strict: int
) -> tuple[float, float, float, float]:
    """P of complete, long, rewatch, neg, METHODS §6.2; ``strict`` 0: thresholds count as reached (code), 1: they must be passed (poster)."""
    parts = play_parts(tab, user, video, affinity, powers_of(affinity))
    duration = int(video.duration_ms)
    long = min((3 * duration + 1 + strict) // 2, LONG_HEAD_MS + strict)
    return (
        reach(tab, video, parts, duration + strict),
        reach(tab, video, parts, long),
        reach(tab, video, parts, 2 * duration),
        1.0 - reach(tab, video, parts, NEG_HEAD_MS + 1 - strict),
    )


def value_head_rows(
    r: Response,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    tabs: NDArray[np.int64],
    *,
    strict: bool,
) -> Doubles:
    """The four probabilities of ``VALUE_HEADS`` for each row, (4, n)."""
    return _value_head_rows(odds_of(r), users, videos, ts_ms, tabs, int(strict))


@jit
def _value_head_rows(
    r: Odds,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    tabs: NDArray[np.int64],
    strict: int,
) -> Doubles:
    start, turn, vectors = r.start, r.turn, r.vectors
    user_table, video_table, tab_table = r.users, r.videos, r.tabs
    out = np.empty((4, len(users)))
    interest = np.empty(vectors.shape[1], np.float32)
    for i in range(len(users)):
        user, video, tab = user_table[users[i]], video_table[videos[i]], tab_table[tabs[i]]
        if i == 0 or users[i] != users[i - 1] or ts_ms[i] != ts_ms[i - 1]:
            angle = user.speed * (ts_ms[i] - r.origin_ms) / DAY_MS
            interest_at(start, turn, users[i], angle, interest)
        affinity = affinity_of(vectors, videos[i], interest)
        p = value_heads(tab, user, video, affinity, strict)
        for k in range(4):
            out[k, i] = p[k]
    return out


def expected_rows(
    r: Response,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    tabs: NDArray[np.int64],
) -> Doubles:
    """The nine expectations of ``EXPECTED`` for each row, (9, n)."""
    return _expected_rows(odds_of(r), users, videos, ts_ms, tabs)


@jit
def _expected_rows(
    r: Odds,
    users: NDArray[np.int64],
    videos: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    tabs: NDArray[np.int64],
) -> Doubles:
    start, turn, vectors = r.start, r.turn, r.vectors
    user_table, video_table, tab_table, skip_table = r.users, r.videos, r.tabs, r.skips
    out = np.empty((9, len(users)))
    interest = np.empty(vectors.shape[1], np.float32)
    for i in range(len(users)):
        user, video, tab = user_table[users[i]], video_table[videos[i]], tab_table[tabs[i]]
        skip = skip_table[tabs[i], videos[i]]
        if i == 0 or users[i] != users[i - 1] or ts_ms[i] != ts_ms[i - 1]:
            angle = user.speed * (ts_ms[i] - r.origin_ms) / DAY_MS
            interest_at(start, turn, users[i], angle, interest)
        affinity = affinity_of(vectors, videos[i], interest)
        p = feedback(tab, user, video, skip, affinity)
        for k in range(7):
            out[k, i] = p[k]
        out[7, i], out[8, i] = watch(tab, user, video, skip, affinity)
    return out


def _log_normal_tail(mean: Doubles, sd: Doubles | float, log_threshold: Doubles) -> Doubles:
    return np.asarray(ndtr((mean - log_threshold) / sd))


def tab_records() -> Records:
    """Tabs (15,) with the measured parts of ``TAB_PROFILES`` and intercepts still to be calibrated."""
    tabs = np.zeros(N_TABS, TAB)
    for k, name in enumerate(("two_column", "opened", "skip_mean", "skip_sd")):
        tabs[name] = TAB_PROFILES[:, k + 1]
    tabs["tap"], tabs["complete"] = -2.0, -1.2
    for name in HEADS:
        tabs[name] = -6.0
    return tabs


def video_records(duration_ms: NDArray[np.int64], upload_ms: NDArray[np.int64]) -> Records:
    """Videos (V,) with all that follows from duration and upload time.

    Play times are rounded to whole ms, so a rule "play ≥ c" is P(X ≥ c − ½) of the unrounded lognormal.
    """
    videos = np.zeros(len(duration_ms), VIDEO)
    least = np.where(duration_ms <= VALID_PLAY_MS, duration_ms, VALID_PLAY_MS + 1)
    videos["log_duration"] = np.log(duration_ms)
    videos["log_valid"] = np.log(least - 0.5)
    videos["log_long"] = np.log(np.minimum(duration_ms, LONG_VIEW_MS) - 0.5)
    videos["upload_ms"] = upload_ms
    mean = videos["log_duration"] + COMPLETE_MEAN
    for rule in ("valid", "long"):
        videos[f"complete_{rule}"] = _log_normal_tail(mean, COMPLETE_SD, videos[f"log_{rule}"])
    return videos


def skip_records(tabs: Records, videos: Records) -> Records:
    """What a skipped play amounts to, (15, V)."""
    skips = np.zeros((len(tabs), len(videos)), SKIP)
    mean, sd = tabs["skip_mean"][:, None], tabs["skip_sd"][:, None]
    for rule in ("valid", "long"):
        skips[rule] = _log_normal_tail(mean, sd, videos[f"log_{rule}"])
    log_cap = videos["log_duration"] + LOG_CAP
    below = np.exp(mean + sd**2 / 2) * ndtr((log_cap - mean - sd**2) / sd)
    above = np.exp(log_cap) * _log_normal_tail(mean, sd, log_cap)
    skips["ratio"] = (below + above) / np.exp(videos["log_duration"])
    return skips
