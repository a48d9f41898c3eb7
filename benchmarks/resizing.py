"""Integer resizing beside Pillow and torchvision: how far the bytes differ, and how long it takes.

    python benchmarks/resizing.py --record results/resizing.json

Differences are those of a photograph (matplotlib's sample picture) and of noise, larger and smaller, upright and on its
side, from our bytes. Times are CPU time, on one core and in turns, of scaling a decoded picture to 256 pixels on its
short side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from matplotlib import cbook
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from seedcnn.arrays import U8
from seedcnn.evaluate.benchmark import conditions, quiet_process
from seedcnn.runtime.resampling import resample

FILTERS = ("bilinear", "bicubic", "box", "nearest")
SIZES = ((375, 500), (600, 512), (90, 120), (1000, 300))
WANTED = 256
TIMED = ((375, 500), (3000, 4000))
Resize = Callable[[U8, int, int, str], U8]


def ours(picture: U8, height: int, width: int, filter: str) -> U8:
    """Resize as the bundle format says."""
    return resample(picture, height, width, filter=filter)


def pillow(picture: U8, height: int, width: int, filter: str) -> U8:
    """Resize with Pillow."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling[filter.upper()]))


def pillow_width_first(picture: U8, height: int, width: int, filter: str) -> U8:
    """Resize with Pillow, one axis after the other."""
    return pillow(pillow(picture, picture.shape[0], width, filter), height, width, filter)


def torchvision_on_pil(picture: U8, height: int, width: int, filter: str) -> U8:
    """Resize with torchvision, which calls Pillow."""
    return np.asarray(v2.Resize((height, width), v2.InterpolationMode(filter))(Image.fromarray(picture)))


def torchvision_on_tensors(picture: U8, height: int, width: int, filter: str) -> U8:
    """Resize a uint8 tensor [3, H, W] with torchvision, antialiased where that means something."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    mode = v2.InterpolationMode("nearest-exact" if filter == "nearest" else filter)
    return v2.Resize((height, width), mode, antialias=True)(tensor).numpy().transpose(1, 2, 0)


OTHERS: dict[str, Resize] = {
    "Pillow": pillow,
    "Pillow, width first": pillow_width_first,
    "torchvision on PIL images": torchvision_on_pil,
    "torchvision on tensors": torchvision_on_tensors,
}


def supports(name: str, filter: str) -> bool:
    """Tell whether a library has the filter: torchvision has no box on tensors."""
    return not (filter == "box" and "tensors" in name)


def scaled(height: int, width: int) -> tuple[int, int]:
    """Height and width with ``WANTED`` on the short side."""
    short = min(height, width)
    return WANTED * height // short, WANTED * width // short


def differences() -> dict[str, dict[str, dict[str, float]]]:
    """Largest difference, and percentage of bytes that differ, by kind of picture and "filter, library"."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photograph = Image.open(file).convert("RGB")
    found: dict[str, dict[str, dict[str, float]]] = {"photograph": {}, "noise": {}}
    for kind, rows in found.items():
        for filter in FILTERS:
            for name, other in OTHERS.items():
                if not supports(name, filter):
                    continue
                apart: list[U8] = []
                for height, width in SIZES:
                    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
                    picture = np.asarray(photograph.resize((width, height))) if kind == "photograph" else noise
                    size = (*scaled(height, width), filter)
                    apart.append(np.abs(ours(picture, *size).astype(int) - other(picture, *size)).ravel())
                every = np.concatenate(apart)
                rows[f"{filter}, {name}"] = {"most": int(every.max()), "percent": 100 * float((every > 0).mean())}
    return found


def times(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """For each size and "filter, library": median and quartiles in milliseconds, all libraries in turns."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for height, width in TIMED:
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        ways = {"seedcnn": ours, **OTHERS}
        del ways["Pillow, width first"]
        taken: dict[str, list[float]] = {}
        for turn in range(rounds + 1):
            for filter in FILTERS[:2]:
                for name, resize in ways.items():
                    begin = time.process_time()
                    resize(picture, *scaled(height, width), filter)
                    if turn:  # the first is to warm up
                        taken.setdefault(f"{filter}, {name}", []).append(1e3 * (time.process_time() - begin))
        found[f"{height} x {width}"] = {
            name: dict(zip(("low", "median", "high"), statistics.quantiles(each, n=4), strict=True))
            for name, each in taken.items()
        }
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    about = conditions(threads=1, rounds=arguments.rounds, process=quiet_process(1))
    about["how"] = "all libraries in turns in one process, after one untimed turn; CPU time; medians and quartiles"
    about["versions"] |= {name: version(name) for name in ("pillow", "torchvision")}
    apart, taken = differences(), times(arguments.rounds)
    for kind, rows in apart.items():
        table = Table("filter, library", "largest difference", "bytes that differ", title=kind)
        for name, row in rows.items():
            table.add_row(name, str(row["most"]), f"{row['percent']:.3f} %")
        Console().print(table)
    for size, timed in taken.items():
        table = Table("filter, library", "ms", "quartiles", title=f"{size} to {WANTED} on the short side")
        for name, row in timed.items():
            table.add_row(name, f"{row['median']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}")
        Console().print(table)
    if arguments.record:
        text = json.dumps({"conditions": about, "differences": apart, "milliseconds": taken}, indent=1)
        arguments.record.write_text(text + "\n")


if __name__ == "__main__":
    main()
