"""The feedback simulator as Algorithm 1 has it: it learns in turn with a policy, and answers for items that were not shown.

Source: METHODS §4.6, Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch, FeedInputs
from reelrank.models.feed_windows import TRAIN, batches_of_like_length, row_roles
from reelrank.models.feedback_options import SimulatedRewardOptions, SimulatorOptions
from reelrank.models.feedback_simulator import Simulated
from reelrank.training.checkpoint import (
    optimiser_tensors,
    restore_optimiser,
    under_prefix,
    with_prefix,
)
from reelrank.training.feedback_simulator import impressions, new_simulator
from reelrank.training.options import InTurnOptions


class SimulatorInTurn:
    """A :class:`FeedbackSimulator` with its optimiser; ``fit_pass`` and ``simulate`` are all that a policy's training needs.

    Args:
        inputs: a log, on the device to train on; random exposures are read as history and never learnt.
        options: of the simulator.
        learning: of a pass.
        reward: Eq. 6.
        seed: of the weights.

    Attributes:
        model: the simulator itself, not calibrated.

    Raises:
        ValueError: no train rows, or they know no response.
    """

    def __init__(
        self,
        inputs: FeedInputs,
        options: SimulatorOptions,
        learning: InTurnOptions,
        reward: SimulatedRewardOptions,
        *,
        seed: int,
    ) -> None:
        self.learning, self.reward = learning, reward
        self._inputs, self._roles = inputs, row_roles(inputs)
        self._learnt = impressions(inputs, self._roles, options, TRAIN)
        self.model = new_simulator(inputs, options, self._learnt, seed).eval()
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimiser = torch.optim.Adam(
            self._parameters, learning.lr, weight_decay=learning.weight_decay
        )

    def fit_pass(self, generator: torch.Generator) -> dict[str, float]:
        """One round: ``passes`` over the impressions of train.

        Args:
            generator: of the batches' order and of the dropout, on the device of the inputs.

        Returns:
            Means over the batches: ``loss``, ``fit`` (Eq. 5 of f¹) and ``kl``.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        sums: dict[str, Tensor] = {}
        n_batches = 0
        self.model.train()
        for _ in range(self.learning.passes):
            order = batches_of_like_length(
                self._learnt.windows, self.learning.batch_size, generator
            )
            for chosen in torch.split(order, self.learning.batch_size):
                for name, value in self._step(chosen, generator).items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
                n_batches += 1
        self.model.eval()
        means = {name: float(total) / n_batches for name, total in sums.items()}
        if bad := [name for name, value in means.items() if not math.isfinite(value)]:
            raise FloatingPointError(
                f"feedback simulator: {', '.join(bad)} not finite: lower its lr {self.learning.lr}"
            )
        return means

    def _step(self, chosen: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        windows = self._learnt.windows[chosen]
        losses = self.model.losses(self._inputs, self._roles, windows, self._learnt.rows, generator)
        self._optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        nn.utils.clip_grad_norm_(self._parameters, self.learning.grad_clip)
        self._optimiser.step()
        return losses

    def simulate(self, batch: FeedBatch, slots: Tensor, generator: torch.Generator) -> Simulated:
        """Answers to the candidates at ``slots`` (B, n): :meth:`FeedbackSimulator.simulate` under this Eq. 6, without gradients."""
        with torch.no_grad():
            return self.model.simulate(batch, slots, generator, self.reward)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, running variances and moments of the optimiser."""
        moments = with_prefix("optimiser", optimiser_tensors(self._optimiser))
        return with_prefix("model", self.model.state_dict()) | moments

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.model.load_state_dict(under_prefix("model", state_dict))
        restore_optimiser(self._optimiser, under_prefix("optimiser", state_dict))
