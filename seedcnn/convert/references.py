"""Second ways to a module or a parameter besides its registered place: ties, lists, partials, closures."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from seedcnn.convert.tracing import copy_without_weights, image_sizes

__all__ = ["exchange_references", "tied_parameters", "uncalled"]

_OWN = {"_parameters", "_buffers", "_modules"}  # what named_modules and state_dict see
_DEPTH, _MOST = 8, 50_000  # how deep, and how many objects, attributes are searched
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, torch.Tensor)


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
    exchange = _Exchange(new_of, known)
    for module in list(model.modules()):
        for key, value in list(vars(module).items()):
            if key not in _OWN and not key.endswith("_hooks"):
                found = exchange.of(value)
                if found is not value:
                    vars(module)[key] = found


class _Exchange:
    """One walk through what attributes hold; containers change in place where they can."""

    def __init__(self, new_of: Mapping[int, nn.Module], known: set[int]) -> None:
        self.new_of, self.seen = new_of, set(known)
        self.alive: list[Any] = []  # so that no address is used twice

    def of(self, value: Any, depth: int = 0) -> Any:
        """Return the value to hold instead of ``value``; containers that can change stay and change inside."""
        if id(value) in self.new_of:
            return self.new_of[id(value)]
        if depth > _DEPTH or len(self.seen) > _MOST or id(value) in self.seen or isinstance(value, _ATOMS):
            return value
        self.seen.add(id(value))
        self.alive.append(value)
        return self._inside(value, depth + 1)

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            self._items(value, list(value.items()), depth)
        elif isinstance(value, list | deque):
            self._items(value, list(enumerate(value)), depth)
        elif isinstance(value, set):
            changed = [(each, new) for each in value if (new := self.of(each, depth)) is not each]
            value.difference_update(each for each, _ in changed)
            value.update(new for _, new in changed)
        elif isinstance(value, tuple | frozenset):
            parts = [self.of(each, depth) for each in value]
            if any(new is not each for new, each in zip(parts, value, strict=True)):
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        elif isinstance(value, functools.partial):
            return self._partial(value, depth)
        elif isinstance(value, types.MethodType):
            owner = self.of(value.__self__, depth)
            return value if owner is value.__self__ else getattr(owner, value.__name__, value)
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        else:
            self._items(getattr(value, "__dict__", {}), list(getattr(value, "__dict__", {}).items()), depth)
        return value

    def _items(self, container: Any, items: list[tuple[Any, Any]], depth: int) -> None:
        for key, each in items:
            if (new := self.of(each, depth)) is not each:
                container[key] = new

    def _partial(self, value: functools.partial[Any], depth: int) -> Any:
        func = self.of(value.func, depth)
        args = [self.of(each, depth) for each in value.args]
        keywords = {key: self.of(each, depth) for key, each in value.keywords.items()}
        olds, news = [value.func, *value.args, *value.keywords.values()], [func, *args, *keywords.values()]
        changed = any(new is not old for new, old in zip(news, olds, strict=True))
        return functools.partial(func, *args, **keywords) if changed else value

    def _function(self, value: types.FunctionType, depth: int) -> None:
        for cell in value.__closure__ or ():
            try:
                each = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if (new := self.of(each, depth)) is not each:
                cell.cell_contents = new
        if value.__defaults__:
            value.__defaults__ = tuple(self.of(each, depth) for each in value.__defaults__)


class _Probe(nn.Module):
    """Stands in a convolution's place and counts its calls."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.calls = body, 0

    def forward(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return self.body(*args, **options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("body"), name)  # a network may ask for out_channels or weight


def uncalled(model: nn.Module, names: list[str]) -> set[str]:
    """Find the modules that a forward pass calls on another way than through their registered places.

    A copy of the model on the meta device runs twice, the second time with other modules in these places.

    Args:
        names: qualified names of convolutions.

    Returns:
        Names whose stand-in was not called as often as the module itself; nothing if the model cannot run there.
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
        return {name for name in names if probes[name].calls < calls[name]}
    return set()


def _runs(network: nn.Module, size: tuple[int, int, int]) -> bool:
    try:
        with torch.no_grad():
            network(torch.empty(2, *size, device="meta"))
    except Exception:  # the size does not fit, or the code looks at numbers
        return False
    return True
