"""From places to metrics: all scenarios, each scenario, each behaviour; and what the released code would have printed.

Source: METHODS §5.7, §5.5, §2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.full_ranking import ListMetric, TargetRanks
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, Ratio, UserBootstrap, macro, paired
from reelrank.models.sequence_options import BEHAVIOURS

FloatArray = npt.NDArray[np.float64]
METRICS: tuple[ListMetric, ...] = ("ndcg", "hr", "mrr")
# places of ``ranking.ranked_frame`` and the number of items that they were drawn from
PROTOCOLS: dict[str, str | None] = {"rank": None, "rank_sampled": "sampled", "rank_in_place": "in_place"}  # fmt: skip
Forensic = Literal["correct", "tail slice", "reversed rank"]
FORENSICS: tuple[Forensic, ...] = ("correct", "tail slice", "reversed rank")


class Key(NamedTuple):
    """Which number an estimate is."""

    metric: str
    group: str = "all"
    weighting: str = ""


Estimates = dict[Key, Estimate]


def scenario_labels(scenarios: pl.DataFrame, names: Mapping[str, str]) -> list[str]:
    """What readers call each scenario, in the order of the codes."""
    raw = scenarios.sort("scenario")["raw_scenario"].to_list()
    return [names.get(str(value), f"scenario {value}") for value in raw]


def estimates(
    ranked: pl.DataFrame, labels: Sequence[str], cutoffs: Sequence[int], bootstrap: UserBootstrap
) -> Estimates:
    """NDCG, HR and MRR of one model: macro over scenarios, micro, per scenario, per behaviour; sampled ones beside.

    A target that was not ranked is in none of them.

    Args:
        ranked: test rows of ``ranking.ranked_frame``.
        labels: names of the scenario codes.
        cutoffs: K.
        bootstrap: holds all users of ``ranked``.
    """
    found: Estimates = {}
    for column in PROTOCOLS:
        own = ranked.filter(pl.col(column).is_not_null())
        if own.height:
            values = _values(own, column, cutoffs)
            # behaviours are told apart in full ranking only
            found |= _grouped(own, values, labels, bootstrap, BEHAVIOURS if column == "rank" else ())  # fmt: skip
    return found


def _values(ranked: pl.DataFrame, column: str, cutoffs: Sequence[int]) -> dict[str, FloatArray]:
    """Metric to its value for each row: every target is a list of its own."""
    n_drawn = PROTOCOLS[column]
    protocol = "full" if n_drawn is None else f"uniform{ranked[n_drawn][0]}"
    places = TargetRanks(protocol, ranked[column].to_numpy(), np.arange(ranked.height))
    found = (places.per_list(metric, k) for metric in METRICS for k in cutoffs)
    return {name: value for name, _, value in found}


def _grouped(
    ranked: pl.DataFrame,
    values: Mapping[str, FloatArray],
    labels: Sequence[str],
    bootstrap: UserBootstrap,
    behaviours: Iterable[str],
) -> Estimates:
    """All groups of all metrics in one pass over the resamples."""
    scenario = ranked["scenario"].to_numpy()
    groups = {label: scenario == code for code, label in enumerate(labels)}
    groups |= {f"{b} targets": ranked[b].fill_null(0).to_numpy() > 0 for b in behaviours}
    groups = {name: mask for name, mask in groups.items() if mask.any()}
    users = ranked["user_id"].to_numpy()
    found: Estimates = {}
    for group, mask in {"all": np.ones(len(users), bool), **groups}.items():
        ones = np.ones(int(mask.sum()))
        terms = [[Ratio(value[mask], ones)] for value in values.values()]
        made = bootstrap.ratios(users[mask], terms)
        weighting = "micro" if group == "all" else ""
        found |= {Key(m, group, weighting): e for m, e in zip(values, made, strict=True)}
    present = [label for label in labels if label in groups]
    headline = {
        Key(m, "all", "macro"): macro([found[Key(m, label)] for label in present]) for m in values
    }
    return headline | found


def result_rows(found: Mapping[str, Estimates], main: str) -> list[ResultRow]:
    """Every estimate as a row, and the paired differences of ``main`` with each other model."""
    rows = [row for variant, table in found.items() for row in value_rows(variant, table)]
    for rival, table in found.items():
        if rival != main:
            rows += difference_rows(main, found[main], rival, table)
    return rows


def value_rows(variant: str, table: Estimates) -> list[ResultRow]:
    """Estimates of one model."""
    return [
        ResultRow.from_estimate(variant, key.metric, e, group=key.group, weighting=key.weighting)
        for key, e in table.items()
    ]


def difference_rows(variant: str, own: Estimates, rival: str, other: Estimates) -> list[ResultRow]:
    """``variant − rival`` where both have the number on the same rows."""
    return [
        ResultRow.from_difference(
            variant, rival, key.metric, paired(e, other[key]), group=key.group, weighting=key.weighting
        )
        for key, e in own.items()
        if key in other and other[key].n == e.n
    ]  # fmt: skip


def forensic_rows(
    ranked: pl.DataFrame, variant: str, cutoffs: Sequence[int], bootstrap: UserBootstrap
) -> dict[Forensic, list[ResultRow]]:
    """RU-10: NDCG and HR of the same places by the right metric and by those of the released code, micro."""
    own = ranked.filter(pl.col("rank").is_not_null())
    rank, users = own["rank"].to_numpy(), own["user_id"].to_numpy()
    rows: dict[Forensic, list[ResultRow]] = {name: [] for name in FORENSICS}
    if not own.height:
        return rows
    for name in FORENSICS:
        for k in cutoffs:
            printed, hit = printed_metric(rank, k, max(cutoffs), name)
            for metric, value in (("ndcg", printed), ("hr", hit)):
                estimate = bootstrap.mean(users, value)
                rows[name].append(
                    ResultRow.from_estimate(variant, f"{metric}@{k}", estimate, weighting="micro")
                )
    return rows


def printed_metric(
    rank: npt.ArrayLike, k: int, largest: int, form: Forensic
) -> tuple[FloatArray, FloatArray]:
    """NDCG@K and HR@K of places (n,), as the code's form would have them.

    - correct: places 1 … K.
    - tail slice: of the ``largest`` best in falling order the last K are taken (METHODS §5.5, defect 1), so places ``largest`` − K + 1 …
      ``largest`` count, the first of them as a 1.
    - reversed rank: the right K, but counted from the end, so that the best has place K.
    """
    place = np.asarray(rank, np.float64)
    match form:
        case "correct":
            counted = place
        case "tail slice":
            counted = place - (largest - k)
        case "reversed rank":
            counted = k + 1 - place
    inside = (counted >= 1) & (counted <= k)
    discount = 1 / np.log2(np.where(inside, counted, 1.0) + 1)
    return np.where(inside, discount, 0.0), inside.astype(np.float64)
