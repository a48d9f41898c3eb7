"""Detectors and segmenters: options, backbones, answers, losses and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.convert.parts import task_of
from seedcnn.errors import ConfigError
from seedcnn.models import create_model, default_input, default_widths, list_models, option_types
from seedcnn.models.bodies import build_body
from tests.few import few

DETECTORS, SEGMENTERS = list_models("detection"), list_models("segmentation")
DENSE = [*DETECTORS, *SEGMENTERS]
SMALL = {"width": 0.125, "pyramid": 64}


def test_names_by_task():
    assert set(DENSE) | set(list_models("classification")) == set(list_models())
    assert (len(DETECTORS), len(SEGMENTERS)) == (3, 2)
    with pytest.raises(ValueError, match=r"`task` \(='boxes'\) must be one of 'classification', 'detection'"):
        list_models("boxes")


@pytest.mark.parametrize("name", ["resnet8_cifar", *DENSE])
def test_a_network_says_its_task_and_its_classes(name):
    with torch.device("meta"):
        model, default = create_model(name, num_classes=7), create_model(name)
    expected = "detection" if name in DETECTORS else "segmentation" if name in SEGMENTERS else "classification"
    assert model.task == task_of(model) == expected
    if expected != "classification":
        assert (model.num_classes, default.num_classes) == (7, 80 if name in DETECTORS else 19)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("in_chans", [3, 1])
def test_answers_to_images_of_any_size(name, in_chans):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, in_chans=in_chans, **SMALL).eval()
    if name in SEGMENTERS:
        for height, width in ((64, 96), (33, 70), (5, 5)):
            x = torch.rand(2, in_chans, height, width)
            assert model(x).shape == (2, 3, height, width)
            assert model.stride4(x).shape == (2, 3, -(-height // 4), -(-width // 4))
        return
    images = [torch.rand(in_chans, 40, 60), torch.rand(in_chans, 33, 50)]
    if hasattr(model, "score_thresh"):
        model.score_thresh = 0.0  # the prior of a fresh network is below the usual threshold
    with torch.no_grad():
        found = model(images)
    assert len(found) == 2
    for image, each in zip(images, found, strict=True):
        assert len(each["boxes"]) == len(each["labels"]) == len(each["scores"]) > 0
        assert 0 <= int(each["labels"].min()) <= int(each["labels"].max()) < 3
        assert each["boxes"][:, 0::2].max() <= image.shape[2]
        assert each["boxes"][:, 1::2].max() <= image.shape[1]


def boxes(*corners):
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


LEARNING = [(name, form) for form in ("groupnl", "vanilla") for name in DETECTORS]


@pytest.mark.parametrize(("name", "form"), few(LEARNING, quick=(0, 1, 2)))
def test_a_detector_learns(name, form):
    """The first class and the last in one image, no objects in the other."""
    torch.manual_seed(0)
    pyramid = 16 if name.startswith("faster") else 64
    model = create_model(name, num_classes=3, width=0.125, pyramid=pyramid)
    if form != "vanilla":
        convert_(model, GroupNLConfig())
    image = torch.zeros(3, 64, 64)
    image[0, 4:36, 4:36] = 1.0
    image[2, 30:62, 30:62] = 1.0
    images = [image, torch.zeros(3, 64, 64)]
    targets = [
        {"boxes": boxes((4, 4, 36, 36), (30, 30, 62, 62)), "labels": torch.tensor([0, 2])},
        {"boxes": boxes(), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        parts = model(images, targets)
        assert all(each.isfinite() for each in parts.values())
        loss = sum(parts.values())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.995 * losses[0]
    assert [target["labels"].tolist() for target in targets] == [[0, 2], []]


@pytest.mark.parametrize("name", DETECTORS)
def test_labels_are_those_of_torchvision_less_its_background(name):
    """torchvision's own forward on the same network: same boxes and scores, labels shifted by what it counts."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **SMALL).eval()
    if hasattr(model, "score_thresh"):
        model.score_thresh = 0.0
    images = [torch.rand(3, 64, 64)]
    plain = next(base for base in type(model).__mro__ if base.__module__.startswith("torchvision"))
    with torch.no_grad():
        ours, theirs = model(images)[0], plain.forward(model, images)[0]
    assert torch.equal(ours["boxes"], theirs["boxes"])
    assert torch.equal(ours["scores"], theirs["scores"])
    assert torch.equal(ours["labels"] + (1 if name.startswith("faster") else 0), theirs["labels"])


@pytest.mark.parametrize("name", DETECTORS)
def test_targets_that_do_not_fit(name):
    model = create_model(name, num_classes=3, **SMALL)
    images = torch.rand(2, 3, 64, 64)
    good = {"boxes": boxes((1, 1, 9, 9)), "labels": torch.tensor([2])}
    with pytest.raises(ValueError, match=r"`targets` is None; in training mode"):
        model(images)
    with pytest.raises(ValueError, match=r"`targets` holds 1 entries for 2 images"):
        model(images, [good])
    for label in (3, -1):
        with pytest.raises(ValueError, match=rf"`targets\[1\]` has the label {label}; labels must be 0 to 2"):
            model(images, [good, {**good, "labels": torch.tensor([label])}])


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_learns_from_masks_of_any_size(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **SMALL)
    x = torch.rand(2, 3, 45, 61)
    loss = nn.functional.cross_entropy(model(x), torch.randint(0, 3, (2, 45, 61)))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


BACKBONES = {
    "resnet50": (256, 512, 1024, 2048),
    "torchvision:resnet18": (64, 128, 256, 512),
    "torchvision:mobilenet_v3_small": (16, 24, 48, 576),
    "mobilenetv3_small_100": (16, 24, 48, 576),
    "convnext_atto": (40, 80, 160, 320),
}


@pytest.mark.parametrize(("backbone", "channels"), few(BACKBONES.items(), quick=(1, 2, 3)))
def test_backbones_of_timm_and_torchvision(backbone, channels):
    body, found = build_body(backbone)
    assert found == channels
    maps = body.eval()(torch.rand(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [
        (1, count, 64 // stride, 96 // stride) for count, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    model = create_model("fpn_resnet18", num_classes=2, backbone=backbone, pyramid=16).eval()
    assert model(torch.rand(1, 3, 50, 70)).shape == (1, 2, 50, 70)


def test_a_resnet_equals_those_of_torchvision_and_timm():
    bodies = [build_body(name)[0].eval() for name in ("resnet18", "torchvision:resnet18")]
    bodies[1].load_state_dict(bodies[0].state_dict())
    x = torch.rand(1, 3, 40, 56)
    assert all(torch.equal(a, b) for a, b in zip(*(body(x) for body in bodies), strict=True))


@pytest.mark.parametrize("backbone", ["torchvision:mobilenet_v3_small", "mobilenetv3_small_100"])
def test_frozen_norms_of_other_backbones_give_the_same_maps(backbone):
    bodies = [build_body(backbone, norm=norm)[0].eval() for norm in ("batch", "frozen")]
    bodies[1].load_state_dict({k: v for k, v in bodies[0].state_dict().items() if "num_batches" not in k})
    assert not any(isinstance(module, nn.BatchNorm2d) for module in bodies[1].modules())
    x = torch.rand(1, 3, 64, 64)
    for plain, frozen in zip(*(body(x) for body in bodies), strict=True):
        torch.testing.assert_close(plain, frozen, rtol=1e-3, atol=1e-4)


WRONG = [
    ({"num_classes": 0}, ValueError, r"`num_classes` \(=0\) must be a positive integer"),
    ({"pyramid": 0}, ValueError, r"`pyramid` \(=0\) must be a positive integer"),
    ({"norm": "sync"}, ValueError, r"`norm` \(='sync'\) must be one of 'batch', 'frozen'"),
    ({"in_chans": 0}, ValueError, r"`in_chans` \(=0\) must be a positive integer"),
    ({"widths": (8, 8)}, ValueError, r"`widths` \(=\(8, 8\)\) must have 4 entries"),
    ({"width": 0.5, "backbone": "mobilenetv3_small_100"}, ValueError, r"`widths` .* go with the backbones resnet18"),
    ({"backbone": "mobilenetv3_smal_100"}, ConfigError, r"timm has no such network; did you mean mobilenetv3_small"),
    ({"backbone": "torchvision:resnet17"}, ConfigError, r"torchvision has no network 'resnet17'; did you mean"),
    ({"backbone": "torchvision:squeezenet1_1"}, ConfigError, r"has maps at strides .*a pyramid needs 4, 8, 16 and 32"),
    ({"backbone": "torchvision:vit_b_16"}, ConfigError, r"VisionTransformer is neither a ResNet nor a chain"),
    ({"backbone": "vit_tiny_patch16_224"}, ConfigError, r"has maps at strides 16.*none at 4"),
    ({"backbone": "torchvision:resnet18", "in_chans": 1}, ValueError, r"`in_chans` \(=1\) must be 3"),
    ({"backbone": "convnext_atto", "norm": "frozen"}, ValueError, r"no effect on backbone 'convnext_atto'"),
    ({"backbone": "torchvision:convnext_tiny", "norm": "frozen"}, ValueError, r"no effect on backbone"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_options(options, kind, message):
    with pytest.raises(kind, match=message), torch.device("meta"):
        create_model("semfpn_resnet18", **options)


def test_pyramids_that_the_heads_cannot_have():
    for pyramid in (32, 100):
        with pytest.raises(ValueError, match=rf"`pyramid` \(={pyramid}\) must be a multiple of 32.*from 64 on"):
            create_model("fcos_resnet18_fpn", pyramid=pyramid)
    with pytest.raises(ValueError, match=r"`pyramid` \(=20\) must be divisible by 8"):
        create_model("fpn_resnet18", pyramid=20)


@pytest.mark.parametrize("name", DENSE)
def test_option_types_are_the_arguments_of_the_network(name):
    known = option_types(name)
    examples = {"num_classes": 3, "widths": (8, 8, 8, 8), "width": None, "width_divisor": 8, "backbone": "resnet18"}
    examples |= {"pyramid": 64, "norm": "batch", "in_chans": 1, "backbone_weights": None}
    assert set(known) == set(examples)
    assert (known["num_classes"], known["pyramid"], known["backbone"]) == (int, int, str)
    with torch.device("meta"):
        create_model(name, **examples)
    assert default_widths(name) == (64, 128, 256, 512)
    assert default_input(name) == ((3, 320, 320) if name in DETECTORS else (3, 256, 512))
