"""Ranges of parameters: what Optuna draws, what the tree of parameters takes, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from reelrank.pipelines.tuning.options import Choices, FloatRange, IntRange, Range, Value

Values = Mapping[str, Value]
Check = Callable[[Mapping[str, Any]], list[str]]
"""What is wrong with a tree of parameters, a sentence each."""
MISSING = object()


def distribution(given: Range) -> BaseDistribution:
    """What Optuna draws from; a list is drawn as its text."""
    match given:
        case FloatRange():
            return FloatDistribution(given.low, given.high, log=given.log)
        case IntRange():
            return IntDistribution(given.low, given.high, log=given.log)
        case Choices():
            return CategoricalDistribution([stored(choice) for choice in given.choices])


def stored(value: Value) -> bool | int | float | str | None:
    """A value as Optuna keeps it."""
    return json.dumps(value) if isinstance(value, list) else value


def decoded(space: Mapping[str, Range], kept: Mapping[str, Any]) -> dict[str, Value]:
    """A trial's parameters as the tree takes them."""
    return {path: _decoded(space[path], value) for path, value in kept.items()}


def suggest(trial: optuna.Trial, space: Mapping[str, Range]) -> dict[str, Value]:
    """Draw a value of every parameter."""
    for path, given in space.items():
        match given:
            case FloatRange():
                trial.suggest_float(path, given.low, given.high, log=given.log)
            case IntRange():
                trial.suggest_int(path, given.low, given.high, log=given.log)
            case Choices():
                trial.suggest_categorical(path, [stored(choice) for choice in given.choices])
    return decoded(space, trial.params)


def value_at(tree: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 (any JSON value)
    """The value of a parameter; ``MISSING`` if there is none."""
    value: Any = tree
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def with_values(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with some parameters replaced."""
    changed = dict(tree)
    for path, value in values.items():
        first, _, rest = path.partition(".")
        changed[first] = with_values(changed.get(first, {}), {rest: value}) if rest else value
    return changed


def nested(values: Values) -> dict[str, Any]:
    """Parameters by path as a tree of their own."""
    return with_values({}, values)


def refusals(
    space: Mapping[str, Range],
    tree: Mapping[str, Any],
    taken: Sequence[str],
    before: Sequence[str],
    check: Check,
) -> list[str]:
    """What is wrong with a space, a sentence each.

    Args:
        space: parameter → range.
        tree: of all parameters.
        taken: blocks that the training node takes; an empty name is all.
        before: blocks that nodes before it take: a parameter there changes what the training loads, which is made once.
        check: of the tree.
    """
    wrong = []
    for path, given in space.items():
        value = value_at(tree, path)
        if value is MISSING or isinstance(value, Mapping):
            like = get_close_matches(path, list(_paths(tree)), n=3, cutoff=0.6)
            wrong.append(f"{path}: no such parameter" + (f"; near it: {', '.join(like)}" if like else ""))  # fmt: skip
        elif any(_holds(block, path) for block in before):
            wrong.append(f"{path}: steps before the training take it, and their tables are made once for all trials; tune it as an experiment")  # fmt: skip
        elif not any(_holds(block, path) for block in taken):
            wrong.append(f"{path}: the training does not take it; it takes {', '.join(sorted(taken))}")  # fmt: skip
        elif not _contains(given, value):
            wrong.append(f"{path}: the present value {value!r} lies outside of {_shown(given)}; the first trial is the defaults, so widen the range")  # fmt: skip
    if not wrong and any(check(with_values(tree, corner)) for corner in _corners(space)):
        for path, given in space.items():
            for end in ends(given):
                wrong += [f"{path}={end!r}: {why}" for why in check(with_values(tree, {path: end}))]
    return wrong


def _corners(space: Mapping[str, Range]) -> Iterable[dict[str, Value]]:
    """Trees that try out every end of every range, as few as can be."""
    most = max(len(ends(given)) for given in space.values())
    for i in range(most):
        yield {path: ends(given)[i % len(ends(given))] for path, given in space.items()}


def ends(given: Range) -> tuple[Value, ...]:
    """The values at which a range is tried out before anything runs."""
    return given.choices if isinstance(given, Choices) else (given.low, given.high)


def _decoded(given: Range, value: Any) -> Value:  # noqa: ANN401 (whatever Optuna keeps)
    if not isinstance(given, Choices):
        return value  # type: ignore[no-any-return]  # a number
    return next(choice for choice in given.choices if stored(choice) == value)


def _contains(given: Range, value: Any) -> bool:  # noqa: ANN401 (any JSON value)
    match given:
        case FloatRange():
            return isinstance(value, int | float) and given.low <= value <= given.high
        case IntRange():
            return isinstance(value, int) and given.low <= value <= given.high
        case Choices():
            return value in given.choices


def _shown(given: Range) -> str:
    if isinstance(given, Choices):
        return str(list(given.choices))
    return f"{given.low} … {given.high}"


def _holds(block: str, path: str) -> bool:
    return not block or path == block or path.startswith(f"{block}.")


def _paths(tree: Mapping[str, Any], above: str = "") -> Iterable[str]:
    for key, value in tree.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from _paths(value, path)
        else:
            yield path
