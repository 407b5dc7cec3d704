"""What policies learn from: logged transitions, and simulated ones of items that were not shown.

Source: METHODS §4.6, Algorithm 1. Shapes: N agents, B transitions, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch, FeedInputs, scores_of
from reelrank.models.feed_data import batch, trained_decisions
from reelrank.models.feed_rewards import RewardScale
from reelrank.models.feedback_simulator import shown
from reelrank.models.tensor_record import TensorRecord
from reelrank.pipelines.mmrf.options import ReplayOptions

POPULARITY_POWER = 0.75  # METHODS §3.7 [D]
_BLOCK, _SCORED = 100_000, 512  # decisions at once; those that a policy scores


class SimulatedFeedback(Protocol):
    """What would have been answered to n candidates of B decisions."""

    @property
    def reward(self) -> Tensor:
        """(B, n, 7), r̂ of Eq. 6 in train sds, hate negative."""
        ...

    @property
    def response(self) -> Tensor:
        """(B, n, 7), the expected responses, as in ``FeedBatch.feedback``."""
        ...


class FeedbackModel(Protocol):
    """The simulator as Algorithm 1 sees it; it learns in turn with the policy."""

    def fit_pass(self, generator: torch.Generator) -> Mapping[str, float]:
        """One pass over the impressions of train; returns losses."""
        ...

    def simulate(
        self, batch: FeedBatch, slots: Tensor, generator: torch.Generator
    ) -> SimulatedFeedback:
        """Answers to the candidates at ``slots`` (B, n)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors to store."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:  # noqa: ANN401 (nn.Module's)
        """Take back what ``state_dict`` gave."""
        ...


@dataclass(frozen=True)
class Transition(TensorRecord):
    """B steps of users.

    Attributes:
        batch: states s and candidates.
        exposure: (B, C) float32, the action: each shown item's share.
        reward: (N, B), train sds, of several items their mean; NaN where not logged.
        item_reward: (N, B, C), of each shown item; NaN elsewhere.
        next: states s'; anything where ``goes_on`` is false.
        goes_on: (B,) bool, not done.
        logged: (B,) bool, the log shows it; else simulated.
    """

    batch: FeedBatch
    exposure: Tensor
    reward: Tensor
    item_reward: Tensor
    next: FeedBatch
    goes_on: Tensor
    logged: Tensor


class Replay:
    """Draws transitions of the train decisions that were no random exposures.

    Args:
        inputs: a log.
        scale: units of the rewards, and which agents there are.
        options: batch and non-impressions.
        history: rows of a state's history.
        feedback: the simulator; needed unless ``non_impressions`` is none.

    Raises:
        ValueError: nothing to train on, or no simulator where one is needed.
    """

    def __init__(
        self,
        inputs: FeedInputs,
        scale: RewardScale,
        options: ReplayOptions,
        history: int,
        feedback: FeedbackModel | None = None,
    ) -> None:
        self.inputs, self.scale, self.options = inputs, scale, options
        self.history = history
        self.feedback = feedback if options.non_impressions != "none" else None
        self.decisions = trained_decisions(inputs.decisions)
        self.pool: tuple[Tensor, Tensor] | None = None
        if not len(self.decisions):
            raise ValueError("no decision to train on: the train split is empty or all random")
        if self.feedback is None and options.non_impressions != "none":
            raise ValueError(
                f"non_impressions: {options.non_impressions} needs a feedback model: pass one or set none (MMRF-DA)"
            )

    def sample_non_impressions(
        self, generator: torch.Generator, policy: nn.Module | None = None
    ) -> None:
        """Choose ``rate`` of each decision's non-impressions for the batches of an epoch, at least one of each that has any.

        Args:
            generator: of the draws.
            policy: as it is now; needed by ``sampling: hard``.
        """
        size = _SCORED if self.options.sampling == "hard" else _BLOCK
        parts = [
            _pick(self.inputs, block, self.options.rate, generator, self._weights(block, policy))
            for block in torch.split(self.decisions, size)
        ]
        decision, column = (torch.cat(p) for p in zip(*parts, strict=True))
        if not len(decision):
            raise ValueError(
                "every candidate was shown: there are no non-impressions; set non_impressions: none"
            )
        self.pool = decision, column

    def sample(self, generator: torch.Generator) -> Transition:
        """Transitions of one update: logged and, in their share, simulated ones.

        Raises:
            RuntimeError: non-impressions are wanted, but none were sampled.
        """
        size = self.options.batch_size
        n_simulated = round(size * self.options.share) if self.feedback is not None else 0
        device = self.decisions.device
        at = torch.randint(
            len(self.decisions), (size - n_simulated,), generator=generator, device=device
        )
        logged = self.logged(self.decisions[at])
        if self.feedback is None or not n_simulated:
            return logged
        if self.pool is None:
            raise RuntimeError("call sample_non_impressions before the first batch of an epoch")
        at = torch.randint(len(self.pool[0]), (n_simulated,), generator=generator, device=device)
        simulated = self.simulated(self.pool[0][at], self.pool[1][at], self.feedback, generator)
        return _joined(logged, simulated)

    def logged(self, index: Tensor) -> Transition:
        """Transitions (B,) of the log; the reward of several shown items is their mean."""
        decisions = self.inputs.decisions
        is_shown = decisions.shown[index]
        # (B, C, N), NaN where not shown or not logged
        reward = self.scale.rewards(decisions.response[index])
        return Transition(
            batch=batch(self.inputs, index, self.history),
            exposure=is_shown / is_shown.sum(1, keepdim=True).clamp_min(1),
            reward=reward.nanmean(1).T.contiguous(),
            item_reward=reward.permute(2, 0, 1).contiguous(),
            next=self._next(index),
            goes_on=decisions.next[index] >= 0,
            logged=torch.ones_like(index, dtype=torch.bool),
        )

    @torch.no_grad()
    def simulated(
        self, index: Tensor, column: Tensor, feedback: FeedbackModel, generator: torch.Generator
    ) -> Transition:
        """Transitions of decisions (B,) had the candidate at ``column`` (B,) been shown."""
        states = batch(self.inputs, index, self.history)
        answer = feedback.simulate(states, column.unsqueeze(1), generator)
        reward = answer.reward[:, 0, self.scale.columns].T.contiguous()
        if self.options.non_impressions == "negative":
            reward = torch.full_like(reward, self.options.negative_reward)
        after = self._next(index)
        if self.options.next_state == "simulated":
            past = shown(states, column, answer.response[:, 0])
            after = replace(after, history=past.history, feedback=past.feedback)
        exposure = torch.zeros(states.candidates.shape, device=index.device)
        at = column.view(1, -1, 1).expand(len(reward), -1, -1)
        item_reward = torch.full((len(reward), *exposure.shape), torch.nan, device=index.device)
        return Transition(
            batch=states,
            exposure=exposure.scatter_(1, column.unsqueeze(1), 1.0),
            reward=reward,
            item_reward=item_reward.scatter_(2, at, reward.unsqueeze(-1)),
            next=after,
            goes_on=self.inputs.decisions.next[index] >= 0,
            logged=torch.zeros_like(index, dtype=torch.bool),
        )

    @torch.no_grad()
    def _weights(self, index: Tensor, policy: nn.Module | None) -> Tensor | None:
        """Weights (B, C) by which non-impressions are drawn; None: alike."""
        decisions = self.inputs.decisions
        if self.options.sampling == "popularity":
            train = self.decisions
            shown = decisions.candidates[train][decisions.shown[train]]
            exposures = torch.bincount(shown, minlength=len(self.inputs.items.codes))
            weight = exposures.clamp_min(1).double() ** POPULARITY_POWER
            return weight[decisions.candidates[index].clamp_min(0)]
        if self.options.sampling == "hard":
            if policy is None:
                raise ValueError("sampling: hard needs the policy that is learning")
            scores = scores_of(policy, batch(self.inputs, index, self.history))
            return scores.double().softmax(1).clamp_min(1e-9)
        return None

    def _next(self, index: Tensor) -> FeedBatch:
        return batch(self.inputs, self.inputs.decisions.next[index].clamp_min(0), self.history)


def _pick(
    inputs: FeedInputs,
    index: Tensor,
    rate: float,
    generator: torch.Generator,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Decision and column of round(rate · n) of each decision's n non-impressions, drawn by weights (B, C)."""
    decisions = inputs.decisions
    free = (decisions.candidates[index] >= 0) & ~decisions.shown[index]
    n = free.sum(1)
    wanted = torch.where(n > 0, (rate * n).round().clamp_min(1), 0)
    draws = torch.rand(free.shape, generator=generator, device=index.device)
    if weight is not None:
        # the first arrivals of a race with these rates: draws without replacement by weight
        draws = -torch.log1p(-draws.double()) / weight
    rank = draws.masked_fill(~free, torch.inf).argsort(1).argsort(1)
    row, column = torch.nonzero(rank < wanted.unsqueeze(1), as_tuple=True)
    return index[row], column


def _joined(first: Transition, second: Transition) -> Transition:
    def rows(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b])

    def batches(a: FeedBatch, b: FeedBatch) -> FeedBatch:
        return FeedBatch(**{name: rows(t, getattr(b, name)) for name, t in vars(a).items()})

    return Transition(
        batch=batches(first.batch, second.batch),
        exposure=rows(first.exposure, second.exposure),
        reward=torch.cat([first.reward, second.reward], dim=1),
        item_reward=torch.cat([first.item_reward, second.item_reward], dim=1),
        next=batches(first.next, second.next),
        goes_on=rows(first.goes_on, second.goes_on),
        logged=rows(first.logged, second.logged),
    )
