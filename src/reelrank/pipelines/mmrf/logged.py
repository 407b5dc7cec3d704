"""What a log says about decisions, as arrays: the rows that policies are judged on, and the context of the policy that logged.

Shapes: D decisions, C candidates, n shown rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from reelrank.evaluation.off_policy import (
    BehaviourOptions,
    BehaviourRows,
    fit_behaviour_policy,
)
from reelrank.models.feed import PAD, RESPONSES, WATCH_TIME, FeedBatch, FeedInputs
from reelrank.models.feed_data import batch, trained_decisions
from reelrank.models.feed_encoder import feedback_features
from reelrank.pipelines.mmrf.scoring import VAL

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CATEGORY = "category_1"
HISTORY = 50  # rows that the logging policy's context is made of, METHODS §4.3
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class LoggedPart:
    """Decisions of one part of the log and the rows that they showed, both in (user, time) order.

    Attributes:
        decision: (D,) positions in ``Decisions``.
        candidates: (D, C) item ids, PAD beyond the end.
        user: (D,).
        episode: (D,) session (K2), or the user's rows of a split (K1).
        of_row: (n,) place of each row's decision among the D.
        column: (n,) place of each shown item among the candidates.
        response: (n, 7) as ``RESPONSES``, NaN where not logged.
    """

    decision: IntArray
    candidates: IntArray
    user: IntArray
    episode: IntArray
    of_row: IntArray
    column: IntArray
    response: FloatArray

    @property
    def row_user(self) -> IntArray:
        """(n,) user of each row."""
        return self.user[self.of_row]

    def of_shown(self, values: npt.NDArray[np.floating]) -> FloatArray:
        """Values (D, C) of the candidates, of what was shown: (n,)."""
        return values[self.of_row, self.column].astype(np.float64)


def logged_part(inputs: FeedInputs, split: int, *, is_random: bool = False) -> LoggedPart:
    """Decisions of a split that the logging policy made, or those shown at random."""
    decisions = inputs.decisions
    chosen = (decisions.split == split) & (decisions.is_rand == is_random)
    index = torch.nonzero(chosen).squeeze(1)
    of_row, column = torch.nonzero(decisions.shown[index], as_tuple=True)
    return LoggedPart(
        decision=_numpy(index),
        candidates=_numpy(decisions.candidates[index]),
        user=_numpy(decisions.user[index]),
        episode=_episodes(_numpy(decisions.next))[_numpy(index)],
        of_row=_numpy(of_row),
        column=_numpy(column),
        response=decisions.response[index][of_row, column].double().cpu().numpy(),
    )


def logging_propensities(
    inputs: FeedInputs, options: BehaviourOptions, device: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """π̂_b of every candidate of the val and test decisions, and how good it is.

    A softmax MLP over the candidates on what is known before the decision, cross-fitted by user on the train rows of the
    logging policy, its temperature fitted on val. Several items of one request are rows of their own [D].

    Args:
        inputs: a log.
        options: of the model.
        device: torch device to fit on.

    Returns:
        ``decision``, ``probabilities`` (list of C, sums to 1); and the report of
        :class:`~reelrank.evaluation.off_policy.BehaviourPolicy`, with the temperature.

    Source: METHODS §7.2.
    """
    decisions = inputs.decisions
    standard = ~decisions.is_rand
    parts = {
        "train": trained_decisions(decisions),
        "val": torch.nonzero((decisions.split == VAL) & standard).squeeze(1),
        "judged": torch.nonzero((decisions.split >= VAL) & standard).squeeze(1),
    }
    actions, n_actions = _actions(inputs)
    train, val = (_choices(inputs, parts[name], actions) for name in ("train", "val"))
    fitted = fit_behaviour_policy(train, val, n_actions, options, device=device)
    index = parts["judged"]
    contexts, candidates = _contexts(inputs, index), actions[_numpy(decisions.candidates[index])]
    # of a decision as a whole: any of its candidates serves as the logged action
    asked = BehaviourRows(_numpy(decisions.user[index]), contexts, candidates[:, 0], candidates)
    probabilities = fitted.probabilities(asked)
    width = probabilities.shape[1]
    frame = pl.DataFrame(
        {
            "decision": _numpy(index).astype(np.uint32),
            "probabilities": pl.Series(probabilities, dtype=pl.Array(pl.Float64, width)),
        }
    )
    return frame, fitted.report.with_columns(temperature=pl.lit(fitted.temperature))


def history_value(inputs: FeedInputs, part: LoggedPart) -> FloatArray:
    """(n,) mean watch time of the user's history before each row's decision, s, 0 without one: V(x) of PieceNCIS [D]."""
    index = torch.from_numpy(part.decision).to(inputs.decisions.user.device)
    found = []
    for some in torch.split(index, _BLOCK):
        states = batch(inputs, some, HISTORY)
        watch = states.feedback[..., WATCH_TIME]
        known = (states.history != PAD) & ~watch.isnan()
        mean = (watch.nan_to_num(0.0) * known).sum(1) / known.sum(1).clamp_min(1)
        found.append(mean.double().cpu().numpy())
    return np.concatenate(found)[part.of_row] if found else np.zeros(0)


def _choices(inputs: FeedInputs, index: Tensor, actions: IntArray) -> BehaviourRows:
    """A row per shown item."""
    decisions = inputs.decisions
    of_row, column = torch.nonzero(decisions.shown[index], as_tuple=True)
    candidates = actions[_numpy(decisions.candidates[index])]
    rows = _numpy(of_row)
    return BehaviourRows(
        _numpy(decisions.user[index])[rows],
        _contexts(inputs, index)[rows],
        candidates[rows, _numpy(column)],
        candidates[rows],
    )


def _actions(inputs: FeedInputs) -> tuple[IntArray, int]:
    """Number of each item among those that are ever a candidate (−1 of the others and, at the last place, of a pad), and how many."""
    ever = np.unique(_numpy(inputs.decisions.candidates))
    ever = ever[ever != PAD]
    number = np.full(len(inputs.items.codes) + 1, -1, np.int64)
    number[ever] = np.arange(len(ever))
    return number, len(ever)


def _contexts(inputs: FeedInputs, index: Tensor) -> FloatArray:
    """(B, d) what the logging policy may have looked at; nothing of the decision's own rows (L6)."""
    parts = [_context(inputs, batch(inputs, some, HISTORY)) for some in torch.split(index, _BLOCK)]
    return np.concatenate(parts)


def _context(inputs: FeedInputs, states: FeedBatch) -> FloatArray:
    """Scenario, hour, mean feedback, and shares of the first categories shown, watched long and shown last."""
    n_scenarios = int(inputs.decisions.scenario.max()) + 1
    column = inputs.items.fields.index(CATEGORY)
    n_categories = inputs.items.cardinalities[column]
    is_row = states.history != PAD
    n = is_row.sum(1, keepdim=True)
    category = inputs.items.codes[states.history.clamp_min(0), column]
    answers = feedback_features(states.feedback)
    shares = torch.zeros(len(n), 2, n_categories, device=n.device)
    for place, weight in enumerate((is_row.float(), answers[..., RESPONSES.index("long_view")])):
        shares[:, place].scatter_add_(1, category, weight * is_row)
    last = torch.nn.functional.one_hot(category[:, -1], n_categories) * is_row[:, -1:]
    angle = states.hour.unsqueeze(1) * (2 * torch.pi / 24)
    found = [
        torch.nn.functional.one_hot(states.scenario, n_scenarios),
        angle.sin(),
        angle.cos(),
        (shares / n.clamp_min(1).unsqueeze(2)).flatten(1),
        last,
        (answers * is_row.unsqueeze(2)).sum(1) / n.clamp_min(1),
        n.float().log1p(),
    ]
    return torch.cat([part.float() for part in found], dim=1).double().cpu().numpy()


def _episodes(following: IntArray) -> IntArray:
    """Number of each decision's episode from the links to the next: the position of its first decision."""
    first = np.arange(len(following))
    linked = following >= 0
    first[following[linked]] = np.flatnonzero(linked)
    while True:
        earlier = first[first]
        if np.array_equal(earlier, first):
            return first
        first = earlier


def _numpy(values: Tensor) -> IntArray:
    return values.cpu().numpy().astype(np.int64)
