"""What stops a run before it costs anything, what runs without data, and the lineage page."""

import json
import re
import subprocess
import sys

import pytest
from kedro.validation.exceptions import ParameterValidationError


@pytest.mark.long
def test_paper_sizes_are_described_without_data(run, catalog_of, tmp_path):
    run(tmp_path, env="paper", node_names=["mt_dqn.describe_sizes"])
    sizes = catalog_of(tmp_path, "paper")["mt_dqn.sizes"].load()
    fusion = sizes.filter(variant="mt_dqn", module="fusion")["parameters"].item()
    # six layers of 12·768² weights dominate: METHODS Appendix C
    assert 6 * 12 * 768**2 < fusion < 1.2 * 6 * 12 * 768**2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mt_dqn": {"training": {"epoch": 3}}}, "epoch"),
        ({"mt_dqn": {"learning": {"gamma": 1.5}}}, "gamma"),
        ({"worlds": {"kuairand": {"users": 50}}}, "users"),
        ({"kuairand": {"raw": {"kind": "cloud"}}}, "kind"),
        ({"mt_dqn": {"models": {"mt_dqn": {"fusion": {"heads": 5}}}}}, "heads"),
        ({"mt_dqn": {"trainng": {"epochs": 1}}}, r"mt_dqn\.trainng"),
        ({"worlds": {"kuairnd": {"seed": 7}}}, r"worlds\.kuairnd"),
        ({"mt_dqnn": {}}, "mt_dqnn"),
        ({"mt_dqn": {"reward": {"gamma": 0.9}}}, "must be equal"),
        ({"mt_dqn": {"reward": {"lambda_retention": 1.0}}}, "largest reward"),
        ({"kuairand": {"raw": {"variant": "1k"}}}, "sample world is written as pure"),
        ({"mt_dqn_kuairec": {"split": {"rule": "burst_day"}}}, "burst_day does not cut all users at the same"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(wrong_parameters, params, message):
    assert any(re.search(message, said) for said in wrong_parameters(params))


def test_a_wrong_parameter_stops_a_run_before_the_first_node(run, tmp_path):
    with pytest.raises(ParameterValidationError, match=r"mt_dqn\.training\.epoch"):
        run(tmp_path, params={"mt_dqn": {"training": {"epoch": 3}}})
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_named_with_their_address(run, tmp_path):
    params = {"kuairand": {"raw": {"kind": "files", "root": str(tmp_path / "nowhere")}}}
    with pytest.raises(FileNotFoundError, match=r"user_features_pure\.csv") as error:
        run(tmp_path, pipeline="ingestion", params=params)
    assert "zenodo.org" in str(error.value) and "nowhere" in str(error.value)


def test_an_empty_split_is_said_in_one_sentence(run, tmp_path):
    params = {"kuairand": {"split": {"train_last_day": "2022-03-01", "val_last_day": "2022-03-02"}}}
    with pytest.raises(ValueError, match="leaves train and val empty"):
        run(tmp_path, pipeline="features_kuairand", params=params)


@pytest.mark.long
def test_kedro_viz_builds(project):
    command = [
        sys.executable,
        "-m",
        "kedro",
        "viz",
        "build",
        "--include-hooks",
        "--include-previews",
    ]
    subprocess.run(command, check=True, cwd=project, capture_output=True, timeout=300)
    graph = json.loads((project / "build/api/main").read_text(encoding="utf-8"))
    assert {"provide_raw", "train_mt_dqn", "write_report"} <= {n["name"] for n in graph["nodes"]}
    assert graph["layers"] == ["raw", "intermediate", "primary", "feature", "model_input", "models", "model_output", "reporting"]  # fmt: skip
