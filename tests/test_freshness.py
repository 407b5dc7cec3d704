"""Stored tables carry what they were made of: a run says what is out of date and why, and makes only that anew."""

import json
import os
from pathlib import Path

import polars as pl
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.io.core import Version
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner, ThreadRunner
from kedro_datasets.json import JSONDataset
from pydantic import Field

import reelrank.hooks
import reelrank.parameters
from reelrank.buckets import finish_table
from reelrank.datasets import BucketedTableDataset, TableDataset
from reelrank.freshness import (
    SUFFIX,
    Freshness,
    FreshnessOptions,
    Record,
    StaleTables,
    content_stamp,
    leaves,
)
from reelrank.hooks import FreshnessHooks
from reelrank.options import Options

PARAMETERS = {
    "toy": {
        "raw": {"root": "/raw"},
        "ingest": {"gap_s": 1800, "chunk_mb": 16.0},
        "model": {"width": 4, "work_dir": "/work"},
    },
    "engine": {"engine": "local", "workers": 1, "n_buckets": 8, "staging": "/staging"},
}


def test_leaves_are_what_can_change_a_result():
    assert leaves(PARAMETERS, "toy.ingest") == {"toy.ingest.gap_s": 1800}
    assert leaves(PARAMETERS, "toy.ingest.gap_s") == {"toy.ingest.gap_s": 1800}
    assert leaves(PARAMETERS, "toy.model") == {"toy.model.width": 4}
    assert leaves(PARAMETERS, "toy.model.work_dir") == {}
    assert leaves(PARAMETERS, "engine") == {"engine.n_buckets": 8}
    assert leaves(PARAMETERS, "toy.raw") == {"toy.raw.root": "/raw"}
    assert leaves(PARAMETERS, "toy.nobody") == {}
    assert set(leaves(PARAMETERS, "")) == {"toy.raw.root", "toy.ingest.gap_s", "toy.model.width", "engine.n_buckets"}  # fmt: skip


def record_of(path, **changes):
    fields = {
        "dataset": "a",
        "node": "make",
        "code": "1",
        "parameters": {"toy.ingest": {"toy.ingest.gap_s": 1800}},
        "inputs": {},
        "files": {},
        "version": None,
        "content": content_stamp(path),
    }
    return Record(**(fields | changes))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table"
    path.mkdir()
    (path / "bucket=0.parquet").write_bytes(b"rows")
    return path


def judge(path, parameters=PARAMETERS, code="1"):
    return Freshness({"a": path}.get, parameters, code)


def test_a_record_lies_beside_its_table_and_comes_back(table):
    record = record_of(table)
    record.write(table)
    assert Record.read(table) == record
    assert [p.name for p in table.parent.iterdir() if p != table] == [f"table{SUFFIX}"]
    assert json.loads((table.parent / f"table{SUFFIX}").read_text())["fingerprint"] == record.fingerprint  # fmt: skip
    assert judge(table).causes("a") == {}


@pytest.mark.parametrize(
    "change",
    [{"node": "b"}, {"code": "2"}, {"parameters": {}}, {"inputs": {"x": "0"}}, {"files": {"f": [1, 2]}}, {"version": "v"}],
)  # fmt: skip
def test_a_fingerprint_changes_with_each_thing_that_a_table_is_made_of(table, change):
    assert record_of(table, **change).fingerprint != record_of(table).fingerprint
    assert record_of(table, content="else").fingerprint == record_of(table).fingerprint


def test_each_cause_is_named(table):
    record_of(table).write(table)
    changed = PARAMETERS | {"toy": {"ingest": {"gap_s": 900}}}
    assert list(judge(table, changed).causes("a")) == ["parameter toy.ingest.gap_s changed 1800 → 900"]  # fmt: skip
    assert list(judge(table, code="2").causes("a")) == ["code changed 1 → 2"]
    (table / "bucket=0.parquet").write_bytes(b"other rows")
    assert list(judge(table).causes("a")) == ["it was changed by something other than a run that ended well"]  # fmt: skip
    (table.parent / f"table{SUFFIX}").write_text("{}")
    assert list(judge(table).causes("a")) == ["no fingerprint lies beside it"]
    assert list(judge(None).causes("a")) == ["it is not stored"]


def test_raw_files_that_changed_went_or_came_are_named(table, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("log.csv", "users.csv"):
        (raw / name).write_text("1")
    files = reelrank.hooks.raw_files({"files": [{"path": str(raw / "log.csv")}]})
    assert set(files) == {str(raw / "log.csv"), str(raw / "users.csv")}
    record_of(table, files=files).write(table)
    assert judge(table).causes("a") == {}
    (raw / "log.csv").write_text("12")
    (raw / "users.csv").unlink()
    (raw / "captions.csv").write_text("1")
    assert list(judge(table).causes("a")) == [
        f"file {raw}/users.csv is gone",
        f"file {raw}/log.csv changed",
        f"file {raw}/captions.csv is new",
    ]
    for n in range(4):
        (raw / f"{n}.csv").touch()
    assert list(judge(table).causes("a"))[-1] == "and 4 more files"


# a pipeline of five nodes, run as a session does


class ToyRaw(Options):
    root: str


class ToyIngest(Options):
    gap_s: int = 1800
    chunk_mb: float = 16


class ToyModel(Options):
    width: int = 4


class ToyBlock(Options):
    raw: ToyRaw
    ingest: ToyIngest = ToyIngest()
    model: ToyModel = ToyModel()


class ToyParameters(Options):
    toy: ToyBlock
    freshness: FreshnessOptions = Field(FreshnessOptions())


def provide(raw):
    return {"files": [{"path": str(p)} for p in sorted(Path(raw["root"]).iterdir())]}


def ingest(raw_manifest, options):
    rows = sum(len(Path(f["path"]).read_text()) for f in raw_manifest["files"])
    frame = pl.DataFrame({"rows": [rows], "gap_s": [options["gap_s"]]})
    return frame, frame.select("rows")


def same(frame, *_):
    return frame


def train(features, options):
    if options["width"] == 0:
        raise ZeroDivisionError("no width")
    return features.with_columns(width=options["width"])


NODES = [
    Node(provide, "params:raw", "raw_manifest", name="provide"),
    Node(ingest, ["raw_manifest", "params:ingest"], ["interactions", "items"], name="ingest"),
    Node(same, ["interactions", "items"], "features", name="features"),
    Node(train, ["features", "params:model"], "model", name="train"),
    Node(same, "model", "results", name="evaluate"),
]
ALL = [node.name for node in NODES]


class Toy:
    """Runs the pipeline in a folder; tells which nodes ran."""

    def __init__(self, root):
        self.root = root
        self.n_runs = 0
        (root / "raw").mkdir()
        (root / "raw" / "log.csv").write_text("12345")

    def catalog(self, given, memory=()):
        self.n_runs += 1
        version = Version(None, f"2026-01-01T00.00.{self.n_runs:02d}.000Z")
        tree = ToyParameters.model_validate(given).model_dump(mode="json")
        path = lambda name: str(self.root / "data" / name)  # noqa: E731
        datasets = {
            "toy.raw_manifest": JSONDataset(filepath=path("manifest.json")),
            **{f"toy.{n}": TableDataset(filepath=path(f"{n}.parquet")) for n in ("interactions", "items", "features", "results")},
            "toy.model": TableDataset(filepath=path("model.parquet"), version=version),
            # as written: defaults are filled in only in blocks that Kedro validates
            "parameters": MemoryDataset(given),
            **{f"params:toy.{block}": MemoryDataset(tree["toy"][block]) for block in tree["toy"]},
        }  # fmt: skip
        return DataCatalog({k: v for k, v in datasets.items() if k not in memory})

    def run(self, stale="warn", runner=None, memory=(), only_missing_outputs=False, load_versions=None, select=None, **toy):  # fmt: skip
        given = {"toy": {"raw": {"root": str(self.root / "raw")}} | toy, "freshness": {"stale": stale}}  # fmt: skip
        catalog = self.catalog(given, memory)
        pipeline = Pipeline(NODES, namespace="toy").filter(**(select or {}))
        hooks, ran = _create_hook_manager(), []

        class Listener:
            @reelrank.hooks.hook_impl
            def before_node_run(self, node):
                ran.append(node.short_name)

        hooks.register(FreshnessHooks())
        hooks.register(Listener())
        params = {"only_missing_outputs": only_missing_outputs, "load_versions": load_versions}
        hooks.hook.before_pipeline_run(run_params=params, pipeline=pipeline, catalog=catalog)
        result = (runner or SequentialRunner()).run(
            pipeline, catalog, hooks, only_missing_outputs=only_missing_outputs
        )
        hooks.hook.after_pipeline_run(run_params=params, run_result=result, pipeline=pipeline, catalog=catalog)  # fmt: skip
        return ran


@pytest.fixture
def toy(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(reelrank.parameters, "Parameters", ToyParameters)
    caplog.set_level("INFO", logger="reelrank")
    return Toy(tmp_path)


def test_a_rebuild_runs_nothing_where_all_is_fresh_and_says_so(toy, caplog):
    assert toy.run("rebuild") == ALL
    assert toy.run("rebuild") == []
    assert "5 of 5 nodes were skipped: their outputs are fresh" in caplog.text
    assert toy.run("warn") == ALL
    assert toy.run("rebuild", ingest={"chunk_mb": 1}) == [], "changes no result"


def test_a_rebuild_runs_what_a_parameter_touches_and_all_that_follows(toy, caplog):
    toy.run()
    assert toy.run("rebuild", model={"width": 5}) == ["train", "evaluate"]
    assert "to be made: toy.model: parameter toy.model.width changed 4 → 5" in caplog.text
    assert toy.run("rebuild", model={"width": 5}, ingest={"gap_s": 900}) == ALL[1:]
    assert pl.read_parquet(toy.root / "data/results.parquet").row(0) == (5, 900, 5)


def test_a_rebuild_follows_raw_files(toy):
    toy.run()
    (toy.root / "raw/log.csv").write_text("123")
    assert toy.run("rebuild") == ALL
    assert toy.run("rebuild") == []
    (toy.root / "raw/more.csv").write_text("1")
    assert toy.run("rebuild") == ALL
    assert pl.read_parquet(toy.root / "data/results.parquet")["rows"].item() == 4


def test_other_raw_files_are_other_data_whatever_they_hold(toy, tmp_path):
    toy.run()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "log.csv").write_text("1")
    assert toy.run("rebuild", raw={"root": str(elsewhere)}) == ALL


def test_a_rebuild_makes_what_is_missing(toy):
    toy.run()
    (toy.root / "data/features.parquet").unlink()
    assert toy.run("rebuild") == ["features", "train", "evaluate"]
    (toy.root / "data/results.parquet").unlink()
    assert toy.run("rebuild") == ["evaluate"]


def test_new_code_makes_everything_old(toy, monkeypatch):
    toy.run()
    monkeypatch.setattr(reelrank.hooks, "code_version", lambda: "0.2.0+new")
    assert toy.run("rebuild") == ALL
    assert toy.run("rebuild") == []


def test_a_failed_run_goes_on_where_it_failed(toy):
    with pytest.raises(ZeroDivisionError):
        toy.run("rebuild", model={"width": 0})
    assert toy.run("rebuild") == ["train", "evaluate"]


@pytest.mark.parametrize("how", ["before the save", "half", "before the record"])
def test_a_run_killed_while_saving_vouches_for_nothing(toy, monkeypatch, how):
    toy.run()
    path = toy.root / "data/features.parquet"

    class Killed(BaseException):
        pass

    def die(self, *args, **kwargs):
        if how == "half":
            path.write_bytes(b"PAR1")
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if how == "before the record":
            patch.setattr(Record, "write", die)
        else:
            patch.setattr(TableDataset, "save", TableDataset._save_wrapper(die))
        toy.run(select={"node_names": ["toy.features"]})
    # the old table is still whole if nothing was saved
    expected = [] if how == "before the save" else ["features", "train", "evaluate"]
    assert toy.run("rebuild") == expected


def test_a_table_written_by_hand_is_made_anew(toy):
    toy.run()
    pl.DataFrame({"rows": [7]}).write_parquet(toy.root / "data/items.parquet")
    assert toy.run("rebuild") == ALL[1:]


def test_a_model_trained_again_makes_its_results_old(toy):
    """The same parameters give another version, which the results were not made from."""
    toy.run()
    toy.run(select={"node_names": ["toy.train"]})
    assert toy.run("rebuild") == ["evaluate"]
    toy.run(select={"node_names": ["toy.ingest"]})
    assert toy.run("rebuild") == [], "a table that has no versions comes out the same"


def test_what_is_not_stored_is_made_each_time(toy):
    toy.run(memory={"toy.features"})
    assert toy.run("rebuild", memory={"toy.features"}) == ["features", "train", "evaluate"]


def test_tables_made_before_there_were_records_are_made_anew(toy):
    toy.run()
    for file in (toy.root / "data").rglob(f"*{SUFFIX}"):
        file.unlink()
    assert toy.run("rebuild") == ALL


def test_threads_keep_records_too(toy):
    assert sorted(toy.run(runner=ThreadRunner())) == sorted(ALL)
    assert toy.run("rebuild") == []


FROM_TRAIN = {"from_nodes": ["toy.train"]}


def test_a_run_warns_of_old_tables_that_it_loads(toy, caplog):
    toy.run()
    assert toy.run(select=FROM_TRAIN) == ["train", "evaluate"]
    assert "out of date" not in caplog.text
    toy.run(select=FROM_TRAIN, ingest={"gap_s": 900})
    assert (
        "- toy.features: parameter toy.ingest.gap_s changed 1800 → 900 (of toy.interactions, from which it was made)"
        in caplog.text
    )
    assert "toy.interactions:" not in caplog.text, "only what the run loads is named"


def test_a_run_warns_where_an_input_was_made_anew(toy, caplog):
    toy.run()
    toy.run(ingest={"gap_s": 900}, select={"to_nodes": ["toy.ingest"]})
    toy.run(ingest={"gap_s": 900}, select=FROM_TRAIN)
    assert "- toy.features: toy.interactions was made anew; toy.items was made anew" in caplog.text


def test_a_run_refuses_old_tables_if_told_to(toy):
    toy.run()
    before = content_stamp(toy.root / "data")
    with pytest.raises(StaleTables, match=r"toy\.features: parameter toy\.ingest\.gap_s changed"):
        toy.run("error", select=FROM_TRAIN, ingest={"gap_s": 900})
    assert content_stamp(toy.root / "data") == before
    assert toy.run("error", ingest={"gap_s": 900}) == ALL, "nothing old is loaded"


def test_a_run_looks_at_nothing_if_told_to(toy, caplog):
    toy.run()
    toy.run("ignore", select=FROM_TRAIN, ingest={"gap_s": 900})
    assert "out of date" not in caplog.text
    assert toy.run("rebuild", ingest={"gap_s": 900}) == ALL[1:], "records are kept all the same"


def test_a_rebuild_of_a_part_warns_of_what_it_cannot_rebuild(toy, caplog):
    toy.run()
    assert toy.run("rebuild", select=FROM_TRAIN, ingest={"gap_s": 900}) == ["train", "evaluate"]
    assert "toy.features: parameter toy.ingest.gap_s changed" in caplog.text
    assert toy.run("rebuild", ingest={"gap_s": 900}) == ALL[1:]


def test_outputs_that_kedro_would_keep_are_looked_at(toy, caplog):
    toy.run()
    (toy.root / "data/results.parquet").unlink()
    assert "evaluate" in toy.run(only_missing_outputs=True, ingest={"gap_s": 900})
    assert "- toy.interactions: parameter toy.ingest.gap_s changed 1800 → 900" in caplog.text
    with pytest.raises(StaleTables, match="leave out --only-missing-outputs"):
        toy.run("rebuild", only_missing_outputs=True)


def test_a_version_that_was_asked_for_is_not_judged(toy, caplog):
    toy.run()
    only = {"node_names": ["toy.evaluate"]}
    toy.run(select=only, load_versions={"toy.model": "2026-01-01T00.00.01.000Z"}, model={"width": 9})  # fmt: skip
    assert "out of date" not in caplog.text
    toy.run(select=only, model={"width": 9})
    assert "- toy.model: parameter toy.model.width changed 4 → 9" in caplog.text


def test_a_catalog_without_parameters_is_left_alone(tmp_path):
    hooks, catalog = FreshnessHooks(), DataCatalog()
    pipeline = Pipeline(NODES, namespace="toy")
    hooks.before_pipeline_run(run_params={}, pipeline=pipeline, catalog=catalog)
    hooks.after_dataset_saved(dataset_name="toy.items", data=None, node=pipeline.nodes[0])
    hooks.after_pipeline_run(pipeline=pipeline)
    assert len(pipeline.nodes) == len(NODES)


def test_a_bucketed_table_s_record_survives_beside_its_folder(toy, tmp_path):
    staged = tmp_path / "staged"
    staged.mkdir()
    stored = BucketedTableDataset(filepath=str(tmp_path / "data" / "interactions"))
    stored.save(finish_table(staged, 0, 0))
    path = tmp_path / "data" / "interactions"
    record_of(path).write(path)
    assert judge(path).causes("a") == {} and stored.load().n_rows == 0


# the project itself


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    """Tables and features of the sample world."""
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="features_kuairand")
    return folder


def times(data_root):
    return {p.name: p.stat().st_mtime_ns for p in data_root.rglob(f"*{SUFFIX}")}


def rebuild(run, data_root, **params):
    """The outputs that a rebuild made."""
    before = times(data_root)
    run(
        data_root, pipeline="features_kuairand", params={"freshness": {"stale": "rebuild"}} | params
    )
    after = times(data_root)
    return {name.removesuffix(SUFFIX) for name in after if after[name] != before.get(name)}


@pytest.mark.long
def test_every_stored_output_of_the_project_has_a_record(data_root, catalog_of, project):
    from kedro.framework.project import pipelines

    catalog = catalog_of(data_root)
    for name in pipelines["features_kuairand"].all_outputs():
        path = Path(str(catalog.get(name)._describe()["filepath"]))
        assert Record.read(path).dataset == name


@pytest.mark.long
def test_the_project_rebuilds_what_a_parameter_or_a_raw_file_touches(run, data_root):
    assert rebuild(run, data_root) == set()
    alpha = {"kuairand": {"history": {"alpha": 0.2}}}
    made = rebuild(run, data_root, **alpha)
    assert "histories" in made and not made & {"interactions", "splits"}
    assert rebuild(run, data_root, **alpha) == set()
    assert rebuild(run, data_root, engine={"workers": 2}, **alpha) == set()
    log = next((data_root / "01_raw").rglob("log_standard_4_22*.csv"))
    os.utime(log)
    assert "interactions" in rebuild(run, data_root, **alpha)
    assert rebuild(run, data_root, **alpha) == set()


@pytest.mark.long
def test_the_project_warns_and_refuses(run, data_root):
    params = {"kuairand": {"ingest": {"session_gap_s": 900}}, "freshness": {"stale": "error"}}
    expected = (
        r"kuairand\.interactions: parameter kuairand\.ingest\.session_gap_s changed 1800 → 900"
    )
    with pytest.raises(StaleTables, match=expected):
        run(
            data_root,
            pipeline="features_kuairand",
            params=params,
            from_inputs=["kuairand.interactions"],
        )
