"""Small plain networks for 32x32 images that pool early, so that most of their work is on small maps.

The blocks are those of Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU" (2024), Section 3, with ReLU for GELU
and without the separate whitening layer (``TrainConfig.whiten_stem`` whitens the first convolution).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from seedcnn.models._checks import check_sizes, check_stages

__all__ = ["AirCifar"]


def _block(in_channels: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


class AirCifar(nn.Module):
    """Three blocks of two 3x3 convolutions; the first convolution of a block is pooled before its norm.

    Args:
        widths: channels of each block.
        num_classes: size of the output.

    Shape:
        [N, 3, H, W] with H and W multiples of 8, to logits [N, num_classes].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(self, widths: Sequence[int], num_classes: int = 10) -> None:
        super().__init__()
        check_stages(3, widths=widths)
        check_sizes(num_classes=num_classes)
        first, second, third = widths
        self.features = nn.Sequential(*_block(3, first), *_block(first, second), *_block(second, third))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(third, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        return self.fc(self.flatten(self.pool(self.features(x))))
