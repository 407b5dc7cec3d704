"""MM-13: what is timed is one request of the asked size, and an exported policy says what the eager one says."""

import pytest
import torch
from support.feed_log import ENCODER, toy_actors, toy_feed
from torch import nn

from reelrank.models.feed import PAD
from reelrank.pipelines.mmrf import serving
from reelrank.pipelines.mmrf.run_options import ServingOptions

OPTIONS = ServingOptions(candidates=20, requests=4, warm_up=1)


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


@pytest.fixture(scope="module")
def policy(feed):
    return toy_actors(feed).eval()


@pytest.fixture(scope="module")
def requests(feed):
    return serving.requests_of(feed, OPTIONS, ENCODER.history, 0)


class Doubling(nn.Module):
    """Holds one float more per candidate at a time, whatever is freed meanwhile."""

    def scores(self, batch):
        x = batch.candidates.float()  # 4 C bytes
        for _ in range(5):
            x = x + 1  # the sum and what it is made of: 8 C bytes
        return x.view(-1)


def test_requests_are_single_states_with_as_many_candidates_as_asked_for(feed, requests):
    assert len(requests) == OPTIONS.requests
    for request in requests:
        assert request.candidates.shape == (1, OPTIONS.candidates)
        assert (request.candidates != PAD).all() and len(request.candidates.unique()) == 20
        assert torch.equal(request.item_codes, feed.items.codes[request.candidates])
    many = OPTIONS.model_copy(update={"candidates": 50})  # more than there are items
    assert serving.requests_of(feed, many, 4, 0)[0].candidates.shape == (1, 50)


@pytest.mark.slow
def test_an_exported_policy_says_what_the_eager_one_says(policy, requests):
    """For a user with and without history: no size of the program depends on values."""
    new = serving.requests_of(toy_feed(seed=3), OPTIONS, ENCODER.history, 1)
    new[0].history.fill_(PAD)
    new[0].feedback.zero_()
    program = serving.programs(policy, requests[0], ("exported",))["exported"]
    with torch.no_grad():
        for request in (*requests, *new):
            torch.testing.assert_close(program(request), policy.scores(request), rtol=1e-5, atol=1e-6)  # fmt: skip


def test_rows_name_the_program_and_mistrust_a_p99_of_few(policy, requests):
    rows = serving.serving_rows("mmrf", policy, requests, ("eager",), OPTIONS)
    found = {(r.metric, r.weighting): r for r in rows}
    assert {("weights_mb", ""), ("activations_mb", "")} < set(found)
    size = sum(p.numel() for p in policy.parameters()) * 4 / 1e6
    assert found["weights_mb", ""].value == pytest.approx(size)
    p50, p95, p99 = (found[f"latency_{q}_ms", "eager"] for q in ("p50", "p95", "p99"))
    assert 0 < p50.value <= p95.value <= p99.value
    assert p99.n == OPTIONS.requests and not p99.reliable


def test_the_peak_counts_what_lives_at_once(requests):
    assert serving.peak_bytes(Doubling(), requests[0]) == 8 * OPTIONS.candidates


def test_a_missing_compiler_is_named(policy, requests, monkeypatch):
    monkeypatch.setattr(serving, "COMPILER", "no-such-compiler")
    monkeypatch.setattr(torch.export, "export", lambda *_: None)
    with pytest.raises(RuntimeError, match="no-such-compiler: install it, or leave compiled out"):
        serving.programs(policy, requests[0], ("compiled",))


def test_threads_come_back():
    before = torch.get_num_threads()
    with serving.threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
