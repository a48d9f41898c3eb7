"""Numbers that are no parameters leave as tensors of the bundle; norms leave as scale and shift."""

from __future__ import annotations

import onnx
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import ExportError
from seedcnn.export import fold, to_onnx
from seedcnn.export.bundles import grids_of_step
from seedcnn.layers import GroupNLConv2d
from seedcnn.layers.forms import ChannelAffine
from tests.export.alike import SIZE, around, conv, exported, settled


class Normalised(nn.Module):
    """A classifier that normalises its images itself, by buffers that share their names with operators."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        return self.network((x - self.mean) / self.std)


class ThroughVectors(nn.Module):
    """Norms over one and three axes, two of them after a convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.line, self.second = nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.third, self.cube = nn.InstanceNorm1d(8, track_running_stats=True), nn.BatchNorm3d(8)
        self.flat = nn.BatchNorm1d(8)

    def forward(self, x):
        y = self.third(self.second(self.line(self.first(x.flatten(2)))))
        y = self.cube(y.view(x.shape)[:, :, None])[:, :, 0]
        return y + self.flat(y.mean((2, 3)))[:, :, None, None]


def frozen(norm):
    made = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    made.load_state_dict(norm.state_dict())
    return made


def synchronised(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()


def with_norms():
    torch.manual_seed(0)
    layer = GroupNLConv2d(8, 8, 3, padding=1, normalize="batch", seed=5)
    layers = [nn.BatchNorm2d(8), layer, nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)]
    return settled(around(*layers))


def with_frozen_norms():
    model = with_norms()
    for index in (1, 3, 5):
        model[index] = frozen(model[index])
    return model


NETWORKS = {
    "synchronised": lambda: synchronised(with_norms()),
    "frozen": with_frozen_norms,
    "other axes": lambda: settled(around(nn.BatchNorm2d(8), ThroughVectors())),
    "in the head": lambda: settled(nn.Sequential(*around(), nn.BatchNorm1d(4), nn.SyncBatchNorm(4).eval())),
    "instance": lambda: settled(around(nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.ReLU())),
    "without bias": lambda: settled(around(nn.BatchNorm2d(8, bias=False), nn.ReLU(), nn.BatchNorm2d(8, affine=False))),
    "by keyword": lambda: settled(around(ByKeyword())),
}


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.nothing = conv(), nn.BatchNorm2d(8), nn.Identity()

    def forward(self, x):
        return self.nothing(input=self.norm(input=self.conv(input=x)))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_with_running_statistics_becomes_scale_and_shift(name):
    torch.manual_seed(0)
    folded, graph = exported(NETWORKS[name]())
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in folded.modules())
    assert not any("running" in key for key in graph.tensors)
    assert not any(buffer.is_floating_point() for buffer in folded.buffers())


def test_norms_of_synchronised_and_frozen_networks_are_folded_into_the_layer_before():
    for make in (NETWORKS["synchronised"], with_frozen_norms):
        names = set(to_onnx(fold(make()), SIZE).tensors)
        assert names == set(to_onnx(fold(with_norms()), SIZE).tensors)


def test_normalisation_inside_the_network_travels():
    model = Normalised(with_norms()).eval()
    folded, graph = exported(model)
    assert {"mean", "std"} <= set(graph.tensors)
    assert "std" in graph.divisors
    assert {"mean", "std"} <= set(grids_of_step(graph.tensors, 1 / 16)) or graph.tensors["std"].size < 8
    assert not any(buffer.is_floating_point() for buffer in folded.buffers())


def test_blur_pools_travel():
    torch.manual_seed(0)
    model = timm.create_model("resnetblur18", num_classes=4)
    convert_(model, GroupNLConfig(), seed=3)
    _, graph = exported(settled(model, (3, 32, 32)), (3, 32, 32))
    assert {"maxpool.1.filt", "layer2.0.aa.filt"} <= set(graph.tensors)


class Scaled(nn.Module):
    """Multiplies by numbers that are held or made in several ways."""

    def __init__(self):
        super().__init__()
        self.held = torch.rand(8, 1, 1)
        self.several = [torch.rand(8, 1, 1)]
        self.register_buffer("table", torch.rand(8, 1, 1))
        self.register_buffer("twice", self.table)
        self.register_buffer("share", torch.tensor(0.5))

    def forward(self, x):
        made = torch.tensor([0.1 * i for i in range(8)])[:, None, None]
        return x * self.held + self.several[0] * self.table - made * self.twice + self.share


class Unregistered(Scaled):
    """The same in code that cannot be traced, with a convolution that the module does not register."""

    def __init__(self):
        super().__init__()
        self.hidden = [conv().requires_grad_(False)]

    def forward(self, x):
        return super().forward(self.hidden[0](x) * int(x.shape[2]))


@pytest.mark.parametrize("kind", [Scaled, Unregistered])
def test_constants_of_the_network_s_code_travel(kind):
    torch.manual_seed(0)
    _, graph = exported(settled(around(kind(), nn.BatchNorm2d(8))))
    proto = onnx.load_from_string(graph.graph).graph
    inside = [t for t in proto.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    inside += [node.attribute[0].t for node in proto.node if node.op_type == "Constant"]
    assert all(t.data_type != onnx.TensorProto.FLOAT or list(t.dims) in ([], [1]) for t in inside)
    assert bool(graph.constants) == (kind is Unregistered)
    assert "1.share" in graph.tensors
    assert {"1.table", "1.twice", "_tensor_constant0"} & set(graph.tensors)  # the tracer may not know their names


def test_plain_tensors_of_other_types_travel_as_float32():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.held, self.several = torch.rand(8, 1, 1).double(), {"half": torch.rand(8, 1, 1).half()}

        def forward(self, x):
            return (x * int(x.shape[2]) + self.held + self.several["half"]).float()

    _, graph = exported(settled(around(Held())))
    assert len(graph.constants) == 2


def test_constants_that_no_bundle_can_carry_are_refused_by_name():
    class Double(nn.Module):
        def forward(self, x):
            return x * int(x.shape[2]) + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).mean(0, dtype=torch.float32)

    class Half(nn.Module):
        def forward(self, x):
            return x * int(x.shape[2]) + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16).float().sum()

    for kind, name in ((Double, "DOUBLE"), (Half, "FLOAT16")):
        with pytest.raises(ExportError, match=rf"makes tensors that a bundle cannot carry: \S+ \({name}\)"):
            to_onnx(fold(around(kind())), SIZE)


class Rectified(nn.BatchNorm2d):
    """A norm with an activation in its own code."""

    def forward(self, x):
        return F.relu(super().forward(x))


class InFloat(nn.BatchNorm2d):
    """A norm that computes in float32 whatever comes."""

    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


def test_a_norm_with_code_of_its_own_keeps_its_function():
    folded, graph = exported(settled(around(Rectified(8), nn.ReLU())))
    assert isinstance(folded.get_submodule("1"), Rectified)
    assert "1.running_var" in graph.divisors
    folded, _ = exported(settled(around(InFloat(8), nn.ReLU())))
    assert not any(isinstance(module, (nn.BatchNorm2d, ChannelAffine)) for module in folded.modules())


class Doubled(GroupNLConv2d):
    """A layer whose forward no longer is what its base class folds."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_layer_with_code_of_its_own_keeps_its_function():
    exported(settled(around(Doubled(8, 8, 3, padding=1, seed=5), nn.BatchNorm2d(8))))


class Reading(nn.Module):
    """Code that calls modules and also reads their tensors."""

    def __init__(self, layer, part):
        super().__init__()
        self.layer, self.norm, self.part = layer, nn.BatchNorm2d(8), part

    def forward(self, x):
        y = self.norm(self.layer(x))
        if self.part == "norm":
            return y + self.norm.running_mean[:, None, None] * self.norm.weight[:, None, None]
        return y + F.conv2d(x, self.layer.weight, padding=2, dilation=2)


@pytest.mark.parametrize("part", ["norm", "layer"])
def test_tensors_that_the_network_also_reads_stay_what_they_are(part):
    exported(settled(around(Reading(conv(), part))))


def test_a_seeded_layer_whose_tensors_are_read_is_refused():
    layer = GroupNLConv2d(8, 8, 3, padding=1, seed_channels=8, seed=5)
    with pytest.raises(ExportError, match=r"calls 1\.layer and also reads its tensors"):
        fold(settled(around(Reading(layer, "layer"))))
