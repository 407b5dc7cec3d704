"""The figures and the page of one run of RUIE: which model finds the next item, where, and what its gate did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.models.sequence_options import BEHAVIOURS
from reelrank.pipelines.ruie.evaluate import scenario_labels
from reelrank.pipelines.ruie.run_options import (
    MAIN,
    OBSERVED,
    PREDICTED,
    PUBLISHED_K,
    TRAINED,
    EvaluationOptions,
    StudyOptions,
)
from reelrank.reports import figures, panels
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.result_tables import differences_table, results_table
from reelrank.reports.theme import variant_label

FIGURES = (
    "headline",
    "scenarios",
    "behaviours",
    "differences",
    "forensics",
    "studies",
    "calibration",
    "gate",
    "q",
    "dominance",
    "learning_curves",
    "ingestion_steps",
    "split_sizes",
)
MACRO = pl.col("weighting") == "macro"


def draw(
    results: pl.DataFrame,
    sequence_events: pl.DataFrame,
    ingestion_report: dict[str, Any],
    scenarios: pl.DataFrame,
    scenario_names: dict[str, str],
    evaluation: EvaluationOptions,
    **histories: pl.DataFrame,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    labels = scenario_labels(scenarios, scenario_names)
    ndcg = f"ndcg@{evaluation.headline}"
    main = results.filter(experiment="RU-01")
    own = main.filter(metric=ndcg)
    groups = [f"{b} targets" for b in BEHAVIOURS]
    history = pl.concat([histories[f"{v}_history"] for v in TRAINED], how="diagonal_relaxed")
    ruie = histories[f"{MAIN}_history"]
    sizes = sequence_events.group_by("split").agg(
        events=pl.len(), users=pl.col("user_id").n_unique(), items=pl.col("item").n_unique()
    )
    forensics = results.filter(experiment="RU-10").filter(pl.col("metric").str.starts_with("ndcg"))
    return (
        figures.metric_bars(main.filter(MACRO, pl.col("metric").is_in([ndcg, ndcg.replace("ndcg", "hr"), ndcg.replace("ndcg", "mrr")]))),
        figures.metric_bars(own.filter(pl.col("group").is_in(labels))),
        figures.metric_bars(own.filter(pl.col("group").is_in(groups))),
        figures.paired_differences(own.filter(MACRO | pl.col("group").is_in(labels))),
        figures.cell_intervals(
            forensics.with_columns(cell=pl.col("cell") + ", " + pl.col("metric").str.to_uppercase()),
            "What the released metric would have printed", "printed NDCG of RUIE's places",
        ),
        _study_figure(results, ndcg),
        _calibration_figure(results),
        _curves(ruie, _gate_columns(ruie, labels), "Gate of RUIE"),
        _curves(ruie, _q_columns(ruie, labels), "Q of RUIE"),
        _curves(ruie, _dominance_columns(ruie, labels), "Scenario dominance of RUIE"),
        figures.learning_curves(history.select("variant", "epoch", "step", *_learnt(history))),
        figures.ingestion_steps(ingestion_report),
        figures.split_sizes(sizes.sort("split").cast({"events": pl.Int64, "users": pl.Int64, "items": pl.Int64})),
    )  # fmt: skip


def _study_figure(results: pl.DataFrame, ndcg: str) -> go.Figure:
    """Differences of every cell, or a panel that says that no study was run."""
    rows = results.filter(
        pl.col("paired_with").is_not_null(), ~pl.col("experiment").is_in(["RU-01", "RU-10"])
    ).filter(MACRO, metric=ndcg)
    if rows.is_empty():
        return go.Figure(layout={"title": {"text": "No study was run"}, "height": 120})
    shown = rows.with_columns(
        cell=pl.col("experiment") + ": " + pl.col("cell").str.replace_all("_", " ")
    )
    return figures.cell_intervals(
        shown, "Studies", f"macro {ndcg.upper()} minus that of what it is compared with", zero=True
    )


def _calibration_figure(results: pl.DataFrame) -> go.Figure:
    """Reliability of p, a panel for each cell of RU-06 and scenario, or a panel that says that it was not judged."""
    rows = results.filter(pl.col("metric").is_in([PREDICTED, OBSERVED]))
    if rows.is_empty():
        return panels.nothing("RU-06 was not run")
    of = pl.col("group").str.split(", bin ")
    bins = rows.with_columns(
        pl.concat_str(pl.col("cell").str.replace_all("_", " "), of.list.first(), separator=", ").alias("panel"),
        bin=of.list.last().cast(pl.Int32),
    )  # fmt: skip
    table = bins.pivot("metric", index=["panel", "bin", "variant", "n"], values="value")
    shown = table.sort("bin", maintain_order=True).rename(
        {"panel": "group", PREDICTED: "predicted", OBSERVED: "observed"}
    )
    order = bins["panel"].unique(maintain_order=True)
    return figures.reliability_curves(
        pl.concat([shown.filter(group=panel) for panel in order], how="vertical")
    )


def _curves(history: pl.DataFrame, columns: Mapping[str, str], title: str) -> go.Figure:
    """Monitors of one model over its epochs, under readable names."""
    shown = history.select("variant", "epoch", "step", **{new: old for old, new in columns.items()})
    figure = figures.learning_curves(shown)
    return figure.update_layout(title_text=title)


def _gate_columns(history: pl.DataFrame, labels: Sequence[str]) -> dict[str, str]:
    named = {
        "train_gate_at_low": "gates at the lower clip",
        "train_gate_at_high": "gates at the upper clip",
        "train_p_sd": "sd of p",
    }
    mean = _by_scenario(history, "train_gate_mean", "mean gate before normalising", labels)
    return named | mean | _by_scenario(history, "train_gate_share", "gate mass", labels)


def _q_columns(history: pl.DataFrame, labels: Sequence[str]) -> dict[str, str]:
    return {"train_td_abs": "mean absolute TD error"} | _by_scenario(history, "train_q_scenario", "mean Q", labels)  # fmt: skip


def _dominance_columns(history: pl.DataFrame, labels: Sequence[str]) -> dict[str, str]:
    loss = _by_scenario(history, "train_loss_share", "share of the gated loss", labels)
    return loss | _by_scenario(history, "val_ndcg@10_scenario", "validation ndcg@10", labels)


def _by_scenario(
    history: pl.DataFrame, stem: str, name: str, labels: Sequence[str]
) -> dict[str, str]:
    found = {f"{stem}_{code}": f"{name}, {label}" for code, label in enumerate(labels)}
    return {old: new for old, new in found.items() if old in history.columns}


def _learnt(history: pl.DataFrame) -> list[str]:
    return [name for name in ("train_loss", "val_ndcg@10") if name in history.columns]


def write(
    results: pl.DataFrame,
    sequence_report: pl.DataFrame,
    ingestion_report: dict[str, Any],
    split_cuts: dict[str, Any],
    scenarios: pl.DataFrame,
    scenario_names: dict[str, str],
    evaluation: EvaluationOptions,
    studies: StudyOptions,
    published: tuple[float, float, float, float],
    command: str,
    targets: pl.DataFrame,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    labels = scenario_labels(scenarios, scenario_names)
    is_world = first["data_kind"] == "world"
    main = results.filter(experiment="RU-01")
    is_sampled = pl.col("metric").str.contains("_uniform")
    full, sampled = main.filter(~is_sampled), main.filter(is_sampled)
    ndcg = f"ndcg@{evaluation.headline}"
    by_scenario = full.filter(pl.col("group").is_in(labels), metric=ndcg)
    by_behaviour = full.filter(pl.col("group").str.ends_with(" targets"), metric=ndcg)
    headline = full.filter(MACRO | pl.col("group").is_in(labels), metric=ndcg)
    where = "a generated world" if is_world else f"real {first['source']} rows"
    sections = [
        Section("Which model finds the next item? (RU-01)", _headline_text(is_world), facts=_facts(full, ndcg),
                figures=[figure["headline"]],
                tables=[results_table(full.filter(MACRO), "Macro over scenarios, full ranking: the headline"),
                        results_table(full.filter(pl.col("weighting") == "micro"), "Micro: every event alike")]),
        Section("Against each baseline", _DIFFERENCES + "\n\n" + standing_text(full, results, labels, ndcg), figures=[figure["differences"]],
                tables=[differences_table(headline, "RUIE minus each baseline, same events and users")]),
        Section("Scenario by scenario", _SCENARIOS, figures=[figure["scenarios"]],
                tables=[results_table(by_scenario, "NDCG of each scenario's events")]),
        Section("Behaviour by behaviour", _BEHAVIOURS, figures=[figure["behaviours"]],
                tables=[results_table(by_behaviour, "NDCG of events with each feedback, micro")]),
        Section("What the gate and Q did", _GATE, figures=[figure["gate"], figure["q"], figure["dominance"]]),
        Section("Ablations and other studies", _study_text(studies), figures=[figure["studies"]],
                tables=[_study_table(results, ndcg), _monitor_table(results, labels)]),
        Section("Is Q a return and p a probability? (RU-06)", _CALIBRATION, figures=[figure["calibration"]],
                tables=[_calibration_table(results, labels)]),
        Section("Metric forensics (RU-10)", _FORENSICS, figures=[figure["forensics"]],
                tables=[_forensics_table(results, evaluation.cutoffs)]),
        Section("The published row", _published_text(published), tables=[_published_table(full, published)]),
        Section("Among a sample of items", _SAMPLED,
                tables=[results_table(sampled.filter(pl.col("weighting") != ""), "Sampled ranking")]),
        Section("How they learnt", _LEARNING, figures=[figure["learning_curves"]]),
        Section("What is left out", _left_text(targets),
                tables=[plain_table("Rows after each step", sequence_report.columns, sequence_report.rows()),
                        plain_table("Scenarios", ["code", "raw scenario", "name"],
                                    [[c, r, labels[c]] for c, r in scenarios.sort("scenario").select("scenario", "raw_scenario").iter_rows()])]),
        Section("From raw files to events", "", figures=[figure["ingestion_steps"], figure["split_sizes"]],
                tables=[_files(ingestion_report)]),
    ]  # fmt: skip
    return render_page(
        f"RUIE on {first['source']}",
        f"Next-item recommendation over {len(labels)} scenarios on {where}: RUIE and eight baselines, "
        f"split by time ({split_cuts['rule']}).",
        sections,
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": first["config_hash"],
            "command": command,
        },
        "world" if is_world else "real",
    )


_DIFFERENCES = (
    "Each dot is RUIE minus one baseline on the same events, with the same resamples of users. An interval that crosses the line at 0 is no "
    "evidence of a difference."
)


def standing_text(
    full: pl.DataFrame, results: pl.DataFrame, labels: Sequence[str], ndcg: str
) -> str:
    """Where RUIE stands among its rivals and which of its parts costs or brings something: every word from a row's interval.

    Args:
        full: rows of RU-01, full ranking.
        results: all rows.
        labels: names of the scenarios.
        ndcg: the headline's metric.
    """
    macro = pl.col("group").eq("all") & MACRO & pl.col("metric").eq(ndcg)
    paired = pl.col("paired_with").is_not_null()
    rivals = full.filter(macro, paired, pl.col("variant") == MAIN)
    text = _sides("RUIE", [(variant_label(r["paired_with"]), r) for r in rivals.iter_rows(named=True)])  # fmt: skip
    value = dict(full.filter(macro, ~paired).select("variant", "value").iter_rows())
    counted = value.pop("popularity")
    above = [name for name in value if value[name] > counted]
    text += (
        f" Popularity, which knows nothing of a user, has {counted:.4f}: {len(above)} of the {len(value)} models that learn have more"
        f"{' (' + ', '.join(map(variant_label, above)) + ')' if above else ''}."
    )
    sizes = full.filter(~paired, pl.col("group").is_in(labels), metric=ndcg, variant=MAIN)
    n, smallest = min(sizes.select("n", "group").iter_rows())
    text += f" A macro mean gives {smallest}, with {n:,} test events, as much weight as any other scenario; its own interval is the widest."
    cells = results.filter(macro, paired, ~pl.col("experiment").is_in(["RU-01", "RU-10"]))
    cells = cells.filter(variant=MAIN, paired_with=MAIN)
    if cells.is_empty():
        return text
    named = [
        (f"{r['experiment']} {r['cell'].replace('_', ' ')}", r) for r in cells.iter_rows(named=True)
    ]
    return (
        f"{text}\n\nStudies, RUIE changed minus RUIE as it is. {_sides('The changed model', named)}"
    )


def _sides(who: str, pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Who is above, below and level with whom, by the intervals of ``who`` minus each."""
    said = [(n, r, f"{n} ({r['value']:+.4f} [{r['ci_low']:+.4f}, {r['ci_high']:+.4f}])") for n, r in pairs if r["ci_low"] is not None]  # fmt: skip
    sides = {
        "beyond the interval above": [words for _, r, words in said if r["ci_low"] > 0],
        "beyond the interval below": [words for _, r, words in said if r["ci_high"] < 0],
        "not to be told from": [name for name, r, _ in said if r["ci_low"] <= 0 <= r["ci_high"]],
    }
    parts = [f"{side} {', '.join(names)}" for side, names in sides.items() if names]
    return f"{who} is {'; '.join(parts)}." if parts else f"{who}: no interval."


_SCENARIOS = (
    "A model that learns from all scenarios may lose in a small one: negative transfer. The scenario of the request is known "
    "to RUIE, PEPNet and STAR; the others never see it."
)
_BEHAVIOURS = "The same places, counted over the events that got a click, like, follow or share. Few events make wide intervals."
_GATE = (
    "The gate weighs each event's contrastive loss by 1/(1 − p), p the probability of the scenario that followed; it is clipped, and its mean is 1 within "
    "each scenario of a batch, so that the mass of a scenario is its share of the events unless gate.normalise says otherwise. Gates that all lie at one clip, or a p that does not vary, say that the gate has collapsed. Scenario dominance: "
    "which scenario's events make up the gated loss."
)
_CALIBRATION = (
    "Spearman's ρ of Q with the discounted reward that followed in the log (behind the last event nothing is known). The probability p of each scenario, over all test events "
    "in 15 bins of equal size: what was predicted and how often the scenario followed."
)
_FORENSICS = (
    "The same places of the same model, by the right metric and by two wrong ones. “tail slice”: the released code takes the last K of "
    "the largest list, so that for every K but the largest the best items are not looked at. “reversed rank”: the right K, counted from the "
    "end. Rows of the wrong ones are marked paper_literal and stand nowhere else."
)
_SAMPLED = (
    "The event's item among itself and random items, as UniSAR does. Such numbers are no estimates of the full ones and may "
    "order models otherwise; they are never compared with them. Where DIN, which scores every pair by itself, would have more pairs than "
    "ranking.pair_limit, it has no full ranking: it is placed among ranking.in_place items, shown here alone."
)
_LEARNING = "The training loss is each model's own. NDCG@10 of val events, macro over scenarios, chose the epoch; nothing but val decides when to stop."


def _headline_text(is_world: bool) -> str:
    text = (
        "Each test event is asked for after the user's last events, and its item is ranked among all items that exist at that time. NDCG@K is 1/log₂(place + 1) "
        "for places up to K. “macro” is the plain mean over scenarios, so that a small scenario counts as much as a large one."
    )
    if is_world:
        text += "\n\nThese numbers come from generated data and say nothing about real users."
    return text


def _facts(full: pl.DataFrame, ndcg: str) -> list[Fact]:
    own = full.filter(MACRO, pl.col("paired_with").is_null(), metric=ndcg)
    own = own.sort("value", descending=True, nulls_last=True)
    return [
        Fact(
            f"{ndcg.upper()}, {variant_label(row['variant'])}{'' if row['reliable'] else ' †'}",
            _number(row["value"]),
            f"[{_number(row['ci_low'])}, {_number(row['ci_high'])}], n ≥ {row['n']:,} a scenario",
        )
        for row in own.head(3).iter_rows(named=True)
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _study_text(studies: StudyOptions) -> str:
    chosen = {experiment for experiment, _ in studies.chosen()}
    off = [name for name in studies.cells if name not in chosen]
    text = (
        "Each cell is a model trained anew with some options changed, or on a log with some events left out, and compared on the same test "
        "events with the run's own model, or with the cell that the pair names."
    )
    return text + (f" Described in the parameters and not run: {', '.join(off)}." if off else "")


def _study_table(results: pl.DataFrame, ndcg: str) -> Table:
    """Value of each cell and its difference."""
    rows = results.filter(~pl.col("experiment").is_in(["RU-01", "RU-10"])).filter(MACRO, metric=ndcg)  # fmt: skip
    body: list[list[object]] = []
    values = rows.filter(pl.col("paired_with").is_null())
    pairs = rows.filter(pl.col("paired_with").is_not_null())
    difference = {(r["experiment"], r["cell"]): r for r in pairs.iter_rows(named=True)}
    for row in values.iter_rows(named=True):
        pair = difference.get((row["experiment"], row["cell"]))
        body.append(
            [
                row["experiment"],
                row["cell"].replace("_", " "),
                variant_label(row["variant"]),
                _interval_cell(row),
                Cell("–", muted=True) if pair is None else _interval_cell(pair, "+"),
                "–" if pair is None else pair["paired_with"].replace("_", " "),
            ]
        )
    return plain_table(
        f"{ndcg.upper()}, macro over scenarios",
        ["experiment", "cell", "model", "value", "difference", "from"],
        body,
    )


def _calibration_table(results: pl.DataFrame, labels: Sequence[str]) -> Table:
    """ρ of Q, and ECE and Brier score of p, of each cell of RU-06."""
    rows = results.filter(experiment="RU-06")
    value = {(r["cell"], r["metric"], r["group"]): r for r in rows.iter_rows(named=True)}
    named = {"ece_p": "ECE of p", "brier_p": "Brier score of p"}
    body: list[list[object]] = []
    for cell in rows["cell"].unique(maintain_order=True):
        for label in ("all", *labels):
            rho = value.get((cell, "spearman_q_return", label))
            own = (value.get((cell, metric, label)) for metric in named)
            shown = [Cell("–", muted=True) if rho is None else _interval_cell(rho, "+")]
            body.append([cell.replace("_", " "), label, *shown, *(_number(None if r is None else r["value"]) for r in own)])  # fmt: skip
    return plain_table("Test events", ["cell", "scenario", "Spearman's ρ", *named.values()], body)


def _monitor_table(results: pl.DataFrame, labels: Sequence[str]) -> Table:
    """Gate and Q of each cell of RUIE in its last epoch."""
    columns = {
        "gate_at_low": "gates at the lower clip", "gate_at_high": "at the upper clip", "p_sd": "sd of p", "td_abs": "mean absolute TD error",
        "triplet_variance": "variance of the gated loss",
    }  # fmt: skip
    by_scenario = {"q_scenario": "mean Q", "gate_share": "gate mass"}
    rows = results.filter(pl.col("metric").is_in([*columns, *by_scenario]))
    value = {
        (r["experiment"], r["cell"], r["metric"], r["group"]): r["value"]
        for r in rows.iter_rows(named=True)
    }
    keys = [(metric, "all", name) for metric, name in columns.items()]
    keys += [(m, label, f"{name}, {label}") for m, name in by_scenario.items() for label in labels]
    cells = rows.select("experiment", "cell").unique(maintain_order=True).iter_rows()
    body: list[list[object]] = [
        [e, c.replace("_", " "), *(_number(value.get((e, c, metric, group))) for metric, group, _ in keys)]
        for e, c in cells
    ]  # fmt: skip
    return plain_table(
        "Gate and Q of each cell, means over the steps of the last epoch",
        ["experiment", "cell", *(name for *_, name in keys)],
        body,
    )


def _interval_cell(row: Mapping[str, Any], sign: str = "") -> Cell:
    if row["value"] is None:
        return Cell("–", muted=True)
    low, high = row["ci_low"], row["ci_high"]
    detail = "no interval" if low is None else f"[{low:{sign}.4f}, {high:{sign}.4f}]"
    return Cell(f"{row['value']:{sign}.4f}", detail, float(row["value"]), muted=not row["reliable"])


def _forensics_table(results: pl.DataFrame, cutoffs: Sequence[int]) -> Table:
    rows = results.filter(experiment="RU-10")
    value = {(r["cell"], r["metric"]): r["value"] for r in rows.iter_rows(named=True)}
    cells = rows["cell"].unique(maintain_order=True).to_list()
    names = [f"{metric}@{k}" for metric in ("ndcg", "hr") for k in cutoffs]
    body: list[list[object]] = [[c, *(_number(value.get((c, name))) for name in names)] for c in cells]  # fmt: skip
    return plain_table(
        "RUIE's test places, micro, by each form of the metric",
        ["form", *(name.upper() for name in names)],
        body,
    )


def _published_text(published: Sequence[float]) -> str:
    steps = [f"{b - a:.2f}" for a, b in pairwise(published)]
    return (
        "What the paper prints for RUIE on KuaiSAR, taken as percent; the release, the filter and the split are not stated. From one K to the next the values grow by "
        f"{', '.join(steps)}: nearly the same each time. The NDCG of a ranker that is better than chance grows less and less with K. So the row is a reference and not a target."
    )


def _published_table(full: pl.DataFrame, published: Sequence[float]) -> Table:
    own = full.filter(pl.col("variant") == MAIN, pl.col("paired_with").is_null())
    body: list[list[object]] = []
    for k, value in zip(PUBLISHED_K, published, strict=True):
        metric = f"ndcg@{k}"
        found = {
            w: own.filter(metric=metric, weighting=w, group="all")["value"].to_list()
            for w in ("macro", "micro")
        }
        ours = [_number(found[w][0]) if found[w] else "–" for w in ("macro", "micro")]
        body.append([metric.upper(), f"{value / 100:.4f}", *ours])
    return plain_table(
        "Published beside ours: different data, not comparable",
        ["metric", "published RUIE (KuaiSAR)", "ours, macro", "ours, micro"],
        body,
    )


def _left_text(targets: pl.DataFrame) -> str:
    unranked = targets.filter(pl.col("rank").is_null()).height
    return (
        "Items, users and scenarios that train does not hold cannot be ranked by models of ids: such events are left out of val and test, and counted here. "
        f"{unranked:,} of {targets.height:,} val and test events could not be ranked because their item's upload date lies after them."
    )


def _files(report: dict[str, Any]) -> Table:
    rows = [[f["file"], f["rows_read"], f["duplicates"], f["bad"]] for f in report["files"]]
    return plain_table("Files read", ["file", "rows", "duplicates", "quarantined"], rows)
