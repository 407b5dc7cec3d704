"""The reward model that is used where none is given: mean reward of an action, from other users' rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.off_policy.estimators import FloatArray, IntArray
from reelrank.evaluation.off_policy.folds import FOLDS, user_folds

PRIOR_ROWS = 10.0  # [D] rows at the mean of all that an action's mean starts with


def action_means(
    user: npt.ArrayLike, position: IntArray, actions: IntArray, reward: FloatArray, seed: int = 0
) -> FloatArray:
    """q̂(x, a) = mean reward of action a over the rows of other users' folds, shrunk towards the mean of all rewards there.

    Args:
        user: (n,) user of each row.
        position: (n,) column of the logged action.
        actions: (n, A) ids ≥ 0; −1 = no action.
        reward: (n,).
        seed: of the folds.

    Returns:
        (n, A); a mean of the fold where the action was never logged or does not exist.
    """
    fold = user_folds(user, seed)
    logged = np.take_along_axis(actions, position[:, None], axis=1)[:, 0]
    known = np.unique(logged)
    code = np.searchsorted(known, logged)
    cell, shape = fold * known.size + code, (FOLDS, known.size)
    inside = [np.bincount(cell, w, FOLDS * known.size).reshape(shape) for w in (reward, None)]
    total, rows = (part.sum(axis=0) - part for part in inside)
    mean = total.sum(axis=1, keepdims=True) / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    table = np.append((total + PRIOR_ROWS * mean) / (rows + PRIOR_ROWS), mean, axis=1)
    found = np.searchsorted(known, actions).clip(max=known.size - 1)
    column = np.where(known[found] == actions, found, known.size)
    predicted: FloatArray = table[fold[:, None], column]
    return predicted
