import pytest
import torch
from support.model_inputs import TINY, batch, model_inputs

import reelrank.pipelines.mt_dqn.baselines
import reelrank.pipelines.mt_dqn.model  # noqa: F401 (registers)
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import RankingModel
from reelrank.models.registry import build, registered


@pytest.fixture(params=sorted(TINY))
def model(request):
    torch.manual_seed(0)
    inputs = model_inputs()
    model = build(request.param, TINY[request.param], InputSpec.of(inputs), RankingModel).eval()
    model.refresh(inputs)
    return model


def test_scores_and_probabilities(model):
    assert set(TINY) <= set(registered())
    inputs = model_inputs()
    users, items, ts = batch(inputs)
    scores = model.scores(inputs, users, items, ts)
    assert scores.dtype == torch.float32 and scores.shape == items.shape
    p = model.probabilities(inputs, users, items, ts, temperature=0.5)
    torch.testing.assert_close(p, torch.softmax(scores / 0.5, 1))
    torch.testing.assert_close(p.sum(1), torch.ones(len(users)))
    with pytest.raises(ValueError, match="temperature must be > 0, is 0"):
        model.probabilities(inputs, users, items, ts, temperature=0.0)


def test_permuting_candidates_permutes_outputs(model):
    inputs = model_inputs()
    users, items, ts = batch(inputs)
    order = torch.tensor([2, 0, 3, 1])
    plain, permuted = model(inputs, users, items, ts), model(inputs, users, items[:, order], ts)
    for name in ("q", "behaviour_logits", "value", "reward"):
        a, b = getattr(plain, name), getattr(permuted, name)
        torch.testing.assert_close(a[:, order], b, atol=1e-6, rtol=1e-5)
    assert plain.behaviour_logits.shape == (*items.shape, 3)
    assert plain.value.shape == plain.reward.shape == items.shape


def test_the_head_broadcasts_one_list_of_items_to_all_users(model):
    inputs = model_inputs()
    users, items, ts = batch(inputs)
    users_state = model.user_state(inputs, users, ts)
    items_state = model.item_state(inputs, items[0], ts[:1].expand(4))
    shared = model.head(users_state, items_state.unsqueeze(0))
    repeated = model.head(users_state, items_state.expand(len(users), -1, -1))
    torch.testing.assert_close(shared.q, repeated.q)
