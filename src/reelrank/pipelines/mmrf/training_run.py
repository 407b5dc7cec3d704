"""One training run of any method, from the catalog's tables to a checkpoint.

Source: METHODS §4.7, §1.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_options import FeedDataOptions
from reelrank.options import Options
from reelrank.pipelines.mmrf.feed_tables import FeedTables
from reelrank.pipelines.mmrf.fit_mmrf import fit_mmrf
from reelrank.pipelines.mmrf.fitting import Fitted
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.run_options import MMRF_VARIANTS, PredictionOptions, changed
from reelrank.pipelines.mmrf.scoring import agents_of, validation
from reelrank.provenance import code_version
from reelrank.training.artifact import ModelCheckpoint

CONFLICT_SCHEMA = {"agent": pl.String, "other": pl.String, "cosine": pl.Float64}


def train(
    name: str,
    tables: FeedTables,
    *,
    options: Options,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame, pl.DataFrame]:
    """Train one registered method.

    Args:
        name: of ``models.registry``.
        tables: of the feed.
        options: the method's own.
        data: how the log becomes decisions.
        learning: length, patience, seed and device.
        replay: what a method with critics learns from.
        prediction: how val decisions are scored.
        work_dir: where an unfinished run keeps its state, and is taken up again.

    Returns:
        Checkpoint; history, a row per epoch; mean cosine of each pair of the agents' gradients, empty for a method without agents.
    """
    inputs = tables.inputs(data, learning.device)
    options = of_responses(options, data.responses)
    fitted = fit(
        name, inputs, options=options, learning=learning, replay=replay, prediction=prediction, work_dir=work_dir,
        identity={"data": tables.fingerprint(), "track": data.model_dump(mode="json")},
    )  # fmt: skip
    own = getattr(options, "actor", options) if name in MMRF_VARIANTS else options
    checkpoint = fitted.checkpoint(
        name,
        own,
        FeedSpec.of(inputs),
        history=trained_history(options),
        data=data.model_dump(mode="json"),
        learning=learning.model_dump(mode="json"),
        code_version=code_version(),
    )
    rows = fitted.fit.history.select(pl.lit(name).alias("variant"), pl.all())
    return checkpoint, rows.rename({"update": "step"}, strict=False), _conflicts(fitted)


def fit(
    name: str,
    inputs: FeedInputs,
    *,
    options: Options,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: Path,
    identity: Mapping[str, object],
) -> Fitted:
    """Fit one registered method; arguments as :func:`train`, and what of the data the result depends on (``identity``)."""
    return _fitter(name)(
        options, inputs, learning, replay,
        validate_fn=validation(inputs, trained_history(options), prediction, learning.seed),
        work_dir=work_dir,
        identity={"name": name, "code": code_version(), **identity},
    )  # fmt: skip


def of_responses(options: Options, responses: Sequence[str]) -> Options:
    """A method's options with agents for these responses only; a method without agents stays as it is.

    Raises:
        pydantic.ValidationError: the method cannot do with so few.
    """
    actor = getattr(options, "actor", None)
    owner = options if hasattr(options, "agents") else actor
    if owner is None or not hasattr(owner, "agents"):
        return options
    agents = tuple(agent for agent in owner.agents if agent in responses)
    if agents == tuple(owner.agents):
        return options
    few = {"agents": agents}
    made: Options = changed(options, few if owner is options else {"actor": few})
    return made


def trained_history(options: Options) -> int:
    """Rows of history that a method of these options reads."""
    owner: Any = getattr(options, "actor", options)
    return int(getattr(owner, "encoder", owner).history)


def _fitter(name: str) -> Callable[..., Fitted]:
    if name in MMRF_VARIANTS:
        return fit_mmrf
    from reelrank.pipelines.mmrf.baselines.fitters import FITTERS  # noqa: PLC0415 (all of them)

    fitters: Mapping[str, Callable[..., Fitted]] = FITTERS
    return fitters[name]


def _conflicts(fitted: Fitted) -> pl.DataFrame:
    if fitted.conflicts is None:
        return pl.DataFrame(schema=CONFLICT_SCHEMA)
    agents = [str(a) for a in agents_of(fitted.policy)]
    cosines = fitted.conflicts.tolist()
    rows = [(a, b, cosines[i][j]) for i, a in enumerate(agents) for j, b in enumerate(agents)]
    return pl.DataFrame(rows, schema=CONFLICT_SCHEMA, orient="row")
