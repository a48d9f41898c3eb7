"""Small networks as people write them: branches, sharing, ties, hooks, odd paddings, norms, lists, closures.

A plan is plain data, which hypothesis draws and shrinks; :func:`build` makes the network of a plan, the same each time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from seedcnn.convert import (
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
)

__all__ = ["Block", "Plan", "build", "configs", "plans"]

WIDTH = 8
NORMS = (
    "batch",
    "batch, not affine",
    "batch, dead",
    "batch, momentum none",
    "group",
    "instance",
    "layer",
    "sync",
    "none",
)
KINDS = (
    *("plain", "residual", "concat", "depthwise", "excite", "norm first", "act between"),
    *("listed", "closure", "partial", "shared", "tied", "frozen", "branching", "hooked", "extra attribute"),
    *("branching, listed", "branching, closure"),
)


@dataclass(frozen=True)
class Block:
    """One block: its kind, and what its convolution, norm and activation are like."""

    kind: str
    norm: str
    act: str
    kernel: int | tuple[int, int]
    stride: int
    dilation: int
    padding: str
    padding_mode: str
    bias: bool


@dataclass(frozen=True)
class Plan:
    """A network: channels of its images, blocks, head, and the dtype it is trained in."""

    channels: int
    blocks: tuple[Block, ...]
    head: str
    dtype: str = "float32"

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, 16, 12


def _blocks() -> st.SearchStrategy[Block]:
    return st.builds(
        Block,
        kind=st.sampled_from(KINDS),
        norm=st.sampled_from(NORMS),
        act=st.sampled_from(("relu", "relu in place", "hardswish", "none")),
        kernel=st.sampled_from((3, 3, 3, 1, 5, (1, 3))),
        stride=st.sampled_from((1, 1, 2)),
        dilation=st.sampled_from((1, 1, 2)),
        padding=st.sampled_from(("half", "half", "same", "valid", "one more")),
        padding_mode=st.sampled_from(("zeros", "zeros", "reflect", "replicate", "circular")),
        bias=st.booleans(),
    )


def plans() -> st.SearchStrategy[Plan]:
    """Networks of two to four blocks."""
    return st.builds(
        Plan,
        channels=st.sampled_from((3, 3, 1)),
        blocks=st.lists(_blocks(), min_size=2, max_size=4).map(tuple),
        head=st.sampled_from(("pool", "mean", "convolution")),
        dtype=st.sampled_from(("float32", "float32", "float64")),
    )


def configs() -> st.SearchStrategy[ConversionConfig]:
    """A config of each method, in forms that fit the networks' width."""
    group_nl = st.builds(
        GroupNLConfig,
        scope=st.sampled_from(("paper", "spatial", "stride1")),
        reduction_ratio=st.sampled_from((2, 4)),
        sparse=st.booleans(),
        nlf_groups=st.sampled_from((1, 2)),
        nlf=st.sampled_from(("abs", "sine", "negate")),
        normalize=st.sampled_from(("none", "batch", "l2")),
    )
    others: list[ConversionConfig] = [
        *(MonoConfig(), MonoConfig(exp_factor=2), GhostConfig(), GhostConfig(relu=False), SineFMConfig()),
        *(DepthwiseSeparableConfig(), DepthwiseSeparableConfig(pointwise=GhostConfig())),
        *(ConditionalReductionConfig(), LocalBinaryConfig(), PerturbativeConfig(scope="square"), ShiftConfig()),
    ]
    return group_nl | st.sampled_from(others)


def _conv(block: Block, **options: Any) -> nn.Conv2d:
    height, width = block.kernel if isinstance(block.kernel, tuple) else (block.kernel, block.kernel)
    half = (block.dilation * (height // 2), block.dilation * (width // 2))
    padding: Any = {"half": half, "one more": (half[0] + 1, half[1]), "valid": "valid"}.get(block.padding, "same")
    stride = 1 if padding == "same" else block.stride
    mode = block.padding_mode if padding != "valid" else "zeros"
    return nn.Conv2d(
        WIDTH, WIDTH, (height, width), stride, padding, block.dilation, bias=block.bias, padding_mode=mode, **options
    )


def _norm(kind: str) -> nn.Module:
    made: dict[str, Any] = {
        "batch": nn.BatchNorm2d,
        "batch, not affine": functools.partial(nn.BatchNorm2d, affine=False),
        "batch, dead": nn.BatchNorm2d,
        "batch, momentum none": functools.partial(nn.BatchNorm2d, momentum=None),
        "group": functools.partial(nn.GroupNorm, 2),
        "instance": functools.partial(nn.InstanceNorm2d, affine=True),
        "layer": functools.partial(nn.GroupNorm, 1),
        "sync": nn.SyncBatchNorm,
    }
    return made[kind](WIDTH) if kind in made else nn.Identity()


def _act(kind: str) -> nn.Module:
    return {"relu": nn.ReLU(), "relu in place": nn.ReLU(inplace=True), "hardswish": nn.Hardswish()}.get(
        kind, nn.Identity()
    )


class _Part(nn.Module):
    """A convolution with its norm and activation, called in the order and the way that its kind says."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.kind = block.kind
        self.conv, self.norm, self.act = _conv(block), _norm(block.norm), _act(block.act)
        if block.kind == "depthwise":
            self.conv = _conv(block, groups=WIDTH)
        elif block.kind == "excite":
            self.gate = nn.Conv2d(WIDTH, WIDTH, 1)
        elif block.kind == "tied":
            self.twin = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
            self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
            self.twin.weight = self.conv.weight
        elif block.kind == "frozen":
            self.conv.requires_grad_(False)
        elif block.kind == "hooked":
            self.conv.register_forward_hook(lambda module, args, output: 1.5 * output.clamp(max=1))
        elif block.kind == "extra attribute":
            self.conv.note = "of somebody's own"  # type: ignore[assignment]
        conv = self.conv
        self.listed = [self.conv] if block.kind.endswith("listed") else None
        self.closed = (lambda x: conv(x)) if block.kind.endswith("closure") else None
        self.bound = functools.partial(self.conv) if block.kind == "partial" else None

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        if self.listed is not None:
            return self.listed[0](x)
        if self.closed is not None:
            return self.closed(x)
        return self.conv(x) if self.bound is None else self.bound(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "norm first":
            return self._convolved(self.act(self.norm(x)))
        if self.kind == "act between":
            return self.norm(self.act(self._convolved(x)))
        if self.kind.startswith("branching") and x.shape[-1] > 10_000:
            raise ValueError("too wide")
        y = self._convolved(x)
        if self.kind == "tied":
            y = y + self.twin(x)
        if self.kind == "shared" and y.shape == x.shape:
            y = self._convolved(y)
        y = self.act(self.norm(y))
        if self.kind == "excite":
            return y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        if self.kind == "residual" and y.shape == x.shape:
            return x + y
        return y


class _Concat(nn.Module):
    """Two branches side by side, and a projection back to the width."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.left, self.right = _Part(block), _Part(block)
        self.project = nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(torch.cat([self.left(x), self.right(x)], 1))


class _Head(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.last: nn.Module = nn.Conv2d(WIDTH, 5, 1) if kind == "convolution" else nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "convolution":
            return self.last(x).mean((2, 3))
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1) if self.kind == "pool" else x.mean((2, 3)))


def build(plan: Plan) -> nn.Module:
    """The network of a plan with trained-looking norms, in training mode; it may be too small for its own kernels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem = nn.Conv2d(plan.channels, WIDTH, 3, padding=1)
        body = [_Concat(block) if block.kind == "concat" else _Part(block) for block in plan.blocks]
        model = nn.Sequential(stem, *body, _Head(plan.head))
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.4, 0.4)
            where = name.split(".")[0]
            dead = where.isdigit() and 0 < int(where) <= len(plan.blocks) and plan.blocks[int(where) - 1].norm
            if dead == "batch, dead" and isinstance(module, nn.BatchNorm2d):
                module.running_var[:2] = 0.0
                module.weight.data[:2] = torch.tensor([0.0, 1.0])
    return model.to(getattr(torch, plan.dtype))
