"""Sites: the replaceable convolutions of a network with their surroundings, and the layers that forms put there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seedcnn.convert import ConversionConfig, replacement
from seedcnn.convert.copies import copy_model
from seedcnn.convert.filters import convolutions, spatial_width, untouchable
from seedcnn.convert.parts import PARTS, left_out, parts_of
from seedcnn.convert.references import tied_parameters
from seedcnn.convert.tracing import norm_after
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.layers import ConvLayer

__all__ = [
    "Site",
    "find_sites",
    "form_of_site",
]

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
        name: qualified name.
        conv: the convolution.
        norm_name: name of the BatchNorm that reads its output, "" if there is none.
        norm: that BatchNorm.
        activation: the activation that follows, or None.
        input_shape: [C, H, W] of one image's input map.
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
        """Return ``layer`` followed by copies of this site's norm and activation."""
        after = [copy.deepcopy(module) for module in (self.norm, self.activation) if module is not None]
        return nn.Sequential(layer, *after)

    def __str__(self) -> str:
        c, conv = self.input_shape, self.conv
        size = "x".join(map(str, conv.kernel_size))
        stride = "" if max(conv.stride) == 1 else f" /{max(conv.stride)}"
        return f"{size} {conv.in_channels}->{conv.out_channels}{stride} @{c[1]}x{c[2]}"


class _Watch(TorchFunctionMode):
    """Observer of a forward pass that links each convolution with its norm and its activation."""

    def __init__(self, norms: Mapping[str, str]) -> None:
        super().__init__()
        self.maker: dict[int, str] = {}  # tensor id -> the convolution that made it, directly or through its norm
        self.norms = norms
        self.activations: dict[str, nn.Module] = {}
        self.shapes: dict[str, list[tuple[int, int, int]]] = {}
        self.alive: list[Tensor] = []  # so that no address is reused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ACTIVATIONS and args and (name := self.maker.pop(id(args[0]), None)) is not None:
            self.activations.setdefault(name, _ACTIVATIONS[func]())
        return func(*args, **(kwargs or {}))

    def attach(self, model: nn.Module) -> None:
        read = {norm: conv for conv, norm in self.norms.items()}
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, args, out, name=name: self._conv(name, args[0], out))
            elif name in read:
                module.register_forward_hook(lambda _, args, out, conv=read[name]: self._norm(conv, out))  # noqa: ARG005

    def _conv(self, name: str, x: Tensor, out: Tensor) -> None:
        self.shapes.setdefault(name, []).append((x.shape[-3], x.shape[-2], x.shape[-1]))
        self.maker[id(out)] = name
        self.alive.append(out)

    def _norm(self, conv: str, out: Tensor) -> None:
        self.maker[id(out)] = conv
        self.alive.append(out)


def _watched(model: nn.Module, input_size: tuple[int, int, int]) -> _Watch:
    network = copy_model(model).cpu().float().eval()
    modules = dict(network.named_modules())
    after = {conv: norm for conv, norm in norm_after(network, input_size).items() if _foldable(modules[norm])}
    watch = _Watch(after)
    watch.attach(network)
    try:
        with torch.no_grad(), watch:
            network(torch.zeros(1, *input_size))
    except (RuntimeError, ValueError) as error:
        sentence = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot take `input_size` (={input_size}): {sentence}") from error
    return watch


def _foldable(norm: nn.Module) -> bool:
    return isinstance(norm, nn.BatchNorm2d)


def find_sites(model: nn.Module, input_size: tuple[int, int, int]) -> tuple[list[Site], dict[str, str]]:
    """Find the convolutions that can be replaced, in the model's order, and why the others cannot.

    Args:
        input_size: channels, height, width of an image.

    Raises:
        ValueError: if the model cannot take such an image.
    """
    watch = _watched(model, input_size)
    modules = dict(model.named_modules())
    found = list(convolutions(model))
    tied, parts = tied_parameters(model), parts_of(model)
    sites, left = [], {}
    for name, conv, names in found:
        calls = watch.shapes.get(name, [])
        reason = untouchable(conv, names, tied, depthwise_too=False)
        if reason := reason or (None if parts is None else left_out(parts, PARTS, name)):
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


def form_of_site(
    model: nn.Module, site: Site, config: ConversionConfig | None, *, multiple: int = 16, seed: int = 0
) -> nn.Module | str:
    """Return the layer that a form puts in a site's place, with fresh weights, or why it does not fit.

    Args:
        model: the site's network; it is not changed.
        config: config of the form; None returns a copy of the convolution itself.
        multiple: required divisor of the widths that a form introduces.
        seed: 64-bit model seed; :func:`convert_` makes the same layer with it.
    """
    if config is None:
        return copy.deepcopy(site.conv)
    try:
        layer = replacement(model, site.name, site.conv, config, seed, norm_follows=site.norm is not None)
    except (ConversionError, ConfigError) as error:
        return str(error)
    for width in layer.inner_widths() if isinstance(layer, ConvLayer) else ():
        if width % multiple:
            return f"brings in {width} channels, not a multiple of {multiple}"
    return layer
