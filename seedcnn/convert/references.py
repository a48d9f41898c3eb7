"""Second ways to a module or a parameter besides its registered place: ties, lists, partials, closures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from seedcnn.convert._attributes import Exchange, exchange_attributes
from seedcnn.convert.copies import copy_without_weights
from seedcnn.convert.tracing import image_sizes

__all__ = ["exchange_references", "tied_parameters", "uncalled"]


def tied_parameters(model: nn.Module) -> dict[str, str]:
    """Find the parameters that have a second owner, or share memory with another parameter.

    Returns:
        Qualified name of a parameter -> that of another that is, or overlaps, the same tensor.
    """
    owners: dict[int, list[str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(f"{prefix}.{name}" if prefix else name)
                tensors[id(parameter)] = parameter
    tied: dict[str, str] = {}
    for names in owners.values():
        if len(names) > 1:
            tied |= {name: names[0] if name != names[0] else names[1] for name in names}
    ranges = sorted((*_memory(tensors[key]), names[0]) for key, names in owners.items() if _memory(tensors[key])[1])
    for (begin, end, name), (other_begin, _, other) in pairwise(ranges):
        if begin <= other_begin < end:
            tied.setdefault(name, other)
            tied.setdefault(other, name)
    return tied


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    """First and last address of a dense tensor's numbers; zeros where it has none."""
    if type(tensor) is not nn.Parameter or tensor.is_meta or not tensor.numel():
        return 0, 0
    begin = tensor.data_ptr()
    return begin, begin + tensor.numel() * tensor.element_size()


def exchange_references(model: nn.Module, new_of: Mapping[int, nn.Module]) -> None:
    """Let attributes that hold modules besides their registration hold others: in lists, dicts, partials, closures.

    Args:
        model: whose modules' attributes are searched; registered places are not touched.
        new_of: ``id`` of a module -> the module to hold instead.
    """
    known = {id(module) for module in model.modules()} - new_of.keys()
    exchange_attributes(model, Exchange(new_of, known))


class _Probe(nn.Module):
    """Stands in a convolution's place and counts its calls."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.calls, self.read = body, 0, False

    def forward(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return self.body(*args, **options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            body: Any = super().__getattr__("body")
            if name in body._parameters:  # for F.conv2d(x, self.conv.weight), say
                vars(self)["read"] = True
            return getattr(body, name)  # a network may ask for out_channels


def uncalled(model: nn.Module, names: list[str]) -> set[str]:
    """Find the modules that a forward pass calls on another way than through their registered places, or reads.

    A copy of the model on the meta device runs twice, the second time with other modules in these places.

    Args:
        names: qualified names of convolutions.

    Returns:
        Names whose stand-in was not called as often as the module itself, or whose parameters other code read; nothing
        if the model cannot run there.
    """
    try:
        network = copy_without_weights(model).eval()
    except Exception:  # a model that cannot be copied
        return set()
    convolutions = {name: network.get_submodule(name) for name in names}
    calls = dict.fromkeys(names, 0)

    def count(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:  # noqa: ARG001
            calls[name] += 1

        return hook

    for size in image_sizes(network, None):
        calls = dict.fromkeys(names, 0)
        handles = [conv.register_forward_pre_hook(count(name)) for name, conv in convolutions.items()]
        ran = _runs(network, size)
        for handle in handles:
            handle.remove()
        if not ran:
            continue
        probes = {name: _Probe(conv) for name, conv in convolutions.items()}
        new_of: dict[int, nn.Module] = {id(convolutions[name]): probe for name, probe in probes.items()}
        for name, probe in probes.items():
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, probe)
        exchange_references(network, new_of)
        if not _runs(network, size):
            return set()  # the network looks at its modules' types: nothing is certain
        return {name for name in names if probes[name].calls < calls[name] or probes[name].read}
    return set()


def _runs(network: nn.Module, size: tuple[int, int, int]) -> bool:
    try:
        with torch.no_grad():
            network(torch.empty(2, *size, device="meta"))
    except Exception:  # the size does not fit, or the code looks at numbers
        return False
    return True
