import numpy as np
import pytest
from support.value_examples import random_examples, taste_examples

from reelrank.models import registry
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import RankingModel
from reelrank.models.value_model import ValueModel, ValueSpec
from reelrank.pipelines.value_model import fitting as module
from reelrank.pipelines.value_model.fitting import (
    Examples,
    as_labels,
    context_graph,
    head_aucs,
    restore,
    train_network,
)
from reelrank.pipelines.value_model.model import edges_at
from reelrank.pipelines.value_model.options import EdgeMlpOptions, FittingOptions, GnnOptions
from reelrank.training.artifact import ModelCheckpoint

SHORT = FittingOptions(max_steps=6, evaluate_every=3, batch_edges=64, device="cpu")
MLP = EdgeMlpOptions(hidden=(8,))
TINY_GNN = GnnOptions(hidden=(8,), width=6)


def test_labels_may_be_missing_in_two_ways():
    assert as_labels([[1, 0, np.nan, -1]]).tolist() == [[1, 0, -1, -1]]
    with pytest.raises(ValueError, match="label long of edge 1 is 2"):
        as_labels([[0, 0, 0, 0], [0, 2, 0, 0]])


def test_aucs_leave_out_what_is_unknown():
    labels = np.array([[1, 1, -1, 0], [0, 1, 1, 1], [-1, 1, 0, 0]], np.int8)
    p = np.array([[0.9, 0.1, 0, 0.5], [0.2, 0.1, 0.3, 0.5], [0.1, 0, 0.4, 0.7]], np.float32)
    found = head_aucs(labels, p)
    assert found["auc_complete"] == 1 and found["auc_rewatch"] == 0 and found["auc_neg"] == 0.25
    assert np.isnan(found["auc_long"]) and found["auc"] == pytest.approx(1.25 / 3)


def test_which_edges_are_in_the_graph():
    examples = random_examples(n_edges=60)
    ids = examples.inputs.user_id, examples.inputs.item_id

    def entries(part, **options):
        graph = context_graph(GnnOptions(**options), examples, part)
        return len(graph.matrix.values) - 18  # without the 18 self-loops

    def unique(*parts):
        rows = np.concatenate(parts)
        return np.unique(np.stack([column[rows] for column in ids]), axis=1).shape[1]

    train, val, test = examples.train, examples.val, examples.test
    assert entries("val") == entries("test") == 2 * unique(train)
    assert entries("test", test_context="train_val") == 2 * unique(train, val)
    assert entries("val", test_context="train_val") == 2 * unique(train)
    assert entries("train", graph="poster_literal") == unique(train, val, test)
    assert context_graph(MLP, examples, "train") is None


def same(left, right):
    return left.keys() == right.keys() and all(left[k].equal(right[k]) for k in left)


@pytest.mark.parametrize("batch_edges", [64, None])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, batch_edges):
    examples = random_examples()
    options = SHORT.model_copy(update={"batch_edges": batch_edges, "checkpoint_every_steps": 5})

    def run(folder):
        return train_network(
            "gnn", examples, model=TINY_GNN, fitting=options, work_dir=tmp_path / folder
        )

    expected, history = run("whole")
    assert history["step"].to_list() == [3, 6]
    assert history["lr"].to_list() == [1e-3] * 2
    calls = []
    name = "masked_loss" if batch_edges else "fused_loss"
    original = getattr(module, name)

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, dies)
        run("killed")
    found, again = run("killed")
    assert same(found.best, expected.best) and same(found.last, expected.last)
    assert again.drop("seconds").equals(history.drop("seconds"))


@pytest.mark.parametrize("name", ["edge_mlp", "gnn"])
def test_a_checkpoint_predicts_the_same(tmp_path, name):
    examples = random_examples(n_edges=60)
    model = TINY_GNN if name == "gnn" else MLP
    made, history = train_network(
        name, examples, model=model, fitting=SHORT, work_dir=tmp_path / "work"
    )
    made.write(tmp_path / "model")
    again = restore(ModelCheckpoint.read(tmp_path / "model"))
    found = again.predict(examples.inputs, 100)
    assert np.array_equal(found, restore(made).predict(examples.inputs, 100))
    # the weights are those of the best evaluation, the vectors those of the train graph
    val = head_aucs(examples.labels[examples.val], found[examples.val])
    assert val["auc"] == pytest.approx(history["val_auc"].max(), abs=1e-6)
    graph = context_graph(model, examples, "train")
    assert restore(made, graph).predict(examples.inputs, 100) == pytest.approx(found, abs=1e-6)
    if name == "gnn":
        wider = model.model_copy(update={"test_context": "train_val"})
        other = restore(made, context_graph(wider, examples, "test"))
        assert np.abs(other.item_vectors() - again.item_vectors()).max() > 0


def test_value_models_and_ranking_models_are_told_apart():
    spec = ValueSpec.of(random_examples().inputs)
    assert registry.build("edge_mlp", {"hidden": [4]}, spec.model_dump(mode="json"), ValueModel)
    with pytest.raises(TypeError, match="'edge_mlp' is a EdgeMLP: no RankingModel"):
        registry.build("edge_mlp", {"hidden": [4]}, spec, RankingModel)
    with pytest.raises(ValueError, match="n_users"):
        registry.build("edge_mlp", {"hidden": [4]}, InputSpec.model_construct(), ValueModel)


def test_collaborative_signal_is_learnt_by_the_gnn_alone(tmp_path):
    examples = taste_examples()
    options = FittingOptions(
        max_steps=200, evaluate_every=20, batch_edges=512, lr=1e-2, device="cpu"
    )
    test = edges_at(examples.inputs, examples.test)
    found = {}
    for name, model in (
        ("gnn", GnnOptions(hidden=(16,), width=16)),
        ("edge_mlp", EdgeMlpOptions(hidden=(16,))),
    ):
        made, _ = train_network(
            name, examples, model=model, fitting=options, work_dir=tmp_path / name
        )
        p = restore(made, context_graph(model, examples, "test")).predict(test, 1000)
        found[name] = head_aucs(examples.labels[examples.test], p)["auc"]
    # knowing the groups is worth an AUC of about 0.7
    assert found["edge_mlp"] < 0.58 and found["gnn"] > 0.62, found


def test_an_empty_split_is_refused():
    made = random_examples()
    with pytest.raises(ValueError, match="no val edge"):
        Examples(made.inputs, made.labels, made.train, made.val[:0], made.test)
