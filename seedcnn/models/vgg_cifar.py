"""VGG11 for 32x32 images, with BatchNorm after each convolution, without convolution biases, with one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from seedcnn.models._checks import check_sizes, check_stages

__all__ = ["VGG11_PLAN", "VGGCifar"]

VGG11_PLAN = (1, 1, 2, 2, 2)


class VGGCifar(nn.Module):
    """A plain stack of 3x3 convolutions.

    Args:
        depths: number of convolutions of each stage; a 2x2 max pooling ends each stage.
        widths: channels of each stage.
        num_classes: size of the output.

    Shape:
        [N, 3, H, W] with H and W multiples of 2 ** len(depths), to logits [N, num_classes].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int], num_classes: int = 10) -> None:
        super().__init__()
        check_stages(len(depths), depths=depths, widths=widths)
        check_sizes(num_classes=num_classes)
        layers: list[nn.Module] = []
        channels = 3
        for depth, width in zip(depths, widths, strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        return self.fc(self.flatten(self.pool(self.features(x))))
