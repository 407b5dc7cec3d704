"""What a cell's model is measured by: the metrics of a run, its gates and monitors, and what its lists would bring.

Source: METHODS §3.9, §3.11, §9 MT-03, MT-10, MT-13, MT-14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap, paired, spread
from reelrank.features.candidates import availability_ts
from reelrank.features.modal import pooled_vectors
from reelrank.features.rewards import SIGNALS, RewardOptions, reward_terms
from reelrank.models.behaviours import watch_rule, watched
from reelrank.pipelines.mt_dqn import evaluate as judge
from reelrank.pipelines.mt_dqn import truth as planted
from reelrank.pipelines.mt_dqn.consequences import Consequences, consequences, tastes_at
from reelrank.pipelines.mt_dqn.evaluate import Estimates, Key
from reelrank.pipelines.mt_dqn.fitting import Tables
from reelrank.pipelines.mt_dqn.options import EvaluateOptions
from reelrank.pipelines.mt_dqn.predict import Predictions
from reelrank.pipelines.mt_dqn.validation import failure_warnings
from reelrank.tables import MODALITIES
from reelrank.worlds.truth import Truth
from reelrank.worlds.weibo_truth import WeiboTruth

MAIN = "mt_dqn"
SPREAD = ("value_mse", "value_mae", "reward_mse")
LAST_EPOCH = {
    "val_gate_entropy": "gate_entropy",
    "val_attention_entropy": "attention_entropy",
    "train_q_abs_max": "q_abs_max",
}


class World(NamedTuple):
    """What is known of the truth behind a log: ``truth`` is None on real rows; ``users`` and ``items`` are the world's numbers."""

    truth: Truth | WeiboTruth | None
    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]


class Seen(NamedTuple):
    """What a model says: its predictions, and gate_visual, gate_audio, gate_text of every item."""

    predictions: Predictions
    gates: pl.DataFrame


@dataclass(frozen=True)
class Judged:
    """What a cell is worth; ``brought`` where a world knows of long views."""

    estimates: Estimates
    brought: Consequences | None


@dataclass(frozen=True)
class Measures:
    """What all cells are measured with.

    Attributes:
        options: metrics and intervals.
        world: the truth, if there is one.
        users: resamples of test users.
        items: resamples of items, for the gates.
        terciles: user_id, tercile, from :func:`dependency_terciles` of the run's events.
    """

    options: EvaluateOptions
    world: World
    users: UserBootstrap
    items: UserBootstrap
    terciles: pl.DataFrame

    @classmethod
    def of(cls, tables: Tables, options: EvaluateOptions, world: World) -> Measures:
        """Resamples of a run's test users and of its items."""
        test = tables.events.filter(pl.col("split") == "test", pl.col("is_rand") == 0)
        draws = (options.replicates, options.seed)
        everything = range(tables.items.height)
        return cls(
            options,
            world,
            UserBootstrap(test["user_id"], *draws),
            UserBootstrap(everything, *draws),
            dependency_terciles(tables.events),
        )

    def judged(
        self, seen: Seen, tables: Tables, reward: RewardOptions, *, learns_q: bool
    ) -> Judged:
        """Every number of one model.

        Args:
            seen: what it says.
            tables: events with the rewards that it learnt from, and the rest as it was read.
            reward: that it learnt.
            learns_q: whether its score is a Q.
        """
        k, predictions, events = self.options.k, seen.predictions, tables.events
        estimates = judge.variant_estimates(
            predictions.impressions,
            predictions.lists,
            predictions.targets,
            events,
            self.users,
            k=k,
            learns_q=learns_q,
        )
        if learns_q:
            estimates |= self._q_bias(predictions.impressions, events)
        test = predictions.lists.filter(pl.col("split") == "test").join(
            self.terciles, on="user_id", maintain_order="left"
        )
        for (tercile,), rows in test.group_by("tercile", maintain_order=True):
            logged = Key(f"ndcg@{k}", "logged", "binary")
            found = judge.list_estimates(rows, self.users, k)[logged]
            estimates[logged._replace(group=f"{tercile} dependency")] = found
        for name in MODALITIES:
            gate = seen.gates.sort("item_id")[f"gate_{name}"]
            estimates[Key("gate_weight", name)] = self.items.mean(range(len(gate)), gate)
        if self.world.truth is None:
            return Judged(estimates, None)
        weights = _weights(events, reward)
        ranked = planted.true_ndcg(
            {MAIN: predictions.catalogue},
            self.world.truth,
            self.world.users,
            self.world.items,
            availability_ts(events, tables.items),
            k,
            weights,
        )
        estimates |= judge.truth_estimates(ranked, self.users, k)[MAIN]
        if isinstance(self.world.truth, WeiboTruth):  # it knows nothing of long views
            return Judged(estimates, None)
        shown = tables.events.filter(pl.col("split") == "train")["item_id"].unique().sort()
        vectors = pooled_vectors(tables.item_modal, shown.to_numpy())
        contexts = predictions.catalogue.unique("context_id", keep="first").sort("context_id")
        brought = consequences(
            predictions.catalogue,
            self.world.truth,
            tastes_at(contexts, events, vectors, reward.interest_alpha),
            vectors,
            self.world.users,
            self.world.items,
            k,
            weights,
        )
        for name, values in (("long_view", brought.long_view), ("return", brought.returning)):
            found = self.users.mean(brought.user_id, values)
            estimates[Key(f"true_{name}@{k}", "catalogue")] = found
        return Judged(estimates, brought)

    def rows(
        self, variant: str, own: Judged, rival: Judged | None, against: str
    ) -> list[ResultRow]:
        """Values of a cell, and differences from what it is compared with, if anything."""
        values = [
            ResultRow.from_estimate(
                variant, key.metric, e, group=key.group, weighting=key.weighting
            )
            for key, e in own.estimates.items()
        ]
        if rival is None:
            return values
        return values + [
            ResultRow.from_difference(
                variant, against, key.metric, paired(e, rival.estimates[key]), group=key.group, weighting=key.weighting
            )
            for key, e in own.estimates.items()
            # other lists, as where times are permuted, are not comparable
            if key in rival.estimates and rival.estimates[key].n == e.n
        ]  # fmt: skip

    def hacking_rows(
        self, variant: str, own: Judged, rival: Judged, against: str, reward: RewardOptions
    ) -> list[ResultRow]:
        """Whether the cell's own reward says that its lists are better than the rival's while the truth says they are worse.

        ``reward_hacking`` is 1 where the interval of the proxy's difference lies above 0, and that of long views or of returns below;
        empty where the world knows of neither.

        Args:
            variant: the model.
            own: the cell.
            rival: what it is compared with; both lists are judged by the same reward.
            against: its name.
            reward: that the cell learnt.

        Source: METHODS §9 MT-10.
        """
        if own.brought is None or rival.brought is None:
            return []
        k = self.options.k
        proxy = [self.users.mean(b.user_id, b.proxy(reward)) for b in (own.brought, rival.brought)]
        difference = paired(*proxy)
        fallen = [
            paired(own.estimates[key], rival.estimates[key]).ci_high < 0
            for key in (Key(f"true_{name}@{k}", "catalogue") for name in ("long_view", "return"))
        ]
        hacked = float(difference.ci_low > 0 and any(fallen))
        metric = f"proxy_reward@{k}"
        return [
            ResultRow.from_estimate(variant, metric, proxy[0], group="catalogue"),
            ResultRow.from_difference(variant, against, metric, difference, group="catalogue"),
            ResultRow(variant, "reward_hacking", hacked, difference.n, group="catalogue"),
        ]

    def _q_bias(self, impressions: pl.DataFrame, events: pl.DataFrame) -> Estimates:
        """Mean of Q̂ − G over test rows, in units of reward: the greedy policy's value should lie above the log's, not far (MT-14)."""
        test = impressions.filter(pl.col("split") == "test")
        rows = test.with_columns(events.select("return")[test["position"]]).drop_nulls("return")
        return {Key("q_bias"): self.users.mean(rows["user_id"], rows["q"] - rows["return"])}


def monitor_rows(variant: str, history: pl.DataFrame, limit: float) -> list[ResultRow]:
    """The signatures of failure in the last epoch, and how many sentences warned of one in any epoch (MT-13).

    Args:
        variant: the model.
        history: a row per epoch.
        limit: r_max/(1−γ).

    Source: METHODS §3.11.
    """
    epochs = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in history.to_dicts()]  # fmt: skip
    steps = int(history["step"][-1])
    warned = {
        sentence.split(" is ")[0].split(" reaches ")[0]
        for n in range(len(epochs))
        for sentence in failure_warnings(epochs[: n + 1], limit)
    }
    rows = [
        ResultRow(variant, name, epochs[-1][column], steps)
        for column, name in LAST_EPOCH.items()
        if column in epochs[-1]
    ]
    return [*rows, ResultRow(variant, "failure_warnings", float(len(warned)), steps)]


def spread_of(cells: Sequence[Judged]) -> Judged:
    """How much the errors of value and reward differ between cells: their sd over the cells, in every resample.

    Args:
        cells: two or more, judged on the same rows.

    Source: METHODS §9 MT-08.
    """
    return Judged(
        {
            Key(f"{key.metric}_spread", key.group): spread([c.estimates[key] for c in cells])
            for key in cells[0].estimates
            if key.metric in SPREAD and all(key in c.estimates for c in cells)
        },
        None,
    )


def dependency_terciles(events: pl.DataFrame) -> pl.DataFrame:
    """Users in three parts by how much it tells that one train row was watched whether the next one was: mutual information, in nats (MT-12).

    Args:
        events: user_id, split, long_view, watch_ratio, in order of time.

    Returns:
        user_id, tercile (low, middle, high); users without two such rows, and logs that do not tell what was watched, are left out.

    Source: METHODS §9 MT-12 [D: of what was watched; ties in order of user ids].
    """
    now, then = pl.col("now"), pl.col("next")
    pairs = (
        events.filter(pl.col("split") == "train")
        .with_columns(now=watched(watch_rule(events.lazy())))
        .with_columns(next=now.shift(-1).over("user_id"))
        .drop_nulls(["now", "next"])
    )
    counts = pairs.group_by("user_id", "now", "next").agg(n=pl.len())
    n, total = pl.col("n"), pl.col("n").sum().over("user_id")
    of_now, of_then = (n.sum().over("user_id", side) for side in (now, then))
    information = n / total * (n * total / (of_now * of_then)).log()
    users = (
        counts.select("user_id", information=information)
        .group_by("user_id")
        .agg(pl.col("information").sum().round(12))
        .sort("information", "user_id")
        .with_row_index("place")
    )
    third = pl.col("place") * 3 // max(users.height, 1)
    names = pl.when(third == 0).then(pl.lit("low")).when(third == 1).then(pl.lit("middle"))
    return users.select("user_id", tercile=names.otherwise(pl.lit("high")))


def _weights(events: pl.DataFrame, reward: RewardOptions) -> dict[str, float]:
    weights = reward.weights.model_dump()
    return {SIGNALS[term]: weights[term] for term in reward_terms(events.lazy())}
