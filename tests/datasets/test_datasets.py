"""Datasets write whole or not at all, and keep versions where ARCHITECTURE says."""

import errno
import json
from pathlib import Path

import polars as pl
import pytest
import torch
from kedro.io.core import DatasetError, Version

from reelrank.atomic import replace_folder
from reelrank.buckets import BucketedTable, EngineOptions, map_buckets
from reelrank.datasets import (
    BucketedTableDataset,
    CheckpointDataset,
    ReportDataset,
    ResultsDataset,
    TableDataset,
)
from reelrank.datasets.prune import versions_to_drop
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.checkpoint import CheckpointError

FRAME = pl.DataFrame({"a": [1, 2], "b": [[0.5, 1.0], []]})
EARLIER, LATER = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"


def as_version(version):
    return Version(None, version)


def test_table_round_trip_and_preview(tmp_path):
    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(FRAME)
    assert dataset.load().equals(FRAME)
    assert dataset.preview()["data"] == [[1, "[0.5, 1]"], [2, "[]"]]
    json.dumps(dataset.preview())


def test_a_failed_save_leaves_the_old_table(tmp_path, monkeypatch):
    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(FRAME)

    def torn(self, file, **kwargs):
        Path(file).write_bytes(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", torn)
    with pytest.raises(DatasetError, match="disk full"):
        dataset.save(FRAME.head(1))
    monkeypatch.undo()
    assert dataset.load().equals(FRAME)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_results_lie_under_their_run_id_and_carry_it(tmp_path):
    folder = tmp_path / "results" / "mt_dqn"
    for version, value in [(EARLIER, 1.0), (LATER, 2.0)]:
        ResultsDataset(filepath=str(folder), version=as_version(version)).save(
            pl.DataFrame({"run_id": [""], "value": [value]})
        )
    assert sorted(p.name for p in folder.iterdir()) == [f"{EARLIER}.parquet", f"{LATER}.parquet"]
    newest = ResultsDataset(filepath=str(folder), version=Version(None, None))
    assert newest.load().row(0) == (LATER, 2.0)
    assert newest.list_versions(full_path=False) == [LATER, EARLIER]
    earlier = ResultsDataset(filepath=str(folder), version=Version(EARLIER, None))
    assert earlier.load().row(0) == (EARLIER, 1.0)


def test_report_keeps_versions_and_shows_the_newest(tmp_path):
    page = tmp_path / "report" / "mt_dqn.html"
    for version, text in [(EARLIER, "old"), (LATER, "new")]:
        ReportDataset(filepath=str(page), version=as_version(version)).save(text)
    assert page.read_text() == "new"
    assert ReportDataset(filepath=str(page), version=Version(EARLIER, None)).load() == "old"


def test_checkpoint_round_trip_and_torn_file(tmp_path):
    dataset = CheckpointDataset(filepath=str(tmp_path / "m"))
    model = ModelCheckpoint({"name": "x"}, {"w": torch.ones(2)}, {"w": torch.zeros(2)})
    dataset.save(model)
    loaded = dataset.load()
    assert loaded.config == {"name": "x"}
    assert loaded.best["w"].tolist() == [1, 1] and loaded.last["w"].tolist() == [0, 0]
    assert json.loads(dataset.preview()) == {"name": "x"}
    weights = next((tmp_path / "m" / "best").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises((DatasetError, CheckpointError), match="sha256"):
        dataset.load()


def add_one(frame):
    return frame.with_columns(pl.col("x") + 1)


def fail_on_last(frame):
    if frame["x"].max() == 3:
        raise ValueError("bad bucket")
    return frame


def staged(tmp_path, n_buckets=4):
    folder = tmp_path / "source"
    folder.mkdir()
    for bucket in range(n_buckets):
        pl.DataFrame({"x": [bucket]}).write_parquet(folder / f"bucket={bucket:05d}.parquet")
    (folder / "_table.json").write_text(
        json.dumps({"n_buckets": n_buckets, "n_rows": n_buckets, "meta": {}})
    )
    return BucketedTable.open(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_map_buckets_is_the_same_with_any_number_of_workers(tmp_path, workers):
    engine = EngineOptions(workers=workers, staging=tmp_path / "staging")
    result = map_buckets(add_one, [staged(tmp_path)], engine, "test")
    dataset = BucketedTableDataset(filepath=str(tmp_path / "final"))
    dataset.save(result)
    assert dataset.load().scan().collect()["x"].to_list() == [1, 2, 3, 4]
    assert dataset.load().n_rows == 4
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_failing_bucket_leaves_nothing_staged_and_the_old_table(tmp_path):
    engine = EngineOptions(staging=tmp_path / "staging")
    source = staged(tmp_path)
    dataset = BucketedTableDataset(filepath=str(tmp_path / "final"))
    dataset.save(map_buckets(add_one, [source], engine, "test"))
    with pytest.raises(ValueError, match="bad bucket"):
        dataset.save(map_buckets(fail_on_last, [source], engine, "test"))
    assert list((tmp_path / "staging").iterdir()) == []
    assert dataset.load().n_rows == 4


def test_unfinished_folder_is_not_a_table(tmp_path):
    dataset = BucketedTableDataset(filepath=str(tmp_path))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="no finished bucketed table"):
        dataset.load()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch, is_there):
    source, target = tmp_path / "new", tmp_path / "final"
    for folder in (source, target) if is_there else (source,):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    rename = Path.rename

    def across_file_systems(self, to):
        if self == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", across_file_systems)
    with pytest.raises(OSError, match="cross-device"):
        replace_folder(source, target)
    assert (source / "name").read_text() == "new"
    assert target.exists() == is_there
    assert not is_there or (target / "name").read_text() == "final"
    assert {path.name for path in tmp_path.iterdir()} == {"new"} | (
        {"final"} if is_there else set()
    )


def test_prune_keeps_the_newest_of_each_output():
    paths = [Path(f"a/2026-01-0{d}T00.00.00.000Z") for d in range(1, 5)]
    paths += [Path("b/2026-01-01T00.00.00.000Z.parquet"), Path("b/other.parquet")]
    assert versions_to_drop(paths, keep=2) == [paths[1], paths[0]]
