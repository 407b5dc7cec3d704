"""From places to result rows: numbers by hand, groups, forensics of the released metric, studies' logs."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.scenario_log import event_frame

from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.pipelines.ruie.evaluate import (
    Key,
    estimates,
    forensic_rows,
    printed_metric,
    result_rows,
    scenario_labels,
)
from reelrank.pipelines.ruie.fitting import SequenceTables
from reelrank.pipelines.ruie.run_options import (
    Cell,
    EvaluationOptions,
    RuieModels,
    StudyOptions,
    changed_options,
)
from reelrank.pipelines.ruie.studies import thinned

LABELS = ["search", "feed"]


def ranked(ranks=(1.0, 2.0, 4.0, 30.0), scenario=(0, 1, 1, 1), like=(1, 0, 1, None)):
    n = len(ranks)
    return pl.DataFrame(
        {
            "row_id": range(n), "user_id": [i % 3 for i in range(n)], "scenario": scenario, "click": 1, "like": like,
            "follow": 0, "forward": None, "rank": ranks, "rank_sampled": [1.0] * n, "sampled": 99,
            "rank_in_place": pl.Series([None] * n, dtype=pl.Float64), "in_place": 0,
        },
        schema_overrides={"rank": pl.Float64},
    )  # fmt: skip


def judged(frame, cutoffs=(5, 10)):
    return estimates(frame, LABELS, cutoffs, UserBootstrap([0, 1, 2], 50))


def test_every_number_by_hand():
    found = judged(ranked())
    second, fourth = 1 / math.log2(3), 1 / math.log2(5)
    search, feed = 1.0, (second + fourth + 0) / 3
    values = {
        Key("ndcg@5", "all", "micro"): (1 + second + fourth) / 4,
        Key("ndcg@5", "search"): search,
        Key("ndcg@5", "feed"): feed,
        Key("ndcg@5", "all", "macro"): (search + feed) / 2,  # the headline: a small scenario counts as much
        Key("ndcg@5", "like targets"): (1 + fourth) / 2,  # a null like is no like
        Key("hr@5", "all", "micro"): 3 / 4,
        Key("mrr@5", "all", "micro"): (1 + 1 / 2 + 1 / 4) / 4,
        Key("ndcg@10_uniform99", "all", "macro"): 1.0,
    }  # fmt: skip
    for key, value in values.items():
        assert found[key].value == pytest.approx(value), key
    assert next(iter(found)) == Key("ndcg@5", "all", "macro")
    assert not any(key.group == "follow targets" for key in found)  # nobody followed


def test_targets_that_were_not_ranked_are_in_no_number():
    found = judged(ranked(ranks=(1.0, 2.0, None, 30.0)))
    assert found[Key("hr@5", "all", "micro")].value == pytest.approx(2 / 3)
    assert found[Key("hr@5", "all", "micro")].n == 3
    unranked = judged(ranked(ranks=(None,) * 4))
    assert {key.metric.split("_")[-1] for key in unranked} == {"uniform99"}


def test_a_scenario_without_a_target_is_not_in_the_mean():
    found = judged(ranked(scenario=(1, 1, 1, 1)))
    assert found[Key("ndcg@5", "all", "macro")].value == found[Key("ndcg@5", "feed")].value
    assert Key("ndcg@5", "search") not in found


def test_differences_are_of_the_same_events_and_paired():
    better, worse = judged(ranked(ranks=(1.0, 1.0, 1.0, 1.0))), judged(ranked())
    partly = judged(ranked(ranks=(1.0, None, 4.0, 30.0)))
    rows = result_rows({"ruie": better, "din": worse, "caser": partly}, "ruie")
    pairs = [r for r in rows if r.paired_with is not None]
    own = next(r for r in pairs if (r.metric, r.weighting, r.paired_with) == ("ndcg@5", "macro", "din"))  # fmt: skip
    key = Key("ndcg@5", "all", "macro")
    assert own.variant == "ruie"
    assert own.value == pytest.approx(better[key].value - worse[key].value)
    # a model that could not rank all events is not compared where they differ
    assert not any(r.paired_with == "caser" and r.weighting == "micro" and r.metric == "ndcg@5" for r in pairs)  # fmt: skip
    assert any(r.paired_with == "caser" and r.group == "search" for r in pairs)


def test_forensics_by_hand():
    """Largest list 20, K = 5: the tail slice looks at places 16 … 20, the first of them as a 1."""
    rank = [1, 5, 15, 16, 18, 20, 21]
    ndcg, hit = printed_metric(rank, 5, 20, "tail slice")
    assert hit.tolist() == [0, 0, 0, 1, 1, 1, 0]
    assert ndcg.tolist() == pytest.approx([0, 0, 0, 1, 1 / 2, 1 / math.log2(6), 0])
    ndcg, hit = printed_metric(rank, 5, 20, "reversed rank")
    assert hit.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert ndcg.tolist() == pytest.approx([1 / math.log2(6), 1, 0, 0, 0, 0, 0])
    ndcg, hit = printed_metric(rank, 5, 20, "correct")
    assert ndcg.tolist() == pytest.approx([1, 1 / math.log2(6), 0, 0, 0, 0, 0])


def test_the_tail_slice_is_what_the_slice_of_the_released_code_gives():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 40))
    largest = 20
    best_first = np.argsort(-scores, axis=1)[:, :largest]
    rank = np.argsort(np.argsort(-scores, axis=1), axis=1)[:, 0] + 1  # of item 0
    for k in (5, 10, 15, 20):
        looked_at = best_first[:, -k:]
        place = np.where(looked_at == 0, np.arange(1, k + 1), 0).sum(1)
        expected = np.where(place > 0, 1 / np.log2(np.maximum(place, 1) + 1), 0)
        ndcg, hit = printed_metric(rank, k, largest, "tail slice")
        assert ndcg == pytest.approx(expected) and (hit == (place > 0)).all()
    right = printed_metric(rank, largest, largest, "correct")
    assert (printed_metric(rank, largest, largest, "tail slice")[0] == right[0]).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.sampled_from([5, 10, 15, 20]))
@settings(max_examples=50, deadline=None)
def test_a_reversed_rank_finds_the_same_and_is_never_the_better_for_the_best(ranks, k):
    ndcg, hit = printed_metric(ranks, k, 20, "reversed rank")
    right, found = printed_metric(ranks, k, 20, "correct")
    assert (hit == found).all()
    best = np.asarray(ranks) == 1
    assert (ndcg[best] < right[best]).all()


def test_the_correct_form_is_the_metric_itself():
    frame = ranked()
    rows = forensic_rows(frame, "ruie", (5, 10), UserBootstrap([0, 1, 2], 50))
    found = judged(frame)
    for row in rows["correct"]:
        assert row.value == pytest.approx(found[Key(row.metric, "all", "micro")].value)
        assert row.ci_low == pytest.approx(found[Key(row.metric, "all", "micro")].ci_low)


def test_scenarios_have_names_and_those_without_keep_their_number():
    codes = pl.DataFrame({"scenario": [1, 0], "raw_scenario": [4, 1]})
    assert scenario_labels(codes, {"1": "recommendation"}) == ["recommendation", "scenario 4"]


def tables():
    events = event_frame(n_users=30, n_events=12).with_columns(
        scenario=(pl.col("row_id") % 4 == 0).cast(pl.Int64)  # 1 is the small one
    )
    items = pl.DataFrame({"item": range(20), "item_id": range(20), "available_ts": [0] * 20})
    return SequenceTables.of(events, items, pl.DataFrame({"scenario": [0, 1], "raw_scenario": [5, 9]}))  # fmt: skip


def test_a_share_thins_the_train_events_of_one_scenario_only():
    made = tables()
    own = (pl.col("scenario") == 1) & (pl.col("split") == "train")
    half = thinned(made, Cell(scenario="smallest", share=0.5), 0)
    less = thinned(made, Cell(scenario=9, share=0.2), 0)
    assert half.filter(~own).equals(made.events.filter(~own))
    n = made.events.filter(own).height
    assert 0.3 * n < half.filter(own).height < 0.7 * n
    assert set(less["row_id"]) < set(half["row_id"])
    alone = thinned(made, Cell(scenario=9, alone=True), 0)
    assert alone.equals(made.events.filter(scenario=1))
    assert thinned(made, Cell(), 0).equals(made.events)


def test_a_share_of_nothing_and_an_unknown_scenario_are_refused():
    with pytest.raises(ValueError, match="share 1e-06 leaves no train event"):
        thinned(tables(), Cell(scenario=9, share=1e-6), 0)
    with pytest.raises(ValueError, match=r"scenario 3 has no event.*\[5, 9\]"):
        thinned(tables(), Cell(scenario=3, alone=True), 0)


def test_a_cell_changes_what_it_names_and_another_backbone_keeps_the_width():
    models = RuieModels.model_validate({"ruie": {"backbone": {"name": "nextitnet", "dim": 16}}})
    gate = changed_options(models, Cell(model={"gate": {"form": "none"}}))
    assert gate.gate.form == "none" and gate.gate.clip == models.ruie.gate.clip
    backbone = changed_options(models, Cell(model={"backbone": {"name": "sasrec"}})).backbone
    assert backbone.name == "sasrec" and backbone.dim == 16
    deeper = changed_options(models, Cell(model={"backbone": {"dilations": [1]}})).backbone
    assert deeper.dilations == (1,) and deeper.dim == 16
    with pytest.raises(ValidationError, match="gait"):
        changed_options(models, Cell(model={"gait": {}}))


def test_studies_name_what_they_describe():
    with pytest.raises(ValidationError, match="RU-99"):
        StudyOptions(run=("RU-99",))
    with pytest.raises(ValidationError, match="earlier cell"):
        StudyOptions(cells={"RU-05": {"a": Cell(against="b"), "b": Cell()}})
    with pytest.raises(ValidationError, match="need a scenario"):
        Cell(share=0.5)
    with pytest.raises(ValidationError, match="must be one of cutoffs"):
        EvaluationOptions(headline=7)
