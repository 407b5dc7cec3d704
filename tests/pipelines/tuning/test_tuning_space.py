"""Spaces are refused before anything runs, and say what to do; values go to Optuna and back unchanged."""

import optuna
import pytest
from kedro.pipeline import Node, Pipeline
from pydantic import TypeAdapter, ValidationError

from reelrank.pipelines.tuning.options import Range, SpaceOptions, TuningParameters
from reelrank.pipelines.tuning.space import MISSING, nested, suggest, value_at, with_values
from reelrank.pipelines.tuning.task import make_task

RANGE = TypeAdapter(Range)
SPACE = {
    "toy.lr": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "toy.size": {"kind": "int", "low": 1, "high": 9},
    "toy.hidden": {"kind": "categorical", "choices": [[8], [16, 8], None]},
}
TREE = {"toy": {"lr": 0.01, "size": 4, "hidden": [8], "seed": 0, "k": 3, "raw": {"kind": "world"}}, "other": {"k": 1}, "tuning": {}}  # fmt: skip


def pipeline():
    def node(inputs, output, name):
        return Node(lambda *given: given, inputs, output, name=name)

    blocks = [f"params:toy.{name}" for name in ("lr", "size", "hidden", "seed")]
    return Pipeline(
        [
            node(["params:toy.k", "params:toy.raw"], "toy.table", "toy.make"),
            node(["toy.table", *blocks], ["toy.m_model", "toy.m_history"], "toy.train"),
        ]
    )


def tuning(space=SPACE, **changed):
    system = {"pipeline": "toy", "node": "train", "metric": "NDCG", "seed": "toy.seed", "space": space}  # fmt: skip
    given = {"project": ".", "environment": "test", "folder": "f", "storage": "s", "systems": {"toy": system}}  # fmt: skip
    return TuningParameters(**given | changed)


def task(space=SPACE, system="toy", tree=TREE, check=lambda _: []):
    return make_task(system, tuning(space), tree, {"toy": pipeline()}, check)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "float", "low": 2, "high": 1}, "must be below high"),
        ({"kind": "float", "low": 0, "high": 1, "log": True}, "log needs low above 0"),
        ({"kind": "int", "low": 0.5, "high": 2}, "integer"),
        ({"kind": "categorical", "choices": ["a"]}, "at least 2"),
        ({"kind": "categorical", "choices": ["a", "a"]}, "twice"),
        ({"kind": "real", "low": 0, "high": 1}, "does not match any of the expected tags"),
        ({"kind": "int", "low": 0, "high": 2, "step": 1}, "Extra inputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_a_wrong_range_is_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        RANGE.validate_python(given)


def test_values_go_to_optuna_and_back():
    space = {path: RANGE.validate_python(given) for path, given in SPACE.items()}
    study = optuna.create_study()
    study.enqueue_trial({"toy.lr": 0.01, "toy.size": 4, "toy.hidden": "[16, 8]"})
    assert suggest(study.ask(), space) == {"toy.lr": 0.01, "toy.size": 4, "toy.hidden": [16, 8]}
    for _ in range(20):
        drawn = suggest(study.ask(), space)
        assert 1e-4 <= drawn["toy.lr"] <= 1e-1
        assert drawn["toy.size"] in range(1, 10)
        assert drawn["toy.hidden"] in ([8], [16, 8], None)


def test_a_tree_with_values_leaves_the_old_one_alone():
    changed = with_values(TREE, {"toy.lr": 0.5, "toy.raw.kind": "files"})
    assert changed["toy"]["lr"] == 0.5
    assert changed["toy"]["raw"] == {"kind": "files"}
    assert TREE["toy"]["lr"] == 0.01
    assert changed["other"] == TREE["other"]
    assert nested({"a.b.c": 1, "a.d": 2}) == {"a": {"b": {"c": 1}, "d": 2}}
    assert value_at(TREE, "toy.nothing.at") is MISSING


@pytest.mark.parametrize(
    ("path", "given", "says"),
    [
        ("toy.lrr", {"kind": "float", "low": 0, "high": 1}, "no such parameter; near it: toy.lr"),
        ("toy.raw", {"kind": "int", "low": 0, "high": 1}, "no such parameter"),
        ("toy.k", {"kind": "int", "low": 0, "high": 9}, "steps before the training take it"),
        ("other.k", {"kind": "int", "low": 0, "high": 9}, "the training does not take it"),
        ("toy.lr", {"kind": "float", "low": 0.1, "high": 1}, "0.01 lies outside of 0.1 … 1.0"),
        ("toy.hidden", {"kind": "categorical", "choices": [[1], [2]]}, "widen the range"),
    ],
    ids=["unknown", "block", "before", "elsewhere", "outside", "not a choice"],
)
def test_a_space_that_cannot_be_searched_is_refused(path, given, says):
    with pytest.raises(ValueError, match=says):
        task({path: given})


def test_ends_of_a_range_are_tried_on_the_parameters_themselves():
    def check(tree):
        return ["toy.size: at most 8"] if tree["toy"]["size"] > 8 else []

    with pytest.raises(ValueError, match=r"toy\.size=9: toy\.size: at most 8"):
        task(check=check)


def test_an_unknown_system_names_those_near_it():
    with pytest.raises(ValueError, match=r"system=toyy: .* near it: toy"):
        task(system="toyy")


def test_seeds_of_evaluation_are_refused():
    with pytest.raises(ValidationError, match="greater than or equal to 5"):
        tuning(training_seed=4)
    with pytest.raises(ValidationError, match="by which the best trial was chosen"):
        tuning(training_seed=7, confirming_seeds=[7])
    with pytest.raises(ValidationError, match="cannot be given twice"):
        SpaceOptions(pipeline="p", node="n", metric="m", seed="toy.lr", space=SPACE)


def test_the_study_is_named_by_what_its_values_rest_on():
    own = task()
    assert own.tree["toy"]["seed"] == 1000
    assert own.inputs == ("toy.table",)
    assert own.data_kind == "world"
    assert "other" not in own.tree, "a run is given what it needs"
    # what is tuned, and what the training does not rest on, does not part studies
    assert task(tree=with_values(TREE, {"toy.lr": 0.02, "other.k": 5})).study == own.study
    assert task(tree=with_values(TREE, {"toy.k": 4})).study != own.study
    assert task({path: SPACE[path] for path in ("toy.lr", "toy.size")}).study != own.study
