"""Cost of generating CIFAR-10-C: 19 corruptions at 5 severities, on one core, in batches and image by image.

The baseline is the official loop in numpy and Pillow: one image per call; glass blur pixel by pixel; frost decoded from
its file for every image; zoom blur factor by factor. It leaves out ImageMagick and its PNG files, which cost the
official motion blur and snow another 0.2 to 1 ms per image. The benchmark first checks that both make the same images
from the same random fields. Times are CPU times of the process and include drawing the fields.

    python benchmarks/corruptions.py                        # on a sample
    python benchmarks/corruptions.py --pictures 10000 --record results/corruptions.json
"""

from __future__ import annotations

import os

# Set before numpy is loaded, because one core is measured.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from seedcnn.arrays import U8
from seedcnn.data.corruptions import CORRUPTIONS, FROST_FILES, SEVERITIES, corrupt, draw_fields, frost_cache
from seedcnn.data.corruptions.core import Setting, to_levels
from seedcnn.data.corruptions.filters import clipped_zoom, gaussian
from seedcnn.data.corruptions.frost import frost_pictures
from seedcnn.data.sets.cifar10 import load_cifar10

Fields = dict[str, npt.NDArray[Any]]

OFFICIAL_MINUTES = 13.0  # measured with the official code and libraries, one core, ImageMagick included
TARGET = 15.0


def glass_blur(picture: U8, constant: Any, fields: Fields) -> npt.NDArray[Any]:
    """Run the official loop over pixels."""
    sigma, d, iterations = constant
    height, width, _ = picture.shape
    soft = (gaussian(picture[None] / 255.0, sigma)[0] * 255).astype(np.uint8)
    for i in range(iterations):
        for h in range(height - d, d, -1):
            for w in range(width - d, d, -1):
                # The official code draws here; the result uses the same field as the batched code.
                np.random.randint(-d, d, size=(2,))
                dx, dy = fields["offsets"][i, height - d - h, width - d - w]
                soft[h, w], soft[h + dy, w + dx] = soft[h + dy, w + dx], soft[h, w]
    return to_levels(gaussian(soft[None] / 255.0, sigma)[0])


def frost(picture: U8, constant: Any, fields: Fields) -> npt.NDArray[Any]:
    """Read the file, shrink it and cut the window."""
    with Image.open(frost_cache() / list(FROST_FILES)[int(fields["picture"])]) as file:
        source = np.asarray(file.convert("RGB"))
    h, w = round(source.shape[0] / 5), round(source.shape[1] / 5)
    row, column = int(fields["row"]), int(fields["column"])
    window = source[2::5, 2::5][:h, :w][row : row + picture.shape[0], column : column + picture.shape[1]]
    return np.clip(constant[0] * picture + constant[1] * window, 0, 255)


def zoom_blur(picture: U8, constant: Any, _: Fields) -> npt.NDArray[Any]:
    """Blur factor by factor."""
    unit = (picture / 255.0).astype(np.float32)
    factors = np.arange(1, *constant).tolist()
    total = np.zeros_like(unit)
    for factor in factors:
        total += clipped_zoom(unit[None].astype(np.float64), factor)[0].astype(np.float32)
    return to_levels((unit + total) / np.float32(len(factors) + 1))


LOOPS: dict[str, Callable[[U8, Any, Fields], npt.NDArray[Any]]] = {
    "glass_blur": glass_blur,
    "frost": frost,
    "zoom_blur": zoom_blur,
}


def one_by_one(pictures: U8, name: str, severity: int) -> U8:
    """Run the baseline: ``corrupt`` for one image at a time."""
    row = CORRUPTIONS[name]
    constant = row.constants["cifar"][severity - 1]
    sources = frost_pictures(None, shrink=5, height=32, width=32) if name == "frost" else ()
    at = Setting(constant, sources)
    result = np.empty_like(pictures)
    for index in range(len(pictures)):
        picture = pictures[index : index + 1]
        fields = draw_fields(picture, name, severity, indices=[index])
        if name in LOOPS:
            done = LOOPS[name](picture[0], constant, {key: values[0] for key, values in fields.items()})
        else:
            done = row.apply(picture, at, fields)[0]
        result[index] = done.astype(np.uint8)
    return result


def cpu_ms(run: Callable[[U8, str, int], U8], pictures: U8, name: str, severity: int) -> float:
    """Measure the CPU time per image, in milliseconds."""
    start = time.process_time()
    run(pictures, name, severity)
    return (time.process_time() - start) / len(pictures) * 1000


def check(pictures: U8, name: str, severity: int) -> None:
    """Check that both make the same images except for zoom blur's rounding: 99.9 % equal, never off by more than 1."""
    difference = np.abs(corrupt(pictures, name, severity).astype(int) - one_by_one(pictures, name, severity))
    if difference.max() > 1 or np.mean(difference > 0) > 0.001:
        raise SystemExit(f"{name} {severity}: the baseline makes different images (off by up to {difference.max()})")


def streamed(pictures: U8, name: str, severity: int, size: int) -> U8:
    """Corrupt in batches as an evaluation does, which uses and drops each batch; return the last one."""
    for start in range(0, len(pictures), size):
        where = np.arange(start, min(start + size, len(pictures)))
        batch = corrupt(pictures[where], name, severity, indices=where)
    return batch


def peak_memory(images: U8, size: int) -> tuple[float, float]:
    """Return this process's peak memory in MB (Linux), before and after streaming every corruption at severity 5."""

    def peak() -> float:
        # Not ru_maxrss, which a child process inherits from its parent.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 1024

    before = peak()
    for name in CORRUPTIONS:
        streamed(images, name, 5, size)
    return before, peak()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000, help="images for the batched code")
    parser.add_argument("--sample", type=int, default=25, help="images for the baseline")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    images = load_cifar10().test_images[: arguments.pictures].copy()
    rows: dict[str, dict[str, list[float]]] = {}
    print(f"{'CPU ms per image, mean of 5 severities':42s} {'one by one':>10s} {'batched':>8s} {'ratio':>7s}")
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            check(images[:4], name, severity)
        ours = [cpu_ms(lambda x, c, s: streamed(x, c, s, arguments.batch), images, name, s) for s in SEVERITIES]
        theirs = [cpu_ms(one_by_one, images[: arguments.sample], name, s) for s in SEVERITIES]
        rows[name] = {"one_by_one_ms": theirs, "batched_ms": ours}
        a, b = sum(theirs) / 5, sum(ours) / 5
        print(f"{name:42s} {a:10.3f} {b:8.4f} {a / b:7.1f}", flush=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, peak = pool.apply(peak_memory, (images, arguments.batch))
    loop, batched = (sum(sum(row[key]) for row in rows.values()) * 10 for key in ("one_by_one_ms", "batched_ms"))
    print(f"95 conditions of 10,000 images: one by one {loop / 60:.1f} min, batched {batched:.1f} s")
    print(f"against the loop: {loop / batched:.1f}x")
    print(f"against the official {OFFICIAL_MINUTES} min: {OFFICIAL_MINUTES * 60 / batched:.1f}x (target {TARGET:g}x)")
    print(f"peak memory of a process that streams them: {peak:.0f} MB, {before:.0f} MB before the first corruption")
    if arguments.record is not None:
        about = {
            "pictures": len(images), "baseline_pictures": arguments.sample, "batch": arguments.batch, "threads": 1,
            "python": platform.python_version(), "machine": platform.processor() or platform.machine(),
            **{package: version(package) for package in ("numpy", "pillow", "torch")},
            "batched_s": batched, "one_by_one_s": loop, "official_s": OFFICIAL_MINUTES * 60,
            "peak_mb": peak, "before_mb": before, "rows": rows,
        }  # fmt: skip
        arguments.record.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
