"""The figures and the page of the value model: AUC beside what others published, leaks, sweeps, groups, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.features.heads import HEADS
from reelrank.features.value_features import FEATURE_BY_NAME
from reelrank.pipelines.value_model.evaluate import MEAN, reliability
from reelrank.pipelines.value_model.options import (
    VARIANTS,
    EvaluationOptions,
    StudyOptions,
    TargetOptions,
)
from reelrank.reports import figures
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.result_tables import differences_table, results_table
from reelrank.reports.theme import variant_label

FIGURES = (
    "auc",
    "differences",
    "warmth",
    "reliability",
    "learning_curves",
    "leaks",
    "sweeps",
    "groups",
    "ingestion_steps",
    "split_sizes",
)
WARMTH = ("warm items", "cold items")


def draw(
    results: pl.DataFrame,
    feature_report: dict[str, Any],
    ingestion_report: dict[str, Any],
    evaluation: EvaluationOptions,
    **drawn: pl.DataFrame,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``; ``drawn``: predictions and histories by variant."""
    headline = _headline(results)
    auc = headline.filter(metric="auc")
    by_head = auc.filter(pl.col("group").is_in([*HEADS, MEAN]))
    predictions = {str(variant): drawn[variant] for variant in VARIANTS}
    histories = [drawn[f"{variant}_history"] for variant in VARIANTS[1:]]
    curves = pl.concat(histories, how="diagonal").drop("lr", "seconds")
    sizes = pl.DataFrame(feature_report["heads"]).select("split", "rows")
    return (
        figures.metric_bars(by_head),
        figures.paired_differences(by_head),
        figures.metric_bars(auc.filter(pl.col("group").is_in(WARMTH))),
        figures.reliability_curves(reliability(predictions, evaluation.bins)),
        figures.learning_curves(curves),
        figures.cell_intervals(
            _means(results, "GV-02", differences=True),
            "What each leak is worth", "mean AUC minus that of the honest cell", zero=True,
        ),
        figures.cell_intervals(
            _means(results, "GV-03"), "Learning rate and batch size", "mean AUC on val"
        ),
        figures.cell_intervals(
            _means(results, "GV-04", differences=True),
            "Without a group of features", "mean AUC minus that with all features", zero=True,
        ),
        figures.ingestion_steps(ingestion_report),
        figures.split_sizes(sizes),
    )  # fmt: skip


def write(
    results: pl.DataFrame,
    feature_report: dict[str, Any],
    ingestion_report: dict[str, Any],
    logistic_history: pl.DataFrame,
    targets: TargetOptions,
    studies: StudyOptions,
    command: str,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    headline = _headline(results)
    first = headline.row(0, named=True)
    is_world = first["data_kind"] == "world"
    auc = headline.filter(metric="auc")
    judged = headline.filter(pl.col("metric").is_in(["auc", "ap", "gauc"]))
    quality = headline.filter(pl.col("metric").is_in(["log_loss", "ece"]))
    left = headline.filter(pl.col("metric").is_in(["groups_excluded", "rows_excluded"]))
    per_head = auc.filter(pl.col("group").is_in([*HEADS, MEAN]))
    warmth = auc.filter(pl.col("group").is_in(WARMTH))
    sections = [
        Section("Which model is best? (GV-01)", _headline_text(is_world, results), figures=[figure["auc"]],
                tables=[_target_table(results, targets, MEAN), *(_target_table(results, targets, h) for h in HEADS)],
                facts=_facts(headline)),
        Section("Against the best model without a graph", _DIFFERENCES, figures=[figure["differences"]],
                tables=[differences_table(per_head, "AUC minus that of the best baseline, same rows")]),
        Section("Every metric on the test part", _METRICS,
                tables=[results_table(judged.filter(pl.col("group") != "warm items", pl.col("group") != "cold items"), "AUC, AP and GAUC by user"),
                        results_table(left, "Left out of GAUC: users with one class, and their rows")]),
        Section("Are the probabilities right?", _CALIBRATION, figures=[figure["reliability"]],
                tables=[results_table(quality, "Log loss and expected calibration error")]),
        Section("Warm and cold videos", _warmth_text(warmth), figures=[figure["warmth"]],
                tables=[results_table(warmth, "Mean AUC by whether the video has a train interaction")]),
        Section("What is each leak worth? (GV-02)", _leak_text(results, studies), figures=[figure["leaks"]],
                tables=[_cell_table(results, "GV-02", "AUC under each leak, and its difference from the honest cell")]),
        Section("Learning rate and batch size (GV-03)", _sweep_text(results), figures=[figure["sweeps"]],
                tables=[_cell_table(results, "GV-03", "AUC on val over the report's grids")]),
        Section("Which features matter? (GV-04)", _GROUPS, figures=[figure["groups"]],
                tables=[_cell_table(results, "GV-04", "AUC without a group of features, and its difference from all features")]),
        Section("How it learnt", _LEARNING, figures=[figure["learning_curves"]],
                tables=[_frame_table("Logistic regressions", logistic_history.drop("variant"))]),
        Section("What the features lack", _feature_text(feature_report), tables=[_missing_table(feature_report)]),
        Section("From raw files to labelled edges", _ingestion_text(ingestion_report, feature_report),
                figures=[figure["ingestion_steps"], figure["split_sizes"]],
                tables=[_frame_table("Rate of each head by part", pl.DataFrame(feature_report["heads"])), _files(ingestion_report)]),
    ]  # fmt: skip
    where = "a generated world" if is_world else f"real {ingestion_report['source']} rows"
    return render_page(
        "Value model on KuaiRec",
        f"Four heads of engagement on {where}: logistic regression, EdgeMLP and graph networks, split {first['split']}.",
        sections,
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": first["config_hash"],
            "command": command,
        },
        "world" if is_world else "real",
    )  # fmt: skip


_DIFFERENCES = (
    "The best of the two models without a graph is chosen on val. Each dot is another model minus it, on the same test rows with the "
    "same resamples of users. An interval that crosses the line at 0 is no evidence of a difference."
)
_METRICS = (
    "GAUC ranks within each user and averages over users: by their rows, by their positive rows, or all alike. “micro” pools the four heads into one ROC curve. "
    "All other means are plain means over the heads."
)
_CALIBRATION = (
    "Where the curve lies on the dotted line, a predicted probability is the rate at which it happens. ECE has no interval: noise alone makes it larger, "
    "and a resample is noisier than the rows themselves."
)
_GROUPS = "The model is trained again without each group of features. A difference near 0 says that the others tell the same; it does not say that the group tells nothing."
_LEARNING = "An “epoch” is the stretch between two evaluations on val; the evaluation with the best mean AUC gave the weights. Nothing but val decides when to stop."


def _headline(results: pl.DataFrame) -> pl.DataFrame:
    """Rows of the system's own split and rules."""
    own = results.filter(experiment="GV-01", track="honest")
    return own.filter(pl.col("cell") == own["cell"][0])


def _means(results: pl.DataFrame, experiment: str, *, differences: bool = False) -> pl.DataFrame:
    """Mean AUC of each cell of a study, or its difference from the honest one."""
    is_difference = pl.col("paired_with").is_not_null()
    rows = results.filter(experiment=experiment, metric="auc", group=MEAN)
    return rows.filter(is_difference if differences else ~is_difference)


def _facts(headline: pl.DataFrame) -> list[Fact]:
    own = headline.filter(pl.col("paired_with").is_null(), metric="auc", group=MEAN)
    return [
        Fact(
            f"Mean AUC, {variant_label(row['variant'])}{'' if row['reliable'] else ' †'}",
            _shown(row["value"]),
            f"[{_shown(row['ci_low'])}, {_shown(row['ci_high'])}], n = {row['n']:,}",
        )
        for row in own.iter_rows(named=True)
    ]


def _headline_text(is_world: bool, results: pl.DataFrame) -> str:
    rule = _headline(results)["cell"][0]
    text = (
        "Four heads say what became of a video that was shown: watched to its end (complete), for long (long), more than twice (rewatch), or left at once (neg). "
        f"“{rule}” is the headline: calendar days inside each burst, a graph of train pairs alone, categories as categories. “literal” does as the poster did: ids "
        "as numbers, hours in UTC, a directed graph with the edges that are to be predicted. Two columns of targets stand beside: the poster's table, whose "
        "logistic row comes from a random split, and the author's own code on the calendar-day split. Both are measured on KuaiRec's real rows."
    )
    if is_world:
        text += "\n\nOur numbers here come from a generated world: they tell whether the code works, not how the models do on real users, and are not comparable with the targets."
    return text


def _target_table(results: pl.DataFrame, targets: TargetOptions, group: str) -> Table:
    """Published, the author's day split, and ours under each protocol: AUC of one head or the mean."""
    rows = results.filter(pl.col("paired_with").is_null(), experiment="GV-01", metric="auc", group=group)  # fmt: skip
    cells = rows["cell"].unique(maintain_order=True).to_list()
    body: list[list[object]] = []
    for variant in VARIANTS:
        others = (targets.published.of(variant), targets.author_day_split.of(variant))
        own = {str(r["cell"]): r for r in rows.filter(variant=variant).iter_rows(named=True)}
        body.append(
            [
                Cell(variant_label(variant), sort=variant),
                *(_target_cell(found.get(group)) for found in others),
                *(_own_cell(own.get(cell)) for cell in cells),
            ]
        )
    name = "Mean AUC of the four heads" if group == MEAN else f"AUC of {group}"
    table = plain_table(
        name,
        ["model", "published (KuaiRec)", "author, day split (KuaiRec)", *(f"ours, {c}" for c in cells)],
        body,
    )  # fmt: skip
    return Table(
        table.caption, table.columns, table.rows,
        "In brackets: 95 % user-cluster bootstrap interval. The poster states none.",
    )  # fmt: skip


def _target_cell(value: float | None) -> Cell:
    return Cell("–", muted=True) if value is None else Cell(f"{value:.4f}", sort=value)


def _own_cell(row: Mapping[str, Any] | None, sign: str = "") -> Cell:
    if row is None or row["value"] is None:
        return Cell("–", muted=True)
    mark = "" if row["reliable"] else " †"
    interval = (
        "no interval"
        if row["ci_low"] is None
        else f"[{_shown(row['ci_low'], sign)}, {_shown(row['ci_high'], sign)}]"
    )
    return Cell(_shown(row["value"], sign) + mark, interval, row["value"], not row["reliable"])


def _cell_table(results: pl.DataFrame, experiment: str, caption: str) -> Table:
    """Cell × group: AUC, and where there is one the difference of the mean."""
    rows = results.filter(experiment=experiment, metric="auc")
    values = rows.filter(pl.col("paired_with").is_null())
    differences = {
        str(r["cell"]): r
        for r in rows.filter(pl.col("paired_with").is_not_null(), group=MEAN).iter_rows(named=True)
    }
    groups = [*HEADS, MEAN]
    body = []
    for part in values.partition_by("cell", maintain_order=True):
        by_group = {str(r["group"]): r for r in part.iter_rows(named=True)}
        cell = str(part["cell"][0])
        line = [Cell(cell, sort=cell), *(_own_cell(by_group.get(group)) for group in groups)]
        if differences:
            line.append(_own_cell(differences.get(cell), "+"))
        body.append(line)
    columns = ["cell", *groups, *(["difference of the mean"] if differences else [])]
    return plain_table(caption, columns, body)


def _leak_text(results: pl.DataFrame, studies: StudyOptions) -> str:
    rows = _means(results, "GV-02", differences=True).drop_nulls("value")
    together = rows.filter(cell="all together")["value"]
    alone = sum(rows.filter(pl.col("cell") != "all together")["value"].to_list())
    text = (
        f"{variant_label(studies.leaks)} with one leak at a time: test edges in the graph, messages from user to video only, a random split, ids as numbers, hours in UTC. "
        "All cells of this study share its own, smaller number of steps. The random split judges other rows of the same users."
    )
    if together.len():
        text += f" The differences of single leaks sum to {_shown(alone, '+')}; all leaks together are worth {_shown(together[0], '+')}."
    return text


def _sweep_text(results: pl.DataFrame) -> str:
    rows = _means(results, "GV-03").sort("value", descending=True, nulls_last=True)
    best = [
        rows.filter(pl.col("cell").str.starts_with(p))["cell"][0] for p in ("learning rate", "batch")
    ]  # fmt: skip
    return (
        f"One at a time, the rest as in the study; judged on val, since a choice is made here. Best: {best[0]} and {best[1]}. "
        "Intervals that overlap say that the choice hardly matters. With a fixed number of steps a small rate may just not have arrived."
    )


def _warmth_text(warmth: pl.DataFrame) -> str:
    n = dict(warmth.filter(pl.col("paired_with").is_null()).group_by("group").agg(pl.col("n").max()).iter_rows())  # fmt: skip
    cold = n.get("cold items", 0)
    text = (
        f"A video is warm if it has a train interaction. n counts rows with known labels: {n.get('warm items', 0):,} warm, {cold:,} cold. "
        "A graph has nothing to say of a cold video but what its features say."
    )
    return text if cold else f"{text} There are none here."


def _feature_text(report: Mapping[str, Any]) -> str:
    left_out = ", ".join(report["left_out"]) or "none"
    dropped = ", ".join(report["dropped_groups"])
    return (
        f"{report['features']} features are defined (METHODS §6.3). Without a single value in train, and so left out of the models: {left_out}. "
        "Others with holes carry a flag that says so."
        + (f" Groups that were left out on purpose: {dropped}." if dropped else "")
    )


def _missing_table(report: Mapping[str, Any]) -> Table:
    rows = [
        [name, FEATURE_BY_NAME[name].group, found["share"], found["reason"]]
        for name, found in report["missing"].items()
    ]
    return plain_table("Features without a value in some train rows", ["feature", "group", "share missing", "why"], rows)  # fmt: skip


def _ingestion_text(report: Mapping[str, Any], features: Mapping[str, Any]) -> str:
    bad = sum(file["bad"] for file in report["files"])
    duplicates = sum(file["duplicates"] for file in report["files"])
    return (
        f"{report['steps'][0]['rows']:,} rows read, {duplicates:,} exact duplicates dropped, {bad:,} rows quarantined. Of {features['interactions']:,} interactions "
        f"{features['edges']:,} are labelled edges: the others belong to no part of the split, or were not drawn (edges.share)."
    )


def _files(report: Mapping[str, Any]) -> Table:
    rows = [[f["file"], f["rows_read"], f["duplicates"], f["bad"]] for f in report["files"]]
    return plain_table("Files read", ["file", "rows", "duplicates", "quarantined"], rows)


def _frame_table(caption: str, frame: pl.DataFrame) -> Table:
    return plain_table(caption, frame.columns, frame.rows())


def _shown(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}".replace("-", "−")
