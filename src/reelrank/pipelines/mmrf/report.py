"""The figures and the page of one run of MMRF: which policy orders rows best, what it would have earned, and how far that is to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.models.feed_options import FeedDataOptions
from reelrank.pipelines.mmrf import drawings
from reelrank.pipelines.mmrf.options import AGENTS
from reelrank.pipelines.mmrf.run_options import (
    LOGGED,
    MAIN,
    METHODS,
    EvaluationOptions,
    LostCell,
    PublishedTable,
    StudyOptions,
)
from reelrank.reports import figures
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.panels import nothing
from reelrank.reports.result_tables import (
    differences_table,
    files_table,
    origin,
    results_table,
)
from reelrank.reports.theme import variant_label

FIGURES = (
    "gauc",
    "ncis",
    "auxiliary_ncis",
    "differences",
    "true_values",
    "conflict_matrix",
    "attention",
    "coverage",
    "horizons",
    "studies",
    "learning_curves",
    "ingestion_steps",
    "split_sizes",
)
WATCH = AGENTS[-1]
SINGLE = (
    0.9  # share of single-item requests above which K2 is called so (METHODS §4.2: 99 % on Pure)
)
VALUES = pl.col("paired_with").is_null()
MAIN_CELL = {"experiment": "MM-01", "cell": "main"}
STUDIED = ~pl.col("experiment").is_in(["MM-01", "MM-04", "MM-06", "MM-13"])


def draw(
    results: pl.DataFrame,
    attention: pl.DataFrame,
    feed_report: dict[str, Any],
    ingestion_report: dict[str, Any],
    conflicts: pl.DataFrame,
    data: FeedDataOptions,
    **histories: pl.DataFrame,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    main = results.filter(**MAIN_CELL)
    lists = results.filter(VALUES, experiment="MM-04")
    gauc = main.filter(VALUES, metric="gauc_final")
    pairs = main.filter(pl.col("metric") == "gauc_final", group=WATCH)
    pairs = pl.concat([pairs, main.filter(metric="ncis", group=WATCH)])
    history = pl.concat([histories[f"{m}_history"] for m in METHODS], how="diagonal_relaxed")
    sizes = pl.DataFrame(feed_report["splits"]).select("split", "decisions", "rows", "users", "random_rows")  # fmt: skip
    return (
        figures.metric_bars(gauc).update_layout(title_text="How well each score orders what was shown"),
        drawings.value_and_ess(main, WATCH),
        figures.metric_bars(main.filter(VALUES, pl.col("group").is_in(AGENTS[:-1]), metric="ncis")),
        _differences(pairs),
        _true_values(results),
        drawings.conflict_matrix(conflicts),
        drawings.attention_panels(attention),
        figures.metric_bars(lists).update_layout(title_text=f"What the best {data.k} are like"),
        _horizons(results),
        _studies(results),
        figures.learning_curves(history.select("variant", "epoch", "step", *_curves(history))),
        figures.ingestion_steps(ingestion_report),
        figures.split_sizes(sizes),
    )  # fmt: skip


def _differences(pairs: pl.DataFrame) -> go.Figure:
    rows = pairs.filter(~VALUES)
    if rows.is_empty():
        return nothing("Paired differences", "there is nothing to compare with")
    return figures.paired_differences(rows)


def _true_values(results: pl.DataFrame) -> go.Figure:
    rows = results.filter(VALUES, metric="true_value").filter(pl.col("group").is_in(["all", WATCH]))
    if rows.is_empty():
        return nothing("True values", "real rows: nobody knows them")
    return figures.metric_bars(rows).update_layout(title_text="Really rolled out in the world")


def _horizons(results: pl.DataFrame) -> go.Figure:
    rows = results.filter(VALUES, pl.col("weighting").str.starts_with("day "), experiment="MM-06", group=WATCH, variant=MAIN)  # fmt: skip
    if rows["value"].count() == 0:
        return nothing("Days after the last train day", "no test day can be ranked")
    return drawings.day_curves(rows)


def _studies(results: pl.DataFrame) -> go.Figure:
    """Differences of every cell, or a panel that says that no study was run."""
    rows = results.filter(STUDIED, ~VALUES, metric="gauc_final", group=WATCH)
    if rows.is_empty():
        return nothing("Studies", "no study was run")
    shown = rows.with_columns(
        cell=pl.col("experiment") + ": " + pl.col("cell").str.replace_all("_", " ")
    )
    return figures.cell_intervals(
        shown, "Studies", "GXAUC of watch time minus that of what it is compared with", zero=True
    )


def _curves(history: pl.DataFrame) -> list[str]:
    wanted = ("val_gxauc_watch_time", "val_gauc_long_view", "train_loss", "train_td_watch_time", "train_q_abs_max_watch_time", "train_entropy_watch_time", "simulator_loss")  # fmt: skip
    return [name for name in wanted if name in history.columns and history[name].count()]


def write(
    results: pl.DataFrame,
    behaviour_report: pl.DataFrame,
    feed_report: dict[str, Any],
    ingestion_report: dict[str, Any],
    split_cuts: dict[str, Any],
    data: FeedDataOptions,
    evaluation: EvaluationOptions,
    studies: StudyOptions,
    published: PublishedTable,
    command: str,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    is_world = first["data_kind"] == "world"
    main = results.filter(**MAIN_CELL)
    gauc = main.filter(metric="gauc_final")
    steps = main.filter(pl.col("metric").is_in(["ncis", "ncis-trajectory", "piece-ncis", "snipw"]), weighting="")  # fmt: skip
    checks = main.filter(pl.col("metric").is_in(["ess", "mean_weight", "clip_rate", "max_share"]), weighting="ncis", group=WATCH)  # fmt: skip
    sets = _sets(feed_report)
    sections = [
        Section("Which policy orders rows best? (MM-01)", _ordering_text(is_world), facts=_facts(main),
                figures=[figure["gauc"]],
                tables=[results_table(gauc.filter(VALUES), f"GAUC of the final score, {sets}"),
                        results_table(main.filter(pl.col("metric") == "gauc_final@median"), "Watch time above the user's train median"),
                        results_table(main.filter(metric="gauc_head"), "GAUC of each agent's own score")]),
        Section("What would it have earned? (NCIS)", _value_text(evaluation, feed_report), figures=[figure["ncis"], figure["auxiliary_ncis"]],
                tables=[results_table(steps.filter(pl.col("metric") == "ncis"), f"NCIS per step, {sets}"),
                        results_table(checks, "What the NCIS of watch time rests on"),
                        results_table(steps.filter(pl.col("metric") != "ncis", pl.col("group") == WATCH), "Watch time by other estimators"),
                        _sweep_table(main), _temperature_table(results),
                        results_table(main.filter(metric="on_policy"), "What the logging policy earned")]),
        Section("Against each baseline", _DIFFERENCES, figures=[figure["differences"]],
                tables=[differences_table(gauc, "MMRF minus each method: GAUC"),
                        differences_table(main.filter(metric="ncis"), "MMRF minus each method: NCIS")]),
        Section("The truth of the world" if is_world else "No truth to compare with", _truth_text(main, is_world=is_world), figures=[figure["true_values"]],
                tables=_truth_tables(results)),
        Section("Random exposures", _RANDOM, tables=_random_tables(results)),
        Section("The policy that logged", _BEHAVIOUR, tables=[_behaviour_table(behaviour_report)]),
        Section("Do the agents agree? (MM-08)", _CONFLICTS, figures=[figure["conflict_matrix"]]),
        Section("Whom do they listen to? (MM-11)", _ATTENTION, figures=[figure["attention"]]),
        Section("What the lists are like (MM-04)", _LISTS, figures=[figure["coverage"]],
                tables=[results_table(results.filter(experiment="MM-04"), f"Best {data.k} of each test decision")]),
        Section("As days go by (MM-06)", _HORIZONS, figures=[figure["horizons"]],
                tables=[results_table(results.filter(pl.col("metric").str.ends_with(" slope"), experiment="MM-06", cell="fixed"), "Change per day without retraining"), *_retraining_tables(results)]),
        Section("What a request costs (MM-13)", _SERVING, tables=[_serving_table(results)]),
        Section("Ablations and other studies", _study_text(studies), figures=[figure["studies"]], tables=[_study_table(results)]),
        Section("The published table", _PUBLISHED, tables=_published_tables(main, published)),
        Section("How they learnt", _LEARNING, figures=[figure["learning_curves"]]),
        Section("From raw files to decisions", _feed_text(feed_report), figures=[figure["split_sizes"], figure["ingestion_steps"]],
                tables=[_feed_table(feed_report), files_table(ingestion_report)]),
    ]  # fmt: skip
    where = "a generated world" if is_world else f"real {first['source']} rows"
    return render_page(
        f"MMRF on {first['source']}: {_track(feed_report)}",
        f"Seven agents, one per response, and {len(METHODS) - 1} other methods on {where}, split by time ({split_cuts['rule']}).",
        sections,
        origin(results, command),
        "world" if is_world else "real",
    )


_DIFFERENCES = (
    "Each dot is MMRF minus one method on the same rows with the same resamples of users. An interval that crosses 0 is no evidence of a difference; "
    "a difference of two values that may not be ranked may not be ranked either."
)
_RANDOM = (
    "Rows that the app showed at random: given the candidate set, each candidate was as likely as any other, so the propensity is known and needs no model. Few such "
    "rows match what a policy prefers; the flags say how far to believe them."
)
_BEHAVIOUR = (
    "KuaiRand logs no propensities. A softmax MLP over the candidates predicts what was shown from what was known before (scenario, hour, feedback, categories), "
    "in five folds of users so that no user is judged by a model that saw them; its temperature is fitted on val. A log loss near that of equal chances says that the "
    "logging policy is nearly unpredictable from what the log keeps, and that weights are near 1 whatever a policy does."
)
_CONFLICTS = "Cosine of the agents' gradients of what they share (attention and state encoder). Below 0 they pull against each other; the variant pcgrad projects that part away."
_ATTENTION = "The share that an agent (row) takes from each other agent (column). No agent hears itself. Shares near equal say that the attention chooses nobody."
_LISTS = "Coverage counts against all items that are a candidate of some test decision. A Gini index near 1 says that few videos get nearly all places. How wrong the simulated feedback is on little shown videos: MM-04 of pipeline feedback_simulator."
_HORIZONS = (
    "The same model on each day after the last train decision, without retraining. The slope is per day, each day alike. Where cells of MM-06 were run, MMRF is also trained anew every so many days on all rows before, "
    "with the same gap for validation, and compared with the fixed one on the same rows. Intervals resample users, not the luck of a training: a difference of a few trainings is also that."
)
_SERVING = (
    "One request at a time, from its tensors to the scores on the CPU; its candidates are drawn among all videos. Timings are of the machine that ran this page and of whatever else kept it busy. "
    "Activations: most bytes that live at once beside weights and request, run eagerly. exported: a torch.export'ed program; compiled: the same through AOTInductor."
)
_LEARNING = (
    "GXAUC of watch time on val decisions after each epoch. It chooses the epoch of methods without critics; of the others the last is kept, as Algorithm 1 says, unless learning.keep is best. "
    "A method without critics has no TD loss."
)
_PUBLISHED = (
    "Table 1 of the paper on KuaiRand-1K beside ours. Which 1K rows it used, its propensities and its temperature are not stated, and its BC value differs from TSCAC's on the same "
    "release: absolute values are not comparable, so nothing here reproduces them. “direction” compares the sign of MMRF's difference from the method, published and ours: "
    "“reproduced” only if our interval excludes 0. Lost cells are those that the text at hand lacks, with the bounds that follow if each was its column's second best. "
    "Hate: GAUC is of the label 1 − hate (higher is better), NCIS is of hate itself (lower is better)."
)


def _track(report: Mapping[str, Any]) -> str:
    if report["track"] == "top_videos":
        return "most viewed videos (K1)"
    return "single-item requests (K2)" if _is_single(report) else "requests (K2)"


def _is_single(report: Mapping[str, Any]) -> bool:
    """Nearly all requests show one item: K2 is then K1's shape with constructed candidates."""
    decisions, single = (
        sum(int(part[name]) for part in report["splits"]) for name in ("decisions", "single_item")
    )
    return decisions > 0 and single / decisions > SINGLE


def _sets(report: Mapping[str, Any]) -> str:
    if report["track"] == "top_videos":
        return f"the {report['candidates_most']} videos most viewed in train as candidates"
    single = ", single-item" if _is_single(report) else ""
    return f"constructed candidate sets of {report['candidates_least']} to {report['candidates_most']}{single}"


def _ordering_text(is_world: bool) -> str:
    text = (
        "AUC within each user's test rows, averaged by rows; one final score, the main agent's, is judged on every response. Hate's label is 1 − hate, so higher is better. "
        "Watch time is no label of two values: GXAUC is the share of a user's pairs of rows that are ordered rightly. “logged” is the estimated logging policy."
    )
    if is_world:
        text += "\n\nThese numbers come from generated data and say nothing about real users."
    return text


def _value_text(evaluation: EvaluationOptions, report: Mapping[str, Any]) -> str:
    return (
        f"Capped, self-normalised importance sampling, weights cut at {evaluation.cap:g}. Each policy is the softmax of its scores at the temperature at which it is as random as the "
        "logging policy on val. The per-step form is the value of choosing anew in the contexts that the log visited, not of a session. † marks what may not be ranked: "
        f"few effective rows, one row with much weight, or weights whose mean is not near 1. Candidates: {_sets(report)}"
        + (
            "; the log keeps none, the unshown are drawn from the videos available that day."
            if report["track"] == "request"
            else "."
        )
    )


def _truth_text(main: pl.DataFrame, *, is_world: bool) -> str:
    if not is_world:
        return (
            "These are real rows. Only a log of random exposures, or an experiment, could say more."
        )
    own = main.filter(VALUES, variant=LOGGED, group=WATCH)
    means = [own.filter(metric=m)["value"].to_list() for m in ("on_policy", "bandit_value")]
    hidden = ""
    if all(means):
        logged, known = means[0][0], means[1][0]
        hidden = (
            f" The log's own watch time is {logged:.1f} s; a policy that chose from the same candidates as π̂_b says would earn {known:.1f} s. The difference of {logged - known:+.1f} s is what "
            "the app knew of its users and π̂_b does not (a hidden confounder): it stands in NCIS and DR of every policy, and no flag on weights sees it."
        )
    return (
        "The world knows every response, so that both kinds of value are known. bandit value: what NCIS estimates, in the same contexts with the same candidates. "
        "true value: the policy ranks greedily for users who really answer, from the first test moment on; “all” is the discounted reward of a session, the others are per shown video."
        + hidden
    )


def _facts(main: pl.DataFrame) -> list[Fact]:
    own = main.filter(VALUES, pl.col("variant").is_in(METHODS), metric="gauc_final", group=WATCH)
    own = own.sort("value", descending=True, nulls_last=True)
    return [
        Fact(
            f"GXAUC of watch time, {variant_label(row['variant'])}{'' if row['reliable'] else ' †'}",
            _number(row["value"]),
            f"[{_number(row['ci_low'])}, {_number(row['ci_high'])}], n = {row['n']:,} rows",
        )
        for row in own.head(3).iter_rows(named=True)
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _sweep_table(main: pl.DataFrame) -> Table:
    rows = main.filter(pl.col("weighting").str.starts_with("cap "), metric="ncis", group=WATCH)
    caps = rows["weighting"].unique(maintain_order=True).to_list()
    value = {(r["variant"], r["weighting"]): r["value"] for r in rows.iter_rows(named=True)}
    variants = rows["variant"].unique(maintain_order=True).to_list()
    body: list[list[object]] = [[variant_label(v), *(value.get((v, c)) for c in caps)] for v in variants]  # fmt: skip
    return plain_table("NCIS of watch time (s) under other caps", ["method", *caps], body)


def _temperature_table(results: pl.DataFrame) -> Table:
    rows = results.filter(
        VALUES, pl.col("cell").str.starts_with("temperature"), experiment="MM-01", metric="ncis", group=WATCH, weighting="",
    )  # fmt: skip
    cells = rows["cell"].unique(maintain_order=True).to_list()
    value = {(r["variant"], r["cell"]): _interval_cell(r) for r in rows.iter_rows(named=True)}
    variants = rows["variant"].unique(maintain_order=True).to_list()
    missing = Cell("–", muted=True)
    body: list[list[object]] = [[variant_label(v), *(value.get((v, c), missing) for c in cells)] for v in variants]  # fmt: skip
    return plain_table("NCIS of watch time (s) at other temperatures", ["method", *cells], body)


def _truth_tables(results: pl.DataFrame) -> list[Table]:
    main = results.filter(**MAIN_CELL)
    bandit = main.filter(VALUES, metric="bandit_value")
    if bandit.is_empty():
        return []
    ncis = main.filter(VALUES, metric="ncis", weighting="")
    tables = [_covered_table(ncis, bandit), results_table(bandit, "True bandit value")]
    rolled = results.filter(VALUES, metric="true_value")
    if rolled.height:
        tables.append(results_table(rolled, "True value, rolled out"))
    pairs = results.filter(~VALUES, metric="true_value").filter(pl.col("group").is_in(["all", WATCH]))  # fmt: skip
    if pairs.height:
        tables.append(differences_table(pairs, "MMRF minus each method, rolled out"))
    return tables


def _covered_table(ncis: pl.DataFrame, bandit: pl.DataFrame) -> Table:
    """Whether each interval holds the truth."""
    joined = ncis.join(bandit.select("variant", "group", truth="value"), on=["variant", "group"])
    body: list[list[object]] = []
    for part in joined.partition_by("variant", maintain_order=True):
        own = [variant_label(part["variant"][0])]
        cells: list[object] = []
        for response in AGENTS:
            row = next(part.filter(group=response).iter_rows(named=True), None)
            if row is None or row["ci_low"] is None:
                cells.append(Cell("–", muted=True))
                continue
            inside = row["ci_low"] <= row["truth"] <= row["ci_high"]
            bias = row["value"] - row["truth"]
            cells.append(Cell("inside" if inside else "outside", f"{bias:+.3g}", bias, muted=not row["reliable"]))  # fmt: skip
        body.append([*own, *cells])
    return Table(
        "Does the NCIS interval hold the true bandit value?",
        ["method", *(a.replace("_", " ") for a in AGENTS)],
        [[c if isinstance(c, Cell) else Cell(str(c)) for c in row] for row in body],
        "Below: NCIS minus truth. Intervals know nothing of the error of the estimated propensities.",
    )


def _random_tables(results: pl.DataFrame) -> list[Table]:
    rows = results.filter(VALUES, experiment="MM-01", cell="random log", weighting="")
    if rows.is_empty():
        return [plain_table("No random exposure among the test rows", ["rows"], [[0]])]
    ess = results.filter(experiment="MM-01", cell="random log", metric="ess", group=WATCH)
    return [
        results_table(rows.filter(metric="ncis"), "NCIS from random exposures"),
        results_table(ess, "Effective random exposures"),
    ]


def _behaviour_table(report: pl.DataFrame) -> Table:
    return plain_table("Quality of the estimated propensities", report.columns, report.rows())


def _study_text(studies: StudyOptions) -> str:
    run = set(studies.chosen())
    off = [f"{e} ({sum((e, c) not in run for c in cells)} cells)" for e, cells in studies.cells.items() if any((e, c) not in run for c in cells)]  # fmt: skip
    text = "Each cell is a variant of MMRF trained anew with some options changed, and compared on the same rows with the run's own model, or with the cell that the pair names."
    return text + (f" Described in the parameters and not run here: {', '.join(off)}." if off else "")  # fmt: skip


def _study_table(results: pl.DataFrame) -> Table:
    """GXAUC and NCIS of watch time of each cell, with their differences."""
    wanted = (("gauc_final", "GXAUC"), ("ncis", "NCIS, s"))
    rows = results.filter(STUDIED, pl.col("metric").is_in([m for m, _ in wanted]), group=WATCH)
    rows = rows.filter(~pl.col("weighting").str.starts_with("cap "))
    body: list[list[object]] = []
    for part in rows.partition_by("experiment", "cell", maintain_order=True):
        pairs = part.filter(~VALUES)
        line: list[object] = [
            part["experiment"][0],
            part["cell"][0].replace("_", " "),
            variant_label(part["variant"][0]),
        ]
        for metric, _ in wanted:
            for own, sign in ((part.filter(VALUES), ""), (pairs, "+")):
                row = next(own.filter(metric=metric).iter_rows(named=True), None)
                line.append(Cell("–", muted=True) if row is None else _interval_cell(row, sign))
        line.append("–" if pairs.is_empty() else pairs["paired_with"][0].replace("_", " "))
        body.append(line)
    columns = ["experiment", "cell", "model"]
    columns += [f"{title}{suffix}" for _, title in wanted for suffix in ("", ", difference")]
    return plain_table("Watch time", [*columns, "from"], body)


def _retraining_tables(results: pl.DataFrame) -> list[Table]:
    """Mean and slope over the days of models that were trained again and again, and their differences from the fixed one."""
    rows = results.filter(pl.col("cell") != "fixed", pl.col("metric").str.contains(" (mean|slope)$"), experiment="MM-06")  # fmt: skip
    if rows.is_empty():
        return []
    body: list[list[object]] = []
    for part in rows.partition_by("cell", "metric", "group", maintain_order=True):
        value, pair = (part.filter(which).row(0, named=True) for which in (VALUES, ~VALUES))
        name = [part["cell"][0], part["metric"][0].replace("_", " "), part["group"][0].replace("_", " ")]  # fmt: skip
        body.append([*name, _interval_cell(value), _interval_cell(pair, "+"), value["n"]])
    columns = ["trained anew", "metric", "response", "value", "minus the fixed model's", "days"]
    return [plain_table("Training anew", columns, body)]


def _serving_table(results: pl.DataFrame) -> Table:
    """A line per method and program."""
    rows = results.filter(experiment="MM-13")
    body: list[list[object]] = []
    for variant in rows["variant"].unique(maintain_order=True):
        own = rows.filter(variant=variant)
        sizes = dict(own.filter(weighting="").select("metric", "value").iter_rows())
        for part in own.filter(pl.col("weighting") != "").partition_by("weighting", maintain_order=True):  # fmt: skip
            value = {r["metric"]: r for r in part.iter_rows(named=True)}
            times = [Cell(f"{value[m]['value']:.2f}" + ("" if value[m]["reliable"] else " †"), sort=value[m]["value"]) for m in _LATENCIES]  # fmt: skip
            body.append([variant_label(variant), part["weighting"][0], *times, value[_LATENCIES[0]]["n"], sizes["weights_mb"], sizes["activations_mb"]])  # fmt: skip
    cell = "none timed" if rows.is_empty() else rows["cell"][0]
    columns = ["method", "program", "p50, ms", "p95, ms", "p99, ms", "requests", "weights, MB", "activations, MB"]  # fmt: skip
    return plain_table(f"Scoring one request, {cell}", columns, body)


_LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")


def _interval_cell(row: Mapping[str, Any], sign: str = "") -> Cell:
    if row["value"] is None:
        return Cell("–", muted=True)
    low, high = row["ci_low"], row["ci_high"]
    detail = "no interval" if low is None else f"[{low:{sign}.4f}, {high:{sign}.4f}]"
    text = f"{row['value']:{sign}.4f}" + ("" if row["reliable"] else " †")
    return Cell(text, detail, float(row["value"]), muted=not row["reliable"])


def _published_tables(main: pl.DataFrame, published: PublishedTable) -> list[Table]:
    lost: dict[tuple[str, str, str], LostCell] = {
        (c.method, c.response, c.metric): c for c in published.lost
    }
    tables = []
    for metric, ours in (("gauc", "gauc_final"), ("ncis", "ncis")):
        values = main.filter(VALUES, metric=ours).filter(~pl.col("weighting").str.starts_with("cap "))  # fmt: skip
        pairs = main.filter(~VALUES, metric=ours)
        own = {(r["variant"], r["group"]): r for r in values.iter_rows(named=True)}
        difference = {(r["paired_with"], r["group"]): r for r in pairs.iter_rows(named=True)}
        body = [
            [Cell(variant_label(method)), *(_published_cell(method, metric, k, published, lost, own, difference) for k in range(len(AGENTS)))]
            for method in published.rows
        ]  # fmt: skip
        tables.append(
            Table(
                f"Published {metric.upper()} (KuaiRand-1K), ours below: different rows, not comparable",
                ["method", *(a.replace("_", " ") for a in AGENTS)],
                body,
            )
        )
    return tables


def _published_cell(
    method: str,
    metric: str,
    k: int,
    published: PublishedTable,
    lost: Mapping[tuple[str, str, str], LostCell],
    own: Mapping[tuple[str, str], Mapping[str, Any]],
    difference: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Cell:
    response = AGENTS[k]
    value = getattr(published.rows[method], metric)[k]
    if value is None:
        bounds = lost.get((method, response, metric))
        text = "lost" if bounds is None else f"lost [{bounds.low:.4g}, {bounds.high:.4g}]"
    else:
        text = f"{value:.4g}"
    row = own.get((method, response))
    ours = "not run" if row is None or row["value"] is None else f"ours {row['value']:.4g}{'' if row['reliable'] else ' †'}"  # fmt: skip
    direction = _direction(getattr(published.rows[MAIN], metric)[k], value, difference.get((method, response)))  # fmt: skip
    return Cell(text, ours + direction, value, muted=value is None)


def _direction(best: float | None, value: float | None, pair: Mapping[str, Any] | None) -> str:
    """Whether MMRF's difference has the published sign (METHODS §7.5)."""
    if best is None or value is None or best == value or pair is None or pair["ci_low"] is None:
        return ""
    clear = pair["ci_low"] > 0 or pair["ci_high"] < 0
    if not clear or not pair["reliable"]:
        return "; direction open"
    return "; direction reproduced" if (pair["value"] > 0) == (best > value) else "; direction reversed"  # fmt: skip


def _feed_text(report: Mapping[str, Any]) -> str:
    text = (
        f"Candidates: {_sets(report)}. {report['rows_without_decision']:,} of {report['log_rows']:,} rows are no decision: their split leaves them out, "
        "they stand twice in a request, or they are not among the most viewed videos; they are history."
    )
    return text + (" Random exposures are never trained on." if any(p["random_rows"] for p in report["splits"]) else "")  # fmt: skip


def _feed_table(report: Mapping[str, Any]) -> Table:
    names: Sequence[str] = list(report["splits"][0])
    return plain_table("Decisions of the logging policy, by split", [n.replace("_", " ") for n in names], [[part[n] for n in names] for part in report["splits"]])  # fmt: skip
