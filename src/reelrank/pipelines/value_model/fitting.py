"""From encoded features to a trained value model and back: examples, one training run, a model rebuilt from its checkpoint.

Source: METHODS §6.4.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from reelrank.evaluation.classification import auc
from reelrank.features.heads import HEADS
from reelrank.models import registry
from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.models.value_model import N_HEADS, Floats, ValueModel, ValueSpec
from reelrank.options import Options
from reelrank.pipelines.value_model.graph import Graph, build_graph
from reelrank.pipelines.value_model.logistic import fit_logistic
from reelrank.pipelines.value_model.model import (
    FusedEdges,
    ValueNetwork,
    ValueTensors,
    can_fuse,
    edges_at,
    fused_loss,
    masked_loss,
)
from reelrank.pipelines.value_model.options import (
    EdgeMlpOptions,
    FittingOptions,
    GnnOptions,
    LogisticOptions,
)
from reelrank.provenance import code_version
from reelrank.tables import SPLITS
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.checkpoint import cpu_state
from reelrank.training.device import pick_device, seed_everything
from reelrank.training.loop import fit

Rows = npt.NDArray[np.int64]
Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Links:
    """Interactions that may be in the graph: more than are labelled where labels are a sample.

    Attributes:
        user_id: (L,) int32.
        item_id: (L,) int32.
        part: (L,) int8, place in ``SPLITS``.
    """

    user_id: npt.NDArray[np.int32]
    item_id: npt.NDArray[np.int32]
    part: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Examples:
    """Edges of all parts with their labels.

    Attributes:
        inputs: features of E edges, fitted on train.
        labels: (E, 4) int8 in the order of ``HEADS``; −1 = unknown.
        train: positions of train edges.
        val: positions of val edges.
        test: positions of test edges.
        links: what graphs are made of; None: the edges themselves.
    """

    inputs: ValueInputs
    labels: npt.NDArray[np.int8]
    train: Rows
    val: Rows
    test: Rows
    links: Links | None = None

    def __post_init__(self) -> None:
        n = len(self.inputs.user_id)
        if self.labels.shape != (n, N_HEADS):
            raise ValueError(f"labels are {self.labels.shape}, expected {(n, N_HEADS)}")
        for part in ("train", "val"):
            if not len(getattr(self, part)):
                raise ValueError(f"no {part} edge: the split leaves nothing to learn from")

    def fingerprint(self) -> str:
        """Digest of all arrays."""
        found = hashlib.sha256()
        blocks = (self.inputs.user, self.inputs.item, self.inputs.edge)
        arrays = [getattr(b, f.name) for b in blocks for f in fields(FeatureBlock)]
        arrays += [self.inputs.user_id, self.inputs.item_id, self.labels]
        links = [getattr(self.links, f.name) for f in fields(Links)] if self.links else []
        for array in (*arrays, self.train, self.val, self.test, *links):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]

    def linked(self, parts: Sequence[Part]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Users and items of the interactions of some parts."""
        if self.links is not None:
            of_parts = np.isin(self.links.part, [SPLITS.index(part) for part in parts])
            return self.links.user_id[of_parts], self.links.item_id[of_parts]
        rows = np.concatenate([getattr(self, part) for part in parts])
        return self.inputs.user_id[rows], self.inputs.item_id[rows]


def as_labels(values: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Labels with −1 for unknown, from floats with NaN or integers with −1.

    Raises:
        ValueError: another value than 0, 1, −1 or NaN.
    """
    labels: npt.NDArray[Any] = np.nan_to_num(np.asarray(values), nan=-1.0)
    bad = np.argwhere(~np.isin(labels, (-1, 0, 1)))
    if len(bad):
        row, head = bad[0]
        raise ValueError(
            f"label {HEADS[head]} of edge {row} is {labels[row, head]}, expected 0, 1 or unknown"
        )
    return labels.astype(np.int8)


def context_graph(options: Options, examples: Examples, part: Part) -> Graph | None:
    """The graph in which edges of ``part`` are predicted; None for a model without one.

    ``poster_literal`` holds the edges of all parts, those to be predicted included: that is its leak [S].
    Source: METHODS §6.4, §1.5 L3.
    """
    if not isinstance(options, GnnOptions):
        return None
    parts: tuple[Part, ...] = ("train",)
    if options.graph == "poster_literal":
        parts = ("train", "val", "test")
    elif part == "test" and options.test_context == "train_val":
        parts = ("train", "val")
    inputs = examples.inputs
    n_users, n_items = len(inputs.user.continuous), len(inputs.item.continuous)
    return build_graph(options.graph, *examples.linked(parts), n_users, n_items)


def head_aucs(labels: npt.NDArray[np.int8], p: Floats) -> dict[str, float]:
    """Mean AUC over the heads where it is defined, then each head's; NaN with one class.

    Args:
        labels: (E, 4), −1 = unknown: left out.
        p: (E, 4) scores.
    """
    known = labels >= 0
    found = {
        f"auc_{head}": auc(labels[known[:, j], j], p[known[:, j], j])
        for j, head in enumerate(HEADS)
    }
    defined = [value for value in found.values() if not math.isnan(value)]
    return {"auc": float(np.mean(defined)) if defined else math.nan, **found}


def train_network(
    name: str,
    examples: Examples,
    *,
    model: EdgeMlpOptions,
    fitting: FittingOptions,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Train ``edge_mlp`` or ``gnn``; the evaluation on val with the best mean AUC decides (L9).

    Args:
        name: in ``models.registry``.
        examples: features, labels, parts.
        model: its options.
        fitting: rates and length.
        work_dir: where an unfinished run keeps its state, and is taken up again.

    Returns:
        Checkpoint, and a row per evaluation: ``variant``, ``epoch`` (number of the evaluation), ``step``, ``train_loss``
        (mean since the evaluation before), ``val_auc`` and one of each head, ``lr``, ``seconds``.

    Raises:
        ValueError: codes or ids out of range, or no head has two classes in val.
    """
    spec = ValueSpec.of(examples.inputs)
    spec.check(examples.inputs)
    device = pick_device(fitting.device)
    seed_everything(fitting.seed)
    network = registry.build(name, model, spec, ValueNetwork).to(device)
    graph = context_graph(model, examples, "train")
    if graph is not None:
        graph = graph.to(device)
    val = edges_at(examples.inputs, examples.val)

    def validate(network: ValueNetwork) -> dict[str, float]:
        network.refresh(graph)
        return head_aucs(examples.labels[examples.val], network.predict(val, fitting.block_rows))

    result = fit(
        network,
        torch.arange(fitting.evaluate_every, device=device),
        step_fn=_step_function(network, examples, graph, fitting),
        validate_fn=validate,
        options=fitting.loop(),
        work_dir=work_dir,
        identity={
            "name": name,
            "model": model.model_dump(mode="json"),
            "fitting": fitting.model_dump(mode="json", exclude={"checkpoint_every_steps"}),
            "data": examples.fingerprint(),
            "code": code_version(),
        },
    )
    config = {
        "name": name,
        "options": model.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
        "fitting": fitting.model_dump(mode="json"),
        "best_epoch": result.best_epoch,
        "code_version": code_version(),
    }
    history = result.history.select(pl.lit(name).alias("variant"), pl.all())
    return ModelCheckpoint(config, result.best, result.last), history


def train_logistic(
    examples: Examples, options: LogisticOptions
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Fit ``logistic``; see :func:`fit_logistic`."""
    fitted, report = fit_logistic(examples.inputs, examples.labels, examples.train, options)
    config = {
        "name": "logistic",
        "options": options.model_dump(mode="json"),
        "spec": fitted.spec.model_dump(mode="json"),
        "code_version": code_version(),
    }
    return ModelCheckpoint(config, cpu_state(fitted), cpu_state(fitted)), report


def restore(checkpoint: ModelCheckpoint, graph: Graph | None = None) -> ValueModel:
    """The model of a checkpoint with its best weights, on the CPU, ready to predict.

    Args:
        checkpoint: of any value model.
        graph: where node vectors are computed anew (the context of test); None: as they were when val chose the weights.
    """
    config = checkpoint.config
    model = registry.build(config["name"], config["options"], config["spec"], ValueModel)
    model.load_state_dict(dict(checkpoint.best))
    model.eval()
    if graph is not None and isinstance(model, ValueNetwork):
        model.refresh(graph)
    return model


def _step_function(
    network: ValueNetwork, examples: Examples, graph: Graph | None, fitting: FittingOptions
) -> Callable[[Any, Tensor, torch.Generator], dict[str, Tensor]]:
    """The loss of one step: of drawn edges, or of all train edges."""
    device = network.first.weight.device
    data = ValueTensors.of(examples.inputs).to(device)
    train = torch.from_numpy(examples.train).to(device)
    labels = torch.from_numpy(examples.labels).to(device)
    batch = fitting.batch_edges

    def drawn(network: ValueNetwork, _: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert batch is not None
        chosen = torch.randint(len(train), (batch,), generator=generator, device=device)
        rows = train[chosen]
        return {"loss": masked_loss(network(data, network.propagate(graph), rows), labels[rows])}

    def whole(network: ValueNetwork, _: Tensor, __: torch.Generator) -> dict[str, Tensor]:
        return {"loss": masked_loss(network(data, network.propagate(graph), train), labels[train])}

    def fused(network: ValueNetwork, _: Tensor, __: torch.Generator) -> dict[str, Tensor]:
        return {"loss": fused_loss(network, edges, data, network.propagate(graph))}

    if batch is not None:
        return drawn
    if not can_fuse(network):
        return whole
    edges = FusedEdges.of(examples.inputs, examples.labels, examples.train)
    return fused
