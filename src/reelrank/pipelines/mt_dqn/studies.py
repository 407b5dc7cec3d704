"""MT-02 … MT-16: models with changed options or on perturbed inputs, against the run's own model.

Source: METHODS §9.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path

import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.features.candidates import availability_ts
from reelrank.features.splits import Cuts
from reelrank.options import digest
from reelrank.pipelines.mt_dqn import predict as predictor
from reelrank.pipelines.mt_dqn.fitting import Tables, restore, train
from reelrank.pipelines.mt_dqn.lists import build_lists
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import ListOptions, PredictOptions
from reelrank.pipelines.mt_dqn.perturb import PerturbedTables, permute_times
from reelrank.pipelines.mt_dqn.rewarding import rewarded
from reelrank.pipelines.mt_dqn.study_measures import (
    MAIN,
    Judged,
    Measures,
    Seen,
    monitor_rows,
    spread_of,
)
from reelrank.pipelines.mt_dqn.study_options import Perturbation, Setting, StudyOptions, changed
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.device import seed_everything

log = logging.getLogger(__name__)
SUPERVISED = "mt_dqn_supervised"  # its score is no Q


@dataclass(frozen=True)
class Learnt:
    """A training run.

    Attributes:
        model: its checkpoint.
        history: a row per epoch.
        tables: events as they were learnt from, the rest as it was read.
        lists: evaluation lists of these events.
    """

    model: ModelCheckpoint
    history: pl.DataFrame
    tables: Tables
    lists: pl.DataFrame


@dataclass(frozen=True)
class Study:
    """What all cells share.

    Attributes:
        own: setting of the run's own model.
        main: the run's own model.
        seen: what it says.
        cuts: boundaries of the splits.
        lists: what counts as a list.
        prediction: how much is predicted.
        measures: what is measured.
        work_dir: of unfinished training runs.
    """

    own: Setting
    main: Learnt
    seen: Seen
    cuts: Cuts
    lists: ListOptions
    prediction: PredictOptions
    measures: Measures
    work_dir: Path

    def run(self, studies: StudyOptions) -> dict[tuple[str, str], list[ResultRow]]:
        """Result rows of each (experiment, cell) that ``studies.run`` names; a setting that several cells share is trained once."""
        found: dict[tuple[str, str], list[ResultRow]] = {}
        chosen = studies.chosen()
        if not chosen:
            return found
        trained = {_key(self.own): self.main}
        judged = {"": self._judged(self.own, self.main, self.seen)}
        for experiment, name in chosen:
            log.info("%s: %s", experiment, name)
            cell = studies.cells[experiment][name]
            rival_name = "" if cell.against is None else f"{experiment}.{cell.against}"
            against = MAIN if cell.against is None else f"{MAIN}, {cell.against}"
            if cell.over:
                own = spread_of([judged[f"{experiment}.{other}"] for other in cell.over])
                judged[f"{experiment}.{name}"] = own
                rival = judged[rival_name] if cell.against is not None else None
                found[experiment, name] = self.measures.rows(MAIN, own, rival, against)
                continue
            setting = changed(self.own, cell)
            if _key(setting) not in trained:
                trained[_key(setting)] = self._learnt(setting)
            learnt = trained[_key(setting)]
            own = self._judged(setting, learnt, self._seen(setting, learnt, cell.perturb))
            judged[f"{experiment}.{name}"] = own
            rival = judged[rival_name]
            rows = self.measures.rows(MAIN, own, rival, against)
            if cell.reward and not cell.perturb.permuted_times:
                rows += self.measures.hacking_rows(MAIN, own, rival, against, setting.reward)
            found[experiment, name] = rows + monitor_rows(
                MAIN, learnt.history, setting.learning.limit
            )
        return found

    def _learnt(self, setting: Setting) -> Learnt:
        tables, lists = self.main.tables, self.main.lists
        if setting.perturb.permuted_times:
            tables = replace(tables, events=permute_times(tables.events, self._seed))
        if setting.perturb.permuted_times or setting.reward != self.own.reward:
            events = rewarded(tables.events, tables.item_modal, self.cuts, setting.reward)
            tables, lists = replace(tables, events=events), build_lists(events, self.lists).rows
        model, history = train(
            setting.base,
            self._perturbed(tables, setting.perturb),
            lists,
            model=setting.model,
            learning=setting.learning,
            training=setting.training,
            work_dir=self.work_dir,
        )
        return Learnt(model, history, tables, lists)

    def _seen(self, setting: Setting, learnt: Learnt, perturb: Perturbation) -> Seen:
        """What a model says of inputs that are perturbed so."""
        tables = self._perturbed(learnt.tables, perturb)
        seed_everything(self._seed)  # of the noise
        inputs = tables.model_inputs(setting.training.device)
        available = availability_ts(tables.events, tables.items)
        model = restore(learnt.model, inputs)
        predictions = predictor.predict(model, inputs, learnt.lists, available, self.prediction)
        if not isinstance(model, MTDQN):
            raise TypeError(f"{setting.base} is no MTDQN: its gates cannot be read")
        return Seen(predictions, predictor.gates(model, inputs, self.prediction.block_rows))

    def _judged(self, setting: Setting, learnt: Learnt, seen: Seen) -> Judged:
        learns_q = setting.base != SUPERVISED
        return self.measures.judged(seen, learnt.tables, setting.reward, learns_q=learns_q)

    def _perturbed(self, tables: Tables, perturb: Perturbation) -> PerturbedTables:
        read = {f.name: getattr(tables, f.name) for f in fields(Tables)}
        return PerturbedTables(**read, perturb=perturb, seed=self._seed)

    @property
    def _seed(self) -> int:
        """Of what is perturbed: another seed of a cell's training is no other data."""
        return self.own.training.seed


def _key(setting: Setting) -> str:
    return digest(*setting)
