"""Training nodes as MLflow runs: what is logged, and that nothing happens where MLflow is not installed."""

import polars as pl
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node

from reelrank import tracking
from reelrank.options import Options
from reelrank.tracking import TrackingHooks, TrackingOptions, epochs_of, parameters_of


class Toy(Options):
    lr: float = 0.1
    hidden: tuple[int, ...] = (8, 4)
    work_dir: str = "/here"


HISTORY = pl.DataFrame(
    {"variant": ["toy"] * 2, "epoch": [1, 2], "step": [5, 10], "val_ndcg@10": [0.1, None], "train_loss": [2.0, 1.0]}
)  # fmt: skip


def node(*tags):
    return Node(lambda training: training, "params:toy.training", ["toy.toy_model", "toy.toy_history"], name="train", namespace="toy", tags=tags)  # fmt: skip


def catalog(tmp_path, **changed):
    options = TrackingOptions(uri=f"sqlite:///{tmp_path}/m/mlflow.db", artifacts=f"file://{tmp_path}/files", experiment="toy", **changed)  # fmt: skip
    made = DataCatalog()
    made["params:tracking"] = options.model_dump()
    return made


class Checkpoint:
    def write(self, folder):
        folder.mkdir()
        (folder / "weights.txt").write_text("w")


def test_parameters_by_their_full_names_without_places():
    inputs = {"params:toy.training": Toy(), "params:toy.k": 5, "toy.table": HISTORY}
    assert parameters_of(inputs) == {"toy.k": "5", "toy.training.hidden": "[8, 4]", "toy.training.lr": "0.1"}  # fmt: skip


def test_numbers_by_epoch():
    assert list(epochs_of(HISTORY)) == [
        (1, {"step": 5.0, "val_ndcg_at_10": 0.1, "train_loss": 2.0}),
        (2, {"step": 10.0, "train_loss": 1.0}),
    ]


def test_nothing_happens_without_mlflow_or_for_other_nodes(tmp_path, monkeypatch):
    def refuse(uri):
        raise AssertionError("MLflow was asked for")

    monkeypatch.setattr(tracking, "_client", refuse)
    hooks = TrackingHooks()
    hooks.before_node_run(node("gpu"), catalog(tmp_path), {})
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    hooks.before_node_run(node("training"), catalog(tmp_path), {})
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    hooks.before_node_run(node("training"), catalog(tmp_path, enabled=False), {})
    hooks.after_node_run(node("training"), {"toy.toy_history": HISTORY})
    hooks.on_node_error(ValueError("no"), node("training"))
    assert hooks._runs == {}


def test_a_training_node_is_a_run(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    hooks, own = TrackingHooks(), node("training")
    hooks.before_node_run(own, catalog(tmp_path), {"params:toy.training": Toy()})
    hooks.after_node_run(own, {"toy.toy_model": Checkpoint(), "toy.toy_history": HISTORY})
    hooks.before_node_run(own, catalog(tmp_path), {"params:toy.training": Toy()})
    hooks.on_node_error(ValueError("it broke"), own)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m/mlflow.db")
    experiment = client.get_experiment_by_name("toy").experiment_id
    failed, done = client.search_runs([experiment])
    assert (done.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert failed.data.tags["error"] == "it broke"
    assert done.data.params == {"toy.training.lr": "0.1", "toy.training.hidden": "[8, 4]"}
    assert [(m.step, m.value) for m in client.get_metric_history(done.info.run_id, "train_loss")] == [(1, 2.0), (2, 1.0)]  # fmt: skip
    names = {file.path for file in client.list_artifacts(done.info.run_id)}
    assert names == {"model", "learning_curves.html", "history.csv"}
