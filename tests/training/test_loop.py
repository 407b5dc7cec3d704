import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.toy_run import N_STEPS, OPTIONS, toy_fit
from torch import nn

from reelrank.training.loop import cosine_lr, fit
from reelrank.training.options import TrainOptions


class Interruption(Exception):
    pass


def interrupt_at(deadly):
    def stop(step):
        if step == deadly:
            raise Interruption

    return stop


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    result, steps = toy_fit(tmp_path_factory.mktemp("whole"))
    assert steps == list(range(1, N_STEPS + 1))
    return result


# before any checkpoint, right after one, between two, first of an epoch, in the last epoch
@pytest.mark.parametrize("deadly", [2, 4, 6, 9, 12, 24])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, uninterrupted, deadly):
    with pytest.raises(Interruption):
        toy_fit(tmp_path, interrupt_at(deadly))
    result, steps = toy_fit(tmp_path)
    assert result.resumed_from_step == steps[0] - 1
    if deadly > OPTIONS.checkpoint_every_steps:
        assert deadly - OPTIONS.checkpoint_every_steps <= steps[0] <= deadly
    assert_same(result.last, uninterrupted.last)
    assert_same(result.best, uninterrupted.best)
    assert result.best_epoch == uninterrupted.best_epoch
    assert result.history.drop("seconds").equals(uninterrupted.history.drop("seconds"))


def test_a_run_interrupted_twice_ends_with_the_same_weights(tmp_path, uninterrupted):
    for deadly in (5, 14):
        with pytest.raises(Interruption):
            toy_fit(tmp_path, interrupt_at(deadly))
    assert_same(toy_fit(tmp_path)[0].last, uninterrupted.last)


def test_a_run_killed_by_the_system_ends_with_the_same_weights(tmp_path, uninterrupted):
    script = str(Path(__file__).parents[1] / "support" / "toy_run.py")
    output = tmp_path / "weights.safetensors"
    command = [sys.executable, script, str(tmp_path / "work"), str(output)]
    killed = subprocess.run([*command, "13"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    subprocess.run([*command, "0"], capture_output=True, check=True)
    assert_same(load_file(output), uninterrupted.last)


def test_the_test_would_see_a_state_that_was_not_restored(tmp_path, uninterrupted, monkeypatch):
    with pytest.raises(Interruption):
        toy_fit(tmp_path, interrupt_at(12))
    monkeypatch.setattr("reelrank.training.loop.set_rng_state", lambda state: None)
    result, _ = toy_fit(tmp_path)
    assert not torch.equal(result.last["net.0.weight"], uninterrupted.last["net.0.weight"])


@pytest.mark.parametrize(
    "changed",
    [
        {"options": OPTIONS.model_copy(update={"lr": 0.02})},
        {"options": OPTIONS.model_copy(update={"seed": 1})},
        {"identity": {"data": "b"}},
    ],
)
def test_another_configuration_does_not_resume(tmp_path, changed):
    with pytest.raises(Interruption):
        toy_fit(tmp_path, interrupt_at(12))
    result, steps = toy_fit(tmp_path, **changed)
    assert result.resumed_from_step == 0
    assert steps[0] == 1


def test_the_work_folder_goes_on_success_only(tmp_path):
    folder = OPTIONS.run_folder(tmp_path, {"data": "a"})
    with pytest.raises(Interruption):
        toy_fit(tmp_path, interrupt_at(12))
    assert (folder / "last").is_dir()
    toy_fit(tmp_path)
    assert not folder.exists()


def test_a_removal_that_is_cut_off_leaves_nothing_to_resume_from(tmp_path, monkeypatch):
    def cut_off(folder):
        (folder / "best" / "checkpoint.json").unlink()
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", cut_off)
        with pytest.raises(Interruption):
            toy_fit(tmp_path)
    assert toy_fit(tmp_path)[0].resumed_from_step == 0


def test_the_learning_rate_follows_half_a_cosine(uninterrupted):
    assert cosine_lr(0, 100, 1e-4, 1e-6) == pytest.approx(1e-4)
    assert cosine_lr(50, 100, 1e-4, 1e-6) == pytest.approx((1e-4 + 1e-6) / 2)
    assert cosine_lr(100, 100, 1e-4, 1e-6) == pytest.approx(1e-6)
    # cos(60°) = ½: three quarters of the way down is still to go
    assert cosine_lr(100 // 3, 99, 1.0, 0.0) == pytest.approx(0.75)
    assert uninterrupted.history["lr"][-1] == pytest.approx(OPTIONS.lr_min)


def test_the_loop_uses_the_schedule_of_torch(tmp_path):
    weight = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10, eta_min=1e-4)
    for step in range(10):
        assert cosine_lr(step, 10, 1e-2, 1e-4) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


def run_with_scores(tmp_path, scores, patience):
    """A model whose weight counts its steps (one per epoch), validated by a given list."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    answers = iter(scores)
    return fit(
        model,
        torch.arange(4),
        step_fn=lambda m, rows, g: {"loss": m.weight.sum()},
        validate_fn=lambda m: {"ndcg@5": next(answers), "loss": 1.0},
        options=TrainOptions(
            epochs=len(scores),
            batch_size=4,
            patience=patience,
            lr=0.1,
            weight_decay=0,
            device="cpu",
        ),
        work_dir=tmp_path,
        identity={},
    ), model


def test_training_stops_when_nothing_improves_and_keeps_the_best_weights(tmp_path):
    result, model = run_with_scores(tmp_path, [0.1, 0.3, 0.3, 0.2, 0.9], patience=2)
    assert result.history["epoch"].to_list() == [1, 2, 3, 4]  # the 0.9 is never seen
    assert result.best_epoch == 2  # a tie is no improvement
    assert result.history.columns == [
        "epoch", "step", "train_loss", "lr", "val_ndcg@5", "val_loss", "seconds",
    ]  # fmt: skip
    assert torch.equal(model.weight.detach(), result.best["weight"])
    assert result.last["weight"] < result.best["weight"] < 0


def test_an_undefined_validation_metric_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="val split cannot be ranked"):
        run_with_scores(tmp_path, [float("nan")], patience=2)


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="train split is empty"):
        fit(
            nn.Linear(1, 1),
            torch.arange(0),
            step_fn=lambda m, rows, g: {},
            validate_fn=lambda m: {},
            options=TrainOptions(),
            work_dir=tmp_path,
            identity={},
        )


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    with pytest.raises(FloatingPointError, match="train_loss not finite in epoch 1"):
        fit(
            nn.Linear(1, 1),
            torch.arange(3),
            step_fn=lambda m, rows, g: {"loss": m.weight.sum() * float("nan")},
            validate_fn=lambda m: {"ndcg@5": 1.0},
            options=TrainOptions(device="cpu"),
            work_dir=tmp_path,
            identity={},
        )


def test_a_step_runs_in_the_precision_that_was_asked_for_and_validation_does_not(tmp_path):
    seen = []

    def note(place):
        seen.append((place, torch.is_autocast_enabled("cpu")))

    options = OPTIONS.model_copy(update={"precision": "bfloat16", "epochs": 1})
    result, _ = toy_fit(
        tmp_path, lambda step: note("step"), options, check=lambda: note("validation")
    )
    assert set(seen) == {("step", True), ("validation", False)}
    assert all(t.dtype == torch.float32 for t in result.last.values())
