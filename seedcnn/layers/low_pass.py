"""A fixed low-pass filter before a layer: the binomial 3x3 filter, whose numbers are known and never travel."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

__all__ = ["LowPass", "LowPassed", "binomial", "filters_its_input", "low_pass_", "plain_", "plain_type"]


def binomial(x: Tensor, stride: int | tuple[int, int] = 1) -> Tensor:
    """Convolve each channel with [1 2 1] x [1 2 1] / 16; beyond the border the border's pixels go on.

    So an even map stays even up to its border, and the mean of any map stays what it was (with zeros or reflection it
    would not). The weights are exact in float16 and bfloat16, too; they are made here from whole numbers, so that an
    exported graph makes them itself.

    Args:
        x: [..., C, H, W].
        stride: one for both axes, or (down, right).

    Returns:
        [..., C, H', W'] with H' = ceil(H / stride), as W'; in autocast's dtype.
    """
    channels = x.shape[-3]
    taps = 1 + (torch.arange(3, device=x.device) == 1).to(x.dtype)
    weight = (taps[:, None] * taps / 16).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, None, stride, groups=channels)


fx.wrap("binomial")  # one node of a traced graph


class LowPass(nn.Module):
    """The binomial 3x3 low-pass filter as a layer of one's own network, without any number that is learned or stored.

    Args:
        stride: of the filter; 2 makes it the BlurPool of Zhang (ICML 2019) with three taps.

    Shape:
        [..., C, H, W] to [..., C, ceil(H / stride), ceil(W / stride)].

    Raises:
        ValueError: if ``stride`` is not a positive integer.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise ValueError(f"`stride` (={stride!r}) must be a positive integer")
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Filter [..., C, H, W]."""
        return binomial(x, self.stride)

    def extra_repr(self) -> str:
        """Return the stride."""
        return f"stride={self.stride}"


class LowPassed(nn.Module):
    """Base of the classes of layers with a low-pass filter; :func:`low_pass_` makes them as they are needed.

    The layer keeps its name, its tensors and its attributes. It is still an instance of its own class.
    """

    plain: type[nn.Module]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle and copy by the class it had."""
        return _empty, (self.plain,), self.__dict__


class _Before(LowPassed):
    """A layer that filters its input first."""

    def forward(self, input: Tensor, *args: Any, **options: Any) -> Any:
        """Filter the input [..., C, H, W], and do what the layer does."""
        return super().forward(binomial(input), *args, **options)


class _BetweenPoolAndStride(LowPassed):
    """A max pooling whose maxima are filtered before all but every ``stride``-th are dropped."""

    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., C, H, W] to the size that the pooling has."""
        maxima = F.max_pool2d(input, self.kernel_size, 1, self.padding, self.dilation)
        return binomial(maxima, self.stride)


@cache
def _with_filter(kind: type[nn.Module]) -> type[nn.Module]:
    base = _BetweenPoolAndStride if issubclass(kind, nn.MaxPool2d) else _Before
    return type(f"LowPassed{kind.__name__}", (base, kind), {"plain": kind, "__module__": __name__})


def _empty(kind: type[nn.Module]) -> nn.Module:
    hashable: Any = kind
    low_passed = _with_filter(hashable)
    made: nn.Module = low_passed.__new__(low_passed)
    return made


def plain_type(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module, as it was without a low-pass filter."""
    return module.plain if isinstance(module, LowPassed) else type(module)


def filters_its_input(module: nn.Module) -> bool:
    """Return whether a module is a layer with a low-pass filter before it, and no pooling."""
    return isinstance(module, _Before)


def low_pass_(layer: nn.Module) -> None:
    """Give a layer a low-pass filter, in place: before a convolution, between the maxima and the stride of a pooling.

    :func:`seedcnn.convert.lowpass_` chooses and checks the layers of a network.
    """
    if not isinstance(layer, LowPassed):
        kind: Any = type(layer)
        layer.__class__ = _with_filter(kind)


def plain_(layer: nn.Module) -> None:
    """Take a layer's low-pass filter away, in place."""
    layer.__class__ = plain_type(layer)
