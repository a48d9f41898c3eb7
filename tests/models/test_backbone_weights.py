"""Weights of classification checkpoints in the backbones of detectors and segmenters: the same maps, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedcnn.convert import GhostConfig, GroupNLConfig, MonoConfig, convert_
from seedcnn.errors import ConfigError
from seedcnn.layers import ConvLayer
from seedcnn.models import create_model
from seedcnn.models.backbone_weights import backbone_of, load_backbone_
from seedcnn.train import TrainConfig, build_model, load_model
from seedcnn.train.checkpoint import Checkpoint, save_checkpoint
from tests.few import few

MONO = MonoConfig(scope="stride1", pointwise=True)
CONFIGS = [
    {},
    {"convert": MONO},
    {"convert": GroupNLConfig(), "lowpass": "strides", "overrides": {"layer2.0.conv2": None, "layer1.*": MONO}},
    {"convert": GhostConfig(), "lowpass": "stem"},
    {"plan": {"layer3.0.conv2": GroupNLConfig(), "layer4.1.conv1": MONO}},
]


def trained(tmp_path, **options):
    """A checkpoint of a ResNet-18 whose norms have numbers of their own, and the network."""
    config = TrainConfig("resnet18", {"num_classes": 5}, seed=3, **options)
    torch.manual_seed(0)
    network = build_model(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, Checkpoint(config, 1, network.state_dict(), labels=tuple("abcde")))
    return path, load_model(path)[0]


def maps(network, x):
    with torch.no_grad():
        return network.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)


@pytest.mark.parametrize("options", few(CONFIGS, quick=(0, 1, 2)))
@pytest.mark.parametrize("name", ["fcos_resnet18_fpn", "fpn_resnet18"])
def test_the_maps_are_those_of_the_checkpoint(tmp_path, name, options):
    path, network = trained(tmp_path, **options)
    x = torch.rand(2, 3, 70, 90)
    model = create_model(name, num_classes=3, pyramid=64, backbone_weights=path).eval()
    with torch.no_grad():
        found = backbone_of(model)(x)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, maps(network, x), strict=True))
    converted = [n for n, each in network.named_modules() if isinstance(each, ConvLayer)]
    assert converted == [n for n, each in backbone_of(model).named_modules() if isinstance(each, ConvLayer)]
    assert bool(converted) == bool(options)


def test_frozen_norms_take_the_checkpoints_numbers(tmp_path):
    path, network = trained(tmp_path)
    x = torch.rand(1, 3, 64, 64)
    model = create_model("semfpn_resnet18", pyramid=16, norm="frozen", backbone_weights=path)
    for ours, theirs in zip(backbone_of(model)(x), maps(network, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_converted_backbone_takes_weights_of_its_own_form(tmp_path):
    """As a run does: the config converts, then the checkpoint starts it; other forms are refused and change nothing."""
    path, network = trained(tmp_path, convert=MONO)
    model = create_model("fpn_resnet18", pyramid=16)
    convert_(model, MONO, seed=77)
    said = []
    load_backbone_(model, path, said.append)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = backbone_of(model.eval())(x)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, maps(network, x), strict=True))
    count = len(backbone_of(model).state_dict())
    assert said == [f"{path}: the backbone takes {count} tensors; the rest, fc.bias, fc.weight, is left out"]
    other = create_model("fpn_resnet18", pyramid=16)
    convert_(other, GroupNLConfig())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ConfigError, match=r"do not fit the backbone, a ResNetBody; .* missing: layer1\.0\.conv1"):
        load_backbone_(other, path)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_plain_file_of_weights(tmp_path):
    _, network = trained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    model = create_model("fpn_resnet18", pyramid=16, backbone_weights=tmp_path / "resnet18.pth")
    assert torch.equal(model.backbone.conv1.weight, network.conv1.weight)


def test_weights_that_do_not_fit(tmp_path):
    path, _ = trained(tmp_path, convert=MONO)
    with pytest.raises(ConfigError, match=r"there is no file of weights .*b\.ckpt"):
        create_model("fpn_resnet18", backbone_weights=tmp_path / "b.ckpt")
    with pytest.raises(ConfigError, match=r"have another shape: .*instead of \(32, 3, 7, 7\)"):
        create_model("fpn_resnet18", width=0.5, backbone_weights=path)
    narrow = create_model("fpn_resnet18", width=0.5)
    before = {name: type(module) for name, module in narrow.named_modules()}
    with pytest.raises(ConfigError, match="do not fit the backbone"):
        load_backbone_(narrow, path)
    assert before == {name: type(module) for name, module in narrow.named_modules()}
    with pytest.raises(ConfigError, match=r"do not fit the backbone, a ResNetBody; \d+ of its tensors are missing"):
        create_model("fpn_resnet18", backbone="resnet34", backbone_weights=path)
    (tmp_path / "c.ckpt").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"c\.ckpt"):
        create_model("fpn_resnet18", backbone_weights=tmp_path / "c.ckpt")
    with pytest.raises(ValueError, match=r"`backbone_weights` .* goes with fasterrcnn_resnet18_fpn.*not with 'resnet8"):
        create_model("resnet8_cifar", backbone_weights=path)
    with pytest.raises(ConfigError, match="has 0 backbones"):
        load_backbone_(create_model("resnet8_cifar"), path)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet18_fpn", "fcos_resnet18_fpn", "semfpn_resnet18"])
@pytest.mark.parametrize("convert", [None, MONO])
def test_a_checkpoint_of_a_dense_network_opens_by_name_and_options(tmp_path, name, convert):
    options = {"num_classes": 2, "width": 0.25, "pyramid": 64, "norm": "frozen"}
    config = TrainConfig(name, options, convert=convert, seed=5)
    model = build_model(config).eval()
    save_checkpoint(tmp_path / "d.ckpt", Checkpoint(config, 1, model.state_dict()))
    opened, saved = load_model(tmp_path / "d.ckpt")
    assert saved.config == config
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model(x), opened(x)
    if isinstance(ours, list):
        ours, theirs = ours[0]["boxes"], theirs[0]["boxes"]
    assert torch.equal(ours, theirs)


def test_a_run_does_not_depend_on_a_file_of_backbone_weights(tmp_path):
    path, _ = trained(tmp_path)
    with pytest.raises(ConfigError, match=r"backbone_weights .*would need that file again; init_from names"):
        TrainConfig("fpn_resnet18", {"backbone_weights": str(path)})
