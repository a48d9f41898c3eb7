"""Residual networks for 32x32 images.

ResNet-18/34/101 have four stages of 64..512 channels, as the GroupNL and MonoCNN tables count them (3x3 stem, no max
pooling, projection shortcuts). The small ResNet-8/20/56 have three stages of 16, 32 and 64 channels (He et al., 2016,
Section 4.2, but with projection shortcuts).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from seedcnn.models._checks import check_sizes, check_stages

__all__ = ["BasicBlock", "Bottleneck", "ResNetCifar"]


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, planes, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last with four times as many planes, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, 4 * planes, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


class ResNetCifar(nn.Module):
    """A residual network for small images.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        depths: number of blocks of each stage; every stage except the first starts with stride 2.
        widths: planes of each stage.
        num_classes: size of the output.
        patch: 1 for the usual 3x3 stem with stride 1; p > 1 for a p x p stem with stride p, which divides the side of
            every feature map by p (a cheap stem for short training runs on a CPU).
        zero_init_residual: initialise the last norm of each block with 0, so that each block starts as its shortcut
            (Goyal et al., 2017, Section 5.1); deep networks with seed filters then tolerate larger learning rates.

    Shape:
        [N, 3, H, W] to logits [N, num_classes].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        num_classes: int = 10,
        patch: int = 1,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        check_stages(len(depths), depths=depths, widths=widths)
        check_sizes(num_classes=num_classes, patch=patch)
        if patch == 1:
            self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, widths[0], patch, patch, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        channels = widths[0]
        stages = []
        for stage, (depth, planes) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for index in range(depth):
                blocks.append(block(channels, planes, 2 if stage and not index else 1))
                channels = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(channels, num_classes)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, (BasicBlock, Bottleneck)):
                    nn.init.zeros_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.flatten(self.pool(self.stages(x))))
