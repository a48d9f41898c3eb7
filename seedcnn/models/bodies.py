"""Bodies of dense networks: four maps at strides 4, 8, 16 and 32 from a ResNet, or a network of timm or torchvision.

The ResNets have the stages of He et al. (2016), Table 1, and torchvision's and timm's names of parameters, so that
checkpoints of either fit; unlike those they can be narrowed, stem included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1
from torchvision.ops import FrozenBatchNorm2d

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.models._checks import check_sizes, check_stages

__all__ = ["NORMS", "RESNETS", "STRIDES", "Body", "ResNetBody", "build_body"]

STRIDES = (4, 8, 16, 32)
NORMS = ("batch", "frozen")
RESNETS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
"""Backbones that can be narrowed, and have one definition whether timm is installed or not."""
_WIDTHS = (64, 128, 256, 512)
_TORCHVISION = "torchvision:"


class Body(NamedTuple):
    """A network that gives four maps, [N, channels[i], H / STRIDES[i], W / STRIDES[i]], and their channels."""

    module: nn.Module
    channels: tuple[int, ...]


class ResNetBody(nn.Module):
    """A ResNet without its classifier.

    Args:
        name: a key of :data:`RESNETS`.
        widths: planes of the four stages; the stem has the first stage's.
        in_chans: channels of the images.
        norm_layer: makes a norm from its number of channels.

    Shape:
        [N, in_chans, H, W] to four maps of 4, 8, 16 and 32 times smaller sides, rounded up.
    """

    def __init__(
        self,
        name: str,
        widths: Sequence[int] = _WIDTHS,
        in_chans: int = 3,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        block, depths = RESNETS[name]
        check_stages(4, widths=widths)
        self.conv1 = nn.Conv2d(in_chans, widths[0], 7, 2, 3, bias=False)
        self.bn1 = norm_layer(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = widths[0]
        for stage, (depth, planes) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for index in range(depth):
                stride = 2 if stage and not index else 1
                shortcut = None
                if stride > 1 or channels != planes * block.expansion:
                    out = planes * block.expansion
                    shortcut = nn.Sequential(conv1x1(channels, out, stride), norm_layer(out))
                blocks.append(block(channels, planes, stride, shortcut, norm_layer=norm_layer))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = tuple(planes * block.expansion for planes in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, in_chans, H, W] to four maps, the finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
            maps.append(x)
        return maps


class _Chain(nn.Module):
    """The stages of a torchvision network, called one after another; some of their outputs are the maps.

    ``inside`` keeps torchvision's names of parameters where the stages are children of one module.
    """

    def __init__(self, stages: dict[str, nn.Module], inside: str, kept: Iterable[int]) -> None:
        super().__init__()
        self.stages = [f"{inside}.{name}" if inside else name for name in stages]
        home = nn.Module() if inside else self
        for name, stage in stages.items():
            home.add_module(name, stage)
        if inside:
            self.add_module(inside, home)
        self.kept = frozenset(kept)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, name in enumerate(self.stages):
            x = self.get_submodule(name)(x)
            if index in self.kept:
                maps.append(x)
        return maps


def _meta_shapes(stages: Iterable[nn.Module], in_chans: int, side: int = 64) -> list[tuple[int, ...]]:
    """Shape of each stage's output for an image of ``side`` pixels, from a pass without numbers."""
    shapes = []
    x = torch.empty(1, in_chans, side, side, device="meta")
    with torch.no_grad():
        for stage in stages:
            x = stage(x)
            shapes.append(tuple(x.shape))
    return shapes


def _last_of_each_stride(strides: Sequence[float], name: str) -> list[int]:
    found = [max((i for i, stride in enumerate(strides) if stride == wanted), default=-1) for wanted in STRIDES]
    if -1 in found:
        told = ", ".join(f"{stride:g}" for stride in strides)
        raise ConfigError(
            f"backbone (={name!r}) has maps at strides {told}; a pyramid needs 4, 8, 16 and 32 among them"
        )
    return found


def _of_torchvision(name: str, in_chans: int) -> Body:
    plain = name.removeprefix(_TORCHVISION)
    known = models.list_models(module=models)
    if plain not in known:
        raise ConfigError(f"backbone (={name!r}): torchvision has no network {plain!r}; {did_you_mean(plain, known)}")
    if in_chans != 3:
        raise ValueError(f"`in_chans` (={in_chans}) must be 3 with backbone {name!r}: torchvision's take colour images")

    def build() -> tuple[dict[str, nn.Module], str]:
        whole: Any = models.get_model(plain, weights=None)
        if isinstance(getattr(whole, "features", None), nn.Sequential):
            return dict(whole.features.named_children()), "features"
        children = dict(whole.named_children())
        if "layer4" not in children:
            raise ConfigError(
                f"backbone (={name!r}): {type(whole).__name__} is neither a ResNet nor a chain of `features`; "
                "take such a network from timm"
            )
        last = list(children).index("layer4")
        return dict(list(children.items())[: last + 1]), ""

    with torch.device("meta"):
        shapes = _meta_shapes(build()[0].values(), in_chans)
    if any(len(shape) != 4 or shape[2] * shape[1] == 0 or shape[2] != shape[3] for shape in shapes):
        raise ConfigError(f"backbone (={name!r}) has stages whose outputs are no maps [N, C, H, W]")
    kept = _last_of_each_stride([64 / shape[2] for shape in shapes], name)
    stages, inside = build()
    stages = dict(list(stages.items())[: kept[-1] + 1])
    return Body(_Chain(stages, inside, kept), tuple(shapes[index][1] for index in kept))


def _frozen(module: nn.Module) -> nn.Module:
    """Return a network whose BatchNorms are fixed: the same numbers, none of which learns."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        frozen.load_state_dict({key: value for key, value in module.state_dict().items() if value.dim()})
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _frozen(child))
    return module


def _of_timm(name: str, in_chans: int, norm: str) -> Body:
    if find_spec("timm") is None:
        known = ", ".join(RESNETS)
        raise ConfigError(f"backbone (={name!r}) is none of {known}, and timm is not installed")
    from seedcnn.models.timm_registry import timm_features

    return Body(*timm_features(name, STRIDES, in_chans, frozen=norm == "frozen"))


def build_body(name: str, widths: Sequence[int] | None = None, *, in_chans: int = 3, norm: str = "batch") -> Body:
    """Build a body with fresh weights.

    Args:
        name: a key of :data:`RESNETS`, a name of timm's, or "torchvision:NAME".
        widths: planes of the four stages of a ResNet; None for its own.
        in_chans: channels of the images.
        norm: "batch" as the network has it, or "frozen": BatchNorms with fixed numbers.

    Raises:
        ConfigError: if there is no such network, or it has no maps at strides 4, 8, 16 and 32.
        ValueError: naming the argument, its value and the rule.
    """
    check_sizes(in_chans=in_chans)
    if norm not in NORMS:
        raise ValueError(f"`norm` (={norm!r}) must be one of {', '.join(map(repr, NORMS))}")
    if name in RESNETS:
        layer = nn.BatchNorm2d if norm == "batch" else FrozenBatchNorm2d
        resnet = ResNetBody(name, _WIDTHS if widths is None else widths, in_chans, layer)
        return Body(resnet, resnet.channels)
    if widths is not None:
        raise ValueError(
            f"`widths` (={tuple(widths)}) and `width` go with the backbones {', '.join(RESNETS)}, not with {name!r}"
        )
    if not name.startswith(_TORCHVISION):
        return _of_timm(name, in_chans, norm)
    found = _of_torchvision(name, in_chans)
    if norm == "frozen":
        if not any(isinstance(module, nn.BatchNorm2d) for module in found.module.modules()):
            raise ValueError(f"`norm` (='frozen') has no effect on backbone {name!r}, which has no BatchNorm")
        _frozen(found.module)
    return found
