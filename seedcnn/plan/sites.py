"""The convolutions of a network, each with what stands around it, and the layer that each form would put there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seedcnn.convert import ConversionConfig, convert_
from seedcnn.convert.filters import convolutions, spatial_width, untouchable
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.layers import (
    ConditionalReductionConv2d,
    DepthwiseSeparableConv2d,
    GhostConv2d,
    GroupNLConv2d,
    SineFMConv2d,
)

__all__ = ["Site", "find_sites", "form_of_site", "inner_widths", "replaced"]

_ACTIVATIONS: dict[Any, Callable[[], nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    F.relu6: nn.ReLU6,
    F.leaky_relu: nn.LeakyReLU,
    F.silu: nn.SiLU,
    F.gelu: nn.GELU,
    F.hardswish: nn.Hardswish,
    F.sigmoid: nn.Sigmoid,
}


@dataclass(frozen=True, eq=False)
class Site:
    """One convolution that can be replaced.

    Attributes:
        name: its qualified name.
        conv: the convolution.
        norm_name: of the BatchNorm that reads its output, "" if there is none.
        norm: that BatchNorm.
        activation: what follows, or None.
        input_shape: [C, H, W] of one picture's map.
        key: equal for sites whose forms cost the same.
    """

    name: str
    conv: nn.Conv2d
    norm_name: str
    norm: nn.BatchNorm2d | None
    activation: nn.Module | None
    input_shape: tuple[int, int, int]
    key: str

    def alone(self, layer: nn.Module) -> nn.Module:
        """``layer`` with copies of this site's norm and activation after it."""
        after = [copy.deepcopy(module) for module in (self.norm, self.activation) if module is not None]
        return nn.Sequential(layer, *after)

    def __str__(self) -> str:
        c, conv = self.input_shape, self.conv
        size = "x".join(map(str, conv.kernel_size))
        stride = "" if max(conv.stride) == 1 else f" /{max(conv.stride)}"
        return f"{size} {conv.in_channels}->{conv.out_channels}{stride} @{c[1]}x{c[2]}"


class _Watch(TorchFunctionMode):
    """Which activation reads which tensor, and how a convolution, its norm and its activation hang together."""

    def __init__(self) -> None:
        super().__init__()
        self.maker: dict[int, str] = {}  # of a tensor that only a convolution, or it and its norm, have touched
        self.bare: dict[int, str] = {}  # of a convolution's own output
        self.norms: dict[str, str] = {}
        self.activations: dict[str, nn.Module] = {}
        self.shapes: dict[str, list[tuple[int, int, int]]] = {}
        self.alive: list[Tensor] = []  # so that no address comes twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ACTIVATIONS and args and (name := self.maker.pop(id(args[0]), None)) is not None:
            self.activations.setdefault(name, _ACTIVATIONS[func]())
        return func(*args, **(kwargs or {}))

    def attach(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, args, out, name=name: self._conv(name, args[0], out))
            elif isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _, args, out, name=name: self._norm(name, args[0], out))

    def _conv(self, name: str, x: Tensor, out: Tensor) -> None:
        self.shapes.setdefault(name, []).append((x.shape[-3], x.shape[-2], x.shape[-1]))
        self.maker[id(out)] = self.bare[id(out)] = name
        self.alive.append(out)

    def _norm(self, name: str, x: Tensor, out: Tensor) -> None:
        if (conv := self.bare.pop(id(x), None)) is not None:
            self.norms[conv] = name
            self.maker[id(out)] = conv
            self.alive.append(out)


def _watched(model: nn.Module, input_size: tuple[int, int, int]) -> _Watch:
    network = copy.deepcopy(model).cpu().float().eval()
    watch = _Watch()
    watch.attach(network)
    try:
        with torch.no_grad(), watch:
            network(torch.zeros(1, *input_size))
    except (RuntimeError, ValueError) as error:
        sentence = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot take `input_size` (={input_size}): {sentence}") from error
    return watch


def find_sites(model: nn.Module, input_size: tuple[int, int, int]) -> tuple[list[Site], dict[str, str]]:
    """The convolutions that can be replaced, in the model's order, and why the others cannot.

    Args:
        input_size: channels, height, width of a picture.

    Raises:
        ValueError: if the model cannot take such a picture.
    """
    watch = _watched(model, input_size)
    modules = dict(model.named_modules())
    found = list(convolutions(model))
    owners: dict[int, str] = {}
    for name, module, _ in found:
        if type(module) is nn.Conv2d:
            owners.setdefault(id(module.weight), name)
    sites, left = [], {}
    for name, conv, names in found:
        calls = watch.shapes.get(name, [])
        if reason := untouchable(conv, names, owners, depthwise_too=False):
            left[name] = reason
        elif len(calls) != 1:
            left[name] = f"called {len(calls)} times in a forward pass"
        else:
            norm_name = watch.norms.get(name, "")
            norm: Any = modules[norm_name] if norm_name else None
            activation = watch.activations.get(name)
            key = f"{conv} {calls[0]} {norm} {activation} {spatial_width(model, name, conv)}"
            sites.append(Site(name, conv, norm_name, norm, activation, calls[0], key))
    return sites, left


def inner_widths(layer: nn.Module) -> tuple[int, ...]:
    """The channels that a form computes on the way to its output; none where there are none but the output's own."""
    if isinstance(layer, (GroupNLConv2d, SineFMConv2d)):
        return (layer.seed_channels,)
    if isinstance(layer, GhostConv2d):
        return (layer.primary_channels,)
    if isinstance(layer, ConditionalReductionConv2d):
        convolved = layer.out_channels - layer.generated_channels
        return (layer.out_channels // layer.groups if layer.mode == "gc" else convolved,)
    if isinstance(layer, DepthwiseSeparableConv2d):
        return (layer.in_channels, *inner_widths(layer.pointwise))
    return ()


def replaced(model: nn.Module, overrides: Mapping[str, ConversionConfig], seed: int) -> Any:
    """Give the named convolutions of ``model`` their configs, in place: the report of :func:`convert_`."""
    base = next(iter(overrides.values()))
    exact = {escape(name): config for name, config in overrides.items()}
    return convert_(model, base, filter_fn=lambda module, name: False, overrides=exact, seed=seed)  # noqa: ARG005


def form_of_site(
    model: nn.Module, site: Site, config: ConversionConfig | None, *, multiple: int = 16, seed: int = 0
) -> nn.Module | str:
    """The layer that a form puts in a site's place, with fresh weights, or why it does not fit; ``model`` is as before.

    Args:
        config: of the form; None gives a copy of the convolution itself.
        multiple: the widths that a form brings in must be multiples of it.
        seed: 64-bit model seed; the layer is the one that :func:`convert_` makes with it.
    """
    if config is None:
        return copy.deepcopy(site.conv)
    try:
        replaced(model, {site.name: config}, seed)
    except (ConversionError, ConfigError) as error:
        return str(error)
    parent, _, child = site.name.rpartition(".")
    layer = model.get_submodule(site.name)
    setattr(model.get_submodule(parent), child, site.conv)
    for width in inner_widths(layer):
        if width % multiple:
            return f"brings in {width} channels, not a multiple of {multiple}"
    return layer
