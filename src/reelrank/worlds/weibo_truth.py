r"""The planted response of Weibo users to posts, and the truth beside a generated world.

With affinity :math:`a = \langle\theta_u(t), z_p\rangle` (in logits) and quality :math:`q_p`,

.. math:: P(\text{action}) = \sigma(\operatorname{logit}(\text{rate}) + s\,a + c\,q_p + [\text{forward}]\, I\, e_{upt})

where :math:`e_{upt} = 1` if a user whom u follows forwarded p within the window before t, and I is the planted influence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from reelrank.worlds.folder import TRUTH_FOLDER
from reelrank.worlds.latent import Floats

Doubles = NDArray[np.float64]

ACTIONS = ("like", "comment", "forward")
AFFINITY_SLOPES = (0.8, 0.4, 0.6)  # no two actions collinear [D, as in the KuaiRand world]
QUALITY_SLOPES = (0.6, 0.9, 0.5)
DAY_MS = 86_400_000


class WeiboResponse(NamedTuple):
    """All that the response depends on but influence; U users, P posts, d latent width, 3 actions."""

    start: Floats  # (U, d) interest at time 0, times the affinity scale
    turn: Floats  # (U, d) direction it rotates towards, times the affinity scale
    speed: Floats  # (U,) radians per day
    vectors: Floats  # (P, d)
    quality: Doubles  # (P,)
    intercepts: Doubles  # (3,)
    origin_ms: int  # time 0 of the interests, UTC epoch ms

    def logits(
        self, users: NDArray[np.integer], posts: NDArray[np.integer], ts_ms: NDArray[np.int64]
    ) -> Doubles:
        """Log-odds of like, comment and forward without influence, (3, n)."""
        angle = (self.speed[users] * ((ts_ms - self.origin_ms) / DAY_MS))[:, None]
        interest = np.cos(angle) * self.start[users] + np.sin(angle) * self.turn[users]
        affinity = np.einsum("nd,nd->n", interest, self.vectors[posts])
        return np.asarray(
            self.intercepts[:, None]
            + np.outer(AFFINITY_SLOPES, affinity)
            + np.outer(QUALITY_SLOPES, self.quality[posts])
        )


@dataclass(frozen=True, slots=True)
class WeiboTruth:
    """What a world knows about itself. Users and posts are numbered; their ids in the files are ``u<number>`` and ``p<number>``.

    Attributes:
        root: folder of the world.
        options: what it was written with, ``influence`` and ``influence_window_h`` among it.
        response: arrays of the planted response.
    """

    root: Path
    options: dict[str, Any]
    response: WeiboResponse

    @classmethod
    def load(cls, root: Path) -> WeiboTruth:
        """Read ``<root>/_truth``.

        Raises:
            FileNotFoundError: there is no Weibo world at ``root``.
        """
        folder = Path(root) / TRUTH_FOLDER
        if not (folder / "params.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds no truth of a generated Weibo world; write one with write_world, or leave out what "
                "needs the truth (real files have none)"
            )
        params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
        arrays: dict[str, Any] = load_file(folder / "arrays.safetensors")
        response = WeiboResponse(**arrays, origin_ms=params["origin_ms"])
        return cls(Path(root), params["options"], response)

    def expected(
        self,
        users: ArrayLike,
        posts: ArrayLike,
        ts_ms: ArrayLike,
        is_influenced: ArrayLike = False,
    ) -> dict[str, Doubles]:
        """P of like, comment and forward; the arguments broadcast against each other to one shape.

        Args:
            users: numbers of users.
            posts: numbers of posts.
            ts_ms: UTC epoch ms.
            is_influenced: whether a followed user had forwarded the post inside the window.

        Raises:
            IndexError: a number that the world does not have.
        """
        columns = np.broadcast_arrays(users, posts, ts_ms, is_influenced)
        shape = columns[0].shape
        user, post, ts, influenced = (np.ravel(column) for column in columns)
        sizes = {"user": (user, len(self.response.speed)), "post": (post, len(self.response.quality))}  # fmt: skip
        for name, (values, stop) in sizes.items():
            if values.size and not (values.min() >= 0 and values.max() < stop):
                raise IndexError(f"{name} {values.min()} … {values.max()}: this world has 0 … {stop - 1}")  # fmt: skip
        logits = self.response.logits(user, post, ts)
        logits[ACTIONS.index("forward")] += self.options["influence"] * influenced
        return {
            name: sigmoid(row).reshape(shape) for name, row in zip(ACTIONS, logits, strict=True)
        }

    def expected_immediate_reward(
        self,
        users: ArrayLike,
        posts: ArrayLike,
        ts_ms: ArrayLike,
        _scenario: ArrayLike,
        weights: Mapping[str, float],
    ) -> Doubles:
        """Σ weight · P(action) of posts that no followed user has forwarded yet; ``weights`` over like, comment, forward.

        Source: METHODS §3.8 [D].
        """
        expected = self.expected(users, posts, ts_ms)
        return np.asarray(sum(weight * expected[name] for name, weight in weights.items()))

    def rows(self) -> pl.DataFrame:
        """One row per view in time order: user, post, ts_ms, p_like, p_comment, p_forward (without influence), influenced."""
        return pl.read_parquet(self.root / TRUTH_FOLDER / "rows.parquet")


def save_truth(folder: Path, options: Mapping[str, Any], response: WeiboResponse) -> None:
    """Write ``params.json`` and ``arrays.safetensors``: all that :meth:`WeiboTruth.load` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {k: np.ascontiguousarray(v) for k, v in response._asdict().items() if k != "origin_ms"}  # fmt: skip
    save_file(arrays, folder / "arrays.safetensors")
    params = {"options": dict(options), "origin_ms": response.origin_ms}
    (folder / "params.json").write_text(json.dumps(params, indent=1) + "\n", encoding="utf-8")


def sigmoid(x: Doubles) -> Doubles:
    """1 / (1 + e⁻ˣ)."""
    return np.asarray(1 / (1 + np.exp(-x)))
