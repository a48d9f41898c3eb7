"""``lowpass_``: fixed low-pass filters before the stem, or before everything that strides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from seedcnn.convert.filters import convolutions
from seedcnn.convert.references import uncalled
from seedcnn.errors import ConversionError, did_you_mean
from seedcnn.layers import ConvLayer
from seedcnn.layers.low_pass import LowPassed, low_pass_, plain_type

__all__ = ["PLACES", "low_passed", "lowpass_"]

PLACES = ("stem", "strides", "stem+strides")
"""Where :func:`lowpass_` puts filters."""


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _strides(layer: Any) -> bool:
    return any(step != 1 for step in _pair(layer.stride))


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a network by name, but nothing inside a layer of this package."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside) and inside:
            continue
        yield name, module
        if isinstance(module, ConvLayer):
            inside = (f"{name}.",) if name else ("",)


def _stem(model: nn.Module) -> str:
    known = {id(layer) for _, layer, _ in convolutions(model)}
    name = next((name for name, each in _layers(model) if id(each) in known or isinstance(each, ConvLayer)), None)
    if name is None:
        raise ConversionError(f"{type(model).__name__} has no convolution, so there is no stem to filter before")
    return name


def _striding(model: nn.Module) -> list[str]:
    """Return the names of the layers that stride: convolutions, converted layers, max poolings."""
    kinds = (nn.Conv2d, ConvLayer, nn.MaxPool2d)
    found = [name for name, module in _layers(model) if isinstance(module, kinds) and _strides(module)]
    if not found:
        raise ConversionError(f"{type(model).__name__} has no convolution and no max pooling that strides")
    return found


def _refusal(layer: nn.Module) -> str | None:
    """Return why a layer can have no filter, or None."""
    kind = plain_type(layer)
    if isinstance(layer, LowPassed):
        return "it has a low-pass filter already"
    if isinstance(layer, nn.MaxPool2d):
        if layer.ceil_mode or layer.return_indices:
            option = "ceil_mode" if layer.ceil_mode else "return_indices"
            return f"it is a max pooling with {option}, which has no form with a filter"
    elif not isinstance(layer, (nn.Conv2d, ConvLayer)):
        return f"it is a {kind.__name__}; only nn.Conv2d, the layers of seedcnn and nn.MaxPool2d can have one"
    if kind.__module__.startswith("torch.ao."):
        return f"it is a {kind.__name__}, which is quantised"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "it has no shape yet; run the model once first"
    if is_parametrized(layer):
        return "it is parametrized; give it the filter before the parametrization"
    return "it has a `forward` of its own, set on the instance" if "forward" in vars(layer) else None


def low_passed(model: nn.Module) -> tuple[str, ...]:
    """Return the qualified names of the layers that have a filter."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, LowPassed))


def lowpass_(model: nn.Module, where: str = "stem") -> tuple[str, ...]:
    """Put fixed binomial 3x3 low-pass filters ([1 2 1] x [1 2 1] / 16) into a network, in place.

    The filters have no learned and no stored numbers: the state_dict, the names of all modules and the seeds of
    converted layers stay as they are, so :func:`seedcnn.convert.convert_` may come before or after, with the same
    result. A layer that is replaced hands its filter on. Weights do not tell whether the network that they were trained
    in had filters; a checkpoint's config does.

    Args:
        model: any torch model.
        where: "stem": before the first convolution, which is the one that ``convert_`` takes as the stem. "strides":
            before each convolution with a stride, and between the maxima and the stride of each ``nn.MaxPool2d``
            (BlurPool; Zhang, ICML 2019). "stem+strides": both; a stem with a stride has one filter. Average poolings
            are low-pass filters already, and functions such as ``F.max_pool2d`` are not modules; both stay.

    Returns:
        The qualified names of the layers that have a filter now.

    Raises:
        ValueError: if ``where`` is none of these.
        ConversionError: if there is no such layer, or one of them cannot have a filter (named, with the reason);
            nothing is changed then.
    """
    if where not in PLACES:
        raise ValueError(f"`where` (={where!r}) is unknown; {did_you_mean(where, PLACES)}known: {', '.join(PLACES)}")
    names = [_stem(model)] if where != "strides" else []
    if where != "stem":
        names += [name for name in _striding(model) if name not in names]
    layers = {name: model.get_submodule(name) for name in names}
    for name, layer in layers.items():
        if reason := _refusal(layer):
            raise ConversionError(f"no low-pass filter before {name or type(model).__name__}: {reason}")
    weighted = [name for name, layer in layers.items() if name and not isinstance(layer, nn.MaxPool2d)]
    if read := sorted(uncalled(model, weighted)):
        raise ConversionError(
            f"no low-pass filter before {read[0]}: other code of the network reads its weight, or calls it on another "
            "way than through its place in the model"
        )
    for layer in layers.values():
        low_pass_(layer)
    return tuple(names)
