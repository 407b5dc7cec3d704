"""A logged data frame and a policy as checked arrays; every bad row has a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.off_policy.estimators import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
OnBadRows = Literal["error", "exclude"]
ByRow = npt.ArrayLike | Callable[[pl.DataFrame], npt.ArrayLike]

REQUIRED = ("user_id", "action", "propensity")
SUM_TOLERANCE = 1e-4  # rounding of a float32 softmax


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Checked rows of a log; A columns of actions.

    Attributes:
        user: (n,) user, from 0.
        reward: (n,).
        propensity: (n,) π_b(a_i|x_i), in (0, 1].
        policy: (n,) π_e(a_i|x_i).
        policy_matrix: (n, A) π_e of every action, where it is known.
        position: (n,) column of the logged action in the matrix.
        actions: (n, A) the actions' ids; −1 beyond the end of a row's candidates.
        session: (n,) session, from 0, where the log has them.
        kept: (rows of the log,) which rows these are.
        excluded: number of rows left out, by reason.
    """

    user: IntArray
    reward: FloatArray
    propensity: FloatArray
    policy: FloatArray
    policy_matrix: FloatArray | None
    position: IntArray
    actions: IntArray | None
    session: IntArray | None
    kept: BoolArray
    excluded: dict[str, int]

    def by_row(self, values: ByRow, log: pl.DataFrame, name: str) -> FloatArray:
        """A column or matrix given for the rows of the log, or computed from it, of the kept rows.

        Raises:
            ValueError: wrong length, or a value is not finite.
        """
        array = _array(values, log, name)[self.kept]
        finite = np.isfinite(array) if array.ndim == 1 else np.isfinite(array).all(axis=1)
        if not finite.all():
            row = np.flatnonzero(self.kept)[~finite][0]
            raise ValueError(f"row {row}: {name} is not finite")
        return array

    def matrix(self, values: ByRow, log: pl.DataFrame, name: str) -> FloatArray:
        """As :meth:`by_row`, for (n, A) values of the actions that the policy's matrix has.

        Raises:
            ValueError: the policy is known for the logged actions only, or the shapes differ.
        """
        policy, _ = self.of_all_actions(name)
        array = self.by_row(values, log, name)
        if array.shape != policy.shape:
            raise ValueError(f"{name} is {array.shape}, the policy {policy.shape}")
        return array

    def of_all_actions(self, name: str) -> tuple[FloatArray, IntArray]:
        """(n, A) π_e and the actions' ids.

        Raises:
            ValueError: ``name`` asks, but the policy is known for the logged actions only.
        """
        if self.policy_matrix is None or self.actions is None:
            raise ValueError(
                f"{name}: π_e of every action is needed; give the policy as a matrix (n, n_actions)"
            )
        return self.policy_matrix, self.actions


def read_log(
    log: pl.DataFrame,
    policy: ByRow,
    *,
    reward: str = "reward",
    on_bad_rows: OnBadRows = "error",
) -> LoggedRows:
    """Check a log and a policy, and bring them into arrays.

    Args:
        log: a row per logged action; columns and their meaning as in :func:`~reelrank.evaluation.off_policy.estimate_policy_value`.
        policy: (n,), (n, A), or a function of the log that returns one of them.
        reward: column of the rewards.
        on_bad_rows: ``error`` stops at the first bad row; ``exclude`` leaves bad rows out and counts them, and with
            sessions, the whole session of a bad row (a product of weights cannot skip a step).

    Raises:
        ValueError: a column is missing, no row is left, the policy has the wrong shape, or a bad row.
    """
    missing = [name for name in (*REQUIRED, reward) if name not in log.columns]
    if missing:
        raise ValueError(f"the log lacks {missing}; it has {log.columns}")
    if log.is_empty():
        raise ValueError("the log is empty: there is nothing to estimate from")
    if not log.schema["action"].is_integer():
        raise ValueError(f"column action must be of integers, not {log.schema['action']}")
    given = _array(policy, log, "policy")
    matrix = given if given.ndim == 2 else None
    action = log["action"].fill_null(-1).to_numpy().astype(np.int64)
    actions, usable = _actions(log, matrix)
    outside, position = _position(action, actions, matrix)
    own = given if matrix is None else np.take_along_axis(matrix, position[:, None], axis=1)[:, 0]
    rewards, propensity = (
        log[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in (reward, "propensity")
    )
    checks: dict[str, BoolArray] = {
        "user_id is null": log["user_id"].is_null().to_numpy(),
        f"{reward} is not a finite number": ~np.isfinite(rewards),
        "propensity is not in (0, 1]": ~((propensity > 0) & (propensity <= 1)),
        "action is null": log["action"].is_null().to_numpy(),
        **usable,
        "action is outside the policy's actions": outside,
        "π_e is not a probability": ~_all_in_unit(given),
    }
    if matrix is not None:
        checks["π_e does not sum to 1"] = ~(np.abs(matrix.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if matrix is not None and actions is not None:
        checks["π_e has mass beyond the candidates"] = np.any((actions < 0) & (matrix > 0), axis=1)
    if "session" in log.columns:
        checks["session is null"] = log["session"].is_null().to_numpy()
    kept, excluded = _sift(checks, on_bad_rows, log)
    session = None
    if "session" in log.columns:
        session = _codes(log.select("user_id", "session"))
        if excluded:
            whole = np.ones(session.max() + 1, np.bool_)
            whole[session[~kept]] = False
            if n_lost := int((kept & ~whole[session]).sum()):
                excluded["in the session of a row that is excluded"] = n_lost
            kept &= whole[session]
    if not kept.any():
        raise ValueError(f"no row of the log is left: {excluded}")
    return LoggedRows(
        user=_codes(log.select("user_id").filter(kept)),
        reward=rewards[kept],
        propensity=propensity[kept],
        policy=own[kept],
        policy_matrix=None if matrix is None else matrix[kept],
        position=position[kept],
        actions=None if actions is None else actions[kept],
        session=None if session is None else np.unique(session[kept], return_inverse=True)[1],
        kept=kept,
        excluded=excluded,
    )


def candidate_lists(log: pl.DataFrame) -> pl.Series:
    """The log's column ``candidates`` as lists.

    Raises:
        ValueError: it holds no lists of integers.
    """
    column = log["candidates"]
    inner = column.dtype.inner if isinstance(column.dtype, pl.List | pl.Array) else None
    if inner is None or not inner.is_integer():
        raise ValueError(f"column candidates must hold lists of integers, not {column.dtype}")
    return column.cast(pl.List(pl.Int64))


def _array(values: ByRow, log: pl.DataFrame, name: str) -> FloatArray:
    """Values of the log's rows, (n,) or (n, A)."""
    array = np.asarray(values(log) if callable(values) else values, dtype=np.float64)
    if array.ndim not in (1, 2) or len(array) != len(log):
        raise ValueError(f"{name} is {array.shape}; the log has {len(log)} rows: give (n,) or (n, n_actions)")  # fmt: skip
    return array


def _actions(
    log: pl.DataFrame, matrix: FloatArray | None
) -> tuple[IntArray | None, dict[str, BoolArray]]:
    """(n, A) ids of the actions, if known, and the checks of the candidates."""
    if "candidates" not in log.columns:
        if matrix is None:
            return None, {}
        return np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape), {}
    lists = candidate_lists(log)
    length = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    width = int(length.max()) if matrix is None else max(matrix.shape[1], int(length.max()))
    if matrix is not None and width > matrix.shape[1]:
        row = int(length.argmax())
        raise ValueError(f"row {row}: {width} candidates, the policy has {matrix.shape[1]} columns")
    actions = np.full((len(log), width), -1, np.int64)
    flat = lists.drop_nulls().explode(empty_as_null=False)
    actions[np.arange(width) < length[:, None]] = flat.fill_null(-1)
    duplicate = (lists.list.n_unique() < lists.list.len()).fill_null(False).to_numpy()
    return actions, {"no candidates": length == 0, "candidates hold an item twice": duplicate}


def _position(
    action: IntArray, actions: IntArray | None, matrix: FloatArray | None
) -> tuple[BoolArray, IntArray]:
    """Whether each logged action is none of the actions, and its column (0 for those)."""
    if actions is None:
        return action < 0, np.zeros_like(action)
    found = (actions == action[:, None]) & (actions >= 0)
    return ~found.any(axis=1), found.argmax(axis=1)


def _all_in_unit(values: FloatArray) -> BoolArray:
    inside: BoolArray = (values >= 0) & (values <= 1 + SUM_TOLERANCE)
    return inside if values.ndim == 1 else np.asarray(inside.all(axis=1))


def _sift(
    checks: dict[str, BoolArray], on_bad_rows: OnBadRows, log: pl.DataFrame
) -> tuple[BoolArray, dict[str, int]]:
    """Rows that pass all checks, and how many fail each (a row counts for the first that it fails)."""
    kept = np.ones(len(log), np.bool_)
    excluded = {}
    for reason, bad in checks.items():
        first_failed = bad & kept
        if first_failed.any():
            excluded[reason] = int(first_failed.sum())
            if on_bad_rows == "error":
                row = int(np.argmax(first_failed))
                shown = {k: v for k, v in log.row(row, named=True).items() if k != "candidates"}
                raise ValueError(
                    f"row {row}: {reason} ({shown}); {excluded[reason]} rows fail so. Mend them, or leave them "
                    "out, counted, with on_bad_rows='exclude'"
                )
        kept &= ~bad
    return kept, excluded


def _codes(columns: pl.DataFrame) -> IntArray:
    """(n,) number of each distinct row, from 0, in order of appearance."""
    key = pl.struct(pl.all()) if columns.width > 1 else pl.first()
    return (
        columns.select(key.rank("dense")).to_series().fill_null(0).to_numpy().astype(np.int64) - 1
    )
