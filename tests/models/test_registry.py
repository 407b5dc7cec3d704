import json

import pytest
import torch
from pydantic import ValidationError
from support.model_inputs import TINY, batch, model_inputs

import reelrank.pipelines.mt_dqn.baselines
import reelrank.pipelines.mt_dqn.model  # noqa: F401 (registers)
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import RankingModel
from reelrank.models.registry import build, register


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_model_is_rebuilt_from_json_and_weights(name):
    torch.manual_seed(0)
    inputs = model_inputs()
    model = build(name, TINY[name], InputSpec.of(inputs), RankingModel).eval()
    model.refresh(inputs)
    text = json.dumps([model.config.model_dump(mode="json"), model.spec.model_dump(mode="json")])
    config, spec = json.loads(text)
    again = build(name, config, spec, RankingModel).eval()
    again.load_state_dict(model.state_dict())
    assert (again.config, again.spec) == (model.config, model.spec)
    users, items, ts = batch(inputs)
    expected = model(inputs, users, items, ts)
    found = again(inputs, users, items, ts)
    assert torch.equal(found.q, expected.q) and torch.equal(found.value, expected.value)


def test_unknown_names_and_keys_are_refused():
    spec = InputSpec.of(model_inputs())
    with pytest.raises(KeyError, match=r"no model named 'mtdqn'; registered: .*mt_dqn"):
        build("mtdqn", {}, spec, RankingModel)
    with pytest.raises(ValidationError, match="d_ff"):
        build("mt_dqn", {"fusion": {"d_ff": 3}}, spec, RankingModel)


def test_a_name_is_taken_once():
    from reelrank.pipelines.mt_dqn.model import MTDQN
    from reelrank.pipelines.mt_dqn.options import MTDQNOptions

    register("mt_dqn", MTDQNOptions)(MTDQN)  # a reload is no conflict
    with pytest.raises(ValueError, match="'mt_dqn' is taken by"):
        register("mt_dqn", MTDQNOptions)(type("Other", (MTDQN,), {}))
