"""Which norm reads which convolution, seen in a forward pass: for modules whose code cannot be traced."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seedcnn.layers import ConvLayer
from seedcnn.layers.forms import is_affine
from seedcnn.layers.low_pass import plain_type

__all__ = ["watched_norms"]


class _Watch(TorchDispatchMode):
    """Records who reads the outputs of convolutions, and whether anybody else reads the tensors of watched modules."""

    def __init__(self, watched: dict[str, nn.Module]) -> None:
        super().__init__()
        self.owners = {id(value): name for name, module in watched.items() for value in _tensors_of(module)}
        self.running: list[str] = []
        self.calls: Counter[str] = Counter()
        self.made: dict[int, str] = {}
        self.readers: dict[str, set[str]] = {}
        self.spoiled: set[str] = set()
        self.alive: list[Tensor] = []  # so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read((args, kwargs))
        return func(*args, **(kwargs or {}))

    def read(self, values: Any) -> None:
        """Note the reader of all tensors in nested containers."""
        for value in tree_leaves(values):
            if (owner := self.owners.get(id(value))) is not None and owner not in self.running:
                self.spoiled.add(owner)
            if (conv := self.made.get(id(value))) is not None:
                self.readers[conv].add(self.running[-1] if self.running else "")

    def enter(self, name: str) -> None:
        """A watched module is called."""
        self.calls[name] += 1
        self.running.append(name)

    def leave(self, name: str, output: Any) -> None:
        """A watched module has answered."""
        self.running.pop()
        if isinstance(output, Tensor):
            self.made[id(output)] = name
            self.readers[name] = set()
            self.alive.append(output)


def _tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def watched_norms(network: nn.Module, input_size: tuple[int, int, int]) -> tuple[dict[str, str], set[str]]:
    """Run a network once, and return the norm that is the only reader of a convolution's output, by their names.

    Both are called once, have one name each, and nothing else reads their tensors. This holds for inputs of the given
    size: code that looks at shapes may do something else for other sizes.

    Args:
        network: in eval mode on the CPU, in float32; it is not changed.
        input_size: channels, height, width.

    Returns:
        Qualified name of an ``nn.Conv2d`` or of a layer of this package -> name of the norm; and the names of the
        layers and norms whose tensors other code reads. Both are empty if the network cannot take such an input.
    """
    names = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    watched = {
        name: module
        for name, module in network.named_modules()
        if (plain_type(module) is nn.Conv2d or isinstance(module, ConvLayer) or is_affine(module))
        and names[id(module)] == 1
    }
    watch = _Watch(watched)
    handles = []
    for name, module in watched.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: watch.enter(name)))
        handles.append(module.register_forward_hook(lambda *call, name=name: watch.leave(name, call[2])))
    noise = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), watch:
            output = network(noise)
        watch.read(output)
    except Exception:  # the network's own code may raise anything
        return {}, set()
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for conv, readers in watch.readers.items():
        norm = next(iter(readers)) if len(readers) == 1 else ""
        follows = norm and is_affine(watched[norm]) and not is_affine(watched[conv])
        if follows and watch.calls[conv] == watch.calls[norm] == 1 and not watch.spoiled & {conv, norm}:
            found[conv] = norm
    return found, watch.spoiled
