"""Detectors and segmenters: which parts convert_ takes, and which layers it never replaces without their name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.ops import FeaturePyramidNetwork

from seedcnn.convert import GhostConfig, GroupNLConfig, LocalBinaryConfig, MonoConfig, convert_, convert_layers_
from seedcnn.convert.parts import PARTS, parts_of, task_of
from seedcnn.errors import ConversionError
from seedcnn.layers import ConvLayer, GroupNLConv2d
from seedcnn.models import create_model, list_models
from tests.few import few

DENSE = [*list_models("detection"), *list_models("segmentation")]
CONFIGS = [GroupNLConfig(), MonoConfig(scope="stride1", pointwise=True), GhostConfig(), LocalBinaryConfig()]


def reasons(report):
    return {item.name: item.reason for item in report.skipped}


def names(report):
    return [item.name for item in report.replaced]


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def of_torchvision(name, **options):
    with torch.device("meta"):
        return torchvision_models.get_model(name, weights=None, weights_backbone=None, **options)


def converted(model, config, **options):
    with torch.device("meta"):
        return convert_(model, config, **options)


@pytest.mark.parametrize("name", DENSE)
def test_the_backbone_alone_is_converted(name):
    report = converted(on_meta(name), GroupNLConfig())
    body = "backbone.body." if name in list_models("detection") else "backbone."
    assert len(names(report)) == 19
    assert all(each.startswith(body) for each in names(report))
    left = reasons(report)
    assert left[f"{body}conv1"] == "stem"
    others = {each: reason for each, reason in left.items() if not each.startswith(body)}
    assert set(others.values()) == {
        "in the neck, and `parts` takes only the backbone",
        "in the head, and `parts` takes only the backbone",
        "it predicts: only `filter_fn`, or an override with its own name, replaces it",
    }
    assert report.parts == ("backbone",)
    assert f"replaced 19 convolutions in the backbone, left {len(left)} alone" in str(report)
    assert report.to_dict()["parts"] == ("backbone",)


PREDICT = {
    "fasterrcnn_resnet18_fpn": ["rpn.head.bbox_pred", "rpn.head.cls_logits"],
    "retinanet_resnet18_fpn": ["head.classification_head.cls_logits", "head.regression_head.bbox_reg"],
    "fcos_resnet18_fpn": ["head.classification_head.cls_logits", "head.regression_head.bbox_ctrness",
                          "head.regression_head.bbox_reg"],
    "fpn_resnet18": ["classifier"],
    "semfpn_resnet18": ["classifier"],
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("name", DENSE)
def test_with_every_part_only_what_predicts_stays(name, config):
    """Also where its width would not fit: 45 outputs have no half, and nothing is refused."""
    model = on_meta(name, num_classes=5)
    report = converted(model, config, parts=PARTS)
    predicting = [each for each, reason in reasons(report).items() if reason.startswith("it predicts")]
    assert sorted(predicting) == PREDICT[name]
    assert all(type(model.get_submodule(each)) is nn.Conv2d for each in predicting)
    assert any(not each.startswith("backbone.") for each in names(report))


def test_the_focal_prior_stays():
    model = create_model("retinanet_resnet18_fpn", num_classes=5, width=0.25, pyramid=64)
    bias = model.head.classification_head.cls_logits.bias
    convert_(model, GhostConfig(), parts=("head", "backbone"))
    assert isinstance(model.head.classification_head.conv[0][0], ConvLayer)
    assert torch.equal(model.head.classification_head.cls_logits.bias, bias)
    torch.testing.assert_close(bias, torch.full_like(bias, -math.log(0.99 / 0.01)))
    target = {"boxes": torch.tensor([[4.0, 4, 60, 60]]), "labels": torch.tensor([4])}
    sum(model(torch.rand(2, 3, 64, 64), [target, target]).values()).backward()


def test_what_predicts_is_replaced_by_its_name():
    target = "head.classification_head.cls_logits"
    config = GroupNLConfig(reduction_ratio=3, nlf_groups=3)
    for overrides in ({target: config}, {"*.cls_logits": config}):
        model = on_meta("retinanet_resnet18_fpn", num_classes=5)
        assert target in names(converted(model, GroupNLConfig(), overrides=overrides))
    model = on_meta("retinanet_resnet18_fpn", num_classes=5)
    report = converted(model, GroupNLConfig(), overrides={"head.*": GroupNLConfig()})
    assert "head.regression_head.conv.0.0" in names(report)  # an override goes beyond `parts`
    assert reasons(report)[target].startswith("it predicts")
    model = on_meta("retinanet_resnet18_fpn", num_classes=5)
    report = converted(model, config, filter_fn=lambda module, name: name == target)
    assert names(report) == [target]
    assert report.parts == ()
    with pytest.raises(ConversionError, match=r"overrides\['\*\.cls_\*'\] matches only head\.class.*it predicts"):
        converted(on_meta("retinanet_resnet18_fpn"), GroupNLConfig(), overrides={"*.cls_*": config})


def test_a_plan_names_its_layers():
    model = on_meta("fcos_resnet18_fpn")
    chosen = {"head.regression_head.conv.0": GroupNLConfig(), "backbone.body.layer1.0.conv1": GroupNLConfig()}
    with torch.device("meta"):
        report = convert_layers_(model, chosen)
    assert set(names(report)) == set(chosen)


def test_the_norm_after_a_layer_is_seen_inside_a_detector():
    for norm, save in (("batch", "output"), ("frozen", "seeds")):  # a frozen norm keeps nothing for the backward pass
        model = on_meta("fcos_resnet18_fpn", norm=norm)
        converted(model, GroupNLConfig())
        layers = [module for module in model.modules() if isinstance(module, GroupNLConv2d)]
        assert len(layers) == 19
        assert {layer.save for layer in layers} == {save}


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("name", few(DENSE, quick=(1, 3)))
def test_filters_of_a_trained_dense_network(name, norm):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, width=0.25, pyramid=64, norm=norm).eval()
    for module in model.modules():
        if hasattr(module, "running_var"):
            nn.init.uniform_(module.running_var, 0.5, 2)
    images = torch.rand(2, 3, 64, 64)
    report = convert_(model, GroupNLConfig(), init="from_dense", images=images)
    assert len(report.from_dense.reordered) == 19
    assert not report.from_dense.in_order
    with torch.no_grad():
        model(images)


TORCHVISION = {
    "retinanet_resnet50_fpn": ("detection", {"backbone": 20, "neck": 5, "head": 8}, 2),
    "fcos_resnet50_fpn": ("detection", {"backbone": 20, "neck": 5, "head": 8}, 3),
    "fasterrcnn_resnet50_fpn_v2": ("detection", {"backbone": 20, "neck": 4, "head": 6}, 2),
    "maskrcnn_resnet50_fpn": ("detection", {"backbone": 20, "neck": 4, "head": 5}, 3),
    "ssd300_vgg16": ("detection", {"backbone": 9, "neck": 8, "head": 0}, 12),
    "deeplabv3_resnet50": ("segmentation", {"backbone": 20, "head": 4}, 1),
    "fcn_resnet50": ("segmentation", {"backbone": 20, "head": 1}, 1),
}


@pytest.mark.parametrize(("name", "expected"), few(TORCHVISION.items(), quick=(0, 2, 4, 5)))
def test_networks_of_torchvision(name, expected):
    task, counts, predicting = expected
    model = of_torchvision(name)
    assert task_of(model) == task
    for part in counts:
        taken = tuple(each for each in PARTS[: PARTS.index(part) + 1] if each in counts)
        model = of_torchvision(name)
        report = converted(model, GroupNLConfig(), parts=taken)
        assert len(names(report)) == sum(counts[each] for each in taken)
    assert sum(reason.startswith("it predicts") for reason in reasons(report).values()) == predicting


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_mobile_networks_of_torchvision(name):
    """They have pointwise convolutions with norms only; the pointwise ones that predict stay."""
    parts = parts_of(of_torchvision(name))
    assert len(parts.predicts) == {"ssdlite320_mobilenet_v3_large": 12, "lraspp_mobilenet_v3_large": 2}[name]
    report = converted(of_torchvision(name), GroupNLConfig(scope="pointwise"))
    assert all(each.startswith("backbone.") for each in names(report))
    assert not any(each.startswith("backbone.extra.") for each in names(report))
    everything = tuple(part for part in PARTS if parts.places.get(part))
    report = converted(of_torchvision(name), GroupNLConfig(scope="pointwise"), parts=everything)
    assert not set(names(report)) & set(parts.predicts)
    assert any(each.startswith("backbone.extra.") for each in names(report)) == name.startswith("ssd")


def test_parts_of_a_detector_alone():
    model = on_meta("fcos_resnet18_fpn", num_classes=5)
    assert parts_of(model.backbone).places == {"backbone": ("body",), "neck": ("fpn",)}
    report = converted(model.head, GroupNLConfig())
    assert report.parts == ("head",)
    assert len(names(report)) == 8
    assert parts_of(model.backbone.body) is None
    assert len(names(converted(model.backbone.body, GroupNLConfig()))) == 19


class Wrapped(nn.Module):
    def __init__(self, *nets):
        super().__init__()
        self.nets = nn.ModuleList(nets)


class Own(nn.Module):
    """A segmenter of the user with names of its own; the stem comes last in its list of modules."""

    def __init__(self, **attributes):
        super().__init__()
        self.out = nn.Conv2d(8, 5, 1)
        self.mix = nn.Conv2d(8, 8, 3, padding=1)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        vars(self).update(attributes)

    def forward(self, x):
        return self.out(self.mix(self.encoder(x)))


OWN = {"backbone": ["encoder"], "head": ["mix", "out"], "predicts": ["out"]}


def test_a_detector_inside_another_module():
    report = converted(Wrapped(on_meta("fcos_resnet18_fpn")), GroupNLConfig())
    assert all(name.startswith("nets.0.backbone.body.") for name in names(report))
    with pytest.raises(ConversionError, match=r"Wrapped holds 2 networks with parts, nets\.0, nets\.1: give the"):
        converted(Wrapped(on_meta("fpn_resnet18"), on_meta("fpn_resnet18")), GroupNLConfig())


def test_parts_that_a_network_names_itself():
    report = convert_(Own(parts=OWN), GroupNLConfig())
    assert names(report) == ["encoder.2"]
    assert reasons(report)["encoder.0"] == "stem"
    assert reasons(report)["mix"] == "in the head, and `parts` takes only the backbone"
    model = Own(parts=OWN, task="detection")
    assert names(convert_(model, GroupNLConfig(), parts=["head", "backbone"])) == ["mix", "encoder.2"]
    assert task_of(model) == "detection"
    model = Own(parts={"backbone": ["encoder"]})
    assert reasons(convert_(model, GroupNLConfig()))["mix"] == "in none of the network's parts"
    assert names(convert_(Own(), GroupNLConfig())) == ["mix", "encoder.0", "encoder.2"]  # without parts


def test_a_layer_that_heads_share_or_that_has_a_hook_stays():
    model = create_model("retinanet_resnet18_fpn", num_classes=5, width=0.25, pyramid=64)
    model.head.regression_head.conv[0] = model.head.classification_head.conv[0]
    model.head.regression_head.conv[1][0].weight = model.head.classification_head.conv[1][0].weight
    model.backbone.body.layer1[0].conv1.register_forward_hook(lambda *_: None)
    left = reasons(convert_(model, GroupNLConfig(), parts=PARTS))
    assert left["head.classification_head.conv.0.0"].startswith("shared by head.classification_head.conv.0.0, head.reg")
    assert left["head.regression_head.conv.1.0"].startswith("its weight is shared with head.classification_head")
    assert left["backbone.body.layer1.0.conv1"].startswith("has hooks")


def test_wrong_parts():
    dense, plain = on_meta("fcos_resnet18_fpn"), on_meta("resnet8_cifar")
    for parts in (("body",), (), ("head", "head"), "backbone"):
        with pytest.raises(ValueError, match=r"`parts` .* does not fit FCOS: it must name some of 'backbone', 'neck'"):
            converted(dense, GroupNLConfig(), parts=parts)
    with pytest.raises(
        ValueError, match=r"`parts` \(=\('neck',\)\) does not fit DeepLabV3: .* 'backbone', 'head', each"
    ):
        converted(of_torchvision("deeplabv3_resnet50"), GroupNLConfig(), parts=("neck",))
    with pytest.raises(ValueError, match=r"`parts` .* has no effect on ResNetCifar, which is no known detector"):
        converted(plain, GroupNLConfig(), parts=("backbone",))
    with pytest.raises(ValueError, match=r"`parts` .* has no effect with a `filter_fn`"):
        converted(dense, GroupNLConfig(), parts=("backbone",), filter_fn=lambda *_: True)
    wrong = [
        ({"body": ["encoder"]}, r"Own\.parts .*it must map some of backbone, neck, head, predicts to qualified names"),
        ({"backbone": "encoder"}, r"Own\.parts\['backbone'\] \(='encoder'\) must be a list of qualified names"),
        ({"backbone": ["enc"]}, r"Own\.parts\['backbone'\] names 'enc', but the network has no such module"),
    ]
    for parts, message in wrong:
        with pytest.raises(ConversionError, match=message):
            convert_(Own(parts=parts), GroupNLConfig())
    with pytest.raises(ConversionError, match=r"Own\.task \(='boxes'\) must be one of classification, detection"):
        task_of(Own(task="boxes"))


def test_a_detector_of_unknown_parts_is_refused_with_the_ways_to_name_them():
    model = Own()
    model.levels = FeaturePyramidNetwork([8, 8], 8)
    sentence = r"Own looks like a detector \(levels is a FeaturePyramidNetwork\), .* attribute `parts`.*`filter_fn`"
    with pytest.raises(ConversionError, match=sentence):
        convert_(model, GroupNLConfig())
    assert not any(isinstance(module, ConvLayer) for module in model.modules())
    chosen = convert_(model, GroupNLConfig(), filter_fn=lambda module, name: name == "mix")
    assert names(chosen) == ["mix"]
    model = Own(parts=OWN)
    model.levels = FeaturePyramidNetwork([8, 8], 8)
    assert names(convert_(model, GroupNLConfig())) == ["encoder.2"]
