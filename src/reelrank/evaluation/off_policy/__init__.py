"""Off-policy evaluation: what would another policy have earned, and how far is that to be believed?

    table = estimate_policy_value(log, policy, ["snipw", "dr", "ncis"])

Source: METHODS §7.
"""

from reelrank.evaluation.off_policy.behaviour import (
    BehaviourOptions,
    BehaviourPolicy,
    BehaviourRows,
    fit_behaviour_policy,
)
from reelrank.evaluation.off_policy.diagnostics import Diagnostics
from reelrank.evaluation.off_policy.evaluate import (
    ESTIMATORS,
    OffPolicyOptions,
    estimate_policy_value,
    gaussian_index_diagnostic,
)
from reelrank.evaluation.off_policy.ranking_policy import policy_probabilities
from reelrank.evaluation.off_policy.softening import (
    equal_entropy_temperature,
    mean_entropy,
    softened,
)
from reelrank.evaluation.off_policy.table import EstimateTable, PolicyEstimate

__all__ = [
    "ESTIMATORS",
    "BehaviourOptions",
    "BehaviourPolicy",
    "BehaviourRows",
    "Diagnostics",
    "EstimateTable",
    "OffPolicyOptions",
    "PolicyEstimate",
    "equal_entropy_temperature",
    "estimate_policy_value",
    "fit_behaviour_policy",
    "gaussian_index_diagnostic",
    "mean_entropy",
    "policy_probabilities",
    "softened",
]
