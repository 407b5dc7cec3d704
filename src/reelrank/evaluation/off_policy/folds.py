"""Folds of users: what is fitted for a row has not seen the row's user."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

FOLDS = 5  # METHODS §7.2


def user_folds(user: npt.ArrayLike, seed: int = 0, folds: int = FOLDS) -> npt.NDArray[np.int64]:
    """(n,) fold of each row. It follows from the user's id alone, so that every table agrees, later ones too."""
    ids, of_row = np.unique(np.asarray(user), return_inverse=True)
    fold = np.array([zlib.crc32(f"{seed}:{one}".encode()) % folds for one in ids], np.int64)
    return fold[of_row]
