"""Detectors with a feature pyramid: torchvision's Faster R-CNN, RetinaNet and FCOS on the bodies of dense networks.

Three things differ from torchvision's own builders. ``num_classes`` does not count a background, and labels are
0 .. num_classes - 1 in targets and answers alike. Images are the network's input as they are: one rule
(``Preprocessing``) has resized and normalised them before, so that the device does the same; a batch is only padded,
to multiples of 32. And RetinaNet's and FCOS's P6 and P7 come from P5, with ``pyramid`` channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import detection as torchvision_detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from seedcnn.models._checks import check_sizes
from seedcnn.models.bodies import build_body

__all__ = ["FCOS", "AsGiven", "FasterRCNN", "PyramidBackbone", "RetinaNet"]

_GROUPS = 32  # of the norms in torchvision's FCOS heads


class PyramidBackbone(nn.Module):
    """A body and the feature pyramid over its last maps (Lin et al., CVPR 2017).

    Args:
        body: gives a list of maps.
        channels: of these maps.
        pyramid: channels of every level.
        levels: number of maps that the pyramid stands on, counted from the coarsest.
        extra: makes the levels above.

    Shape:
        [N, C, H, W] to the levels by name, each [N, pyramid, H / stride, W / stride].
    """

    def __init__(
        self, body: nn.Module, channels: Sequence[int], pyramid: int, levels: int, extra: ExtraFPNBlock
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(channels[-levels:]), pyramid, extra)
        self.out_channels = pyramid
        self.levels = levels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels, the finest first."""
        maps = self.body(x)[-self.levels :]
        found: dict[str, Tensor] = self.fpn(OrderedDict((str(i), each) for i, each in enumerate(maps)))
        return found


class AsGiven(GeneralizedRCNNTransform):
    """Images and targets as they are given; a batch is padded at the right and below, to multiples of 32."""

    def __init__(self) -> None:
        super().__init__(0, 0, [], [])

    def normalize(self, image: Tensor) -> Tensor:
        """Return the image."""
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return image and target."""
        return image, target

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size_divisible={self.size_divisible})"


class _Detector(nn.Module):
    """Labels from 0, and targets that are checked; stands before torchvision's class."""

    background = 0  # labels that the network puts before the classes
    num_classes: int

    def forward(self, images: Sequence[Tensor] | Tensor, targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        """Detect, or in training mode return the losses.

        Args:
            images: [N, C, H, W], or N images [C, H, W] of any sizes, normalised.
            targets: for each image "boxes" [n, 4] (x1, y1, x2, y2, pixels) and "labels" [n], int64 from 0; n may be 0.

        Returns:
            In training mode the losses by name; else for each image "boxes" [n, 4], "labels" [n] from 0, "scores" [n].

        Raises:
            ValueError: in training mode without targets, or if there are fewer targets than images, or a label is no
                class.
        """
        if self.training and targets is None:
            raise ValueError("`targets` is None; in training mode the network needs boxes and labels for each image")
        if targets is not None:
            if len(targets) != len(images):
                raise ValueError(
                    f"`targets` holds {len(targets)} entries for {len(images)} images; it must hold one each"
                )
            targets = [self._target(index, target) for index, target in enumerate(targets)]
        found: Any = super().forward(images, targets)  # type: ignore[misc]
        if self.training or not self.background:
            return found
        return [{**each, "labels": each["labels"] - self.background} for each in found]

    def _target(self, index: int, target: dict[str, Tensor]) -> dict[str, Tensor]:
        labels = target["labels"]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            wrong = labels[(labels < 0) | (labels >= self.num_classes)][0]
            raise ValueError(
                f"`targets[{index}]` has the label {int(wrong)}; labels must be 0 to {self.num_classes - 1}, "
                "without a background"
            )
        return {**target, "labels": labels + self.background}


class FasterRCNN(_Detector, torchvision_detection.FasterRCNN):
    """Faster R-CNN (Ren et al., NeurIPS 2015) with a feature pyramid of strides 4 to 64 (Lin et al., CVPR 2017).

    Args:
        widths: planes of the stages of a ResNet body; None for its own.
        num_classes: without the background, which the box head adds.
        backbone, in_chans, norm: see :func:`seedcnn.models.bodies.build_body`.
        pyramid: channels of every level.

    Raises:
        ConfigError: if the backbone does not exist or has no fitting maps.
        ValueError: naming the argument, its value and the rule.
    """

    background = 1

    def __init__(
        self,
        widths: Sequence[int] | None = None,
        num_classes: int = 80,
        *,
        backbone: str = "resnet18",
        pyramid: int = 256,
        norm: str = "batch",
        in_chans: int = 3,
    ) -> None:
        check_sizes(num_classes=num_classes, pyramid=pyramid)
        body, channels = build_body(backbone, widths, in_chans=in_chans, norm=norm)
        super().__init__(PyramidBackbone(body, channels, pyramid, 4, LastLevelMaxPool()), num_classes + 1)
        self.num_classes, self.transform = num_classes, AsGiven()


class RetinaNet(_Detector, torchvision_detection.RetinaNet):
    """RetinaNet (Lin et al., ICCV 2017) with strides 8 to 128; P6 and P7 come from P5.

    Args:
        widths, num_classes, backbone, pyramid, norm, in_chans: as for :class:`FasterRCNN`, without a background.

    Raises:
        ConfigError: if the backbone does not exist or has no fitting maps.
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        widths: Sequence[int] | None = None,
        num_classes: int = 80,
        *,
        backbone: str = "resnet18",
        pyramid: int = 256,
        norm: str = "batch",
        in_chans: int = 3,
    ) -> None:
        check_sizes(num_classes=num_classes, pyramid=pyramid)
        body, channels = build_body(backbone, widths, in_chans=in_chans, norm=norm)
        super().__init__(PyramidBackbone(body, channels, pyramid, 3, LastLevelP6P7(pyramid, pyramid)), num_classes)
        self.num_classes, self.transform = num_classes, AsGiven()


class FCOS(_Detector, torchvision_detection.FCOS):
    """FCOS (Tian et al., ICCV 2019) with strides 8 to 128; P6 and P7 come from P5.

    Args:
        widths, num_classes, backbone, norm, in_chans: as for :class:`FasterRCNN`, without a background.
        pyramid: channels of every level, a multiple of 32 from 64 on: its heads' norms have 32 groups.

    Raises:
        ConfigError: if the backbone does not exist or has no fitting maps.
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        widths: Sequence[int] | None = None,
        num_classes: int = 80,
        *,
        backbone: str = "resnet18",
        pyramid: int = 256,
        norm: str = "batch",
        in_chans: int = 3,
    ) -> None:
        check_sizes(num_classes=num_classes, pyramid=pyramid)
        if pyramid % _GROUPS or pyramid == _GROUPS:  # a group of one channel has one number in a level of 1x1
            raise ValueError(
                f"`pyramid` (={pyramid}) must be a multiple of {_GROUPS}, the groups of the heads' norms, from 64 on"
            )
        body, channels = build_body(backbone, widths, in_chans=in_chans, norm=norm)
        super().__init__(PyramidBackbone(body, channels, pyramid, 3, LastLevelP6P7(pyramid, pyramid)), num_classes)
        self.num_classes, self.transform = num_classes, AsGiven()
