import math

import pytest
import torch
from support.feed_baselines import OPTIONS, planted_feed
from support.feed_log import toy_feed

from reelrank.models.feed import RESPONSES
from reelrank.models.feed_data import trained_decisions
from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.baselines.constrained import closed_form_log_weights
from reelrank.pipelines.mmrf.baselines.constrained import sample_weights as normalised
from reelrank.pipelines.mmrf.baselines.networks import utility
from reelrank.pipelines.mmrf.baselines.options import (
    CriticMethodOptions,
    ResponseWeights,
    TSCACOptions,
)
from reelrank.pipelines.mmrf.baselines.supervised import (
    log_policy,
    ltr_loss,
    mean_weight,
    ranknet,
    sample_weights,
    shuffled_runs,
    weighted_cross_entropy,
)
from reelrank.pipelines.mmrf.baselines.weighted import (
    critic_weights,
    gaussian_ratio,
    main_weights,
    score_distance,
)

NAN = float("nan")


def test_the_utility_counts_ten_seconds_as_thirty():
    response = torch.tensor([
        [1.0, 1, 0, 0, 1, 1, 20.0],
        [0.0, 0, 0, 0, 0, 0, 999.0],
        [1.0, NAN, NAN, NAN, NAN, NAN, NAN],
    ])  # fmt: skip
    # 0.1 + 0.1 − 0.1 + 3 · 20; 180 s at most; what was not logged is 0
    torch.testing.assert_close(utility(response, ResponseWeights()), torch.tensor([60.1, 540, 0.1]))


def test_cross_entropy_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0, 5.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    log_pi = log_policy(logits, mask)
    shown = torch.tensor([[True, False, False], [False, True, True]])
    bc = -(math.log(0.75) + 2 * math.log(1 / 3)) / 3
    torch.testing.assert_close(weighted_cross_entropy(log_pi, shown, shown.float()), torch.tensor(bc))  # fmt: skip
    weight = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    weighted = -(2 * math.log(0.75) + 0.5 * math.log(1 / 3)) / 3
    torch.testing.assert_close(weighted_cross_entropy(log_pi, shown, weight), torch.tensor(weighted))  # fmt: skip


def test_sample_weights_have_mean_one_on_train_and_are_never_negative():
    feed = toy_feed()
    feed.decisions.response[:40] = NAN  # nothing logged of these
    weights = ResponseWeights(hate=-1e6)
    trained = trained_decisions(feed.decisions)
    weight = sample_weights(feed, trained, weights) / mean_weight(feed, weights)
    shown = feed.decisions.shown[trained]
    assert float(weight[shown].mean()) == pytest.approx(1, abs=1e-5)
    assert weight.min() == 0
    assert not weight[~shown].any()
    hated = feed.decisions.response[trained][..., RESPONSES.index("hate")] == 1
    assert hated.any()
    assert not weight[hated].any()


def test_weights_that_leave_nothing_to_learn_are_refused():
    feed = toy_feed()
    with pytest.raises(ValueError, match="nowhere above 0 in train"):
        mean_weight(feed, ResponseWeights(click=-1, like=-1, follow=0, comment=0, watch_time_10s=0))


def test_ranknet_by_hand():
    scores = torch.tensor([1.0, 0.0, 2.0, 5.0], requires_grad=True)
    worth = torch.tensor([1.0, 3.0, 1.0, 9.0])
    group = torch.tensor([0, 0, 0, 1])
    # pairs (1 over 0) and (1 over 2); 0 and 2 are equal, 3 is another user's
    loss, pairs = ranknet(scores, worth, group, window=4)
    expected = (math.log(1 + math.exp(1.0)) + math.log(1 + math.exp(2.0))) / 2
    assert int(pairs) == 2
    torch.testing.assert_close(loss, torch.tensor(expected))
    slope = torch.autograd.grad(loss, scores)[0]
    sigmoid = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-2.0))]
    torch.testing.assert_close(slope, torch.tensor([sigmoid[0], -sum(sigmoid), sigmoid[1], 0]) / 2)


def test_ranknet_knows_its_window_and_what_is_unknown():
    scores, group = torch.zeros(4), torch.zeros(4)
    worth = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert int(ranknet(scores, worth, group, 2)[1]) == 3
    assert int(ranknet(scores, worth, group, 9)[1]) == 6
    unknown = torch.tensor([1.0, NAN, 3.0, 4.0])
    assert int(ranknet(scores, unknown, group, 9)[1]) == 3
    loss, pairs = ranknet(scores, torch.ones(4), group, 9)
    assert int(pairs) == 0
    assert float(loss) == 0


def test_pairs_need_no_request_of_several_items():
    feed = planted_feed()
    d = feed.decisions
    index = trained_decisions(d)
    single = index[d.shown[index].sum(1) == 1]
    loss, pairs = ltr_loss(torch.zeros(len(single), 8), feed, single, OPTIONS["ltr"])
    assert pairs > 0
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))


def test_runs_stay_whole_and_hold_one_user():
    user = torch.tensor([3, 3, 3, 3, 3, 5, 5, 8])
    rows = shuffled_runs(torch.arange(8), user, 2, seed=1)
    assert rows.sort().values.tolist() == list(range(8))
    runs = [[0, 1], [2, 3], [4], [5, 6], [7]]
    at = {run[0]: rows.tolist().index(run[0]) for run in runs}
    assert all(rows.tolist()[at[r[0]] : at[r[0]] + len(r)] == r for r in runs)
    assert rows.tolist() != list(range(8))


def test_the_closed_form_on_two_candidates():
    policies = torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]])
    behaviour = torch.tensor([[0.4, 0.6]])
    advantage = torch.tensor([[1.0, -1.0]])
    multipliers = torch.tensor([1.0, 3.0])
    log_weight = closed_form_log_weights(policies.log(), behaviour.log(), advantage, multipliers)
    # π* ∝ 0.8^¼ 0.5^¾ e^¼ against 0.2^¼ 0.5^¾ e^−¼
    by_hand = torch.tensor([[0.8**0.25 * math.exp(0.25), 0.2**0.25 * math.exp(-0.25)]]) * 0.5**0.75
    torch.testing.assert_close(behaviour * log_weight.exp(), by_hand)
    # weighted by what the log would show, the likelihood is highest at π*
    target = by_hand / by_hand.sum()
    odds = (0.8 / 0.2) ** 0.25 * math.exp(0.5)
    torch.testing.assert_close(target[0, 0] / target[0, 1], torch.tensor(odds))


def test_a_large_multiplier_leaves_the_geometric_mean():
    policies = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log()
    behaviour = torch.tensor([[0.5, 0.5]]).log()
    far = closed_form_log_weights(policies, behaviour, torch.tensor([[3.0, -3.0]]), torch.tensor([1e6, 1e6]))  # fmt: skip
    torch.testing.assert_close(far[0, 0], far[0, 1], atol=1e-5, rtol=0)


def test_sample_weights_have_mean_one_before_the_cap_and_ignore_pads():
    log_weight = torch.tensor([[900.0, -torch.inf], [900.0 + math.log(3), 7.0]])
    exposure = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(normalised(log_weight, exposure, 10.0), torch.tensor([[0.5, 0], [1.5, 0]]))  # fmt: skip
    assert float(normalised(log_weight, exposure, 1.0).max()) == 1.0
    assert not normalised(log_weight, torch.zeros(2, 2), 10.0).any()


def test_the_codes_gaussian_ratio():
    # N(0; 0, 30) = 0.013298; a narrow one is cut at 1
    torch.testing.assert_close(gaussian_ratio(torch.tensor([0.0, 900.0]), 30.0), torch.tensor([0.0132981, 0.0080657]))  # fmt: skip
    assert float(gaussian_ratio(torch.zeros(1), 0.1)) == 1.0
    mask = torch.tensor([[True, True, False]])
    logits, near = torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([[math.log(3), 0.0, -torch.inf]])  # fmt: skip
    torch.testing.assert_close(score_distance(logits, near, mask, 149.0), torch.tensor([(149 / 4) ** 2 / 2]))  # fmt: skip


def test_weighted_critics_add_up_to_the_utility():
    """Σ w_i · standardised reward is Σ λ_k r_k: hate counts once negative, watch time per 10 s."""
    feed = toy_feed()
    scale = RewardScale.fit(feed)
    shown = feed.decisions.response[feed.decisions.shown]
    reward = scale.rewards(shown)
    weights = ResponseWeights(hate=-0.7, long_view=0.3)
    torch.testing.assert_close((critic_weights(weights, scale) * reward).sum(-1), utility(shown, weights))  # fmt: skip
    watch = shown[:, -1].clamp(max=180)
    torch.testing.assert_close((main_weights(30.0, scale) * reward).sum(-1), 3 * watch)
    few = RewardScale.fit(feed, ("hate", "watch_time"))
    assert critic_weights(weights, few).shape == (2,)


def test_options_name_what_is_wrong():
    with pytest.raises(ValueError, match="every response weight is 0"):
        ResponseWeights(click=0, like=0, follow=0, comment=0, hate=0, watch_time_10s=0)
    with pytest.raises(ValueError, match="watch_time must be the last"):
        CriticMethodOptions(agents=("watch_time", "click"))
    with pytest.raises(ValueError, match="needs an auxiliary response"):
        TSCACOptions(agents=("watch_time",))
    with pytest.raises(ValueError, match="must be equal: they read one batch"):
        longer = OPTIONS["pareto"].critic.encoder.model_copy(update={"history": 9})
        critic = OPTIONS["pareto"].critic.model_copy(update={"encoder": longer})
        CriticMethodOptions(actor=OPTIONS["pareto"].actor, critic=critic)
    with pytest.raises(ValueError, match="are linear"):
        kind = OPTIONS["massa"].critic.model_copy(update={"kind": "mlp_set"})
        type(OPTIONS["massa"])(critic=kind, actor=OPTIONS["massa"].actor)
