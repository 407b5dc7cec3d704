"""What is printed with every off-policy value, and when the value may not be ranked.

Source: METHODS §7.3 [S].
"""

from __future__ import annotations

from dataclasses import dataclass

from reelrank.evaluation.off_policy.estimators import FloatArray

MIN_ESS_SHARE = 0.01
MIN_ESS = 200.0
MAX_SHARE = 0.05
MAX_MEAN_DEVIATION = 0.2


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """How many rows an estimate rests on in truth.

    Attributes:
        n: rows.
        mean_weight: of the weights before cap or shrinkage; about 1 if the propensities are right.
        ess: (Σ w̄)² / Σ w̄² of the weights as they entered.
        clip_fraction: share of rows whose weight a cap cut; 0 where the estimator has no cap.
        max_share: largest w̄ / Σ w̄ of a row; NaN where no row has weight.
    """

    n: int
    mean_weight: float
    ess: float
    clip_fraction: float
    max_share: float

    @classmethod
    def of(cls, weight: FloatArray, used: FloatArray, *, capped: bool) -> Diagnostics:
        """Describe (n,) weights and what a cap, or a smooth shrinkage, made of them.

        Raises:
            ValueError: no rows.
        """
        if weight.size == 0:
            raise ValueError("no rows: there is nothing to describe")
        total = float(used.sum())
        largest = float(used.max())
        return cls(
            n=weight.size,
            mean_weight=float(weight.mean()),
            # relative to the largest: squares of huge products must not overflow
            ess=float((total / largest) ** 2 / ((used / largest) ** 2).sum()) if total > 0 else 0.0,
            clip_fraction=float((used < weight).mean()) if capped else 0.0,
            max_share=largest / total if total > 0 else float("nan"),
        )

    @property
    def ess_share(self) -> float:
        """ESS / n."""
        return self.ess / self.n

    def reasons(self) -> tuple[str, ...]:
        """Why the estimate may not be ranked; empty if it may."""
        found = []
        if self.ess_share < MIN_ESS_SHARE:
            found.append(f"ESS/n {self.ess_share:.2g} < {MIN_ESS_SHARE:g}")
        if self.ess < MIN_ESS:
            found.append(f"ESS {self.ess:.3g} < {MIN_ESS:g}")
        if not self.max_share <= MAX_SHARE:
            found.append(f"largest share {self.max_share:.2g} > {MAX_SHARE:g}")
        if not abs(self.mean_weight - 1) <= MAX_MEAN_DEVIATION:
            found.append(f"mean weight {self.mean_weight:.3g} is not within 1 ± {MAX_MEAN_DEVIATION:g}")  # fmt: skip
        return tuple(found)
