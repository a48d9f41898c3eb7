"""What every seeded convolution shares: argument checks, the seed filters' convolution, the seed in the state_dict."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SeededConv2d", "check_divisible", "check_positive"]

IntPair = int | tuple[int, int]


def check_positive(**values: int) -> None:
    """Raise ``ValueError`` for the first argument that is not a positive integer."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` (={value!r}) must be a positive integer")


def check_divisible(name: str, value: int, by_name: str, by: int) -> None:
    """Raise ``ValueError`` unless ``value % by == 0``."""
    if value % by:
        raise ValueError(f"`{name}` (={value}) must be divisible by `{by_name}` (={by})")


def _pair(name: str, value: IntPair, low: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < low for v in pair):
        raise ValueError(f"`{name}` (={value!r}) must be an integer >= {low} or a pair of them")
    return pair[0], pair[1]


def _to_int64(seed: int) -> int:
    return seed - 2**64 if seed >= 2**63 else seed


class SeededConv2d(nn.Module):
    """Base of the layers that learn a few seed filters and generate the rest.

    Subclasses call ``super().__init__`` with the number of seed filters and implement :meth:`draw_fixed`. Learnable:
    ``weight`` [seed_channels, in_channels / conv_groups, kh, kw] and, with ``bias=True``, ``bias`` [seed_channels].
    The state_dict holds these and ``seed``, the layer's own 64-bit seed as an int64 scalar; fixed numbers are plain
    attributes drawn from it, so that no optimiser, ``requires_grad_`` call or DDP broadcast ever touches them.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair,
        padding: IntPair | str,
        dilation: IntPair,
        bias: bool,
        padding_mode: str,
        *,
        seed_channels: int,
        conv_groups: int,
        seed: int,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        check_positive(seed_channels=seed_channels, groups=conv_groups)
        check_divisible("in_channels", in_channels, "groups", conv_groups)
        check_divisible("seed_channels", seed_channels, "groups", conv_groups)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ValueError(f"`seed` (={seed!r}) must be an integer in [0, 2**64)")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.seed_channels, self.conv_groups, self.seed = seed_channels, conv_groups, seed
        # nn.Conv2d checks and resolves stride, padding (also "same"), dilation and padding mode; we keep its rules.
        rules = nn.Conv2d(
            in_channels,
            seed_channels,
            _pair("kernel_size", kernel_size, 1),
            _pair("stride", stride, 1),
            padding if isinstance(padding, str) else _pair("padding", padding, 0),
            _pair("dilation", dilation, 1),
            conv_groups,
            bias,
            cast("Any", padding_mode),
            device="meta",
        )
        self.kernel_size, self.stride = rules.kernel_size, rules.stride
        self.dilation, self.padding_mode = rules.dilation, padding_mode
        self.padding: str | tuple[int, ...] = rules.padding
        self._explicit_padding: list[int] = list(rules._reversed_padding_repeated_twice)
        self.weight = nn.Parameter(torch.empty(rules.weight.shape, device=device, dtype=dtype))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(seed_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()
        self.draw_fixed(self.weight.device)

    def reset_parameters(self) -> None:
        """Initialise the seed filters as ``nn.Conv2d`` does; the fixed numbers depend on ``seed`` alone."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def draw_fixed(self, device: torch.device) -> None:
        """Draw the fixed numbers from ``self.seed`` onto ``device``."""
        raise NotImplementedError("abstract: each layer family draws its own fixed numbers")

    def seed_conv(self, x: Tensor) -> Tensor:
        """The learned part: [..., in_channels, H, W] to seed maps [..., seed_channels, H', W']."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._explicit_padding, mode=self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.conv_groups)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SeededConv2d:
        super()._apply(fn, recurse)
        # Fixed numbers stay float32 and follow the weight's device; drawing anew also serves `to_empty` from meta.
        self.draw_fixed(self.weight.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "seed"] = torch.tensor(_to_int64(self.seed), dtype=torch.int64)

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
        self.draw_fixed(self.weight.device)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults, as in ``nn.Conv2d``."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding not in (0, (0, 0)):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.conv_groups != 1:
            text += f", groups={self.conv_groups}"
        if self.bias is not None:
            text += ", bias=True"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return f"{text}, seed_channels={self.seed_channels}, seed={self.seed:#018x}"
