"""What policies of a feed are judged by: hand-worked values, and identities that hold whatever the feed."""

import numpy as np
import polars as pl
import pytest
import torch
from support.feed_log import random_feed_log, toy_feed, with_split

from reelrank.evaluation.off_policy import BehaviourOptions, mean_entropy, softened
from reelrank.models.feed import HATE, PAD, RESPONSES, WATCH_TIME
from reelrank.pipelines.mmrf import evaluate
from reelrank.pipelines.mmrf.horizons import horizon_rows
from reelrank.pipelines.mmrf.judging import judge_of
from reelrank.pipelines.mmrf.logged import _contexts, logged_part, logging_propensities
from reelrank.pipelines.mmrf.run_options import EvaluationOptions
from reelrank.pipelines.mmrf.scoring import TEST, VAL, judged_decisions

OPTIONS = EvaluationOptions(replicates=40, caps=(1.0, 10.0), temperatures=(2.0,))


def frame_of(inputs, column, seed=0):
    """Rows of decisions with random numbers for the candidates, −inf at pads."""
    index = judged_decisions(inputs)
    candidates = inputs.decisions.candidates[index].numpy()
    scores = np.random.default_rng(seed).normal(size=candidates.shape)
    scores = np.where(candidates == PAD, -np.inf, scores)
    if column == "probabilities":
        scores = softened(scores, 1.0)
    kind = pl.Float64 if column == "probabilities" else pl.Float32
    values = pl.Series(scores, dtype=pl.Array(kind, scores.shape[1]))
    heads = pl.lit(None, pl.List(pl.Float32))
    return pl.DataFrame({"decision": index.numpy().astype(np.uint32), column: values}).with_columns(heads=heads)  # fmt: skip


@pytest.fixture(scope="module")
def inputs():
    log = with_split(random_feed_log(n_requests=600).drop("split"), train_days=3)
    return toy_feed(log=log)


@pytest.fixture(scope="module")
def truth():
    """A truth that is the number of the candidate's column for every response."""
    return lambda part: np.where(
        (part.candidates != PAD)[..., None],
        np.arange(part.candidates.shape[1])[None, :, None] * np.ones(len(RESPONSES)),
        np.nan,
    ).astype(np.float32)


@pytest.fixture(scope="module")
def judge(inputs, truth):
    return judge_of(inputs, frame_of(inputs, "probabilities", 3), truth, 3, OPTIONS)


@pytest.fixture(scope="module")
def bootstrap(judge):
    return judge.bootstrap()


def value(rows, metric, group, weighting=""):
    (found,) = [r for r in rows if (r.metric, r.group, r.weighting) == (metric, group, weighting)]
    return found.value


def test_rows_are_those_that_the_decisions_showed(inputs):
    part = logged_part(inputs, TEST)
    decisions = inputs.decisions
    standard = (decisions.split == TEST) & ~decisions.is_rand
    assert part.decision.tolist() == torch.nonzero(standard).squeeze(1).tolist()
    assert len(part.of_row) == int(decisions.shown[standard].sum())
    for n in range(0, len(part.of_row), 17):
        d, c = part.decision[part.of_row[n]], part.column[n]
        assert decisions.shown[d, c]
        np.testing.assert_array_equal(part.response[n], decisions.response[d, c].double())
    random = logged_part(inputs, TEST, is_random=True)
    assert len(random.decision) and decisions.is_rand[random.decision].all()


def test_an_episode_is_a_chain_of_links(inputs):
    everything = [logged_part(inputs, s, is_random=r) for s in (0, VAL, TEST) for r in (False, True)]  # fmt: skip
    episode = dict(
        pair for p in everything for pair in zip(p.decision.tolist(), p.episode.tolist(), strict=True)
    )  # fmt: skip
    following = inputs.decisions.next.tolist()
    assert all(episode[d] == episode[n] for d, n in enumerate(following) if n >= 0)
    assert len(set(episode.values())) == sum(n < 0 for n in following)


def test_the_estimated_logging_policy_is_worth_the_mean_of_the_log(judge, bootstrap):
    rows = evaluate.value_rows("x", judge.behaviour[1], judge, bootstrap, {})
    logged = evaluate.logged_rows(judge, bootstrap)
    for response in RESPONSES:
        mean = value(logged, "on_policy", response)
        for metric in ("ncis", "snipw", "ncis-trajectory"):
            assert value(rows, metric, response) == pytest.approx(mean), (metric, response)
        assert value(rows, "ess", response, "ncis") == pytest.approx(len(judge.test.of_row))


def test_ncis_by_hand(judge, bootstrap):
    """Σ min(w, c) r / Σ min(w, c) with w = π_e / π̂_b of what was shown."""
    policy = softened(np.where(judge.test.candidates == PAD, -np.inf, judge.test.candidates), 9.0)
    rows = evaluate.value_rows("x", policy, judge, bootstrap, {})
    part = judge.test
    weight = np.minimum(
        part.of_shown(policy) / np.maximum(part.of_shown(judge.behaviour[1]), 1e-4), OPTIONS.cap
    )
    for k, response in enumerate(RESPONSES):
        expected = (weight * part.response[:, k]).sum() / weight.sum()
        assert value(rows, "ncis", response) == pytest.approx(expected)
    capped = np.minimum(part.response[:, WATCH_TIME], 180.0)
    assert value(rows, "ncis", evaluate.CAPPED_WATCH) == pytest.approx((weight * capped).sum() / weight.sum())  # fmt: skip
    assert {r.weighting for r in rows if r.weighting.startswith("cap ")} == {"cap 1", "cap 10", "cap inf"}  # fmt: skip


def test_the_bandit_value_is_the_truth_under_the_policy(judge, bootstrap):
    """All mass on column 2 of a truth that is the column's number."""
    policy = np.zeros(judge.test.candidates.shape)
    policy[:, 2] = 1.0
    rows = evaluate.bandit_rows("x", policy, judge, bootstrap, {})
    assert [r.value for r in rows] == pytest.approx([2.0] * len(RESPONSES))


def test_random_exposures_need_no_model(judge, bootstrap):
    """Equal chances to all candidates are the policy that made them: every weight is 1."""
    part = judge.random
    policy = softened(np.where(part.candidates == PAD, -np.inf, 0.0), 1.0)
    rows = evaluate.random_rows("x", policy, judge, bootstrap)
    for k, response in enumerate(RESPONSES):
        assert value(rows, "ncis", response) == pytest.approx(part.response[:, k].mean())
        assert value(rows, "ess", response, "ncis") == pytest.approx(len(part.of_row))
        assert value(rows, "mean_weight", response, "ncis") == pytest.approx(1.0)


def test_policies_are_as_random_on_val_as_the_one_that_logged(inputs, judge, bootstrap):
    frame = frame_of(inputs, "scores", 5)
    judged = evaluate.judge_method("x", frame, judge, bootstrap)
    temperature = value(judged.main, "temperature", "all")
    at = np.searchsorted(frame["decision"].to_numpy(), judge.val.decision)
    policy = softened(frame["scores"].to_numpy()[at], temperature)
    assert mean_entropy(policy) == pytest.approx(mean_entropy(judge.behaviour[0]), abs=1e-6)
    assert set(judged.temperatures) == {"temperature x2"}


@pytest.mark.parametrize("k", [HATE, WATCH_TIME, 0], ids=["hate", "watch_time", "click"])
def test_a_score_that_knows_the_answer_orders_perfectly(judge, bootstrap, k):
    """For hate the answer is its absence."""
    part = judge.test
    scores = np.zeros(part.candidates.shape)
    sign = -1 if k == HATE else 1
    scores[part.of_row, part.column] = sign * part.response[:, k]
    rows = evaluate.ordering_rows("x", "gauc_final", scores, judge, bootstrap, {})
    assert value(rows, "gauc_final", RESPONSES[k], "impressions") == pytest.approx(1.0)


def test_a_head_is_judged_by_its_own_response_only(judge, bootstrap):
    heads = np.full(judge.test.response.shape, np.nan)
    heads[:, 1] = judge.test.response[:, 1]
    (row,) = evaluate.head_rows("x", heads, judge, bootstrap)
    assert (row.metric, row.group, row.value) == ("gauc_head", "like", 1.0)


def test_lists_hold_the_best_k(inputs, judge, bootstrap):
    """One item first everywhere where it stands: exposure and coverage follow."""
    part = judge.test
    scores = np.where(part.candidates == PAD, -np.inf, -part.candidates.astype(float))
    rows = evaluate.list_rows("x", scores, judge, bootstrap)
    best = np.sort(np.where(part.candidates == PAD, 10**6, part.candidates), axis=1)[:, :3]
    catalogue = np.unique(part.candidates[part.candidates != PAD])
    assert value(rows, "coverage@3", "all") == pytest.approx(len(np.unique(best)) / len(catalogue))


def test_predictions_of_another_feed_are_refused(inputs, judge, bootstrap):
    frame = frame_of(inputs, "scores").head(5)
    with pytest.raises(ValueError, match="predict again from the same tables"):
        evaluate.judge_method("x", frame, judge, bootstrap)


def test_the_context_of_the_logging_policy_does_not_know_its_answer(inputs):
    """L6: other responses and other shown items of the decision itself change nothing."""
    index = logged_part(inputs, TEST).decision[-20:]
    before = _contexts(inputs, torch.from_numpy(index))
    rows = inputs.rows
    changed = type(rows)(rows.item.clone(), rows.ts_ms, rows.response.clone(), rows.first)
    for d in index:
        own = slice(int(inputs.decisions.row[d]), int(rows.first[inputs.decisions.user[d] + 1]))
        changed.item[own], changed.response[own] = 0, 1.0
    after = [
        _contexts(type(inputs)(changed, inputs.decisions, inputs.users, inputs.items), torch.tensor([d]))
        for d in index[:1]
    ]  # fmt: skip
    np.testing.assert_array_equal(after[0][0], before[0])


def test_propensities_find_a_policy_that_prefers_one_item(inputs):
    """Shown is the candidate with the largest number: far likelier than chance after a short fit."""
    d = inputs.decisions
    best = d.candidates.argmax(1, keepdim=True)
    shown = torch.zeros_like(d.shown).scatter_(1, best, True)
    planted = type(inputs)(
        inputs.rows, type(d)(**(vars(d) | {"shown": shown})), inputs.users, inputs.items
    )
    options = BehaviourOptions(hidden=(32,), epochs=30, lr=0.01, batch_size=64)
    frame, report = logging_propensities(planted, options, "cpu")
    probabilities = frame["probabilities"].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1.0)
    val = report.row(by_predicate=pl.col("part") == "val", named=True)
    assert val["log_loss"] < 0.6 * val["log_loss_uniform"] and val["top1"] > 0.5
    candidates = d.candidates[torch.from_numpy(frame["decision"].to_numpy().astype(int))].numpy()
    assert (probabilities[candidates == PAD] == 0).all()


def test_the_slope_over_days_is_that_of_the_daily_values(inputs, judge, bootstrap):
    rows = horizon_rows({"x": frame_of(inputs, "scores", 7)}, judge, inputs, bootstrap)
    days = [(int(r.weighting.removeprefix("day ")), r.value) for r in rows if r.weighting and (r.metric, r.group) == ("gauc_final", "watch_time")]  # fmt: skip
    slope = value(rows, "gauc_final slope", "watch_time")
    assert len(days) >= 2
    assert slope == pytest.approx(np.polyfit(*zip(*days, strict=True), 1)[0])
