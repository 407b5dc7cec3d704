"""What is to be tuned: one training node, the parameters of its run, and the study that its trials belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline

from reelrank.children import own_blocks
from reelrank.freshness import leaves
from reelrank.options import digest
from reelrank.pipelines.tuning.options import Range, SpaceOptions, TuningParameters
from reelrank.pipelines.tuning.space import (
    Check,
    Values,
    decoded,
    refusals,
    stored,
    value_at,
    with_values,
)
from reelrank.provenance import code_version
from reelrank.reports.page import DataKind


@dataclass(frozen=True)
class Task:
    """A training node with a space.

    Attributes:
        system: name of the space.
        options: of the space.
        node: with its namespace.
        inputs: stored tables that it loads, and that its pipeline makes.
        tree: parameters of the run, with what trials share.
        study: name: what changes a trial's value changes the name.
        data_kind: of the log.
    """

    system: str
    options: SpaceOptions
    node: str
    inputs: tuple[str, ...]
    tree: Mapping[str, Any] = field(repr=False)
    study: str
    data_kind: DataKind

    @property
    def space(self) -> Mapping[str, Range]:
        """Parameter → range."""
        return self.options.space

    def defaults(self) -> dict[str, Any]:
        """The present values of what is tuned, as Optuna keeps them."""
        return {path: stored(value_at(self.tree, path)) for path in self.space}

    def parameters(self, values: Values, seed: int | None = None) -> dict[str, Any]:
        """The tree of a run with these values; ``seed``: in place of the trials' own."""
        seeded = {} if seed is None else {self.options.seed: seed}
        return with_values(self.tree, {**values, **seeded})


def make_task(
    system: str,
    tuning: TuningParameters,
    parameters: Mapping[str, Any],
    pipelines: Mapping[str, Pipeline],
    check: Check,
) -> Task:
    """Find what is asked for, and refuse what cannot be tuned.

    Args:
        system: name of a space.
        tuning: block ``tuning``.
        parameters: the whole tree, as JSON values.
        pipelines: name → registered pipeline.
        check: of a tree of parameters.

    Raises:
        ValueError: the system is unknown (names like it are given), its node is not there, or the space is wrong.
    """
    if system not in tuning.systems:
        like = get_close_matches(system, tuning.systems, n=3, cutoff=0.4)
        raise ValueError(
            f"system={system}: conf/base/parameters/tuning.yml has no space of that name; "
            + (f"near it: {', '.join(like)}" if like else f"it has {', '.join(tuning.systems)}")
        )
    options = tuning.systems[system]
    full = f"{options.pipeline}.{options.node}"
    registered = pipelines.get(options.pipeline)
    if registered is None or full not in {node.name for node in registered.nodes}:
        raise ValueError(f"tuning.systems.{system}: there is no node {full}")
    shared = {**options.fixed, options.seed: tuning.training_seed}
    tree = with_values(parameters, shared)
    upto = registered.to_nodes(full)
    own = upto.only_nodes(full)
    taken = _blocks(own)
    before = _blocks(upto - own)
    wrong = refusals(options.space, tree, taken, before, check)
    wrong += check(tree)
    if wrong:
        raise ValueError(
            f"tuning.systems.{system} cannot be searched:\n" + "\n".join(f"- {w}" for w in wrong)
        )
    rests_on = {block: leaves(tree, block) for block in sorted({*taken, *before})}
    untuned = {
        block: {path: value for path, value in own.items() if path not in options.space}
        for block, own in rests_on.items()
    }
    kinds = {
        value
        for own in rests_on.values()
        for path, value in own.items()
        if path.endswith(".raw.kind")
    }
    return Task(
        system=system,
        options=options,
        node=full,
        inputs=tuple(sorted(own.inputs() & registered.all_outputs())),
        tree=own_blocks(tree, upto.inputs()),
        study=f"{system}-{digest(untuned, options, code_version())}",
        data_kind="world" if "world" in kinds else "real",
    )


def readable(task: Task, kept: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters as the tree takes them; those that the space has no more are left out."""
    return decoded(task.space, {p: v for p, v in kept.items() if p in task.space})


def _blocks(pipeline: Pipeline) -> list[str]:
    names = filter(is_parameter, pipeline.inputs())
    return sorted("" if name == "parameters" else name.removeprefix("params:") for name in names)
