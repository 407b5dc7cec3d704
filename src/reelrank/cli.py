"""``kedro reelrank``: what Kedro has no command for. List experiments, show results, compare two runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from kedro.framework.project import settings
from kedro.framework.startup import ProjectMetadata
from rich.markup import escape

if (
    TYPE_CHECKING
):  # Kedro reads this file before every command: tables are imported when they are shown
    import polars as pl

NEAR = 5
RESULTS = "{system}.results"
EXPERIMENTS = "experiments"
COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow", "not run": "dim"}
SHOWN = ("experiment", "cell", "variant", "metric", "group", "weighting", "value", "ci_low", "ci_high", "n", "reliable")  # fmt: skip


@dataclass(frozen=True)
class Project:
    """What the commands need of a project.

    Attributes:
        path: its folder.
        loader: of the configuration of an environment; it reads a kind of file when it is asked for.
    """

    path: Path
    loader: Any

    @classmethod
    def open(cls, path: Path, env: str | None, data_root: str | None) -> Project:
        """The configuration of an environment."""
        loader = settings.CONFIG_LOADER_CLASS(
            conf_source=str(path / settings.CONF_SOURCE),
            env=env,
            runtime_params={"data_root": data_root} if data_root else {},
            config_patterns={
                EXPERIMENTS: ["parameters/experiments*"]
            },  # all parameters take seconds
            **settings.CONFIG_LOADER_ARGS,
        )
        return cls(path, loader)

    @property
    def results(self) -> Path:
        """Folder of result rows."""
        return self.path / Path(self.loader["catalog"][RESULTS]["filepath"]).parent

    @property
    def experiments(self) -> dict[str, Any]:
        """Block ``experiments`` of the parameters."""
        return dict(self.loader[EXPERIMENTS]["experiments"])


@click.group(name="reelrank")
def cli() -> None:
    """Found by Kedro in a project's ``cli.py``; its commands stand beside Kedro's own."""


@cli.group()
def reelrank() -> None:
    """Experiments and result rows of reelrank."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON instead of a table."),
        click.option("--data-root", help="Folder of all outputs, where it is not the project's."),
        click.option("--env", "-e", help="Environment of conf/ (base, test, real, paper).",
                     shell_complete=lambda ctx, _, part: _items(_environments(_path(ctx)), part)),
    ):  # fmt: skip
        command = option(command)
    return command


def _families(ctx: click.Context, _: click.Parameter, part: str) -> list[CompletionItem]:
    return _items(("MT", "MM", "RU", "GV", "OP"), part)


def _names(ctx: click.Context, _: click.Parameter, part: str) -> list[CompletionItem]:
    """Systems and run ids that have rows."""
    from reelrank.evaluation import stored  # noqa: PLC0415 (see above)

    folder = _opened(ctx).results
    return _items([*stored.namespaces(folder), *stored.runs(folder)], part)


def _run_ids(ctx: click.Context, _: click.Parameter, part: str) -> list[CompletionItem]:
    from reelrank.evaluation import stored  # noqa: PLC0415 (see above)

    return _items(stored.runs(_opened(ctx).results), part)


@reelrank.command()
@click.option("--family", help="Only these: RU, or one id.", shell_complete=_families)
@_options
@click.pass_obj
def experiments(
    metadata: ProjectMetadata,
    family: str | None,
    env: str | None,
    data_root: str | None,
    as_json: bool,
) -> None:
    """List the experiments with what is asked and the verdict of the newest results."""
    from reelrank.evaluation import stored  # noqa: PLC0415 (see above)
    from reelrank.evaluation.verdicts import verdicts  # noqa: PLC0415
    from reelrank.pipelines.experiments.options import ExperimentsParameters  # noqa: PLC0415

    project = Project.open(metadata.project_path, env, data_root)
    registry = ExperimentsParameters.model_validate(project.experiments).registry
    if family is not None:
        wanted = family.upper().rstrip("*").rstrip("-")
        chosen = {name: e for name, e in registry.items() if name.startswith(wanted)}
        if not chosen:
            raise click.UsageError(
                f"no experiment is called {family}; {_nearest(wanted, registry)}"
            )
        registry = chosen
    pairs = [(name, system) for name, e in registry.items() for system in e.own_systems()]
    rows = stored.answering(stored.newest_rows(project.results), pairs)
    found = verdicts(rows, registry).filter("newest").drop("newest")
    if as_json:
        click.echo(json.dumps(found.to_dicts(), ensure_ascii=False, indent=1))
        return
    shown = found.select("experiment", "question", "verdict", "sentence")
    _print_table(("id", "question", "verdict", "what was found"), shown.rows(), "Experiments")


@reelrank.command()
@click.argument("name", metavar="SYSTEM|RUN_ID", shell_complete=_names)
@click.option("--experiment", help="Only rows of this experiment.")
@click.option("--metric", help="Only rows of this metric.")
@_options
@click.pass_obj
def show(
    metadata: ProjectMetadata,
    name: str,
    experiment: str | None,
    metric: str | None,
    env: str | None,
    data_root: str | None,
    as_json: bool,
) -> None:
    """Show the result rows of the newest run of a system, or of one run."""
    project = Project.open(metadata.project_path, env, data_root)
    rows = _rows_of(project, name)
    for column, value in (("experiment", experiment), ("metric", metric)):
        if value is None:
            continue
        known = rows[column].drop_nulls().unique().sort().to_list()
        if value not in known:
            raise click.UsageError(f"{name} has no row of {column} {value}; {_nearest(value, known)}")  # fmt: skip
        rows = rows.filter(**{column: value})
    if as_json:
        click.echo(json.dumps(rows.to_dicts(), ensure_ascii=False, indent=1))
        return
    first = rows.row(0, named=True)
    kind = "synthetic" if first["data_kind"] == "world" else "real rows"
    title = f"{first['namespace']}, run {first['run_id']}, code {first['code_version']} ({kind})"
    _print_rows(rows.select(*SHOWN, "paired_with"), title)


@reelrank.command()
@click.argument("run_a", shell_complete=_run_ids)
@click.argument("run_b", shell_complete=_run_ids)
@_options
@click.pass_obj
def compare(
    metadata: ProjectMetadata,
    run_a: str,
    run_b: str,
    env: str | None,
    data_root: str | None,
    as_json: bool,
) -> None:
    """Put the result rows of two runs side by side: RUN_B minus RUN_A."""
    from reelrank.evaluation import stored  # noqa: PLC0415 (see above)

    project = Project.open(metadata.project_path, env, data_root)
    a, b = _rows_of(project, run_a), _rows_of(project, run_b)
    joined = stored.compare(a, b)
    notes = _notes(a, b, joined, run_a, run_b)
    if as_json:
        click.echo(json.dumps({"a": run_a, "b": run_b, "notes": notes, "rows": joined.to_dicts()}, ensure_ascii=False, indent=1))  # fmt: skip
        return
    columns = ["experiment", "cell", "variant", "metric", "group", "weighting", "paired_with"]
    _print_rows(joined.select(*columns, "value_a", "value_b", "difference"), f"{run_b} minus {run_a}")  # fmt: skip
    for note in notes:
        click.secho(note, fg="yellow", err=True)


def _notes(
    a: pl.DataFrame, b: pl.DataFrame, joined: pl.DataFrame, run_a: str, run_b: str
) -> list[str]:
    """Why the two may differ by something else than chance."""
    import polars as pl  # noqa: PLC0415 (see above)

    from reelrank.evaluation import stored  # noqa: PLC0415

    notes = []
    both = pl.concat([a, b])
    for column, values in stored.distinct(both, ("code_version", "data_kind", "source")):
        notes.append(f"{column} differs: {', '.join(values)}")
    unlike = joined.filter(~pl.col("same_config").fill_null(True)).height
    if unlike:
        notes.append(f"config_hash differs in {unlike} of {joined.height} rows")
    for run, side in ((run_a, "b"), (run_b, "a")):
        alone = joined.filter(pl.col(f"code_version_{side}").is_null()).height
        if alone:
            notes.append(f"{alone} rows are of {run} alone")
    return notes


def _rows_of(project: Project, name: str) -> pl.DataFrame:
    """Rows of a run, or of the newest run of a system.

    Raises:
        click.UsageError: nothing is called so; what comes near is named.
    """
    from reelrank.evaluation import stored  # noqa: PLC0415 (see above)

    folder = project.results
    systems, runs = stored.namespaces(folder), stored.runs(folder)
    if not runs:
        raise click.UsageError(f"{folder} holds no result rows yet: run a pipeline first")
    if name in runs:
        return stored.read_rows(runs[name])
    if name in systems:
        return stored.newest_rows(folder, name)
    raise click.UsageError(f"no system or run is called {name}; {_nearest(name, [*systems, *runs])}")  # fmt: skip


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    like = get_close_matches(name, names, n=NEAR, cutoff=0.4) or names[:NEAR]
    return f"near it: {', '.join(like)}"


def _print_rows(rows: pl.DataFrame, title: str) -> None:
    """A table without its empty columns."""
    kept = [c for c in rows.columns if any(v not in {None, ""} for v in rows[c].unique())]
    _print_table(kept, rows.select(kept).rows(), title)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str) -> None:
    from rich.console import Console  # noqa: PLC0415 (see above)
    from rich.table import Table  # noqa: PLC0415

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(_text, row))
    Console().print(table)


def _text(value: object) -> str:
    if value is None:
        return ""
    word = f"{value:.4g}" if isinstance(value, float) else str(value)
    colour = COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else escape(word)


def _items(names: Iterable[str], part: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(part)]


def _environments(path: Path) -> list[str]:
    return sorted(folder.name for folder in (path / settings.CONF_SOURCE).iterdir() if folder.is_dir())  # fmt: skip


def _path(ctx: click.Context) -> Path:
    return ctx.obj.project_path if isinstance(ctx.obj, ProjectMetadata) else Path.cwd()


def _opened(ctx: click.Context) -> Project:
    """The project as far as the command line is typed."""
    given = ctx.params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Project.open(_path(ctx), given.get("env"), given.get("data_root"))
