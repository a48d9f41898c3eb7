"""What training needs of the layers: fast forms that are the same function, little kept, one function everywhere."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.layers import ConvLayer, GroupNLConv2d, MonoConv2d, SineFMConv2d
from seedcnn.ops import sum_runs as runs
from seedcnn.ops.sum_runs import sum_runs

both_layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])


def maps(*shape, channels_last=False):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    return (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()


@pytest.mark.parametrize("run", [2, 3, 5])
@both_layouts
def test_sum_runs_and_its_gradients(run, channels_last):
    x = maps(2, 4 * run, 3, 5, channels_last=channels_last)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    expected = x.unflatten(1, (4, run)).sum(2)
    found = sum_runs(x, run)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=memory)
    torch.testing.assert_close(sum_runs(x[1], run), expected[1])
    grad = maps(2, 4, 3, 5, channels_last=channels_last)
    (by_x,) = torch.autograd.grad(found, x, grad)
    assert by_x.is_contiguous(memory_format=memory)
    assert torch.equal(by_x, torch.autograd.grad(expected, x, grad)[0])
    assert torch.autograd.gradcheck(lambda x: sum_runs(x, run), (x.detach().double().requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda x: sum_runs(x, run) ** 2, (x.detach().double()[:1].requires_grad_(),))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck itself
@both_layouts
def test_torch_finds_the_sums_well_formed(channels_last):
    torch.library.opcheck(runs._sum, (maps(2, 6, 3, 5, channels_last=channels_last), 3))
    torch.library.opcheck(runs._repeat, (maps(2, 2, 3, 5, channels_last=channels_last), 3))


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"dilation": 2, "padding": 2}, {"padding_mode": "reflect"}, {"padding": "same"}],
    ids=str,
)
@both_layouts
def test_groups_with_one_output_are_the_grouped_convolution(options, channels_last):
    geometry = {"kernel_size": 3, "padding": 1} | options
    layer = ConvLayer(12, 4, **geometry)
    plain = nn.Conv2d(12, 4, groups=4, **geometry)
    x = maps(2, 12, 7, 6, channels_last=channels_last)
    grad = torch.randn(2, 4, *plain(x).shape[2:])
    found = layer.convolve(x, plain.weight, plain.bias, 4)
    expected = plain(x)
    assert found.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    torch.testing.assert_close(found, expected)
    learned = (x, plain.weight, plain.bias)
    torch.testing.assert_close(
        torch.autograd.grad(found, learned, grad), torch.autograd.grad(expected, learned, grad), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(layer.convolve(x[0], plain.weight, plain.bias, 4), expected[0])


def _kept(model, x):
    """Bytes kept for the backward pass, without parameters and fixed numbers."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    known |= {v.untyped_storage().data_ptr() for m in model.modules() for v in vars(m).values() if torch.is_tensor(v)}
    found = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    assert y.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("ratio", [2, 4])
def test_kept_for_backward_is_what_a_convolution_keeps(sparse, ratio):
    x = maps(2, 16, 12, 12).detach()
    layer = GroupNLConv2d(16, 16, 3, padding=1, reduction_ratio=ratio, sparse=sparse)
    plain = nn.Conv2d(16, 16, 3, padding=1)
    picture = x.untyped_storage().nbytes()
    assert _kept(plain, x) == picture
    assert _kept(layer, x) == 2 * picture  # its input, and its output: which a norm keeps anyway
    with_norm = [nn.Sequential(conv, nn.BatchNorm2d(16), nn.ReLU(True)) for conv in (plain, layer)]
    assert _kept(with_norm[1], x) <= _kept(with_norm[0], x)
    seeds = GroupNLConv2d(16, 16, 3, padding=1, reduction_ratio=ratio, sparse=sparse, save="seeds")
    assert _kept(seeds, x) == picture + picture // ratio


@pytest.mark.parametrize("in_channels", [8, 16], ids=["one input to a seed", "two"])
def test_strided_sparse_gradients_are_as_exact_in_autocast_as_the_rest(in_channels):
    torch.manual_seed(0)
    layer = GroupNLConv2d(in_channels, 16, 3, stride=2, padding=1, bias=True, sparse=True, nlf="identity")
    x = maps(4, in_channels, 10, 10)
    leaves = [x, layer.weight, layer.bias]
    upstream = torch.randn_like(layer(x)).bfloat16().float()
    upstream[:, 8:] = 0  # the operator adds in bfloat16 what comes through the generated half
    wanted = torch.autograd.grad(layer(x), leaves, upstream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        found = torch.autograd.grad(y.float(), leaves, upstream)
    for one, other in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], wanted[2], rtol=0.03, atol=0.1)


def test_an_inplace_activation_behind_the_layer():
    x = maps(2, 8, 6, 6).detach()
    for save in ("output", "seeds"):
        torch.manual_seed(0)
        model = nn.Sequential(GroupNLConv2d(8, 16, 3, padding=1, save=save), nn.ReLU(inplace=True))
        if save == "output":
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                model(x).sum().backward()
            continue
        model(x).sum().backward()
        layer = copy.deepcopy(model[0])
        expected = F.relu(layer(x)).sum()
        torch.testing.assert_close(model[0].weight.grad, torch.autograd.grad(expected, layer.weight)[0])
        assert "save=seeds" in repr(layer)
    with pytest.raises(ValueError, match=r"`save` \(='input'\) must be one of 'output', 'seeds'"):
        GroupNLConv2d(8, 16, 3, save="input")


@pytest.mark.parametrize("options", [{}, {"reduction_ratio": 4}, {"sparse": True}], ids=str)
def test_moved_compiled_and_exported_is_the_same_function(options):
    torch.manual_seed(0)
    source = GroupNLConv2d(16, 32, 3, padding=1, nlf_groups=2, seed=7, **options)
    layer = GroupNLConv2d(16, 32, 3, padding=1, nlf_groups=2, seed=7, device="meta", **options).to_empty(device="cpu")
    layer.load_state_dict(source.state_dict())
    layer = copy.deepcopy(layer)
    x = maps(2, 16, 5, 6)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(layer, (x.detach(),))
    assert not any("seedcnn" in str(node.target) for node in exported.graph.nodes)
    grad = torch.randn(2, 32, 5, 6)
    expected = source(x)
    by_x = torch.autograd.grad(expected, (x, source.weight), grad)
    for found, weight in ((compiled(x), layer.weight), (exported.module()(x), None)):
        torch.testing.assert_close(found, expected)
        if weight is not None:
            torch.testing.assert_close(torch.autograd.grad(found, (x, weight), grad), by_x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [GroupNLConv2d, MonoConv2d, SineFMConv2d])
def test_gradients_by_torch_func(kind):
    torch.manual_seed(0)
    layer = kind(8, 16, 3, **({"sparse": True} if kind is GroupNLConv2d else {})).eval()
    x = maps(2, 8, 6, 6).detach()
    parameters = dict(layer.named_parameters())
    found = torch.func.grad(lambda p: torch.func.functional_call(layer, p, (x,)).square().sum())(parameters)
    layer(x).square().sum().backward()
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"reduction_ratio": 4}, {"sparse": True}], ids=str)
@both_layouts
def test_compiled_by_inductor_is_the_same_function(options, channels_last):
    torch.manual_seed(0)
    model = nn.Sequential(GroupNLConv2d(16, 32, 3, padding=1, nlf_groups=2, **options), nn.BatchNorm2d(32), nn.ReLU())
    x = maps(2, 16, 5, 6, channels_last=channels_last)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    grad = torch.randn(2, 32, 5, 6)
    found, expected = (
        (*torch.autograd.grad(out, (x, *model.parameters()), grad), out.detach()) for out in (compiled(x), model(x))
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
