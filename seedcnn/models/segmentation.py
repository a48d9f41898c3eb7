"""Segmenters with a feature pyramid, with the layers and counts of the two usual libraries.

:class:`PyramidSegmenter` is the FPN of segmentation-models-pytorch (Kirillov and Dollar's COCO 2017 slides) and
:class:`SemanticPyramid` the Semantic FPN of mmsegmentation (Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR
2019, Section 3). Both take images of any size: maps are resized to the size of the map that they join, not by a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.models._checks import check_sizes
from seedcnn.models.bodies import build_body

__all__ = ["PyramidSegmenter", "SemanticPyramid"]

_PER_GROUP = 4  # channels in a group of the norms: 32 groups of the published 128 channels


def _bilinear(x: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


class _Neck(nn.Module):
    """Lateral 1x1 convolutions, summed from the coarsest to the finest map; ``smooth`` adds a 3x3 convolution each."""

    def __init__(self, channels: Sequence[int], pyramid: int, smooth: bool) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, pyramid, 1) for each in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in channels) if smooth else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            finer = levels[index]
            levels[index] = finer + F.interpolate(levels[index + 1], size=finer.shape[-2:], mode="nearest")
        if self.smooth is None:
            return levels
        return [smooth(each) for smooth, each in zip(self.smooth, levels, strict=True)]


class _Head(nn.Module):
    """Convolutions that bring every level to the finest one's size, summed.

    A level that is k steps coarser has max(1, k) convolutions, each followed by a resize to the next finer level.
    """

    def __init__(self, pyramid: int, channels: int, norm: str, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.levels = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(pyramid if not index else channels, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels // _PER_GROUP, channels),
                    nn.ReLU(inplace=True),
                )
                for index in range(max(1, level))
            )
            for level in range(4)
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        summands = []
        for level, x in enumerate(levels):
            for index, block in enumerate(self.levels[level].children()):
                x = block(x)
                if level:
                    x = _bilinear(x, levels[level - index - 1], self.align_corners)
            summands.append(x)
        return summands[0] + summands[1] + summands[2] + summands[3]


class _Segmenter(nn.Module):
    """A body, a neck, a head and a classifier at stride 4, whose logits are resized to the image."""

    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "backbone": ("backbone",),
        "neck": ("neck",),
        "head": ("head",),
        "predicts": ("classifier",),
    }
    _smooth: ClassVar[bool]
    _norm: ClassVar[str]
    _align_corners: ClassVar[bool]
    _dropout: ClassVar[float]

    def __init__(
        self,
        widths: Sequence[int] | None = None,
        num_classes: int = 19,
        *,
        backbone: str = "resnet18",
        pyramid: int = 256,
        norm: str = "batch",
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, pyramid=pyramid)
        if pyramid % (2 * _PER_GROUP):
            raise ValueError(f"`pyramid` (={pyramid}) must be divisible by {2 * _PER_GROUP}")
        self.num_classes = num_classes
        self.backbone, channels = build_body(backbone, widths, in_chans=in_chans, norm=norm)
        self.neck = _Neck(channels, pyramid, self._smooth)
        self.head = _Head(pyramid, pyramid // 2, self._norm, self._align_corners)
        self.dropout = nn.Dropout2d(self._dropout)
        self.classifier = nn.Conv2d(pyramid // 2, num_classes, 1)
        for part in (self.neck, self.head):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=1)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def stride4(self, x: Tensor) -> Tensor:
        """[N, in_chans, H, W] to logits [N, num_classes, H / 4, W / 4], with sides rounded up."""
        return self.classifier(self.dropout(self.head(self.neck(self.backbone(x)))))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_chans, H, W] to logits [N, num_classes, H, W]."""
        return _bilinear(self.stride4(x), x, self._align_corners)


class PyramidSegmenter(_Segmenter):
    """The FPN of segmentation-models-pytorch: lateral maps without smoothing, a head with GroupNorm.

    Args:
        widths: planes of the stages of a ResNet body; None for its own.
        num_classes: channels of the logits; a background is a class like any other if the masks have one.
        backbone, in_chans, norm: see :func:`seedcnn.models.bodies.build_body`; ``norm`` is that of the body.
        pyramid: channels of every level, a multiple of 8; the head has half of them.

    Shape:
        [N, in_chans, H, W] to logits [N, num_classes, H, W].

    Raises:
        ConfigError: if the backbone does not exist or has no fitting maps.
        ValueError: naming the argument, its value and the rule.
    """

    _smooth, _norm, _align_corners, _dropout = False, "group", True, 0.2


class SemanticPyramid(_Segmenter):
    """The Semantic FPN of mmsegmentation: smoothed levels, a head with BatchNorm.

    Args, shape and errors as for :class:`PyramidSegmenter`.
    """

    _smooth, _norm, _align_corners, _dropout = True, "batch", False, 0.1
