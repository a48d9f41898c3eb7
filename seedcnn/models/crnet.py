"""CRnet: residual networks whose 1x1 convolutions are replaced by Conditional Reduction (CR).

CRnet-CB consists of C-Bnecks (narrow inside and wide outside, like a ResNet bottleneck), CRnet-CIB of C-IBnecks (wide
inside, like an inverted bottleneck with squeeze-excite). Both take 32x32 images. The published counts of parameters and
FLOPs determine every convolution, norm and bias, but not the positions of the ReLUs, the gate of the squeeze-excite, or
whether channels are shuffled. We choose a ReLU in the first CR of a block but not in the second, a ReLU after the
addition only in CRnet-CB, a hard sigmoid gate, and no shuffle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from seedcnn.layers import ConditionalReductionConv2d
from seedcnn.models._checks import check_sizes, check_stages

__all__ = ["STRATEGIES", "CRBlock", "CRNetCB", "CRNetCIB"]

STRATEGIES = ("auto", "c1dw-c1dw", "c1dw-gc", "gc-c1dw", "gc-gc")
"""The replacements of the first and the second 1x1 convolution of a block: "c1dw" (1x1 + depthwise), "gc" (grouped
1x1), or "auto" (the CR rule: c1dw if the number of channels grows, else gc)."""

# (stage, squeeze-excite, depthwise kernel) of the sixteen C-IBnecks. The first block of the second and of the third
# stage has stride 2.
_CIB_PLAN = (
    *[(0, False, 3)] * 3,
    *[(0, True, 5)] * 2,
    (1, False, 3),
    *[(1, False, 3)] * 3,
    *[(1, True, 3)] * 2,
    (2, True, 5),
    *[(2, False, 3), (2, True, 3)] * 2,
)
_CB_DEPTHS, _CIB_DEPTHS = (3, 4, 6, 3), (5, 6, 5)
_CB_STRIDES = (1, 2, 1, 2)


class _SqueezeExcite(nn.Module):
    """Channel gates from pooled maps: 1x1 to a quarter of the channels, ReLU, 1x1 back, hard sigmoid; with biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(inner, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class CRBlock(nn.Module):
    """CR, an optional depthwise convolution, optional squeeze-excite, CR, and a shortcut.

    Args:
        in_channels, inner_channels, out_channels: channels of the input, inside the block, and of the output.
        stride: of the depthwise convolution and of the shortcut.
        kernel: kernel size of the depthwise convolutions in the block and in the shortcut.
        depthwise: whether the block has a depthwise convolution in the middle (required for a stride above 1).
        squeeze_excite: whether the block has channel gates.
        strategy, groups, alpha: see :class:`CRNetCB`.
        relu_after: whether a ReLU follows the addition.

    Shape:
        [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride].
    """

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        stride: int,
        kernel: int,
        depthwise: bool,
        squeeze_excite: bool,
        strategy: str,
        groups: int,
        alpha: float,
        relu_after: bool,
    ) -> None:
        super().__init__()
        if stride > 1 and not depthwise:
            raise ValueError(f"`stride` (={stride}) must be 1 if `depthwise` is False")
        first, second = ("auto", "auto") if strategy == "auto" else strategy.split("-")
        options: dict[str, Any] = {"groups": groups, "alpha": alpha}
        self.cr1 = ConditionalReductionConv2d(in_channels, inner_channels, 1, mode=first, relu=True, **options)
        self.depthwise = _depthwise(inner_channels, kernel, stride) if depthwise else nn.Identity()
        self.se = _SqueezeExcite(inner_channels) if squeeze_excite else nn.Identity()
        self.cr2 = ConditionalReductionConv2d(inner_channels, out_channels, 1, mode=second, relu=False, **options)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            # As in GhostNet: a depthwise and a dense 1x1 convolution, each with a norm; never reduced.
            pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(
                *_depthwise(in_channels, kernel, stride), pointwise, nn.BatchNorm2d(out_channels)
            )
        self.relu = nn.ReLU(inplace=True) if relu_after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y = self.cr2(self.se(self.depthwise(self.cr1(x))))
        return self.relu(y + self.shortcut(x))


def _check(strategy: str, stages: int, widths: Sequence[int], depths: Sequence[int], **sizes: int) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` (={strategy!r}) must be one of {', '.join(map(repr, STRATEGIES))}")
    check_stages(stages, widths=widths, depths=depths)
    check_sizes(**sizes)


def _cib_plan(depths: Sequence[int]) -> list[tuple[int, bool, int]]:
    """The given number of blocks from each stage of the published plan, evenly spread from its first to its last."""
    plan = []
    for stage, (depth, published) in enumerate(zip(depths, _CIB_DEPTHS, strict=True)):
        if depth > published:
            raise ValueError(f"`depths` (={tuple(depths)}) must be at most {_CIB_DEPTHS}")
        blocks = [block for block in _CIB_PLAN if block[0] == stage]
        plan += [blocks[round(index * (published - 1) / max(1, depth - 1))] for index in range(depth)]
    return plan


def _stem(width: int, patch: int) -> nn.Sequential:
    kernel, padding = (3, 1) if patch == 1 else (patch, 0)
    conv = nn.Conv2d(3, width, kernel, patch, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class CRNetCB(nn.Module):
    """CRnet-CB: sixteen C-Bnecks in four stages of strides 1, 2, 1, 2 (dissertation, Tables 3-1 and 4-1 to 4-4).

    Args:
        num_classes: size of the output.
        widths: inner channels of the four stages; (16, 32, 32, 64) as published. The outer channels are ``expansion``
            times the inner ones, and the stem has ``widths[0]`` channels.
        strategy: one of :data:`STRATEGIES`; "auto" equals "gc-c1dw" here.
        expansion: ratio of outer to inner channels; 4 or 6 in the tables.
        groups: g of the grouped 1x1 convolutions; must divide every width.
        alpha: share of the output channels that a c1dw computes with the 1x1 convolution.
        depths: number of blocks of the four stages; (3, 4, 6, 3) as published.
        patch: 1 for the usual 3x3 stem with stride 1; p > 1 for a p x p stem with stride p, as in
            :class:`seedcnn.models.resnet_cifar.ResNetCifar`.

    Shape:
        [N, 3, H, W] to logits [N, num_classes].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 32, 64),
        *,
        strategy: str = "auto",
        expansion: int = 4,
        groups: int = 2,
        alpha: float = 0.5,
        depths: Sequence[int] = _CB_DEPTHS,
        patch: int = 1,
    ) -> None:
        super().__init__()
        _check(strategy, 4, widths, depths, expansion=expansion, groups=groups, num_classes=num_classes, patch=patch)
        self.stem = _stem(widths[0], patch)
        channels, stages = widths[0], []
        for width, depth, first_stride in zip(widths, depths, _CB_STRIDES, strict=True):
            blocks = []
            for stride in (first_stride, *[1] * (depth - 1)):
                block = CRBlock(
                    channels,
                    width,
                    width * expansion,
                    stride=stride,
                    kernel=3,
                    depthwise=True,
                    squeeze_excite=False,
                    strategy=strategy,
                    groups=groups,
                    alpha=alpha,
                    relu_after=True,
                )
                blocks.append(block)
                channels = width * expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        return self.fc(self.flatten(self.pool(self.stages(self.stem(x)))))


class CRNetCIB(nn.Module):
    """CRnet-CIB: sixteen C-IBnecks in three stages (dissertation, Tables 3-2 and 4-5 to 4-8).

    Only the two blocks of stride 2 have a depthwise convolution, as in GhostNet. The head is a 1x1 convolution to
    ``widths[2] * expansion`` channels, pooling, and a 1x1 convolution back to ``widths[2]`` with a bias.

    Args:
        num_classes, strategy, expansion, groups, alpha, patch: as in :class:`CRNetCB`; "auto" equals "c1dw-gc" here.
        widths: outer channels of the three stages; (16, 32, 64) as published. The inner channels of a block are
            ``expansion`` times its output channels.
        depths: number of blocks of the three stages, at most the published (5, 6, 5). With fewer blocks the first and
            the last of a stage remain, and with them the block of stride 2 and squeeze-excite.

    Shape:
        [N, 3, H, W] to logits [N, num_classes].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 64),
        *,
        strategy: str = "auto",
        expansion: int = 4,
        groups: int = 2,
        alpha: float = 0.5,
        depths: Sequence[int] = _CIB_DEPTHS,
        patch: int = 1,
    ) -> None:
        super().__init__()
        _check(strategy, 3, widths, depths, expansion=expansion, groups=groups, num_classes=num_classes, patch=patch)
        self.stem = _stem(widths[0], patch)
        plan = _cib_plan(depths)
        blocks = []
        for (before, _, _), (stage, squeeze_excite, kernel) in pairwise((plan[0], *plan)):
            opens = stage != before
            block = CRBlock(
                widths[before],
                widths[stage] * expansion,
                widths[stage],
                stride=2 if opens else 1,
                kernel=kernel,
                depthwise=opens,
                squeeze_excite=squeeze_excite,
                strategy=strategy,
                groups=groups,
                alpha=alpha,
                relu_after=False,
            )
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        wide, narrow = widths[2] * expansion, widths[2]
        self.tail = nn.Sequential(nn.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Conv2d(wide, narrow, 1), nn.ReLU(inplace=True))
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(narrow, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        x = self.tail(self.blocks(self.stem(x)))
        return self.fc(self.flatten(self.head(self.pool(x))))
