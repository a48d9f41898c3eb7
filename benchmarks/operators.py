"""Each training operator against plain operations, forward and backward, in eager mode.

Run with ``python benchmarks/operators.py``. Rows: the GroupNL generator (r = 2 and 4), groups with one output each
(sparse seed convolutions) and mono filters; columns: the plain form, ours, and their ratio.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.evaluate.benchmark import conditions, quiet_process
from seedcnn.latency import interleave
from seedcnn.layers import ConvLayer
from seedcnn.ops.group_nl import group_nl, group_nl_reference
from seedcnn.ops.mono_filters import FGFS, generate_filters

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))
BATCH = 8
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
Pair = tuple[Callable[[], object], Callable[[], object]]


def _step(function: Callable[[], Tensor], learned: list[Tensor]) -> Callable[[], object]:
    example = function()
    # Each side gets a gradient in the layout of its own output, as in a network.
    grad = torch.randn(example.shape).contiguous(
        memory_format=torch.channels_last if example.stride()[1] == 1 else torch.contiguous_format
    )
    return lambda: torch.autograd.grad(function(), learned, grad)


def generator(channels: int, side: int, ratio: int, layout: torch.memory_format) -> Pair:
    """Return the reference and the operator, with c_out = ``channels``."""
    seeds = torch.randn(BATCH, channels // ratio, side, side).contiguous(memory_format=layout).requires_grad_()
    fixed = (torch.rand(4 * (ratio - 1)) + 1, torch.rand(4 * (ratio - 1)) + 1)
    how = {"nlf_groups": 4, "out_channels": channels}
    plain = _step(lambda: group_nl_reference(seeds, *fixed, **how), [seeds])
    return plain, _step(lambda: group_nl(seeds, *fixed, **how), [seeds])


def sparse(channels: int, side: int, layout: torch.memory_format) -> Pair:
    """Return the grouped convolution and the depthwise one with sums, for r = 2."""
    x = torch.randn(BATCH, channels, side, side).contiguous(memory_format=layout).requires_grad_()
    conv = nn.Conv2d(channels, channels // 2, 3, padding=1, groups=channels // 2, bias=False)
    layer = ConvLayer(channels, channels // 2, 3, padding=1)
    plain = _step(lambda: F.conv2d(x, conv.weight, None, 1, 1, 1, channels // 2), [x, conv.weight])
    return plain, _step(lambda: layer.convolve(x, conv.weight, None, channels // 2), [x, conv.weight])


def mono(channels: int) -> Pair:
    """Return autograd's gradient and ours, for 32 monomial seed filters."""
    seeds = torch.randn(32, channels, 3, 3, requires_grad=True)
    beta = torch.rand(1, channels, channels, 1, 1) + 1

    def plain() -> Tensor:
        filters = FGFS["monomial"](seeds.repeat(channels // 32, 1, 1, 1), beta).sum(0)
        axes = (1, 2, 3)
        return (filters - filters.mean(axes, keepdim=True)) / (filters.std(axes, keepdim=True) + 1e-5)

    ours = _step(lambda: generate_filters(seeds, beta, fgf="monomial", normalize=True, eps=1e-5), [seeds])
    return _step(plain, [seeds]), ours


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    process = quiet_process(1)
    pairs: dict[str, Pair] = {}
    for channels, side in SHAPES:
        for name, layout in LAYOUTS.items():
            for ratio in (2, 4):
                pairs[f"generator r={ratio} {channels}@{side} {name}"] = generator(channels, side, ratio, layout)
            pairs[f"sparse convolution {channels}@{side} {name}"] = sparse(channels, side, layout)
        pairs[f"mono filters {channels}x{channels}"] = mono(channels)
    calls = {(name, kind): pair[kind] for name, pair in pairs.items() for kind in (0, 1)}
    times = interleave(calls, rounds=arguments.rounds, warmup=5, settle=1)
    rows = []
    print(f"{'forward and backward, ms':<44} {'plain':>9} {'ours':>9} {'quartiles':>18} {'ratio':>6}")
    for name in pairs:
        plain, ours = times[name, 0], times[name, 1]
        quartiles = f"[{ours.q1_ms:.3f}, {ours.q3_ms:.3f}]"
        ratio = ours.median_ms / plain.median_ms
        print(f"{name:<44} {plain.median_ms:>9.3f} {ours.median_ms:>9.3f} {quartiles:>18} {ratio:>6.2f}")
        rows.append({"what": name, "plain_ms": round(plain.median_ms, 4), "ours_ms": round(ours.median_ms, 4)})
        rows[-1]["ours_quartiles_ms"] = [round(ours.q1_ms, 4), round(ours.q3_ms, 4)]
    if arguments.record is not None:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        about = conditions(threads=1, rounds=arguments.rounds, process=process)
        arguments.record.write_text(json.dumps({**about, "operators": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
