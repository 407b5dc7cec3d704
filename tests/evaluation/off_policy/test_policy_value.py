import math

import numpy as np
import polars as pl
import pytest

from reelrank.evaluation.off_policy import (
    OffPolicyOptions,
    estimate_policy_value,
    gaussian_index_diagnostic,
    policy_probabilities,
    softened,
)
from reelrank.evaluation.off_policy.reward_model import action_means
from reelrank.evaluation.results import results_frame
from reelrank.evaluation.uncertainty import UserBootstrap, paired
from reelrank.tables import Results

EVERY = (
    "ipw", "snipw", "sg-ipw", "dm", "dr", "sndr", "switch-dr", "dr-os", "sg-dr",
    "ncis", "ncis-trajectory", "piece-ncis", "mips",
)  # fmt: skip
QUICK = OffPolicyOptions(replicates=50, caps=(2.0, math.inf))
N_ACTIONS = 4
CATEGORIES = np.array([0, 0, 1, 1])


@pytest.fixture
def world():
    """A log of known propensities, a better policy, and the policy's true value."""
    rng = np.random.default_rng(1)
    n = 6_000
    user = rng.integers(0, 300, n)
    taste = rng.normal(size=(300, N_ACTIONS))[user]
    behaviour, policy = softened(taste, 1.0), softened(taste + np.array([0, 0, 0.5, 1]), 1.0)
    mean = 0.2 + 0.15 * np.arange(N_ACTIONS)
    action = (behaviour.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    log = pl.DataFrame(
        {
            "user_id": user,
            "action": action,
            "reward": (rng.random(n) < mean[action]).astype(np.int8),
            "propensity": np.take_along_axis(behaviour, action[:, None], axis=1)[:, 0],
            "session": np.arange(n) // 2 % 2,
            "category": CATEGORIES[action],
        }
    )
    return log, policy, behaviour, float((policy @ mean).mean())


def test_every_estimator_finds_the_planted_value(world):
    log, policy, behaviour, truth = world
    # weights of two steps at most, and rewards that depend on the action alone
    log = log.with_columns(session=pl.int_range(pl.len()))
    table = estimate_policy_value(
        log, policy, EVERY, context_value=behaviour[:, 3], behaviour=behaviour,
        reward_model=np.full(policy.shape, 0.4),
        options=OffPolicyOptions(replicates=300, cap=100, caps=()),
    )  # fmt: skip
    assert table.on_policy.value == pytest.approx(log["reward"].mean())
    for one in table:
        error = abs(one.estimate.value - truth)
        standard_error = one.estimate.replicates.std()
        if one.name == "dm":
            assert one.estimate.value == pytest.approx(0.4)  # what it was told
        elif one.name != "mips":  # inside a category, rewards differ: biased
            assert error < 4 * standard_error, one.name
            assert one.estimate.reliable, one.reasons
    assert table["ipw"].estimate.value - table.on_policy.value > 0.02


def test_marginal_weights_serve_where_the_category_decides(world):
    log, policy, behaviour, _ = world
    by_category = np.array([0.1, 0.1, 0.7, 0.7])
    rng = np.random.default_rng(2)
    log = log.with_columns(reward=rng.random(len(log)) < by_category[log["action"].to_numpy()])
    given = {"behaviour": behaviour, "options": QUICK}
    table = estimate_policy_value(log, policy, ["mips", "ipw"], **given)
    truth = float((policy @ by_category).mean())
    assert abs(table["mips"].estimate.value - truth) < 4 * table["mips"].estimate.replicates.std()
    assert table["mips"].diagnostics.ess > table["ipw"].diagnostics.ess
    again = estimate_policy_value(log.drop("category"), policy, ["mips"], categories=CATEGORIES, **given)  # fmt: skip
    assert again["mips"].estimate.value == pytest.approx(table["mips"].estimate.value)
    names = estimate_policy_value(
        log.with_columns(pl.col("category").replace_strict({0: "music", 1: "sport"})), policy, ["mips"], **given
    )  # fmt: skip
    assert names["mips"].estimate.value == pytest.approx(table["mips"].estimate.value)


def test_the_logging_policy_earns_what_was_logged(world):
    log, _, behaviour, _ = world
    names = ("ipw", "snipw", "ncis", "ncis-trajectory", "sg-ipw")
    table = estimate_policy_value(log, behaviour, names, options=QUICK)
    for one in table:
        assert one.estimate.value == pytest.approx(log["reward"].mean(), abs=1e-12)
        np.testing.assert_allclose(one.estimate.replicates, table.on_policy.replicates)
        assert one.diagnostics.ess == pytest.approx(len(log)) and one.diagnostics.clip_fraction == 0


def test_replay_of_a_uniform_log_and_of_another(world):
    log, policy, _, _ = world
    greedy = np.eye(N_ACTIONS)[policy.argmax(axis=1)]
    matched = policy.argmax(axis=1) == log["action"].to_numpy()
    uneven = estimate_policy_value(log, greedy, ["rm"], options=QUICK)["rm"]
    assert uneven.estimate.value == pytest.approx(log["reward"].to_numpy()[matched].mean())
    assert uneven.diagnostics.ess == pytest.approx(matched.sum())
    assert "uniform" in uneven.reasons[-1] and not uneven.estimate.reliable
    even = log.with_columns(propensity=0.25)
    reasons = estimate_policy_value(even, greedy, ["rm"], options=QUICK)["rm"].reasons
    assert not any("uniform" in reason for reason in reasons)
    # a deterministic policy on its own log
    own = log.with_columns(propensity=1.0)
    logged = np.eye(N_ACTIONS)[log["action"].to_numpy()]
    value = estimate_policy_value(own, logged, ["rm"], options=QUICK)["rm"].estimate.value
    assert value == pytest.approx(log["reward"].mean())
    with pytest.raises(ValueError, match="rm replays a deterministic policy"):
        estimate_policy_value(log, policy, ["rm"])


def test_the_forms_of_a_policy_agree(world):
    log, policy, _, _ = world
    own = np.take_along_axis(policy, log["action"].to_numpy()[:, None], axis=1)[:, 0]
    order = np.array([2, 0, 3, 1])
    lists = log.with_columns(candidates=pl.lit(pl.Series([order * 10])).first(), action=pl.col("action") * 10)  # fmt: skip
    values = [
        estimate_policy_value(*args, ["ncis", "dr"][: 1 + (args[1] is not own)], options=QUICK)
        for args in (
            (log, policy), (log, own), (log, lambda frame: policy[: len(frame)]), (lists, policy[:, order]),
        )
    ]  # fmt: skip
    for other in values[1:]:
        np.testing.assert_allclose(
            other["ncis"].estimate.replicates, values[0]["ncis"].estimate.replicates
        )
    assert values[3]["dr"].estimate.value == pytest.approx(values[0]["dr"].estimate.value)
    with pytest.raises(ValueError, match=r"dr: π_e of every action is needed"):
        estimate_policy_value(log, own, ["dr"])


def test_candidates_of_different_lengths():
    log = pl.DataFrame(
        {
            "user_id": ["a", "b", "b"],
            "action": [30, 7, 8],
            "candidates": [[10, 20, 30], [7], [9, 8]],
            "propensity": [0.5, 1.0, 0.25],
            "reward": [1.0, 2.0, 4.0],
        }
    )
    policy = np.array([[0.5, 0.25, 0.25], [1, 0, 0], [0.5, 0.5, 0]])
    table = estimate_policy_value(log, policy, ["ipw"], options=QUICK)
    # weights .25/.5, 1/1, .5/.25
    assert table["ipw"].estimate.value == pytest.approx((0.5 * 1 + 1 * 2 + 2 * 4) / 3)
    assert table.n_users == 2


def test_caps_of_the_sweep(world):
    log, policy, _, _ = world
    options = OffPolicyOptions(replicates=20, caps=(1, 2, 5, 10, 20, 50, 100, math.inf))
    table = estimate_policy_value(log, policy, ["ncis", "snipw", "ipw"], options=options)
    ncis, ipw = (table.sweep.filter(estimator=name) for name in ("ncis", "ipw"))
    assert ncis["cap"].to_list() == list(options.caps) and table.sweep.height == 16
    assert ncis["value"][3] == pytest.approx(table["ncis"].estimate.value)
    assert ncis["value"][-1] == pytest.approx(table["snipw"].estimate.value)
    assert ipw["value"][-1] == pytest.approx(table["ipw"].estimate.value)
    assert ipw["value"].is_sorted() and ncis["clip_rate"].is_sorted(descending=True)


def test_two_policies_on_shared_resamples_are_paired(world):
    log, policy, behaviour, _ = world
    bootstrap = UserBootstrap(log["user_id"], 200)
    better, same = (
        estimate_policy_value(log, p, ["snipw"], bootstrap=bootstrap, options=QUICK)["snipw"].estimate
        for p in (policy, behaviour)
    )  # fmt: skip
    difference = paired(better, same)
    assert difference.ci_low > 0 and difference.p_value < 0.05
    assert difference.ci_high - difference.ci_low < better.ci_high - better.ci_low


def test_a_thin_overlap_is_said(world):
    log, _, _, _ = world
    greedy = np.eye(N_ACTIONS)[np.full(len(log), 3)]
    thin = log.with_columns(propensity=pl.when(action=3).then(0.001).otherwise(0.3))
    table = estimate_policy_value(thin, greedy, ["ipw", "dm"], options=QUICK)
    assert not table["ipw"].estimate.reliable
    assert any("mean weight" in reason for reason in table["ipw"].reasons)
    assert any("ipw is not reliable: mean weight" in warning for warning in table.warnings)
    assert any("dm rests on q̂ alone" in warning for warning in table.warnings)
    never = np.eye(N_ACTIONS)[(log["action"].to_numpy() + 1) % N_ACTIONS]
    nothing = estimate_policy_value(log, never, ["snipw", "ipw"], options=QUICK)
    assert math.isnan(nothing["snipw"].estimate.value) and nothing["ipw"].estimate.value == 0
    assert not any(one.estimate.reliable for one in nothing)
    assert "not defined" in nothing["snipw"].reasons[-1]


def test_one_user_has_no_interval(world):
    log, policy, _, _ = world
    table = estimate_policy_value(log.with_columns(user_id=1), policy, ["ncis"], options=QUICK)
    assert math.isnan(table["ncis"].estimate.ci_low) and not table["ncis"].estimate.reliable


def test_shown_and_stored(world):
    log, policy, _, _ = world
    table = estimate_policy_value(log, policy, ["ncis", "dm"], options=QUICK)
    text = repr(table)
    assert "6,000 logged actions of 300 users" in text and "! dm rests on" in text
    line = next(line for line in text.splitlines() if line.startswith("ncis "))
    assert f"{table['ncis'].estimate.value:.4g}" in line and line.endswith("yes")
    frame = table.frame()
    assert frame["estimator"].to_list() == ["ncis", "dm"]
    assert frame["ess"][0] == table["ncis"].diagnostics.ess
    rows = results_frame(
        table.rows("greedy", group="click"), system="ope", source="sample", split="all", seed=0,
        data_kind="world", config_hash="abc",
    )  # fmt: skip
    Results.validate(rows)
    assert rows["metric"].to_list() == ["ncis", "ess", "clip_rate", "dm", "ess", "clip_rate"]
    assert rows["weighting"].to_list() == ["", "ncis", "ncis", "", "dm", "dm"]
    assert rows.filter(metric="ncis")["ci_low"].item() == table["ncis"].estimate.ci_low
    with pytest.raises(KeyError, match="snipw was not asked for"):
        table["snipw"]


ROW = {"user_id": 1, "action": 1, "reward": 1.0, "propensity": 0.5, "candidates": [5, 1], "session": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"propensity": 0.0}, "propensity is not in (0, 1]"),
        ({"propensity": -0.1}, "propensity is not in (0, 1]"),
        ({"propensity": 1.01}, "propensity is not in (0, 1]"),
        ({"propensity": math.nan}, "propensity is not in (0, 1]"),
        ({"propensity": None}, "propensity is not in (0, 1]"),
        ({"reward": math.nan}, "reward is not a finite number"),
        ({"reward": math.inf}, "reward is not a finite number"),
        ({"reward": None}, "reward is not a finite number"),
        ({"user_id": None}, "user_id is null"),
        ({"session": None}, "session is null"),
        ({"action": None}, "action is null"),
        ({"action": 2}, "action is outside the policy's actions"),
        ({"candidates": [1, 1]}, "candidates hold an item twice"),
        ({"candidates": []}, "no candidates"),
        ({"candidates": None}, "no candidates"),
        ({"candidates": [1]}, "π_e has mass beyond the candidates"),
        ({"policy": [math.nan, 1.0]}, "π_e is not a probability"),
        ({"policy": [-0.5, 1.5]}, "π_e is not a probability"),
        ({"policy": [0.5, 0.4]}, "π_e does not sum to 1"),
    ],
)
def test_a_bad_row_is_named_or_counted(change, reason):
    rows = [ROW | {"user_id": k, "session": k} for k in range(4)]
    policy = np.full((4, 2), 0.5)
    policy[2] = change.get("policy", [0.5, 0.5])
    rows[2] |= {k: v for k, v in change.items() if k != "policy"}
    log = pl.DataFrame(rows)
    with pytest.raises(ValueError) as error:
        estimate_policy_value(log, policy, ["ipw"], options=QUICK)
    assert str(error.value).startswith(f"row 2: {reason}")
    table = estimate_policy_value(log, policy, ["ipw"], options=QUICK, on_bad_rows="exclude")
    assert table.excluded == {reason: 1} and table["ipw"].estimate.n == 3
    assert f"1 of the log's rows excluded: {reason}" in table.warnings
    assert table["ipw"].estimate.value == pytest.approx(1.0)


def test_a_session_with_a_bad_row_is_left_out_whole():
    log = pl.DataFrame([ROW | {"user_id": k, "session": s} for k in range(3) for s in (0, 0, 1)])
    log[1, "reward"] = math.nan
    policy = np.full((9, 2), 0.5)
    table = estimate_policy_value(
        log, policy, ["ncis-trajectory"], options=QUICK, on_bad_rows="exclude"
    )
    assert table["ncis-trajectory"].estimate.n == 7
    assert table.excluded == {
        "reward is not a finite number": 1,
        "in the session of a row that is excluded": 1,
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log, p: estimate_policy_value(log.head(0), p[:0]), "the log is empty"),
        (lambda log, p: estimate_policy_value(log.drop("propensity"), p), r"lacks \['propensity'\]"),
        (lambda log, p: estimate_policy_value(log, p, reward="likes"), r"lacks \['likes'\]"),
        (lambda log, p: estimate_policy_value(log, p[:-1]), "the log has 6000 rows"),
        (lambda log, p: estimate_policy_value(log, p, ["ips"]), "choose some of"),
        (lambda log, p: estimate_policy_value(log, p, ["ipw", "ipw"]), "once"),
        (lambda log, p: estimate_policy_value(log, p, []), "choose some of"),
        (lambda log, p: estimate_policy_value(log, p, ["ncis_gaussian_index"]), "a diagnostic, not"),
        (lambda log, p: estimate_policy_value(log, p, ["piece-ncis"]), "needs context_value"),
        (lambda log, p: estimate_policy_value(log, p, ["mips"]), "needs behaviour"),
        (lambda log, p: estimate_policy_value(log.drop("session"), p, ["ncis-trajectory"]), "session"),
        (
            lambda log, p: estimate_policy_value(log.drop("category"), p, ["mips"], behaviour=p),
            "needs categories",
        ),
        (
            lambda log, p: estimate_policy_value(
                log.with_columns(category=pl.int_range(pl.len())), p, ["mips"], behaviour=p
            ),
            "action 0 has no category, or several",
        ),
        (lambda log, p: estimate_policy_value(log, p, ["dr"], reward_model=p[:, 1:]), "reward_model is"),
        (
            lambda log, p: estimate_policy_value(
                log, p, ["piece-ncis"], context_value=np.append(np.zeros(5999), np.nan)
            ),
            "row 5999: context_value is not finite",
        ),
        (
            lambda log, p: estimate_policy_value(log.with_columns(candidates=pl.lit("0 1 2")), p),
            "candidates must hold lists of integers, not String",
        ),
        (
            lambda log, p: estimate_policy_value(log.with_columns(pl.col("action").cast(pl.Float64)), p),
            "action must be of integers",
        ),
        (
            lambda log, p: estimate_policy_value(
                log.with_columns(candidates=pl.lit(pl.Series([[0, 1, 2, 3, 4]])).first()), p
            ),
            "row 0: 5 candidates, the policy has 4 columns",
        ),
        (
            lambda log, p: estimate_policy_value(
                log.with_columns(propensity=0.0), p, on_bad_rows="exclude"
            ),
            "no row of the log is left",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_estimated_is_said(world, call, message):
    log, policy, _, _ = world
    with pytest.raises(ValueError, match=message):
        call(log, policy)


def test_row_order_does_not_matter(world):
    log, policy, behaviour, _ = world
    order = np.random.default_rng(0).permutation(len(log))
    names = [name for name in EVERY if name != "ncis-trajectory"]
    a, b = (
        estimate_policy_value(
            log[rows], policy[rows], names, context_value=behaviour[rows, 3], behaviour=behaviour[rows], options=QUICK
        )
        for rows in (np.arange(len(log)), order)
    )  # fmt: skip
    for one in a:
        np.testing.assert_allclose(
            b[one.name].estimate.replicates, one.estimate.replicates, rtol=1e-9
        )


def test_the_fitted_reward_model_has_not_seen_the_user():
    # a user's own rewards must not move his predictions
    user = np.repeat(np.arange(40), 3)
    position = np.tile([0, 1, 1], 40)
    actions = np.tile([4, 9, 6], (120, 1))
    reward = np.random.default_rng(0).random(120)
    before = action_means(user, position, actions, reward)
    changed = np.where(user == 7, reward + 100, reward)
    after = action_means(user, position, actions, changed)
    np.testing.assert_allclose(after[user == 7], before[user == 7])
    assert (after[user != 7] > before[user != 7] + 0.1).any()
    # never logged: the mean of the other folds; enough rows: the action's own mean
    assert before[:, 2].std() < 0.1
    many = action_means(np.arange(4000), np.tile([0, 1], 2000), np.tile([4, 9], (4000, 1)), np.tile([0.0, 1], 2000))  # fmt: skip
    np.testing.assert_allclose(many[0], [0, 1], atol=0.005)


def test_the_index_diagnostic_is_never_reliable():
    rng = np.random.default_rng(0)
    index = rng.integers(0, 150, 5_000)
    reward = rng.normal(10, 1, 5_000)
    same = gaussian_index_diagnostic(np.arange(5_000) % 200, reward, index, index, index)
    assert same.estimate.value == pytest.approx(reward.mean())
    assert not same.estimate.reliable and "ranks" in same.reasons[0]
    # METHODS §7.2: two unlike policies, and still it hardly moves
    other = gaussian_index_diagnostic(
        np.arange(5_000) % 200, reward, index, np.full(5_000, 20), np.full(5_000, 60)
    )
    assert abs(other.estimate.value - same.estimate.value) < 0.1
    with pytest.raises(ValueError, match="finite and of one length"):
        gaussian_index_diagnostic([1], [1.0], [np.nan], [1], [1])


class Ranker:
    """Scores an item by its id."""

    def probabilities(self, inputs, users, items, ts, temperature):
        assert users.shape == ts.shape == items.shape[:1] and inputs.device.type == "cpu"
        return (items.double() / temperature).softmax(dim=1)


class Inputs:
    def __init__(self):
        import torch

        self.device = torch.device("cpu")


def test_a_ranking_model_is_a_policy():
    log = pl.DataFrame(
        {
            "user_id": [0, 0, 1], "ts_ms": [1, 2, 3], "action": [3, 0, 1], "reward": [1.0, 0, 1],
            "candidates": [[0, 3], [1, 0], [2, 1]], "propensity": [0.5] * 3,
        }
    )  # fmt: skip
    policy = policy_probabilities(Ranker(), Inputs(), 2.0, rows_at_once=2)
    np.testing.assert_allclose(policy(log), softened([[0, 3], [1, 0], [2, 1]], 2.0))
    assert estimate_policy_value(log, policy, ["ipw"], options=QUICK)["ipw"].estimate.n == 3
    with pytest.raises(ValueError, match="as many candidates"):
        policy(log.with_columns(candidates=pl.Series([[0, 3], [1], [2, 1]])))
