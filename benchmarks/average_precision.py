"""Time ``average_precision`` on made-up detections: COCO's twelve numbers, VOC's AP50, and a bootstrap.

    python benchmarks/average_precision.py --record results/average_precision.json

Pictures have 7 objects on average, of 80 classes, as COCO's have. Detections are objects with noise, half of them with
another label. Times are CPU seconds of one process, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from seedcnn.data.dense.detection_set import DetectionSet, Object, from_lists
from seedcnn.data.dense.place import Place
from seedcnn.evaluate import Detections, average_precision
from seedcnn.evaluate.benchmark import conditions, quiet_process

CLASSES = 80
HEIGHT, WIDTH = 480, 640
CASES: dict[str, dict[str, Any]] = {
    "COCO": {},
    "VOC 2010": {"rule": "voc2010"},
    "COCO, 20 resamples": {"bootstrap": 20},
}


def made_up(pictures: int, found: int, root: Path) -> tuple[DetectionSet, list[Detections]]:
    """A set and ``found`` detections for each of its pictures."""
    rng = np.random.default_rng(0)
    objects, detections = [], []
    for _ in range(pictures):
        n = int(rng.poisson(7))
        corner = rng.uniform(0, [WIDTH - 210, HEIGHT - 210], (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 200, (n, 2))], axis=1)
        labels = rng.integers(0, CLASSES, n)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        rows = zip(boxes.tolist(), labels.tolist(), areas.tolist(), strict=True)
        objects.append([Object(tuple(box), label, False, False, area, i) for i, (box, label, area) in enumerate(rows)])
        if not n:
            detections.append(Detections([], [], []))
            continue
        chosen = rng.integers(0, n, found)
        moved = boxes[chosen] + rng.normal(0, 8, (found, 4))
        moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
        named = np.where(rng.random(found) < 0.5, labels[chosen], rng.integers(0, CLASSES, found))
        detections.append(Detections(moved, named, rng.random(found)))
    files, names = [f"{n}.jpg" for n in range(pictures)], [f"class {n}" for n in range(CLASSES)]
    sizes, ids = [(HEIGHT, WIDTH)] * pictures, range(1, pictures + 1)
    return from_lists(Place(root), files, sizes, ids, objects, names, range(CLASSES), "exif"), detections


def measure(pictures: int, found: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each case, ``repeats`` times in turns."""
    with tempfile.TemporaryDirectory() as root:
        truth, detections = made_up(pictures, found, Path(root))
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(repeats):
        for name, options in CASES.items():
            start = time.process_time()
            average_precision(truth, detections, **options)
            seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--found", type=int, nargs="+", default=[20, 100], help="detections in each picture")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", type=Path, help="a JSON file for the numbers and their conditions")
    options = parser.parse_args()
    process = quiet_process(1)
    table = Table(title=f"average_precision, {options.pictures:,} pictures, CPU seconds, median of {options.repeats}")
    table.add_column("detections a picture", justify="right")
    for name in CASES:
        table.add_column(name, justify="right")
    rows = {found: measure(options.pictures, found, options.repeats) for found in options.found}
    for found, seconds in rows.items():
        table.add_row(str(found), *(f"{statistics.median(values):.1f}" for values in seconds.values()))
    Console(width=120).print(table)
    if options.record:
        about = conditions(threads=1, rounds=options.repeats, process=process)
        about["versions"]["faster-coco-eval"] = version("faster-coco-eval")
        record = {"pictures": options.pictures, "seconds": {str(k): v for k, v in rows.items()}, "conditions": about}
        options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
