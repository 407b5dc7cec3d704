"""Where a model is trained, and from which seeds."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from reelrank.training.options import DeviceName, Precision


def pick_device(name: DeviceName = "auto") -> torch.device:
    """The named device; ``auto`` takes CUDA, else the CPU (Apple's MPS lacks the float64 that sums need).

    Raises:
        ValueError: The named accelerator is not on this machine.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, here in found.items() if here))
    if not found[name]:
        here = ", ".join(kind for kind, is_here in found.items() if is_here)
        raise ValueError(f"device '{name}' is not on this machine (found: {here}); use 'auto'")
    return torch.device(name)


def products_in(precision: Precision, device: torch.device) -> torch.autocast:
    """What a step runs under: matrix products with factors of ``precision``, or everything as it is stored."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and choose deterministic kernels where torch has them."""
    # cuBLAS reads this once, when CUDA starts; without it its sums depend on scheduling
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries that we call may use the global generator)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # filling memory that is written next anyway only shows bugs of torch's own, and costs a tenth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not annotated


def rng_state() -> dict[str, torch.Tensor]:
    """State of torch's global generators: dropout and initialisation draw from them."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def set_rng_state(state: dict[str, torch.Tensor]) -> None:
    """Put the global generators back to a state taken by ``rng_state``."""
    torch.set_rng_state(state["cpu"])
    for name in state.keys() - {"cpu"}:
        torch.cuda.set_rng_state(state[name], int(name.removeprefix("cuda")))
