"""Other protocols (GV-01), what each leak is worth (GV-02), sweeps (GV-03) and feature groups (GV-04).

Source: METHODS §6.4, §6.5, §9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Difference, Estimate, UserBootstrap, paired
from reelrank.features.splits import LogSummary, SplitOptions, fit_split
from reelrank.features.value_encoder import ValueFeatureOptions
from reelrank.pipelines.value_model.assembly import Assembly, Parts, ValueTables
from reelrank.pipelines.value_model.evaluate import (
    Estimates,
    auc_estimates,
    estimates,
    result_rows,
)
from reelrank.pipelines.value_model.fitting import Examples, Links, Part
from reelrank.pipelines.value_model.options import (
    EdgeMlpOptions,
    FittingOptions,
    GnnOptions,
    LogisticOptions,
    StudyOptions,
    ValueModels,
    Variant,
)
from reelrank.pipelines.value_model.training import predict, train

HONEST, ALL = "honest", "all features"  # the cells that others are compared with
LITERAL = {"encoding": "poster_literal", "clock": "utc"}


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        name: cell of the experiment.
        assembly: what is learnt from.
        variant: which model.
        model: its options.
        fitting: its rates.
        split: rule of the split.
        track: honest or paper_literal.
    """

    name: str
    assembly: Assembly
    variant: Variant
    model: LogisticOptions | EdgeMlpOptions
    fitting: FittingOptions
    split: str
    track: str = "honest"


@dataclass(frozen=True)
class Outcome:
    """The result rows of a cell."""

    cell: str
    track: str
    split: str
    rows: list[ResultRow]


@dataclass(frozen=True)
class Studies:
    """The studies of one log.

    Attributes:
        tables: edges, interactions and nodes.
        parts: the headline's split.
        rule: its name.
        bursts: ``Bursts``.
        features: the headline's.
        models: options of all variants.
        options: sizes of the studies.
        bins: of ECE.
        work_dir: of unfinished runs.
    """

    tables: ValueTables
    parts: Parts
    rule: str
    bursts: pl.DataFrame
    features: ValueFeatureOptions
    models: ValueModels
    options: StudyOptions
    bins: int
    work_dir: Path

    def protocols(self) -> Iterator[Outcome]:
        """The headline's models under ``last_burst_out``, and the poster's way on both of its splits (GV-01).

        The poster's graph on a random split is that of the sampled rows alone [A: the tiny file].
        """
        literal = self.features.model_copy(update=LITERAL)
        random, random_rule = self._split(self.options.tiny_random)
        last, last_rule = self._split(self.options.last_burst_out)
        for name, track, parts, rule, features in (
            ("last_burst_out", "honest", last, last_rule, self.features),
            (f"{self.rule} literal", "paper_literal", self.parts, self.rule, literal),
            ("tiny_random literal", "paper_literal", random, random_rule, literal),
        ):
            assembly = self._assemble(parts, features)
            if parts is random:
                assembly = replace(assembly, examples=replace(assembly.examples, links=None))
            bootstrap = self._bootstrap(assembly)
            tables: dict[str, Estimates] = {}
            for variant in self.options.protocol_variants:
                model = self._model(variant, literal=track == "paper_literal")
                cell = Cell(name, assembly, variant, model, self.options.fitting, rule, track)
                test = self._predict(cell).filter(split="test")
                tables[variant] = estimates(test, bootstrap, self.bins)
            yield Outcome(name, track, f"{rule}/test", result_rows(tables))

    def leaks(self) -> Iterator[Outcome]:
        """Each leak alone, all of them together, and their differences from the honest cell (GV-02).

        A random split judges other rows of the same users: its difference is paired by user, not by row.
        """
        return self._compared(self._leak_cells())

    def groups(self) -> Iterator[Outcome]:
        """The features without each group, against all of them (GV-04)."""
        return self._compared(self._group_cells())

    def sweeps(self) -> Iterator[Outcome]:
        """AUC on val over the report's grids of learning rates and batch sizes, one at a time (GV-03, L9)."""
        variant, fitting = self.options.sweeps, self.options.fitting
        assembly, model = self._assemble(self.parts, self.features), self.models.of(variant)
        bootstrap = self._bootstrap(assembly)
        grid: dict[str, dict[str, float]] = {
            f"learning rate {lr:g}": {"lr": lr} for lr in self.options.learning_rates
        }
        grid |= {f"batch {batch}": {"batch_edges": batch} for batch in self.options.batches}
        for name, change in grid.items():
            changed = fitting.model_copy(update=change)
            cell = Cell(name, assembly, variant, model, changed, self.rule)
            found = auc_estimates(self._predict(cell).filter(split="val"), bootstrap)
            yield Outcome(name, cell.track, f"{self.rule}/val", result_rows({variant: found}))

    def _leak_cells(self) -> Iterator[Cell]:
        variant, fitting = self.options.leaks, self.options.fitting
        own, directed = self._model(variant), self._model(variant, literal=True)
        honest = self._assemble(self.parts, self.features)
        yield Cell(HONEST, honest, variant, own, fitting, self.rule)
        everything: tuple[Part, ...] = ("train", "val", "test")
        for name, model, parts in (
            ("all-edges graph", own, everything),
            ("directed graph", directed, everything[:1]),
        ):
            linked = replace(honest, examples=_linked(honest.examples, parts))
            yield Cell(name, linked, variant, model, fitting, self.rule, "paper_literal")
        sample = self.options.tiny_random.model_copy(update={"sample_share": 1.0})
        random, random_rule = self._split(sample)
        literal = {"encoding": "poster_literal"}
        for name, split, rule, change, model in (
            ("random split", random, random_rule, {}, own),
            ("numeric ids", self.parts, self.rule, literal, own),
            ("UTC hour", self.parts, self.rule, {"clock": "utc"}, own),
            ("all together", random, random_rule, LITERAL, directed),
        ):
            assembly = self._assemble(split, self.features.model_copy(update=change))
            yield Cell(name, assembly, variant, model, fitting, rule, "paper_literal")

    def _group_cells(self) -> Iterator[Cell]:
        variant, fitting = self.options.ablation, self.options.fitting
        without = {f"without {group}": (group,) for group in self.options.groups}
        for name, dropped in {ALL: (), **without}.items():
            features = self.features.model_copy(update={"drop_groups": dropped})
            assembly = self._assemble(self.parts, features)
            yield Cell(name, assembly, variant, self._model(variant), fitting, self.rule)

    def _compared(self, cells: Iterator[Cell]) -> Iterator[Outcome]:
        """AUC of each cell on test, and its differences from the first: ``paired_with`` is the model in that.

        One set of resamples of all users serves all cells.
        """
        first: tuple[str, Estimates] | None = None
        for cell in cells:
            if first is None:
                bootstrap = self._bootstrap(cell.assembly)
            found = auc_estimates(self._predict(cell).filter(split="test"), bootstrap)
            rows = result_rows({cell.variant: found})
            if first is None:
                first = (f"{cell.variant}, {cell.name}", found)
            else:
                rows += [
                    ResultRow.from_difference(
                        cell.variant, first[0], key.metric, _difference(own, first[1][key]), group=key.group
                    )
                    for key, own in found.items()
                ]  # fmt: skip
            yield Outcome(cell.name, cell.track, f"{cell.split}/test", rows)

    def _predict(self, cell: Cell) -> pl.DataFrame:
        made, _ = train(
            cell.variant, cell.assembly.examples, cell.model, cell.fitting, self.work_dir
        )
        return predict(made, cell.assembly, cell.fitting.block_rows)

    def _model(self, variant: Variant, literal: bool = False) -> LogisticOptions | EdgeMlpOptions:
        model = self.models.of(variant)
        if literal and isinstance(model, GnnOptions):
            return model.model_copy(update={"graph": "poster_literal"})
        return model

    def _split(self, options: SplitOptions) -> tuple[Parts, str]:
        """Parts under another rule, and its name."""
        log = LogSummary.of(self.tables.interactions.scan(), self.bursts, options)
        split = fit_split(options, log)
        return self.tables.split_by(split), split.rule

    def _assemble(self, parts: Parts, features: ValueFeatureOptions) -> Assembly:
        return self.tables.assemble(parts, self.tables.fit_encoder(parts, features))

    def _bootstrap(self, assembly: Assembly) -> UserBootstrap:
        users = np.arange(len(assembly.examples.inputs.user.continuous))
        return UserBootstrap(users, self.options.replicates, self.options.fitting.seed)


def _linked(examples: Examples, parts: tuple[Part, ...]) -> Examples:
    """The same edges with a graph of the interactions of ``parts``, whoever is predicted."""
    user_id, item_id = examples.linked(parts)
    return replace(examples, links=Links(user_id, item_id, np.zeros(len(user_id), np.int8)))


def _difference(a: Estimate, b: Estimate) -> Difference:
    """``a − b`` on the same resamples of users; the rows may differ."""
    return paired(a, replace(b, n=a.n))
