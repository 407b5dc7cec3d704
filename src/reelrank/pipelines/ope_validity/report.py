"""The figures and the page of the validity studies: whose intervals hold, and which estimator must not be used where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import plotly.graph_objects as go
import polars as pl

from reelrank.pipelines.ope_validity.matrix import MIN_OBSERVED
from reelrank.pipelines.ope_validity.repetitions import (
    ESTIMATED,
    GREEDY,
    TRUE,
    coverage_bounds,
)
from reelrank.reports import theme
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.panels import facets, faded, titled

FIGURES = ("coverage", "bias", "rmse", "estimated", "reliability", "matrix")
DRAWN = (
    "snipw",
    "dr",
    "ipw",
    "ncis",
    "switch-dr",
    "dm",
    "mips",
)  # of twelve: more would not be read
JUDGED = ("snipw", "dr")  # issue 4: their intervals must hold
COLOURS = dict(zip(DRAWN, (theme.ACCENT, "#c7833b", "#5a9a76", "#7d6cb3", "#c0637b", theme.NEUTRAL, "#3f97a3"), strict=True))  # fmt: skip
PANEL = 150  # pixels


def draw(results: pl.DataFrame) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    bandit, matrix = (_repeated(results, name) for name in ("OP-02", "OP-03"))
    true = bandit.filter(cell=TRUE)
    return (
        _coverage(true, "Coverage of 95 % intervals, propensities known", "OP-02"),
        _lines(true, "bias", "Bias against the size of the log", "mean error (reward)", zero=True),
        _lines(true, "rmse", "Error against the size of the log", "RMSE (reward)"),
        _coverage(bandit.filter(cell=ESTIMATED), "Coverage of 95 % intervals, propensities estimated", "OP-02"),
        _reliability(bandit),
        _coverage(matrix.filter(cell=TRUE), "Coverage on KuaiRec's small matrix, propensities known", "OP-03"),
    )  # fmt: skip


def write(results: pl.DataFrame, command: str, **drawn: go.Figure) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    is_world = results["data_kind"].eq("world").any()
    sections = [
        _coverage_section(results, figure),
        _verdict_section(results, figure),
        _estimated_section(results, figure),
        Section(
            "OP-01: the logging policy itself",
            "Where π_e = π_b, ipw, snipw, sg-ipw and ncis return the mean of the log exactly, whether π_b is true or estimated. The model-based "
            "estimators need not.",
            tables=[_pivot(results, "OP-01", ["cell", "weighting"], "metric", "Distance from the on-policy mean")],
        ),
        _matrix_section(results, figure),
        _random_section(results),
        Section(
            "OP-05: the action in the state (L6)", _leak_text(results),
            tables=[_pivot(results, "OP-05", ["cell", "variant"], "metric", "π̂_b and SNIPW with and without the leak")],
        ),
        Section(
            "OP-06: propensities fitted on test or on train", _part_text(results),
            tables=[_pivot(results.filter(pl.col("metric").is_in(["kl_divergence", "bias", "rmse", "mean_weight"])), "OP-06",
                           ["cell", "variant", "weighting"], "metric", "Requests of the test part, both cross-fitted by user")],
        ),
        Section(
            "OP-07: caps and temperatures", _sweep_text(results),
            tables=[
                _pivot(_of(results, "OP-07", cell="cap").filter(variant="all policies"), "OP-07",
                       ["weighting", "group"], "metric", "Agreement of the estimated with the true order of policies, by cap"),
                _pivot(_of(results, "OP-07", cell="temperature").filter(variant="all policies"), "OP-07",
                       ["weighting", "group"], "metric", "The same by temperature, in equal-entropy temperatures"),
                _pivot(_of(results, "OP-07", cell="cap").filter(metric="value"), "OP-07",
                       ["weighting", "group"], "variant", "Mean estimate by cap"),
            ],
        ),
        Section(
            "OP-08: PieceNCIS against NCIS", _piece_text(results),
            tables=[_pivot(results, "OP-08", ["variant", "group", "weighting"], "metric", "Bias and RMSE at small caps, same logs")],
        ),
        Section(
            "OP-09: weighting and group of GAUC",
            _order_text(results, "OP-09", "the headline (users, weighted by impressions)"),
            tables=[
                _pivot(results.filter(metric="gauc"), "OP-09", ["group", "weighting"], "variant", "GAUC of long views, simple methods", interval=True),
                _pivot(results.filter(metric="groups_excluded"), "OP-09", ["group"], "variant", "Share of groups with one class, left out"),
                _pivot(results.filter(metric="rank_correlation"), "OP-09", ["group", "weighting"], "metric", "Order of the methods against the headline's"),
            ],
        ),
        Section(
            "OP-10: sampled against full ranking", _order_text(results, "OP-10", "full ranking"),
            tables=[
                _pivot(results.filter(pl.col("metric").str.starts_with("ndcg")), "OP-10", ["group"], "variant", "NDCG by protocol", interval=True),
                _pivot(results.filter(metric="rank_correlation"), "OP-10", ["group"], "metric", "Order of the methods against full ranking"),
            ],
        ),
        Section(
            "OP-11: what is owed to the length of videos",
            "A score that is only the video's length correlates perfectly with it; watch-time gain takes the length out. A method that is good at watch "
            "time and worth nothing in gain has learnt durations.",
            tables=[
                _pivot(_of(results, "OP-11", cell="panel"), "OP-11", ["variant"], "metric", "Duration-bias panel"),
                _pivot(_of(results, "OP-11", cell="by decile of duration"), "OP-11", ["group"], "variant", "GXAUC of watch time by decile of duration"),
            ],
        ),
    ]  # fmt: skip
    kind = "generated worlds, where every value is planted" if is_world else "real rows"
    return render_page(
        "Validity of the off-policy evaluation",
        f"OP-01 to OP-11 on {kind}.",
        [replace(part, tables=[table for table in part.tables if table.rows]) for part in sections],
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": " ".join(results["config_hash"].unique(maintain_order=True)),
            "command": command,
        },
        "world" if is_world else "real",
    )


def _coverage_section(results: pl.DataFrame, figure: dict[str, go.Figure]) -> Section:
    rows = _largest(_repeated(results, "OP-02").filter(cell=TRUE))
    if rows.is_empty():
        return Section("Do the intervals hold? (OP-02)", _NO_WORLD)
    facts, sentences = [], []
    n_repetitions = int(rows["n"][0])
    low, high = coverage_bounds(n_repetitions)
    for estimator in JUDGED:
        own = rows.filter(metric="ci_coverage", weighting=estimator).sort("value")
        worst = own.row(0, named=True)
        facts.append(
            Fact(
                f"{estimator}: coverage, worst policy", f"{worst['value']:.3f}",
                f"{worst['variant']}, n = {worst['size']:,}, {n_repetitions} logs",
            )
        )  # fmt: skip
        outside = own.filter(~pl.col("value").is_between(low, high))["variant"].to_list()
        sentences.append(
            f"{estimator}: coverage lies within the bounds for every policy."
            if not outside
            else f"{estimator}: coverage lies outside the bounds for {', '.join(outside)}."
        )
    text = (
        f"Users, contexts, actions and rewards are drawn anew {n_repetitions} times from the world's requests with the known π_b; the truth is the "
        "planted bandit value. Exact 95 % intervals would cover it in a share between "
        f"{low:.3f} and {high:.3f} (binomial, 99 %; grey band). At the largest log: {' '.join(sentences)}"
    )
    table = _pivot(rows.filter(metric="ci_coverage"), "OP-02", ["weighting"], "variant", f"Coverage at n = {rows['size'][0]:,}, propensities known")  # fmt: skip
    truth = _pivot(_of(results, "OP-02", cell="truth"), "OP-02", ["variant"], "metric", "Planted values of the policies")  # fmt: skip
    return Section("Do the intervals hold? (OP-02)", text, [figure["coverage"]], [table, truth], facts)  # fmt: skip


def _verdict_section(results: pl.DataFrame, figure: dict[str, go.Figure]) -> Section:
    rows = _largest(_repeated(results, "OP-02").filter(cell=TRUE))
    if rows.is_empty():
        return Section("Where must each estimator not be used?", _NO_WORLD)
    wide = _wide(rows)
    low, _ = coverage_bounds(int(rows["n"][0]))
    body = []
    for estimator in wide["weighting"].unique(maintain_order=True):
        own = wide.filter(weighting=estimator)
        failing = own.filter(pl.col("ci_coverage") < low)
        trusted = failing.filter(pl.col("reliable_share") >= 0.5)
        names = failing["variant"].to_list()
        verdict = (
            "holds for every policy tried" if not names
            else "for none of the policies tried" if len(names) == own.height
            else f"not for {', '.join(names)}"
        )  # fmt: skip
        worst = failing.sort("ci_coverage").row(0, named=True) if names else None
        body.append(
            [
                Cell(estimator, sort=estimator),
                verdict,
                ", ".join(trusted["variant"].to_list()) or "–",
                "–" if worst is None else f"{worst['bias']:+.3g} ({worst['variant']}, coverage {worst['ci_coverage']:.2f})",
            ]
        )  # fmt: skip
    table = plain_table(
        f"Intervals at n = {rows['size'][0]:,}, propensities known",
        ["estimator", "interval", "flagged reliable although it misses", "bias where worst"],
        body,
    )
    return Section(
        "Where must each estimator not be used?",
        "The flag of METHODS §7.3 looks at the weights alone. It tells when there are too few effective rows; it cannot see the bias of a cap, of shrinkage, of a "
        "reward model, or of categories in place of actions. Such an estimate may be called reliable and yet miss with every log: the third column."
        + _greedy_text(rows),
        [figure["bias"], figure["rmse"]],
        [table],
    )


def _greedy_text(rows: pl.DataFrame) -> str:
    """What became of the two estimators that may judge a deterministic policy (METHODS §7.2)."""
    found = _wide(rows.filter(variant=GREEDY))
    said = [
        f"{row['weighting']} covers in {row['ci_coverage']:.0%} of the logs (bias {row['bias']:+.3g}) and is flagged reliable in {row['reliable_share']:.0%}"
        for row in found.iter_rows(named=True)
    ]
    return f" For the greedy policy {'; '.join(said)}." if said else ""


def _estimated_section(results: pl.DataFrame, figure: dict[str, go.Figure]) -> Section:
    rows = _largest(_repeated(results, "OP-02").filter(cell=ESTIMATED))
    if rows.is_empty():
        return Section("With estimated propensities", _NO_WORLD)
    wide = _wide(rows).filter(pl.col("weighting").is_in(JUDGED))
    covered, flagged = (
        _number(wide["ci_coverage"].mean()),
        1 - _number(wide["reliable_share"].mean()),
    )
    every = _repeated(results, "OP-02").filter(
        pl.col("weighting").is_in(JUDGED), cell=ESTIMATED, metric="ci_coverage"
    )
    small = every.filter(pl.col("size") == pl.col("size").min())
    text = (
        "π̂_b is fitted once on what the log shows first, from what is known before the request; the interval does not know the error of π̂_b. "
        f"The intervals of snipw and dr cover in {_number(small['value'].mean()):.0%} of the logs of {small['size'][0]:,} rows and in {covered:.0%} of those of "
        f"{rows['size'][0]:,}, mean over policies: the interval shrinks and the bias stays. The flag says “not reliable” in {flagged:.0%} of the latter, because the mean "
        "weight leaves 1 ± 0.2. The shortfall is shown and not judged."
    )
    table = _pivot(
        rows.filter(pl.col("weighting").is_in(JUDGED), pl.col("metric").is_in(["ci_coverage", "bias", "mean_weight", "reliable_share", "missed_while_reliable"])),
        "OP-02", ["weighting", "variant"], "metric", f"snipw and dr at n = {rows['size'][0]:,}, propensities estimated",
    )  # fmt: skip
    return Section("With estimated propensities", text, [figure["estimated"], figure["reliability"]], [table])  # fmt: skip


def _matrix_section(results: pl.DataFrame, figure: dict[str, go.Figure]) -> Section:
    repeated = _repeated(results, "OP-03")
    if repeated.is_empty():
        return Section(
            "OP-03: a fully observed matrix",
            f"No rows: the files at hand hold less than {MIN_OBSERVED:.0%} of the small matrix's cells.",
        )
    tables = []
    for cell in (TRUE, ESTIMATED):
        rows = _largest(repeated.filter(cell=cell))
        for metric, name in (("relative_ee", "Mean |error| / value"), ("ci_coverage", "Coverage")):
            tables.append(_pivot(rows.filter(metric=metric), "OP-03", ["weighting"], "variant", f"{name} at n = {rows['size'][0]:,}, {cell}"))  # fmt: skip
    real = "world" if results.filter(experiment="OP-03")["data_kind"][0] == "world" else "release"
    return Section(
        "OP-03: a fully observed matrix",
        f"Every user of KuaiRec's small matrix (here of the {real}) has watched every video of it, so the value of any policy is a sum over cells. Logs are drawn by "
        "a known softmax. Rewards do not vary between two draws of one cell, so the users are all that is random beside the action.",
        [figure["matrix"]],
        tables,
    )


def _random_section(results: pl.DataFrame) -> Section:
    rows = results.filter(experiment="OP-04")
    agreement = rows.filter(cell="agreement", metric="rank_correlation")
    every = rows.filter(cell="agreement", metric="rank_correlation_all", weighting="snipw")
    parts = [
        f"{row['group']} {'undefined' if row['value'] is None else format(row['value'], '.2f')}"
        for row in every.filter(variant="random log × standard log").iter_rows(named=True)
    ]
    text = (
        "Policies that know items only are valued from the random log, whose propensities are 1/|pool|, and from the standard log of the same weeks, whose π_b is estimated "
        f"by train frequencies per tab. Spearman's correlation of snipw over all policies: {', '.join(parts)}. Only values that the flag calls reliable in both logs may be ranked; "
        "the number of such policies is n below, and below three no correlation is given."
    )
    wide = ["group", "weighting"]
    return Section(
        "OP-04: random log against standard log",
        text,
        tables=[
            _pivot(agreement, "OP-04", wide, "variant", "Rank correlation over policies that are reliable in both", count=True),
            _pivot(rows.filter(cell="agreement", metric="rank_correlation_all"), "OP-04", wide, "variant", "The same over all policies, for comparison"),
            *(
                _pivot(rows.filter(cell=cell, metric="snipw"), "OP-04", ["variant"], "group", f"snipw from the {cell}", interval=True)
                for cell in ("random log", "standard log")
            ),
        ],
    )  # fmt: skip


def _leak_text(results: pl.DataFrame) -> str:
    rows = results.filter(experiment="OP-05", variant="logging", metric="top1")
    if rows.is_empty():
        return _NO_WORLD
    top = {row["cell"]: row["value"] for row in rows.iter_rows(named=True)}
    clean, leaking = (top[c] for c in ("state before the action", "state holds the action"))
    return (
        f"With the chosen video's category in the state, π̂_b finds the action at the top in {leaking:.0%} of the rows instead of {clean:.0%}: its log loss looks excellent "
        "and its propensities mean nothing. The test for the leak is that the classifier is too good."
    )


def _part_text(results: pl.DataFrame) -> str:
    rows = results.filter(experiment="OP-06", metric="kl_divergence")
    if rows.is_empty():
        return _NO_WORLD
    found = {row["cell"]: row["value"] for row in rows.iter_rows(named=True)}
    better = min(found, key=lambda cell: found[cell])
    return (
        "Divergence of π̂_b from the true π_b on test requests, in nats: "
        + ", ".join(f"{value:.3f} {cell}" for cell, value in found.items())
        + f". {better.capitalize()} is closer; train has more rows, test has the same weeks."
    )


def _sweep_text(results: pl.DataFrame) -> str:
    rows = results.filter(experiment="OP-07", metric="same_order", cell="cap")
    if rows.is_empty():
        return _NO_WORLD
    changed = [
        f"{row['weighting']} at {row['group']} ({row['value']:.0%} of logs keep the true order)"
        for row in rows.iter_rows(named=True)
        if row["value"] < 0.9
    ]
    return (
        "Does the order of the policies change? "
        + ("It does not, whatever the cap." if not changed else "It does: " + "; ".join(changed) + ".")
        + " Values move with the cap even where the order stays."
    )  # fmt: skip


def _piece_text(results: pl.DataFrame) -> str:
    rows = results.filter(experiment="OP-08", metric="rmse")
    if rows.is_empty():
        return _NO_WORLD
    wide = rows.pivot(on="weighting", index=["variant", "group"], values="value")
    better = wide.filter(pl.col("piece-ncis") < pl.col("ncis")).height
    ratio = wide["piece-ncis"] / wide["ncis"]
    return (
        f"PieceNCIS has the smaller RMSE in {better} of {wide.height} cells (policy × cap); its RMSE is {_number(ratio.min()):.2f} to {_number(ratio.max()):.2f} times that of NCIS."
    )  # fmt: skip


def _order_text(results: pl.DataFrame, experiment: str, headline: str) -> str:
    rows = results.filter(experiment=experiment, metric="rank_correlation").drop_nulls("value")
    changed = [
        " ".join(filter(None, (row["group"], row["weighting"] if experiment == "OP-09" else "")))
        + f" ({row['value']:.2f})"
        for row in rows.iter_rows(named=True)
        if row["value"] < 1 - 1e-9
    ]
    if not changed:
        return f"The methods stand in the same order as by {headline} everywhere."
    return (
        f"Rank correlation with {headline} falls below 1 for: {', '.join(changed)}. "
        "Methods whose intervals overlap may change places by chance."
    )


_NO_WORLD = "This study needs planted values: it runs on generated worlds only."


def _of(results: pl.DataFrame, experiment: str, cell: str) -> pl.DataFrame:
    return results.filter(experiment=experiment, cell=cell)


def _repeated(results: pl.DataFrame, experiment: str) -> pl.DataFrame:
    """Rows of the repetitions, with the log's size."""
    rows = results.filter(pl.col("experiment") == experiment, pl.col("group").str.starts_with("n="))
    return rows.with_columns(size=pl.col("group").str.strip_prefix("n=").cast(pl.Int64))


def _largest(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("size") == pl.col("size").max())


def _wide(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per policy and estimator, a column per metric."""
    return rows.pivot(on="metric", index=["variant", "weighting"], values="value")


def _number(value: object) -> float:
    return float(str(value))


def _pivot(
    rows: pl.DataFrame,
    experiment: str,
    index: Sequence[str],
    on: str,
    caption: str,
    *,
    interval: bool = False,
    count: bool = False,
) -> Table:
    """Values of one experiment as a table; unreliable ones grey with †."""
    own = rows.filter(experiment=experiment)
    columns = own[on].unique(maintain_order=True).to_list()
    body = []
    for key, part in own.group_by(index, maintain_order=True):
        by_column = {row[on]: row for row in part.iter_rows(named=True)}
        body.append(
            [*(Cell(str(k), sort=str(k)) for k in key), *(_cell(by_column.get(c), interval, count) for c in columns)]
        )  # fmt: skip
    names = {"weighting": "estimator", "variant": "policy", "group": "of", "cell": "case"}
    if experiment in {"OP-09", "OP-10", "OP-11"}:
        names |= {"weighting": "weighting", "variant": "method"}
    note = "† not reliable" if own.height and not own["reliable"].all() else ""
    return Table(caption, [*(names.get(i, i) for i in index), *columns], body, note)


def _cell(row: dict[str, object] | None, interval: bool, count: bool) -> Cell:
    if row is None or row["value"] is None:
        return Cell("–", f"n = {row['n']:,}" if count and row is not None else "", muted=True)
    value, reliable = _number(row["value"]), bool(row["reliable"])
    detail = ""
    if interval and row["ci_low"] is not None:
        detail = f"[{_number(row['ci_low']):.4g}, {_number(row['ci_high']):.4g}]"
    if count:
        detail = f"n = {row['n']:,}"
    return Cell(f"{value:.4g}" + ("" if reliable else " †"), detail, value, muted=not reliable)


def _panels(rows: pl.DataFrame) -> tuple[go.Figure, list[str]]:
    policies = rows["variant"].unique(maintain_order=True).to_list()
    return facets([PANEL] * max(len(policies), 1)), policies


def _coverage(rows: pl.DataFrame, title: str, experiment: str) -> go.Figure:
    """Coverage against n, a panel per policy; the band is what exact intervals allow."""
    own = rows.filter(metric="ci_coverage")
    if own.is_empty():
        return _nothing(title)
    figure, policies = _panels(own)
    low, high = coverage_bounds(int(own["n"].min()))  # type: ignore[arg-type]
    for index, policy in enumerate(policies, start=1):
        figure.add_hrect(y0=low, y1=high, fillcolor=faded(theme.NEUTRAL, 0.25), line_width=0, row=index, col=1)  # fmt: skip
        _add_lines(figure, own.filter(variant=policy), index, error=True)
        figure.update_yaxes(title_text=theme.variant_label(policy), range=[-0.05, 1.05], nticks=4, row=index, col=1)  # fmt: skip
    figure.update_xaxes(title_text="rows of the log", type="log")
    caption = (
        f"{experiment}: share of {int(own['n'].min()):,} logs whose interval holds the true value, by policy; "  # type: ignore[arg-type]
        f"band: binomial 99 % bounds of exact intervals, {low:.3f} to {high:.3f}; bars: 95 % of the share"
    )
    return titled(figure, title, caption)


def _lines(rows: pl.DataFrame, metric: str, title: str, axis: str, *, zero: bool = False) -> go.Figure:  # fmt: skip
    own = rows.filter(metric=metric)
    if own.is_empty():
        return _nothing(title)
    figure, policies = _panels(own)
    for index, policy in enumerate(policies, start=1):
        _add_lines(figure, own.filter(variant=policy), index)
        figure.update_yaxes(title_text=theme.variant_label(policy), nticks=4, row=index, col=1)
        if zero:
            figure.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1}, row=index, col=1)
        else:
            figure.update_yaxes(type="log", row=index, col=1)
    figure.update_xaxes(title_text="rows of the log", type="log")
    logs = int(own["n"].min())  # type: ignore[arg-type]
    return titled(figure, title, f"OP-02: {axis} over {logs:,} logs, by policy; propensities known")


def _add_lines(figure: go.Figure, rows: pl.DataFrame, index: int, *, error: bool = False) -> None:
    for estimator in DRAWN:
        part = rows.filter(weighting=estimator).sort("size")
        bars = {
            "array": part["ci_high"] - part["value"], "arrayminus": part["value"] - part["ci_low"],
            "thickness": 1, "width": 3,
        } if error else None  # fmt: skip
        figure.add_scatter(
            x=part["size"], y=part["value"], mode="lines+markers", name=estimator, legendgroup=estimator,
            showlegend=index == 1, line={"color": COLOURS[estimator], "width": 2}, marker={"size": 6}, error_y=bars,
            customdata=part["n"],
            hovertemplate=f"{estimator}<br>n = %{{x:,}}<br>%{{y:.4g}}, %{{customdata}} logs<extra></extra>",
            row=index, col=1,
        )  # fmt: skip


def _reliability(rows: pl.DataFrame) -> go.Figure:
    """What the flag said against what was true."""
    title = "What the flag says against what is true"
    wide = rows.pivot(on="metric", index=["variant", "weighting", "size", "cell"], values="value")
    if wide.is_empty():
        return _nothing(title)
    figure = facets([300])
    for cell, colour in ((TRUE, theme.ACCENT), (ESTIMATED, "#c7833b")):
        part = wide.filter(cell=cell)
        names = [f"{w}, {v}, n = {n:,}" for w, v, n in part.select("weighting", "variant", "size").iter_rows()]  # fmt: skip
        figure.add_scatter(
            x=part["reliable_share"], y=part["ci_coverage"], mode="markers", name=cell, customdata=names,
            marker={"color": faded(colour, 0.6), "size": 8},
            hovertemplate="%{customdata}<br>flagged reliable in %{x:.0%}<br>covered in %{y:.0%}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=0.95, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="share of logs flagged reliable", range=[-0.04, 1.04])
    figure.update_yaxes(title_text="coverage (dotted: 0.95)", range=[-0.05, 1.05])
    return titled(figure, title, f"OP-02: a dot per estimator, policy and size (n = {wide.height}); lower right: believed and wrong")  # fmt: skip


def _nothing(title: str) -> go.Figure:
    figure = facets([60])
    figure.add_annotation(text="no rows: needs a generated world", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")  # fmt: skip
    return titled(figure, title, "n = 0")
