"""Fusion and heads as exported graphs; the graph network between them looks events up by data and stays eager.

Source: METHODS §9 MT-06; https://docs.pytorch.org (torch.export, AOTInductor).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from reelrank.models.fusion import CrossModalFusion
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.policy import Outputs, RankingModel
from reelrank.pipelines.compress.compressed import fusion_of, plain

MOST_ROWS = 4096  # of a call to an exported graph
Graph = Callable[..., Tensor | tuple[Tensor, ...]]
log = logging.getLogger(__name__)


class FusionOfTensors(nn.Module):
    """The fusion with plain tensors in and out: x of each modality, then the masks, to f (M, d_f)."""

    def __init__(self, fusion: CrossModalFusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, *tensors: Tensor) -> Tensor:
        """See the class."""
        n = len(tensors) // 2
        pairs = zip(tensors[:n], tensors[n:], strict=True)
        tokens = ItemTokens(tuple(ModalTokens(x, mask, mask.any(1)) for x, mask in pairs))
        f: Tensor = self.fusion(tokens).f
        return f


class HeadsOfTensors(nn.Module):
    """User states (B, Du) and item states (B, 1, Dv) to q, behaviour logits, value, reward."""

    def __init__(self, model: RankingModel) -> None:
        super().__init__()
        self.heads = plain(model).get_submodule("heads")

    def forward(self, user_state: Tensor, item_state: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        out: Outputs = self.heads(user_state, item_state)
        return out.q, out.behaviour_logits, out.value, out.reward


def tensors_of(tokens: ItemTokens) -> tuple[Tensor, ...]:
    """What :class:`FusionOfTensors` takes."""
    return (*(m.x for m in tokens.modalities), *(m.mask for m in tokens.modalities))


@dataclass(frozen=True)
class ExportedParts:
    """Graphs that any number of rows up to ``MOST_ROWS`` go through.

    Attributes:
        fusion: as :class:`FusionOfTensors`.
        heads: as :class:`HeadsOfTensors`.
        backend: what runs them: ``aot_inductor`` or ``program``.
    """

    fusion: Graph
    heads: Graph
    backend: str

    @classmethod
    def of(
        cls,
        model: RankingModel,
        tokens: ItemTokens,
        widths: tuple[int, int],
        backend: str,
        folder: Path,
    ) -> ExportedParts:
        """Export a network's parts.

        Args:
            model: in evaluation mode, on the CPU.
            tokens: of two items or more, as an example.
            widths: Du and Dv.
            backend: ``aot_inductor`` compiles, where there is a C++ compiler; else, and with ``program``, the exported program itself is run.
            folder: for the compiled packages.
        """  # fmt: skip
        if backend == "aot_inductor" and not _has_compiler():
            log.warning("no C++ compiler (c++, g++, clang++): exported graphs run as programs")
            backend = "program"
        example = tensors_of(tokens)
        states = tuple(torch.zeros(2, *([1] * i), width) for i, width in enumerate(widths))
        fusion, heads = (
            _export(module, inputs, backend, folder / f"{name}.pt2")
            for name, module, inputs in (
                ("fusion", FusionOfTensors(fusion_of(model)), example),
                ("heads", HeadsOfTensors(model), states),
            )
        )
        return cls(fusion, heads, backend)


def _export(module: nn.Module, example: tuple[Tensor, ...], backend: str, path: Path) -> Graph:
    rows = Dim("rows", min=1, max=MOST_ROWS)
    shapes = tuple({0: rows} for _ in example)
    starred = isinstance(module, FusionOfTensors)  # one parameter that holds all tensors
    with torch.no_grad():
        program = torch.export.export(
            module.eval(), example, dynamic_shapes=(shapes,) if starred else shapes
        )
        if backend == "program":
            graph: Graph = program.module()
            return graph
        # compiled ahead of time, at run time nothing of torch's compiler is needed
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        loaded: Graph = torch._inductor.aoti_load_package(package)
        return loaded


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))
