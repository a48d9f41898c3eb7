"""The networks registered with timm: replaced layers, the counts of the public code, and timm's arguments."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import seedcnn.models  # noqa: F401
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.layers import GroupNLConv2d
from seedcnn.models.timm_registry import GNL_MODELS
from tests.few import few

# name: (learnable parameters, GroupNL layers, fixed numbers, 10^9 MACs) of the public code's networks, at 224x224 and
# EfficientNetV2 at 288x288.
PUBLIC = {
    "gnl_resnet50": (17_362_280, 13, 104, "2.597"),
    "gnl_std_r2_resnet50": (21_446_696, 13, 104, "3.338"),
    "gnl_std_r4_resnet50": (19_391_528, 13, 312, "2.962"),
    "gnl_resnet101": (26_366_568, 30, 240, "4.352"),
    "gnl_std_r2_resnet101": (35_425_320, 30, 240, "6.067"),
    "gnl_std_r4_resnet101": (30_863_400, 30, 720, "5.200"),
    "mobilenetv3_gnl_large_100": (5_483_032, 15, 120, "0.2166"),
    "mobilenetv3_gnl_large_075": (3_993_528, 15, 120, "0.1546"),
    "mobilenetv3_gnl_small_100": (2_542_856, 11, 88, "0.0565"),
    "mobilenetv3_gnl_small_075": (2_041_872, 11, 88, "0.0434"),
    "mobilenetv2_gnl_100": (3_504_872, 17, 136, "0.3008"),
    "efficientnet_gnl_lite0": (4_652_008, 16, 128, "0.3852"),
    "efficientnet_gnl_b0": (5_288_548, 16, 128, "0.3858"),
    "efficientnetv2_gnl_s": (21_458_488, 30, 240, "4.708"),
    "efficientnet_gnl_es": (5_438_392, 11, 88, "1.789"),
}


def create(name, device="cpu", **options):
    """The network, without the warning about depthwise layers, which another test covers."""
    with warnings.catch_warnings(), torch.device(device):
        warnings.filterwarnings("ignore", message="scope 'reference' replaced", category=UserWarning)
        return timm.create_model(name, **options)


def converted(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, GroupNLConv2d)}


def test_timm_lists_them():
    assert set(GNL_MODELS) == set(PUBLIC) <= set(timm.list_models("*gnl*"))


def test_importing_the_models_is_enough():
    code = "import seedcnn.models, timm; print(timm.is_model('gnl_resnet50'))"
    child = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert child.stdout == "True\n", child.stderr


@pytest.mark.parametrize("name", few(PUBLIC, [1, 8, 11]))
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_counts_of_the_public_code(name, variant):
    model = create(name, "meta", variant=variant)
    layers = converted(model)
    learnable = sum(p.numel() for p in model.parameters())
    fixed = sum(2 * layer.nlf_groups * layer.gamma for layer in layers.values())
    assert (learnable, len(layers), fixed) == PUBLIC[name][:3]


def macs(model, size=224):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", few(PUBLIC, [1, 8, 11]))
def test_macs_of_the_public_code(name):
    printed = PUBLIC[name][3]
    found = macs(create(name, "meta"), 288 if "v2_gnl_s" in name else 224) / 1e9
    assert f"{found:.{len(printed) - 2}f}" == printed


@pytest.mark.parametrize("name", ["gnl_resnet50", "mobilenetv3_gnl_small_100"])
def test_keys_of_the_public_code(name):
    model = create(name, "meta", variant="reference")
    base = timm.create_model(GNL_MODELS[name].base)
    expected = set(base.state_dict())
    for layer in converted(model):
        expected.remove(f"{layer}.weight")
        expected |= {f"{layer}.conv1.weight", f"{layer}.periods", f"{layer}.shifts"}
    found = {key for key in model.state_dict() if not key.endswith(".seed")}
    assert found == expected


@pytest.mark.parametrize("name", PUBLIC)
def test_pretrained_is_refused_with_a_sentence(name):
    with pytest.raises(ConfigError, match=rf"{name} has no published weights; build it with pretrained=False"):
        timm.create_model(name, pretrained=True)


@pytest.mark.parametrize("name", ["gnl_resnet50", "mobilenetv2_gnl_100", "efficientnet_gnl_es"])
def test_other_channels_classes_and_drop_path(name):
    model = create(name, "meta", in_chans=1, num_classes=7, drop_path_rate=0.3)
    assert model(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 7)
    assert any(getattr(module, "drop_prob", 0) > 0 for module in model.modules())
    assert len(converted(model)) == PUBLIC[name][1]


@pytest.mark.parametrize("name", ["gnl_resnet50", "mobilenetv3_gnl_large_100", "efficientnetv2_gnl_s"])
def test_features_only_with_output_stride(name):
    model = create(name, "meta", features_only=True, output_stride=16)
    maps = model(torch.empty(1, 3, 128, 128, device="meta"))
    assert [tuple(m.shape[-2:]) for m in maps][-1] == (8, 8)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert len(converted(model)) >= PUBLIC[name][1] - 1  # the last block of some is cut off


@pytest.mark.parametrize("name", ["gnl_resnet50", "mobilenetv2_gnl_100"])
def test_a_checkpoint_fits_at_every_output_stride(name):
    """The public code replaced other layers at other output strides, and ignored the dilation."""
    dense, full = create(name, "meta", output_stride=8), create(name, "meta")
    assert dense.state_dict().keys() == full.state_dict().keys()
    assert {layer.dilation for layer in converted(dense).values()} >= {(1, 1), (2, 2), (4, 4)}
    assert {layer.dilation for layer in converted(full).values()} == {(1, 1)}


def test_it_learns_and_is_saved():
    model = create("mobilenetv3_gnl_small_075", num_classes=4, seed=5)
    model(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in converted(model).values())
    other = create("mobilenetv3_gnl_small_075", num_classes=4, seed=6)
    name, layer = next(iter(converted(other).items()))
    assert layer.seed != converted(model)[name].seed
    other.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(other.eval()(x), model.eval()(x), rtol=0, atol=0)


def test_mobile_nets_warn_with_the_numbers():
    with (
        torch.device("meta"),
        pytest.warns(UserWarning, match=r"17 depthwise.*64,224 parameters.*1\.4 to 1\.8 times as long") as caught,
    ):
        timm.create_model("mobilenetv2_gnl_100")
    assert len(caught) == 1
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        timm.create_model("gnl_resnet50")


# Learnable parameters and MACs at 224x224 with scope "pointwise"; those of the reference scope are timm's own.
POINTWISE = {
    "mobilenetv2_gnl_100": (2_455_976, 194_501_504),
    "mobilenetv3_gnl_large_075": (3_606_168, 106_184_688),
    "mobilenetv3_gnl_large_100": (4_823_256, 141_576_640),
    "mobilenetv3_gnl_small_075": (1_941_424, 34_907_056),
    "mobilenetv3_gnl_small_100": (2_370_888, 43_652_800),
    "efficientnet_gnl_b0": (3_729_316, 244_544_224),
    "efficientnet_gnl_lite0": (3_092_776, 243_917_024),
    "efficientnet_gnl_es": (3_881_784, 1_506_139_776),
    "efficientnetv2_gnl_s": (13_851_448, 2_140_005_824),
}


QUICK = ("mobilenetv2_gnl_100", "mobilenetv3_gnl_small_100", "efficientnet_gnl_lite0")  # of each generation one


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in POINTWISE]
)
def test_the_pointwise_scope_saves_and_the_reference_scope_does_not(name):
    networks = {
        "timm": create(GNL_MODELS[name].base, "meta"),
        "reference": create(name, "meta"),
        "pointwise": create(name, "meta", scope="pointwise"),
    }
    found = {kind: (sum(p.numel() for p in model.parameters()), macs(model)) for kind, model in networks.items()}
    assert found["reference"] == found["timm"]
    assert found["pointwise"] == POINTWISE[name]
    assert found["pointwise"][1] < 0.85 * found["timm"][1]


def test_widths_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ConversionError, match=r"layer1.0.conv2.*seed_channels.*13.*nlf_groups"):
        create("gnl_resnet50", "meta", base_width=26)
    with pytest.raises(ConversionError, match=r"grouped convolution \(groups=32\)|no convolution matched"):
        create("gnl_resnet50", "meta", cardinality=32)
