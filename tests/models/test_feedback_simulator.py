"""The feedback simulator: it learns a planted response, knows where it errs, and simulates as Eq. 6 says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from support.feeds import batch_of, planted_feed, planted_rates

from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.models.feed import HATE, PAD, RESPONSES, WATCH_TIME
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_windows import (
    TEST,
    TRAIN,
    batches_of_like_length,
    cut_windows,
    row_roles,
    windows_with,
)
from reelrank.models.feedback_accuracy import (
    CEILING,
    CONSTANT,
    SIMULATOR,
    Key,
    accuracy,
    judged_rows,
    reward_errors,
)
from reelrank.models.feedback_options import SimulatedRewardOptions, SimulatorOptions
from reelrank.models.feedback_simulator import (
    FeedbackSimulator,
    bernoulli_kl,
    eq6,
    shown,
)
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.feedback_simulator import fit_simulator, simulator_checkpoint
from reelrank.training.options import TrainOptions

SMALL = SimulatorOptions(d_state=16, d_id=8, d_attributes=4, d_context=4, hidden=32)
TRAINING = TrainOptions(epochs=8, batch_size=24, lr=1e-2, lr_min=1e-3, patience=12, device="cpu")
USERS, ROWS = 240, 10
BOOTSTRAP = UserBootstrap(np.arange(USERS), 50)


def fitted(tmp_path, inputs, options=SMALL, training=TRAINING, **other):
    return fit_simulator(
        inputs, options, training, work_dir=tmp_path, identity={"data": "planted"}, **other
    )


@pytest.fixture(scope="module")
def feed():
    return planted_feed(USERS, ROWS)


@pytest.fixture(scope="module")
def trained(feed, tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("simulator"), feed)


@pytest.fixture(scope="module")
def judged(feed, trained):
    rates = torch.from_numpy(planted_rates(len(feed.items.codes))).float()
    return judged_rows(trained[0], feed, seed=1, expected=rates[feed.rows.item])


@pytest.fixture(scope="module")
def found(judged):
    return accuracy(judged, BOOTSTRAP)


def untrained(inputs, options=SMALL, seed=0):
    torch.manual_seed(seed)
    model = FeedbackSimulator(options, FeedSpec.of(inputs), inputs.items)
    model.set_scales(inputs.rows.response)
    return model


def value(found, exposure, response, metric, variant=SIMULATOR):
    return found[Key(exposure, response, variant, metric)].value


@pytest.mark.parametrize("exposure", ["standard", "random"])
def test_it_learns_a_planted_response_and_is_calibrated(found, exposure):
    for name in RESPONSES:
        for metric in ("mse", "true_mse"):
            assert value(found, exposure, name, metric) < value(found, exposure, name, metric, CONSTANT)  # fmt: skip
        order = "xauc" if name == "watch_time" else "auc"
        assert value(found, exposure, name, order) > 0.58
        assert value(found, exposure, name, "true_spearman") > 0.5
        assert value(found, exposure, name, order, CEILING) > 0.58
    for name in RESPONSES[:WATCH_TIME]:
        # 96 to 480 rows in 15 bins: a perfect forecast of a fair coin has about 0.4 √(15/n) by chance
        n = found[Key(exposure, name, SIMULATOR, "ece")].n
        assert value(found, exposure, name, "ece") < 0.05 + 0.4 * math.sqrt(15 / n)
        bias = found[Key(exposure, name, SIMULATOR, "bias")]
        assert bias.ci_low < bias.value < bias.ci_high


def test_accuracy_is_that_of_the_reference_library(judged, found):
    for exposure in ("standard", "random"):
        own = judged.filter(exposure=exposure, response="click")
        y, s = own["logged"].to_numpy(), own["score"].to_numpy()
        assert value(found, exposure, "click", "auc") == pytest.approx(roc_auc_score(y, s))
        error = np.abs(y - own["predicted"].to_numpy())
        rank = spearmanr(own["kl"].to_numpy(), error).statistic
        assert value(found, exposure, "click", "kl_error_spearman") == pytest.approx(rank, abs=1e-6)
        assert value(found, exposure, "click", "mse", CONSTANT) == pytest.approx(
            np.mean((y - own["constant"].to_numpy()) ** 2), rel=1e-6
        )


def test_the_bonus_of_eq6_is_what_biases_the_simulated_reward(judged):
    gap = {}
    for kappa in (0.0, 1.0):
        found = reward_errors(judged, SimulatedRewardOptions(kappa=kappa), BOOTSTRAP)
        gap[kappa] = found["standard", "hate"]["reward_bias"].value
    own = judged.filter(exposure="standard", response="hate")
    kl = own["kl"].to_numpy().clip(max=1).mean()
    assert gap[1.0] - gap[0.0] == pytest.approx(kl, rel=1e-5)
    # hate counts against: predicting too much of it makes the reward too small
    plain = (own["logged"] - own["score"]).mean() / own["sd"][0]
    assert gap[0.0] == pytest.approx(plain, rel=1e-4, abs=1e-6)


def test_predictions_follow_the_planted_rates(feed, trained):
    model, _ = trained
    state = model.state(batch_of(feed, [9 + ROWS * u for u in range(60)]))
    n = len(feed.items.codes)
    every = [v[:, None].expand(-1, n) for v in (torch.zeros(60).long(), torch.full((60,), 9))]
    with torch.no_grad():
        x = model.features(state[:, None].expand(-1, n, -1), torch.arange(n).expand(60, -1), *every)
        predicted = model.calibrated(model.predict(x)).mean(0).numpy()
    planted = planted_rates(n)
    for k in range(WATCH_TIME):
        assert np.corrcoef(predicted[:, k], planted[:, k])[0, 1] > 0.9, RESPONSES[k]


def test_rows_of_a_wide_exposure_have_less_uncertainty_and_less_error(tmp_path):
    shares = np.r_[np.full(6, 0.16), np.full(24, 0.04 / 24)]
    feed = planted_feed(480, ROWS, n_items=30, shares=shares, seed=4)
    model, _ = fitted(tmp_path, feed)
    batch = batch_of(feed, [9 + ROWS * u for u in range(120)])
    slots = torch.arange(30).expand(120, -1)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        kl = torch.stack([model.simulate(batch, slots, g, SimulatedRewardOptions()).kl for _ in range(8)])  # fmt: skip
        got = model.simulate(batch, slots, g, SimulatedRewardOptions())
    kl = kl.mean((0, 1))[:, :WATCH_TIME]
    planted = torch.from_numpy(planted_rates(30)[:, :WATCH_TIME]).float()
    error = (got.response.mean(0)[:, :WATCH_TIME] - planted).abs()
    common, rare = slice(0, 6), slice(6, 30)
    assert error[rare].mean() > error[common].mean()
    assert kl[rare].mean() > kl[common].mean()


def test_rdrop_lowers_the_disagreement(feed, tmp_path):
    short = TRAINING.model_copy(update={"epochs": 4})
    kl = {}
    for name in ("none", "rdrop"):
        options = SMALL.model_copy(update={"kl_in_loss": name, "rdrop_alpha": 2.0})
        _, result = fitted(tmp_path, feed, options, short)
        kl[name] = result.history["train_kl"][-1]
    assert kl["rdrop"] < 0.7 * kl["none"]


def test_rnd_keeps_its_target_frozen_and_is_surer_of_what_it_has_seen(tmp_path):
    shares = np.r_[np.full(6, 1 / 6), np.zeros(6)]
    feed = planted_feed(USERS, ROWS, shares=shares)
    options = SMALL.model_copy(update={"uncertainty": "rnd"})
    before = untrained(feed, options).f2.state_dict()
    torch.manual_seed(TRAINING.seed)
    model, _ = fitted(tmp_path, feed, options, TRAINING.model_copy(update={"epochs": 6}))
    for name, tensor in before.items():
        assert torch.equal(model.f2.state_dict()[name], tensor)
    batch = batch_of(feed, [9 + ROWS * u for u in range(60)])
    got = model.simulate(batch, torch.arange(12).expand(60, -1), torch.Generator(), SimulatedRewardOptions())  # fmt: skip
    assert got.kl[:, 6:].mean() > 1.5 * got.kl[:, :6].mean()


def test_eq6_by_hand():
    mean, kl = torch.tensor([0.5, -0.5]), torch.tensor([0.4, 3.0])
    for form, expected in {
        "additive": [0.54, -0.4],
        "multiplicative": [0.5 * 1.04, -0.5 * 1.1],
        "exp": [0.5 * math.exp(0.04), -0.5 * math.exp(0.1)],
    }.items():
        got = eq6(mean, kl, SimulatedRewardOptions(form=form))
        assert got.tolist() == pytest.approx(expected, rel=1e-6)
    got = eq6(mean, kl, SimulatedRewardOptions(kappa=0.5, cap=2.0))
    assert got.tolist() == pytest.approx([0.7, 0.5])


def test_kl_by_hand(feed):
    p, q = torch.tensor(0.5), torch.tensor(0.25)
    assert float(bernoulli_kl(p, q)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    model = untrained(feed)
    model.variance.fill_(0.5)
    one, two = torch.full((7,), 1.0), torch.full((7,), 0.2)
    torch.testing.assert_close(model.divergence(one, two), torch.full((7,), 0.64))
    bernoulli = untrained(feed, SMALL.model_copy(update={"kl": "bernoulli"}))
    bernoulli.mean.zero_()
    bernoulli.sd.fill_(1.0)
    got = bernoulli.divergence(torch.full((7,), 0.5), torch.full((7,), 0.25))
    assert float(got[0]) == pytest.approx(float(bernoulli_kl(p, q)))
    assert float(got[WATCH_TIME]) == pytest.approx(0.25**2 / 2)


def test_simulated_reward_is_eq6_in_train_sds_with_hate_negative(feed):
    model = untrained(feed)
    batch = batch_of(feed, [20, 60, 100])
    slots = torch.tensor([[0, 3], [5, 5], [1, 2]])
    options = SimulatedRewardOptions()

    @torch.no_grad()
    def simulate(o, seed=3):
        return model.simulate(batch, slots, torch.Generator().manual_seed(seed), o)

    got = simulate(options)
    mean = got.response / model.sd
    mean[..., HATE] *= -1
    torch.testing.assert_close(got.reward, mean + 0.1 * got.kl.clamp(max=1))
    assert got.reward.shape == (3, 2, 7)
    biased = simulate(options.model_copy(update={"bias": 0.25}))
    torch.testing.assert_close(biased.reward, got.reward + 0.25)
    noisy = simulate(options.model_copy(update={"noise_sd": 1.0}))
    assert 0.5 < float((noisy.reward - got.reward).std()) < 1.5
    # dropout of f² stays on: another draw, another uncertainty
    assert not torch.equal(simulate(options, seed=4).kl, got.kl)


def test_unknown_responses_are_masked(tmp_path):
    feed = planted_feed(n_users=40, rows_of_user=10, unknown=("comment",))
    short = TRAINING.model_copy(update={"epochs": 1})
    model, _ = fitted(tmp_path, feed, training=short)
    k = RESPONSES.index("comment")
    assert not model.known[k]
    assert model.known.sum() == 6
    batch = batch_of(feed, [20])
    state = model.state(batch)
    assert torch.isfinite(state).all()
    drawn = model.draw(torch.full((4, 7), 0.5), torch.rand(4, 5))
    assert drawn[:, k].isnan().all()
    assert drawn[:, [i for i in range(7) if i != k]].isfinite().all()
    judged = judged_rows(model, feed, seed=0)
    assert judged.filter(response="comment")["logged"].null_count() == judged.height // 7
    found = accuracy(judged, UserBootstrap(np.arange(40), 20))
    for key, estimate in found.items():
        if key.response == "comment":
            assert estimate.n == 0 and not estimate.reliable and math.isnan(estimate.value), key
    assert not any(key.metric.startswith("true") for key in found)
    # a value where nothing was logged moves no loss: it is what is known that counts
    roles = row_roles(feed)
    wanted = roles.in_split(TRAIN)
    windows = windows_with(cut_windows(feed.rows.first, 128, 50), wanted)
    part = feed.rows.response.clone()
    part[wanted.nonzero()[::2, 0], 0] = torch.nan
    half = replace(feed, rows=replace(feed.rows, response=part))
    full = untrained(feed)
    loss = full.losses(half, roles, windows, wanted, None)["loss"]
    assert torch.isfinite(loss)


def test_a_batch_of_history_gives_the_state_of_the_sequence(feed):
    """Left padding, right padding and one row at a time are the same state; responses of the row itself are not in it (L6)."""
    model = untrained(feed)
    rows = feed.rows
    sequence = model.states(feed.users.codes[:3], rows.item[:30].view(3, 10), rows.response[:30].view(3, 10, 7))  # fmt: skip
    for place in (0, 4, 9):
        batch = batch_of(feed, [place, 10 + place, 20 + place], history=10)
        torch.testing.assert_close(model.state(batch), sequence[:, place])
    batch = batch_of(feed, [4, 14, 24], candidates=torch.tensor([3, 7]))
    slot, response = torch.tensor([0, 1, 1]), torch.rand(3, 7)
    after = shown(batch, slot, response)
    stepped = model.step(model.state(batch), torch.tensor([3, 7, 7]), response)
    torch.testing.assert_close(model.state(after), stepped)
    kept = model.step(model.state(batch), torch.full((3,), PAD), response)
    assert torch.equal(kept, model.state(batch))


def test_windows_predict_every_row_once_and_agree_with_the_whole_sequence(feed):
    model = untrained(feed)
    roles = row_roles(feed)
    wanted = torch.ones(len(feed.rows.item), dtype=torch.bool)
    cut = cut_windows(feed.rows.first, 3, 10)  # warm-up reaches back to every start
    whole = cut_windows(feed.rows.first, 100, 0)
    assert int((cut.stop - cut.target).sum()) == len(wanted)
    assert len(whole.user) == USERS
    model.eval()
    a, b = (model.predict_rows(feed, roles, w, wanted, seed=0) for w in (cut, whole))
    assert torch.equal(a.row, torch.arange(len(wanted)))
    torch.testing.assert_close(a.response, b.response)
    order = batches_of_like_length(cut, 8, torch.Generator().manual_seed(0))
    assert order.sort().values.tolist() == list(range(len(cut.user)))


def test_the_rows_of_a_request_share_the_state_before_it(feed):
    """A request of two rows: neither knows the other's answer."""
    d = feed.decisions
    keep = torch.arange(0, len(d.user), 2)
    pairs = replace(
        d,
        **{f: getattr(d, f)[keep] for f in ("user", "ts_ms", "scenario", "row", "next", "split", "is_rand")},
        candidates=feed.rows.item.view(-1, 2),
        shown=torch.ones(len(keep), 2, dtype=torch.bool),
        response=feed.rows.response.view(-1, 2, 7),
    )  # fmt: skip
    feed = replace(feed, decisions=pairs)
    roles = row_roles(feed)
    assert torch.equal(roles.state_row, torch.arange(len(roles.state_row)) // 2 * 2)
    model = untrained(feed).eval()
    wanted = torch.zeros(len(roles.split), dtype=torch.bool)
    wanted[7] = True
    windows = windows_with(cut_windows(feed.rows.first, 128, 50), wanted)
    before = model.predict_rows(feed, roles, windows, wanted, seed=0)
    changed = feed.rows.response.clone()
    changed[6:8] += 5
    feed = replace(feed, rows=replace(feed.rows, response=changed))
    after = model.predict_rows(feed, roles, windows, wanted, seed=0)
    assert torch.equal(before.response, after.response)
    with pytest.raises(ValueError, match=r"decisions\.row"):
        row_roles(replace(feed, decisions=replace(pairs, row=pairs.row * 0)))


def test_random_exposures_and_other_users_are_not_learnt(feed, tmp_path):
    """Whatever stands in the responses of random test rows, or of users outside of the fold, the weights are the same."""
    short = TRAINING.model_copy(update={"epochs": 1})
    fold = torch.arange(USERS) < 60
    response = feed.rows.response.clone()
    others = torch.arange(len(response)) >= 60 * ROWS
    response[others] = response[others].flip(0)
    last = feed.decisions.is_rand & (feed.decisions.split == TEST)
    response[last] = 0.0
    changed = replace(feed, rows=replace(feed.rows, response=response))
    a, _ = fitted(tmp_path / "a", feed, training=short, users=fold)
    b, _ = fitted(tmp_path / "b", changed, training=short, users=fold)
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_draws_have_the_calibrated_means(feed, trained):
    model, _ = trained
    predicted = torch.tensor([[0.3, 0.5, 0.2, 0.6, 0.4, 0.7, 30.0]])
    n = 40_000
    u = torch.rand(n, 5, generator=torch.Generator().manual_seed(0))
    drawn = model.draw(predicted.expand(n, -1), u)
    expected = model.calibrated(predicted)[0]
    for k in range(WATCH_TIME):
        p = float(expected[k])
        assert abs(float(drawn[:, k].mean()) - p) < 4 * math.sqrt(max(p * (1 - p), 1e-4) / n)
    # a bin's watch times, not the map between bins: near, not equal
    assert float(drawn[:, WATCH_TIME].mean()) == pytest.approx(float(expected[WATCH_TIME]), rel=0.25)  # fmt: skip
    # who clicks and watches long is who plays long
    watch = drawn[:, WATCH_TIME]
    assert watch[drawn[:, 0] == 1].min() >= watch[drawn[:, 0] == 0].max()


def test_checkpoint_without_pickle_comes_back_the_same(feed, trained, tmp_path):
    model, result = trained
    simulator_checkpoint(model, result).write(tmp_path)
    read = ModelCheckpoint.read(tmp_path)
    again = FeedbackSimulator.from_checkpoint(read.config, read.best, feed.items)
    batch, slots = batch_of(feed, [20, 90]), torch.tensor([[0, 1], [2, 3]])
    options = SimulatedRewardOptions()
    a, b = (m.simulate(batch, slots, torch.Generator().manual_seed(1), options) for m in (model, again))  # fmt: skip
    assert torch.equal(a.reward, b.reward)
    raw = torch.rand(5, 7)
    assert torch.equal(model.calibrated(raw), again.calibrated(raw))
    with pytest.raises(ValueError, match="load the items of its run"):
        fewer = replace(feed.items, codes=feed.items.codes[:5])
        FeedbackSimulator.from_checkpoint(read.config, read.best, fewer)
    with pytest.raises(ValueError, match="not a feedback simulator"):
        FeedbackSimulator.from_checkpoint({"name": "mmrf"}, read.best, feed.items)
