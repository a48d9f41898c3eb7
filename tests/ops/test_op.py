"""The operator against the readable reference: outputs, gradients, kept tensors, and torch's own checks."""

from __future__ import annotations

import pytest
import torch

from seedcnn.ops.group_nl import NLFS, group_nl, group_nl_reference
from seedcnn.ops.group_nl import op as operator

# c_seed, out_channels, nlf_groups
SPLITS = [(3, 6, 1), (8, 16, 4), (8, 32, 2), (4, 7, 2), (4, 10, 4), (1, 3, 1)]
OUTPUT = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 0, torch.float16: 0}
GRADIENT = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
every_nlf = pytest.mark.parametrize("nlf", list(NLFS))
both_layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])


def case(split, dtype=torch.float32, channels_last=False, batch=2, size=(5, 3)):
    """Seeds, omega, phi and the keywords."""
    c, out_channels, groups = split
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randn(batch, c, *size, generator=generator, dtype=torch.float64).to(dtype)
    if channels_last:
        seeds = seeds.contiguous(memory_format=torch.channels_last)
    count = groups * (-(-out_channels // c) - 1)
    omega, phi = torch.rand(count, generator=generator) + 1, 4 * torch.rand(count, generator=generator) + 1
    return seeds.requires_grad_(), omega, phi, {"nlf_groups": groups, "out_channels": out_channels}


def answer(function, arguments, **options):
    """The output and the gradient with respect to the seeds, for a fixed gradient of the output."""
    seeds, omega, phi, how = arguments
    seeds = seeds.detach().requires_grad_()
    out = function(seeds, omega, phi, **how, **options)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    out.backward(grad)
    return out.detach(), seeds.grad


def compare(arguments, nlf="sine", **options):
    dtype = arguments[0].dtype
    found, expected = answer(group_nl, arguments, nlf=nlf, **options), answer(group_nl_reference, arguments, nlf=nlf)
    assert found[0].dtype == dtype
    torch.testing.assert_close(found[0], expected[0], rtol=OUTPUT[dtype], atol=OUTPUT[dtype])
    torch.testing.assert_close(found[1], expected[1], rtol=GRADIENT[dtype], atol=GRADIENT[dtype])
    return found


@every_nlf
@pytest.mark.parametrize("dtype", list(OUTPUT), ids=str)
@both_layouts
def test_every_function_in_every_precision(nlf, dtype, channels_last):
    for split in SPLITS:
        compare(case(split, dtype, channels_last), nlf)
        compare(case(split, dtype, channels_last), nlf, save="seeds")


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 17)], ids=str)
@both_layouts
def test_sizes_and_layouts(split, size, channels_last):
    found, grad = compare(case(split, channels_last=channels_last, size=size))
    # One channel is in both memory formats at once.
    memory = torch.channels_last if channels_last and split[0] > 1 else torch.contiguous_format
    assert found.is_contiguous(memory_format=memory)
    assert grad.is_contiguous(memory_format=memory)


@both_layouts
def test_more_than_one_piece(channels_last):
    compare(case((16, 64, 4), channels_last=channels_last, batch=3, size=(96, 128)))
    compare(case((16, 60, 4), channels_last=channels_last, batch=3, size=(96, 128)))


def test_strided_seeds_no_pictures_and_no_batch():
    seeds, omega, phi, how = case((8, 32, 2), size=(6, 8))
    compare((seeds.detach()[:, :, ::2, 1:], omega, phi, how))
    compare((seeds.detach().transpose(2, 3), omega, phi, how))
    compare((seeds.detach()[0], omega, phi, how))
    compare((seeds.detach()[:0], omega, phi, how))


def test_a_gradient_that_is_one_number_everywhere():
    seeds, omega, phi, how = case((4, 12, 2))
    (expected,) = torch.autograd.grad(group_nl_reference(seeds, omega, phi, **how).sum(), seeds)
    (found,) = torch.autograd.grad(group_nl(seeds, omega, phi, **how).sum(), seeds)
    torch.testing.assert_close(found, expected)


@every_nlf
@pytest.mark.parametrize("split", [(2, 6, 2), (2, 5, 1)], ids=str)
@pytest.mark.parametrize("save", ["output", "seeds"])
def test_gradcheck(nlf, split, save):
    seeds, omega, phi, how = case(split, torch.float64, size=(2, 3))
    assert torch.autograd.gradcheck(lambda x: group_nl(x, omega, phi, nlf=nlf, save=save, **how), (seeds,))
    if nlf in ("sine", "gaussian"):  # those that have a second derivative everywhere
        assert torch.autograd.gradgradcheck(lambda x: group_nl(x, omega, phi, nlf=nlf, save=save, **how), (seeds,))


@every_nlf
def test_derivative_is_what_autograd_finds_also_at_the_kinks(nlf):
    x = torch.tensor([-2.0, -1.5, -0.3, 0.0, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    omega, phi = (torch.tensor(v, dtype=torch.float64) for v in (1.5, 1.5))
    (expected,) = torch.autograd.grad(NLFS[nlf].function(x, omega, phi).sum(), x)
    torch.testing.assert_close(NLFS[nlf].derivative(x.detach(), omega, phi), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype):
    seeds, omega, phi, how = case((8, 32, 4), dtype)
    exact = group_nl_reference(seeds.detach().double(), omega, phi, **how).to(dtype)
    for function in (group_nl, group_nl_reference):
        found = function(seeds.detach(), omega, phi, **how)
        assert float((found.float() - exact.float()).abs().max()) <= torch.finfo(dtype).eps
        assert float((found != exact).float().mean()) < 0.01  # float32 and float64 are on different sides of a tie


@pytest.mark.parametrize(("save", "extra"), [("output", 0), ("seeds", 2 * 8 * 15 * 4)])
def test_what_is_kept_beyond_the_output(save, extra):
    seeds, omega, phi, how = case((8, 32, 4))
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = group_nl(seeds * 1.0, omega, phi, save=save, **how)
    known = {tensor.untyped_storage().data_ptr() for tensor in (maps, omega, phi)}
    assert sum(size for place, size in kept.items() if place not in known) == extra
    assert (maps.untyped_storage().data_ptr() in kept) == (save == "output")


def test_changed_in_place_is_an_error_or_allowed():
    seeds, omega, phi, how = case((4, 8, 2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        group_nl(seeds, omega, phi, **how).relu_().sum().backward()
    found = torch.autograd.grad(group_nl(seeds, omega, phi, save="seeds", **how).relu_().sum(), seeds)
    torch.testing.assert_close(
        found, torch.autograd.grad(group_nl_reference(seeds, omega, phi, **how).relu().sum(), seeds)
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck itself
@pytest.mark.parametrize("split", [(4, 8, 2), (4, 11, 4)], ids=str)
@both_layouts
def test_torch_finds_the_operators_well_formed(split, channels_last):
    seeds, omega, phi, how = case(split, channels_last=channels_last)
    for save_seeds in (False, True):
        torch.library.opcheck(operator._forward, (seeds, omega, phi, split[2], split[1], "sine", save_seeds))
    maps = group_nl(seeds, omega, phi, **how).detach()
    for kept in (maps, seeds.detach()):
        torch.library.opcheck(
            operator._backward, (torch.randn_like(maps), kept, omega, phi, split[2], split[0], "sine")
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nlf_groups": 3}, r"`nlf_groups` \(=3\) must divide the 4 channels"),
        ({"out_channels": 3}, r"`out_channels` \(=3\) must not be below the 4"),
        ({"out_channels": 12}, r"`omega` \(of shape \(2,\)\) must hold 4 numbers"),
        ({"nlf": "cosine"}, r"`nlf` \(='cosine'\) must be one of 'sine'"),
        ({"save": "nothing"}, r"`save` \(='nothing'\) must be one of 'output', 'seeds'"),
        ({"seeds": torch.zeros(2, 4)}, r"`seeds` \(of shape \(2, 4\)\) must be"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(change, words):
    seeds, omega, phi, how = case((4, 8, 2))
    options = {"seeds": seeds, "omega": omega, "phi": phi, **how, **change}
    with pytest.raises(ValueError, match=words):
        group_nl(**options)
