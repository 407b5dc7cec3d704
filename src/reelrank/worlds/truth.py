"""The truth beside a generated world: the expected response of any user to any video at any time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from reelrank.sources.manifest import Manifest
from reelrank.worlds.folder import EXPOSURES_FILE, REQUESTS_FILE, TRUTH_FOLDER
from reelrank.worlds.policy import Policy
from reelrank.worlds.response import (
    EXPECTED,
    N_TABS,
    SKIP,
    TAB,
    USER,
    VALUE_HEADS,
    VIDEO,
    Doubles,
    Records,
    Response,
    expected_rows,
    value_head_rows,
)

REWARD_TERMS = ("watch_ratio", "like", "follow", "comment", "forward", "hate")
FEEDBACK_TERMS = EXPECTED[:7]


@dataclass(frozen=True, slots=True)
class Truth:
    """What a world knows about itself; raw ids are those of the official files.

    Attributes:
        root: folder of the world.
        params: options and calibrated scalars (``params.json``).
        response: arrays of the planted response model.
        policy: arrays of the logging policy.
    """

    root: Path
    params: dict[str, Any]
    response: Response
    policy: Policy

    @classmethod
    def load(cls, root: Path) -> Truth:
        """Read ``<root>/_truth``.

        Raises:
            FileNotFoundError: there is no world at ``root``.
        """
        folder = Path(root) / TRUTH_FOLDER
        if not (folder / "params.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds no truth of a generated world; write one with write_world, or "
                "leave out what needs the truth (real files have none)"
            )
        params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "arrays.safetensors")
        tables: dict[str, Any] = {
            name: _from_fields(arrays, name, dtype)
            for name, dtype in (("users", USER), ("videos", VIDEO), ("tabs", TAB), ("skips", SKIP))
        }
        response = Response(
            start=arrays["start"],
            turn=arrays["turn"],
            vectors=arrays["vectors"],
            origin_ms=params["origin_ms"],
            **tables,
        )
        policy = Policy(
            weights=arrays["weights"],
            alias_keep=arrays["alias_keep"],
            alias_other=arrays["alias_other"],
            reward=arrays["reward"],
            value_weights=arrays.get("value_weights", np.zeros(0)),
            topic=arrays.get("topic", np.zeros(0, np.int32)),
            **params["policy"],
        )
        return cls(Path(root), params, response, policy)

    @classmethod
    def behind(cls, raw_manifest: Mapping[str, Any]) -> Truth | None:
        """What the world that wrote the raw files knows; None for real ones.

        Args:
            raw_manifest: as JSON values.
        """
        manifest = Manifest.from_dict(dict(raw_manifest))
        return cls.load(manifest.root.parent) if manifest.kind == "world" else None

    def expected(
        self,
        raw_user_ids: ArrayLike,
        raw_video_ids: ArrayLike,
        ts_ms: ArrayLike,
        scenario: ArrayLike,
    ) -> dict[str, Doubles]:
        """True expectations; the arguments broadcast against each other to one shape.

        Args:
            raw_user_ids: ``user_id`` of the official files.
            raw_video_ids: ``video_id`` of the official files.
            ts_ms: UTC epoch ms.
            scenario: tab, 0…14.

        Returns:
            P of click, long_view, like, follow, comment, forward, hate, then ``watch_ratio`` = E[min(play/duration, 2)]
            and ``play_ms`` = E[play time in ms]. Videos whose published duration is null have a true one, used here.

        Raises:
            IndexError: an id or a scenario that the world does not have.
        """
        columns = self._columns(raw_user_ids, raw_video_ids, ts_ms, scenario)
        out = expected_rows(self.response, *(column.ravel() for column in columns))
        return {name: out[k].reshape(columns[0].shape) for k, name in enumerate(EXPECTED)}

    def head_probabilities(
        self,
        raw_user_ids: ArrayLike,
        raw_video_ids: ArrayLike,
        ts_ms: ArrayLike,
        rule: Literal["code", "poster"] = "code",
        scenario: ArrayLike = 0,
    ) -> dict[str, Doubles]:
        """True probabilities of the value model's heads; the arguments broadcast as in :meth:`expected`.

        Args:
            raw_user_ids: ``user_id`` of the official files.
            raw_video_ids: ``video_id`` of the official files.
            ts_ms: UTC epoch ms.
            rule: thresholds, as :class:`reelrank.features.heads.HeadRule`; the logging policy ranks by those of ``code``.
            scenario: tab, 0…14; in a world with one feed any.

        Returns:
            P of complete, long, rewatch, neg.

        Raises:
            IndexError: an id or a scenario that the world does not have.

        Source: METHODS §6.2.
        """
        columns = self._columns(raw_user_ids, raw_video_ids, ts_ms, scenario)
        flat = (column.ravel() for column in columns)
        out = value_head_rows(self.response, *flat, strict=rule == "poster")
        return {name: out[k].reshape(columns[0].shape) for k, name in enumerate(VALUE_HEADS)}

    def _columns(self, *arguments: ArrayLike) -> list[NDArray[np.int64]]:
        """User, video, time and scenario at one shape, checked."""
        r = self.response
        columns = np.broadcast_arrays(*arguments)
        for name, values, stop in (
            ("user_id", columns[0], len(r.users)),
            ("video_id", columns[1], len(r.videos)),
            ("scenario", columns[3], N_TABS),
        ):
            if values.size and not (values.min() >= 0 and values.max() < stop):
                raise IndexError(
                    f"{name} {values.min()} … {values.max()}: this world has 0 … {stop - 1}"
                )
        return [np.asarray(column, np.int64) for column in columns]

    def expected_matrix(
        self, raw_user_ids: ArrayLike, raw_video_ids: ArrayLike, ts_ms: ArrayLike, scenario: int
    ) -> dict[str, Doubles]:
        """Each of B users (each at one time, ``ts_ms`` (B,) or one for all) with each of C videos: arrays (B, C)."""
        users, videos = np.asarray(raw_user_ids), np.asarray(raw_video_ids)
        return self.expected(users[:, None], videos[None], np.reshape(ts_ms, (-1, 1)), scenario)

    def expected_immediate_reward(
        self,
        raw_user_ids: ArrayLike,
        raw_video_ids: ArrayLike,
        ts_ms: ArrayLike,
        scenario: ArrayLike,
        weights: Mapping[str, float] | None = None,
    ) -> Doubles:
        """Σ weight · expectation over ``weights``, by default those that the world was written with.

        Linear in the feedback: the clip of METHODS §3.8 to [−1, 2] binds on few rows and is left out. Source: METHODS §3.8 [D].
        """
        weights = self.params["options"]["reward"] if weights is None else weights
        expected = self.expected(raw_user_ids, raw_video_ids, ts_ms, scenario)
        return np.asarray(sum(weight * expected[name] for name, weight in weights.items()))

    def return_probability(self, session_mean: ArrayLike) -> Doubles:
        """P(next session within 24 h of the last row), given the mean true expected reward of the session's rows."""
        rule = self.params["options"]["return_rule"]
        logit = rule["intercept"] + rule["slope"] * np.asarray(session_mean)
        return np.asarray(1 / (1 + np.exp(-logit)))

    def logging_scores(
        self,
        raw_user_ids: ArrayLike,
        raw_video_ids: ArrayLike,
        ts_ms: ArrayLike,
        scenario: ArrayLike,
        shock_topic: ArrayLike | None = None,
        shock_size: ArrayLike | None = None,
    ) -> Doubles:
        """What the logging policy ranks by: Σ_h w_h·p_h / temperature. P(i) of a draw = softmax over what is not yet shown.

        Args:
            raw_user_ids: ``user_id`` of the official files.
            raw_video_ids: ``video_id`` of the official files.
            ts_ms: UTC epoch ms.
            scenario: tab, 0…14.
            shock_topic: topic that the session's shock acts on; it and ``shock_size`` broadcast with the others, None: no shock.
            shock_size: what the shock adds to the score of that topic's videos, temperatures.
        """
        rows = raw_user_ids, raw_video_ids, ts_ms
        expected = self.expected(*rows, scenario)
        weights = dict(zip(FEEDBACK_TERMS, self.policy.weights, strict=True))
        if len(self.policy.value_weights):
            expected |= self.head_probabilities(*rows, scenario=scenario)
            weights |= zip(VALUE_HEADS, self.policy.value_weights, strict=True)
        scores = sum(w * expected[name] for name, w in weights.items()) / self.policy.temperature
        if shock_topic is not None and shock_size is not None:
            on_topic = self.policy.topic[np.asarray(raw_video_ids)] == shock_topic
            scores = scores + on_topic * np.asarray(shock_size)
        return np.asarray(scores)

    def exposures(self) -> pl.LazyFrame:
        """One row per exposure: file, line (header = 1), propensity, request, position in it, candidates.

        ``candidates`` (list of i32, C long) is ordered so that the row at ``position`` j shows ``candidates[C − 1 − j]``, drawn from
        ``candidates[: C − j]``. Random exposures have request null and propensity 1 / videos.
        """
        folder = self.root / TRUTH_FOLDER
        requests = pl.scan_ipc(folder / REQUESTS_FILE).select("request", "candidates")
        return pl.scan_ipc(folder / EXPOSURES_FILE).join(
            requests, on="request", how="left", maintain_order="left"
        )

    def session_candidates(self) -> pl.DataFrame:
        """One row per request of KuaiRec's big matrix, in order of (user, time): what could be shown, and what was.

        Returns:
            request, user_id, request_ms, session (row of :meth:`sessions`, and session id of the ingested tables), candidates (list of
            raw video ids, C long), shown (list of raw video ids in the order shown, a part of candidates), propensity (list: of
            ``shown[j]`` among the candidates without ``shown[:j]``), shock_topic (null: no shock), shock_size.

        Raises:
            ValueError: the world does not store the users of its requests.
        """
        folder = self.root / TRUTH_FOLDER
        requests = pl.read_ipc(folder / REQUESTS_FILE)
        if "session" not in requests.columns:
            raise ValueError(
                f"{folder / REQUESTS_FILE} has no session: only KuaiRec's world stores it; "
                "join exposures() to the rows of the log instead"
            )
        drawn = (
            pl.scan_ipc(folder / EXPOSURES_FILE)
            .sort("request", "position")
            .group_by("request", maintain_order=True)
            .agg("propensity", pl.first("request_ms"), n_shown=pl.len())
            .collect()
        )
        shocks = self.sessions().select("shock_topic", "shock_size").with_row_index("session")
        return (
            requests.join(drawn, on="request", validate="1:1")
            .join(shocks.cast({"session": pl.Int64}), on="session", validate="m:1")
            .with_columns(shown=pl.col("candidates").list.tail("n_shown").list.reverse())
            .sort("user_id", "request_ms")
            .select(
                *("request", "user_id", "request_ms", "session", "candidates", "shown"),
                *("propensity", "shock_topic", "shock_size"),
            )
        )

    def sessions(self) -> pl.DataFrame:
        """One row per session: user_id, start_ms, end_ms (last row), n_rows, mean_reward, p_return, returned.

        KuaiRec's: also burst, and topic and size of the session's shock (shock_topic, null without one; shock_size, temperatures).
        """
        return pl.read_parquet(self.root / TRUTH_FOLDER / "sessions.parquet")


def save_truth(
    folder: Path, options: Mapping[str, Any], response: Response, policy: Policy
) -> None:
    """Write ``params.json`` and ``arrays.safetensors``: all that :meth:`Truth.load` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in (response._asdict() | policy._asdict()).items():
        if isinstance(values, np.ndarray) and values.size:
            fields = values.dtype.names
            parts = {f"{name}.{field}": values[field] for field in fields} if fields else {name: values}  # fmt: skip
            arrays |= {key: np.ascontiguousarray(part) for key, part in parts.items()}
    save_file(arrays, folder / "arrays.safetensors")
    params = {
        "options": dict(options),
        "origin_ms": response.origin_ms,
        "policy": {"temperature": policy.temperature, "n_candidates": policy.n_candidates},
    }
    text = json.dumps(params, indent=1, ensure_ascii=False)
    (folder / "params.json").write_text(text + "\n", encoding="utf-8")


def _from_fields(
    arrays: Mapping[str, NDArray[Any]], name: str, dtype: np.dtype[np.void]
) -> Records:
    """The record array ``name`` from its fields, stored one by one."""
    fields = list(dtype.names or ())
    out = np.zeros(arrays[f"{name}.{fields[0]}"].shape, dtype)
    for field in fields:
        out[field] = arrays[f"{name}.{field}"]
    return out
