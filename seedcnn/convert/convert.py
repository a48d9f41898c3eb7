"""The one conversion verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from seedcnn import rng
from seedcnn.convert.config import ConversionConfig, GroupNLConfig
from seedcnn.convert.filters import FilterFn, select, spatial_width
from seedcnn.convert.report import ConversionReport, Replaced, Skipped
from seedcnn.errors import ConversionError
from seedcnn.layers import GroupNLConv2d, SeededConv2d

__all__ = ["convert_"]


def _learnable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _line(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def _conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "bias": conv.bias is not None,
        "padding_mode": conv.padding_mode,
        "device": conv.weight.device,
        "dtype": conv.weight.dtype,
    }


def _group_nl(config: GroupNLConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    if width % config.reduction_ratio:
        raise ValueError(
            f"its width (={width}) must be divisible by `reduction_ratio` (={config.reduction_ratio}); "
            "choose other widths or leave the layer out with filter_fn"
        )
    return GroupNLConv2d(
        **_conv_arguments(conv),
        seed_channels=width // config.reduction_ratio,
        nlf_groups=config.nlf_groups,
        nlf=config.nlf,
        sparse=config.sparse,
        omega_range=config.omega_range,
        phi_range=config.phi_range,
        normalize=config.normalize,
        seed=seed,
    )


_HANDLERS: dict[type[ConversionConfig], Callable[[Any, nn.Conv2d, int, int], nn.Module]] = {GroupNLConfig: _group_nl}


def convert_(
    model: nn.Module, config: ConversionConfig, *, filter_fn: FilterFn | None = None, seed: int = 0
) -> ConversionReport:
    """Replace convolutions of ``model`` in place by layers that grow from seeds.

    The new layers start from fresh weights on the old ones' device and dtype, in the old ones' training mode. Nothing
    is changed unless every chosen layer can be replaced.

    Args:
        model: any torch model.
        config: what to convert to, e.g. :class:`seedcnn.convert.GroupNLConfig`.
        filter_fn: ``filter_fn(module, qualified_name) -> bool``; decides instead of ``config.scope``.
        seed: 64-bit model seed; each layer's seed is derived from it and the layer's name.

    Returns:
        What was replaced, what was left and why, and learnable parameters before and after.

    Raises:
        ConversionError: if the config is of an unknown kind, ``model`` is itself a convolution, nothing matched, or
            a chosen layer cannot take the config (named, with the rule).
    """
    handler = _HANDLERS.get(type(config))
    if handler is None:
        known = ", ".join(kind.__name__ for kind in _HANDLERS)
        raise ConversionError(f"`config` is a {type(config).__name__}; it must be one of {known}")
    if isinstance(model, (nn.modules.conv._ConvNd, SeededConv2d)):
        raise ConversionError(
            f"`model` is itself a {type(model).__name__} and cannot be replaced in place; build the layer directly"
        )
    chosen, skipped = select(model, config.scope, filter_fn)
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
        raise ConversionError(f"no convolution matched ({len(skipped)} looked at{': ' if reasons else ''}{reasons})")
    before = _learnable(model)
    replacements: dict[str, nn.Module] = {}
    for name, conv in chosen.items():
        try:
            new = handler(config, conv, spatial_width(model, name, conv), rng.layer_seed(seed, name))
        except ValueError as error:
            raise ConversionError(f"{name} ({conv}): {error}") from None
        replacements[name] = new.train(conv.training)
    replaced = tuple(
        Replaced(
            name, str(conv), str(replacements[name]).split("\n")[0], _learnable(conv), _learnable(replacements[name])
        )
        for name, conv in chosen.items()
    )
    for name, new in replacements.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    return ConversionReport(
        method=type(config).__name__.removesuffix("Config"),
        replaced=replaced,
        skipped=tuple(Skipped(name, reason) for name, reason in skipped.items()),
        params_before=before,
        params_after=_learnable(model),
    )
