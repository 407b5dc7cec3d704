"""A study counts every trial once, goes on after a kill, gives up what is worse, and says when its storage is silent."""

import os
import shutil
import subprocess
import sys
import textwrap
import time

import polars as pl
import pytest
import yaml
from optuna.trial import TrialState
from test_tuning_space import SPACE, task, tuning

from reelrank.pipelines.tuning import nodes, report
from reelrank.pipelines.tuning import study as studies
from reelrank.pipelines.tuning.study import (
    Search,
    StudyUnreachable,
    counts,
    open_storage,
    open_study,
)
from reelrank.pipelines.tuning.training import (  # fmt: skip
    Outcome,
    TrainingFailed,
    headline,
    progress,
)

POSTGRES = "REELRANK_POSTGRES"


def fake_train(folder, values, watch):
    """Best at size 9; a curve of three epochs, shown one after the other."""
    metric = [values["toy.size"] / 10 * share for share in (0.5, 1.0, 0.9)]
    for epoch in range(1, 4):
        if not watch(metric[:epoch]):
            return None
    return Outcome(metric, 2)


def search(tmp_path, train=fake_train, storage=None, **changed):
    own = tuning(storage=storage or f"journal:///{tmp_path}/s.log", **{"n_trials": 6, **changed})
    return Search(open_study(task(), own), task(), own, tmp_path, train)


def states(searching):
    return [trial.state for trial in searching.study.get_trials() if counts(trial)]


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_the_total_is_reached_once(tmp_path, scheme):
    storage = f"{scheme}:///{tmp_path}/s.db"
    first = search(tmp_path, storage=storage, n_trials=4)
    first.run()
    assert len(states(first)) == 4
    assert first.study.trials[0].params == {"toy.lr": 0.01, "toy.size": 4, "toy.hidden": "[8]"}
    second = search(tmp_path, storage=storage, n_trials=6, workers=2)
    assert second.missing() == 2
    second.run()
    assert second.missing() == 0
    assert len(states(second)) == 6
    assert sum(t.user_attrs.get("origin") == "defaults" for t in second.study.trials) == 1


def test_a_killed_trial_is_failed_and_tried_again_in_its_folder(tmp_path):
    searching = search(tmp_path, n_trials=3)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    trial = searching._claim()
    folder = trial.user_attrs["folder"]
    trial.set_user_attr("pid", dead.pid)
    assert searching.missing() == 3, "a killed trial does not count"
    given = []

    def train(own, values, watch):
        given.append((own.name, values))
        return fake_train(own, values, watch)

    searching.train = train
    searching.run()
    killed, again = searching.study.trials[:2]
    assert (killed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == killed.params
    assert given[0][0] == folder
    assert len(states(searching)) == 3


def test_a_silent_trial_of_another_machine_is_lost_only_after_a_while(tmp_path):
    searching = search(tmp_path)
    trial = searching._claim()
    trial.set_user_attr("host", "elsewhere")
    assert searching.missing() == 5
    trial.set_user_attr("seen", time.time() - 1000)
    assert searching.missing() == 6


def test_two_that_draw_at_once_do_not_exceed_the_total(tmp_path):
    one, other = search(tmp_path, n_trials=1), search(tmp_path, n_trials=1)
    assert one._claim() is not None
    assert other._claim() is None
    assert len(states(one)) == 1


def test_what_is_worse_is_given_up(tmp_path):
    pruner = {"kind": "median", "startup_trials": 1, "warm_up_epochs": 0}
    searching = search(tmp_path, n_trials=15, pruner=pruner, sampler={"kind": "random"})
    searching.run()
    given_up = [t for t in searching.study.trials if t.state == TrialState.PRUNED]
    assert given_up
    assert max(t.params["toy.size"] for t in given_up) < 9
    assert all(len(t.intermediate_values) < 3 for t in given_up)
    twins = [t for t in searching.study.trials if "same_as" in t.user_attrs]
    assert all(t.value == searching.study.trials[t.user_attrs["same_as"]].value for t in twins)


def test_an_error_counts_but_not_that_of_the_defaults(tmp_path):
    def train(folder, values, watch):
        if values["toy.size"] != 4:
            raise TrainingFailed("too large")
        return fake_train(folder, values, watch)

    searching = search(tmp_path, train)
    searching.run()
    assert len(states(searching)) == 6
    failed = [t for t in searching.study.trials if t.state == TrialState.FAIL]
    assert failed
    assert {t.user_attrs["error"] for t in failed} == {"too large"}

    def broken(folder, values, watch):
        raise TrainingFailed("nothing to train on")

    (tmp_path / "other").mkdir()
    with pytest.raises(TrainingFailed, match="nothing to train on"):
        search(tmp_path / "other", broken).run()


def test_trials_of_one_number_are_drawn_alike_in_any_process(tmp_path):
    drawn = []
    for name in ("a", "b"):
        searching = search(tmp_path, storage=f"journal:///{tmp_path}/{name}.log", n_trials=4)
        searching.run()
        drawn.append([t.params for t in searching.study.trials])
    assert drawn[0] == drawn[1]
    assert len({str(p) for p in drawn[0]}) == 4


def test_a_silent_storage_is_said_without_its_password():
    with pytest.raises(StudyUnreachable, match=r"needs a driver|cannot be reached") as refused:
        open_storage("postgresql+psycopg://me:secret@localhost:1/nothing")
    assert "secret" not in str(refused.value)
    with pytest.raises(StudyUnreachable, match=r"is no address|cannot be opened"):
        open_storage("not an address")


def test_the_best_is_written_as_parameters(tmp_path):
    searching = search(tmp_path, n_trials=12)
    searching.run()
    trials = nodes.trial_table(task(), [t for t in searching.study.trials if counts(t)])
    best = nodes.best_trial(trials)
    assert best["value"] == trials.filter(state="complete")["value"].max()
    own = tuning()
    nodes_task, nodes.task_of = nodes.task_of, lambda *_: task()
    try:
        file, run = nodes.write_best(trials, own, "toy", {})
    finally:
        nodes.task_of = nodes_task
    tree = yaml.safe_load(file)
    assert set(tree["toy"]) == {path.partition(".")[2] for path in SPACE}
    assert tree["toy"]["size"] == best["toy.size"]
    assert isinstance(tree["toy"]["hidden"], list | None)
    assert yaml.safe_load(run) == {"run": {"pipelines": "toy", "params": tree}}


def test_equal_values_leave_the_defaults_in_place():
    rows = {"trial": [3, 0], "state": ["complete"] * 2, "origin": [None, "defaults"], "value": [0.5, 0.5]}  # fmt: skip
    assert nodes.best_trial(pl.DataFrame(rows))["trial"] == 0


def test_only_the_first_validation_metric_is_read(tmp_path):
    rows = [{"epoch": 1, "train_loss": 3.0, "val_ndcg@10": 0.2, "val_other": 0.9}]
    assert headline(rows) == [0.2]
    with pytest.raises(TrainingFailed, match="no validation metric"):
        headline([{"epoch": 1, "train_loss": 3.0}])
    assert progress(tmp_path) == []


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Address of an empty PostgreSQL database: the one that a variable names, else a server started for the test."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    if POSTGRES in os.environ:
        yield os.environ[POSTGRES]
        return
    if shutil.which("pg_ctl") is None or os.getuid() == 0:
        pytest.skip(f"{POSTGRES} names no database, and no server can be started: pg_ctl is missing, or we are root")  # fmt: skip
    folder = tmp_path_factory.mktemp("pg")
    subprocess.run(["initdb", "-A", "trust", "-U", "me", "-D", folder / "db"], check=True)
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    subprocess.run(["pg_ctl", "-w", "-D", folder / "db", "-o", options, "-l", folder / "log", "start"], check=True)  # fmt: skip
    yield f"postgresql+psycopg://me@/postgres?host={folder}"
    subprocess.run(["pg_ctl", "-w", "-D", folder / "db", "-m", "fast", "stop"], check=True)


def test_two_processes_work_on_one_study_in_postgresql(postgres, tmp_path):
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        sys.path[:0] = sys.argv[3:]
        from test_tuning_study import fake_train, search
        def slow(folder, values, watch):
            time.sleep(0.3)
            return fake_train(folder, values, watch)
        search(Path(sys.argv[2]), slow, storage=sys.argv[1], n_trials=14).run()
    """)
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", code, postgres, str(tmp_path), here]
    runs = [subprocess.Popen(command) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    searching = search(tmp_path, storage=postgres, n_trials=14)
    counted = [trial for trial in searching.study.trials if counts(trial)]
    assert len(counted) == 14
    assert {trial.state for trial in counted} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.user_attrs["pid"] for trial in counted}) == 2, "both took part"
    assert sum(trial.user_attrs.get("origin") == studies.DEFAULTS for trial in counted) >= 1


def test_a_training_ends_with_the_search_that_began_it():
    child = "import sys; from reelrank.pipelines.tuning.child import _end_with; _end_with(int(sys.argv[1]))"
    parent = f"import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]); print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    assert studies._is_alive(pid)
    process.kill()  # whether the child has begun to look or not
    process.wait()
    deadline = time.monotonic() + 60
    while studies._is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not studies._is_alive(pid)


def test_a_process_that_nobody_waited_for_does_not_live():
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    ended.stdout.read()  # closed at its end; it is still in the table of processes until we wait
    deadline = time.monotonic() + 60
    while studies._is_alive(ended.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(ended.pid, 0)
    assert not studies._is_alive(ended.pid)
    ended.wait()


@pytest.mark.parametrize("gain", [0.01, -0.02])
def test_the_page_says_what_was_found(tmp_path, monkeypatch, gain):
    searching = search(tmp_path, n_trials=12)
    searching.run()
    trials = nodes.trial_table(task(), [t for t in searching.study.trials if counts(t)])
    monkeypatch.setattr(report, "task_of", lambda *_: task())
    importance = pl.DataFrame({"parameter": ["toy.size"], "importance": [1.0]})
    drawn = report.draw(trials, importance, tuning(), "toy", {})
    confirmed = pl.DataFrame({"seed": [7, 8], "defaults": [0.4, 0.4], "best": [0.4 + gain] * 2})
    figures = {f"figure_{n}": f for n, f in zip(report.FIGURES, drawn, strict=True)}
    page = report.write(trials, confirmed, tuning(), "toy", {}, **figures)
    assert ("The gain holds." if gain > 0 else "The gain does not hold.") in page
    assert "against the defaults" in page
    alone = trials.filter(origin="defaults")
    page = report.write(alone, confirmed.clear(), tuning(), "toy", {}, **figures)
    assert "None of 1 trial was better than the defaults" in page
