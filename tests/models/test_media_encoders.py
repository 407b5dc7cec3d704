import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reelrank.models.media_encoders import (
    AudioLSTM,
    ResNet50,
    load_audio_lstm,
    load_resnet50,
    normalise_pictures,
)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return ResNet50().eval()


def test_resnet_50_has_the_published_number_of_parameters(resnet):
    assert sum(p.numel() for p in resnet.parameters()) == 25_557_032
    assert sum(p.numel() for p in resnet.fc.parameters()) == 2_049_000


def test_names_are_those_of_torchvision(resnet):
    names = resnet.state_dict()
    assert len(names) == 320
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.running_var": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
    }
    assert {name: tuple(names[name].shape) for name in shapes} == shapes
    assert "layer1.1.downsample.0.weight" not in names


def test_shapes_of_the_stages(resnet):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        x1 = resnet.layer1(resnet.maxpool(resnet.bn1(resnet.conv1(x)).relu()))
        assert x1.shape == (2, 256, 16, 16)
        assert resnet.layer2(x1).shape == (2, 512, 8, 8)
        assert resnet.features(x).shape == (2, 2048)
        assert resnet(x).shape == (2, 1000)


def test_the_stride_lies_in_the_3_by_3_convolution(resnet):
    block = resnet.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_lstm_by_shape_and_by_its_last_state():
    model = AudioLSTM().eval()
    x = torch.randn(5, 96, 64)
    assert model(x).shape == (5, 256)
    outputs, _ = model.lstm(x)
    assert torch.equal(model(x), outputs[:, -1])
    # two layers: 4 · 256 · (64 + 256 + 2) and 4 · 256 · (256 + 256 + 2)
    assert sum(p.numel() for p in model.parameters()) == 329_728 + 526_336
    assert AudioLSTM(128)(torch.randn(1, 3, 128)).shape == (1, 256)


def test_pictures_are_normalised_by_hand():
    pictures = torch.tensor([[[[255, 0, 128]]]], dtype=torch.uint8)
    found = normalise_pictures(pictures)
    assert found.shape == (1, 3, 1, 1)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert found.flatten().tolist() == pytest.approx(expected)


def test_weights_come_back_from_a_folder(tmp_path, resnet):
    # a file without the last layer and without the counters serves as well
    kept = {k: v for k, v in resnet.state_dict().items() if "fc." not in k and "num_" not in k}
    save_file(kept, tmp_path / "resnet50.safetensors")
    loaded = load_resnet50(tmp_path)
    assert not loaded.training
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        np.testing.assert_array_equal(loaded.features(x), resnet.features(x))
    lstm = AudioLSTM()
    save_file(lstm.state_dict(), tmp_path / "audio_lstm.safetensors")
    assert torch.equal(load_audio_lstm(tmp_path).lstm.bias_hh_l1, lstm.lstm.bias_hh_l1)


def test_without_weights_nothing_is_made_up(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"resnet50\.safetensors not found: weights"):
        load_resnet50(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"audio_lstm\.safetensors not found"):
        load_audio_lstm(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    file = tmp_path / "audio_lstm.safetensors"
    save_file({"lstm.weight_ih_l0": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"audio_lstm\.safetensors: (.|\n)*size mismatch"):
        load_audio_lstm(tmp_path)
    save_file({"other": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"missing \['lstm\..*unexpected \['other'\]"):
        load_audio_lstm(tmp_path)
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"audio_lstm\.safetensors: "):
        load_audio_lstm(tmp_path)
