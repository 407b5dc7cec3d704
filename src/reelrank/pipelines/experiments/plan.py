"""From ids to jobs: which cells answer a question, which run gives them, and whether that run was made already."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any

from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline

from reelrank.children import own_blocks
from reelrank.freshness import leaves
from reelrank.options import digest
from reelrank.pipelines.experiments.options import ExperimentOptions, StudyOptions
from reelrank.provenance import code_version

EVERYTHING = "all"
TABLES, DONE, PREPARED = "tables", "done.json", "prepared"
NEAR = 5  # ids named when one is unknown


def titled(cell: str, named: str | None) -> str:
    """A cell's name as it stands in the rows."""
    return cell if named is None else f"{named}, {cell}"


@dataclass(frozen=True)
class Cell:
    """One cell of an experiment: which of a job's result rows are its own.

    Attributes:
        experiment: id.
        name: of the cell.
        rows_of: experiment in the rows.
        only: cell in the rows; None: all of the experiment.
        named: put before the cell in the rows.
        minutes: guess of its time.
    """

    experiment: str
    name: str
    rows_of: str
    only: str | None
    named: str | None
    minutes: float

    @property
    def title(self) -> str:
        """Id and name."""
        return f"{self.experiment}.{self.name}"


@dataclass(frozen=True)
class Job:
    """One run of one node, with what it needs on disk.

    Attributes:
        name: folder of what it leaves.
        pipeline: registered pipeline.
        node: with its namespace.
        outputs: tables of result rows that it makes.
        inputs: stored tables that it loads, and that its pipeline makes.
        parameters: as its run and the one before it are given them.
        key: of everything that its rows depend on: parameters of the node and of all before it, and the code.
        cells: that its rows answer.
    """

    name: str
    pipeline: str
    node: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(repr=False)
    key: str
    cells: tuple[Cell, ...]

    def folder(self, root: Path) -> Path:
        """Where it leaves what it made; another configuration or code has another folder."""
        return root / self.name / self.key

    def finished(self, root: Path) -> bool:
        """Whether it was run to its end."""
        return (self.folder(root) / DONE).exists()


def chosen_ids(asked: str | Sequence[str], registry: Iterable[str]) -> list[str]:
    """Ids that are meant, in the order of the registry.

    Args:
        asked: ids, families such as ``MM-*`` or ``MM``, or ``all``; in one text they are parted by spaces, commas or +.
        registry: known ids.

    Raises:
        ValueError: an id is unknown; those that look like it are named.
    """
    known = list(registry)
    words = re.split(r"[\s,;+]+", asked) if isinstance(asked, str) else list(map(str, asked))
    found: set[str] = set()
    for given in filter(None, words):
        word = given.upper()
        own = [
            name
            for name in known
            if fnmatchcase(name, word) or name.startswith(f"{word}-") or given == EVERYTHING
        ]
        if not own:
            raise ValueError(f"id={given}: no experiment is called so; {near(word, known)}")
        found |= set(own)
    if not found:
        raise ValueError(
            "id names no experiment: try id=RU-03, id='RU-03 GV-02', id=MM-* or id=all"
        )
    return [name for name in known if name in found]


def near(word: str, known: Sequence[str]) -> str:
    """The names nearest to one that is unknown, as half a sentence."""
    like = get_close_matches(word, known, n=NEAR, cutoff=0.5)
    like += [name for name in known if name.startswith(word[:2]) and name not in like]
    families = sorted({name.partition("-")[0] for name in known})
    return f"near it: {', '.join(like[:NEAR])}" if like else f"families: {', '.join(families)}"


def make_jobs(
    registry: Mapping[str, ExperimentOptions],
    ids: Iterable[str],
    parameters: Mapping[str, Any],
    pipelines: Mapping[str, Pipeline],
) -> list[Job]:
    """The runs that answer some experiments; cells that one run gives share it.

    Args:
        registry: id → experiment.
        ids: those that are asked for.
        parameters: the whole tree, as JSON values.
        pipelines: name → registered pipeline.

    Raises:
        ValueError: the registry names a pipeline, node or block that is not there.
    """
    found: dict[str, tuple[str, str, tuple[str, list[str]] | None, list[Cell]]] = {}
    for name in ids:
        experiment = registry[name]
        for cell_name, o in experiment.cells.items():
            cell = Cell(name, cell_name, o.rows_of or name, None, o.named, experiment.minutes)
            found.setdefault(f"{o.pipeline}.{o.node}", (o.pipeline, o.node, None, []))[3].append(cell)  # fmt: skip
        for study in experiment.studies:
            for names in _groups(study, name, parameters):
                cells = [
                    Cell(name, titled(n, study.named), name, n, study.named, experiment.minutes)
                    for n in names
                ]
                run = [f"{name}.{n}" if study.by_experiment else n for n in names]
                key = f"{study.pipeline}.{study.node}/{name}.{names[0]}"
                found[key] = (study.pipeline, study.node, (study.place(), run), cells)
    return [
        _job(name, *what, parameters=parameters, pipelines=pipelines)
        for name, what in found.items()
    ]


def _groups(
    study: StudyOptions, experiment: str, parameters: Mapping[str, Any]
) -> list[tuple[str, ...]]:
    """Names of a study's cells; those that ask for each other (``against``, ``over``) stand together."""
    block = _at(parameters, study.place())
    cells = block.get("cells", {}) if isinstance(block, Mapping) else {}
    described = cells.get(experiment) if study.by_experiment else cells
    if not described:
        raise ValueError(
            f"experiments.registry.{experiment}: {study.place()}.cells describes no cell of it"
        )
    if unknown := sorted({*study.only} - {*described}):
        raise ValueError(
            f"experiments.registry.{experiment}: only names {unknown}, which {study.place()}.cells does not describe"
        )
    described = {n: cell for n, cell in described.items() if not study.only or n in study.only}
    group = {name: name for name in described}
    for name, cell in described.items():
        rival = (cell or {}).get("against")
        for other in [*([] if rival is None else [rival]), *(cell or {}).get("over", ())]:
            joined, left = group.get(other, name), group[name]
            group = {n: joined if g == left else g for n, g in group.items()}
    return [
        tuple(name for name in described if group[name] == first)
        for first in dict.fromkeys(group.values())
    ]


def _job(
    name: str,
    pipeline: str,
    node: str,
    study: tuple[str, list[str]] | None,
    cells: list[Cell],
    *,
    parameters: Mapping[str, Any],
    pipelines: Mapping[str, Pipeline],
) -> Job:
    full = f"{pipeline}.{node}"
    registered = pipelines.get(pipeline)
    if registered is None or full not in {n.name for n in registered.nodes}:
        raise ValueError(f"experiments.registry.{cells[0].experiment}: there is no node {full}")
    before = registered.to_nodes(full)
    own = before.only_nodes(full)
    tree = dict(parameters)
    if study is not None:
        block, run = study
        tree = _with(tree, f"{block}.run", run)
    pruned = _pruned(tree, study[1] if study else ())
    blocks = {
        n: leaves(pruned, "" if n == "parameters" else n.removeprefix("params:"))
        for n in sorted(before.inputs())
        if is_parameter(n)
    }
    return Job(
        name=name,
        pipeline=pipeline,
        node=full,
        outputs=tuple(
            sorted(
                o
                for o in own.outputs()
                if o.startswith((f"{pipeline}.study_", f"{pipeline}.results"))
            )
        ),
        inputs=tuple(sorted(own.inputs() & registered.all_outputs())),
        parameters=own_blocks(tree, registered.inputs()),
        key=digest(blocks, code_version()),
        cells=tuple(cells),
    )


def _pruned(tree: Any, run: Sequence[str]) -> Any:  # noqa: ANN401 (any JSON value)
    """Of every ``studies`` block with cells only those that are run: another cell's description is no part of a job's key."""
    if not isinstance(tree, Mapping):
        return tree
    kept = {key: _pruned(value, run) for key, value in tree.items()}
    block = kept.get("studies")
    if isinstance(block, Mapping) and {"run", "cells"} <= block.keys():
        kept["studies"] = {
            **block,
            "run": list(run),
            "cells": dict(_run_cells(block["cells"], run)),
        }
    return kept


def _run_cells(cells: Mapping[str, Any], run: Sequence[str]) -> Iterable[tuple[str, Any]]:
    for name, described in cells.items():
        if name in run:
            yield name, described
            continue
        own = {n: cell for n, cell in (described or {}).items() if f"{name}.{n}" in run}
        if own:
            yield name, own


def _at(tree: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 (any JSON value)
    value: Any = tree
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _with(tree: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON value)
    """The tree with one value replaced."""
    first, _, rest = path.partition(".")
    return {**tree, first: _with(tree[first], rest, value) if rest else value}


@dataclass(frozen=True)
class Expected:
    """How long a run will take.

    Attributes:
        seconds: as measured, or guessed.
        measured: whether it was measured.
    """

    seconds: float
    measured: bool


def expected(job: Job, root: Path) -> Expected:
    """The newest measurement of this job in any configuration; else the median of its node's other jobs; else the guess."""
    own = sorted(_seconds(root / job.name))
    if own:
        return Expected(own[-1][1], True)
    siblings = [s for _, s in _seconds(root / job.name.partition("/")[0], deep=True)]
    if siblings and "/" in job.name:
        return Expected(median(siblings), True)
    return Expected(60 * max(c.minutes for c in job.cells), False)


def expected_preparation(pipeline: str, root: Path, minutes: Mapping[str, float]) -> Expected:
    """What the inputs of a pipeline's jobs take if none is fresh."""
    file = root / PREPARED / f"{pipeline}.json"
    try:
        return Expected(float(json.loads(file.read_text(encoding="utf-8"))["longest"]), True)
    except (OSError, ValueError, KeyError):
        return Expected(60 * minutes.get(pipeline, 5.0), False)


def _seconds(folder: Path, *, deep: bool = False) -> Iterable[tuple[str, float]]:
    """(time of the end, seconds) of finished runs."""
    for file in folder.glob(f"*/*/{DONE}" if deep else f"*/{DONE}"):
        try:
            left = json.loads(file.read_text(encoding="utf-8"))
            yield left["finished"], float(left["seconds"])
        except (OSError, ValueError, KeyError):
            continue
