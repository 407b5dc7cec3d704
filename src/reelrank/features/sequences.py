"""Which rows are events of a sequence, and the items and scenarios that a sequential model knows.

Source: METHODS §5.2, §1.5 L2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl
from pydantic import Field

from reelrank.options import Options

CORES = (3, 5, 10)  # METHODS §5.2 [D]
PUBLISHED_ITEMS = 279_081  # METHODS §5.1 [A]


class SequenceOptions(Options):
    """What makes a row an event, and what is too rare to learn."""

    events: Literal["click", "any_feedback", "all"] = Field(
        "click",
        description="rows that are events: clicked ones [A], ones with any positive feedback, or all",
    )
    scenarios: tuple[int, ...] | None = Field(
        None, description="scenarios to keep, in the order of their codes; null: all, ascending"
    )
    absent_scenarios: Literal["refuse", "skip"] = Field(
        "refuse",
        description="named scenarios without a train event: an error, or left out and counted",
    )
    k_core: int | Literal["auto"] = Field(
        5,
        description="least train events of an item and of a user, applied until both hold; auto: of 3, 5, 10 the one "
        "that leaves the number of items nearest to the published 279,081 [D]",
    )
    max_events: int = Field(200, ge=2, description="a user's last events that are kept")


@dataclass(frozen=True)
class SequenceEvents:
    """Events, what their codes stand for, and what was left out.

    Attributes:
        events: row_id, user_id, item (code), scenario (code), ts_ms, split, click, like, follow, forward; by (user, time).
        items: item (code 0 …), item_id.
        scenarios: scenario (code 0 …), raw_scenario.
        report: rows by step, with the reason.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    scenarios: pl.DataFrame
    report: pl.DataFrame


def sequence_events(interactions: pl.LazyFrame, options: SequenceOptions) -> SequenceEvents:
    """Select events and give items and scenarios dense codes, fitted on train rows (L2).

    Val and test rows of items or users outside the train core are left out and counted: a model of ids cannot rank what it never saw.
    So are rows of a scenario that train does not have.

    Args:
        interactions: ``Interactions`` joined with ``split``; random exposures are left out.
        options: filters.

    Raises:
        ValueError: nothing is left, or a named scenario has no train event.
    """
    columns = ["row_id", "user_id", "item_id", "scenario", "ts_ms", "split", "click", "like", "follow", "forward"]  # fmt: skip
    steps: list[tuple[str, int]] = []
    rows = interactions.filter(pl.col("is_rand") == 0).select(*columns, "comment").collect()
    steps.append(("rows of the standard log", rows.height))
    rows = rows.filter(_is_event(options)).select(columns)
    steps.append((f"events ({options.events})", rows.height))
    scenarios = _scenario_codes(rows.filter(pl.col("split") == "train"), options)
    if options.scenarios is not None:
        known = set(scenarios["raw_scenario"])
        for absent in (s for s in options.scenarios if s not in known):
            steps.append((f"scenario {absent} skipped: it has no train event", rows.height))
        rows = rows.filter(pl.col("scenario").is_in(options.scenarios))
        steps.append((f"in scenarios {list(options.scenarios)}", rows.height))
    rows = rows.join(scenarios.select(scenario="raw_scenario"), on="scenario", how="semi")
    steps.append(("in a scenario that train has", rows.height))
    k, core = _core(rows.filter(pl.col("split") == "train"), options.k_core)
    rows = rows.join(core.select("item_id").unique(), on="item_id", how="semi")
    rows = rows.join(core.select("user_id").unique(), on="user_id", how="semi")
    steps.append((f"of items and users in the {k}-core of train", rows.height))
    if rows.is_empty():
        raise ValueError(
            f"no event is left with events={options.events}, k_core={options.k_core}: {steps}; lower k_core"
        )
    rows = rows.sort("user_id", "ts_ms", "row_id").group_by("user_id", maintain_order=True).tail(options.max_events)  # fmt: skip
    steps.append((f"among a user's last {options.max_events}", rows.height))
    items = rows.select(pl.col("item_id").unique().sort()).with_row_index("item")
    events = (
        rows.join(items, on="item_id", maintain_order="left")
        .rename({"scenario": "raw_scenario"})
        .join(scenarios, on="raw_scenario", maintain_order="left")
        .select("row_id", "user_id", pl.col("item").cast(pl.Int32), "scenario", *columns[4:])
    )
    report = pl.DataFrame(steps, schema={"step": pl.String, "rows": pl.Int64}, orient="row")
    return SequenceEvents(events, items, scenarios, report)


def _is_event(options: SequenceOptions) -> pl.Expr:
    match options.events:
        case "click":
            return pl.col("click") == 1
        case "any_feedback":
            return pl.any_horizontal(pl.col("click", "like", "follow", "comment", "forward") == 1)
        case "all":
            return pl.lit(True)


def _scenario_codes(train: pl.DataFrame, options: SequenceOptions) -> pl.DataFrame:
    found = train["scenario"].unique().sort().to_list()
    if options.scenarios is None:
        wanted = found
    else:
        wanted = [
            s for s in options.scenarios if s in found or options.absent_scenarios == "refuse"
        ]
        if lacking := sorted(set(wanted) - set(found)):
            raise ValueError(f"scenarios {lacking} have no train event; train has {found}")
    codes = pl.DataFrame({"raw_scenario": wanted}, schema={"raw_scenario": train.schema["scenario"]})  # fmt: skip
    return codes.with_row_index("scenario").cast({"scenario": pl.Int16})


def _core(train: pl.DataFrame, k_core: int | Literal["auto"]) -> tuple[int, pl.DataFrame]:
    """The k, and the (user, item) train events of its core."""
    if k_core != "auto":
        return k_core, core_of(train, k_core)
    cores = [(k, core_of(train, k)) for k in CORES]
    return min(cores, key=lambda core: abs(core[1]["item_id"].n_unique() - PUBLISHED_ITEMS))


def core_of(train: pl.DataFrame, k: int) -> pl.DataFrame:
    """Rows whose item and user both have at least k rows among them: filtered in turn until nothing changes."""
    rows = train.select("user_id", "item_id")
    while True:
        kept = rows.filter(pl.len().over("item_id") >= k).filter(pl.len().over("user_id") >= k)
        if kept.height == rows.height:
            return kept
        rows = kept
