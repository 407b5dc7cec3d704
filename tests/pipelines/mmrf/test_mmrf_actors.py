import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from support.feed_log import ENCODER, WIDTHS, toy_actors, toy_feed
from support.looped_agents import looped_scores

from reelrank.models.feed import PAD, probabilities
from reelrank.models.feed_data import batch
from reelrank.pipelines.mmrf.actors import SharedAttention
from reelrank.pipelines.mmrf.options import AGENTS, ActorOptions

SETS = {
    "all": AGENTS,
    "only_N": AGENTS[-1:],
    "two": ("like", "watch_time"),
    "without_hate": tuple(a for a in AGENTS if a != "hate"),
}


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def states(feed, n=12):
    return batch(feed, torch.arange(n), ENCODER.history)


@pytest.mark.parametrize("exchange", ["attention", "concat", "none"])
@pytest.mark.parametrize("agents", SETS.values(), ids=SETS)
def test_batched_agents_are_the_looped_ones(feed, exchange, agents):
    actors = toy_actors(feed, agents=agents, exchange=exchange).double()
    given = states(feed)
    scores = actors(given)
    looped, penalty = looped_scores(actors, given)
    assert scores.logits.shape == (len(agents), 12, 8)
    torch.testing.assert_close(scores.logits, looped)
    torch.testing.assert_close(scores.penalty, penalty)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_attention_sums_to_one_over_the_others(n):
    torch.manual_seed(n)
    attention = SharedAttention(8, 2)
    h = torch.randn(n, 5, 8) * 20  # logits far apart
    alpha = attention.weights(h)
    assert alpha.shape == (5, 2, n, n)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(5, 2, n))
    assert alpha.diagonal(dim1=2, dim2=3).eq(0).all()
    off = ~torch.eye(n, dtype=torch.bool)
    logits = attention._logits(h, h).view(5, 2, n, n).masked_fill(~off, -torch.inf)
    torch.testing.assert_close(alpha, logits.softmax(-1))


def test_an_agent_does_not_hear_itself():
    torch.manual_seed(0)
    attention = SharedAttention(8, 2)
    h = torch.randn(3, 4, 8)
    louder = h.clone()
    louder[1] += 5
    u, _ = attention(h, h)
    changed, _ = attention(h, louder)
    torch.testing.assert_close(changed[1], u[1])
    assert (changed[[0, 2]] - u[[0, 2]]).abs().amax((1, 2)).gt(1e-3).all()


def test_concatenation_changes_the_exchange_alone(feed):
    ours, co = (toy_actors(feed, exchange=e).state_dict() for e in ("attention", "concat"))
    of_exchange = {n for n in ours.keys() ^ co.keys()}
    assert {n.split(".")[0] for n in of_exchange} == {"exchange"}
    assert all(ours[n].shape == co[n].shape for n in ours.keys() & co.keys())


def test_independent_agents_do_not_hear_the_others(feed):
    actors, given = toy_actors(feed, exchange="none"), states(feed)
    before = actors(given).logits
    with torch.no_grad():
        actors.hidden_layer.item.weight[2] += 1.0
    after = actors(given).logits
    changed = (after - before).abs().amax((1, 2)) > 1e-6
    assert changed.tolist() == [False, False, True, False, False, False, False]


def test_pads_are_never_shown_and_do_not_move_the_others(feed):
    from dataclasses import replace

    actors, given = toy_actors(feed), states(feed)
    padded = replace(
        given,
        candidates=torch.cat([given.candidates, torch.full((12, 2), PAD)], 1),
        item_codes=F.pad(given.item_codes, (0, 0, 0, 2)),
    )
    scores = actors.scores(padded)
    assert scores[:, 8:].eq(-torch.inf).all()
    torch.testing.assert_close(scores[:, :8], actors.scores(given))
    assert probabilities(scores, 0.5)[:, 8:].eq(0).all()
    torch.testing.assert_close(actors.head_scores(padded)[-1], scores)
    log_policy = actors(padded).log_policy(2.0)
    torch.testing.assert_close(log_policy.exp().sum(-1), torch.ones(7, 12))


def test_scores_do_not_depend_on_the_order_of_candidates(feed):
    from dataclasses import replace

    actors, given = toy_actors(feed), states(feed)
    order = torch.randperm(8)
    shuffled = replace(
        given, candidates=given.candidates[:, order], item_codes=given.item_codes[:, order]
    )
    torch.testing.assert_close(actors.scores(shuffled), actors.scores(given)[:, order])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"agents": ("share", "watch_time")}, r"unknown responses \['share'\]: choose from click"),
        ({"agents": ("watch_time", "like")}, "the main agent watch_time must be the last"),
        ({"agents": ("like", "like", "watch_time")}, "each response once"),
        ({"agents": ()}, "must be the last"),
        ({"hidden": 7}, "heads 2 must divide hidden 7"),
    ],
    ids=["unknown", "main_first", "twice", "none", "heads"],
)
def test_options_that_make_no_sense_are_refused(wrong, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ActorOptions(**(WIDTHS | wrong))


def test_agents_are_the_responses():
    from reelrank.models.feed import RESPONSES

    assert AGENTS == RESPONSES
