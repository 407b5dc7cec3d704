"""A tuning from raw files to its report, and a run with what it found; a second start has nothing to do."""

import os
import subprocess
import sys

import polars as pl
import pytest
import yaml

pytestmark = pytest.mark.long


def kedro(project, *arguments):
    """Run a command as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=project, env=os.environ | {"COLUMNS": "160", "NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_from_raw_files_to_the_report_and_back_to_a_run(project, tmp_path):
    tune = ["run", "--pipelines", "tuning", "--env", "test", "--params", f"system=ruie,data_root={tmp_path}"]  # fmt: skip
    first = kedro(project, *tune)
    folder = tmp_path / "08_reporting/tuning/test/ruie"
    trials = pl.read_parquet(folder / "trials.parquet")
    assert trials.height == 3
    assert trials["origin"].to_list().count("defaults") == 1
    assert "tuning_ruie.html" in first
    page = (tmp_path / "08_reporting/report/test/tuning_ruie.html").read_text(encoding="utf-8")
    assert "Only validation rows were looked at" in page
    assert not (tmp_path / "06_models").exists(), "a trial leaves no model where systems look"
    left = [p for p in (tmp_path / "08_reporting/tuning").rglob("*.safetensors")]
    assert not left

    again = kedro(project, *tune)
    assert "trial 0:" not in again
    assert pl.read_parquet(folder / "trials.parquet").equals(trials)

    best = trials.filter(state="complete").sort("value").row(-1, named=True)
    config = yaml.safe_load((folder / "best_run.yml").read_text())
    assert config["run"]["params"]["ruie"]["training"]["lr"] == best["ruie.training.lr"]
    config["run"] |= {"env": "test", "node_names": "ruie.train_ruie"}
    config["run"]["params"]["data_root"] = str(tmp_path)
    (tmp_path / "run.yml").write_text(yaml.safe_dump(config))
    kedro(project, "run", "--config", str(tmp_path / "run.yml"))
    (config_file,) = (tmp_path / "06_models/test/ruie/ruie").glob("*/ruie/best/checkpoint.json")
    assert str(best["ruie.training.lr"]) in config_file.read_text()
