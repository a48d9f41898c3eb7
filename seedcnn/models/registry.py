"""The networks of seedcnn by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from torch import nn

from seedcnn.convert.parts import TASKS
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models.air_cifar import AirCifar
from seedcnn.models.crnet import CRNetCB, CRNetCIB
from seedcnn.models.resnet_cifar import BasicBlock, Bottleneck, ResNetCifar
from seedcnn.models.vgg_cifar import VGG11_PLAN, VGGCifar

__all__ = ["create_model", "default_input", "default_widths", "list_models", "option_types", "scaled_widths"]

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


class _Dense(NamedTuple):
    """A network for boxes or masks: its task, and its class, which is imported on demand since it needs torchvision."""

    task: str
    kind: str

    def load(self, name: str) -> Callable[..., nn.Module]:
        if find_spec("torchvision") is None:
            raise ConfigError(f"{name} needs torchvision, which is not installed: pip install 'seedcnn[train]'")
        found: Callable[..., nn.Module] = getattr(importlib.import_module(f"seedcnn.models.{self.task}"), self.kind)
        return found


_DENSE = {
    "fasterrcnn_resnet18_fpn": _Dense("detection", "FasterRCNN"),
    "retinanet_resnet18_fpn": _Dense("detection", "RetinaNet"),
    "fcos_resnet18_fpn": _Dense("detection", "FCOS"),
    "fpn_resnet18": _Dense("segmentation", "PyramidSegmenter"),
    "semfpn_resnet18": _Dense("segmentation", "SemanticPyramid"),
}

_INPUTS = {"detection": (3, 320, 320), "segmentation": (3, 256, 512)}


def list_models(task: str | None = None) -> list[str]:
    """The names that :func:`create_model` knows.

    Args:
        task: one of :data:`seedcnn.convert.parts.TASKS`; None for all.

    Raises:
        ValueError: if there is no such task.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"`task` (={task!r}) must be one of {', '.join(map(repr, TASKS))}")
    by_task = dict.fromkeys(_MODELS, "classification") | {name: each.task for name, each in _DENSE.items()}
    return [name for name, found in by_task.items() if task in (None, found)]


def _entry(name: str) -> tuple[Callable[..., nn.Module], tuple[int, ...]]:
    if name in _DENSE:
        return _DENSE[name].load(name), _LARGE
    if name not in _MODELS:
        hint = did_you_mean(name, list_models())
        raise ConfigError(f"unknown model {name!r}; {hint}known models: {', '.join(list_models())}")
    return _MODELS[name]


def default_widths(name: str) -> tuple[int, ...]:
    """The published number of channels of each stage of a model.

    Raises:
        ConfigError: if there is no such model; near names are listed.
    """
    return _entry(name)[1]


def default_input(name: str) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model is counted and measured on unless a size is given.

    Raises:
        ConfigError: if there is no such model; near names are listed.
    """
    _entry(name)
    return (3, 32, 32) if name not in _DENSE else _INPUTS[_DENSE[name].task]


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
    num_classes: int | None = None,
    *,
    widths: Sequence[int] | None = None,
    width: float | None = None,
    width_divisor: int = _DIVISOR,
    backbone_weights: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a network with fresh weights; ``task`` and ``num_classes`` are attributes of it.

    Args:
        name: one of :func:`list_models`.
        num_classes: number of classes, of a detector without the background; None for the paper's: 10, for detectors
            80 and for segmenters 19.
        widths: channels of each stage, instead of the published ones.
        width: a multiplier of the published channels, e.g. 0.75, instead of ``widths``; see :func:`scaled_widths`.
        width_divisor: the multiplied channels are rounded to multiples of this number; without ``width`` it
            has no effect and is refused.
        backbone_weights: for detectors and segmenters: a checkpoint, or a file of weights, of a classification network
            whose body this is. If it was converted, so is the body; see
            :func:`seedcnn.models.backbone_weights.load_backbone_`.
        kwargs: further arguments of the network's class, e.g. ``patch`` of the residual networks, ``strategy`` of the
            CRnets, or ``backbone``, ``pyramid``, ``norm`` and ``in_chans`` of detectors and segmenters.

    Raises:
        ConfigError: if there is no such model (near names are listed), or the weights of the backbone do not fit.
        ValueError: naming the argument, its value and the rule.
    """
    build, default = _entry(name)
    if backbone_weights is not None and name not in _DENSE:
        raise ValueError(
            f"`backbone_weights` (={str(backbone_weights)!r}) goes with {', '.join(_DENSE)}, not with {name!r}"
        )
    if widths is not None and width is not None:
        raise ValueError(f"`widths` (={tuple(widths)}) and `width` (={width}) must not be given together")
    if width is not None:
        widths = scaled_widths(default, width, width_divisor)
    elif width_divisor != _DIVISOR:
        raise ValueError(f"`width_divisor` (={width_divisor!r}) has no effect without `width`")
    elif widths is None and name not in _DENSE:  # the widths of dense networks are those of their backbone
        widths = default
    options = kwargs if num_classes is None else {"num_classes": num_classes, **kwargs}
    model = build(widths=None if widths is None else tuple(widths), **options)
    model.task = _DENSE[name].task if name in _DENSE else "classification"  # type: ignore[assignment]
    if backbone_weights is not None:
        from seedcnn.models.backbone_weights import load_backbone_

        load_backbone_(model, backbone_weights)
    return model


def option_types(name: str) -> dict[str, Any]:
    """Annotation of each argument that :func:`create_model` takes for a model, apart from its name.

    Raises:
        ConfigError: if the model does not exist.
    """
    build, _ = _entry(name)
    network: Any = build.func if isinstance(build, partial) else build
    own = get_type_hints(network.__init__)
    hints = own | get_type_hints(create_model) | {"num_classes": own["num_classes"]}
    names = [*inspect.signature(create_model).parameters, *inspect.signature(build).parameters]
    apart = ("name", "kwargs") if name in _DENSE else ("name", "kwargs", "backbone_weights")
    return {option: hints[option] for option in names if option not in apart}
