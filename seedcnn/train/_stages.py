"""The modules that end the stages of a network, and hooks that capture their maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.utils import unwrap_model
from torch import Tensor, nn

from seedcnn.errors import ConfigError, TrainingError, did_you_mean

__all__ = ["Tap", "listen", "probe", "stage_names", "tap_stages"]

_CHAINS = ("stages", "blocks", "features")


def _halves(module: nn.Module) -> bool:
    strides = (getattr(part, "stride", 1) for part in module.modules())
    return any(max(stride if isinstance(stride, tuple) else (stride,)) > 1 for stride in strides)


def _ends(chain: Iterable[tuple[str, nn.Module]]) -> tuple[str, ...]:
    """The last module of each map size: the module before a stride, if something learnable precedes it."""
    ends: list[str] = []
    learns, previous = False, ""
    for name, module in chain:
        if learns and _halves(module):
            ends.append(previous)
            learns = False
        learns = learns or any(True for _ in module.parameters())
        previous = name
    return (*ends, previous) if learns else tuple(ends)


def stage_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose outputs end the stages: the last maps of each size (MonoCNN, Section 3.3, Fig. 3).

    timm networks name them in ``feature_info``, including the stem if its maps have a size of their own. In other
    networks they follow from the strides in ``stages``, ``blocks``, ``features`` or ``layer1``, ``layer2``, ...; in a
    VGG they are the ReLUs before the pooling layers. Conversion keeps all these names.

    Raises:
        ConfigError: if no stages are found.
    """
    network = unwrap_model(network)
    if info := getattr(network, "feature_info", None):
        return tuple(str(entry["module"]) for entry in getattr(info, "info", info))
    children = dict(network.named_children())
    chain = [(name, module) for name, module in children.items() if re.fullmatch(r"layer\d+", name)]
    for parent in _CHAINS:
        if not chain and isinstance(children.get(parent), nn.Sequential):
            chain = [(f"{parent}.{name}", module) for name, module in children[parent].named_children()]
    if names := _ends(chain):
        return names
    raise ConfigError(f"the stages of {type(network).__name__} are unknown; name the modules that end them")


class Tap:
    """A forward hook that keeps the output of its module, but only between :meth:`open` and :meth:`take`.

    It is an object, not a closure, so that a deep copy of the network (such as an average of its weights) has its own.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self._handle = module.register_forward_hook(self)
        self._open = False
        self._maps: Tensor | None = None

    def __call__(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        if self._open:
            self._maps = output

    def open(self) -> None:
        """Keep the next output."""
        self._open = True

    def take(self) -> Tensor | None:
        """Return the kept output, and stop keeping outputs."""
        maps, self._maps, self._open = self._maps, None, False
        return maps

    def close(self) -> None:
        """Remove the hook from the module."""
        self._handle.remove()


def tap_stages(network: nn.Module, names: Sequence[str]) -> list[Tap]:
    """Hook the named modules of a network.

    Raises:
        ConfigError: if the network has no such module; near names are listed.
    """
    modules = dict(unwrap_model(network).named_modules())
    taps = []
    for name in names:
        if not name or name not in modules:
            hint = did_you_mean(name, modules)
            raise ConfigError(f"{type(unwrap_model(network)).__name__} has no module {name!r} to end a stage; {hint}")
        taps.append(Tap(name, modules[name]))
    return taps


def listen(network: nn.Module, taps: Sequence[Tap], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run one forward pass, and return the logits [N, classes] and the maps [N, C, H, W] at the taps.

    Raises:
        TrainingError: if a tapped module was not called, or its output is not maps.
    """
    for tap in taps:
        tap.open()
    try:
        logits = network(images)
    finally:
        heard = [tap.take() for tap in taps]
    maps = []
    for tap, output in zip(taps, heard, strict=True):
        if not isinstance(output, Tensor) or output.ndim != 4:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TrainingError(f"module {tap.name!r} must return maps [N, C, H, W] to end a stage; it returned {what}")
        maps.append(output)
    return logits, maps


@torch.no_grad()
def probe(network: nn.Module, taps: Sequence[Tap], size: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Shapes of the logits and of the maps for one black image, without the batch axis.

    The pass runs in eval mode, so that running statistics do not change; the modes are restored afterwards.
    """
    first = next(network.parameters())
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        logits, maps = listen(network, taps, torch.zeros(1, *size, device=first.device, dtype=first.dtype))
    finally:
        for module, mode in modes:
            module.training = mode
    return [tuple(output.shape[1:]) for output in (logits, *maps)]
