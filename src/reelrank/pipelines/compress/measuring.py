"""Which networks are timed: those of the run, their exported graphs, and the published widths with random weights."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch

from reelrank.models import registry
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.policy import RankingModel
from reelrank.pipelines.compress.export import ExportedParts
from reelrank.pipelines.compress.latency import Server, largest_difference, measure, sizes
from reelrank.pipelines.compress.options import (
    EXPORTED,
    MAGNITUDE,
    TEACHER,
    LatencyOptions,
    UntrainedOptions,
)
from reelrank.pipelines.compress.rows import UNTRAINED_STUDENT, UNTRAINED_TEACHER
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.device import seed_everything
from reelrank.training.ranking import restore

MOST_DIFFERENCE = 1e-3  # of an exported graph, over the largest score
log = logging.getLogger(__name__)


def measure_all(
    tables: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame],
    latency: LatencyOptions,
    untrained: UntrainedOptions,
    models: Mapping[str, ModelCheckpoint],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Latencies and sizes of every variant.

    Networks with weights at zero have the teacher's shapes, so its latency: they are sized, not timed.

    Args:
        tables: events, item_modal, items, users.
        latency: how.
        untrained: published widths.
        models: variant to checkpoint, the teacher's among them.

    Raises:
        ValueError: an exported graph does not compute what its network does.
    """
    inputs = ModelInputs.from_tables(*tables)
    test = torch.nonzero((inputs.stream.split == 2) & ~inputs.stream.is_rand).squeeze(1)
    servers = {name: Server(restore(model, inputs), inputs) for name, model in models.items()}
    with tempfile.TemporaryDirectory() as folder:
        if latency.export != "none":
            for name, of in EXPORTED.items():
                servers[name] = _exported(servers[of], latency.export, Path(folder) / name, test)
        if latency.published:
            servers |= untrained_servers(untrained, models[TEACHER], inputs)
        timed = {name: server for name, server in servers.items() if name not in MAGNITUDE}
        found = measure(timed, test, latency)
        sized = [sizes(name, s, test) for name, s in servers.items() if name not in EXPORTED]
    return found, pl.concat(sized)


def untrained_servers(
    options: UntrainedOptions, teacher: ModelCheckpoint, inputs: ModelInputs
) -> dict[str, Server]:
    """Teacher and student of the published widths, with random weights; the rest of their options is the run's."""
    seed_everything(0)
    name, own = teacher.config["name"], teacher.config["options"]
    wide = options.model_dump(mode="json", exclude={"student"})
    large = {**own, **{part: {**own[part], **widths} for part, widths in wide.items()}}
    spec = InputSpec.model_validate(teacher.config["spec"])
    built = {UNTRAINED_TEACHER: large, UNTRAINED_STUDENT: options.student.of(large)}
    servers = {}
    for variant, config in built.items():
        model = registry.build(name, config, spec, RankingModel).eval()
        model.refreshed.fill_(True)  # its item vectors have no meaning either
        servers[variant] = Server(model, inputs)
    return servers


def _exported(server: Server, backend: str, folder: Path, rows: torch.Tensor) -> Server:
    folder.mkdir()
    model, inputs = server.model, server.inputs
    stream = inputs.stream
    with torch.no_grad():
        user = model.user_state(inputs, stream.user[rows[:1]], stream.ts_ms[rows[:1]])
        item = model.item_state(inputs, stream.item[rows[:1]], stream.ts_ms[rows[:1]])
    tokens = inputs.items.select(stream.item[rows[:8]])
    parts = ExportedParts.of(model, tokens, (user.shape[1], item.shape[1]), backend, folder)
    made = Server(model, inputs, parts)
    difference = largest_difference(made, server, rows[:64])
    log.info("%s by %s: largest difference %.2g", folder.name, parts.backend, difference)
    if not difference <= MOST_DIFFERENCE:  # NaN, too
        raise ValueError(f"{folder.name} differs from its network by {difference:.3g} of the largest score")  # fmt: skip
    return made
