"""What changes a network's function from outside its modules' code is refused, or becomes numbers."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import ExportError
from seedcnn.export import fold
from seedcnn.layers import GroupNLConv2d
from tests.export.alike import SIZE, around, conv, settled
from tests.export.alike import apart as difference


def network():
    torch.manual_seed(0)
    model = settled(around(nn.BatchNorm2d(8), conv(), nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8)))
    convert_(model, GroupNLConfig(), filter_fn=lambda module, name: name == "2")
    return settled(model)


def clip(module, args, output):
    return output.clamp(max=0.3)


def double(module, args):
    return (2 * args[0],)


@pytest.mark.parametrize("where", ["", *map(str, range(7)), "2.norm"])
def test_a_forward_hook_anywhere_is_refused_by_name(where):
    model = network()
    handle = model.get_submodule(where).register_forward_hook(clip)
    with pytest.raises(ExportError, match=rf"^{where or 'the network'} \(\w+\) has the forward hook clip, which"):
        fold(model)
    handle.remove()
    fold(model)


@pytest.mark.parametrize("where", ["", "0", "2"])
def test_a_forward_pre_hook_is_refused_by_name(where):
    model = network()
    model.get_submodule(where).register_forward_pre_hook(functools.partial(double))
    with pytest.raises(ExportError, match=rf"^{where or 'the network'} \(\w+\) has the forward pre-hook double, which"):
        fold(model)


def test_a_hook_on_a_wrapper_is_refused():
    wrapped = nn.DataParallel(network())
    wrapped.register_forward_hook(clip)
    with pytest.raises(ExportError, match=r"the network \(DataParallel\) has the forward hook clip"):
        fold(wrapped)


@pytest.mark.parametrize(
    ("register", "hook"), [(register_module_forward_hook, clip), (register_module_forward_pre_hook, double)]
)
def test_a_global_hook_is_refused_by_name(register, hook):
    model = network()
    handle = register(hook)
    try:
        with pytest.raises(ExportError, match=rf"torch calls the hook {hook.__name__} around every module"):
            fold(model)
    finally:
        handle.remove()


@pytest.mark.parametrize("where", ["0", "1", "2", "2.norm"])
def test_a_forward_set_on_an_instance_is_refused_by_name(where):
    model = network()
    module = model.get_submodule(where)
    original = module.forward
    module.forward = lambda x: -original(x)
    with pytest.raises(ExportError, match=rf"^{where} \(\w+\) has a `forward` of its own"):
        fold(model)


def test_backward_hooks_pass_and_are_not_copied():
    class Trainer:
        """Something that cannot be copied, as trainers with loggers and locks cannot."""

        def __deepcopy__(self, memo):
            raise AssertionError("the trainer was copied")

        def note(self, *_):
            return None

    model, x = network(), torch.randn(2, *SIZE)
    model[2].register_full_backward_hook(Trainer().note)
    model[0].register_full_backward_pre_hook(Trainer().note)
    model[0].weight.register_hook(Trainer().note)
    with torch.no_grad():
        assert difference(fold(model)(x), model(x)) < 1e-5


def pruned(module):
    prune.l1_unstructured(module, "weight", 0.5)
    prune.random_unstructured(module, "bias", 0.5)
    return prune.ln_structured(module, "weight", 0.25, n=2, dim=0)


def pruned_direction(module):
    weight_norm(module)
    return prune.l1_unstructured(module, "weight_v", 0.5)


COMPUTED = {
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
    "pruning": pruned,
    "pruning inside weight norm": pruned_direction,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_leave_as_numbers(name, trained):
    torch.manual_seed(0)
    wrap, layer = COMPUTED[name], GroupNLConv2d(8, 8, 3, padding=1, bias=True, seed=5)
    model = around(wrap(conv()), nn.BatchNorm2d(8), nn.ReLU(), wrap(layer), nn.BatchNorm2d(8))
    wrap(model[-1])
    settled(model)
    x = torch.randn(2, *SIZE)
    if trained:  # the computed weights are now results of autograd, of the weights before the step
        model.train()(x).square().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0 if parameter.grad is None else 0.01 * parameter.grad
    state = {key: value.clone() for key, value in model.state_dict().items()}
    mode = [module.training for module in model.modules()]
    folded = fold(model)
    assert [module.training for module in model.modules()] == mode
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    names = {key.rpartition(".")[2] for key, _ in folded.named_parameters()}
    assert names <= {"weight", "bias", "omega", "phi", "scale", "shift"}
    model.eval()
    with torch.no_grad():
        for _ in range(2):  # torch's hooks compute some weights from those of the call before
            wanted = model(x)
        assert difference(folded(x), wanted) < 1e-5
    model.train()(x).sum().backward()  # the network still trains


def test_one_parameter_behind_two_parametrizations():
    first, second = parametrizations.spectral_norm(conv()), conv()
    second.weight = first.parametrizations.weight.original
    model = settled(around(first, parametrizations.spectral_norm(second)))
    x = torch.randn(2, *SIZE)
    with torch.no_grad():
        assert difference(fold(model)(x), model(x)) < 1e-5


def test_a_weight_that_is_a_plain_tensor():
    layer = conv()
    weight = layer.weight.detach() * 2
    del layer.weight
    layer.weight = weight
    model, x = settled(around(layer, nn.BatchNorm2d(8))), torch.randn(2, *SIZE)
    folded = fold(model)
    assert "1.weight" in dict(folded.named_parameters())
    with torch.no_grad():
        assert difference(folded(x), model(x)) < 1e-5


def test_wrappers_at_any_depth_are_taken_off():
    model, x = network(), torch.randn(2, *SIZE)
    names = list(dict(fold(model).named_parameters()))
    with torch.no_grad():
        wanted = model(x)
        model[2] = torch.compile(model[2], backend="eager")
        model[5] = nn.DataParallel(model[5])
        folded = fold(torch.compile(nn.DataParallel(model), backend="eager"))
        assert difference(folded(x), wanted) < 1e-5
    assert list(dict(folded.named_parameters())) == names
    assert isinstance(model[5], nn.DataParallel)


def test_modules_compiled_in_place_fold_as_they_are():
    model, x = network(), torch.randn(2, *SIZE)
    with torch.no_grad():
        wanted = model(x)
        model[0].compile(backend="eager")
        model.compile(backend="eager")
        assert difference(fold(model)(x), wanted) < 1e-5


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.LazyConv2d(4, 3)), "0.weight has no shape yet; run the network once first"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, device="meta")), "0.weight is on the meta device and has no values"),
    ],
)
def test_networks_without_numbers_are_refused(model, words):
    with pytest.raises(ExportError, match=words):
        fold(model)


def test_a_network_that_cannot_be_copied_is_refused():
    model = network()
    model.handle = (each for each in ())
    with pytest.raises(ExportError, match="Sequential cannot be copied: cannot pickle 'generator' object"):
        fold(model)
