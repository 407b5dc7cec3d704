import json

import pytest
import torch

from reelrank.training.checkpoint import (
    CONFIG_FILE,
    CheckpointError,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    under_prefix,
    with_prefix,
)


def tensors_file(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def test_what_is_saved_comes_back(tmp_path):
    shared = torch.arange(6.0)
    tensors = {
        "a": shared.view(2, 3).T,
        "b": shared,
        "c": torch.tensor(3),
        "d": torch.tensor([True]),
    }
    config = {"name": "mt_dqn", "layers": [6, 12], "epochs": 3}
    save_checkpoint(tmp_path, tensors, config)
    loaded, loaded_config = load_checkpoint(tmp_path)
    assert loaded_config == config
    assert list(loaded_config) == [
        "name",
        "layers",
        "epochs",
    ]  # order is kept: the first metric leads
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_a_second_save_replaces_the_first_and_leaves_two_files(tmp_path):
    save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"step": 1})
    save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"step": 2})
    loaded, config = load_checkpoint(tmp_path)
    assert config == {"step": 2}
    assert torch.equal(loaded["a"], torch.ones(2))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_save_killed_before_its_json_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"step": 1})
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"step": 2})
    for name, content in old.items():  # as if the JSON had never been replaced
        (tmp_path / name).write_bytes(content)
    assert load_checkpoint(tmp_path)[1] == {"step": 1}


def damage_bytes(folder):
    file = tensors_file(folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def damage_length(folder):
    file = tensors_file(folder)
    file.write_bytes(file.read_bytes()[:-3])


def remove_tensors(folder):
    tensors_file(folder).unlink()


def cut_json(folder):
    path = folder / CONFIG_FILE
    path.write_text(path.read_text()[:20])


def remove_key(folder):
    path = folder / CONFIG_FILE
    path.write_text(json.dumps({"tensors": "x"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bytes, "sha256 differs"),
        (damage_length, "sha256 differs"),
        (remove_tensors, "is missing"),
        (cut_json, "not a checkpoint description"),
        (remove_key, "not a checkpoint description"),
    ],
)
def test_a_torn_checkpoint_is_reported_with_its_path(tmp_path, damage, message):
    save_checkpoint(tmp_path, {"a": torch.arange(4.0)}, {})
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_checkpoint(tmp_path)


def test_prefixes_are_inverse():
    tensors = {"a.b": torch.ones(1), "c": torch.zeros(1)}
    mixed = with_prefix("x", tensors) | with_prefix("xy", {"c": torch.ones(3)})
    assert under_prefix("x", mixed) == tensors


def test_adam_continues_from_its_stored_moments(tmp_path):
    def step(weight, optimiser):
        optimiser.zero_grad()
        (weight**2).sum().backward()
        optimiser.step()

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimiser = torch.optim.Adam([weight], lr=0.1)
    step(weight, optimiser)
    save_checkpoint(tmp_path, optimiser_tensors(optimiser) | {"weight": weight}, {})
    step(weight, optimiser)

    tensors, _ = load_checkpoint(tmp_path)
    other = torch.nn.Parameter(tensors.pop("weight"))
    restored = torch.optim.Adam([other], lr=0.1)
    restore_optimiser(restored, tensors)
    step(other, restored)
    assert torch.equal(other, weight)
