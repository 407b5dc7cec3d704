"""The figures and the page of a study: what was searched, what it found, and how far that may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.evaluation.verdicts import confirmed_gain
from reelrank.pipelines.tuning.nodes import (
    COMPLETE,
    FAILED,
    PRUNED,
    best_trial,
    task_of,
)
from reelrank.pipelines.tuning.options import Choices, TuningParameters
from reelrank.pipelines.tuning.study import DEFAULTS, shown
from reelrank.pipelines.tuning.task import Task
from reelrank.provenance import code_version, config_hash
from reelrank.reports import theme
from reelrank.reports.page import Fact, Section, Table, plain_table, render_page
from reelrank.reports.panels import LINE, count, facets, faded, nothing, titled

FIGURES = ("history", "curves", "importance", "slices")
PANEL = 220  # pixels
STYLES = {
    "defaults": ("defaults", "#c7833b", "diamond"),
    COMPLETE: ("trained to its end", theme.ACCENT, "circle"),
    PRUNED: ("given up early", theme.NEUTRAL, "circle-open"),
}


def draw(
    trials: pl.DataFrame,
    importance: pl.DataFrame,
    tuning: TuningParameters,
    system: str,
    parameters: dict[str, Any],
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    task = task_of(tuning, system, parameters)
    return _history(trials, task), _curves(trials, task), _importance(importance), _slices(trials, task)  # fmt: skip


def write(
    trials: pl.DataFrame,
    confirmed: pl.DataFrame,
    tuning: TuningParameters,
    system: str,
    parameters: dict[str, Any],
    **drawn: go.Figure,
) -> str:
    """The page."""
    task = task_of(tuning, system, parameters)
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    top = best_trial(trials)
    sections = [
        Section(
            "What was found", _found(trials, confirmed, task, tuning),
            facts=_facts(trials, confirmed, task),
            tables=[_values(task, top), *_confirmed(confirmed, task)],
        ),
        Section(
            "How the search went",
            "Each point is one training. A training that is worse than most others at the same epoch is given up; its point is the best epoch that it reached.",
            figures=[figure["history"], figure["curves"]],
        ),
        Section(
            "Which parameters matter",
            "Importance is the share of the metric's variation among finished trials that a parameter explains (PED-ANOVA); with few trials it is a rough guide. "
            "A slice shows every trial along one parameter, whatever the others were: look for a trend, not for the single best point.",
            figures=[figure["importance"], figure["slices"]],
        ),
        Section("All trials", tables=[_all(trials, task)]),
        Section("Use it", _use(task)),
    ]  # fmt: skip
    return render_page(
        f"Tuning of {system}",
        f"{task.options.metric} on the validation part; {count(trials.height, 'trial')} of {task.node}.",
        [s for s in sections if s.tables or s.figures or s.text],
        {
            "study": f"{task.study} in {shown(tuning.storage)}",
            "code version": code_version(),
            "config hash": config_hash(task.options, task.tree),
            "command": f"kedro run --pipelines tuning --params system={system} --env {tuning.environment}",
        },
        task.data_kind,
    )


def _found(
    trials: pl.DataFrame, confirmed: pl.DataFrame, task: Task, tuning: TuningParameters
) -> str:
    """What the search says about the defaults, in plain words."""
    top, default = best_trial(trials), _default(trials)
    n = trials.height
    if top["origin"] == DEFAULTS:
        said = f"None of {count(n, 'trial')} was better than the defaults ({task.options.metric} {top['value']:.4g}): they stay."
    elif default is None:
        said = f"The best of {count(n, 'trial')} has {task.options.metric} {top['value']:.4g}. The defaults were not trained to their end, so nothing is said about them."
    else:
        gain = top["value"] - default
        said = f"The best of {count(n, 'trial')} has {task.options.metric} {top['value']:.4g}, {_signed(gain)} against the defaults' {default:.4g}."
        said += " It is the largest of many noisy values, so part of that gain is luck."
    if not confirmed.is_empty():
        differences = confirmed["best"] - confirmed["defaults"]
        better = int((differences > 0).sum())
        mean = float(differences.to_numpy().mean())
        verdict = confirmed_gain(differences)
        said += (
            f"\n\n{verdict} Trained again with {count(confirmed.height, 'seed')} by which nothing was chosen, the best trial is better than the "
            f"defaults with {better} of {confirmed.height}, on the mean by {_signed(mean)}."
        )
    return (
        said
        + f"\n\nOnly validation rows were looked at (rule L9), with training seed {tuning.training_seed}; "
        + "evaluation has seeds 0 to 4. What the tuned model is worth on test, the system's own report says."
    )


def _facts(trials: pl.DataFrame, confirmed: pl.DataFrame, task: Task) -> list[Fact]:
    top, default = best_trial(trials), _default(trials)
    states = {state: trials.filter(state=state).height for state in (COMPLETE, PRUNED, FAILED)}
    said = [f"{n} {state}" for state, n in states.items() if n]
    hours = (trials["seconds"].sum() or 0.0) / 60
    facts = [
        Fact("best", f"{top['value']:.4f}", f"trial {top['trial']}, {task.options.metric}"),
        Fact("defaults", "–" if default is None else f"{default:.4f}", "same seed"),
        Fact("trials", str(trials.height), ", ".join(said)),
        Fact("time of trainings", f"{hours:.1f} min", "all workers together"),
    ]
    if not confirmed.is_empty():
        mean = float((confirmed["best"] - confirmed["defaults"]).to_numpy().mean())
        facts.insert(2, Fact("gain on other seeds", f"{_signed(mean)}", f"mean of {confirmed.height}, validation"))  # fmt: skip
    return facts


def _values(task: Task, top: Mapping[str, Any]) -> Table:
    present = task.defaults()
    rows = [
        [path, present[path], top[path], "–" if present[path] == top[path] else "changed"]
        for path in task.space
    ]
    return plain_table(
        "Best trial against the defaults", ["parameter", "default", "best", ""], rows
    )


def _confirmed(confirmed: pl.DataFrame, task: Task) -> list[Table]:
    if confirmed.is_empty():
        return []
    rows = [[str(s), d, b, b - d] for s, d, b in confirmed.iter_rows()]
    return [
        plain_table(
            f"{task.options.metric} on validation with other training seeds",
            ["seed", "defaults", "best", "difference"],
            rows,
        )
    ]


def _all(trials: pl.DataFrame, task: Task) -> Table:
    names = _short(task)
    order = trials.sort("value", descending=True, nulls_last=True)
    rows = [
        [
            row["trial"],
            _state(row),
            row["value"],
            len(row["curve"]),
            row["seconds"],
            *(row[path] for path in task.space),
        ]
        for row in order.iter_rows(named=True)
    ]
    columns = ["trial", "state", "value", "epochs", "seconds", *names.values()]
    return plain_table("All trials, best first", columns, rows)


def _use(task: Task) -> str:
    return (
        f"The best values lie in the folder of the study, 08_reporting/tuning/…/{task.system}. One run with them: kedro run --config …/best_run.yml "
        "(and --env real for another environment). For every run without --env: copy best.yml into conf/local/parameters/."
    )


def _history(trials: pl.DataFrame, task: Task) -> go.Figure:
    valued = trials.filter(pl.col("value").is_not_null()).sort("trial")
    figure = facets([PANEL])
    for kind, (name, colour, symbol) in STYLES.items():
        own = _styled(valued, kind)
        if own.is_empty():
            continue
        figure.add_scatter(
            x=own["trial"], y=own["value"], mode="markers", name=name,
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="trial %{x}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    ended = valued.filter(state=COMPLETE)
    figure.add_scatter(
        x=ended["trial"], y=ended["value"].cum_max(), mode="lines", name="best so far",
        line={"color": theme.ACCENT, "width": 1.5, "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_xaxes(title_text="trial", **_whole(trials["trial"].max()))
    figure.update_yaxes(title_text=f"validation {task.options.metric}")
    return titled(figure, "Value of every trial", f"{count(valued.height, 'trial')}, one training each")  # fmt: skip


def _curves(trials: pl.DataFrame, task: Task) -> go.Figure:
    drawn = trials.filter(pl.col("curve").list.len() > 0).sort("trial")
    if drawn.is_empty():
        return nothing("Validation by epoch", "no trial has an epoch of its own")
    top = best_trial(trials)["trial"]
    figure = facets([PANEL])
    for row in drawn.sort(pl.col("trial") == top).iter_rows(named=True):
        kind = "defaults" if row["origin"] == DEFAULTS else row["state"]
        colour = STYLES.get(kind, STYLES[PRUNED])[1]
        heavy = row["trial"] == top or kind == "defaults"
        figure.add_scatter(
            x=list(range(1, len(row["curve"]) + 1)), y=row["curve"], mode="lines+markers" if heavy else "lines",
            line={"color": colour if heavy else faded(colour, 0.45), "width": 2.5 if heavy else 1},
            name="best" if row["trial"] == top else "defaults", showlegend=heavy,
            hovertemplate=f"trial {row['trial']}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="epoch", **_whole(drawn["curve"].list.len().max()))
    figure.update_yaxes(title_text=f"validation {task.options.metric}")
    return titled(
        figure,
        "Validation by epoch",
        f"{count(drawn.height, 'trial')}; grey lines were given up early",
    )


def _importance(importance: pl.DataFrame) -> go.Figure:
    title = "Importance of the parameters"
    if importance.is_empty():
        return nothing(title, "too few finished trials differ")
    figure = facets([LINE * importance.height])
    figure.add_bar(
        x=importance["importance"], y=importance["parameter"], orientation="h",
        marker={"color": theme.ACCENT}, showlegend=False, hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="share of explained variation", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return titled(figure, title, "finished trials; the shares add up to 1")


def _slices(trials: pl.DataFrame, task: Task) -> go.Figure:
    valued = trials.filter(pl.col("value").is_not_null())
    figure = facets([130] * len(task.space))
    for index, (path, given) in enumerate(task.space.items(), start=1):
        for kind, (name, colour, symbol) in STYLES.items():
            own = _styled(valued, kind)
            if own.is_empty():
                continue
            x = own[path].cast(pl.String) if isinstance(given, Choices) else own[path]
            figure.add_scatter(
                x=x, y=own["value"], mode="markers", name=name, legendgroup=kind, showlegend=index == 1,
                marker={"color": colour, "symbol": symbol, "size": 8}, customdata=own["trial"],
                hovertemplate="trial %{customdata}<br>%{x}: %{y:.4g}<extra></extra>", row=index, col=1,
            )  # fmt: skip
        scale = "category" if isinstance(given, Choices) else "log" if given.log else "linear"
        figure.update_xaxes(title_text=path, type=scale, row=index, col=1)
        if scale == "log":
            figure.update_xaxes(nticks=5, exponentformat="power", row=index, col=1)
        figure.update_yaxes(title_text="value", nticks=4, row=index, col=1)
    return titled(figure, "Trials along each parameter", f"validation {task.options.metric}; {count(valued.height, 'trial')}")  # fmt: skip


def _whole(last: Any) -> dict[str, Any]:  # noqa: ANN401 (a number of a frame)
    """Ticks of an axis that counts."""
    return {"rangemode": "tozero", "tickformat": "d", "dtick": max(1, int(last) // 10)}


def _styled(trials: pl.DataFrame, kind: str) -> pl.DataFrame:
    is_default = pl.col("origin").eq_missing(DEFAULTS)
    if kind == "defaults":
        return trials.filter(is_default)
    return trials.filter(~is_default, state=kind)


def _default(trials: pl.DataFrame) -> float | None:
    """The defaults' value, if they were trained to their end."""
    own = trials.filter(state=COMPLETE, origin=DEFAULTS)
    return None if own.is_empty() else float(own["value"][0])


def _state(row: Mapping[str, Any]) -> str:
    state = f"{row['state']}, defaults" if row["origin"] == DEFAULTS else str(row["state"])
    return state if row["same_as"] is None else f"{state}, as trial {row['same_as']}"


def _short(task: Task) -> dict[str, str]:
    """Paths by their last parts, as many as tell them apart."""
    names = {path: path.rpartition(".")[2] for path in task.space}
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {
        path: ".".join(path.split(".")[-2:]) if name in twice else name
        for path, name in names.items()
    }


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
