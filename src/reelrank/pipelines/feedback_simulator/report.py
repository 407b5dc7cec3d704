"""The figures and the page of one run of the feedback simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.evaluation.calibration import reliability_table
from reelrank.pipelines.feedback_simulator.run_options import (
    MAIN,
    EvaluationOptions,
    StudyOptions,
)
from reelrank.reports import figures, theme
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.panels import error_bar, facets, nothing, opacity, titled
from reelrank.reports.result_tables import (
    differences_table,
    files_table,
    origin,
    results_table,
)
from reelrank.training.artifact import ModelCheckpoint

FIGURES = (
    "ranking",
    "calibration",
    "uncertainty",
    "error",
    "truth",
    "exposure",
    "rewards",
    "studies",
    "learning_curves",
    "ingestion_steps",
)
ROWS = {"standard": "standard rows", "random": "random rows"}
EXPOSURE_COLOURS = {"standard": theme.ACCENT, "random": "#c7833b"}
BINS = 10  # of uncertainty, equal mass
IS_RANDOM = pl.col("split").str.ends_with("test_random")
VALUES = pl.col("paired_with").is_null()
ORDER = ["gauc", "gxauc"]


def draw(
    results: pl.DataFrame,
    responses: pl.DataFrame,
    ingestion_report: dict[str, Any],
    history: pl.DataFrame,
    evaluation: EvaluationOptions,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    main = results.filter(VALUES, experiment="MM-03", cell="main", variant=MAIN)
    known = responses.filter(pl.col("response").cast(pl.String).is_in(evaluation.responses))
    known = known.drop_nulls(["logged", "predicted"])
    return (
        _by_response(main.filter(pl.col("metric").is_in(ORDER)), "Order within users", "GAUC (watch time: GXAUC), 0.5 is chance"),
        _calibration(known),
        _uncertainty(known),
        _by_response(main.filter(metric="kl_error_spearman"), "Uncertainty against error", "Spearman of KL and |error|", zero=True),
        _by_response(main.filter(metric="true_spearman"), "Against the planted truth", "Spearman of prediction and true expectation", zero=True),
        _exposure(results, evaluation.responses),
        _rewards(results, evaluation.headline),
        _studies(results, evaluation.headline),
        figures.learning_curves(history.select("variant", "epoch", "step", "train_fit", "train_kl", validation_loss=-pl.col("val_negative_loss"))),
        figures.ingestion_steps(ingestion_report),
    )  # fmt: skip


def _by_response(rows: pl.DataFrame, title: str, axis: str, *, zero: bool = False) -> go.Figure:
    """A line per response and exposure."""
    place = pl.when(IS_RANDOM).then(pl.lit(ROWS["random"])).otherwise(pl.lit(ROWS["standard"]))
    shown = rows.with_columns(cell=_words("group") + ", " + place)
    if shown["value"].null_count() == shown.height:
        return nothing(title)
    return figures.cell_intervals(shown, title, axis, zero=zero)


def _calibration(known: pl.DataFrame) -> go.Figure:
    """Predicted against observed rates of the binary responses."""
    parts = []
    for (response, exposure), own in known.group_by("response", "exposure", maintain_order=True):
        if response != "watch_time":
            p = own["predicted"].cast(pl.Float64).clip(0, 1)
            table = reliability_table(own["logged"], p)
            parts.append(table.with_columns(variant=pl.lit(ROWS[exposure]), group=pl.lit(response)))
    return figures.reliability_curves(pl.concat(parts)) if parts else nothing("Calibration")


def _uncertainty(known: pl.DataFrame) -> go.Figure:
    """Mean |error| in bins of the uncertainty, by response and exposure, relative to the mean of all rows."""
    error = (pl.col("predicted") - pl.col("logged")).abs()
    by = ["response", "exposure"]
    binned = (
        known.with_columns(error=error)
        .with_columns(
            error=pl.col("error") / pl.col("error").mean().over(by),
            bin=(pl.col("kl").rank("ordinal").over(by) - 1) * BINS // pl.len().over(by),
        )
        .group_by(*by, "bin")
        .agg(pl.col("kl", "error").mean(), n=pl.len())
        .sort(*by, "bin")
    )
    names = binned["response"].cast(pl.String).unique(maintain_order=True).to_list()
    if not names:
        return nothing("Error by uncertainty")
    figure = facets([170] * len(names))
    for row, name in enumerate(names, start=1):
        for exposure, colour in EXPOSURE_COLOURS.items():
            own = binned.filter(response=name, exposure=exposure)
            figure.add_scatter(
                x=own["bin"] + 1, y=own["error"], customdata=own.select("kl", "n").rows(), mode="lines+markers",
                marker={"size": 5}, line={"color": colour, "width": 2}, name=ROWS[exposure], legendgroup=exposure,
                showlegend=row == 1, row=row, col=1,
                hovertemplate=f"{name}, {ROWS[exposure]}<br>KL %{{customdata[0]:.3g}}, error %{{y:.2f}} of the mean<br>n = %{{customdata[1]:,}}<extra></extra>",
            )  # fmt: skip
        figure.update_yaxes(title_text=f"|error|, {name.replace('_', ' ')}", row=row, col=1)
    figure.update_xaxes(title_text="decile of uncertainty (KL), lowest first")
    return titled(
        figure,
        "Error by uncertainty",
        "mean |error| over that of all rows; flat: the uncertainty knows nothing",
    )


def _exposure(results: pl.DataFrame, responses: Sequence[str]) -> go.Figure:
    """Squared error by the video's decile of exposure, a panel per response; dotted: of the train mean."""
    title = "Error by how often train shows the video"
    rows = results.filter(pl.col("cell").str.starts_with("decile"), experiment="MM-04")
    metric = "true_mse" if rows.filter(metric="true_mse")["value"].count() else "mse"
    rows = rows.filter(pl.col("value").is_not_null(), metric=metric)
    shown = [name for name in responses if name in rows["group"]]
    if not shown:
        return nothing(title)
    place = pl.when(IS_RANDOM).then(pl.lit("random")).otherwise(pl.lit("standard"))
    rows = rows.with_columns(exposure=place, decile=pl.col("cell").str.extract(r"(\d+)").cast(pl.Int64))  # fmt: skip
    figure = facets([170] * len(shown))
    for row, name in enumerate(shown, start=1):
        for exposure, colour in EXPOSURE_COLOURS.items():
            for variant, dash in ((MAIN, "solid"), ("train_mean", "dot")):
                own = rows.filter(group=name, exposure=exposure, variant=variant).sort("decile")
                bars = error_bar(own) if variant == MAIN else None
                figure.add_scatter(
                    x=own["decile"], y=own["value"], customdata=own["n"], mode="lines+markers" if variant == MAIN else "lines",
                    marker={"size": 5, "opacity": opacity(own)}, line={"color": colour, "width": 2 if variant == MAIN else 1, "dash": dash}, error_y=bars,
                    name=f"{ROWS[exposure]}{'' if variant == MAIN else ', train mean'}", legendgroup=f"{exposure}{variant}", showlegend=row == 1, row=row, col=1,
                    hovertemplate=f"{name}, {ROWS[exposure]}<br>decile %{{x}}: %{{y:.4g}}<br>n = %{{customdata:,}}<extra></extra>",
                )  # fmt: skip
        figure.update_yaxes(title_text=name.replace("_", " "), rangemode="tozero", row=row, col=1)
    figure.update_xaxes(title_text="decile of the video's train exposures, least first", dtick=1)
    what = "squared distance to the true expectation" if metric == "true_mse" else "squared error"
    return titled(
        figure, title, f"{what}, in squared units of the response; 95 % user-cluster intervals"
    )


def _rewards(results: pl.DataFrame, headline: str) -> go.Figure:
    title = f"Simulated reward of {headline.replace('_', ' ')} by form of Eq. 6"
    rows = results.filter(experiment="MM-07", metric="reward_bias", group=headline)
    rows = (
        rows.filter(IS_RANDOM)
        if rows.filter(IS_RANDOM)["value"].count()
        else rows.filter(~IS_RANDOM)
    )
    if not rows["value"].count():
        return nothing(title)
    return figures.cell_intervals(rows, title, "mean of r̂ − r, train sds", zero=True)


def _studies(results: pl.DataFrame, headline: str) -> go.Figure:
    """Differences of every cell from the run's own simulator."""
    rows = results.filter(
        ~VALUES, ~IS_RANDOM, pl.col("cell") != "main", experiment="MM-03", group=headline
    )
    rows = rows.filter(pl.col("metric").is_in(ORDER))
    if not rows["value"].count():
        return nothing("Variants")
    shown = rows.with_columns(cell=_words("cell"))
    return figures.cell_intervals(
        shown,
        f"Variants, {headline.replace('_', ' ')}",
        "GAUC or GXAUC minus that of the run's own simulator",
        zero=True,
    )


def _words(column: str) -> pl.Expr:
    return pl.col(column).str.replace_all("_", " ")


def write(
    results: pl.DataFrame,
    impression_report: dict[str, Any],
    ingestion_report: dict[str, Any],
    split_cuts: dict[str, Any],
    studies: StudyOptions,
    evaluation: EvaluationOptions,
    command: str,
    model: ModelCheckpoint,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    is_world = first["data_kind"] == "world"
    main = results.filter(experiment="MM-03", cell="main")
    standard, random = main.filter(~IS_RANDOM), main.filter(IS_RANDOM)
    where = "a generated world" if is_world else f"real {first['source']} rows"
    has_truth = bool(main.filter(metric="true_mse")["value"].count())
    sections = [
        Section("Does it answer as users do? (MM-03)", _headline_text(is_world), facts=_facts(main, evaluation), figures=[figure["ranking"]],
                tables=[results_table(standard, "Rows that the logging policy chose"), results_table(random, "Random exposures at the same times")]),
        Section("Against the train mean", _CONSTANT,
                tables=[differences_table(standard, "Simulator minus train mean, standard rows"), differences_table(random, "Simulator minus train mean, random rows")]),
        Section("Is it calibrated?", _CALIBRATION, figures=[figure["calibration"]]),
        Section("Does it know where it errs?", _UNCERTAINTY, figures=[figure["uncertainty"], figure["error"]]),
        *([Section("Against the planted truth", _TRUTH, figures=[figure["truth"]])] if has_truth else []),
        Section("Where the log hardly looks (MM-04)", _EXPOSURE, figures=[figure["exposure"]],
                tables=[_decile_table(results, evaluation.headline), results_table(results.filter(experiment="MM-04", cell="main").filter(IS_RANDOM), "Spearman of train exposures and |error|, random rows")]),
        Section("From answers to rewards (Eq. 6, MM-07)", _REWARDS, figures=[figure["rewards"]], tables=[_reward_table(results, evaluation.responses)]),
        Section("Variants", _study_text(studies), figures=[figure["studies"]], tables=_study_tables(results, evaluation.responses)),
        Section("How it learnt", _learning_text(model), figures=[figure["learning_curves"]]),
        Section("From raw files to impressions", _left_text(impression_report), figures=[figure["ingestion_steps"]],
                tables=[_split_table(impression_report), files_table(ingestion_report)]),
    ]  # fmt: skip
    return render_page(
        f"Feedback simulator on {first['source']}",
        f"What users would have answered, learnt from impressions of {where}, split by time ({split_cuts['rule']}).",
        sections,
        origin(results, command),
        "world" if is_world else "real",
    )


_CONSTANT = "The train mean is the forecast of somebody who knows no user and no video. MSE is in squared units of the response: watch time in s², winsorised."
_CALIBRATION = (
    "The heads learn by squared error, so their outputs are no probabilities; monotone maps fitted on validation rows make them such. On random rows the maps "
    "meet videos that the logging policy would not have chosen: what is off there is selection, which validation rows cannot show."
)
_UNCERTAINTY = (
    "KL is the squared disagreement of the two predictors over twice the residual variance. Rows in tenths by KL: if the uncertainty is worth anything, errors grow "
    "from left to right. The |error| of a rare yes-or-no answer is mostly its predicted rate, so a correlation there can come from the rate alone; "
    "in a world the distance to the true expectation has no such part (kl_true_error_spearman)."
)
_TRUTH = "A world knows the probability of each answer and the expected watch time. “Planted truth” in the tables above is the forecast that knows them, and what it scores is the most that can be had. true_mse is the squared distance to it, free of the noise of single answers; watch time's expectation is not winsorised."
_EXPOSURE = (
    "Videos in tenths by how often train shows them. The policy that logged chose what is shown, and so what can be learnt (sample selection bias): if that matters, errors on random rows are larger on the left, "
    "and a negative correlation of exposures and |error| says so in one number. Standard rows of little shown videos are those that the policy still preferred to something else, so random rows are "
    "the fair judge. The train mean, which has no selection to suffer from, is dotted. What this does to the lists of policies (coverage, Gini, entropy of the best six) is MM-04 of pipeline mmrf."
)
_REWARDS = (
    "Eq. 6 adds a bonus for uncertainty to the predicted reward, in a form that the paper's text at hand lacks. Here r̂ is held against the rewards of test rows "
    "whose answers are known: any bonus is a bias by design, and the table says how large. Whether it helps a policy explore is MM-07 of pipeline mmrf, and noise or bias added to r̂ is MM-09 there."
)


def _headline_text(is_world: bool) -> str:
    text = (
        "A recurrent network reads what a user was shown and how it was answered, and predicts seven responses to any video. Test rows come after all train and validation rows. "
        "“Standard” rows were chosen by the logging policy, like those it learnt from; “random” ones were drawn uniformly from the pool and are what a non-impression resembles."
    )
    text += (
        "\n\nEach prediction knows the user's answers before it. GAUC compares a user's rows at different times, and a rare answer raises the predictions that follow it: with one like "
        "among a user's rows, the later rows outrank the row that was liked. So GAUC of rare responses can lie below 0.5 for a simulator that is right; AUC and MSE, mostly between users, hardly feel it."
    )
    if is_world:
        text += "\n\nThese numbers come from generated data and say nothing about real users."
    return text


def _facts(main: pl.DataFrame, evaluation: EvaluationOptions) -> list[Fact]:
    order = main.filter(VALUES, pl.col("metric").is_in(ORDER), group=evaluation.headline)
    facts = []
    for row in order.iter_rows(named=True):
        place = ROWS["random" if row["split"].endswith("random") else "standard"]
        interval = (
            "no interval"
            if row["ci_low"] is None
            else f"[{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        )
        value = "–" if row["value"] is None else f"{row['value']:.4f}"
        mark = "" if row["reliable"] else " †"
        name = f"{row['metric'].upper()} of {row['group'].replace('_', ' ')}, {place}{mark}"
        facts.append(Fact(name, value, f"{interval}, n = {row['n']:,}"))
    return facts


def _decile_table(results: pl.DataFrame, headline: str) -> Table:
    """Exposures and errors of the headline response on random rows, by decile."""
    rows = results.filter(pl.col("cell").str.starts_with("decile"), experiment="MM-04").filter(
        IS_RANDOM
    )
    body: list[list[object]] = []
    for part in rows.partition_by("cell", maintain_order=True):
        shown = part.row(by_predicate=pl.col("metric") == "train_exposures", named=True)
        own = {(r["variant"], r["metric"]): r for r in part.filter(group=headline).iter_rows(named=True)}  # fmt: skip
        cells = [_plain(own.get((v, m))) for v, m in _DECILE_COLUMNS]
        n = own[MAIN, "mse"]["n"] if (MAIN, "mse") in own else 0
        body.append(
            [part["cell"][0].removeprefix("decile "), shown["n"], shown["value"], n, *cells]
        )
    columns = ["decile", "videos", "exposures of a video", "random rows", "bias", "MSE", "MSE to the truth", "the train mean's"]  # fmt: skip
    return plain_table(f"{headline.replace('_', ' ')} by exposure, random rows", columns, body)


_DECILE_COLUMNS = ((MAIN, "bias"), (MAIN, "mse"), (MAIN, "true_mse"), ("train_mean", "true_mse"))


def _plain(row: dict[str, Any] | None) -> Cell:
    """A value with its interval, without a sign."""
    if row is None or row["value"] is None:
        return Cell("–", muted=True)
    low, high = row["ci_low"], row["ci_high"]
    detail = "no interval" if low is None else f"[{low:.4g}, {high:.4g}]"
    return Cell(f"{row['value']:.4g}", detail, float(row["value"]), muted=not row["reliable"])


def _reward_table(results: pl.DataFrame, responses: Sequence[str]) -> Table:
    rows = results.filter(~IS_RANDOM, experiment="MM-07", metric="reward_bias")
    value = {(r["cell"], r["group"]): r["value"] for r in rows.iter_rows(named=True)}
    cells = rows["cell"].unique(maintain_order=True).to_list()
    body: list[list[object]] = [
        [cell, *(value.get((cell, name)) for name in responses)] for cell in cells
    ]
    return plain_table(
        "Mean of r̂ − r on standard rows, train sds", ["form", *(n.replace("_", " ") for n in responses)], body
    )  # fmt: skip


def _study_text(studies: StudyOptions) -> str:
    off = [name for name in studies.cells if name not in studies.run]
    text = "Each cell is a simulator fitted anew with some options changed, and compared on the same rows with the run's own."
    return text + (f" Described in the parameters and not run: {', '.join(off)}." if off else "")


def _study_tables(results: pl.DataFrame, responses: Sequence[str]) -> list[Table]:
    """Each cell's difference in order and in what the uncertainty knows, by response."""
    rows = results.filter(~VALUES, ~IS_RANDOM, pl.col("cell") != "main", experiment="MM-03")
    tables = []
    for metrics, caption in ((ORDER, "GAUC (watch time: GXAUC) minus the run's own"), (["kl_error_spearman"], "Spearman of KL and |error| minus the run's own")):  # fmt: skip
        own = rows.filter(pl.col("metric").is_in(metrics))
        found = {(r["cell"], r["group"]): r for r in own.iter_rows(named=True)}
        body: list[list[object]] = []
        for cell in own["cell"].unique(maintain_order=True).to_list():
            body.append(
                [cell.replace("_", " "), *(_interval(found.get((cell, n))) for n in responses)]
            )
        if body:
            header = ["variant", *(n.replace("_", " ") for n in responses)]
            tables.append(plain_table(f"{caption}, standard rows", header, body))
    return tables


def _interval(row: dict[str, Any] | None) -> Cell:
    if row is None or row["value"] is None:
        return Cell("–", muted=True)
    low, high = row["ci_low"], row["ci_high"]
    detail = "no interval" if low is None else f"[{low:+.4f}, {high:+.4f}]"
    return Cell(f"{row['value']:+.4f}", detail, float(row["value"]), muted=not row["reliable"])


def _learning_text(model: ModelCheckpoint) -> str:
    config = model.config
    share, outside = config["fold"]["share"], config["fold"]["complement"]
    users = "all users" if share == 1 else f"{1 - share if outside else share:.0%} of the users"
    return (
        f"{config['parameters']:,} parameters, learnt from the train impressions of {users}; epoch {config['best_epoch']} had the lowest loss on "
        "validation rows and is kept. Random exposures are read as history and never learnt."
    )


def _left_text(report: dict[str, Any]) -> str:
    return (
        f"{report['rows']:,} rows. {report['repeated_rows']:,} rows repeat an item of their request and are read as history only; "
        f"{report['standard_rows_of_random_requests']:,} standard rows share a request with a random one and count as random."
    )


def _split_table(report: dict[str, Any]) -> Table:
    rows = [
        [part["split"] or "none: history only", "random" if part["is_rand"] else "standard", part["rows"], part["users"], part["items"]]
        for part in report["splits"]
    ]  # fmt: skip
    return plain_table("Rows by split", ["split", "exposure", "rows", "users", "items"], rows)
