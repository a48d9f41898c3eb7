"""Copies of networks that stand alone: without wrappers, and with numbers in place of what hooks compute."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from seedcnn.convert.copies import copy_model
from seedcnn.convert.given import inner_module, unwrapped
from seedcnn.errors import ExportError
from seedcnn.layers import ConvLayer

__all__ = ["standalone"]

_COMPUTED = (WeightNorm, SpectralNorm, BasePruningMethod)  # torch's own pre-hooks, which compute a weight from others
_LEFT_BY_HOOKS = ("_g", "_v", "_u", "_orig", "_mask")
# They have no part in a forward pass, and may refer to whole trainers.
_IDLE_HOOKS = ("_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks")
_REMEDY = "remove it, or move its work into the network's own code"


def _refuse_hooks(model: nn.Module) -> None:
    """Refuse a network whose function depends on more than its modules' own code.

    Forward hooks and pre-hooks change the function, or may; the hooks of torch's weight norm, spectral norm and pruning
    are known. Backward hooks pass.

    Raises:
        ExportError: naming the module and the hook.
    """
    for kind in ("forward_hooks", "forward_pre_hooks"):
        if found := list(getattr(torch_module, f"_global_{kind}").values()):
            raise ExportError(f"torch calls the hook {_title(found[0])} around every module (a global hook): {_REMEDY}")
    for name, module in model.named_modules():
        where = f"{name or 'the network'} ({type(module).__name__})"
        for hook in module._forward_hooks.values():
            raise ExportError(f"{where} has the forward hook {_title(hook)}, which folding would lose: {_REMEDY}")
        for hook in module._forward_pre_hooks.values():
            if not isinstance(hook, _COMPUTED):
                raise ExportError(
                    f"{where} has the forward pre-hook {_title(hook)}, which folding would lose: {_REMEDY}"
                )
        replaced = isinstance(module, (nn.Conv2d, ConvLayer, nn.modules.batchnorm._NormBase, nn.Identity))
        if replaced and "forward" in vars(module):
            raise ExportError(
                f"{where} has a `forward` of its own, set on the instance, which folding would lose: {_REMEDY}"
            )


def _title(hook: Any) -> str:
    inner = getattr(hook, "func", hook)  # of a functools.partial
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))


def standalone(model: nn.Module) -> nn.Module:
    """Copy the network inside ``model`` to the CPU, in float32 and eval mode; the model is not changed.

    Weights that torch's weight norm, spectral norm, pruning or a parametrization compute become ordinary parameters
    with their present values.

    Raises:
        ExportError: if a tensor has no values, a module has forward hooks, or the model cannot be copied.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise ExportError(f"{name} has no shape yet; run the network once first")
        if tensor.is_meta:
            raise ExportError(f"{name} is on the meta device and has no values")
    _refuse_hooks(model)
    network = unwrapped(model)
    try:
        copied = copy_model(network, _memo(network)).cpu().float().eval().to(memory_format=torch.contiguous_format)
    except Exception as error:  # attributes may be anything
        raise ExportError(f"{type(network).__name__} cannot be copied: {error}") from error
    for module in copied.modules():
        vars(module).pop("_compiled_call_impl", None)
    with torch.no_grad():
        _bake_parametrizations(copied)
        for module in copied.modules():
            _bake_hooks(module)
            _register_plain_weights(module)
    return copied


def _memo(network: nn.Module) -> dict[int, Any]:
    """Return what ``copy.deepcopy`` takes as copied: nothing for idle hooks, the insides of wrappers, plain tensors.

    ``copy.deepcopy`` refuses tensors that autograd computed, and no module moves its plain tensors along.
    """
    memo: dict[int, Any] = {}
    modules = list(network.modules())
    for module in modules:
        memo.update((id(hooks), OrderedDict()) for kind in _IDLE_HOOKS if (hooks := vars(module).get(kind)) is not None)
        plain = (value for value in _tensors(vars(module)) if not isinstance(value, nn.Parameter))
        memo.update((id(value), _moved(value)) for value in plain)
    for module in reversed(modules):
        if inner_module(module) is not None:
            memo[id(module)] = copy_model(unwrapped(module), memo)
    return memo


def _moved(value: Tensor) -> Tensor:
    """Copy a tensor to the CPU, floats in float32."""
    copied = value.detach().cpu()
    return copied.float().clone() if copied.is_floating_point() else copied.clone()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple, set)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)


def _bake_parametrizations(network: nn.Module) -> None:
    """Give parametrized tensors their present values.

    torch's ``remove_parametrizations`` would change the class that the copy shares with the user's module.
    """
    found = [module for module in network.modules() if is_parametrized(module)]
    values = [{name: getattr(m, name).detach().clone() for name in m.parametrizations} for m in found]  # type: ignore[union-attr]
    for module, tensors in zip(found, values, strict=True):
        module.__class__ = type_before_parametrizations(module)
        del module.parametrizations
        for name, value in tensors.items():
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _bake_hooks(module: nn.Module) -> None:
    """Give the tensors that torch's pre-hooks compute their present values, and remove the hooks."""
    hooks = {key: hook for key, hook in module._forward_pre_hooks.items() if isinstance(hook, _COMPUTED)}
    names = [str(h._tensor_name if isinstance(h, BasePruningMethod) else h.name) for h in hooks.values()]
    for hook in [*hooks.values()] * 2:  # the second round sees what the first one computed
        hook(module, ())
    values = {name: getattr(module, name).detach().clone() for name in names}
    for key in hooks:
        del module._forward_pre_hooks[key]
    for name, value in values.items():
        vars(module).pop(name, None)
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    for name in names:
        for end in _LEFT_BY_HOOKS:
            module._parameters.pop(name + end, None)
            module._buffers.pop(name + end, None)


def _register_plain_weights(module: nn.Module) -> None:
    """Make parameters of the tensors that stand in for the parameters of torch's own modules."""
    if not type(module).__module__.startswith("torch.nn."):
        return
    for name in [name for name, value in vars(module).items() if isinstance(value, Tensor)]:
        value = vars(module).pop(name)
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
