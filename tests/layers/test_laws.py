"""The laws that every layer family keeps."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from seedcnn.export import fold, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.layers import ConvLayer
from seedcnn.layers.low_pass import LowPassed
from seedcnn.runtime.session import open_session
from tests.layers.families import FAMILIES, FORMS, IN, OUT, build, fixed_numbers, is_seeded, settle

ROOT = Path(__file__).parents[2]
every_form = pytest.mark.parametrize("form", FORMS)
every_family = pytest.mark.parametrize("form", FAMILIES)


def maps(*shape, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), **kwargs)


def test_every_layer_is_in_the_list():
    assert {type(build(form)) for form in FAMILIES} == {layer for layer, _, _ in FORMS.values()}
    assert {layer.__name__ for layer, _, _ in FORMS.values()} == {kind.__name__ for kind in _leaves(ConvLayer)}


def _leaves(kind):
    """The classes of this package below ``kind``; other tests derive their own, and filters go before some."""
    own = [child for child in kind.__subclasses__() if child.__module__.startswith("seedcnn.")]
    children = [child for child in own if not issubclass(child, LowPassed)]
    return [leaf for child in children for leaf in _leaves(child)] if children else [kind]


@every_form
def test_gradients_agree_with_differences(form):
    module = settle(build(form, 4, 16).double())
    x = maps(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    # The offsets of a shift have a gradient by definition, not the derivative of a step function: see test_shift.
    values = {name: value for name, value in module.named_parameters() if not name.endswith("offsets")}

    def run(x, *tensors):
        return torch.func.functional_call(module, dict(zip(values, tensors, strict=True)), (x,))

    assert values
    assert torch.autograd.gradcheck(run, (x, *values.values()), fast_mode=True)


@every_form
def test_every_parameter_gets_a_finite_gradient(form):
    module = build(form)
    module(maps(2, IN, 5, 7)).square().sum().backward()
    for name, value in module.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert value.grad.abs().sum() > 0, name


@every_family
def test_compiles_without_graph_breaks(form):
    module = settle(build(form))
    x = maps(2, IN, 5, 7)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))


@every_family
def test_torch_export(form):
    module = settle(build(form))
    x = maps(2, IN, 5, 7)
    with torch.no_grad():
        exported = torch.export.export(module, (x,))
    torch.testing.assert_close(exported.module()(x), module(x))


@every_family
def test_onnx_runtime_gives_the_same_answers(form):
    model = settle(nn.Sequential(build(form), nn.BatchNorm2d(OUT), nn.ReLU()))
    x = maps(3, IN, 5, 7)
    exported = to_onnx(fold(model), (IN, 5, 7))
    session = open_session(exported.graph, {item.entry.name: item.expanded for item in encode_tensors(exported, None)})
    with torch.no_grad():
        expected = model(x).numpy()
    (answer,) = session.run(["logits"], {"image": x.numpy()})
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()
    assert bool(exported.seeded) == is_seeded(form)


@every_form
def test_channels_last_in_channels_last_out(form):
    module = settle(build(form))
    x = maps(2, IN, 5, 7)
    with torch.no_grad():
        y = module(x.contiguous(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, module(x), rtol=1e-4, atol=1e-5)


@every_form
def test_autocast_keeps_the_low_precision(form):
    module = settle(build(form))
    x = maps(2, IN, 5, 7)
    with torch.no_grad():
        full = module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = module(x)
    assert low.dtype == torch.bfloat16
    assert float((low.float() - full).abs().max()) < 0.05 * float(full.abs().max())


@every_form
def test_half_precision_module_keeps_its_fixed_numbers(form):
    module = settle(build(form))
    before = fixed_numbers(module)
    module.to(torch.bfloat16)
    after = fixed_numbers(module)
    assert bool(before) == is_seeded(form)
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        assert torch.equal(after[name], value)
    assert module(maps(2, IN, 5, 7).to(torch.bfloat16)).dtype == torch.bfloat16


@every_form
def test_unbatched_maps(form):
    module = settle(build(form))
    x = maps(2, IN, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(module(x[1]), module(x)[1], rtol=1e-4, atol=1e-5)


@every_form
def test_deepcopy_is_equal_and_independent(form):
    module = settle(build(form))
    other = copy.deepcopy(module)
    x = maps(2, IN, 5, 7)
    with torch.no_grad():
        assert torch.equal(module(x), other(x))
        for value in other.parameters():
            value.mul_(-2).sub_(1)
        assert not torch.allclose(module(x), other(x))


@every_form
def test_saved_and_loaded_without_pickle(form):
    source = settle(build(form, **({"seed": 2**64 - 3} if is_seeded(form) else {})))
    target = build(form).eval()
    for value in target.parameters():
        value.data.neg_().sub_(0.7)
    x = maps(2, IN, 5, 7)
    learned = set(dict(source.named_parameters())) | set(dict(source.named_buffers()))
    assert set(source.state_dict()) == (learned | {"seed"} if is_seeded(form) else learned)
    with torch.no_grad():
        assert not torch.equal(source(x), target(x))
        target.load_state_dict(load(save(source.state_dict())))
        assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("form", [form for form in FORMS if is_seeded(form)])
def test_fixed_numbers_are_out_of_reach(form):
    module = build(form, seed=5)
    before = {name: value.clone() for name, value in fixed_numbers(module).items()}
    other = fixed_numbers(build(form, seed=6))
    assert before
    assert any(not torch.equal(value, other[name]) for name, value in before.items())
    module.requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    weights = [value.detach().clone() for value in module.parameters()]
    module(maps(2, IN, 5, 7)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(weights, module.parameters(), strict=True))
    for name, value in fixed_numbers(module).items():
        assert not value.requires_grad
        assert torch.equal(value, before[name])


@every_form
def test_built_on_meta_and_materialised(form):
    module = build(form, device="meta")
    assert all(value.device.type == "meta" for value in module.parameters())
    expected = fixed_numbers(build(form))
    for name, value in fixed_numbers(module.to_empty(device="cpu")).items():
        assert torch.equal(value, expected[name])


@every_form
@pytest.mark.parametrize("pair", [(5, 7), (7, 5), (1, 2), (3, 30), (12, 4)], ids=str)
def test_any_channel_pair_works_or_is_refused_by_name(form, pair):
    try:
        module = build(form, *pair)
    except ValueError as error:
        assert re.search(r"`(in|out|seed)_(channels|filters)` \(=\d+\) must", str(error)), error  # noqa: PT017
        assert form.startswith(("groupnl", "cr gc", "mono")), error  # noqa: PT017
    else:
        assert settle(module)(maps(2, pair[0], 4, 3)).shape == (2, pair[1], 4, 3)


@every_form
@pytest.mark.parametrize(("pair", "words"), [((0, 4), "`in_channels` (=0)"), ((4, -1), "`out_channels` (=-1)")])
def test_channel_counts_that_are_none_are_refused_by_name(form, pair, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        build(form, *pair)


@pytest.mark.slow
def test_two_processes_exchange_the_learnable_parameters_and_nothing_fixed(tmp_path):
    """Real DDP over gloo; the work is in ddp_worker.py."""
    command = [sys.executable, "-m", "tests.layers.ddp_worker", str(tmp_path / "store")]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers = [worker.communicate(timeout=200) for worker in workers]
    for worker, (out, errors) in zip(workers, answers, strict=True):
        assert worker.returncode == 0, errors
        assert out.split() == ["checked", str(len(FAMILIES))]


@every_form
def test_numpy_s_integers_are_integers(form):
    layer, own, kernel = FORMS[form]
    own = {name: np.int64(value) if type(value) is int else value for name, value in own.items()}
    sizes = {"stride": np.int32(2), "padding": (np.int64(kernel // 2),) * 2, "dilation": np.int16(1)}
    torch.manual_seed(0)
    made = layer(np.int64(IN), np.int64(OUT), np.int64(kernel), **sizes, **own)
    torch.manual_seed(0)
    plain = build(form, stride=2)
    assert repr(made) == repr(plain)
    for module in made.modules():
        assert not any(isinstance(value, np.generic) for value in vars(module).values())
    torch.testing.assert_close(settle(made)(maps(1, IN, 8, 8)), settle(plain)(maps(1, IN, 8, 8)))


@every_family
@pytest.mark.parametrize(
    ("argument", "value"),
    [("kernel_size", 3.0), ("kernel_size", "3"), ("stride", 1.5), ("dilation", None), ("in_channels", 6.0)],
)
def test_what_is_no_integer_is_named(form, argument, value):
    layer, own, kernel = FORMS[form]
    arguments = {"in_channels": IN, "out_channels": OUT, "kernel_size": kernel, **own, argument: value}
    with pytest.raises(ValueError, match=re.escape(f"`{argument}` (={value!r}) must be")):
        layer(**arguments)


@pytest.mark.parametrize("form", [form for form in FORMS if is_seeded(form)])
def test_fixed_numbers_follow_the_input_of_a_replica(form):
    """A replica of DataParallel shares the first device's fixed numbers; the meta device stands for the second."""
    replica = copy.deepcopy(build(form))
    for part in replica.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.to("meta"))
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = buffer.to("meta")
    assert all(not value.is_meta for value in fixed_numbers(replica).values())
    assert replica(torch.zeros(2, IN, 8, 8, device="meta")).shape == (2, OUT, 8, 8)
