import numpy as np
import polars as pl
import pytest
import torch
from support.toy_log import HOUR, T0, same, toy_availability, toy_events, toy_inputs, toy_model

from reelrank.models.inputs import InputSpec
from reelrank.models.policy import Outputs, RankingModel
from reelrank.pipelines.mt_dqn.baselines import fit_popularity
from reelrank.pipelines.mt_dqn.lists import LOCAL_OFFSET_MS, build_lists
from reelrank.pipelines.mt_dqn.options import ListOptions, PredictOptions
from reelrank.pipelines.mt_dqn.predict import fusion_tables, predict, rank_catalogue

N_ITEMS = 15


@pytest.fixture(scope="module")
def log():
    events = toy_events()
    return events, toy_inputs(events), build_lists(events, ListOptions()).rows


class FixedScores(RankingModel):
    """Scores an item by a table; remembers at which times item states were asked for."""

    def __init__(self, inputs, scores):
        super().__init__(ListOptions(), InputSpec.of(inputs))
        self.table = torch.tensor(scores)
        self.asked = []

    def user_state(self, inputs, users, ts):
        return torch.zeros(len(users), 1)

    def item_state(self, inputs, items, ts):
        self.asked.append(ts.unique().tolist())
        return self.table[items].unsqueeze(1)

    def head(self, user_state, item_state):
        q = item_state.squeeze(-1).expand(len(user_state), -1)
        return Outputs(q=q, behaviour_logits=q.unsqueeze(-1).expand(-1, -1, 3), value=q, reward=q)


def contexts(*starts):
    """One list per start: items 0 … 3, of which 1 and 3 are relevant."""
    return pl.DataFrame(
        [
            {"list_id": i, "split": "test", "user_id": 0, "item_id": item, "start_ts": start, "scenario": 1,
             "position": 4 * i + item, "relevance": int(item in (1, 3)), "graded": 0.0}
            for i, start in enumerate(starts) for item in range(4)
        ]
    )  # fmt: skip


SCORES = [5.0, 4.0, 4.0, 1.0, *[-1.0] * 11]
T = T0 + 100 * HOUR


def ranked(inputs, available, starts=(T,), **options):
    model = FixedScores(inputs, SCORES)
    availability = torch.full((N_ITEMS,), T0)
    for item, ts in available.items():
        availability[item] = ts
    return model, *rank_catalogue(
        model, inputs, contexts(*starts), availability, PredictOptions(**options)
    )


def test_ranks_of_relevant_items_take_the_mean_of_ties(log):
    _, best, targets = ranked(log[1], {}, top=3)
    assert best["item_id"].to_list() == [0, 1, 2]  # equal scores by id
    assert best["rank"].to_list() == [1, 2, 3]
    assert targets["item_id"].to_list() == [1, 3]
    assert targets["rank"].to_list() == [2.5, 4.0]
    assert targets["n_available"].to_list() == [N_ITEMS] * 2


def test_items_that_are_not_available_yet_are_not_ranked(log):
    # item 0 comes 1 ms too late, item 2 just in time, item 3 (relevant) never
    never = torch.iinfo(torch.int64).max
    _, best, targets = ranked(log[1], {0: T + 1, 2: T, 3: never}, top=2)
    assert best["item_id"].to_list() == [1, 2]
    assert targets["item_id"].to_list() == [1]
    assert targets["rank"].to_list() == [1.5]
    assert targets["n_available"].to_list() == [N_ITEMS - 2]


def test_availability_is_judged_at_each_context_s_own_time(log):
    _, best, _ = ranked(log[1], {0: T + 5}, starts=(T, T + 10), top=1)
    assert dict(best.select("context_id", "item_id").rows()) == {0: 1, 1: 0}


def test_item_states_are_those_of_the_last_local_midnight(log):
    midnight = (T + LOCAL_OFFSET_MS) // (24 * HOUR) * 24 * HOUR - LOCAL_OFFSET_MS
    starts = (midnight, midnight + 23 * HOUR, midnight + 24 * HOUR)
    model, _, _ = ranked(log[1], {}, starts=starts)
    assert model.asked == [[midnight], [midnight + 24 * HOUR]]
    model, _, _ = ranked(log[1], {}, starts=starts, item_state_hours=12)
    assert model.asked == [[midnight], [midnight + 12 * HOUR], [midnight + 24 * HOUR]]


def test_the_sample_of_contexts_is_seeded(log):
    starts = [T + i for i in range(40)]
    chosen = [
        ranked(log[1], {}, starts=starts, contexts=5, seed=seed)[1]["context_id"].unique().sort().to_list()
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert len(chosen[0]) == 5
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("name", ["mt_dqn", "concat_modal", "vanilla_dqn"])
def test_block_sizes_do_not_change_predictions(log, name):
    events, inputs, lists = log
    model = toy_model(name, inputs)
    availability = toy_availability(events)
    whole = predict(model, inputs, lists, availability, PredictOptions())
    small = predict(
        model, inputs, lists, availability, PredictOptions(block_rows=7, block_scores=20)
    )
    for table in ("impressions", "lists", "catalogue", "targets"):
        left, right = getattr(whole, table), getattr(small, table)
        keys = [c for c, t in left.schema.items() if not t.is_float()]
        assert left.select(keys).equals(right.select(keys)), table
        for column in set(left.columns) - set(keys):
            np.testing.assert_allclose(left[column], right[column], rtol=1e-4, atol=1e-6)


def test_impressions_are_every_standard_val_and_test_row(log):
    events, inputs, lists = log
    made = predict(
        toy_model("mt_dqn", inputs), inputs, lists, toy_availability(events), PredictOptions()
    )
    expected = events.with_row_index("position").filter(
        pl.col("split") != "train", pl.col("is_rand") == 0
    )
    keys = ["position", "user_id", "item_id", "split"]
    assert (
        made.impressions.select(keys)
        .cast({"position": pl.Int64})
        .equals(expected.select(keys).cast({"position": pl.Int64}))
    )
    assert made.impressions.select(pl.col("^p_.*$").is_between(0, 1).all()).row(0) == (True,) * 3
    one = made.impressions.row(3, named=True)
    alone = toy_model("mt_dqn", inputs).eval()
    outputs = alone(
        inputs,
        torch.tensor([one["user_id"]]),
        torch.tensor([[one["item_id"]]]),
        inputs.stream.ts_ms[one["position"]].unsqueeze(0),
    )
    assert one["q"] == pytest.approx(outputs.q.item(), abs=1e-5)
    assert one["value"] == pytest.approx(outputs.value.item(), abs=1e-5)
    assert made.lists.columns == [
        "list_id", "position", "split", "user_id", "item_id", "relevance", "graded", "score",
    ]  # fmt: skip


def test_the_fusion_s_gates_and_attention_are_shares(log):
    _, inputs, _ = log
    gates, attention = fusion_tables(toy_model("mt_dqn", inputs).eval(), inputs, block_rows=7)
    assert gates.columns == ["item_id", "gate_visual", "gate_audio", "gate_text"]
    assert gates["item_id"].to_list() == list(range(N_ITEMS))
    shares = gates.select(pl.sum_horizontal(pl.exclude("item_id"))).to_series()
    np.testing.assert_allclose(shares, 1, rtol=1e-5)
    assert attention.height == 1 * 2 * 3 * 3  # layers, heads, modalities
    mass = attention.group_by("layer", "head", "query").agg(pl.col("mass").sum())["mass"]
    np.testing.assert_allclose(mass, 1, rtol=1e-5)


def test_popularity_ranks_by_train_long_views(log):
    events, inputs, lists = log
    made = predict(
        fit_popularity(inputs), inputs, lists, toy_availability(events), PredictOptions()
    )
    top = made.catalogue.filter(pl.col("rank") == 1)["item_id"].unique().to_list()
    trained = events.filter(pl.col("split") == "train", pl.col("is_rand") == 0)
    views = trained.group_by("item_id").agg(pl.col("long_view").sum()).sort("long_view")
    assert len(top) == 1
    assert views.filter(pl.col("item_id") == top[0])["long_view"].item() == views["long_view"][-1]


def test_predictions_leave_the_weights_alone(log):
    events, inputs, lists = log
    model = toy_model("mt_dqn", inputs)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    predict(model, inputs, lists, toy_availability(events), PredictOptions())
    assert same(before, {n: p.detach() for n, p in model.named_parameters()})


def test_without_a_test_list_prediction_says_so(log):
    events, inputs, lists = log
    with pytest.raises(ValueError, match="no test list"):
        predict(
            toy_model("concat_modal", inputs),
            inputs,
            lists.filter(pl.col("split") == "val"),
            toy_availability(events),
            PredictOptions(),
        )
