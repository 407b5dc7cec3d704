"""RUIE and its baselines as networks: what each place may know, and that each learns."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from reelrank.models import registry
from reelrank.models.sequence_data import Sequences, Windows
from reelrank.pipelines.ruie import baselines, model  # noqa: F401 (registers)
from reelrank.pipelines.ruie.options import GateOptions, QOptions, TripletOptions
from reelrank.pipelines.ruie.protocol import SequenceModel, SequenceSpec, last_batch, window_batch

LENGTH = 6
SMALL = {
    "ruie": {"backbone": {"name": "nextitnet", "dim": 8}, "heads": 2},
    "nextitnet": {"dim": 8},
    "sasrec": {"dim": 8},
    "gru4rec": {"dim": 8, "hidden": 12},
    "caser": {"dim": 8, "length": LENGTH},
    "pepnet": {"dim": 8, "hidden": [12, 8]},
    "star": {"dim": 8, "hidden": [12, 8]},
    "din": {"dim": 8, "attention_hidden": [12], "hidden": [12]},
}
ALL_PLACES = [name for name in SMALL if name not in {"caser", "din"}]


def log(n_users=8, n_events=9, n_items=20, seed=0):
    """The item after i is i + 1 in scenario 0 and i + 2 in scenario 1."""
    rng = np.random.default_rng(seed)
    scenario = rng.integers(0, 2, (n_users, n_events))
    item = (rng.integers(0, n_items, (n_users, 1)) + np.cumsum(1 + scenario, axis=1)) % n_items
    frame = pl.DataFrame(
        {
            "row_id": np.arange(n_users * n_events),
            "user_id": np.repeat(np.arange(n_users), n_events),
            "item": item.ravel(),
            "scenario": scenario.ravel(),
            "ts_ms": np.tile(np.arange(n_events), n_users),
            "split": np.tile(["train"] * (n_events - 2) + ["val", "test"], n_users),
            "click": 1,
            "like": (item % 3 == 0).ravel(),
            "follow": 0,
            "forward": None,
        }
    )
    return Sequences.from_frame(frame, n_users, n_items, 2)


def build(name, data, **changes):
    torch.manual_seed(0)
    spec = SequenceSpec.of(data, LENGTH)
    return registry.build(name, SMALL[name] | changes, spec, SequenceModel)


def windows_of(data):
    windows = Windows.of(data, LENGTH)
    return window_batch(data, windows, torch.arange(len(windows)))


@pytest.mark.parametrize("name", ALL_PLACES)
def test_a_query_never_depends_on_what_comes_after_its_place(name):
    data = log()
    network = build(name, data).eval()
    before = network.queries(windows_of(data))
    for place in (2, 5):
        item = data.item.clone()
        item[data.first[:-1] + place] = (item[data.first[:-1] + place] + 7) % data.n_items
        after = network.queries(windows_of(dataclasses.replace(data, item=item)))
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place], before[:, place])


@pytest.mark.parametrize("name", [*ALL_PLACES, "caser"])
def test_a_query_never_depends_on_the_asked_item(name):
    data = log()
    network = build(name, data).eval()
    batch = last_batch(data, data.first[1:] - 1, LENGTH)
    changed = dataclasses.replace(batch, item=(batch.item + 3) % data.n_items)
    assert torch.equal(network.last_queries(changed), network.last_queries(batch))


@pytest.mark.parametrize("name", ["ruie", "pepnet", "star"])
def test_the_request_s_scenario_is_an_input_of_the_multi_scenario_models(name):
    data = log()
    network = build(name, data).eval()
    batch = last_batch(data, data.first[1:] - 1, LENGTH)
    other = dataclasses.replace(batch, scenario=1 - batch.scenario)
    assert not torch.allclose(network.last_queries(other), network.last_queries(batch))


def test_q_and_p_of_ruie_do_not_know_the_scenario_that_they_predict():
    # defects 3 and 7 of METHODS §5.5: the attention read the target, and the scenario id was another in test
    data = log()
    network = build("ruie", data).network(0).eval()
    batch = windows_of(data)
    state = network.state(batch.history)
    # the request of place t is the event t + 1: changing all later events and scenarios changes nothing at t
    place = 3
    scenario = data.scenario.clone()
    scenario[data.first[:-1] + place + 1] = 1 - scenario[data.first[:-1] + place + 1]
    changed = network.state(windows_of(dataclasses.replace(data, scenario=scenario)).history)
    torch.testing.assert_close(changed.q[:, : place + 1], state.q[:, : place + 1])
    torch.testing.assert_close(changed.log_p[:, : place + 1], state.log_p[:, : place + 1])
    assert not torch.allclose(changed.q[:, place + 1], state.q[:, place + 1])


def test_defect_3_the_contextual_attention_reaches_q_p_and_intent():
    data = log()
    network = build("ruie", data).network(0).eval()
    batch = windows_of(data)
    state = network.state(batch.history)
    for output in (state.q, state.log_p, network.intents(state, batch.scenario)):
        network.zero_grad()
        output[..., 0].sum().backward(retain_graph=True)
        assert network.attention.value.weight.grad.abs().sum() > 0
        assert network.attention.flag.grad.abs().sum() > 0
    assert build("ruie", data, attention=False).network(0).attention is None


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_lower_the_loss(name):
    data = log()
    network = build(name, data).train()
    batch = windows_of(data)
    if not network.all_places:
        batch = last_batch(data, (data.split == 0).nonzero().squeeze(1), LENGTH)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(60):
        loss = network.losses(batch, data, generator)["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5])


def test_one_network_learns_at_a_time():
    data = log()
    network = build("ruie", data).train()
    moved = set()
    for seed in range(12):
        network.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(seed)
        network.losses(windows_of(data), data, generator)["loss"].backward()
        touched = [
            any(p.grad is not None for p in network.network(k).parameters()) for k in range(2)
        ]
        assert sum(touched) == 1
        moved.add(touched.index(True))
    assert moved == {0, 1}


def test_td_by_hand_at_the_end_of_a_user_and_where_the_window_ends():
    data = log(n_users=1, n_events=5)  # three train events: 0, 1, 2
    network = build("ruie", data, q={"weight": 1, "gamma": 0.5}).eval()
    batch = windows_of(data)
    assert batch.asked[0].tolist() == [1, 2]
    generator = torch.Generator().manual_seed(3)
    coin = int(torch.randint(2, (1,), generator=torch.Generator().manual_seed(3)))
    main, other = (network.network(k).state(batch.history).q[0] for k in (coin, 1 - coin))
    reward = 1 + 3 * (data.item[1:3] % 3 == 0).float()
    a = data.scenario[1:3]
    y0 = reward[0] + 0.5 * other[1][main[1].argmax()]
    expected = (main[0, a[0]] - y0) ** 2 + (
        main[1, a[1]] - reward[1]
    ) ** 2  # event 2 is the user's last
    found = network.losses(batch, data, generator)["q"]
    assert found.item() == pytest.approx(expected.item() / 2, rel=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "l2", "dot"])
def test_defect_2_inner_products_rank_items_as_the_distance_to_the_intents_does(distance):
    data = log()
    options = TripletOptions(distance=distance, margin=1).model_dump()
    network = build("ruie", data, triplet=options).eval()
    batch = last_batch(data, data.first[1:] - 1, LENGTH)
    scores = network.last_queries(batch) @ network.item_vectors().T
    assert scores.shape == (data.n_users, data.n_items)  # items, not dimensions
    from reelrank.pipelines.ruie.losses import distance as measure

    expected = 0
    for k in range(2):
        own = network.network(k)
        state = own.state(batch.history)
        last = (batch.history.length - 1)[:, None, None].expand(-1, 1, 8)
        h, o = (x.gather(1, last) for x in (state.h, state.context))
        at_last = dataclasses.replace(state, h=h, context=o)
        intent = own.intents(at_last, batch.scenario)
        d = measure(intent, own.items.weight[None], distance)
        expected = expected - (d.pow(2) if distance == "l2" else d)
    order = scores.argsort(1)
    torch.testing.assert_close(expected.gather(1, order).argsort(1), torch.arange(20).expand(8, -1))


def test_popularity_counts_train_events_by_scenario():
    data = log()
    network = build_popularity(data, by_scenario=True)
    batch = last_batch(data, data.first[1:] - 1, LENGTH)
    scores = network.last_queries(batch) @ network.item_vectors().T
    train = data.split == 0
    for row in range(data.n_users):
        own = train & (data.scenario == batch.scenario[row])
        assert scores[row].tolist() == torch.bincount(data.item[own], minlength=20).tolist()


def build_popularity(data, **options):
    spec = SequenceSpec.of(data, LENGTH)
    network = registry.build("popularity_of_items", options, spec, SequenceModel)
    network.fit(data)
    return network


def test_monitors_are_shares_and_the_gate_can_be_switched_off():
    data = log()
    for form in ("one_minus_p", "none"):
        network = build("ruie", data, gate=GateOptions(form=form).model_dump(), q=QOptions(head="shared_softmax").model_dump())  # fmt: skip
        found = network.losses(windows_of(data), data, torch.Generator().manual_seed(0))
        assert sum(found[f"gate_share_{c}"] for c in range(2)).item() == pytest.approx(1)
        assert sum(found[f"loss_share_{c}"] for c in range(2)).item() == pytest.approx(1)
        assert 0 <= found["gate_at_low"] <= 1


def test_defect_7_training_and_prediction_read_the_scenario_of_the_asked_event():
    data = log()
    trained = windows_of(data)
    asked, known = trained.asked[trained.mask], trained.scenario[trained.mask]
    assert torch.equal(known, data.scenario[asked])
    assert not torch.equal(known, trained.history.scenario[trained.mask])  # the history's last one
    assert torch.equal(known, last_batch(data, asked, LENGTH).scenario.squeeze(1))
    # and what training compares with the item is made from it
    network = build("ruie", data, triplet={"weight": 1.0}).eval()
    other = dataclasses.replace(trained, scenario=1 - trained.scenario)
    means = [network.losses(b, data, torch.Generator().manual_seed(0))["triplet"] for b in (trained, other)]  # fmt: skip
    assert not torch.allclose(*means)
