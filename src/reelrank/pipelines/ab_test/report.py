"""The figures and the page of one A/B test: what the policies change, and how far an estimate of it may be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from reelrank.evaluation.uncertainty import holm
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feedback_options import UserFold
from reelrank.pipelines.ab_test import drawings
from reelrank.pipelines.ab_test.agreement import COVERED, ERROR, SIGN, TAU
from reelrank.pipelines.ab_test.columns import BANDIT, CHECKS, ESTIMATORS, JUDGED
from reelrank.pipelines.ab_test.drawings import SOURCES, TITLES
from reelrank.pipelines.ab_test.effects import (
    AA,
    ADJUSTED,
    EFFECT,
    LEVEL,
    MORE,
    OUTCOMES,
    PAIRED,
    SPLIT,
)
from reelrank.pipelines.ab_test.evaluate import (
    IN_CONTEXT,
    MATRIX,
    PER_DAY,
    PER_VIDEO,
    SIMULATOR,
    SOFT_WORLD,
    WORLD,
)
from reelrank.pipelines.ab_test.run_options import (
    CONTROL,
    DesignOptions,
    EvaluationOptions,
    MatrixPopulation,
    PopulationOptions,
    SimulatorPopulation,
)
from reelrank.reports import figures
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.result_tables import files_table, origin
from reelrank.reports.theme import variant_label
from reelrank.training.artifact import ModelCheckpoint

FIGURES = (
    "daily_world", "daily_split", "daily_simulator", "forest", "scatter_served", "scatter_estimated", "daily_matrix", "forest_matrix",
    "simulator_fit",
)  # fmt: skip
EVERYWHERE = (WORLD, SIMULATOR, *ESTIMATORS)


def draw(
    results: pl.DataFrame, simulator_history: pl.DataFrame, test: DesignOptions
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    lived = results.filter(pl.col("cell") != MATRIX)
    parted = WORLD if _has(results, WORLD) else SIMULATOR
    curve = simulator_history.select("variant", "epoch", "step", *_curves(simulator_history))
    return (
        drawings.daily_curves(lived, WORLD, "Ten days in the world itself", test),
        drawings.daily_curves(lived, parted, "The same days as an experiment that parts the users", test, SPLIT),
        drawings.daily_curves(lived, SIMULATOR, "The days in a simulator of other users", test),
        drawings.forest(lived, [c for c in EVERYWHERE if _has(results, c)], "Effects of the policies, by who says so"),
        drawings.against_truth(lived, WORLD, (SIMULATOR, *ESTIMATORS), "Estimated effects against those that were really served"),
        drawings.against_truth(lived, BANDIT, ESTIMATORS, "Off-policy effects against just what they estimate"),
        drawings.daily_curves(results, MATRIX, "The days in KuaiRec's matrix", test),
        drawings.forest(results, [MATRIX], "Effects in KuaiRec's matrix"),
        figures.learning_curves(curve).update_layout(title_text="How the simulator learnt its half of the users"),
    )  # fmt: skip


def write(
    results: pl.DataFrame,
    simulator_model: ModelCheckpoint,
    ingestion_report: dict[str, Any],
    split_cuts: dict[str, Any],
    test: DesignOptions,
    fold: UserFold,
    in_world: PopulationOptions,
    in_simulator: SimulatorPopulation,
    in_matrix: MatrixPopulation,
    evaluation: EvaluationOptions,
    data: FeedDataOptions,
    command: str,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    is_world = first["data_kind"] == "world"
    sections = [
        Section("What do the policies change?", _effects_text(test, is_world), facts=_facts(results),
                figures=[figure["forest"]], tables=_side_by_side(results)),
        Section("How far may an estimate be believed?", _agreement_text(is_world, evaluation), tables=_agreement_tables(results),
                figures=[figure["scatter_served"], figure["scatter_estimated"]]),
        Section("(a) Day by day in the world itself", _world_text(in_world, test, data, is_world), figures=[figure["daily_world"]],
                tables=[_levels_table(results, WORLD), _more_table(results, WORLD)]),
        Section("As an experiment would see it", _SPLIT, figures=[figure["daily_split"]], tables=[_split_table(results)]),
        Section("(b) In a simulator of other users", _simulator_text(fold, in_simulator, simulator_model), figures=[figure["daily_simulator"], figure["simulator_fit"]],
                tables=[_levels_table(results, SIMULATOR), _more_table(results, SIMULATOR)]),
        Section("(c) In KuaiRec's matrix", _matrix_text(results, in_matrix), figures=[figure["forest_matrix"], figure["daily_matrix"]],
                tables=_matrix_tables(results)),
        Section("What the log alone rests on", _LOG, tables=[_checks_table(results)]),
        Section("From raw files", f"Policies are those of the mmrf pipeline, trained once on the train part ({split_cuts['rule']}) and fixed; here nobody learns but the simulator.",
                tables=[files_table(ingestion_report)]),
    ]  # fmt: skip
    where = "a generated world" if is_world else f"real {first['source']} rows"
    return render_page(
        "A/B test that has a truth" if is_world else "Simulated A/B test",
        f"MMRF and its rivals against {variant_label(CONTROL)} on {where}: {test.days} days, the first {test.control_days} of them A/A.",
        sections,
        origin(results, command),
        "world" if is_world else "real",
    )


_SPLIT = (
    "The same lives, but each user is seen under one policy only: half of the users under the new one, the others under LTR. In the A/A period LTR serves both halves, and what "
    "differs there is chance and who fell into which half. “A/B, adjusted” divides the later ratio by that of the A/A period. The paired design above needs no such luck: it sees each user twice, "
    "which no real experiment can."
)
_LOG = (
    "NCIS, DR and DM on the test decisions of the logging policy, as sums by user, so that they share their resamples with the roll-outs. q̂ of DR and DM is each video's mean response among "
    "other users; DM rests on it alone, and its interval leaves out q̂'s own error. Mean weight: 1 if the propensities are right; ESS: effective rows. Where METHODS §7.3's limits are broken, the effect is marked † and may not be ranked."
)


def _effects_text(test: DesignOptions, is_world: bool) -> str:
    text = (
        f"Effects are in per cent of {variant_label(CONTROL)}, over days {test.control_days + 1} to {test.days}. WatchTime (s), Depth (videos), Follow and Comment are per user and day; those of NCIS and DR are per shown video, "
        "for a log says nothing of how often another policy would have brought the user back. Users live the same chance under every policy, so that differences are the policies' alone; intervals resample users."
    )
    if is_world:
        return (
            text
            + "\n\n(a) is the truth of a generated world, which says nothing about real users. What it can say is how the other columns compare with it."
        )
    return (
        "These are real rows: column (a), what would really have happened, does not exist, and nothing on this page is a truth.\n\n"
        + text
    )


def _agreement_text(is_world: bool, evaluation: EvaluationOptions) -> str:
    if not is_world:
        return "Nobody knows what would really have happened, so no estimate can be judged here. Run the base environment, whose world knows."
    return (
        "Kendall's τ compares the order of the policies: 1 the same, 0 none, −1 reversed. Its interval holds the noise of both sides. Sign: share of policies of which the estimate says rightly whether they are better "
        "than LTR. Error: mean distance in points of per cent. Covered: share of true effects that lie in the estimate's 95 % interval.\n\n"
        f"Three truths are used. “{PER_DAY}”: the policies as they would be deployed, best first, with all that follows from it: other states, other returns. “{PER_VIDEO}”: the policies softened until they are as "
        f"random as the logging policy, rolled out. “{IN_CONTEXT}”: the same softened policies in the contexts of the log with its candidate sets, by the world's own expectations: just what NCIS (cap {evaluation.cap:g}), DR and DM "
        "estimate. What is lost from the third to the second: the log's candidate sets are constructed while the world draws its own, and a policy that serves for days meets states that the log did not visit. "
        "What is lost from the second to the first: nobody deploys a softened policy, and returns count."
    )


def _world_text(
    population: PopulationOptions, test: DesignOptions, data: FeedDataOptions, is_world: bool
) -> str:
    if not is_world:
        return "Real rows have no world that could be asked."
    who = "All users" if not population.users else f"{population.users:,} users"
    return (
        f"{who} of the test part, from its first moment on, {population.lives} times with other chance (seeds {test.seed} to {test.seed + population.lives - 1}). The world draws candidates, answers, and decides who comes "
        f"back as when it wrote the log; the policy ranks, and up to {data.k} videos are shown at a time. A session's length does not depend on what is shown; whether the user is back within 24 hours does."
    )


def _simulator_text(fold: UserFold, population: SimulatorPopulation, model: ModelCheckpoint) -> str:
    return (
        f"A feedback simulator (epoch {model.config.get('best_epoch', '?')} of its training was best) that learnt from {fold.share:.0%} of the users; the others live in it, {population.lives} times. It answers as it predicts; "
        "sessions, pauses and returns are those of the fold's log. The policies themselves learnt from all users' train rows, those of the fold included: disjoint are the users that answer, not the rows behind the policies. "
        f"{population.candidates} candidates are drawn at each decision by their exposures in train."
    )


def _matrix_text(results: pl.DataFrame, population: MatrixPopulation) -> str:
    if not _has(results, MATRIX):
        return "Not run: this pipeline has no matrix, or the files hold too little of one for a session."
    return (
        "Policies of the same methods, trained on KuaiRec's big matrix and then fixed; in the small matrix what any user makes of any video is known. KuaiRec logs watch time alone; long view follows from it by KuaiRand's rule "
        "(18 s, or a shorter video's whole), so methods with a critic per response have two of them here, MMRF two agents: what the other five feedbacks might add, this part cannot show. "
        f"A user leaves after {population.short_plays} consecutive plays under {population.short_play_s:g} s, or {population.max_videos} videos, and is back the next day whatever happened."
    )


def _facts(results: pl.DataFrame) -> list[Fact]:
    where = WORLD if _has(results, WORLD) else SIMULATOR
    rows = results.filter(cell=where, metric=EFFECT, weighting=PAIRED, group="watch_time").sort("value", descending=True, nulls_last=True)  # fmt: skip
    best = [
        Fact(
            f"WatchTime, {variant_label(r['variant'])}, {SOURCES[where][0]}",
            f"{r['value']:+.2f} %",
            _interval(r),
        )
        for r in rows.head(1).iter_rows(named=True)
        if r["value"] is not None
    ]
    order = results.filter(metric=TAU, group="watch_time", weighting=PER_DAY)
    return best + [
        Fact(f"order of the policies by {SOURCES[r['variant']][0]}", f"τ = {r['value']:.2f}", f"{_interval(r, '.2f')}, WatchTime, n = {r['n']} policies")
        for r in order.iter_rows(named=True)
        if r["variant"] != "dm" and r["value"] is not None
    ]  # fmt: skip


def _side_by_side(results: pl.DataFrame) -> list[Table]:
    """A table per outcome: every method, and what each source says of it."""
    cells = [c for c in (WORLD, SIMULATOR, *ESTIMATORS, BANDIT, SOFT_WORLD) if _has(results, c)]
    effects = results.filter(metric=EFFECT, weighting=PAIRED)
    named = {SOFT_WORLD: "(a) softened, per video", BANDIT: "true in the logged contexts"}
    headline = cells[0]
    tables = []
    for outcome in OUTCOMES:
        of_cell = {
            cell: _by_arm(effects.filter(cell=cell, group=f"{outcome}_video" if cell == SOFT_WORLD else outcome))
            for cell in cells
        }  # fmt: skip
        arms = list(of_cell[headline])
        p = holm([_number(of_cell[headline][arm]["p_value"]) for arm in arms])
        body = [
            [
                Cell(variant_label(arm), sort=variant_label(arm)),
                *(_effect_cell(of_cell[cell].get(arm)) for cell in cells),
                Cell("–", muted=True) if np.isnan(value) else Cell(f"{value:.3f}", sort=float(value)),
            ]
            for arm, value in zip(arms, p, strict=True)
        ]  # fmt: skip
        columns = [named.get(cell, SOURCES.get(cell, (cell,))[0]) for cell in cells]
        tables.append(
            Table(
                f"{TITLES[outcome]}: % against {variant_label(CONTROL)}",
                ["policy", *columns, f"p (Holm), {columns[0]}"],
                body,
                "In brackets: 95 % user-cluster bootstrap interval. †: not to be ranked. –: this source says nothing of it.",
            )
        )
    return tables


def _agreement_tables(results: pl.DataFrame) -> list[Table]:
    rows = results.filter(cell="agreement")
    body: list[list[object]] = []
    for part in rows.partition_by("weighting", "group", "variant", maintain_order=True):
        by_metric = {str(r["metric"]): r for r in part.iter_rows(named=True)}
        tau = by_metric[TAU]
        body.append(
            [
                TITLES[part["group"][0]],
                SOURCES[part["variant"][0]][0],
                part["weighting"][0],
                Cell("–", muted=True) if tau["value"] is None else Cell(f"{tau['value']:.2f}", _interval(tau, ".2f"), tau["value"]),
                *(float(by_metric[m]["value"]) for m in (SIGN, ERROR, COVERED)),
                int(tau["n"]),
            ]
        )  # fmt: skip
    if not body:
        return []
    columns = ["outcome", "estimate", "truth", "τ", "right sign", "error, points", "covered", "policies"]  # fmt: skip
    return [plain_table("Estimates against the truth of the world", columns, body)]


def _split_table(results: pl.DataFrame) -> Table:
    where = WORLD if _has(results, WORLD) else SIMULATOR
    rows = results.filter(pl.col("weighting").is_in([AA, SPLIT, ADJUSTED, PAIRED]), cell=where, metric=EFFECT)  # fmt: skip
    body = []
    for outcome in OUTCOMES:
        for arm, part in rows.filter(group=outcome).group_by("variant", maintain_order=True):
            by_design = {str(r["weighting"]): r for r in part.iter_rows(named=True)}
            label = variant_label(str(arm[0]))
            body.append(
                [
                    Cell(TITLES[outcome], sort=TITLES[outcome]),
                    Cell(label, sort=label),
                    *(_effect_cell(by_design.get(d)) for d in (AA, SPLIT, ADJUSTED, PAIRED)),
                ]
            )
    columns = ["outcome", "policy", "A/A", "A/B", "A/B, adjusted", "paired (above)"]
    return Table(f"Parted users, {SOURCES[where][0]}: % against {variant_label(CONTROL)}", columns, body)  # fmt: skip


def _levels_table(results: pl.DataFrame, cell: str) -> Table:
    """What a user does in a day under each policy."""
    rows = results.filter(cell=cell, metric=LEVEL)
    names = [*OUTCOMES, *MORE]
    body: list[list[object]] = []
    for arm, part in rows.group_by("variant", maintain_order=True):
        value = dict(part.select("group", "value").iter_rows())
        body.append([variant_label(str(arm[0])), *(value.get(name) for name in names)])
    return plain_table(f"Levels in the A/B period, {_place(cell)}", ["policy", *(TITLES[n] for n in names)], body)  # fmt: skip


def _more_table(results: pl.DataFrame, cell: str) -> Table:
    rows = results.filter(cell=cell, metric=EFFECT, weighting=PAIRED)
    body = []
    for arm, part in rows.group_by("variant", maintain_order=True):
        by_outcome = {str(r["group"]): r for r in part.iter_rows(named=True)}
        label = variant_label(str(arm[0]))
        body.append(
            [Cell(label, sort=label), *(_effect_cell(by_outcome.get(name)) for name in MORE)]
        )
    return Table(f"Further effects, {_place(cell)}: %", ["policy", *(TITLES[n] for n in MORE)], body)  # fmt: skip


def _matrix_tables(results: pl.DataFrame) -> list[Table]:
    if not _has(results, MATRIX):
        return []
    rows = results.filter(cell=MATRIX, metric=EFFECT, weighting=PAIRED)
    shown = [name for name in OUTCOMES if name in rows["group"]]
    body = []
    for arm, part in rows.group_by("variant", maintain_order=True):
        by_outcome = {str(r["group"]): r for r in part.iter_rows(named=True)}
        label = variant_label(str(arm[0]))
        body.append(
            [Cell(label, sort=label), *(_effect_cell(by_outcome.get(name)) for name in shown)]
        )
    columns = ["policy", *(TITLES[name] for name in shown)]
    return [
        Table(f"KuaiRec's matrix: % against {variant_label(CONTROL)}", columns, body),
        _levels_table(results, MATRIX),
    ]


def _checks_table(results: pl.DataFrame) -> Table:
    rows = results.filter(pl.col("cell").is_in(ESTIMATORS), pl.col("metric").is_in(CHECKS))
    temperature = dict(results.filter(metric="temperature").select("variant", "value").iter_rows())
    body: list[list[object]] = []
    for part in rows.filter(cell="ncis").partition_by("group", "variant", maintain_order=True):
        check = dict(part.select("metric", "value").iter_rows())
        arm, response = part["variant"][0], part["group"][0]
        if response == JUDGED[0]:
            body.append([variant_label(arm), temperature.get(arm), *(check.get(name) for name in CHECKS), int(part["n"][0])])  # fmt: skip
    columns = ["policy", "temperature", *(name.replace("_", " ") for name in CHECKS), "rows"]
    return plain_table("NCIS of WatchTime", columns, body)


def _has(results: pl.DataFrame, cell: str) -> bool:
    return not results.filter(cell=cell, metric=EFFECT).is_empty()


def _place(cell: str) -> str:
    return "KuaiRec's matrix" if cell == MATRIX else SOURCES[cell][0]


def _by_arm(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(row["variant"]): row for row in rows.iter_rows(named=True)}


def _effect_cell(row: Mapping[str, Any] | None) -> Cell:
    if row is None or row["value"] is None:
        return Cell("–", muted=True)
    text = f"{row['value']:+.2f}" + ("" if row["reliable"] else " †")
    return Cell(text.replace("-", "−"), _interval(row), float(row["value"]), muted=not row["reliable"])  # fmt: skip


def _interval(row: Mapping[str, Any], form: str = "+.2f") -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return "no interval"
    return f"[{row['ci_low']:{form}}, {row['ci_high']:{form}}]".replace("-", "−")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _curves(history: pl.DataFrame) -> Sequence[str]:
    return [name for name in ("train_loss", "val_negative_loss") if name in history.columns and history[name].count()]  # fmt: skip
