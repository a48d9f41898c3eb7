"""Bandwidth of the GroupNL kernels on a GPU, as a share of a plain copy's in the same run.

Bytes are counted as follows: the forward kernel reads the seeds and writes the output; the backward kernel reads the
output's seed half and its gradient and writes the seeds' gradient. Needs a CUDA device: ``python
benchmarks/gpu_bandwidth.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from seedcnn.evaluate.benchmark import conditions
from seedcnn.ops.group_nl import group_nl, group_nl_reference
from seedcnn.ops.group_nl.op import uses_triton

SHAPES = ((64, 64, 56), (64, 128, 28), (64, 256, 14), (64, 512, 7))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Measure the median time of a call by the GPU's own clock."""
    for _ in range(10):
        call()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def measure(shape: tuple[int, int, int], ratio: int, dtype: torch.dtype, layout: torch.memory_format, rounds: int):
    """Measure GB/s of a copy of the output's size, of the forward kernel and of the backward kernel."""
    batch, channels, side = shape
    seeds = torch.randn(batch, channels // ratio, side, side, device="cuda", dtype=dtype)
    seeds = seeds.contiguous(memory_format=layout).requires_grad_()
    fixed = [torch.rand(4 * (ratio - 1), device="cuda") + 1 for _ in range(2)]
    how = {"nlf_groups": 4, "out_channels": channels}
    if not uses_triton(seeds):
        raise SystemExit("triton is not installed; its kernels cannot be measured")
    maps = group_nl(seeds, *fixed, **how)
    expected = group_nl_reference(seeds, *fixed, **how)
    torch.testing.assert_close(maps, expected, rtol=2e-2 if dtype.itemsize == 2 else 1e-4, atol=1e-3)
    grad, target = torch.randn_like(maps), torch.empty_like(maps)
    output, part = maps.numel() * dtype.itemsize, seeds.numel() * dtype.itemsize
    copy = 2 * output / milliseconds(lambda: target.copy_(grad), rounds)
    with torch.no_grad():
        forward = (output + part) / milliseconds(lambda: group_nl(seeds, *fixed, **how), rounds)
    backward = (output + 2 * part) / milliseconds(
        lambda: torch.autograd.grad(maps, seeds, grad, retain_graph=True), rounds
    )
    return [value / 1e6 for value in (copy, forward, backward)]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device is available; nothing was measured")
    rows = []
    for shape in SHAPES:
        for ratio in (2, 4):
            for dtype in DTYPES:
                for name, layout in LAYOUTS.items():
                    copy, forward, backward = measure(shape, ratio, dtype, layout, arguments.rounds)
                    row = {"shape": shape, "r": ratio, "dtype": str(dtype), "layout": name, "copy_GB_s": round(copy, 1)}
                    row |= {"forward_share": round(forward / copy, 3), "backward_share": round(backward / copy, 3)}
                    rows.append(row)
                    print(row, flush=True)
    if arguments.record is not None:
        about = conditions(threads=1, rounds=arguments.rounds, process=torch.cuda.get_device_name())
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps({**about, "kernels": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
