"""Base classes of the layers: ``nn.Conv2d``'s geometry, and the seed in the state_dict."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from seedcnn.layers._checks import IntPair, check_positive, pair_of
from seedcnn.layers._draws import Fixed, draw
from seedcnn.layers.targets import Form
from seedcnn.ops.sum_runs import sum_runs
from seedcnn.rng import to_int64

__all__ = ["ConvLayer", "SeededConv2d", "conv_like", "copy_leading_filters", "learnable_count", "slow_gradient"]


def slow_gradient(x: Tensor, stride: tuple[int, ...]) -> bool:
    """Return whether a depthwise convolution of ``x`` should run in float32.

    On the CPU under autocast, torch has no good kernel for the bfloat16 gradient of a strided depthwise convolution:
    it takes 20 to 60 times as long as float32's and loses channels_last.
    """
    training = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    return (
        training and any(step != 1 for step in stride) and x.device.type == "cpu"
    )  # a tracer never asks for the device


def conv_like(source: Any, in_channels: int, out_channels: int, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a new ``nn.Conv2d`` with the geometry, device and dtype of an ``nn.Conv2d`` or a :class:`ConvLayer`."""
    like = next(source.parameters(), torch.empty(0))
    return nn.Conv2d(
        in_channels,
        out_channels,
        source.kernel_size,
        source.stride,
        source.padding,
        source.dilation,
        groups,
        bias,
        source.padding_mode,
        device=like.device,
        dtype=like.dtype,
    )


@torch.no_grad()
def copy_leading_filters(part: Any, conv: nn.Conv2d) -> None:
    """Copy the first filters of the dense ``conv`` into ``part``, cut to the input channels that each group sees.

    Args:
        part: anything with ``weight``, ``bias``, ``in_channels``, ``out_channels`` and ``groups``; changed in place.
    """
    rows, seen = part.out_channels // part.groups, part.in_channels // part.groups
    blocks = [conv.weight[i * rows : (i + 1) * rows, i * seen : (i + 1) * seen] for i in range(part.groups)]
    part.weight.copy_(torch.cat(blocks))
    if part.bias is not None and conv.bias is not None:
        part.bias.copy_(conv.bias[: part.out_channels])


def learnable_count(module: nn.Module) -> int:
    """Count the learnable scalars of a module, except lazy parameters, which have no shape yet."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad and not is_lazy(p))


class ConvLayer(nn.Module):
    """Base of all layers: ``nn.Conv2d``'s geometry, checked and resolved, without weights.

    A family overrides the members that other rooms use: :meth:`inner_widths`, :meth:`nlf_evals`, :meth:`start_from`,
    :meth:`use_norm_after`, :meth:`folded` and :attr:`generates_filters`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode: as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    generates_filters: ClassVar[bool] = False
    """True if the layer convolves with filters that are not one of its parameters."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        # nn.Conv2d checks and resolves the geometry, padding="same" included; only the result is kept.
        rules = nn.Conv2d(
            1,
            1,
            pair_of("kernel_size", kernel_size, 1),
            pair_of("stride", stride, 1),
            padding if isinstance(padding, str) else pair_of("padding", padding, 0),
            pair_of("dilation", dilation, 1),
            padding_mode=cast("Any", padding_mode),
            device="meta",
        )
        self.kernel_size, self.stride, self.dilation = rules.kernel_size, rules.stride, rules.dilation
        self.padding: str | tuple[int, ...] = rules.padding
        self.padding_mode = padding_mode
        self._explicit_padding: list[int] = list(rules._reversed_padding_repeated_twice)

    def fixed(self) -> dict[str, Fixed]:
        """Return the tensors that travel as a seed, by attribute name; empty for a layer without a seed."""
        return {}

    def inner_widths(self) -> tuple[int, ...]:
        """Return the channel counts of the intermediate maps; empty if the layer computes its output directly."""
        return ()

    def nlf_evals(self, shape: tuple[int, ...]) -> int:  # noqa: ARG002
        """Count the evaluations of nonlinear functions per image, given the output's shape [..., H', W']."""
        return 0

    def start_from(self, conv: nn.Conv2d) -> None:
        """Copy what fits from the dense convolution that the layer replaces, in place.

        This default copies nothing: a layer with no use for dense weights keeps its fresh ones.

        Raises:
            ValueError: if the convolution's shape differs from the layer's.
        """

    def use_norm_after(self, norm: bool) -> None:
        """Note whether a norm follows the layer; a norm keeps the layer's output for the backward pass anyway."""

    def folded(self, norm: nn.BatchNorm2d | None, form: Form) -> nn.Module | None:  # noqa: ARG002
        """Return the layer and the norm after it in inference form, the same function in eval mode.

        Args:
            norm: the BatchNorm that is the only reader of the layer's output, or None.
            form: the requested form.

        Returns:
            A module on the CPU in float32, or None if the layer has no form of its own: a seeded layer then becomes a
            :class:`seedcnn.layers.forms.FoldedSeeded`; in any other layer, the convolutions and norms inside are
            folded one by one.
        """
        return None

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
        """Convolve with this layer's stride, padding, dilation and padding mode.

        Shape:
            [..., c, H, W], weight [o, c / groups, kh, kw] to [..., o, H', W'].

        Groups with one output each run as a depthwise convolution whose maps are added: the same function up to
        rounding, several times faster forward and backward.
        """
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._explicit_padding, mode=self.padding_mode), 0
        if groups < weight.shape[0] or groups == 1:
            return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, groups)
        if not slow_gradient(x, self.stride):
            return self._depthwise(x, weight, bias, padding)
        kept = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return self._depthwise(x.float(), weight, bias, padding).to(kept)

    def _depthwise(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        inputs = weight.shape[1]
        if inputs == 1:
            return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, x.shape[-3])
        # torch has no fast kernel for groups of several inputs and one output, but a good depthwise one.
        filters = weight.flatten(0, 1).unsqueeze(1)
        seeds = sum_runs(F.conv2d(x, filters, None, self.stride, padding, self.dilation, x.shape[-3]), inputs)
        return seeds if bias is None else seeds + bias.to(seeds.dtype)[:, None, None]

    def make_weight(self, out_channels: int, in_per_group: int, device: Any, dtype: Any) -> nn.Parameter:
        """Return filters [out_channels, in_per_group, kh, kw], initialised as in ``nn.Conv2d``."""
        weight = nn.Parameter(torch.empty(out_channels, in_per_group, *self.kernel_size, device=device, dtype=dtype))
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        return weight

    def make_bias(self, channels: int, fan_in: int, device: Any, dtype: Any) -> nn.Parameter:
        """Return a bias [channels], initialised as in ``nn.Conv2d``."""
        bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        bound = 1 / math.sqrt(fan_in)
        nn.init.uniform_(bias, -bound, bound)
        return bias

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults, as ``nn.Conv2d`` does."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding not in (0, (0, 0)):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class SeededConv2d(ConvLayer):
    """Base of the layers whose fixed numbers come from a seed.

    The state_dict holds ``seed``, the layer's own 64-bit seed as an int64 scalar, besides the learned tensors. Fixed
    numbers are plain attributes drawn from it by :meth:`draw_fixed`, so that no optimiser, ``requires_grad_`` call or
    DDP broadcast ever touches them; they stay float32 and follow the module's device. A subclass declares them in
    :meth:`fixed`, creates its parameters, then calls ``self.draw_fixed(device)`` at the end of its constructor.
    """

    def __init__(self, *geometry: Any, seed: int) -> None:
        super().__init__(*geometry)
        if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**64:
            raise ValueError(f"`seed` (={seed!r}) must be an integer in [0, 2**64)")
        self.seed: int = int(seed)

    def draw_fixed(self, device: torch.device) -> None:
        """Draw each tensor of :meth:`fixed` from ``self.seed`` onto ``device`` and set it as an attribute."""
        declared: Any = self.fixed()
        if not isinstance(declared, dict) or not all(isinstance(each, Fixed) for each in declared.values()):
            wrong = (
                declared
                if not isinstance(declared, dict)
                else next(each for each in declared.values() if not isinstance(each, Fixed))
            )
            raise TypeError(
                f"{type(self).__name__}.fixed() must return a dict of names and Fixed; it returns "
                f"{'' if wrong is declared else 'a dict with '}a {type(wrong).__name__}"
            )
        for name, each in declared.items():
            setattr(self, name, draw(self.seed, each.bounds, each.tensor_id, each.shape, device))

    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SeededConv2d:
        super()._apply(fn, recurse)
        # Drawing again instead of moving also covers `to_empty` from the meta device.
        self.draw_fixed(self._device())
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "seed"] = torch.tensor(to_int64(self.seed), dtype=torch.int64)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        stored = state_dict.pop(prefix + "seed", None)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if stored is None:
            missing_keys.append(prefix + "seed")
            return
        if stored.numel() != 1 or stored.dtype != torch.int64:
            error_msgs.append(f"{prefix}seed is {stored.dtype} {tuple(stored.shape)}; it must be one int64")
            return
        self.seed = int(stored.item()) % 2**64
        self.draw_fixed(self._device())

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        return f"{super().extra_repr()}, seed={self.seed:#018x}"
