"""The loops over a bucket that compute the history features: each goes once over the rows, in time order inside each user.

What a user, a category or an author needs is a few numbers, so a row costs the same however long the history is. Arrays over
categories and authors are never cleared: a stamp says whose numbers they hold. Every loop reads a row's features before it lets
the row in (L1). Unknown floats are NaN.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

MS_PER_HOUR: Final = 3_600_000
MS_PER_DAY: Final = 24 * MS_PER_HOUR
NO_CODE: Final = -1  # an item without a category or an author
UNKNOWN: Final = -1  # a null among binary feedback
N_LOGS: Final = 16_384  # x log x is looked up below
NEGLIGIBLE: Final = 1e-12  # what is left of a histogram's entry counts as nothing

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def decay_table(alpha: float) -> Doubles:
    """(1 − α)^k for k = 0, 1, … while it is above ``NEGLIGIBLE``, and at least for 0 and 1."""
    n = 2 if alpha >= 1 else max(int(np.log(NEGLIGIBLE) / np.log1p(-alpha)) + 1, 2)
    return np.power(1.0 - alpha, np.arange(n))


def log_table() -> Doubles:
    """Values of x log x, (N_LOGS,), for x = 0, 1, 2 and so on."""
    x = np.arange(N_LOGS, dtype=np.float64)
    return x * np.log(np.maximum(x, 1.0))


@njit(cache=True, nogil=True)
def scan_time(
    user: Ints,
    ts_ms: Longs,
    session: Longs,
    burst_edges: Longs,
    n_before: Ints,
    hours: Floats,
    previous_rows: Ints,
    gap_hours: Floats,
    visit: Ints,
) -> None:
    """Rows and hours since before; rows of, and hours since, the session before (0 = none); number of the user's stay in a burst.

    ``burst_edges`` holds the starts and ends of the bursts in turn.
    """
    visits = segment = rows = previous = 0
    gap = 0.0
    for i in range(len(user)):
        if i == 0 or user[i] != user[i - 1]:
            n_before[i] = segment = 0
            hours[i] = np.nan
            new_visit = True
        else:
            n_before[i] = n_before[i - 1] + 1
            hours[i] = (ts_ms[i] - ts_ms[i - 1]) / MS_PER_HOUR
            new_visit = False
        while segment < len(burst_edges) and ts_ms[i] >= burst_edges[segment]:
            segment += 1
            new_visit = True
        if new_visit:
            visits += 1
            rows = previous = 0
            gap = 0.0
        elif session[i] != session[i - 1]:
            previous, rows = rows, 0
            gap = (ts_ms[i] - ts_ms[i - 1]) / MS_PER_HOUR
        rows += 1
        previous_rows[i] = previous
        gap_hours[i] = gap
        visit[i] = visits


@njit(cache=True, nogil=True)
def blend(mean: float, value: float, alpha: float) -> float:
    """The moving average with a newer value; NaN = there was none."""
    return value if np.isnan(mean) else mean + alpha * (value - mean)


@njit(cache=True, nogil=True)
def scan_feedback(
    user: Ints, binary: Bytes, watch_ratio: Floats, alpha: float, averages: Floats, watch: Floats
) -> None:
    """Moving averages over the user: ``averages`` (K, n) of ``binary`` (K, n), and ``watch`` of ``watch_ratio``."""
    mean = np.empty(len(binary), np.float64)
    mean_watch = np.nan
    for i in range(len(user)):
        if i == 0 or user[i] != user[i - 1]:
            mean[:] = np.nan
            mean_watch = np.nan
        for k in range(len(binary)):
            averages[k, i] = mean[k]
            blended = blend(mean[k], float(binary[k, i]), alpha)
            mean[k] = mean[k] if binary[k, i] == UNKNOWN else blended
        watch[i] = mean_watch
        blended = blend(mean_watch, watch_ratio[i], alpha)
        mean_watch = mean_watch if np.isnan(watch_ratio[i]) else blended


@njit(cache=True, nogil=True)
def scan_categories(
    user: Ints,
    item: Ints,
    category: Ints,
    n_categories: int,
    binary: Bytes,
    alpha: float,
    averages: Floats,
) -> None:
    """Moving averages over the user's rows of the row's category: ``averages`` (K, n) of ``binary`` (K, n)."""
    mean = np.empty((n_categories, len(binary)), np.float64)
    stamp = np.zeros(n_categories, np.int64)
    users = 0
    for i in range(len(user)):
        users += i == 0 or user[i] != user[i - 1]
        c = category[item[i]]
        if c == NO_CODE:
            averages[:, i] = np.nan
            continue
        if stamp[c] != users:
            stamp[c] = users
            mean[c] = np.nan
        for k in range(len(binary)):
            averages[k, i] = mean[c, k]
            blended = blend(mean[c, k], float(binary[k, i]), alpha)
            mean[c, k] = mean[c, k] if binary[k, i] == UNKNOWN else blended


@njit(cache=True, nogil=True)
def scan_drift(
    user: Ints,
    item: Ints,
    category: Ints,
    n_categories: int,
    fast: Doubles,
    slow: Doubles,
    drift: Floats,
) -> None:
    """Cosine distance between two moving histograms of the category; ``fast`` and ``slow`` are their ``decay_table``.

    An entry is kept as it was when its category last came up, so the scalar products follow from that entry alone.
    """
    keep_f, keep_s = fast[1], slow[1]
    new_f, new_s = 1.0 - keep_f, 1.0 - keep_s
    entry = np.zeros((n_categories, 2), np.float64)
    changed = np.zeros(n_categories, np.int64)  # step of the category's last row
    stamp = np.zeros(n_categories, np.int64)
    users = steps = 0
    fs = ff = ss = 1.0
    for i in range(len(user)):
        if i == 0 or user[i] != user[i - 1]:
            users += 1
            steps = 0
        drift[i] = max(1.0 - fs / np.sqrt(ff * ss), 0.0) if steps > 0 else np.nan
        c = category[item[i]]
        if c == NO_CODE:
            continue
        f = s = 0.0
        if stamp[c] == users:
            age = steps - changed[c]
            f = entry[c, 0] * fast[age] if age < len(fast) else 0.0
            s = entry[c, 1] * slow[age] if age < len(slow) else 0.0
        stamp[c] = users
        if steps == 0:
            fs = ff = ss = entry[c, 0] = entry[c, 1] = 1.0
        else:
            fs = keep_f * keep_s * fs + keep_f * new_s * f + new_f * keep_s * s + new_f * new_s
            ff = keep_f * keep_f * ff + 2.0 * keep_f * new_f * f + new_f * new_f
            ss = keep_s * keep_s * ss + 2.0 * keep_s * new_s * s + new_s * new_s
            entry[c, 0] = keep_f * f + new_f
            entry[c, 1] = keep_s * s + new_s
        steps += 1
        changed[c] = steps


@njit(cache=True, nogil=True)
def _x_log_x(x: int, table: Doubles) -> float:
    return float(table[x]) if x < len(table) else float(x * np.log(x))


@njit(cache=True, nogil=True)
def scan_entropy(
    user: Ints, item: Ints, category: Ints, n_categories: int, logs: Doubles, entropy: Floats
) -> None:
    """Entropy, in nats, of the shares of the categories so far: log n − Σ q log q / n."""
    rows = np.zeros(n_categories, np.int64)
    stamp = np.zeros(n_categories, np.int64)
    users = n = 0
    sum_q = 0.0
    for i in range(len(user)):
        if i == 0 or user[i] != user[i - 1]:
            users += 1
            n = 0
            sum_q = 0.0
        entropy[i] = max(_x_log_x(n, logs) - sum_q, 0.0) / n if n > 0 else 0.0
        c = category[item[i]]
        if c == NO_CODE:
            continue
        q = rows[c] if stamp[c] == users else 0
        sum_q += _x_log_x(q + 1, logs) - _x_log_x(q, logs)
        rows[c] = q + 1
        stamp[c] = users
        n += 1


@njit(cache=True, nogil=True)
def scan_authors(
    visit: Ints,
    ts_ms: Longs,
    item: Ints,
    author: Ints,
    n_authors: int,
    complete: Bytes,
    seen: Bytes,
    days: Floats,
    days_complete: Floats,
) -> None:
    """Whether the visit had the row's author before (−1 = no author), days since then and since a completion."""
    # stamp, last time, last time of a completion; untouched pages of zeros cost no memory
    state = np.zeros((n_authors, 3), np.int64)
    for i in range(len(visit)):
        a = author[item[i]]
        seen[i] = -1
        days[i] = days_complete[i] = np.nan
        if a == NO_CODE:
            continue
        known = state[a, 0] == visit[i]
        seen[i] = known
        if known:
            days[i] = (ts_ms[i] - state[a, 1]) / MS_PER_DAY
        last = state[a, 2] if known else -1
        if last >= 0:
            days_complete[i] = (ts_ms[i] - last) / MS_PER_DAY
        state[a, 0] = visit[i]
        state[a, 1] = ts_ms[i]
        state[a, 2] = ts_ms[i] if complete[i] == 1 else last
