import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from support.toy_log import (
    CONFIGS,
    HOUR,
    T0,
    same,
    toy_events,
    toy_inputs,
    toy_model,
    toy_sampler,
)
from torch import nn

from reelrank.models.follow_graph import FollowGraph
from reelrank.models.inputs import InputSpec
from reelrank.models.negatives import NegativeSampler
from reelrank.models.policy import Outputs, RankingModel
from reelrank.models.registry import build
from reelrank.pipelines.mt_dqn import learning
from reelrank.pipelines.mt_dqn.learning import (
    LearningContext,
    TargetNetwork,
    dqn_step,
    draw_candidates,
    learn,
    levels_of,
    supervised_step,
)
from reelrank.pipelines.mt_dqn.lists import build_lists
from reelrank.pipelines.mt_dqn.losses import behaviour_losses, best_next, td_target
from reelrank.pipelines.mt_dqn.options import LearningOptions, ListOptions
from reelrank.pipelines.mt_dqn.validation import failure_warnings
from reelrank.training.device import products_in, seed_everything
from reelrank.training.options import TrainOptions

TRAINED = ("mt_dqn", "concat_modal", "vanilla_dqn")


class TableModel(RankingModel):
    """Q and value are read from a table by item, so that targets can be worked out by hand."""

    def __init__(self, spec, q, value):
        super().__init__(LearningOptions(), spec)
        self.q = nn.Parameter(torch.tensor(q))
        self.value = nn.Parameter(torch.tensor(value))

    def user_state(self, inputs, users, ts):
        return torch.zeros(len(users), 1)

    def item_state(self, inputs, items, ts):
        return items.unsqueeze(1)

    def head(self, user_state, item_state):
        item = item_state.squeeze(-1)
        return Outputs(
            q=self.q[item],
            behaviour_logits=torch.zeros(*item.shape, 3),
            value=self.value[item],
            reward=torch.zeros(item.shape),
        )


def three_rows(rewards=(1.0, None, 0.5)):
    """One user sees items 0, 1, 2 in one session; item 3 is never shown to anyone."""
    events = toy_events(n_users=1, n_items=4, sessions=1, rows=3)
    return events.with_columns(
        pl.Series("item_id", [0, 1, 2], dtype=pl.Int32),
        pl.Series("reward", rewards, dtype=pl.Float32),
        is_rand=pl.lit(0, pl.Int8),
    )


def table_context(options, available_at=T0 - HOUR, q_target=(0.0, 1.0, 2.0, 5.0), events=None):
    inputs = toy_inputs(three_rows() if events is None else events, n_users=1, n_items=4)
    spec = InputSpec.of(inputs)
    # only item 3 is ever drawn
    sampler = NegativeSampler.fit(
        np.array([T0 - HOUR] * 3 + [available_at]), np.array([0, 0, 0, 7])
    )
    model = TableModel(spec, [0.0, 1.0, 2.0, -3.0], [0.0, 0.1, 0.2, 0.3])
    table = TableModel(spec, list(q_target), [0.0, 0.1, 0.2, 0.3])
    target = TargetNetwork(table, options, inputs)
    return model, LearningContext(target, inputs, sampler, options)


def losses_of(model, context):
    generator = torch.Generator().manual_seed(0)
    return dqn_step(model, torch.arange(3), generator, context)


HALF = LearningOptions(gamma=0.5, negatives=2, r_max=100.0)


def test_targets_and_losses_worked_out_by_hand():
    losses = losses_of(*table_context(HALF))
    # row 0: y = 1 + ½·max(Q⁻(item 1) = 1, Q⁻(item 3) = 5) = 3.5, Q = 0: Huber 3.5 − ½
    # row 1: reward censored, not counted. row 2: done, y = ½, Q = 2: Huber 1.5 − ½
    assert losses["dqn"].item() == pytest.approx((3.0 + 1.0) / 2)
    # on policy: row 0 follows item 1, y = 1 + ½·0.1; row 2: y = ½ against 0.2
    assert losses["value"].item() == pytest.approx((1.05**2 + 0.3**2) / 2)
    assert losses["q_abs_max"].item() == 2.0
    assert next(iter(losses)) == "loss"
    parts = sum(v.item() for k, v in losses.items() if k not in ("loss", "q_abs_max"))
    assert losses["loss"].item() == pytest.approx(parts)


def test_every_row_of_a_censored_session_is_left_out():
    # row 0 would have a finite target; left in, unfinished sessions alone would train near a cut
    returns = pl.Series("return", [None, None, 0.5], dtype=pl.Float32)
    context = table_context(HALF, events=three_rows().with_columns(returns))
    losses = losses_of(*context)
    assert losses["dqn"].item() == pytest.approx(1.5 - 0.5)  # row 2 alone: y = ½, Q = 2
    assert losses["value"].item() == pytest.approx(0.3**2)


def test_a_negative_that_is_not_available_yet_is_no_candidate():
    # item 3 appears an hour later: y of row 0 is 1 + ½·1
    losses = losses_of(*table_context(HALF, available_at=T0 + HOUR))
    assert losses["dqn"].item() == pytest.approx((1.0 + 1.0) / 2)


def test_double_q_takes_the_trained_net_s_choice():
    # the trained net prefers item 1 to item 3, so Q⁻(item 1) = 1 is used
    losses = losses_of(*table_context(HALF.model_copy(update={"double": True})))
    assert losses["dqn"].item() == pytest.approx((1.0 + 1.0) / 2)


def test_targets_are_capped():
    # r_max/(1−γ) = 2: y of row 0 is 2 instead of 3.5
    losses = losses_of(*table_context(HALF.model_copy(update={"r_max": 1.0})))
    assert losses["dqn"].item() == pytest.approx((1.5 + 1.0) / 2)


def test_the_immediate_reward_is_never_censored():
    options = HALF.model_copy(update={"reward": "immediate"})
    events = three_rows().with_columns(r_immediate=pl.lit(0.0, pl.Float32))
    losses = losses_of(*table_context(options, events=events))
    # y = 2.5, 2.5, 0 against Q = 0, 1, 2
    assert losses["dqn"].item() == pytest.approx((2.0 + 1.0 + 1.5) / 3)
    # the value head keeps the composite reward (METHODS §3.9)
    assert losses["value"].item() == pytest.approx((1.05**2 + 0.3**2) / 2)


def test_a_batch_without_any_reward_has_loss_zero_and_finite_gradients():
    model, context = table_context(HALF, events=three_rows((None, None, None)))
    losses = losses_of(model, context)
    assert losses["dqn"].item() == losses["value"].item() == 0
    losses["loss"].backward()
    assert torch.isfinite(model.q.grad).all()


def test_the_conservative_term_by_hand():
    model, context = table_context(HALF.model_copy(update={"cql_alpha": 0.1, "negatives": 1}))
    losses = losses_of(model, context)
    # candidates at each row: the logged item and item 3 with Q = −3
    expected = np.mean([math.log(math.exp(q) + math.exp(-3.0)) - q for q in (0.0, 1.0, 2.0)])
    assert losses["cql"].item() == pytest.approx(expected, rel=1e-5)
    without = losses_of(model, table_context(HALF.model_copy(update={"negatives": 1}))[1])
    assert losses["loss"].item() == pytest.approx(without["loss"].item() + 0.1 * expected)


def test_censored_rewards_stay_missing_and_the_best_ignores_what_is_not_available():
    y = td_target(torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 4.0]), 0.5, 2.5)
    assert math.isnan(y[0])
    assert y[1] == 2.5
    available = torch.tensor([[True, False], [True, True]])
    q = torch.tensor([[1.0, 9.0], [1.0, 9.0]])
    assert best_next(q, available).tolist() == [1.0, 9.0]


def test_null_labels_leave_the_behaviour_losses():
    nan = float("nan")
    labels = torch.tensor([[1.0, nan, 0.0], [nan, nan, 1.0]])
    logits = torch.tensor([[0.0, 5.0, 0.0], [9.0, 5.0, math.log(3.0)]], requires_grad=True)
    losses = behaviour_losses(logits, labels)
    # watch: ln 2; like: no label; share: (ln 2 − ln ¾) / 2
    assert losses.tolist() == pytest.approx([math.log(2), 0, (math.log(2) - math.log(0.75)) / 2])
    losses.sum().backward()
    assert logits.grad[torch.isnan(labels)].abs().sum() == 0
    assert torch.isfinite(logits.grad).all()


def test_draws_follow_the_generator_s_state():
    sampler = toy_sampler(toy_events())
    items, ts = torch.arange(5), torch.full((5,), T0 + 10 * HOUR)
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    first, available = draw_candidates(sampler, items, ts, 20, generator)
    second, _ = draw_candidates(sampler, items, ts, 20, generator)
    generator.set_state(state)
    assert torch.equal(draw_candidates(sampler, items, ts, 20, generator)[0], first)
    assert not torch.equal(first, second)
    assert torch.equal(first[:, 0], items)
    assert available.all()


def test_before_anything_is_available_only_the_logged_item_is_a_candidate():
    sampler = NegativeSampler.fit(np.array([100, 200]), np.array([1, 1]))
    generator = torch.Generator().manual_seed(0)
    items, available = draw_candidates(
        sampler, torch.tensor([1, 1]), torch.tensor([50, 150]), 3, generator
    )
    assert available.tolist() == [[True, False, False, False], [True] * 4]
    assert items[1].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("update", "expected"), [("hard", [0, 0, 1, 1]), ("soft", [0.5, 0.75, 0.875, 0.9375])]
)
def test_the_target_follows(update, expected):
    options = LearningOptions(target_update=update, target_every=3, tau=0.5)
    inputs = toy_inputs(toy_events())
    model = toy_model("vanilla_dqn", inputs)
    nn.init.zeros_(model.heads.q.bias)
    target = TargetNetwork(model, options, inputs)
    nn.init.ones_(model.heads.q.bias)
    for step, value in enumerate(expected, start=1):
        target.after_step(model, step)
        assert target.copy.heads.q.bias.item() == pytest.approx(value)
    assert not any(p.requires_grad for p in target.parameters())


@pytest.mark.parametrize("update", ["hard", "soft"])
def test_the_target_s_item_vectors_are_its_own(update):
    inputs = toy_inputs(toy_events())
    model = toy_model("mt_dqn", inputs).train()
    options = LearningOptions(target_update=update, target_every=2, tau=0.5)
    target = TargetNetwork(model, options, inputs)
    for step in (1, 2):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1)
            model(inputs, torch.tensor([0]), torch.tensor([[1, 2]]), inputs.stream.ts_ms[-1:])
        target.after_step(model, step)
    own = target.copy.fuse(inputs, torch.arange(15)).f
    torch.testing.assert_close(target.copy.item_memory, own)
    assert not torch.allclose(model.item_memory, own)


def test_the_value_head_does_not_scale_the_other_gradients(tmp_path):
    """Clipped in one norm with the rest, a large value error would shrink every other step."""
    events = toy_events()
    inputs = toy_inputs(events)
    ends = []
    for factor in (1.0, 1024.0):  # a power of two rounds nothing
        stream = inputs.stream
        stream = replace(
            stream, reward=stream.reward * factor, value_return=stream.value_return * factor
        )
        scaled = replace(inputs, stream=stream)
        model = toy_model("vanilla_dqn", scaled)
        learn(
            model,
            scaled,
            build_lists(events, ListOptions()).rows.filter(pl.col("split") == "val"),
            toy_sampler(events),
            train=TrainOptions(epochs=1, batch_size=16, grad_clip=0.01, device="cpu"),
            learning=LearningOptions(reward="immediate", r_max=1e6),
            work_dir=tmp_path,
            identity={"factor": factor},
        )
        ends.append({k: v for k, v in model.state_dict().items() if ".value." not in k})
    assert same(*ends)


def real_step(name, loss="loss"):
    events = toy_events()
    inputs = toy_inputs(events)
    model = toy_model(name, inputs)
    options = LearningOptions(negatives=3)
    context = LearningContext(
        TargetNetwork(model, options, inputs), inputs, toy_sampler(events), options
    )
    rows = torch.nonzero(inputs.stream.trained_rows()).squeeze(1)[-20:]
    step = dqn_step if model.learns_q else supervised_step
    losses = step(model.train(), rows, torch.Generator().manual_seed(0), context)
    losses[loss].backward()
    return model, context, losses


@pytest.mark.parametrize("name", TRAINED)
def test_the_value_loss_reaches_the_value_head_only(name):
    model, context, _ = real_step(name, "value")
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {n for n, _ in model.named_parameters() if n.startswith("heads.value")}
    assert all(p.grad is None for p in context.target.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_the_whole_loss_reaches_every_part_of_the_model(name):
    model, context, losses = real_step(name)
    untouched = {n for n, p in model.named_parameters() if p.grad is None}
    assert not untouched
    assert all(p.grad is None for p in context.target.parameters())
    assert ("dqn" in losses) == (name != "concat_modal")
    assert ("link" in losses) == (name == "mt_dqn")


MT_DQN_KINDS = {
    "window": {},
    "last items": {"tgnn": {"kind": "last_items"}},
    "PyG's memory": {"tgnn": {"kind": "pyg_tgn"}},
    "a stack for each pair": {"fusion": {"layout": "mult"}},
    "confidence": {"fusion": {"confidence": {}}, "corruption": {}},
    "who follows whom": {"tgnn": {"social": {"hops": 1}}},
}


def step_in(precision, changes):
    """Losses and gradient of one step of MT-DQN without dropout, its products in a precision."""
    events = toy_events()
    follows = FollowGraph(torch.arange(9).clamp_max(8), (torch.arange(8) + 1) % 8)
    inputs = replace(toy_inputs(events), follows=follows)
    own = CONFIGS["mt_dqn"].model_dump(mode="json")
    for part, change in changes.items():
        own[part] = {**(own[part] or {}), **change}
    for part in ("fusion", "tgnn"):
        own[part]["dropout"] = 0.0
    seed_everything(0)
    model = build("mt_dqn", own, InputSpec.of(inputs), RankingModel)
    model.refresh(inputs)
    options = LearningOptions(negatives=3, link_weight=0.1)
    target = TargetNetwork(model, options, inputs)
    context = LearningContext(target, inputs, toy_sampler(events), options)
    rows = torch.nonzero(inputs.stream.trained_rows()).squeeze(1)[-20:]
    with products_in(precision, inputs.device):
        losses = dqn_step(model.train(), rows, torch.Generator().manual_seed(0), context)
    losses["loss"].backward()
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return torch.stack([*losses.values()]).detach(), gradient


@pytest.mark.parametrize("changes", MT_DQN_KINDS.values(), ids=MT_DQN_KINDS)
def test_a_step_in_bfloat16_differs_by_rounding(changes):
    (losses, gradient), (exact, exact_gradient) = (
        step_in(p, changes) for p in ("bfloat16", "float32")
    )
    assert not torch.equal(losses, exact)
    torch.testing.assert_close(losses, exact, rtol=0.03, atol=0.01)
    assert torch.cosine_similarity(gradient, exact_gradient, dim=0) > 0.99


TRAIN = TrainOptions(epochs=2, batch_size=40, lr=0.01, checkpoint_every_steps=1, device="cpu")


def toy_learn(name, work_dir, events=None, lists_of="val"):
    events = toy_events() if events is None else events
    inputs = toy_inputs(events)
    lists = build_lists(events, ListOptions()).rows
    return learn(
        toy_model(name, inputs),
        inputs,
        lists.filter(pl.col("split") == lists_of),
        toy_sampler(events),
        train=TRAIN,
        learning=LearningOptions(negatives=3, target_every=2),
        work_dir=work_dir,
        identity={"name": name},
    )


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_interrupted_in_the_middle_of_an_epoch_ends_the_same(name, tmp_path, monkeypatch):
    whole = toy_learn(name, tmp_path / "whole")
    assert whole.history["step"].to_list() == [3, 6]
    function = "supervised_step" if name == "concat_modal" else "dqn_step"
    original, calls = getattr(learning, function), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(learning, function, failing)
    with pytest.raises(KeyboardInterrupt):
        toy_learn(name, tmp_path / "cut")
    resumed = toy_learn(name, tmp_path / "cut")
    assert resumed.resumed_from_step == 4
    assert same(resumed.last, whole.last)
    assert same(resumed.best, whole.best)


def test_only_train_rows_without_random_exposure_are_learnt_from(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(learning, "fit", lambda model, rows, **kwargs: seen.append(rows))
    events = toy_events()
    toy_learn("vanilla_dqn", tmp_path, events)
    rows = events[seen[0].tolist()]
    assert rows["split"].unique().to_list() == ["train"]
    assert rows["is_rand"].sum() == 0
    assert rows["ts_ms"].is_sorted()
    assert rows.height == events.filter(pl.col("split") == "train", pl.col("is_rand") == 0).height


def test_without_a_list_to_choose_by_the_run_says_so(tmp_path):
    events = toy_events().filter(pl.col("split") != "val").with_columns(next_pos=pl.lit(-1))
    with pytest.raises(ValueError, match="no val list"):
        toy_learn("vanilla_dqn", tmp_path, events)


def row(ndcg, loss, **more):
    return {"val_ndcg@5": ndcg, "val_loss": loss, **more}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([row(0.5, 1.0, val_gate_entropy=0.99)], ["modality collapse: gate_entropy"]),
        ([row(0.5, 1.0, val_gate_entropy=0.9, val_attention_entropy=0.985)], ["modality collapse: attention"]),
        ([row(0.5, 1.0, train_q_abs_max=501.0)], ["Q explosion"]),
        ([row(0.5, 1.0, train_q_abs_max=499.0, val_gate_entropy=0.98)], []),
        ([row(0.5, loss) for loss in (1.0, 0.9, 0.8, 0.7)], ["temporal disconnect"]),
        ([row(0.5, loss) for loss in (1.0, 0.9, 0.8)], []),  # two steps down only
        ([row(0.5, loss) for loss in (1.0, 0.9, 0.95, 0.7)], []),
        ([row(s, 1 - s) for s in (0.5, 0.6, 0.7, 0.8)], []),
    ],
)  # fmt: skip
def test_failure_signatures_are_named(history, expected):
    found = failure_warnings(history, limit=50.0)
    assert len(found) == len(expected)
    for sentence, start in zip(found, expected, strict=True):
        assert sentence.startswith(start)


def test_the_history_carries_the_monitors(tmp_path):
    history = toy_learn("mt_dqn", tmp_path).history
    assert {"train_q_abs_max", "val_gate_entropy", "val_attention_entropy"} <= set(history.columns)
    assert history["val_gate_entropy"].is_between(0, 1.0001).all()


def test_heads_begin_at_the_means_of_what_is_trained_on(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        learning, "fit", lambda model, rows, **kwargs: begun.append((model, kwargs))
    )
    events = toy_events()
    toy_learn("mt_dqn", tmp_path, events)
    toy_learn("vanilla_dqn", tmp_path, events)
    rows = events.filter(pl.col("split") == "train", pl.col("is_rand") == 0)
    known = rows.filter(pl.col("return").is_not_nan(), pl.col("return").is_not_null())
    mean = {name: known[name].mean() for name in ("return", "reward")}
    (model, kwargs), _ = begun
    heads = model.heads
    assert heads.value[-1].bias.item() == pytest.approx(mean["return"], rel=1e-5)
    assert heads.q.bias.item() == pytest.approx(mean["return"], rel=1e-5)
    assert heads.reward.bias.item() == pytest.approx(rows["r_immediate"].mean(), rel=1e-5)
    assert torch.sigmoid(heads.behaviours.bias[1]).item() == pytest.approx(
        rows["like"].mean(), rel=1e-5
    )
    # the target starts as the model does
    assert same(kwargs["companion"].copy.heads.state_dict(), heads.state_dict())


def test_q_of_the_immediate_reward_begins_at_its_mean_over_as_many_steps():
    events = toy_events()
    stream = toy_inputs(events).stream
    rows = events.filter(pl.col("split") == "train", pl.col("is_rand") == 0)
    known = rows.filter(pl.col("return").is_not_nan(), pl.col("return").is_not_null())
    steps = known["return"].mean() / known["reward"].mean()
    assert 1 < steps < 20
    own = levels_of(stream, LearningOptions(reward="immediate"))
    assert own.q == pytest.approx(steps * rows["r_immediate"].mean(), rel=1e-5)
    # not one return is known
    empty = replace(stream, value_return=torch.full_like(stream.value_return, math.nan))
    assert levels_of(empty, LearningOptions()).q == 0.0
