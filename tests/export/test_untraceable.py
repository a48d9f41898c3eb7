"""Modules whose code cannot be traced are kept whole, with what is in them folded or carried."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.errors import ExportError
from seedcnn.export import absorbed_norms, fold, to_onnx
from seedcnn.layers import GhostConv2d, GroupNLConv2d
from seedcnn.layers.forms import ChannelAffine
from seedcnn.layers.group_nl_form import FoldedGroupNL
from tests.export.alike import SIZE, around, conv, exported, settled

WAYS = {
    "nothing": lambda x: x,
    "asserts": lambda x: x if x.shape[1] % 1 == 0 and bool(x.shape[1] > 2) else None,
    "pads odd sizes": lambda x: F.pad(x, (0, 1, 0, 1)) if x.shape[-1] % 2 else x,
    "counts": lambda x: sum((x * 0.1 for _ in range(x.shape[2])), x),
    "asks for a number": lambda x: F.adaptive_avg_pool2d(x, int(x.shape[2])),
    "makes a tensor": lambda x: x + torch.zeros(x.shape[0], 1, 1, 1),
    "looks up": lambda x: x * {12: 0.5}[x.shape[2]],
    "slices": lambda x: x[:, :, slice(None, list(range(x.shape[2]))[-1] + 1)],
}


class Block(nn.Module):
    """A norm, a convolution and a norm around code of some kind."""

    def __init__(self, way, channels=8):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)  # registered before what it follows
        self.conv, self.way = GroupNLConv2d(channels, 8, 3, padding=1, seed=5), way

    def forward(self, x):
        return self.norm(self.conv(WAYS[self.way](x)))


class Root(Block):
    """The same as the network itself, with an option."""

    def __init__(self, way):
        super().__init__(way, 3)
        self.body, self.head = around(nn.BatchNorm2d(8), nn.ReLU())[1:3], nn.Linear(8, 4)

    def forward(self, x, pooled=True):
        y = self.body(super().forward(x))
        return self.head(y.mean((2, 3)) if pooled else y)


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_blocks_that_look_at_shapes(way, sized):
    torch.manual_seed(0)
    model = settled(around(nn.BatchNorm2d(8), Block(way), nn.ReLU(), conv(), nn.BatchNorm2d(8)))
    folded, graph = exported(model, input_size=SIZE if sized else None)
    assert not any(isinstance(module, (nn.BatchNorm2d, GroupNLConv2d)) for module in folded.modules())
    assert sum(isinstance(module, ChannelAffine) for module in folded.modules()) == (0 if sized else 1)
    assert set(graph.seeded) == {"2.conv.omega", "2.conv.phi"}
    assert absorbed_norms(graph.graph) == ({"2.conv": True} if sized else {"2.norm": False})


@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_networks_that_look_at_shapes(way):
    torch.manual_seed(0)
    folded, graph = exported(settled(Root(way)), input_size=SIZE)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    (lone,) = [name for name, m in folded.named_modules() if isinstance(m, ChannelAffine)]
    assert lone.startswith("network.body.")
    assert "network.conv.seed_conv.weight" in graph.tensors


def test_a_network_s_own_defaults_are_used():
    class Optional(Root):
        def forward(self, x, pooled=True, extra=None):
            return super().forward(x if extra is None else x + extra, pooled)

    _, graph = exported(settled(Optional("nothing")))
    assert "conv.seed_conv.weight" in graph.tensors  # traced through, under its own names


class Watched(nn.Module):
    """Code between a layer and its norm, or around them, that nothing but a forward pass shows."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.norm, self.way = GroupNLConv2d(8, 8, 3, padding=1, seed=5), nn.BatchNorm2d(8), way

    def forward(self, x):
        x = x * int(x.shape[2]) * 0.1
        y = self.conv(x)
        if self.way == "changed in place":
            y.add_(1)
        z = self.norm(y)
        return {
            "only reader": lambda: z,
            "changed in place": lambda: z,
            "read twice": lambda: z + y,
            "viewed": lambda: z + y.flatten(2).mean(),
            "called twice": lambda: self.norm(z),
            "layer called twice": lambda: z + self.conv(x),
            "weights read": lambda: z + self.conv.weight.mean(),
            "norm read": lambda: z + self.norm.bias[0],
        }[self.way]()


WATCHED = ["only reader", "changed in place", "read twice", "viewed", "called twice", "layer called twice"]


@pytest.mark.parametrize("way", [*WATCHED, "weights read", "norm read"])
def test_a_norm_is_folded_only_if_it_alone_reads_the_layer(way):
    torch.manual_seed(0)
    model, x = settled(around(Watched(way))), torch.randn(2, *SIZE)
    folded = fold(model, input_size=SIZE)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
    forms = [module for module in folded.modules() if isinstance(module, FoldedGroupNL)]
    assert any(form.absorbed for form in forms) == (way == "only reader")


def test_an_output_of_the_network_itself_is_not_folded():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = conv(3), nn.BatchNorm2d(8)

        def forward(self, x):
            y = self.conv(x[:, :, : int(x.shape[2])])
            return {"out": y, "aux": self.norm(y)}

    exported(settled(Both()), wanted=lambda model, x: model(x)["out"], input_size=SIZE)


def test_a_convolution_of_a_module_that_was_kept_whole_is_not_folded_outside():
    class Hidden(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.shared = shared

        def forward(self, x):
            return self.shared(x) * int(x.shape[2])

    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = conv(), nn.BatchNorm2d(8)
            self.hidden = Hidden(self.conv)

        def forward(self, x):
            return self.norm(self.conv(x)) + 0.01 * self.hidden(x)

    for size in (None, SIZE):
        exported(settled(around(Sharing())), input_size=size)


def test_a_parent_s_choice_reaches_layers_inside():
    torch.manual_seed(0)
    model = settled(around(nn.BatchNorm2d(8), Block("counts"), nn.ReLU()))
    for absorb in (True, False):
        folded = fold(model, absorb={"2.conv": absorb}, input_size=SIZE)
        assert folded.get_submodule("2.conv").absorbed is absorb


def test_code_that_fixes_the_batch_is_refused_in_words():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(int(x.shape[0]), -1)[:, :4]

    with pytest.raises(ExportError, match="turns the number of images in a batch into a fixed number"):
        to_onnx(fold(nn.Sequential(conv(3), Fixed())), SIZE)


def test_code_that_looks_at_values_is_refused_in_words():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    for model in (Branching(), around(Branching())):
        with pytest.raises(ExportError, match="its code depends on the values of its input") as caught:
            to_onnx(fold(model), SIZE)
        assert "\x1b" not in str(caught.value)
        assert "step 1/3" not in str(caught.value)


def test_what_torch_complains_of_is_said_in_one_line():
    with pytest.raises(ExportError, match=r"cannot be expressed in ONNX: Given groups=1, .* 3 channels instead$"):
        to_onnx(fold(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())), SIZE)


def test_a_tensor_called_like_the_graph_s_input_is_refused():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.image = nn.Parameter(torch.rand(3, 1, 1))

        def forward(self, x):
            return x * self.image

    with pytest.raises(ExportError, match="a tensor of the network is called 'image'"):
        to_onnx(fold(Named()), SIZE)


@pytest.mark.parametrize("hold", [lambda layer: [layer], lambda layer: lambda x: layer(x)], ids=["list", "closure"])
@pytest.mark.parametrize("layer", ["GroupNL", "Ghost", "plain"])
def test_blocks_that_reach_their_layers_another_way(layer, hold):
    torch.manual_seed(0)
    block = Block("asserts")
    block.conv = {"GroupNL": block.conv, "Ghost": GhostConv2d(8, 8, 3, padding=1, relu=False), "plain": conv()}[layer]
    held = hold(block.conv)
    block.held = held
    forward = (lambda x: held[0](x)) if isinstance(held, list) else held
    block.way_in = forward
    model = settled(around(nn.BatchNorm2d(8), Reaching(block), nn.ReLU(), conv(), nn.BatchNorm2d(8)))
    folded, _ = exported(model, input_size=SIZE)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


class Reaching(nn.Module):
    """Calls a block's convolution through what the block holds, and the block's norm."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block.norm(self.block.way_in(x if bool(x.shape[1] > 2) else None))
