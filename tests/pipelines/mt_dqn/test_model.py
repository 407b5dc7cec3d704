import copy

import polars as pl
import pytest
import torch
from support.model_inputs import N_ITEMS, TINY, batch, events_frame, model_inputs

from reelrank.models.inputs import InputSpec
from reelrank.models.pairwise_fusion import PairwiseFusion
from reelrank.pipelines.mt_dqn.baselines import ConcatModal, VanillaDQN, fit_popularity
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import MTDQNOptions, PopularityOptions
from reelrank.pipelines.mt_dqn.predict import fusion_tables
from reelrank.pipelines.mt_dqn.validation import fusion_evenness
from reelrank.tables import SPLITS


def built(model_class, name, inputs, **changes):
    torch.manual_seed(0)
    model = model_class(TINY[name].model_copy(update=changes), InputSpec.of(inputs))
    model.refresh(inputs)
    return model


def reached(model, loss):
    """Names of the top modules that a loss sends a gradient to."""
    model.zero_grad()
    loss.backward()
    return {
        ".".join(name.split(".")[:2]) if name.startswith("heads") else name.split(".")[0]
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_paper_sizes_on_the_meta_device():
    with torch.device("meta"):
        spec = InputSpec.of(model_inputs()).model_copy(
            update={"token_lengths": (16, 16, 64), "token_dims": (2048, 512, 768)}
        )
        model = MTDQN(MTDQNOptions(), spec)
    fusion, heads = model.fusion, model.heads
    assert len(fusion.layers) == 6 and fusion.layers[0].heads == 12
    assert fusion.layers[0].qkv.weight.shape == (3 * 768, 768)
    assert fusion.layers[0].ffn[0].weight.shape == (4 * 768, 768)
    assert [tuple(p.shape) for p in fusion.position] == [(16, 768), (16, 768), (64, 768)]
    assert fusion.out.weight.shape == (256, 768)
    assert len(model.tgnn.layers) == 3 and model.tgnn.options.fanout == (10, 5, 3)
    assert model.tgnn.time.omega.shape == (64,)
    assert heads.norm.normalized_shape == (256 + 128 + 128,)
    assert [tuple(m.weight.shape) for m in (heads.trunk[0], heads.trunk[2], heads.q)] == [
        (256, 512),
        (128, 256),
        (1, 128),
    ]


def test_gradients_reach_every_part_but_the_value_loss_only_its_head():
    inputs = model_inputs()
    model = built(MTDQN, "mt_dqn", inputs)
    out = model(inputs, *batch(inputs))
    main = out.q.pow(2).mean() + out.behaviour_logits.pow(2).mean() + out.reward.pow(2).mean()
    assert reached(model, main) == {
        "fusion", "tgnn", "heads.norm", "heads.trunk", "heads.q", "heads.behaviours", "heads.reward",
    }  # fmt: skip
    assert reached(model, model(inputs, *batch(inputs)).value.pow(2).mean()) == {"heads.value"}


@pytest.mark.parametrize(
    ("model_class", "name"), [(ConcatModal, "concat_modal"), (VanillaDQN, "vanilla_dqn")]
)
def test_the_value_loss_reaches_only_its_head_in_the_baselines(model_class, name):
    inputs = model_inputs()
    model = built(model_class, name, inputs)
    assert reached(model, model(inputs, *batch(inputs)).value.pow(2).mean()) == {"heads.value"}


def test_training_writes_the_batch_items_to_the_memory_and_evaluation_reads_it():
    inputs = model_inputs()
    model = built(MTDQN, "mt_dqn", inputs)
    users, _, ts = batch(inputs)
    items = torch.tensor([[0, 1, 1, 0]]).expand(len(users), 4)
    with torch.no_grad():
        for p in model.fusion.parameters():
            p.add_(0.1)
    before = model.item_memory.clone()
    model.train()
    model(inputs, users, items, ts)
    written = (model.item_memory != before).any(1)
    assert written.nonzero().flatten().tolist() == [0, 1]
    model.eval()
    model.refresh(inputs)
    every = torch.arange(N_ITEMS)
    state = model.item_state(inputs, every, ts[:1].expand(N_ITEMS))
    torch.testing.assert_close(state[:, : model.fusion.options.d_f], model.fuse(inputs, every).f)


def test_refresh_does_not_change_modes_or_random_numbers():
    inputs = model_inputs()
    model = built(MTDQN, "mt_dqn", inputs).train()
    model.heads.eval()
    state = torch.get_rng_state()
    model.refresh(inputs)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training and model.fusion.training and not model.heads.training


@pytest.mark.parametrize(("model_class", "name"), [(MTDQN, "mt_dqn"), (VanillaDQN, "vanilla_dqn")])
def test_a_model_that_never_saw_its_inputs_says_so(model_class, name):
    inputs = model_inputs()
    model = model_class(TINY[name], InputSpec.of(inputs))
    with pytest.raises(RuntimeError, match=r"call refresh\(inputs\) before the first batch"):
        model(inputs, *batch(inputs))


def test_without_item_graph_state_h_v_is_left_out():
    inputs = model_inputs()
    model = built(MTDQN, "mt_dqn", inputs, item_graph_state=False)
    users, items, ts = batch(inputs)
    assert model.item_state(inputs, items[0], ts[:4]).shape == (4, model.fusion.options.d_f)
    assert model(inputs, users, items, ts).q.shape == items.shape


def test_link_logits_need_their_option():
    inputs = model_inputs()
    plain, linked = built(MTDQN, "mt_dqn", inputs), built(MTDQN, "mt_dqn", inputs, link_head=True)
    h = torch.randn(2, 5, TINY["mt_dqn"].tgnn.d_h)
    assert linked.link_logits(h, h).shape == (2, 5)
    with pytest.raises(RuntimeError, match="link_head: true"):
        plain.link_logits(h, h)
    with pytest.raises(ValueError, match="link_head needs item_graph_state"):
        MTDQNOptions(link_head=True, item_graph_state=False)


def test_a_deep_copy_is_a_target_network_of_its_own():
    inputs = model_inputs()
    model = built(MTDQN, "mt_dqn", inputs).eval()
    target = copy.deepcopy(model)
    with torch.no_grad():
        model.heads.q.bias.add_(1.0)
        model.item_memory.add_(1.0)
    assert not torch.equal(model.item_memory, target.item_memory)
    users, items, ts = batch(inputs)
    assert not torch.equal(
        model.scores(inputs, users, items, ts), target.scores(inputs, users, items, ts)
    )


def test_concat_modal_ranks_by_weighted_behaviours():
    inputs = model_inputs(absent=((0, "audio"),))
    model = built(ConcatModal, "concat_modal", inputs).eval()
    out = model(inputs, *batch(inputs))
    p = torch.sigmoid(out.behaviour_logits)
    torch.testing.assert_close(out.q, p[..., 0] + 0.5 * p[..., 1] + 0.5 * p[..., 2])
    assert not model.learns_q


def test_vanilla_dqn_puts_unseen_ids_in_one_row_and_averages_the_past():
    events = events_frame().with_columns(
        item_id=pl.when(pl.col("split") == "train").then(pl.col("item_id") % 6).otherwise("item_id")
    )
    inputs = model_inputs(events=events)
    model = built(VanillaDQN, "vanilla_dqn", inputs).eval()
    assert (model.item_row[6:] == 0).all() and (model.item_row[:6] > 0).all()
    unseen = model.item_state(inputs, torch.tensor([6, 11]), torch.tensor([0, 0]))
    assert (unseen == 0).all()
    user, ts = inputs.stream.user[-1:], inputs.stream.ts_ms[-1:]
    past = events.filter((pl.col("user_id") == user.item()) & (pl.col("ts_ms") < ts.item()))
    last = torch.tensor(past["item_id"].to_list()[-3:])
    expected = model.items(model.item_row[last]).mean(0)
    torch.testing.assert_close(model.user_state(inputs, user, ts)[0, 4:], expected)


def test_the_fusion_may_have_its_other_layout():
    inputs = model_inputs()
    mult = TINY["mt_dqn"].fusion.model_copy(update={"layout": "mult"})
    model = built(MTDQN, "mt_dqn", inputs, fusion=mult)
    assert isinstance(model.fusion, PairwiseFusion)
    assert model(inputs, *batch(inputs)).q.isfinite().all()
    evenness = fusion_evenness(model.eval(), inputs)
    assert set(evenness) == {"gate_entropy", "attention_entropy"}
    assert all(0 < value <= 1 for value in evenness.values())
    _, attention = fusion_tables(model, inputs, block_rows=5)
    told = attention.filter(pl.col("query") != pl.col("key"))
    assert told["mass"].sum() == pytest.approx(attention["mass"].sum()) and attention.height > 0


def test_a_behaviour_that_is_not_logged_has_no_say_in_the_order():
    frame = events_frame()
    known = model_inputs(events=frame)
    blind = model_inputs(events=frame.with_columns(like=pl.lit(None, pl.Int8)))
    assert InputSpec.of(known).logged == (True, True, True)
    assert InputSpec.of(blind).logged == (True, False, True)
    weights = (1.0, 0.5, 0.25)
    for inputs, used in ((known, weights), (blind, (1.0, 0.0, 0.25))):
        model = built(ConcatModal, "concat_modal", inputs, behaviour_weights=weights).eval()
        out = model(inputs, *batch(inputs))
        expected = (torch.sigmoid(out.behaviour_logits) * torch.tensor(used)).sum(-1)
        torch.testing.assert_close(out.q, expected)


def test_popularity_by_hand():
    columns = {
        "item_id": [0, 0, 0, 1, 1, 2],
        "long_view": [1, 1, 0, 1, None, 1],
        "like": [0, 1, 0, 0, 0, 1],
        "return": [1.0, None, 3.0, 2.0, 2.0, 99.0],
        "is_rand": [0] * 6,
        "split": ["train"] * 5 + ["test"],
    }
    schema = events_frame().schema
    events = events_frame(6).with_columns(
        pl.Series(name, values, dtype=schema[name]) for name, values in columns.items()
    )
    inputs = model_inputs(events=events)
    model = fit_popularity(inputs, PopularityOptions(smoothing=2.0))
    out = model(
        inputs, torch.tensor([0, 3]), torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([0, 0])
    )
    assert out.q.tolist() == [[2, 1, 0], [0, 1, 2]]
    # overall watch rate 3/4: item 0 (2 + 1.5) / (3 + 2), item 1 (1 + 1.5) / (1 + 2), item 2 3/4
    watch = torch.sigmoid(out.behaviour_logits[0, :, 0])
    torch.testing.assert_close(watch, torch.tensor([0.7, 2.5 / 3, 0.75]))
    like = torch.sigmoid(out.behaviour_logits[0, :, 1])
    torch.testing.assert_close(like, torch.tensor([1.4 / 5, 0.4 / 4, 0.2]))
    assert (out.value == 2.0).all()
    torch.testing.assert_close(out.reward[0, 0], inputs.stream.r_immediate[:5].mean())


def test_what_was_fitted_on_train_rows_is_not_refitted_on_other_inputs():
    """A restored model predicts what was saved, also when the log has grown."""
    inputs = model_inputs()
    all_test = events_frame().with_columns(split=pl.lit("test", pl.Enum(SPLITS)))
    other = model_inputs(events=all_test)
    fitted = fit_popularity(inputs, PopularityOptions())
    vanilla = built(VanillaDQN, "vanilla_dqn", inputs)
    for model in (fitted, vanilla):
        before = copy.deepcopy(model.state_dict())
        model.refresh(other)
        assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())
