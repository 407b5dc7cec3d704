"""What a policy says of logged decisions: during training on validation rows, and after it on all that it is judged by.

Shapes: D decisions, C candidates, n shown rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from reelrank.evaluation.grouped import group_auc
from reelrank.evaluation.regression import group_xauc
from reelrank.models.feed import RESPONSES, WATCH_TIME, FeedInputs, scores_of
from reelrank.models.feed_data import batch
from reelrank.pipelines.mmrf.run_options import PredictionOptions

LONG_VIEW = RESPONSES.index("long_view")
VAL, TEST = 1, 2


@torch.no_grad()
def decision_scores(
    policy: nn.Module, inputs: FeedInputs, index: Tensor, history: int, block: int
) -> Tensor:
    """Scores (D, C) float32 on the CPU of decisions at ``index`` (D,); −inf at a pad.

    Raises:
        FloatingPointError: a score of a candidate is not finite.
    """
    parts = [
        scores_of(policy, batch(inputs, part, history)).cpu() for part in torch.split(index, block)
    ]
    found = torch.cat(parts)
    candidates = inputs.decisions.candidates[index].cpu()
    if not bool(found[candidates >= 0].isfinite().all()):
        raise FloatingPointError(f"{type(policy).__name__} scores a candidate with NaN or infinity")
    return found


@torch.no_grad()
def head_scores(
    policy: nn.Module, inputs: FeedInputs, index: Tensor, history: int, block: int
) -> Tensor | None:
    """Each head's own scores (n, 7) of what the decisions showed, NaN for a response without a head; None without heads."""
    if not callable(getattr(policy, "head_scores", None)):
        return None
    columns = [RESPONSES.index(agent) for agent in agents_of(policy)]
    parts = []
    for part in torch.split(index, block):
        every = policy.head_scores(batch(inputs, part, history))  # type: ignore[operator]
        shown = every.permute(1, 2, 0)[inputs.decisions.shown[part]].cpu()
        own = torch.full((len(shown), len(RESPONSES)), torch.nan)
        own[:, columns] = shown.float()
        parts.append(own)
    return torch.cat(parts)


def agents_of(policy: nn.Module) -> Sequence[str]:
    """Responses that the heads of a policy speak for, in their order."""
    agents: Sequence[str] = getattr(getattr(policy, "options", None), "agents", RESPONSES)
    return agents


def judged_decisions(inputs: FeedInputs) -> Tensor:
    """Positions of the decisions that policies are judged by: val and test, random exposures included."""
    return torch.nonzero(inputs.decisions.split >= VAL).squeeze(1)


def predictions(
    policy: nn.Module, inputs: FeedInputs, history: int, options: PredictionOptions
) -> pl.DataFrame:
    """A row per judged decision: ``decision``; ``scores``, a list of C; ``heads``, 7 scores of each shown item in turn.

    ``heads`` is null for a policy without heads; NaN stands where a response has none.
    """
    index = judged_decisions(inputs)
    scores = decision_scores(policy, inputs, index, history, options.block).numpy()
    heads = head_scores(policy, inputs, index, history, options.block)
    frame = pl.DataFrame(
        {
            "decision": index.cpu().numpy().astype(np.uint32),
            "scores": pl.Series(scores, dtype=pl.Array(pl.Float32, scores.shape[1])),
        }
    )
    own: Any = pl.lit(None, pl.List(pl.Float32))
    if heads is not None:
        n = inputs.decisions.shown[index].sum(1).cpu().numpy() * len(RESPONSES)
        cut = np.append(0, np.cumsum(n))
        flat = heads.flatten().numpy()
        own = pl.Series([flat[a:b] for a, b in pairwise(cut.tolist())], dtype=pl.List(pl.Float32))  # fmt: skip
    return frame.with_columns(heads=own)


def validation(
    inputs: FeedInputs, history: int, options: PredictionOptions, seed: int
) -> Callable[[nn.Module], Mapping[str, float]]:
    """What chooses the epoch: how well val rows are ordered by watch time (GXAUC, the headline) and by long view.

    Args:
        inputs: a log.
        history: rows of a state's history.
        options: how many decisions, of whole users.
        seed: which users, where not all are taken.

    Raises:
        ValueError: the val split shows no rows under the logging policy.
    """
    decisions = inputs.decisions
    index = torch.nonzero((decisions.split == VAL) & ~decisions.is_rand).squeeze(1)
    if not len(index):
        raise ValueError(
            "the val split shows no rows under the logging policy: a longer log is needed"
        )
    if len(index) > options.validation_decisions:
        users = decisions.user[index].cpu().numpy()
        ids, n = np.unique(users, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(ids))
        taken = ids[order][n[order].cumsum() <= max(options.validation_decisions, n[order[0]])]
        index = index[torch.from_numpy(np.isin(users, taken)).to(index.device)]
    shown = decisions.shown[index]
    response = decisions.response[index][shown].cpu().numpy()
    user = decisions.user[index].repeat_interleave(shown.sum(1)).cpu().numpy()

    def validate(policy: nn.Module) -> Mapping[str, float]:
        score = decision_scores(policy, inputs, index, history, options.block)[shown.cpu()].numpy()
        return {
            "gxauc_watch_time": _group_mean(group_xauc, response[:, WATCH_TIME], score, user),
            "gauc_long_view": _group_mean(group_auc, response[:, LONG_VIEW], score, user),
        }

    return validate


def _group_mean(
    metric: Callable[..., Any],
    label: npt.NDArray[np.float32],
    score: npt.NDArray[np.float32],
    user: npt.NDArray[np.int64],
) -> float:
    known = ~np.isnan(label)
    return float(metric(label[known], score[known], user[known]).mean().value)
