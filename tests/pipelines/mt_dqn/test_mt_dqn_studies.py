"""A cell changes exactly what it names; variants, consequences and monitors worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from support.model_inputs import N_ITEMS, TINY, batch, model_inputs
from support.toy_log import toy_events, toy_inputs, toy_sampler

from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.rewards import RewardOptions
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import Outputs, RankingModel
from reelrank.models.registry import build
from reelrank.pipelines.mt_dqn import learning as steps
from reelrank.pipelines.mt_dqn.consequences import Consequences, consequences, tastes_at
from reelrank.pipelines.mt_dqn.evaluate import Key
from reelrank.pipelines.mt_dqn.heads import ActionOutputs
from reelrank.pipelines.mt_dqn.learning import LearningContext, TargetNetwork, taken_q
from reelrank.pipelines.mt_dqn.options import EvaluateOptions, LearningOptions
from reelrank.pipelines.mt_dqn.studies import _key
from reelrank.pipelines.mt_dqn.study_measures import (
    Judged,
    Measures,
    World,
    dependency_terciles,
    monitor_rows,
    spread_of,
)
from reelrank.pipelines.mt_dqn.study_options import NOTHING, Cell, Setting, StudyOptions, changed
from reelrank.pipelines.mt_dqn.validation import fusion_evenness
from reelrank.training.options import TrainOptions

OWN = Setting("mt_dqn", TINY["mt_dqn"], LearningOptions(), TrainOptions(), RewardOptions(), NOTHING)


def differs(setting):
    """Paths of the options that differ from the run's own."""

    def leaves(value, path=()):
        if isinstance(value, dict):
            return {
                k: v for key, sub in value.items() for k, v in leaves(sub, (*path, key)).items()
            }
        return {".".join(path): value}

    def flat(one):
        return {
            f"{name}.{k}" if k else name: v
            for name, block in one._asdict().items()
            for k, v in leaves(block if isinstance(block, str) else block.model_dump()).items()
        }

    own, other = flat(OWN), flat(setting)
    return {k for k in own.keys() | other.keys() if own.get(k) != other.get(k)}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({}, set()),
        ({"model": {"fusion": {"gate": "even"}}}, {"model.fusion.gate"}),
        ({"model": {"tgnn": {"kind": "last_items"}}}, {"model.tgnn.kind"}),
        ({"learning": {"double": True}}, {"learning.double"}),
        ({"reward": {"gamma": 0.8}}, {"reward.gamma", "learning.gamma"}),
        ({"reward": {"lambda_interest": 0.0}}, {"reward.lambda_interest"}),
        ({"reward": {"lambda_retention": 1.0}}, {"reward.lambda_retention", "learning.r_max"}),
        ({"base": "mt_dqn_supervised"}, {"base", "model.behaviour_weights"}),
        ({"perturb": {"absent": ["audio"]}}, {"perturb.absent"}),
        ({"model": {"tgnn": {"kind": "pyg_tgn"}}}, {"model.tgnn.kind"}),
        ({"perturb": {"rewired_follows": True}}, {"perturb.rewired_follows"}),
        ({"perturb": {"lag": {"seconds": 2}}, "at": "test"}, set()),
        ({"perturb": {"noise": {"snr_db": 0}}, "at": "test"}, set()),
    ],
)
def test_a_cell_changes_what_it_names_and_nothing_else(cell, expected):
    found = changed(OWN, Cell(**cell))
    assert differs(found) == expected
    assert (_key(found) == _key(OWN)) == (not expected)


def test_the_largest_reward_is_made_room_for():
    found = changed(OWN, Cell(reward={"lambda_retention": 1.0, "lambda_interest": 0.5}))
    assert found.learning.r_max == 3.5


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"model": {"fusoin": {}}}, "fusoin"),
        ({"learning": {"gamma": 0.5}}, "must be equal"),
        ({"perturb": {"permuted_times": True}, "at": "test"}, "at must be train_and_test"),
    ],
)
def test_what_cannot_be_is_refused(cell, message):
    with pytest.raises(ValueError, match=message):
        changed(OWN, Cell(**cell))


def test_a_study_is_run_whole_or_cell_by_cell():
    cells = {"MT-02": {"a": {}, "b": {}}, "MT-04": {"c": {}, "d": {"against": "c"}}}
    assert StudyOptions(run=["MT-02.b", "MT-04"], cells=cells).chosen() == [
        ("MT-02", "b"), ("MT-04", "c"), ("MT-04", "d"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"run MT-04\.c too"):
        StudyOptions(run=["MT-04.d"], cells=cells)
    with pytest.raises(ValueError, match="MT-99"):
        StudyOptions(run=["MT-99"], cells=cells)


def test_a_spread_names_earlier_cells_of_its_own_kind():
    cells = {"a": {}, "b": {}, "s": {"over": ["a", "b"]}, "t": {"over": ["b", "a"], "against": "s"}}
    names = [name for _, name in StudyOptions(run=["MT-08"], cells={"MT-08": cells}).chosen()]
    assert names == ["a", "b", "s", "t"]
    for wrong, message in (
        ({"a": {}, "s": {"over": ["a", "c"]}}, "over 'c' must name an earlier cell"),
        ({"a": {}, "s": {"over": ["a"]}}, "needs two cells"),
        ({"a": {}, "b": {}, "s": {"over": ["a", "b"], "learning": {"double": True}}}, "no options of its own"),
        ({**cells, "u": {"against": "s"}}, "not with s"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            StudyOptions(cells={"MT-08": wrong})
    with pytest.raises(ValueError, match=r"run MT-08\.a too: s measures it"):
        StudyOptions(run=["MT-08.s"], cells={"MT-08": cells})


def test_the_spread_of_errors_by_hand():
    users = measures().users
    rows = np.linspace(0, 1, 20)
    cells = [Judged({Key("value_mse", "on_policy"): users.mean(range(20), rows * scale), Key("f1"): users.mean(range(20), rows)}, None) for scale in (1, 2, 4)]  # fmt: skip
    ((key, found),) = spread_of(cells).estimates.items()
    assert key == Key("value_mse_spread", "on_policy")
    assert found.value == pytest.approx(0.5 * np.std([1, 2, 4], ddof=1))
    # a resample's spread is that of its own three means, which are of one mean
    scale = cells[0].estimates[Key("value_mse", "on_policy")].replicates
    np.testing.assert_allclose(found.replicates, scale * np.std([1, 2, 4], ddof=1))


def built(cell=None):
    inputs = model_inputs()
    setting = changed(OWN, cell or Cell())
    torch.manual_seed(0)
    model = build(setting.base, setting.model, InputSpec.of(inputs), RankingModel).eval()
    model.requires_grad_(False).refresh(inputs)
    return model, inputs


def test_without_layers_every_modality_is_the_mean_of_its_own_tokens():
    model, inputs = built(Cell(model={"fusion": {"layers": 0}}))
    tokens = inputs.items
    e, _ = model.fusion._embed(tokens)
    parts = torch.split(model.fusion.norm(e), [m.x.shape[1] for m in tokens.modalities], dim=1)
    z = torch.stack(
        [
            torch.stack([part[i][m.mask[i]].mean(0) for i in range(N_ITEMS)])
            for part, m in zip(parts, tokens.modalities, strict=True)
        ],
        dim=1,
    )
    fused = model.fusion(tokens)
    expected = model.fusion.out((fused.gate.unsqueeze(-1) * z).sum(1))
    torch.testing.assert_close(fused.f, expected)
    assert model.fusion.attention_mass(tokens).shape == (0, 2, 3, 3)
    assert math.isnan(fusion_evenness(model, inputs)["attention_entropy"])


def test_an_even_gate_is_a_mean_over_what_is_present():
    model, _ = built(Cell(model={"fusion": {"gate": "even"}}))
    gate = model.fusion(model_inputs(absent=((1, "audio"), (2, "visual"), (2, "audio"), (2, "text"))).items).gate  # fmt: skip
    third = [1 / 3] * 3
    expected = torch.tensor([third, [0.5, 0, 0.5], [0, 0, 0], third])
    torch.testing.assert_close(gate[:4], expected)
    assert not any("gate" in name for name, _ in model.named_parameters())


def test_without_a_graph_a_user_is_its_attributes_and_its_last_items():
    model, inputs = built(Cell(model={"tgnn": {"kind": "last_items", "last": 2}}))
    stream, graph = inputs.stream, model.tgnn
    user, now = stream.user[-1:], stream.ts_ms[-1:]
    own = (stream.user == user) & (stream.ts_ms < now)
    items = stream.item[own][-2:]
    mean = model.item_memory[items].mean(0, keepdim=True)
    expected = graph.norm(graph.user_base(inputs.users.codes[user]) + graph.item_base(mean))
    torch.testing.assert_close(model.user_state(inputs, user, now), expected)
    # an item is itself, at any time
    states = model.item_state(inputs, torch.tensor([3, 3]), torch.stack([now[0], stream.ts_ms[0]]))
    assert torch.equal(states[0], states[1])
    # before its first event
    early = model.user_state(inputs, user, stream.ts_ms[:1])
    torch.testing.assert_close(
        early, graph.norm(graph.user_base(inputs.users.codes[user]) + graph.item_base.bias)
    )


def test_the_default_model_has_the_parts_that_it_had():
    model, _ = built()
    names = {name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("tgnn")}
    assert names == {"user_base", "item_base", "norm", "feedback", "content", "time", "layers"}
    assert model.fusion.gate.weight.shape == (3, 24)
    assert model.heads.q.weight.shape == (1, 4)


def test_the_supervised_variant_ranks_by_its_behaviours():
    model, inputs = built(Cell(base="mt_dqn_supervised"))
    out = model(inputs, *batch(inputs))
    p = torch.sigmoid(out.behaviour_logits)
    torch.testing.assert_close(out.q, p[..., 0] + 0.5 * p[..., 1] + 0.5 * p[..., 2])
    assert not model.learns_q


def test_the_action_is_the_rarest_behaviour_that_was_observed():
    model, inputs = built(Cell(base="mt_dqn_behaviours"))
    out = model(inputs, *batch(inputs))
    assert isinstance(out, ActionOutputs) and model.learns_q
    assert out.q_actions.shape == (5, 4, 3)
    assert torch.equal(out.q, out.q_actions.max(-1).values)
    nan = math.nan
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0], [nan, nan, nan]])
    actions = (0, 1, 2, 0, 0)
    expected = torch.stack([out.q_actions[i, 0, a] for i, a in enumerate(actions)])
    assert torch.equal(taken_q(out, labels), expected)
    plain = Outputs(out.q, out.behaviour_logits, out.value, out.reward)
    assert torch.equal(taken_q(plain, labels), out.q[:, 0])


def test_behaviours_learn_from_what_was_observed():
    events = toy_events().with_columns(forward=pl.lit(1, pl.Int8))
    inputs = toy_inputs(events)
    torch.manual_seed(0)
    setting = changed(OWN, Cell(base="mt_dqn_behaviours", learning={"negatives": 0, "link_weight": 0}))  # fmt: skip
    model = build(setting.base, setting.model, InputSpec.of(inputs), RankingModel)
    model.refresh(inputs)
    context = LearningContext(
        TargetNetwork(model, setting.learning, inputs),
        inputs,
        toy_sampler(events),
        setting.learning,
    )
    rows = torch.nonzero(inputs.stream.trained_rows()).squeeze(1)[-20:]
    losses = steps.dqn_step(model.train(), rows, torch.Generator().manual_seed(0), context)
    losses["dqn"].backward()
    moved = model.heads.q.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, False, True]  # everything was shared


def test_tastes_are_those_of_the_reward_by_hand():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    events = pl.DataFrame(
        {"user_id": [0, 0, 0, 1], "item_id": [0, 1, 2, 2], "ts_ms": [1, 2, 3, 3], "long_view": [1, 0, 1, 1]}
    )  # fmt: skip
    contexts = pl.DataFrame({"user_id": [0, 0, 0, 1, 2], "ts_ms": [1, 3, 4, 3, 9]})
    # user 0: item 0, then item 2 with weight .1; strictly before, so its own time does not count
    expected = [[0, 0], [1, 0], [1.0, 0.1], [0, 0], [0, 0]]
    np.testing.assert_allclose(tastes_at(contexts, events, vectors, 0.1), expected)


class FixedTruth:
    """Long views by item, a reward that is their half, and a return with the felt mean."""

    def expected(self, users, items, ts, scenario):
        return {"long_view": items / 10}

    def expected_immediate_reward(self, users, items, ts, scenario, weights=None):
        return items / 10 * (0.5 if weights is None else weights["like"])

    def return_probability(self, felt):
        return felt


def test_what_lists_bring_by_hand():
    catalogue = pl.DataFrame(
        {"context_id": [7, 7, 7], "user_id": [0, 0, 0], "ts_ms": [5] * 3, "scenario": [1] * 3,
         "rank": [2, 1, 3], "item_id": [1, 0, 2]}
    )  # fmt: skip
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]], np.float32)
    brought = consequences(
        catalogue, FixedTruth(), np.array([[3.0, 0.0]]), vectors, np.array([0]), np.array([2, 6, 9]), 2, {"like": 1.0}
    )  # fmt: skip
    assert brought.long_view == pytest.approx([0.4])  # items 2 and 6 of the world
    assert brought.returning == pytest.approx([0.2])
    assert brought.immediate == pytest.approx([0.4])
    assert brought.interest == pytest.approx([0.5])  # along the taste, and across it
    reward = RewardOptions(lambda_retention=1.0, lambda_interest=0.5)
    assert brought.proxy(reward) == pytest.approx([0.4 + 0.2 / 2 + 0.25])


def measures(n=20):
    draws = UserBootstrap(range(n), 200, 0)
    empty = np.zeros(0, np.int64)
    return Measures(EvaluateOptions(k=5), World(None, empty, empty), draws, draws, pl.DataFrame())


def judged(found, n=20, *, long_view, interest, noise):
    jitter = np.linspace(-noise, noise, n)
    flat = np.zeros(n)
    users = np.arange(n, dtype=np.int32)
    brought = Consequences(users, long_view + jitter, flat, flat, interest + jitter, 5)
    keys = {"long_view": brought.long_view, "return": flat}
    estimates = {Key(f"true_{k}@5", "catalogue"): found.users.mean(users, v) for k, v in keys.items()}  # fmt: skip
    return Judged(estimates, brought)


@pytest.mark.parametrize(
    ("long_view", "interest", "weight", "hacked"),
    [(0.2, 0.9, 1.0, 1.0), (0.6, 0.9, 1.0, 0.0), (0.2, 0.9, 0.0, 0.0), (0.2, 0.1, 1.0, 0.0)],
)
def test_a_hacked_reward_rises_while_the_truth_falls(long_view, interest, weight, hacked):
    own = measures()
    rival = judged(own, long_view=0.5, interest=0.5, noise=0.01)
    cell = judged(own, long_view=long_view, interest=interest, noise=0.02)
    reward = RewardOptions(lambda_interest=weight)
    rows = own.hacking_rows("mt_dqn", cell, rival, "mt_dqn", reward)
    assert [r.metric for r in rows] == ["proxy_reward@5", "proxy_reward@5", "reward_hacking"]
    assert rows[1].value == pytest.approx(weight * (interest - 0.5))
    assert rows[2].value == hacked


def test_users_whose_views_follow_from_those_before_are_of_high_dependency():
    views = {
        0: [0, 1, 0, 1, 0, 1, 0],  # each follows from the one before: ln 2
        1: [0, 0, 1, 1, 0],  # every pair once: nothing
        2: [0, 0, 0, 1, 1, 1, 0],
        3: [1],  # no pair
    }
    events = pl.DataFrame(
        [(u, "train", y) for u, ys in views.items() for y in ys] + [(3, "test", 1)],
        schema=["user_id", "split", "long_view"],
        orient="row",
    )
    found = dict(dependency_terciles(events).sort("user_id").iter_rows())
    assert found == {0: "high", 1: "low", 2: "middle"}
    nothing = events.with_columns(long_view=pl.lit(None, pl.Int8), watch_ratio=pl.lit(None))
    assert dependency_terciles(nothing).is_empty()


def test_numbers_of_other_rows_are_not_compared():
    own = measures()
    same, other = Key("f1"), Key("ndcg@5")
    cell = Judged({k: own.users.mean(range(20), np.ones(20)) for k in (same, other)}, None)
    rival = Judged(
        {
            same: own.users.mean(range(20), np.zeros(20)),
            other: own.users.mean(range(9), np.zeros(9)),
        },
        None,
    )
    rows = own.rows("mt_dqn", cell, rival, "mt_dqn")
    assert [(r.metric, r.value) for r in rows if r.paired_with] == [("f1", 1.0)]


def test_monitors_are_those_of_the_last_epoch_and_every_warning_counts():
    history = pl.DataFrame(
        {"epoch": [1, 2], "step": [5, 10], "val_ndcg@5": [0.1, 0.2], "val_loss": [1.0, 0.9],
         "val_gate_entropy": [0.99, 0.5], "val_attention_entropy": [0.5, 0.6], "train_q_abs_max": [1.0, 300.0]}
    )  # fmt: skip
    rows = {r.metric: (r.value, r.n) for r in monitor_rows("mt_dqn", history, limit=10.0)}
    # the gate was even in the first epoch, and Q above 10 times its limit in the second
    assert rows == {
        "gate_entropy": (0.5, 10),
        "attention_entropy": (0.6, 10),
        "q_abs_max": (300.0, 10),
        "failure_warnings": (2.0, 10),
    }
