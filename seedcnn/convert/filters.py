"""Which convolutions of a model are candidates for conversion, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from seedcnn.errors import ConfigError

__all__ = ["SCOPES", "FilterFn", "is_projection", "select", "spatial_width"]

FilterFn = Callable[[nn.Module, str], bool]
_PROJECTIONS = ("downsample", "shortcut")


def is_projection(name: str) -> bool:
    """Whether a module is part of a residual block's projection shortcut, by its qualified name."""
    return any(part in _PROJECTIONS for part in name.split("."))


def spatial_width(model: nn.Module, name: str, conv: nn.Conv2d) -> int:
    """The output channels that the reduction ratio applies to.

    A projection shortcut takes the width of its block's spatial convolutions: in a bottleneck it keeps c_out / (4 r)
    seeds, which is what the parameter counts of GroupNL Tables 3 and 4 imply. Every other convolution takes its own.
    """
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if part in _PROJECTIONS:
            block = model.get_submodule(".".join(parts[:depth]))
            widths = [
                module.out_channels if isinstance(module, nn.Conv2d) else getattr(module, "out_channels", 0)
                for child, module in block.named_modules()
                if not is_projection(child) and max(getattr(module, "kernel_size", None) or (0,)) > 1
            ]
            return min([width for width in widths if width] or [conv.out_channels])
    return conv.out_channels


def _paper(conv: nn.Conv2d, name: str) -> str | None:
    if max(conv.kernel_size) == 1 and not is_projection(name):
        return "pointwise convolution that is not a projection shortcut"
    return None


def _stride1(conv: nn.Conv2d, name: str) -> str | None:  # noqa: ARG001
    if max(conv.kernel_size) == 1:
        return "pointwise convolution"
    if max(conv.stride) > 1:
        return f"stride {conv.stride}"
    return None


SCOPES: dict[str, Callable[[nn.Conv2d, str], str | None]] = {"paper": _paper, "stride1": _stride1}
"""Scope name -> rule; a rule gives the reason why a convolution is left alone, or None to take it."""


def _untouchable(module: nn.Module, names: list[str]) -> str | None:
    """Why a module cannot be converted whatever the scope."""
    if type(module) is not nn.Conv2d:
        return f"{type(module).__name__} is not a plain nn.Conv2d"
    if len(names) > 1:
        return f"shared by {', '.join(names)}"
    if is_parametrized(module):
        return "parametrized"
    if module.groups != 1:
        return f"grouped convolution (groups={module.groups})"
    return None


def select(model: nn.Module, scope: str, filter_fn: FilterFn | None) -> tuple[dict[str, nn.Conv2d], dict[str, str]]:
    """Sort the model's convolutions into those to replace and those to leave.

    Args:
        scope: a key of :data:`SCOPES`; not consulted when ``filter_fn`` is given.
        filter_fn: ``filter_fn(module, qualified_name) -> bool`` decides instead of the scope (and may take the stem).

    Returns:
        ``(chosen, skipped)``: qualified name -> convolution, and qualified name -> reason.

    Raises:
        ConfigError: if the scope does not exist.
    """
    if scope not in SCOPES:
        raise ConfigError(f"unknown scope {scope!r}; known scopes: {', '.join(SCOPES)}")
    names_of: dict[int, list[str]] = {}
    convs: dict[int, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.modules.conv._ConvNd):
            names_of.setdefault(id(module), []).append(name)
            convs[id(module)] = module
    chosen: dict[str, nn.Conv2d] = {}
    skipped: dict[str, str] = {}
    for position, (key, module) in enumerate(convs.items()):
        name = names_of[key][0]
        reason = _untouchable(module, names_of[key])
        if reason is None and filter_fn is not None:
            reason = None if filter_fn(module, name) else "not chosen by filter_fn"
        elif reason is None:
            reason = "stem" if position == 0 else SCOPES[scope](module, name)
        if reason is None:
            chosen[name] = module
        else:
            skipped[name] = reason
    return chosen, skipped
