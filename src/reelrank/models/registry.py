"""Names of models: how a checkpoint's JSON config becomes a module again, without knowing its pipeline.

Each pipeline registers its own models when it is imported (``pipeline_registry`` imports them all).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from reelrank.models import homes
from reelrank.models.inputs import InputSpec
from reelrank.options import Options

M = TypeVar("M", bound=type[nn.Module])
Base = TypeVar("Base", bound=nn.Module)


@dataclass(frozen=True)
class Registration:
    """What is needed to build one named model."""

    options: type[Options]
    spec: type[Options]
    builder: Callable[[Any, Any], nn.Module]


_REGISTRY: dict[str, Registration] = {}


def register(
    name: str, options: type[Options], spec: type[Options] = InputSpec
) -> Callable[[M], M]:
    """Class decorator: ``name`` is built as ``Model(options, spec)``.

    Args:
        name: what a checkpoint's JSON calls it.
        options: type of its options.
        spec: type of the sizes that depend on its inputs.

    Raises:
        ValueError: another class holds the name.
    """

    def decorate(model: M) -> M:
        held = _REGISTRY.get(name)
        # a reloaded module (notebooks) may replace its own class
        if held is not None and _path(held.builder) != _path(model):
            raise ValueError(f"model name {name!r} is taken by {_path(held.builder)}")
        _REGISTRY[name] = Registration(options, spec, model)
        return model

    return decorate


def registered() -> tuple[str, ...]:
    """Names that :func:`build` knows now, sorted."""
    return tuple(sorted(_REGISTRY))


def build(
    name: str,
    config: Options | Mapping[str, Any],
    spec: Options | Mapping[str, Any],
    base: type[Base],
) -> Base:
    """A new model with fresh weights.

    Args:
        name: a registered name, e.g. ``mt_dqn``.
        config: the model's options, or their JSON form as read from a checkpoint.
        spec: sizes that depend on the inputs, or their JSON form.
        base: what the model must be, e.g. ``RankingModel``.

    Raises:
        KeyError: the name is not registered.
        TypeError: the model is no ``base``.
        pydantic.ValidationError: a key or value of the JSON form is wrong.
    """
    if name not in _REGISTRY:
        homes.visit(name)
    if name not in _REGISTRY:
        raise KeyError(
            f"no model named {name!r}; registered: {', '.join(registered()) or 'none'}. "
            "A pipeline registers its models when it is imported: import it first"
        )
    entry = _REGISTRY[name]
    options = entry.options.model_validate(_plain(config))
    model = entry.builder(options, entry.spec.model_validate(_plain(spec)))
    if not isinstance(model, base):
        raise TypeError(f"{name!r} is a {type(model).__name__}: no {base.__name__}")
    return model


def _plain(config: Options | Mapping[str, Any]) -> Mapping[str, Any]:
    return config.model_dump() if isinstance(config, Options) else config


def _path(builder: Callable[..., Any]) -> str:
    return f"{builder.__module__}.{getattr(builder, '__qualname__', builder)}"
