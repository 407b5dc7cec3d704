"""Any variant of the system: trained, and asked for its predictions of val and test."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reelrank.models.value_model import ValueModel
from reelrank.pipelines.value_model.assembly import Assembly
from reelrank.pipelines.value_model.fitting import (
    Examples,
    Part,
    context_graph,
    restore,
    train_logistic,
    train_network,
)
from reelrank.pipelines.value_model.model import edges_at
from reelrank.pipelines.value_model.options import (
    EdgeMlpOptions,
    FittingOptions,
    GnnOptions,
    LogisticOptions,
)
from reelrank.training.artifact import ModelCheckpoint


def train(
    variant: str,
    examples: Examples,
    model: LogisticOptions | EdgeMlpOptions,
    fitting: FittingOptions,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """The checkpoint of a variant, and its history with the variant's name; see ``fitting``."""
    if isinstance(model, LogisticOptions):
        made, history = train_logistic(examples, model)
    else:
        name = "gnn" if isinstance(model, GnnOptions) else "edge_mlp"
        made, history = train_network(
            name, examples, model=model, fitting=fitting, work_dir=work_dir
        )
    if "variant" in history.columns:
        history = history.drop("variant")
    return made, history.select(pl.lit(variant).alias("variant"), pl.all())


def restored(checkpoint: ModelCheckpoint, examples: Examples, part: Part) -> ValueModel:
    """The model with node vectors over the graph in which ``part`` is predicted (L3)."""
    model = restore(checkpoint)
    graph = context_graph(model.config, examples, part)
    return model if graph is None else restore(checkpoint, graph)


def predict(checkpoint: ModelCheckpoint, assembly: Assembly, block_rows: int) -> pl.DataFrame:
    """Predictions of val and test; columns as :meth:`Assembly.predictions`.

    Args:
        checkpoint: of any variant.
        assembly: what it was trained on.
        block_rows: edges at once.
    """
    examples = assembly.examples
    parts: tuple[Part, ...] = ("val", "test")
    return pl.concat(
        assembly.predictions(
            part,
            restored(checkpoint, examples, part).predict(
                edges_at(examples.inputs, getattr(examples, part)), block_rows
            ),
        )
        for part in parts
    )
