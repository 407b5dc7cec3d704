"""Parameters of the feedback simulator that contradict each other are refused, with their names."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from reelrank.pipelines.feedback_simulator.run_options import (
    FeedbackSimulatorParameters,
    RewardGrid,
    changed,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def base():
    file = ROOT / "conf/base/parameters/feedback_simulator.yml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))["feedback_simulator"]


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        ("evaluation", {"responses": ["click"]}, "headline watch_time must be one of"),
        ("evaluation", {"responses": ["watch_time", "watch_time"]}, "each once"),
        ("fold", {"share": 1.0, "complement": True}, "holds no users"),
        ("studies", {"cells": {"x": {"simulator": {"kll": "none"}}}, "run": []}, r"studies\.cells\.x\.simulator"),
        ("studies", {"run": ["nowhere"]}, "nowhere"),
    ],
)  # fmt: skip
def test_contradictions_are_named(base, block, change, message):
    with pytest.raises(ValidationError, match=message):
        FeedbackSimulatorParameters.model_validate(base | {block: base[block] | change})


def test_cells_change_what_they_name_and_nothing_else(base):
    parameters = FeedbackSimulatorParameters.model_validate(base)
    cells = parameters.studies.cells
    rnd = changed(parameters.simulator, cells["rnd"].simulator)
    own = parameters.simulator.model_dump() | {"uncertainty": "rnd"}
    assert rnd.model_dump() == own
    assert cells["half_of_users"].fold.share == cells["other_half_of_users"].fold.share
    assert cells["other_half_of_users"].fold.complement


def test_without_a_bonus_all_forms_of_eq6_are_one_cell():
    cells = RewardGrid(kappas=(0.0, 0.5)).cells()
    assert list(cells) == ["no bonus", "additive, κ = 0.5", "multiplicative, κ = 0.5", "exp, κ = 0.5"]  # fmt: skip
    assert cells["exp, κ = 0.5"].form == "exp"
