"""The networks of seedcnn by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_type_hints

from torch import nn

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models.air_cifar import AirCifar
from seedcnn.models.crnet import CRNetCB, CRNetCIB
from seedcnn.models.resnet_cifar import BasicBlock, Bottleneck, ResNetCifar
from seedcnn.models.vgg_cifar import VGG11_PLAN, VGGCifar

__all__ = ["create_model", "default_widths", "list_models", "option_types", "scaled_widths"]

_DIVISOR = 8
_SMALL, _LARGE = (16, 32, 64), (64, 128, 256, 512)


def _resnet(block: type[BasicBlock | Bottleneck], depths: tuple[int, ...]) -> Callable[..., nn.Module]:
    return partial(ResNetCifar, block, depths)


_MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "resnet8_cifar": (_resnet(BasicBlock, (1, 1, 1)), _SMALL),
    "resnet20_cifar": (_resnet(BasicBlock, (3, 3, 3)), _SMALL),
    "resnet56_cifar": (_resnet(BasicBlock, (9, 9, 9)), _SMALL),
    "resnet18_cifar": (_resnet(BasicBlock, (2, 2, 2, 2)), _LARGE),
    "resnet34_cifar": (_resnet(BasicBlock, (3, 4, 6, 3)), _LARGE),
    "resnet101_cifar": (_resnet(Bottleneck, (3, 4, 23, 3)), _LARGE),
    "vgg11_cifar": (partial(VGGCifar, VGG11_PLAN), (64, 128, 256, 512, 512)),
    "air_cifar": (AirCifar, (64, 128, 256)),
    "crnet_cb": (CRNetCB, (16, 32, 32, 64)),
    "crnet_cib": (CRNetCIB, (16, 32, 64)),
}


def list_models() -> list[str]:
    """The names that :func:`create_model` knows."""
    return list(_MODELS)


def _entry(name: str) -> tuple[Callable[..., nn.Module], tuple[int, ...]]:
    if name not in _MODELS:
        hint = did_you_mean(name, _MODELS)
        raise ConfigError(f"unknown model {name!r}; {hint}known models: {', '.join(_MODELS)}")
    return _MODELS[name]


def default_widths(name: str) -> tuple[int, ...]:
    """The published number of channels of each stage of a model.

    Raises:
        ConfigError: if there is no such model; near names are listed.
    """
    return _entry(name)[1]


def scaled_widths(widths: Sequence[int], width: float, divisor: int = _DIVISOR) -> tuple[int, ...]:
    """Multiply widths by ``width``, and round each to the nearest multiple of ``divisor``, at least ``divisor``.

    Raises:
        ValueError: if the multiplier or the divisor is not positive.
    """
    if not 0 < width < float("inf"):
        raise ValueError(f"`width` (={width!r}) must be a positive number")
    if isinstance(divisor, bool) or not isinstance(divisor, int) or divisor < 1:
        raise ValueError(f"`width_divisor` (={divisor!r}) must be a positive integer")
    return tuple(max(divisor, int(full * width / divisor + 0.5) * divisor) for full in widths)


def create_model(
    name: str,
    num_classes: int = 10,
    *,
    widths: Sequence[int] | None = None,
    width: float | None = None,
    width_divisor: int = _DIVISOR,
    **kwargs: Any,
) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: one of :func:`list_models`.
        num_classes: size of the output.
        widths: channels of each stage, instead of the published ones.
        width: a multiplier of the published channels, e.g. 0.75, instead of ``widths``; see :func:`scaled_widths`.
        width_divisor: the multiplied channels are rounded to multiples of this number; without ``width`` it
            has no effect and is refused.
        kwargs: further arguments of the network's class, e.g. ``patch`` of the residual networks or ``strategy`` of the
            CRnets.

    Raises:
        ConfigError: if there is no such model; near names are listed.
        ValueError: naming the argument, its value and the rule.
    """
    build, default = _entry(name)
    if widths is not None and width is not None:
        raise ValueError(f"`widths` (={tuple(widths)}) and `width` (={width}) must not be given together")
    if width is not None:
        widths = scaled_widths(default, width, width_divisor)
    elif width_divisor != _DIVISOR:
        raise ValueError(f"`width_divisor` (={width_divisor!r}) has no effect without `width`")
    return build(num_classes=num_classes, widths=default if widths is None else tuple(widths), **kwargs)


def option_types(name: str) -> dict[str, Any]:
    """Annotation of each argument that :func:`create_model` takes for a model, apart from its name.

    Raises:
        ConfigError: if the model does not exist.
    """
    build, _ = _entry(name)
    network: Any = build.func if isinstance(build, partial) else build
    hints = get_type_hints(network.__init__) | get_type_hints(create_model)
    names = [*inspect.signature(create_model).parameters, *inspect.signature(build).parameters]
    return {option: hints[option] for option in names if option not in ("name", "kwargs")}
