"""Does a watch-time model rank interest, or only length? The panel that goes with every claim about watch time.

Source: METHODS §2 [S]; D2Q (Zhan et al. 2022) for deciles of duration, DVR (Zheng et al. 2022) for watch-time gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import spearmanr

from reelrank.evaluation.columns import finite, same_length
from reelrank.evaluation.grouped import GroupMean
from reelrank.evaluation.ranking import dcg
from reelrank.evaluation.regression import gxauc

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Metric = Callable[[npt.NDArray[np.bool_]], GroupMean]

DECILES = 10


@dataclass(frozen=True, slots=True)
class DurationDeciles:
    """Ten groups of videos of like duration, with equally many train rows each, and the watch time in them.

    Attributes:
        edges: (9,) durations; a row's decile is the number of edges ≤ its duration. Where many train rows have one
            duration, edges coincide and a decile may stay empty.
        mean: (10,) train watch time; NaN in an empty decile.
        sd: (10,) its standard deviation.
    """

    edges: FloatArray
    mean: FloatArray
    sd: FloatArray

    @classmethod
    def fit(cls, train_duration: npt.ArrayLike, train_t: npt.ArrayLike) -> Self:
        """Edges and moments of the train rows (L9).

        Args:
            train_duration: (m,) video durations.
            train_t: (m,) watch times.

        Raises:
            ValueError: no rows, lengths differ, or a value is not finite.
        """
        duration, t = finite("duration", train_duration), finite("watch time", train_t)
        same_length(durations=duration, watch_times=t)
        if duration.size == 0:
            raise ValueError("deciles of duration need train rows")
        edges = np.quantile(duration, np.arange(1, DECILES) / DECILES)
        decile = np.searchsorted(edges, duration, side="right")
        n = np.bincount(decile, minlength=DECILES)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(decile, weights=t, minlength=DECILES) / n
            square = (t - mean[decile]) ** 2
            variance = np.bincount(decile, weights=square, minlength=DECILES) / n
        return cls(edges, mean, np.sqrt(variance))

    def of(self, duration: npt.ArrayLike) -> IntArray:
        """Decile of each row, (n,) 0 … 9.

        Raises:
            ValueError: a duration is not finite.
        """
        value = finite("duration", duration)
        return np.searchsorted(self.edges, value, side="right").astype(np.int64)

    def watch_time_gain(self, t: npt.ArrayLike, duration: npt.ArrayLike) -> FloatArray:
        """WTG = (t − mean of its decile) / sd of its decile, (n,); NaN in a decile without train rows or spread.

        Args:
            t: (n,) watch times, in the unit of the train rows.
            duration: (n,) video durations.

        Raises:
            ValueError: lengths differ, or a value is not finite.

        Source: METHODS §2 [S].
        """
        watched, decile = finite("watch time", t), self.of(duration)
        same_length(watch_times=watched, durations=decile)
        sd = np.where(self.sd > 0, self.sd, np.nan)
        return (watched - self.mean[decile]) / sd[decile]


@dataclass(frozen=True, slots=True)
class DurationPanel:
    """How a watch-time score depends on duration.

    Attributes:
        by_decile: ``decile``, ``shortest`` and ``longest`` duration in it, ``n_rows``, and of the metric there ``value``,
            ``groups_excluded`` and ``rows_excluded``; one row per decile that has rows.
        spearman: rank correlation of score and duration; NaN if either is constant.
        gxauc_wtg: GXAUC of the watch-time gain.
        dcg_wtg: mean over lists of DCG@K of the watch-time gain.
        wtg_excluded: share of rows without a watch-time gain; they count in none of the two.
    """

    by_decile: pl.DataFrame
    spearman: float
    gxauc_wtg: GroupMean
    dcg_wtg: float
    wtg_excluded: float


def duration_panel(
    t: npt.ArrayLike,
    s: npt.ArrayLike,
    duration: npt.ArrayLike,
    users: npt.ArrayLike,
    list_ids: npt.ArrayLike,
    deciles: DurationDeciles,
    k: int,
    metric: Metric | None = None,
) -> DurationPanel:
    """The panel of one model.

    Args:
        t: (n,) watch times.
        s: (n,) scores.
        duration: (n,) video durations.
        users: (n,) user of each row.
        list_ids: (n,) list of each row, for DCG.
        deciles: fitted on train rows.
        k: cut-off of DCG.
        metric: rows (n,) → the metric of those rows; by default GXAUC of the watch time by user.

    Raises:
        ValueError: lengths differ, there are no rows, a value is not finite, a group is null, or k < 1.

    Source: METHODS §2 [S].
    """
    watched, score, length = (
        finite("watch time", t),
        finite("score", s),
        finite("duration", duration),
    )
    user, list_id = np.asarray(users), np.asarray(list_ids)
    same_length(watch_times=watched, scores=score, durations=length, users=user, list_ids=list_id)
    if watched.size == 0:
        raise ValueError("a duration panel needs rows")

    def of_watch_time(rows: npt.NDArray[np.bool_]) -> GroupMean:
        return gxauc(watched[rows], score[rows], user[rows])

    gain = deciles.watch_time_gain(watched, length)
    known = ~np.isnan(gain)
    gain_lists = dcg(score[known], gain[known], list_id[known], k)[1]
    return DurationPanel(
        by_decile=_by_decile(deciles.of(length), length, metric or of_watch_time),
        spearman=_spearman(score, length),
        gxauc_wtg=gxauc(gain[known], score[known], user[known]),
        dcg_wtg=float(gain_lists.mean()) if gain_lists.size else np.nan,
        wtg_excluded=1 - float(known.mean()),
    )


def _by_decile(decile: IntArray, duration: npt.NDArray[Any], metric: Metric) -> pl.DataFrame:
    rows = []
    for number in np.unique(decile):
        inside = decile == number
        found = metric(inside)
        rows.append(
            {
                "decile": int(number),
                "shortest": float(duration[inside].min()),
                "longest": float(duration[inside].max()),
                "n_rows": int(inside.sum()),
                "value": found.value,
                "groups_excluded": found.groups_excluded,
                "rows_excluded": found.rows_excluded,
            }
        )
    return pl.DataFrame(rows)


def _spearman(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(spearmanr(a, b).statistic)
