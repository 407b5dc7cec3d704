"""The truth beside a KuaiSAR world: expected feedback in both scenarios, and the angle between their interests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from safetensors.numpy import load_file, save_file

from reelrank.sources.kuaisar_schema import REC, SEARCH
from reelrank.worlds.folder import TRUTH_FOLDER
from reelrank.worlds.kuaisar_search import interests_at
from reelrank.worlds.latent import Floats, unit
from reelrank.worlds.response import Doubles, Response
from reelrank.worlds.truth import Truth

FEEDBACK = ("click", "like", "follow", "forward", "watch_ratio", "play_ms")  # what the files hold


@dataclass(frozen=True, slots=True)
class ScenarioTruth:
    """What a KuaiSAR world knows about itself; raw ids are those of the official files.

    Attributes:
        feed: truth of the recommendation scenario, with its logging policy, exposures and planted sessions.
        search: response of the search scenario: interests of its own, all else shared with the feed.
        topics: topic centres, float32 (K, d).
    """

    feed: Truth
    search: Response
    topics: Floats

    @classmethod
    def load(cls, root: Path) -> ScenarioTruth:
        """Read ``<root>/_truth``.

        Raises:
            FileNotFoundError: there is no world at ``root``.
        """
        feed = Truth.load(root)
        arrays = load_file(Path(root) / TRUTH_FOLDER / "search.safetensors")
        tabs = feed.response.tabs.copy()
        tabs["tap"][SEARCH] = arrays["tap"][0]
        search = feed.response._replace(start=arrays["start"], turn=arrays["turn"], tabs=tabs)
        return cls(feed, search, arrays["topics"])

    @property
    def scenario_angle(self) -> float:
        """The planted angle between a user's interests in search and recommendation, radians."""
        return float(self.feed.params["options"]["scenario_angle"])

    def expected(
        self,
        raw_user_ids: ArrayLike,
        raw_item_ids: ArrayLike,
        ts_ms: ArrayLike,
        scenario: ArrayLike,
    ) -> dict[str, Doubles]:
        """True expectations; the arguments broadcast against each other to one shape.

        Args:
            raw_user_ids: ``user_id`` of the official files.
            raw_item_ids: ``item_id`` of item_features.csv.
            ts_ms: UTC epoch ms.
            scenario: 0 = search, 1 = recommendation.

        Returns:
            P of click, like, follow, forward, then ``watch_ratio`` = E[min(play/duration, 2)] and ``play_ms`` = E[play time in ms]. A
            search row has click only: the others are NaN there.

        Raises:
            IndexError: an id or a scenario that the world does not have.
        """
        users, items, times, scenarios = np.broadcast_arrays(
            raw_user_ids, raw_item_ids, ts_ms, scenario
        )
        if not np.isin(scenarios, (SEARCH, REC)).all():
            raise IndexError("scenario must be 0 (search) or 1 (recommendation)")
        out = {name: np.full(users.shape, np.nan) for name in FEEDBACK}
        for code, response in ((SEARCH, self.search), (REC, self.feed.response)):
            own = scenarios == code
            truth = Truth(self.feed.root, self.feed.params, response, self.feed.policy)
            got = truth.expected(users[own], items[own], times[own], code)
            for name in FEEDBACK if code == REC else FEEDBACK[:1]:
                out[name][own] = got[name]
        return out

    def interests(self, raw_user_ids: ArrayLike, ts_ms: ArrayLike, scenario: int) -> Floats:
        """Unit interests of users at times, each (n,), in one scenario: (n, d)."""
        response = self.search if scenario == SEARCH else self.feed.response
        return unit(interests_at(response, np.asarray(raw_user_ids), np.asarray(ts_ms)))

    def queries(self) -> pl.DataFrame:
        """One row per search session: search_session_id, user_id, ts_ms, topic, rec_line (line in rec_inter.csv it was begun from, or null)."""
        return pl.read_parquet(self.feed.root / TRUTH_FOLDER / "queries.parquet")


def save_search_truth(
    folder: Path, search: Response, topics: Floats, queries: pl.DataFrame
) -> None:
    """Write what :meth:`ScenarioTruth.load` needs beside the truth of the feed."""
    arrays = {"start": search.start, "turn": search.turn, "topics": topics}
    tap = np.array([search.tabs["tap"][SEARCH]])
    save_file(
        {name: np.ascontiguousarray(values) for name, values in arrays.items()} | {"tap": tap},
        folder / "search.safetensors",
    )
    queries.write_parquet(folder / "queries.parquet")
