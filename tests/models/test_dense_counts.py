"""Detectors and segmenters: exact counts of learnable parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from seedcnn.convert import GhostConfig, GroupNLConfig, LocalBinaryConfig, MonoConfig, convert_
from seedcnn.models import create_model, list_models
from tests.few import few

FORMS = {
    "vanilla": None,
    "lbc": LocalBinaryConfig(scope="stride1"),
    "ghost": GhostConfig(scope="stride1", ratio=4, cheap="pointwise"),
    "mono": MonoConfig(scope="stride1", seed_filters=1, pointwise=True),
    "groupnl": GroupNLConfig(scope="paper", reduction_ratio=2),
}
# (network, classes): learnable parameters of the forms above, with trainable BatchNorms and the backbone converted.
COUNTS = {
    ("fasterrcnn_resnet18_fpn", 80): (28_688_356, 20_299_748, 21_812_964, 20_332_132, 23_114_340),
    ("fasterrcnn_resnet18_fpn", 20): (28_380_856, 19_992_248, 21_505_464, 20_024_632, 22_806_840),
    ("retinanet_resnet18_fpn", 80): (20_820_276, 12_431_668, 13_944_884, 12_464_052, 15_246_260),
    ("retinanet_resnet18_fpn", 20): (19_575_576, 11_186_968, 12_700_184, 11_219_352, 14_001_560),
    ("fcos_resnet18_fpn", 80): (19_277_717, 10_889_109, 12_402_325, 10_921_493, 13_703_701),
    ("fcos_resnet18_fpn", 20): (19_139_417, 10_750_809, 12_264_025, 10_783_193, 13_565_401),
    ("fpn_resnet18", 19): (13_049_555, 4_660_947, 6_174_163, 4_693_331, 7_475_539),
    ("fpn_resnet18", 21): (13_049_813, 4_661_205, 6_174_421, 4_693_589, 7_475_797),
    ("semfpn_resnet18", 19): (15_409_875, 7_021_267, 8_534_483, 7_053_651, 9_835_859),
    ("semfpn_resnet18", 21): (15_410_133, 7_021_525, 8_534_741, 7_053_909, 9_836_117),
}
CASES = [(key, form, count) for key, counts in COUNTS.items() for form, count in zip(FORMS, counts, strict=True)]
QUICK = [index for index, (key, form, _) in enumerate(CASES) if key[1] in (80, 19) or form == "vanilla"]


def learnable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def built(name, classes, form="vanilla", parts=None, **options):
    with torch.device("meta"):
        model = create_model(name, num_classes=classes, **options)
        if FORMS[form] is not None:
            convert_(model, FORMS[form], parts=parts)
    return model


@pytest.mark.parametrize(("key", "form", "count"), few(CASES, QUICK), ids=str)
def test_learnable_parameters(key, form, count):
    assert learnable(built(*key, form)) == count


@pytest.mark.parametrize(
    ("name", "classes", "count"), [("fasterrcnn_resnet18_fpn", 80, 18_246_244), ("semfpn_resnet18", 19, 4_967_763)]
)
def test_learnable_parameters_with_the_pyramid_converted_too(name, classes, count):
    assert learnable(built(name, classes, "mono", parts=("backbone", "neck"))) == count


@pytest.mark.parametrize("name", [*list_models("detection"), *list_models("segmentation")])
def test_frozen_norms_do_not_learn(name):
    with torch.device("meta"):
        trainable, frozen = create_model(name), create_model(name, norm="frozen")
    assert learnable(trainable) - learnable(frozen) == 9_600
    kinds = {type(module) for module in frozen.backbone.modules()}
    assert FrozenBatchNorm2d in kinds
    assert nn.BatchNorm2d not in kinds


def test_the_page_prints_these_counts():
    page = (Path(__file__).parents[2] / "docs" / "dense.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    printed = {
        (row[0], int(row[1])): tuple(int(cell.replace(",", "")) for cell in row[2:])
        for row in rows
        if len(row) == 7 and row[1].isdigit()
    }
    assert printed == COUNTS
    assert all(f"{count:,}" in page for count in (18_246_244, 4_967_763, 9_600))
