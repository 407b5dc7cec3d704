"""Requests and sessions: how a user's rows fall into groups in time."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def request_and_session_ids(
    user_id: NDArray[np.integer], ts_ms: NDArray[np.integer], gap_ms: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the requests and sessions of rows sorted by (user_id, ts_ms).

    A request is the set of a user's rows with one time: items sent together. A session is a maximal run of a user's
    rows whose gaps are at most ``gap_ms``; a gap of exactly ``gap_ms`` stays inside.

    Args:
        user_id: shape (n,), not decreasing.
        ts_ms: shape (n,), milliseconds, not decreasing inside a user.
        gap_ms: longest gap inside a session, milliseconds, ≥ 0.

    Returns:
        ``(request, session)``, each of shape (n,), numbered 0, 1, 2 … in row order.

    Raises:
        ValueError: the rows are not sorted, or the gap is negative.

    Source: METHODS §1.1, §1.3 [D for KuaiRand's 1,800 s].
    """
    if gap_ms < 0:
        raise ValueError(f"gap_ms must be ≥ 0, got {gap_ms}")
    request = np.empty(len(user_id), np.int64)
    session = np.empty(len(user_id), np.int64)
    unsorted_at = _number(user_id, ts_ms, gap_ms, request, session)
    if unsorted_at >= 0:
        raise ValueError(
            f"rows {unsorted_at - 1} and {unsorted_at} are out of order: sort by (user_id, ts_ms, row_id) first"
        )
    return request, session


@njit(cache=True, nogil=True)
def _number(
    user_id: NDArray[np.integer],
    ts_ms: NDArray[np.integer],
    gap_ms: int,
    request: NDArray[np.int64],
    session: NDArray[np.int64],
) -> int:
    """Fill ``request`` and ``session``; answer the first row out of order, or −1."""
    n_requests = n_sessions = -1
    for row in range(len(user_id)):
        same_user = row > 0 and user_id[row] == user_id[row - 1]
        gap = ts_ms[row] - ts_ms[row - 1] if same_user else 0
        if gap < 0 or (row > 0 and user_id[row] < user_id[row - 1]):
            return row
        n_requests += not same_user or gap > 0
        n_sessions += not same_user or gap > gap_ms
        request[row] = n_requests
        session[row] = n_sessions
    return -1
