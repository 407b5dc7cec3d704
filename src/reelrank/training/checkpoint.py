"""Checkpoints: tensors as safetensors, everything else as JSON; nothing is unpickled (ARCHITECTURE choice 9).

A checkpoint is a folder with ``checkpoint.json`` and the tensors file that it names. The tensors file carries the
first digits of its own sha256 in its name and the JSON is replaced last, so a process killed at any moment leaves
either the old pair or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG_FILE = "checkpoint.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, torn or not what its JSON says."""


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a checkpoint, replacing the one that the folder holds.

    Args:
        folder: made if missing.
        tensors: any device; stored as CPU tensors.
        config: what JSON can hold, enough to rebuild the object that the tensors belong to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "tensors.partial"
    # copied: safetensors refuses tensors that share memory
    save_file(
        {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}, partial
    )
    digest = _sync_and_hash(partial)
    named = folder / f"tensors-{digest[:16]}.safetensors"
    partial.replace(named)
    text = json.dumps({"tensors": named.name, "sha256": digest, "config": dict(config)}, indent=1)
    partial_json = folder / f"{CONFIG_FILE}.partial"
    partial_json.write_text(text)
    _sync_and_hash(partial_json)
    partial_json.replace(folder / CONFIG_FILE)
    for old in folder.glob("tensors-*.safetensors"):
        if old != named:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint written by ``save_checkpoint``.

    Returns:
        The tensors, on the CPU, and the config.

    Raises:
        CheckpointError: No checkpoint there, or its two files do not belong together.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: no checkpoint here ({CONFIG_FILE} is missing)")
    try:
        head = json.loads(path.read_text())
        name, digest, config = head["tensors"], head["sha256"], head["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint description ({error!r})") from error
    file = folder / Path(name).name  # a name with a path in it may not lead out of the folder
    if not file.is_file():
        raise CheckpointError(
            f"{path} names {name}, which is missing: delete {folder}, train again"
        )
    if _sync_and_hash(file) != digest:
        raise CheckpointError(
            f"{file} is not the file that {path} describes (sha256 differs): delete {folder}, train again"
        )
    try:
        return load_file(file), config
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file ({error})") from error


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix.name``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors stored under ``prefix.``, by their own names: the inverse of ``with_prefix``."""
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Per-parameter state of an optimiser (Adam: step and two moments) under ``<parameter number>.<name>``.

    Learning rates and the like are not in it: they follow from the options and the step.
    """
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": t for i, moments in state.items() for name, t in moments.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors of ``optimiser_tensors`` into an optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def cpu_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters and buffers on the CPU."""
    return {n: t.detach().to("cpu", copy=True) for n, t in model.state_dict().items()}


def _sync_and_hash(path: Path) -> str:
    """Bring a file to the disk and return its sha256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
