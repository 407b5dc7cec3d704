"""Estimates of one policy's value, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from reelrank.evaluation.off_policy.diagnostics import Diagnostics
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate


@dataclass(frozen=True, slots=True)
class PolicyEstimate:
    """One estimator's answer.

    Attributes:
        name: obp's name.
        estimate: value and interval; ``reliable`` includes the flags of METHODS §7.3.
        diagnostics: of its weights.
        reasons: why it is not reliable; empty if it is.
        notes: what else a reader must know.
    """

    name: str
    estimate: Estimate
    diagnostics: Diagnostics
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EstimateTable:
    """Estimates of one policy's value from one log; printing it shows all of it.

    Attributes:
        estimates: in the order asked for.
        on_policy: mean logged reward: the value of the policy that logged.
        n_users: distinct users of the rows used.
        excluded: rows left out, by reason.
        sweep: estimates under other caps: estimator, cap, value, ci_low, ci_high, ess, clip_rate.
    """

    estimates: tuple[PolicyEstimate, ...]
    on_policy: Estimate
    n_users: int
    excluded: Mapping[str, int]
    sweep: pl.DataFrame

    def __getitem__(self, name: str) -> PolicyEstimate:
        """The estimate of that name.

        Raises:
            KeyError: it was not asked for.
        """
        for one in self.estimates:
            if one.name == name:
                return one
        raise KeyError(f"{name} was not asked for; there are {[one.name for one in self]}")

    def __iter__(self) -> Iterator[PolicyEstimate]:
        return iter(self.estimates)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing a number."""
        excluded = [
            f"{count:,} of the log's rows excluded: {why}" for why, count in self.excluded.items()
        ]
        said = [
            f"{one.name} is not reliable: {'; '.join(one.reasons)}" for one in self if one.reasons
        ]
        return (*excluded, *said, *(f"{one.name} {note}" for one in self for note in one.notes))

    def frame(self) -> pl.DataFrame:
        """A row per estimator: value, interval, diagnostics, reliable."""
        return pl.DataFrame(
            {
                "estimator": one.name,
                "value": one.estimate.value,
                "ci_low": one.estimate.ci_low,
                "ci_high": one.estimate.ci_high,
                "n": one.diagnostics.n,
                "mean_weight": one.diagnostics.mean_weight,
                "ess": one.diagnostics.ess,
                "ess_share": one.diagnostics.ess_share,
                "clip_rate": one.diagnostics.clip_fraction,
                "max_share": one.diagnostics.max_share,
                "reliable": one.estimate.reliable,
            }
            for one in self
        )

    def rows(self, variant: str, *, group: str = "all") -> list[ResultRow]:
        """Rows for :func:`reelrank.evaluation.results.results_frame`: each value, with its ``ess`` and ``clip_rate``.

        The latter two carry the estimator in ``weighting``.
        """
        found = []
        for one in self:
            n, d = one.estimate.n, one.diagnostics
            found.append(ResultRow.from_estimate(variant, one.name, one.estimate, group=group))
            found += [
                ResultRow(variant, metric, value, n, group=group, weighting=one.name)
                for metric, value in (("ess", d.ess), ("clip_rate", d.clip_fraction))
            ]
        return found

    def __repr__(self) -> str:
        o = self.on_policy
        lines = [
            f"Policy value from {o.n:,} logged actions of {self.n_users:,} users; 95 % intervals, users resampled "
            f"{o.replicates.size:,} times",
            f"{'':<16}{'value':>10}  {'interval':<22}{'ESS':>10}{'ESS/n':>8}{'mean w':>8}{'clipped':>9}{'largest':>9}  reliable",
            f"{'(logged)':<16}{o.value:>10.4g}  {_interval(o):<22}",
        ]
        for one in self:
            d, value = one.diagnostics, one.estimate
            lines.append(
                f"{one.name:<16}{value.value:>10.4g}  {_interval(value):<22}{d.ess:>10,.0f}{d.ess_share:>8.3f}"
                f"{d.mean_weight:>8.3f}{d.clip_fraction:>9.2%}{d.max_share:>9.2%}  {'yes' if value.reliable else 'NO'}"
            )
        return "\n".join([*lines, *(f"! {warning}" for warning in self.warnings)])


def _interval(estimate: Estimate) -> str:
    return f"[{estimate.ci_low:.4g}, {estimate.ci_high:.4g}]"
