"""Every training node as a run of MLflow: parameters, validation by epoch, learning curves, weights. Off unless MLflow is installed.

kedro-mlflow is not used: it logs a typed block as one cut string, for nodes that train nothing too, and costs every command seconds.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.io.core import is_parameter
from kedro.pipeline.node import Node
from pydantic import Field
from pydantic_core import to_jsonable_python

from reelrank.freshness import leaves
from reelrank.options import Options
from reelrank.provenance import code_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG, MODEL = "training", "_model"
BATCH, LONGEST = 100, 500  # parameters of one call, characters of a value
Status = Literal["FINISHED", "FAILED", "KILLED"]

log = logging.getLogger(__name__)


class TrackingOptions(Options):
    """Block ``tracking``; without MLflow it does nothing."""

    enabled: bool = Field(True, description="false: nothing is logged, although MLflow is there")
    uri: str = Field(description="where runs are kept: sqlite:///FILE or a server's address")
    artifacts: str | None = Field(description="where figures and weights go; null: the server says")
    experiment: str = Field(min_length=1, description="MLflow's experiment")


class TrackingHooks:
    """One MLflow run for each node that is tagged ``training`` and makes a model; nothing of MLflow ever ends a training."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[MlflowClient, str]] = {}

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> None:
        """Begin a run, with the parameters that the node takes."""
        trains = TAG in node.tags and any(name.endswith(MODEL) for name in node.outputs)
        if not trains or find_spec("mlflow") is None or "params:tracking" not in catalog:
            return
        options = TrackingOptions.model_validate(to_jsonable_python(catalog.load("params:tracking")))  # fmt: skip
        if not options.enabled:
            return
        with _tolerant():
            client = _client(options.uri)
            experiment = _experiment(client, options)
            tags = {"node": node.name, "system": node.namespace or "", "code_version": code_version()}  # fmt: skip
            run_id: str = client.create_run(experiment, tags=tags, run_name=node.name).info.run_id
            self._runs[node.name] = (client, run_id)
            atexit.register(self._end, node.name, "KILLED")  # a trial of a tuning that is given up
            _log_parameters(client, run_id, parameters_of(inputs))

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Add what the node made, and end its run."""
        if node.name in self._runs:
            client, run_id = self._runs[node.name]
            with _tolerant():
                for data in outputs.values():
                    _log_output(client, run_id, data)
            self._end(node.name, "FINISHED")

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Mark the run as failed."""
        if node.name in self._runs:
            client, run_id = self._runs[node.name]
            with _tolerant():
                client.set_tag(run_id, "error", str(error)[:LONGEST])
            self._end(node.name, "FAILED")

    def _end(self, name: str, status: Status) -> None:
        found = self._runs.pop(name, None)
        if found is not None:
            client, run_id = found
            with _tolerant():
                client.set_terminated(run_id, status)


def parameters_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Every single parameter that a node takes, by its full name; places on disk are left out."""
    blocks = {
        name.removeprefix("params:"): to_jsonable_python(value)
        for name, value in inputs.items()
        if is_parameter(name)
    }
    flat = {path: value for name, block in blocks.items() for path, value in leaves({name: block}, "").items()}  # fmt: skip
    return {path: str(value)[:LONGEST] for path, value in sorted(flat.items())}


def epochs_of(history: pl.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    """Epoch and the numbers of each row of a history, under names that MLflow takes."""
    numbers = [n for n, dtype in history.schema.items() if dtype.is_numeric() and n != "epoch"]
    for row in history.iter_rows(named=True):
        own = {n.replace("@", "_at_"): float(row[n]) for n in numbers if row[n] is not None}
        yield int(row["epoch"]), own


@cache
def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient  # noqa: PLC0415 (an extra, and slow to import)

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri)


def _experiment(client: MlflowClient, options: TrackingOptions) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (an extra)

    found = client.get_experiment_by_name(options.experiment)
    if found is None:
        try:
            created: str = client.create_experiment(options.experiment, options.artifacts)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(options.experiment)
            if found is None:
                raise
        else:
            return created
    name: str = found.experiment_id
    return name


def _log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Param  # noqa: PLC0415 (an extra)

    given = [Param(path, value) for path, value in parameters.items()]
    for first in range(0, len(given), BATCH):
        client.log_batch(run_id, params=given[first : first + BATCH])


def _log_output(client: MlflowClient, run_id: str, data: Any) -> None:  # noqa: ANN401 (whatever nodes make)
    """A history as metrics and curves, a checkpoint as files; anything else is not of the training."""
    write: Callable[[Path], None] | None = getattr(data, "write", None)
    if isinstance(data, pl.DataFrame):
        if {"variant", "epoch", "step"} <= set(data.columns) and not data.is_empty():
            _log_history(client, run_id, data)
    elif write is not None:
        with TemporaryDirectory() as folder:
            write(Path(folder) / "model")
            client.log_artifacts(run_id, str(Path(folder) / "model"), "model")


def _log_history(client: MlflowClient, run_id: str, history: pl.DataFrame) -> None:
    from mlflow.entities import Metric  # noqa: PLC0415 (an extra)

    from reelrank.reports.figures import learning_curves  # noqa: PLC0415 (plotly is slow to import)

    for epoch, numbers in epochs_of(history):
        metrics = [Metric(name, value, 0, epoch) for name, value in numbers.items()]
        for first in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics=metrics[first : first + BATCH])
    client.log_figure(run_id, learning_curves(history), "learning_curves.html")
    client.log_text(run_id, history.write_csv(), "history.csv")


@contextmanager
def _tolerant() -> Iterator[None]:
    """Say that tracking failed, and go on."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (an extra)

    try:
        yield
    except (MlflowException, OSError) as error:
        log.warning("MLflow: %s; the training goes on untracked", str(error).splitlines()[0])
