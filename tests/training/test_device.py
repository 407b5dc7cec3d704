import pytest
import torch

from reelrank.training.device import pick_device, rng_state, seed_everything, set_rng_state


def test_auto_takes_an_accelerator_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("cpu").type == "cpu"


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' is not on this machine"):
        pick_device("cuda")


def test_the_same_seed_and_the_same_state_draw_the_same_numbers():
    seed_everything(5)
    first = torch.rand(3)
    state = rng_state()
    second = torch.rand(3)
    set_rng_state(state)
    assert torch.equal(torch.rand(3), second)
    seed_everything(5)
    assert torch.equal(torch.rand(3), first)
