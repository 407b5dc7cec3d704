"""One training loop for RUIE and all baselines: every place of shuffled windows, or the last place of single events.

Source: METHODS §5.6, §1.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reelrank.evaluation.ranking import ndcg_from_ranks
from reelrank.models.sequence_data import Sequences, Windows
from reelrank.pipelines.ruie.protocol import Batch, SequenceModel, last_batch, window_batch
from reelrank.pipelines.ruie.ranking import IntArray, rank_targets, target_positions
from reelrank.pipelines.ruie.run_options import LearningOptions, RankingOptions
from reelrank.training.loop import FitResult, fit
from reelrank.training.options import TrainOptions

VALIDATION_K = 10  # [D] the headline's K
_POOL = 32  # batches whose windows are sorted by length together


def learn(
    model: SequenceModel,
    log: Sequences,
    available: IntArray,
    *,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: Path,
    identity: Mapping[str, object],
) -> FitResult:
    """Train one model on train events, and choose its epoch on val events (L9).

    Args:
        model: fresh weights, on the log's device.
        log: events.
        available: (I,) time from which each item competes, UTC epoch ms.
        learning: what all models are given alike.
        training: length and rates; ``batch_size`` counts windows, ``learning.last_place_batch`` events.
        ranking: blocks of the full ranking.
        work_dir: where an unfinished run keeps its state.
        identity: name and options of the model, fingerprints of data and code.

    Raises:
        ValueError: no event to learn from, or none to choose the epoch by.
    """
    val = validation_targets(log, learning.validation_targets, training.seed)
    if not len(val):
        raise ValueError(
            "no val event of an item and a user of train: a longer log or a lower k_core is needed to choose the epoch"
        )
    if not model.all_places:
        training = training.model_copy(update={"batch_size": learning.last_place_batch})
    rows, step = examples(model, log, training.seed, training.batch_size)
    return fit(
        model,
        rows,
        step_fn=step,
        validate_fn=lambda m: validate(m, log, val, available, ranking),
        options=training,
        work_dir=work_dir,
        identity={**identity, "learning": learning.model_dump(mode="json")},
    )


class _Step:
    """Losses of the windows, or of the events, with the numbers ``rows``."""

    def __init__(self, log: Sequences, windows: Windows | None, length: int) -> None:
        self.log, self.windows, self.length = log, windows, length

    def batch(self, rows: Tensor) -> Batch:
        if self.windows is None:
            return last_batch(self.log, rows, self.length)
        return window_batch(self.log, self.windows, rows)

    def __call__(
        self, model: SequenceModel, rows: Tensor, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        return model.losses(self.batch(rows), self.log, generator)


def examples(
    model: SequenceModel, log: Sequences, seed: int, batch_size: int = 1
) -> tuple[Tensor, _Step]:
    """What a model learns from, in an order drawn once, and the step that turns some of it into losses.

    Either way each train event but a user's first is learnt once in an epoch. Windows of a batch are of like length: what is padded is
    computed for nothing.
    """
    length, generator = model.spec.length, torch.Generator().manual_seed(seed)
    if not model.all_places:
        learnt = (log.split == 0) & (torch.arange(len(log), device=log.user.device) > log.first[log.user])  # fmt: skip
        rows = torch.nonzero(learnt).squeeze(1).cpu()
        order = torch.randperm(len(rows), generator=generator)
        return rows[order].to(log.user.device), _Step(log, None, length)
    windows = Windows.of(log, length)
    order = torch.randperm(len(windows), generator=generator)
    width = (windows.stop - windows.start).cpu()
    pools = torch.split(order, _POOL * batch_size)
    order = torch.cat([pool[width[pool].argsort(stable=True)] for pool in pools])
    batches = torch.split(order, batch_size)
    # the last, shorter one stays last: batches are cut anew from the front
    shuffled = torch.randperm(len(batches) - 1, generator=generator).tolist()
    order = torch.cat([*(batches[i] for i in shuffled), batches[-1]])
    return order.to(log.user.device), _Step(log, windows, length)


def validation_targets(log: Sequences, most: int | None, seed: int) -> Tensor:
    """Positions of val events, at most ``most``, of each scenario as many or all that it has.

    The headline is a mean over scenarios: drawn by their sizes, a few events of the smallest would decide it.
    """
    positions = target_positions(log, "val")
    if most is None or len(positions) <= most:
        return positions
    drawn = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))
    scenario = log.scenario[positions].cpu()[drawn]
    by_scenario = scenario.argsort(stable=True)
    size = torch.bincount(scenario, minlength=log.n_scenarios)
    turn = torch.empty_like(drawn)
    turn[by_scenario] = torch.arange(len(drawn)) - (size.cumsum(0) - size)[scenario[by_scenario]]
    chosen = drawn[turn.argsort(stable=True)[:most]]
    return positions[chosen.sort().values.to(positions.device)]


def validate(
    model: SequenceModel,
    log: Sequences,
    positions: Tensor,
    available: IntArray,
    ranking: RankingOptions,
) -> dict[str, float]:
    """NDCG@10 of val events, macro over their scenarios, then of each scenario.

    DIN beyond its limit of pairs is judged by its places among the items drawn in place of all.
    """
    found = rank_targets(model, log, positions, available, ranking, sample=False)
    rank = found.in_place if np.isnan(found.rank).all() else found.rank
    scenario = log.scenario[positions].cpu().numpy()
    ranked = np.flatnonzero(~np.isnan(rank))
    value = ndcg_from_ranks(rank[ranked], ranked, 1, VALIDATION_K)[1]
    name = f"ndcg@{VALIDATION_K}"
    own = {
        f"{name}_scenario_{c}": float(value[scenario[ranked] == c].mean())
        for c in np.unique(scenario[ranked])
    }
    macro = float(np.mean(list(own.values()))) if own else float("nan")
    return {name: macro, **own}
