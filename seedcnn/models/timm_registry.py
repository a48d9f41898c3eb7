"""GroupNL variants of timm networks, registered with timm.

After ``import seedcnn.models``, with timm installed, ``timm.create_model("gnl_resnet50")`` and the other names of
:data:`GNL_MODELS` work. Each is a timm network converted by :func:`seedcnn.convert.convert_`, so timm's arguments
(``num_classes``, ``in_chans``, ``drop_path_rate``, ``output_stride``, ``features_only``, ...) work as usual. Names and
replaced layers are those of GroupNL's public code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers.norm_act import freeze_batch_norm_2d
from timm.models import load_checkpoint, register_model
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.convert.copies import copy_without_weights
from seedcnn.errors import ConfigError, DataError, did_you_mean

__all__ = ["GNL_MODELS", "GnlModel", "TimmModel", "timm_features", "trained_timm_model"]


@dataclass(frozen=True)
class GnlModel:
    """The definition of a registered name: a timm network, and the options of its GroupNL layers."""

    base: str
    reduction_ratio: int = 2
    sparse: bool = True


GNL_MODELS: dict[str, GnlModel] = {
    **{f"gnl_resnet{depth}": GnlModel(f"resnet{depth}") for depth in (50, 101)},
    **{
        f"gnl_std_r{ratio}_resnet{depth}": GnlModel(f"resnet{depth}", ratio, sparse=False)
        for ratio in (2, 4)
        for depth in (50, 101)
    },
    "mobilenetv2_gnl_100": GnlModel("mobilenetv2_100"),
    **{
        f"mobilenetv3_gnl_{size}_{width}": GnlModel(f"mobilenetv3_{size}_{width}")
        for size in ("large", "small")
        for width in ("075", "100")
    },
    **{f"efficientnet_gnl_{kind}": GnlModel(f"efficientnet_{kind}") for kind in ("b0", "lite0", "es")},
    "efficientnetv2_gnl_s": GnlModel("efficientnetv2_s"),
}
"""Registered name -> definition."""

# The first blocks of later stages have stride 2 in conv2, which stays unconverted. They are matched by name, because
# `output_stride` turns the stride into a dilation, and checkpoints must fit for every output stride.
_BOTTLENECK_CONV = re.compile(r"(?:.*\.)?layer(?:1\.0|\d+\.[1-9]\d*)\.conv2")


def _is_bottleneck_conv(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Conv2d) and bool(_BOTTLENECK_CONV.fullmatch(name))


def _entrypoint(name: str, spec: GnlModel) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        *,
        variant: str = "paper",
        scope: str = "reference",
        nlf_groups: int = 4,
        normalize: str | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> nn.Module:
        if pretrained:
            raise ConfigError(
                f"{name} has no published weights; build it with pretrained=False and train it, or build it with "
                "variant='reference' and load a checkpoint of the public code with load_state_dict"
            )
        options: dict[str, Any] = {} if normalize is None else {"normalize": normalize}
        # Depthwise convolutions always become sparse layers, whatever `sparse` is; pointwise ones become dense layers.
        config = GroupNLConfig.paper(
            scope=scope,
            reduction_ratio=spec.reduction_ratio,
            sparse=spec.sparse and scope != "pointwise",
            nlf_groups=nlf_groups,
            variant=variant,
            **options,
        )
        model = timm.create_model(spec.base, pretrained=False, **kwargs)
        by_name = scope == "reference" and spec.base.startswith("resnet")
        convert_(model, config, filter_fn=_is_bottleneck_conv if by_name else None, seed=seed)
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""timm's {spec.base} with GroupNL layers (r = {spec.reduction_ratio}).

    Args:
        pretrained: must be false, because there are no published weights.
        variant: "paper", or "reference" for the formula and the state_dict keys of the public code.
        scope: "reference" replaces the layers that the public code replaces; "pointwise" and "paper" as in convert_.
        nlf_groups, normalize: of the layers.
        seed: 64-bit model seed.
        kwargs: timm's arguments of {spec.base}.

    Raises:
        ConfigError: if ``pretrained`` is true.
        ConversionError: if no layer can be replaced with timm's arguments, or one of the layers cannot.
    """
    return build


for _name, _spec in GNL_MODELS.items():
    # timm looks up the function in this module, and adds its name to __all__.
    globals()[_name] = register_model(_entrypoint(_name, _spec))


class TimmModel(NamedTuple):
    """A trained timm network: the module, the size (C, H, W) of its images, and their mean and standard deviation."""

    module: nn.Module
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def trained_timm_model(name: str, weights: Path | None = None, *, num_classes: int | None = None) -> TimmModel:
    """Load a timm network with weights, in eval mode.

    Args:
        name: a name that timm knows, including ours (``gnl_resnet50``).
        weights: a file that timm can read (safetensors or a state dict); None for timm's own weights, which are
            downloaded to its cache.
        num_classes: number of classes of the network in ``weights``; None for the default.

    Raises:
        ConfigError: if there is no such network, or it has no published weights.
        DataError: if the weights cannot be loaded, or do not fit.
    """
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}; {did_you_mean(name, timm.list_models())}")
    options: dict[str, Any] = {} if num_classes is None or weights is None else {"num_classes": num_classes}
    if weights is not None and not weights.is_file():
        raise DataError(f"there is no file {weights}")
    try:
        model = timm.create_model(name, pretrained=weights is None, **options)
        if weights is not None:
            load_checkpoint(model, str(weights))
    except ConfigError:
        raise
    except Exception as error:  # hub, network, pickle and shape errors share no base class
        told = "timm's weights" if weights is None else f"the weights in {weights}"
        raise DataError(f"{told} of {name} cannot be loaded: {type(error).__name__}: {error}") from error
    about = resolve_model_data_config(model)
    channels, height, width = about["input_size"]
    return TimmModel(model.eval(), (channels, height, width), tuple(about["mean"]), tuple(about["std"]))


def timm_features(
    name: str, strides: Sequence[int], in_chans: int = 3, *, frozen: bool = False
) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a timm network with fresh weights that gives its maps at some strides.

    Args:
        name: a name that timm knows, including ours.
        strides: of the maps, in their order; of several maps at one stride the last is taken.
        in_chans: channels of the images.
        frozen: replace its BatchNorms by ones with fixed numbers.

    Returns:
        The network, which gives a list of maps [N, C, H, W], and the channels of each.

    Raises:
        ConfigError: if timm has no such network, it gives no maps, or none at one of the strides.
        ValueError: if ``frozen`` has no effect.
    """
    if not timm.is_model(name):
        raise ConfigError(f"backbone (={name!r}): timm has no such network; {did_you_mean(name, timm.list_models())}")
    try:
        with torch.device("meta"):
            trial: Any = timm.create_model(name, features_only=True, in_chans=in_chans)
        reductions = trial.feature_info.reduction()
    except Exception as error:  # timm's networks raise whatever an option leads to
        raise ConfigError(f"backbone (={name!r}) gives no maps: {type(error).__name__}: {error}") from error
    if missing := [stride for stride in strides if stride not in reductions]:
        told = ", ".join(map(str, reductions))
        raise ConfigError(f"backbone (={name!r}) has maps at strides {told}, but none at {missing[0]}")
    kept = tuple(max(i for i, found in enumerate(reductions) if found == stride) for stride in strides)
    model: Any = timm.create_model(name, features_only=True, in_chans=in_chans, out_indices=kept)
    channels = tuple(model.feature_info.channels())
    with torch.no_grad():
        side = 2 * max(strides)
        maps = copy_without_weights(model).eval()(torch.empty(1, in_chans, side, side, device="meta"))
    if any(each.dim() != 4 or each.shape[1] != count for each, count in zip(maps, channels, strict=True)):
        raise ConfigError(f"backbone (={name!r}) gives maps that are not [N, C, H, W]")
    if frozen:
        if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            raise ValueError(f"`norm` (='frozen') has no effect on backbone {name!r}, which has no BatchNorm")
        freeze_batch_norm_2d(model)
    return model, channels
