"""GroupNLConv2d: the function, its laws, and what every argument does."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from seedcnn.layers import GroupNLConv2d
from seedcnn.layers.group_nl import channel_shuffle, l2_normalize
from seedcnn.ops.group_nl import NLFS, group_nl_reference, nlf_index

GOLDEN = np.load(Path(__file__).with_name("golden_group_nl.npz"))


def layer(**kwargs):
    options = {"in_channels": 8, "out_channels": 16, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return GroupNLConv2d(**options)


@pytest.mark.parametrize("case", ["dense_r4", "dense_fig2_g2_r4"])
def test_channel_order_agrees_with_the_public_layer(case):
    """The public layer normalises the seeds and subtracts its shifts; given both, ours must give the same maps."""
    c_in, c_out, c_seed, k, g = (int(v) for v in GOLDEN[f"{case}.args"])
    x, weight = (torch.from_numpy(GOLDEN[f"{case}.{name}"]).double() for name in ("input", "weight"))
    omega, phi = (torch.from_numpy(GOLDEN[f"{case}.{name}"]).double() for name in ("periods", "shifts"))
    assert weight.shape == (c_seed, c_in, k, k)
    seeds = F.normalize(F.conv2d(x, weight, padding=1), dim=1)
    ours = group_nl_reference(seeds, omega, -phi, nlf_groups=g, out_channels=c_out)
    np.testing.assert_allclose(ours.numpy(), GOLDEN[f"{case}.output"], atol=1e-12)


def test_forward_is_the_formula_written_out():
    module = layer(out_channels=32, seed_channels=8, nlf_groups=2).double()
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    s = F.conv2d(x, module.weight, padding=1)
    omega, phi = module.omega.double(), module.phi.double()
    maps = [s]
    for i in range(2):
        for j in range(3):
            h = i * 3 + j
            maps.append(torch.sin(omega[h] * (s[:, 4 * i : 4 * i + 4] + phi[h])))
    torch.testing.assert_close(module(x), torch.cat(maps, 1))


def test_nlf_index_is_the_order_of_the_reference():
    seeds = torch.arange(6.0).view(1, 6, 1, 1)
    out = group_nl_reference(
        seeds, torch.ones(9), torch.arange(9.0) * 100, nlf_groups=3, out_channels=22, nlf="abs"
    ).flatten()
    source, block = nlf_index(6, 22, 3)
    assert torch.equal(out[6:], source.float() + 100 * block)
    assert len(source) == 16


def test_output_shapes_and_cropping():
    assert layer(out_channels=30, seed_channels=8)(torch.rand(2, 8, 9, 9)).shape == (2, 30, 9, 9)
    assert layer(stride=2, padding=1)(torch.rand(3, 8, 9, 7)).shape == (3, 16, 5, 4)
    assert layer(normalize="batch").eval()(torch.rand(8, 6, 6)).shape == (16, 6, 6)
    assert layer()(torch.rand(0, 8, 6, 6)).shape == (0, 16, 6, 6)
    assert layer(kernel_size=1, padding=0)(torch.rand(2, 8, 1, 1)).shape == (2, 16, 1, 1)
    assert layer(padding="same", dilation=2)(torch.rand(2, 8, 6, 6)).shape == (2, 16, 6, 6)


def test_seed_channels_equal_to_out_channels_is_a_plain_convolution():
    module = layer(seed_channels=16)
    x = torch.rand(2, 8, 6, 6)
    torch.testing.assert_close(module(x), F.conv2d(x, module.weight, padding=1))


@pytest.mark.parametrize("nlf", list(NLFS))
@pytest.mark.parametrize("normalize", ["none", "batch"])
def test_gradcheck(nlf, normalize):
    module = layer(in_channels=4, out_channels=12, nlf=nlf, seed_channels=4, nlf_groups=2, normalize=normalize).double()
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(module.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    module.eval()  # running statistics must not move between evaluations
    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


FORMULAS = {
    "sine": lambda x, w, p: np.sin(w * (x + p)),
    "monomial": lambda x, w, p: np.sign(x) * np.abs(x) ** w,
    "gaussian": lambda x, w, p: np.exp(-((w * x) ** 2)),
    "laplace": lambda x, w, p: w / 2 * np.exp(-w * np.abs(x)),
    "abs": lambda x, w, p: np.abs(x + p),
    "leaky": lambda x, w, p: np.where(x > 0, x, w * x),
    "triangle": lambda x, w, p: 2 / np.pi * np.arcsin(np.sin(w * (x + p))),
    "negate": lambda x, w, p: -x,
    "identity": lambda x, w, p: x,
}


@pytest.mark.parametrize("nlf", list(NLFS))
def test_every_function_is_its_formula_and_uses_what_it_says(nlf):
    assert set(FORMULAS) == set(NLFS)
    x = torch.linspace(-3, 3, 48, dtype=torch.float64).view(1, 4, 12, 1)
    omega, phi = torch.tensor([1.2, 1.9], dtype=torch.float64), torch.tensor([0.3, -2.0], dtype=torch.float64)

    def run(omega, phi):
        return group_nl_reference(x, omega, phi, nlf_groups=2, out_channels=8, nlf=nlf)[:, 4:].numpy()

    w, p = (v.repeat_interleave(2).view(1, 4, 1, 1).numpy() for v in (omega, phi))
    np.testing.assert_allclose(run(omega, phi), FORMULAS[nlf](x.numpy(), w, p), atol=1e-12)
    for name, changed in (("omega", run(omega + 0.1, phi)), ("phi", run(omega, phi + 0.1))):
        assert (np.abs(changed - run(omega, phi)).max() > 1e-3) == (name in NLFS[nlf].uses)


def test_l2_normalize_has_unit_length_and_is_safe_at_zero():
    x = torch.randn(2, 8, 3, 3, requires_grad=True)
    torch.testing.assert_close(l2_normalize(x), F.normalize(x, dim=1))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        zero = torch.zeros(1, 8, 2, 2, dtype=dtype, requires_grad=True)
        out = l2_normalize(zero)
        assert out.dtype == dtype
        out.float().sum().backward()
        assert (out == 0).all()
        assert torch.isfinite(zero.grad).all()
    big = torch.full((1, 512, 1, 1), 300.0, dtype=torch.float16)  # the sum of squares overflows half precision
    torch.testing.assert_close(l2_normalize(big).float().norm(), torch.tensor(1.0), rtol=2e-3, atol=0)


def test_l2_gradient_agrees_with_the_plain_form():
    a = torch.randn(2, 8, 3, 3, requires_grad=True)
    b = a.detach().clone().requires_grad_(True)
    weight = torch.randn(2, 8, 3, 3)
    (l2_normalize(a) * weight).sum().backward()
    (F.normalize(b, dim=1) * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_channel_shuffle_deals_channels_to_groups():
    x = torch.arange(6.0).view(6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    torch.testing.assert_close(channel_shuffle(x, 2), F.channel_shuffle(x[None], 2)[0])
    module = layer(groups=4, shuffle=True)
    plain = layer(groups=4)
    plain.load_state_dict(module.state_dict())
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(module(x), plain(channel_shuffle(x, 4)))


@pytest.mark.parametrize("case", ["dense_r4", "dense_fig2_g2_r4"])
def test_reference_variant_loads_public_keys_and_gives_the_public_output(case):
    c_in, c_out, c_seed, k, g = (int(v) for v in GOLDEN[f"{case}.args"])
    state = {
        "conv1.weight": torch.from_numpy(GOLDEN[f"{case}.weight"]),
        "periods": torch.from_numpy(GOLDEN[f"{case}.periods"]),
        "shifts": torch.from_numpy(GOLDEN[f"{case}.shifts"]),
    }
    module = GroupNLConv2d(c_in, c_out, k, padding=1, seed_channels=c_seed, nlf_groups=g, variant="reference")
    assert set(module.state_dict()) == set(state)
    module.load_state_dict(state)
    out = module(torch.from_numpy(GOLDEN[f"{case}.input"]))
    np.testing.assert_allclose(out.detach().numpy(), GOLDEN[f"{case}.output"], atol=3e-6)
    for name, value in module.to(torch.float32).state_dict().items():
        assert torch.equal(value, state[name])  # bit for bit, also after the module was moved
    again = GroupNLConv2d(c_in, c_out, k, padding=1, seed_channels=c_seed, nlf_groups=g, variant="reference", seed=1)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again.phi, module.phi)
    copied = copy.deepcopy(module)
    assert torch.equal(copied.omega, module.omega)


def test_reference_variant_draws_its_shifts_from_the_period_range():
    module = layer(variant="reference", omega_range=(1, 2), phi_range=(50, 60))
    assert module.normalize == "l2"
    assert ((module.phi > -2) & (module.phi <= -1)).all()
    with pytest.raises(RuntimeError, match="periods and shifts must hold 4 numbers"):
        module.load_state_dict({**module.state_dict(), "periods": torch.ones(3)})
    with pytest.raises(RuntimeError, match="shifts"):
        module.load_state_dict({name: v for name, v in module.state_dict().items() if name != "shifts"})


def test_seed_alone_decides_the_fixed_numbers():
    a, b, other = layer(seed=5), layer(seed=5), layer(seed=6)
    assert torch.equal(a.omega, b.omega)
    assert torch.equal(a.phi, b.phi)
    assert not torch.equal(a.omega, other.omega)
    assert a.omega.shape == a.phi.shape == (4,)


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ({"omega_range": (3, 4)}, "omega"),
        ({"phi_range": (-2, -1)}, "phi"),
    ],
)
def test_each_range_moves_its_own_numbers_and_stays_inside(option, changed):
    before, after = layer(), layer(**option)
    ((low, high),) = option.values()
    values = getattr(after, changed)
    assert ((values >= low) & (values < high)).all()
    other = {"omega": "phi", "phi": "omega"}[changed]
    assert torch.equal(getattr(before, other), getattr(after, other))
    assert not torch.allclose(before(torch.ones(1, 8, 4, 4)), after(torch.ones(1, 8, 4, 4)))


@pytest.mark.parametrize(
    "option",
    [
        {"reduction_ratio": 4},
        {"seed_channels": 4},
        {"nlf_groups": 2},
        {"nlf": "abs"},
        {"nlf": "identity"},
        {"sparse": True},
        {"groups": 2},
        {"groups": 2, "shuffle": True},
        {"normalize": "batch"},
        {"normalize": "l2"},
        {"variant": "reference"},
        {"bias": True},
        {"dilation": 2, "padding": 2},
        {"padding_mode": "circular"},
        {"seed": 9},
    ],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 8, 6, 6)
    base, changed = layer(), layer(**option)
    if {name: p.shape for name, p in base.named_parameters()} != {n: p.shape for n, p in changed.named_parameters()}:
        return
    with torch.no_grad():
        changed.weight.copy_(base.weight)
    assert not torch.allclose(base(x), changed(x))


def test_sparse_takes_the_greatest_common_divisor():
    assert layer(in_channels=12, out_channels=16, sparse=True).conv_groups == 4
    assert layer(in_channels=12, out_channels=16, sparse=True).weight.shape == (8, 3, 3, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed_channels": 6}, ["seed_channels", "6", "nlf_groups", "4"]),
        ({"seed_channels": 20}, ["seed_channels", "20", "out_channels", "16"]),
        ({"out_channels": 0}, ["out_channels", "0", "positive"]),
        ({"reduction_ratio": 0}, ["reduction_ratio", "0"]),
        ({"nlf": "cosine"}, ["nlf", "cosine", "sine"]),
        ({"normalize": "layer"}, ["normalize", "layer", "batch"]),
        ({"groups": 3}, ["in_channels", "8", "groups", "3"]),
        ({"groups": 2, "sparse": True}, ["groups", "2", "sparse"]),
        ({"omega_range": (2, 1)}, ["omega_range", "(2, 1)"]),
        ({"phi_range": (1, float("nan"))}, ["phi_range", "nan"]),
        ({"variant": "public"}, ["variant", "public", "reference"]),
        ({"variant": "reference", "normalize": "batch"}, ["normalize", "batch", "l2"]),
        ({"variant": "reference", "nlf": "abs"}, ["nlf", "abs", "sine"]),
        ({"nlf": "monomial", "omega_range": (0.5, 2)}, ["omega_range", "(0.5, 2)", "1"]),
        ({"seed": -1}, ["seed", "-1", "2**64"]),
        ({"seed": 2**64}, ["seed", "2**64"]),
        ({"stride": 0}, ["stride", "0"]),
        ({"kernel_size": (3, 3, 3)}, ["kernel_size", "(3, 3, 3)"]),
        ({"padding_mode": "mirror"}, ["padding_mode", "mirror"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)


def test_fixed_numbers_are_out_of_reach():
    module = layer(normalize="batch")
    assert set(dict(module.named_parameters())) == {"weight", "norm.weight", "norm.bias"}
    assert not any(name.endswith(("omega", "phi")) for name, _ in module.named_buffers())
    module.requires_grad_(True)
    assert not module.omega.requires_grad
    assert not module.phi.requires_grad


def test_state_dict_holds_weights_and_the_seed_and_moves_between_layers():
    source, target = layer(seed=2**64 - 3), layer(seed=1)
    assert set(source.state_dict()) == {"weight", "seed"}
    target.load_state_dict(source.state_dict())
    assert target.seed == 2**64 - 3
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(source(x), target(x))


def test_state_dict_without_a_seed_or_with_a_wrong_one_is_refused():
    module = layer()
    state = module.state_dict()
    with pytest.raises(RuntimeError, match="seed"):
        module.load_state_dict({"weight": state["weight"]})
    with pytest.raises(RuntimeError, match="one int64"):
        module.load_state_dict({**state, "seed": torch.zeros(2, dtype=torch.int64)})


def test_save_and_load_without_pickle():
    module = nn.Sequential(layer(seed=7, normalize="batch"), nn.ReLU())
    again = nn.Sequential(layer(normalize="batch"), nn.ReLU())
    again.load_state_dict(load(save(module.state_dict())))
    assert again[0].seed == 7
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    again.load_state_dict(torch.load(buffer, weights_only=True))


def test_deepcopy_is_independent_and_equal():
    module = layer(normalize="batch").eval()
    other = copy.deepcopy(module)
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(module(x), other(x))
    with torch.no_grad():
        other.weight.add_(1)
    assert not torch.equal(module(x), other(x))


def test_channels_last_in_channels_last_out():
    for options in (
        {},
        {"reduction_ratio": 4},
        {"normalize": "batch"},
        {"normalize": "l2"},
        {"groups": 2, "shuffle": True},
    ):
        x = torch.rand(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
        out = layer(**options)(x)
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, layer(**options)(x.contiguous()))


def test_autocast_keeps_the_low_precision_dtype():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer()(torch.rand(2, 8, 6, 6)).dtype == torch.bfloat16


def test_conversion_to_half_precision_keeps_the_fixed_numbers():
    module = layer()
    before = module.omega.clone()
    module.to(torch.bfloat16)
    assert module.omega.dtype == torch.float32
    assert torch.equal(module.omega, before)
    assert module(torch.rand(1, 8, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_built_on_meta_and_materialised():
    module = layer(device="meta", seed=3).to_empty(device="cpu")
    assert torch.equal(module.omega, layer(seed=3).omega)


def test_compile_without_graph_breaks_and_export():
    module = layer(normalize="batch").eval()
    x = torch.rand(2, 8, 6, 6)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    exported = torch.export.export(module, (x,))
    torch.testing.assert_close(exported.module()(x), module(x))


def test_repr_names_what_matters():
    text = repr(layer(seed=255, sparse=True, bias=True))
    for word in ("8, 16", "seed_channels=8", "0x00000000000000ff", "groups=8", "bias=True", "nlf=sine"):
        assert word in text
