"""What happens around a run: refuse wrong parameters, look after stored tables, sweep up after killed runs, name the reports."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.io.core import AbstractVersionedDataset, DatasetError, is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.validation.exceptions import ParameterValidationError
from pydantic_core import to_jsonable_python
from rich.console import Console

from reelrank.datasets.report import ReportDataset
from reelrank.datasets.site import SiteDataset
from reelrank.freshness import (
    Freshness,
    FreshnessOptions,
    Record,
    StaleTables,
    content_stamp,
    leaves,
    raw_files,
)
from reelrank.provenance import code_version

STALE_STAGING_S = 24 * 3600
RAW_MANIFEST = "raw_manifest"
PLAN_NODE = "experiments.plan"

log = logging.getLogger(__name__)


class ParameterHooks:
    """Refuse a wrong parameter before anything runs, with its path."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check the whole tree of parameters."""
        from reelrank.parameters import check_parameters  # noqa: PLC0415 (reads options of all packages)

        parameters = context.config_loader["parameters"]
        # read once: reading all of them takes seconds, and Kedro asks again
        context.config_loader["parameters"] = parameters
        wrong = check_parameters(parameters)
        if wrong:
            raise ParameterValidationError(
                "Wrong parameters:\n" + "\n".join(f"- {w}" for w in wrong)
            )


class FinishHooks:
    """Tell the user which page to open."""

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Print the path of every report that this run wrote."""
        console = Console()
        for name in sorted(pipeline.all_outputs()):
            dataset = catalog.get(name)
            if isinstance(dataset, SiteDataset):
                page = Path(dataset._describe()["filepath"], "index.html").resolve()
                console.print(f"\n[bold]Site:[/bold] open {page}", soft_wrap=True)
            if isinstance(dataset, ReportDataset):
                page = Path(dataset._describe()["filepath"]).resolve()
                console.print(f"\n[bold]Report:[/bold] open {page}", soft_wrap=True)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: DataCatalog) -> None:
        """Remove unfinished outputs of runs that were killed more than a day ago."""
        engine = catalog.get("params:engine")
        if engine is None:
            return
        options = engine.load()
        staging = Path(options["staging"] if isinstance(options, dict) else options.staging)
        for folder in staging.glob("*"):
            try:
                age_s = time.time() - folder.stat().st_mtime
            except FileNotFoundError:  # another run has just finished with it
                continue
            if age_s > STALE_STAGING_S:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Run:
    """What the hooks around nodes need of the run."""

    catalog: DataCatalog
    parameters: dict[str, Any]
    n_nodes: int  # before fresh ones were left out

    def find(self, dataset: str) -> Path | None:
        """Where a dataset is stored on this machine; None for parameters, and if it is not stored."""
        stored = None if is_parameter(dataset) else self.catalog.get(dataset)
        if stored is None or getattr(stored, "_protocol", "file") != "file":
            return None
        place: Any = stored._describe().get("filepath")
        if isinstance(stored, AbstractVersionedDataset):
            try:
                place = stored._get_load_path()
            except DatasetError:  # no version yet
                return None
        return Path(place) if place is not None and Path(place).exists() else None

    def record(self, dataset: str) -> Record | None:
        """What a dataset was made of, if it is stored with its record."""
        path = self.find(dataset)
        return None if path is None else Record.read(path)

    def blocks(self, node: Node) -> dict[str, dict[str, Any]]:
        """The blocks of parameters that a node takes."""
        names = (name for name in sorted(node.inputs) if is_parameter(name))
        blocks = ("" if name == "parameters" else name.removeprefix("params:") for name in names)
        return {block: leaves(self.parameters, block) for block in blocks}

    def judge(self) -> Freshness:
        """Judges by what is stored now."""
        return Freshness(self.find, self.parameters, code_version())


class DryRunHooks:
    """With ``dry=true`` only the plan of the experiments is made."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Leave out all other nodes."""
        planned = [node for node in pipeline.nodes if node.name == PLAN_NODE]
        if planned and catalog.load("params:dry"):
            _keep(pipeline, planned)


class FreshnessHooks:
    """Keep a record beside each stored output, and act on those that are out of date (parameter ``freshness.stale``)."""

    def __init__(self) -> None:
        self._run: _Run | None = None

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Look at the stored tables that this run loads, or at all that it would make.

        Raises:
            StaleTables: with ``stale: error``, one that it loads is out of date.
        """
        from reelrank.parameters import Parameters  # noqa: PLC0415 (reads options of all packages)

        self._run = None
        if "parameters" not in catalog:
            return
        # defaults included, so that blocks that Kedro has not validated compare with those that it has
        given = to_jsonable_python(catalog.load("parameters"))
        parameters = Parameters.model_validate(given).model_dump(mode="json")
        run = self._run = _Run(catalog, parameters, len(pipeline.nodes))
        stale = FreshnessOptions.model_validate(parameters.get("freshness", {})).stale
        if stale == "ignore":
            return
        only_missing = run_params.get("only_missing_outputs", False)
        if stale == "rebuild" and only_missing:
            raise StaleTables(
                "freshness.stale=rebuild runs what is missing and what is out of date: leave out --only-missing-outputs"
            )
        judge = run.judge()
        loaded = {name for name in pipeline.inputs() if not is_parameter(name)}
        if only_missing:  # Kedro takes every output that exists as it is
            loaded |= {name for name in pipeline.all_outputs() if run.find(name)}
        loaded -= set(run_params.get("load_versions") or ())
        old = [judge.say(name) for name in sorted(loaded) if judge.causes(name)]
        if old:
            message = (
                "Stored tables that this run loads without making them are out of date:\n"
                + "\n".join(f"- {line}" for line in old)
                + "\nTo make them anew run the whole pipeline, with --params freshness.stale=rebuild only what needs it."
            )
            if stale == "error":
                raise StaleTables(message)
            log.warning(message)
        if stale == "rebuild":
            _leave_out_fresh(pipeline, judge)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:  # noqa: ANN401 (whatever nodes make)
        """Write down what the output was made of."""
        run = self._run
        if run is None or (path := run.find(dataset_name)) is None:
            return
        stored = run.catalog[dataset_name]
        records = {name: run.record(name) for name in node.inputs if not is_parameter(name)}
        Record(
            dataset=dataset_name,
            node=node.name,
            code=code_version(),
            parameters=run.blocks(node),
            inputs={name: r.fingerprint if r else None for name, r in sorted(records.items())},
            files=raw_files(data) if dataset_name.endswith(f".{RAW_MANIFEST}") else {},
            version=stored.resolve_load_version()
            if isinstance(stored, AbstractVersionedDataset)
            else None,
            content=content_stamp(path),
        ).write(path)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Say how much was skipped."""
        run = self._run
        if run is not None and (skipped := run.n_nodes - len(pipeline.nodes)):
            log.info("%d of %d nodes were skipped: their outputs are fresh", skipped, run.n_nodes)


def _leave_out_fresh(pipeline: Pipeline, judge: Freshness) -> None:
    """Take the nodes out of a pipeline whose outputs are all fresh, and that no node to be run feeds."""
    needed: list[Node] = []
    made: set[str] = set()
    for node in pipeline.nodes:  # in the order of the run
        old = [name for name in node.outputs if judge.causes(name)]
        if old or not node.outputs or made & set(node.inputs):
            needed.append(node)
            made |= set(node.outputs)
            if old:
                log.info("to be made: %s", judge.say(old[0]))
    _keep(pipeline, needed)


def _keep(pipeline: Pipeline, nodes: list[Node]) -> None:
    """Run these nodes only: Kedro lets no hook choose, but hands it the very object that it then runs."""
    reduced = vars(Pipeline(nodes))
    vars(pipeline).clear()
    vars(pipeline).update(reduced)
