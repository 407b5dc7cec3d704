"""Cells run once, go on after a kill, fail alone, and their rows land under the right names."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from reelrank.children import locked, tail
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.pipelines.experiments import cell, plan, running
from reelrank.pipelines.experiments.plan import Cell, Job

COMMON = {"system": "toy", "source": "s", "split": "x/test", "seed": 0, "data_kind": "world", "config_hash": "c"}  # fmt: skip


def job(name="toy.study/TY-01.a", key="k1", cells=None, **tree):
    cells = cells or (Cell("TY-01", "a", "TY-01", "a", None, 1.0),)
    return Job(name, "toy", "toy.study", ("toy.study_cells",), ("toy.table",), {"toy": {"work_dir": "w"}, **tree}, key, cells)  # fmt: skip


class Fake:
    """In place of a process: does what the child does, and remembers its orders."""

    def __init__(self, *, fails=(), dies=()):
        self.orders, self.fails, self.dies = [], set(fails), set(dies)
        self.lock = threading.Lock()

    def __call__(self, order: Path, text: Path, threads: int) -> int:
        given = json.loads(order.read_text(encoding="utf-8"))
        with self.lock:
            self.orders.append(given)
        text.write_text("one\ntwo\n", encoding="utf-8")
        run = given["parameters"].get("run")
        if run in self.dies:
            raise KeyboardInterrupt
        if run in self.fails or given["pipeline"] in self.fails:
            return 1
        if given["nodes"]:
            rows = results_frame([ResultRow("m", "auc", 0.5, 9)], **COMMON, experiment="TY-01", cell="a")  # fmt: skip
            table = Path(given["parameters"]["tables_root"]) / "toy/cells.parquet"
            table.parent.mkdir(parents=True)
            rows.write_parquet(table)
        cell.write_done(Path(given["done"]), 3.0)
        return 0

    def nodes(self):
        return [order["nodes"] for order in self.orders]


def runner(root, start, workers=1):
    return running.Runner(root, Path("/project"), None, workers, start)


def states(outcomes):
    return {o.job.name: o.state for o in outcomes}


def test_a_finished_cell_is_not_run_again(tmp_path):
    start = Fake()
    assert states(runner(tmp_path, start).run([job()])) == {job().name: "done"}
    assert start.nodes() == [[], ["toy.study"]]  # what it loads, then itself
    assert states(runner(tmp_path, start).run([job()])) == {job().name: "was done"}
    assert len(start.orders) == 2
    # another configuration or version of the code is another cell, and the first one's rows stay
    assert states(runner(tmp_path, start).run([job(key="k2")])) == {job().name: "done"}
    assert job().finished(tmp_path) and job(key="k2").finished(tmp_path)


def test_what_a_cell_is_told(tmp_path):
    start = Fake()
    list(runner(tmp_path, start).run([job()]))
    before, own = start.orders
    assert before["to_outputs"] == ["toy.table"]
    assert before["parameters"]["freshness"]["stale"] == "rebuild"
    assert before["parameters"]["toy"]["work_dir"] == "w"
    assert own["parameters"]["freshness"]["stale"] == "ignore"
    folder = job().folder(tmp_path)
    assert own["parameters"]["tables_root"] == str(folder / "tables")
    assert own["parameters"]["toy"]["work_dir"] == str(folder / "training")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_cell_that_fails_fails_alone_and_is_tried_again(tmp_path, workers):
    jobs = [job(name=f"toy.study/TY-01.{n}", run=n) for n in "abc"]
    outcomes = list(runner(tmp_path, Fake(fails={"b"}), workers).run(jobs))
    assert states(outcomes) == {
        "toy.study/TY-01.a": "done", "toy.study/TY-01.b": "failed", "toy.study/TY-01.c": "done",
    }  # fmt: skip
    (failed,) = [o for o in outcomes if o.state == "failed"]
    assert tail(failed.log) == "one\ntwo"
    start = Fake()
    again = states(runner(tmp_path, start, workers).run(jobs))
    assert [o["parameters"]["run"] for o in start.orders if o["nodes"]] == ["b"]
    assert again["toy.study/TY-01.b"] == "done"


def test_cells_whose_inputs_cannot_be_made_are_not_tried(tmp_path):
    start = Fake(fails={"toy"})
    assert states(runner(tmp_path, start).run([job()])) == {job().name: "failed"}
    assert start.nodes() == [[]]


def test_a_killed_call_goes_on_where_it_was(tmp_path):
    jobs = [job(name=f"toy.study/TY-01.{n}", run=n) for n in "abc"]
    with pytest.raises(KeyboardInterrupt):
        list(runner(tmp_path, Fake(dies={"b"})).run(jobs))
    start = Fake()
    list(runner(tmp_path, start).run(jobs))
    assert "a" not in [o["parameters"]["run"] for o in start.orders if o["nodes"]]
    assert all(j.finished(tmp_path) for j in jobs)
    assert running.collected(jobs, tmp_path).height == 3


def test_the_lock_of_a_dead_process_is_free_and_that_of_a_living_one_is_waited_for(tmp_path):
    lock, code = tmp_path / "lock", (
        "import sys, time\nfrom pathlib import Path\nfrom reelrank.children import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        taken = threading.Event()

        def take():
            with locked(lock):
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        time.sleep(0.05)
        assert not taken.is_set()
    finally:
        child.kill()
        child.wait()
    thread.join(timeout=20)
    assert taken.is_set()


def test_a_child_that_waited_for_another_does_not_run_what_that_one_finished(tmp_path):
    done = tmp_path / "done.json"
    cell.write_done(done, 1.0)
    order = {"project": "/nowhere", "environment": None, "pipeline": "toy", "nodes": ["toy.study"], "to_outputs": [],
             "parameters": {}, "lock": str(tmp_path / "lock"), "done": str(done), "repeat": False}  # fmt: skip
    file = tmp_path / "order.json"
    file.write_text(json.dumps(order), encoding="utf-8")
    cell.main(str(file))  # would fail at /nowhere


def write_rows(root, made, *rows):
    table = made.folder(root) / "tables/toy/cells.parquet"
    table.parent.mkdir(parents=True)
    pl.concat(rows).write_parquet(table)
    cell.write_done(made.folder(root) / "done.json", 1.0)


def frame(experiment, name, value):
    return results_frame([ResultRow("m", "auc", value, 9)], **COMMON, experiment=experiment, cell=name)  # fmt: skip


def test_rows_land_once_under_the_experiment_and_cell_that_asked(tmp_path):
    shared = job(
        name="toy.evaluate",
        cells=(
            Cell("TY-01", "main", "TY-01", None, None, 1.0),
            Cell("TY-07", "other", "TY-01", None, "other feed", 1.0),
        ),
    )
    study = job(cells=(Cell("TY-02", "b", "TY-02", "b", None, 1.0),))
    unfinished = job(name="toy.study/TY-03.x")
    write_rows(tmp_path, shared, frame("TY-01", "main", 0.1), frame("TY-05", "main", 0.2))
    write_rows(tmp_path, study, frame("TY-02", "a", 0.3), frame("TY-02", "b", 0.4))
    found = running.collected([shared, study, unfinished], tmp_path)
    assert found.select("experiment", "cell", "value").rows() == [
        ("TY-01", "main", 0.1), ("TY-02", "b", 0.4), ("TY-07", "other feed, main", 0.1),
    ]  # fmt: skip
    assert running.collected([unfinished], tmp_path).is_empty()


def test_times_are_measured_then_taken_from_siblings_then_guessed(tmp_path):
    a, b = job(), job(name="toy.study/TY-01.b")
    assert plan.expected(a, tmp_path) == plan.Expected(60.0, False)
    cell.write_done(b.folder(tmp_path) / "done.json", 12.0)
    assert plan.expected(a, tmp_path) == plan.Expected(12.0, True)
    cell.write_done(a.folder(tmp_path) / "done.json", 7.0)
    assert plan.expected(a, tmp_path) == plan.Expected(7.0, True)


def test_inputs_are_expected_to_take_as_long_as_they_ever_did(tmp_path):
    assert plan.expected_preparation("toy", tmp_path, {"toy": 2.0}) == plan.Expected(120.0, False)
    for seconds in (30.0, 4.0):  # the second time all was fresh
        cell.write_done(tmp_path / "prepared/toy.json", seconds)
    assert plan.expected_preparation("toy", tmp_path, {}) == plan.Expected(30.0, True)
