"""The page without a world: real rows have no truth, and the page says so."""

import numpy as np
import polars as pl
import pytest

from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feedback_options import UserFold
from reelrank.pipelines.ab_test import nodes, report
from reelrank.pipelines.ab_test.columns import (
    CHECKS,
    DAYS_SCHEMA,
    ESTIMATORS,
    JUDGED,
    OFF_POLICY_SCHEMA,
    TEMPERATURE_SCHEMA,
)
from reelrank.pipelines.ab_test.run_options import (
    CONTROL,
    METHODS,
    DesignOptions,
    EvaluationOptions,
    MatrixPopulation,
    PopulationOptions,
    SimulatorPopulation,
)
from reelrank.pipelines.mmrf.run_options import METHODS as TRAINED
from reelrank.tables import Results
from reelrank.training.artifact import ModelCheckpoint

USERS, DAYS = 30, 4
DESIGN = DesignOptions(days=DAYS, control_days=1)
EVALUATION = EvaluationOptions(replicates=40)
REAL = {"source": "kuairand", "variant": "pure", "kind": "files", "root": "/nowhere", "files": [], "licence": ""}  # fmt: skip


def lived(factor):
    """Days of a control, and of an arm that is watched ``factor`` times as long once it serves."""
    rng = np.random.default_rng(0)
    frames = []
    for arm in ("mmrf", "bc", "deepfm", "ltr"):
        day = np.tile(np.arange(DAYS), USERS)
        watch = np.random.default_rng(1).exponential(60, USERS * DAYS)
        watch *= np.where((day >= 1) & (arm == "mmrf"), factor, 1)
        counts = {name: rng.integers(1, 9, USERS * DAYS) for name in ("follow", "comment", "rows", "sessions", "ended")}  # fmt: skip
        columns = {"user_id": np.repeat(np.arange(USERS), DAYS), "day": day, "watch_time": watch, **counts, "returned": counts["ended"]}  # fmt: skip
        frame = pl.DataFrame(columns).with_columns(arm=pl.lit(arm), serving=pl.lit("greedy"), lives=pl.lit(1))  # fmt: skip
        frames.append(frame.select(pl.col(n).cast(t) for n, t in DAYS_SCHEMA.items()))
    return pl.concat(frames)


@pytest.fixture(scope="module")
def off_policy():
    rows = [
        {
            "arm": arm, "estimator": estimator, "response": response, "user_id": user, "numerator": float(k + 1), "denominator": 1.0,
            "rows": 3, "reliable": arm != "bc", **dict.fromkeys(CHECKS, 1.0),
        }
        for k, arm in enumerate(("mmrf", "bc", "deepfm", "ltr"))
        for estimator in ESTIMATORS
        for response in JUDGED
        for user in range(USERS)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=OFF_POLICY_SCHEMA)


@pytest.fixture(scope="module")
def results(off_policy):
    frames = nodes.evaluate(
        pl.DataFrame(schema=DAYS_SCHEMA), lived(1.5), off_policy, pl.DataFrame(schema=TEMPERATURE_SCHEMA), REAL, {"rule": "time"},
        DESIGN, EVALUATION, {}, {}, {}, {}, {},
    )  # fmt: skip
    found = nodes.collect(*frames)
    Results.validate(found)
    return found


def test_there_is_no_truth_and_nothing_is_compared_with_it(results):
    assert set(results["data_kind"]) == {"real"}
    assert set(results["cell"]) == {"simulator", *ESTIMATORS}


def test_what_was_planted_is_found(results):
    own = results.filter(variant="mmrf", cell="simulator", metric="effect_percent", weighting="paired")  # fmt: skip
    assert own.filter(group="watch_time")["value"].item() == pytest.approx(50)
    # mean of the arms' rows are 1 to 4: the control has 4
    ncis = results.filter(cell="ncis", metric="effect_percent", group="follow")
    value = dict(ncis.select("variant", "value").iter_rows())
    assert value == pytest.approx({"mmrf": -75, "bc": -50, "deepfm": -25})
    reliable = dict(ncis.select("variant", "reliable").iter_rows())
    assert reliable == {"mmrf": True, "bc": False, "deepfm": True}


def test_the_page_says_that_a_truth_does_not_exist(results):
    history = pl.DataFrame({"variant": ["simulator"] * 2, "epoch": [1, 2], "step": [5, 10], "train_loss": [2.0, 1.0]})  # fmt: skip
    drawn = report.draw(results, history, DESIGN)
    assert len(drawn) == len(report.FIGURES)
    page = report.write(
        results, ModelCheckpoint({"best_epoch": 2}, {}, {}), {"files": []}, {"rule": "time"}, DESIGN, UserFold(share=0.5),
        PopulationOptions(), SimulatorPopulation(), MatrixPopulation(), EVALUATION, FeedDataOptions(), "kedro run",
        **{f"figure_{name}": figure for name, figure in zip(report.FIGURES, drawn, strict=True)},
    )  # fmt: skip
    for words in ("does not exist", "Simulated A/B test", "no estimate can be judged here", "Not run"):  # fmt: skip
        assert words in page, words
    assert "synthetic" not in page and "+50.00" in page


def test_real_files_have_no_world_to_live_in():
    assert nodes.live_in_world(REAL, *[None] * 11).is_empty()


def test_every_trained_policy_is_an_arm():
    assert set(TRAINED) == set(METHODS) and CONTROL in METHODS
