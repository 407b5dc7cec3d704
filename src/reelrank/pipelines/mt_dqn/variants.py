"""MT-DQN with one of its readings changed: without reinforcement (MT-02), or with behaviours as actions (MT-15).

Source: METHODS §3.7, §3.10.
"""

from __future__ import annotations

from typing import ClassVar

from reelrank.models.behaviours import BEHAVIOURS
from reelrank.models.inputs import InputSpec
from reelrank.models.registry import register
from reelrank.pipelines.mt_dqn.heads import CandidateHeads
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import BehaviourMTDQNOptions, SupervisedMTDQNOptions


@register("mt_dqn_supervised", SupervisedMTDQNOptions)
class SupervisedMTDQN(MTDQN):
    """MT-DQN's states without Q: ranks by Σ weight · p of its behaviours, and has no DQN loss."""

    config: SupervisedMTDQNOptions
    learns_q: ClassVar[bool] = False

    def __init__(self, config: SupervisedMTDQNOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        self.heads = CandidateHeads(
            *self.state_dims, config.head, config.behaviour_weights, spec.logged
        )


@register("mt_dqn_behaviours", BehaviourMTDQNOptions)
class BehaviourMTDQN(MTDQN):
    """MT-DQN whose action is the behaviour that is observed: Q ∈ R³ of each candidate, ranked by the largest."""

    config: BehaviourMTDQNOptions

    def __init__(self, config: BehaviourMTDQNOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        self.heads = CandidateHeads(*self.state_dims, config.head, n_actions=len(BEHAVIOURS))
