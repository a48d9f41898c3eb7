"""Selection of the convolutions to convert, with reasons for those left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.layers import ConvLayer
from seedcnn.layers.low_pass import plain_type

__all__ = [
    "SCOPES",
    "FilterFn",
    "convolutions",
    "is_depthwise",
    "is_projection",
    "pointwise",
    "rule_of",
    "spatial_width",
    "untouchable",
]

FilterFn = Callable[[nn.Module, str], bool]
Rule = Callable[[nn.Module, nn.Conv2d, str], str | None]
_PROJECTIONS = ("downsample", "shortcut")
# What these subclasses do that a replacement would not; by name, because they belong to timm and torch.ao.
_SAME = "pads by the size of its input (TensorFlow SAME padding), which no layer here does"
_STANDARDISED = "standardises its weight in every forward, which its replacement would not"
_SPECIAL = {
    "Conv2dSame": _SAME,
    "Conv2dSameExport": _SAME,
    "StdConv2d": _STANDARDISED,
    "StdConv2dSame": _STANDARDISED,
    "ScaledStdConv2d": _STANDARDISED,
    "ScaledStdConv2dSame": _STANDARDISED,
    "CondConv2d": "mixes several weights by its input, which its replacement would not",
    "LazyConv2d": "has no shape yet; run the model once first",
}


def is_projection(name: str) -> bool:
    """Return whether a module is part of a residual block's projection shortcut, by its qualified name."""
    return any(part in _PROJECTIONS for part in name.split("."))


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether each input channel has exactly one filter and one output of its own."""
    return 1 < conv.groups == conv.in_channels == conv.out_channels


def spatial_width(model: nn.Module, name: str, conv: nn.Conv2d) -> int:
    """Return the output channels that the reduction ratio applies to.

    A projection shortcut takes the width of its block's spatial convolutions: in a bottleneck it keeps c_out / (4 r)
    seeds, as the parameter counts of GroupNL Tables 3 and 4 imply. In a block that is wider inside than outside it
    takes its own width, as every other convolution does.
    """
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if part in _PROJECTIONS:
            block = model.get_submodule(".".join(parts[:depth]))
            widths = [
                module.out_channels
                for child, module in block.named_modules()
                if isinstance(module, (nn.Conv2d, ConvLayer))
                and not is_projection(child)
                and max(module.kernel_size) > 1
            ]
            return min([*widths, conv.out_channels])
    return conv.out_channels


def _paper(model: nn.Module, conv: nn.Conv2d, name: str) -> str | None:  # noqa: ARG001
    if max(conv.kernel_size) == 1 and not is_projection(name):
        return "pointwise convolution that is not a projection shortcut"
    return None


def _stride1(model: nn.Module, conv: nn.Conv2d, name: str) -> str | None:  # noqa: ARG001
    if max(conv.kernel_size) == 1:
        return "pointwise convolution"
    if max(conv.stride) > 1:
        return f"stride {conv.stride}"
    return None


def _reference(model: nn.Module, conv: nn.Conv2d, name: str) -> str | None:
    parent, _, child = name.rpartition(".")
    if is_depthwise(conv):
        return None if child == "conv_dw" else "depthwise, but not the conv_dw of a mobile block"
    if child != "conv2" or max(conv.kernel_size) == 1 or not hasattr(model.get_submodule(parent), "conv3"):
        return "not the 3x3 convolution of a bottleneck"
    return f"stride {conv.stride}" if max(conv.stride) > 1 else None


def _pointwise(model: nn.Module, conv: nn.Conv2d, name: str) -> str | None:  # noqa: ARG001
    if max(conv.kernel_size) > 1:
        return f"kernel {conv.kernel_size}, not pointwise"
    if conv.bias is not None:
        return "pointwise with a bias: a squeeze-excite or a head, not part of a block's body"
    return None


def _spatial(model: nn.Module, conv: nn.Conv2d, name: str) -> str | None:  # noqa: ARG001
    return "pointwise convolution" if max(conv.kernel_size) == 1 else None


def _square(model: nn.Module, conv: nn.Conv2d, name: str) -> str | None:
    if conv.in_channels != conv.out_channels:
        return f"changes the channels, {conv.in_channels} -> {conv.out_channels}"
    return _stride1(model, conv, name)


SCOPES: dict[str, Rule] = {
    "paper": _paper,
    "stride1": _stride1,
    "reference": _reference,
    "pointwise": _pointwise,
    "square": _square,
    "spatial": _spatial,
}
"""Scope name -> rule; a rule returns the reason to leave a convolution alone, or None to replace it.

- "paper": every convolution except the stem and pointwise ones that are not projection shortcuts.
- "stride1": kernels above 1x1 with stride 1.
- "reference": what GroupNL's public code replaces in timm models: the 3x3 ``conv2`` of stride 1 in bottlenecks, and
  every depthwise ``conv_dw`` of mobile nets (any kernel and stride).
- "pointwise": 1x1 convolutions without a bias, by the rule of Conditional Reduction; see :func:`pointwise`.
- "square": those of "stride1" with equal input and output channels, as the parameters of VGG11 in MonoCNN's Table 1
  imply.
- "spatial": kernels above 1x1 except the stem: projection shortcuts stay dense.
"""


def pointwise(conv: nn.Conv2d, min_saved_macs: float, narrowing_groups: int) -> tuple[bool, str | None]:
    """Decide what the "pointwise" scope does with a 1x1 convolution.

    If the channels grow, the config's layer replaces it where that pays: a generated element saves c_in MACs and costs
    one nonlinear function. If they do not grow, a grouped 1x1 convolution replaces it.

    Returns:
        Whether the replacement is the grouped convolution, and the reason to leave the layer alone or None.
    """
    if conv.in_channels < conv.out_channels:
        if conv.in_channels < min_saved_macs:
            saved = f"a generated element would save {conv.in_channels} MACs"
            return False, f"{saved}, below `min_saved_macs` (={min_saved_macs})"
        return False, None
    change = f"narrows {conv.in_channels} -> {conv.out_channels}"
    if narrowing_groups == 1:
        return True, f"{change}, and `narrowing_groups` is 1"
    if conv.in_channels % narrowing_groups or conv.out_channels % narrowing_groups:
        return True, f"{change}, not divisible by `narrowing_groups` (={narrowing_groups})"
    return True, None


def rule_of(scope: str) -> Rule:
    """Return the rule of a scope.

    Raises:
        ConfigError: if the scope does not exist; near names are listed.
    """
    if scope not in SCOPES:
        hint = did_you_mean(scope, SCOPES)
        raise ConfigError(f"unknown scope {scope!r}; {hint}known scopes: {', '.join(SCOPES)}")
    return SCOPES[scope]


def _looks_like_convolution(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.conv._ConvNd):
        return True
    return all(hasattr(module, part) for part in ("in_channels", "out_channels", "kernel_size", "weight"))


_HOOKS = {
    "_forward_pre_hooks": "forward pre-hooks",
    "_forward_hooks": "forward hooks",
    "_backward_pre_hooks": "backward pre-hooks",
    "_backward_hooks": "backward hooks",
    "_state_dict_hooks": "state_dict hooks",
    "_state_dict_pre_hooks": "state_dict pre-hooks",
    "_load_state_dict_pre_hooks": "load_state_dict pre-hooks",
    "_load_state_dict_post_hooks": "load_state_dict post-hooks",
}
_PLAIN = frozenset(vars(nn.Conv2d(1, 1, 1, device="meta")))


def _additions(conv: nn.Conv2d) -> str | None:
    """Return what somebody has added to a plain convolution, which its replacement would lose, or None."""
    for hooks, words in _HOOKS.items():
        if getattr(conv, hooks):
            return f"has hooks ({words}), which its replacement would lose"
    for name, parameter in conv._parameters.items():
        if parameter is not None and (parameter._backward_hooks or parameter._post_accumulate_grad_hooks):
            return f"has hooks on its {name}, which its replacement would lose"
    if "forward" in vars(conv):
        return "has a forward of its own, which its replacement would lose"
    for kind, known in (("_parameters", ("weight", "bias")), ("_buffers", ()), ("_modules", ())):
        if extra := [name for name in getattr(conv, kind) if name not in known]:
            return f"has the {kind[1:-1]} {extra[0]!r} added to it, which its replacement would lose"
    if extra := [name for name in vars(conv) if name not in _PLAIN]:
        return f"has the attribute {extra[0]!r} added to it, which its replacement would lose"
    return None


def untouchable(module: Any, names: list[str], tied: Mapping[str, str], depthwise_too: bool) -> str | None:
    """Return why a convolution cannot be replaced in any scope, or None.

    Args:
        module: the convolution.
        names: all its qualified names.
        tied: see :func:`seedcnn.convert.references.tied_parameters`.
        depthwise_too: whether a depthwise convolution may be replaced.
    """
    plain = plain_type(module)
    kind = plain.__name__
    if isinstance(module, ConvLayer):
        return f"already converted ({kind})"
    if plain.__module__.startswith("torch.ao."):
        return f"{kind} is quantised; convert the float model first"
    if plain is not nn.Conv2d:
        return f"{kind} {_SPECIAL.get(kind, 'is not a plain nn.Conv2d')}"
    if len(names) > 1:
        return f"shared by {', '.join(names)}"
    if is_parametrized(module):
        return "parametrized"
    if reason := _additions(module):
        return reason
    for part in ("weight", "bias"):
        if other := tied.get(f"{names[0]}.{part}"):
            return f"its {part} is shared with {other}"
    if module.groups != 1 and not (depthwise_too and is_depthwise(module)):
        return f"{'depthwise' if is_depthwise(module) else 'grouped'} convolution (groups={module.groups})"
    return None


def convolutions(model: nn.Module) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield everything that looks like a convolution, in the model's order: (qualified name, module, all its names).

    Converted layers are not searched inside.
    """
    names_of: dict[int, list[str]] = {}
    found: dict[int, nn.Module] = {}
    inside = "\0"
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(inside):
            continue
        if isinstance(module, ConvLayer):
            inside = f"{name}."
        if _looks_like_convolution(module):
            names_of.setdefault(id(module), []).append(name)
            found[id(module)] = module
    for key, module in found.items():
        yield names_of[key][0], module, names_of[key]
