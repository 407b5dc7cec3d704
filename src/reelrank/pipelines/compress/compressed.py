"""A ranking network with some of its layers cut to fewer units, or stored and multiplied in eight bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelrank.models import registry
from reelrank.models.fusion import CrossModalFusion
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.policy import Outputs, RankingModel
from reelrank.models.registry import register
from reelrank.pipelines.compress.int8 import Int8Linear
from reelrank.pipelines.compress.options import CompressedOptions
from reelrank.training.artifact import ModelCheckpoint

NAME = "mt_dqn_compressed"


@register(NAME, CompressedOptions)
class Compressed(RankingModel):
    """The network of ``config.base``, its layers replaced as ``config`` says; everything else is its own.

    Args:
        config: what was compressed, and how.
        spec: sizes of the inputs.
    """

    config: CompressedOptions

    def __init__(self, config: CompressedOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        self.inner = registry.build(config.base, config.options, spec, RankingModel)
        for name, (width_in, width_out) in config.widths.items():
            biased = linear(self.inner, name).bias is not None
            replace(self.inner, name, nn.Linear(width_in, width_out, bias=biased))
        for name, heads in config.heads.items():
            self.inner.get_submodule(name).heads = heads  # type: ignore[assignment]  # a plain number, not a module
        for name in config.int8:
            whole = linear(self.inner, name)
            empty = Int8Linear(whole.in_features, whole.out_features, biased=whole.bias is not None)
            replace(self.inner, name, empty)

    def user_state(self, inputs: ModelInputs, users: Tensor, ts: Tensor) -> Tensor:
        """State of users (B,) strictly before ts (B,): (B, Du)."""
        return self.inner.user_state(inputs, users, ts)

    def item_state(self, inputs: ModelInputs, items: Tensor, ts: Tensor) -> Tensor:
        """State of items (M,) strictly before ts (M,): (M, Dv)."""
        return self.inner.item_state(inputs, items, ts)

    def head(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs for user states (B, Du) and item states (B or 1, C, Dv)."""
        return self.inner.head(user_state, item_state)

    def _refresh(self, inputs: ModelInputs) -> None:
        self.inner.refresh(inputs)


def built(source: ModelCheckpoint) -> RankingModel:
    """The network of a checkpoint with its best weights, on the CPU."""
    config = source.config
    model = registry.build(config["name"], config["options"], config["spec"], RankingModel)
    model.load_state_dict(dict(source.best))
    return model.eval()


def plain(model: RankingModel) -> RankingModel:
    """The network itself, without the wrapper of a compressed one."""
    return model.inner if isinstance(model, Compressed) else model


def fusion_of(model: RankingModel) -> CrossModalFusion:
    """Its cross-modal transformer.

    Raises:
        TypeError: it has none.
    """
    fusion = plain(model).get_submodule("fusion")
    if not isinstance(fusion, CrossModalFusion):
        raise TypeError(f"{type(plain(model)).__name__}.fusion is no CrossModalFusion")
    return fusion


def memory_of(model: RankingModel) -> Tensor:
    """Its item vectors f, (n_items, d_f)."""
    return plain(model).get_buffer("item_memory")


def linear(model: nn.Module, name: str) -> nn.Linear:
    """A linear map by name.

    Raises:
        TypeError: it is something else.
    """
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{name} is a {type(module).__name__}, no linear map")
    return module


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where ``name`` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def checkpoint(
    source: ModelCheckpoint, changes: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> ModelCheckpoint:
    """A checkpoint of ``source`` compressed.

    Args:
        source: a plain network.
        changes: of :class:`CompressedOptions` beside ``base`` and ``options``.
        tensors: state dict of the wrapper.
    """
    config = source.config
    options = CompressedOptions(base=config["name"], options=config["options"], **changes)
    own = {**config, "name": NAME, "options": options.model_dump(mode="json")}
    return ModelCheckpoint(own, tensors, tensors)
