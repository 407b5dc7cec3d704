"""What head weights are estimated from: sessions, the candidates of each, and what was shown of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RankingSessions:
    """S sessions with N candidates in all; session s owns the rows first[s] … first[s + 1] − 1.

    Every shown item is among the candidates, once. A "session" is whatever was ranked as one: a session of METHODS §6.6, or a request
    where the world says which candidates it had.
    Source: METHODS §6.6.

    Attributes:
        user_id: (S,) int32, the cluster of the bootstrap.
        session_id: (S,) int64.
        ts_start: (S,) int64, UTC epoch ms.
        burst_id: (S,) int16.
        first: (S + 1,) int64, starts with 0 and ends with N.
        item_id: (N,) int32.
        heads: (N, 4) float32 or float16, p̂ of complete, long, rewatch, neg at the session's start.
        rank_shown: (N,) int32, place in which the candidate was shown, from 1; 0 = not shown.
    """

    user_id: npt.NDArray[np.int32]
    session_id: npt.NDArray[np.int64]
    ts_start: npt.NDArray[np.int64]
    burst_id: npt.NDArray[np.int16]
    first: npt.NDArray[np.int64]
    item_id: npt.NDArray[np.int32]
    heads: npt.NDArray[np.floating]
    rank_shown: npt.NDArray[np.int32]

    @property
    def n_shown(self) -> npt.NDArray[np.int64]:
        """(S,) K_s: the candidates shown in each session."""
        return np.add.reduceat((self.rank_shown > 0).astype(np.int64), self.first[:-1])
