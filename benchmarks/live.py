"""Measure the counting of ``LiveModel``: processor microseconds of an answer with and without it, interleaved.

``python benchmarks/live.py [--rounds 200]`` makes a repository and a device, and answers single images of
32 x 32 pixels with the smallest of networks, so that the difference is not lost in the network's own time. A round is
200 answers of each: ``Model.predict``, ``LiveModel.predict`` of a committed model, and of one on probation. It prints
the medians over the rounds with their quartiles, and the differences. Writes to the disk are part of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seedcnn.bundle import Probation
from seedcnn.device.agent import init, update
from seedcnn.device.live import LiveModel
from seedcnn.device.runtime import Model
from seedcnn.device.slots import Slots
from seedcnn.server.families import add_family
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.rollouts import Plan, start
from seedcnn.server.static import serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.device.bundles import make_bundle

ANSWERS = 200


def homes(directory: Path) -> tuple[Path, Path]:
    """Return a home whose model is committed, and one whose model is on a probation that does not end."""
    repository = directory / "repository"
    init_repository(repository)
    add_family(repository, "demo")
    publish(repository, make_bundle(1))
    found = [directory / name for name in ("committed", "tried")]
    with serve(repository) as server:
        for home in found:
            init(home, repository / "root.json", server.url, "demo")
            update(home)
        publish(repository, make_bundle(2), hold=True)
        start(repository, "demo", 2, Plan([1000], 60, 3600, 20, probation=Probation(answers=1_000_000)))
        print(update(found[1]).message)
    return found[0], found[1]


def timed(predict: Callable[[np.ndarray], object], image: np.ndarray) -> float:
    """Return processor microseconds of one answer."""
    begin = time.process_time()
    for _ in range(ANSWERS):
        predict(image)
    return 1e6 * (time.process_time() - begin) / ANSWERS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as directory:
        committed, tried = homes(Path(directory))
        with LiveModel(committed) as calm, LiveModel(tried) as watched:
            calls = {
                "Model": Model.load(Slots(committed)).predict,
                "LiveModel": calm.predict,
                "LiveModel on probation": watched.predict,
            }
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    times[name].append(timed(call, image))
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:<24} {middle:7.1f} us an answer ({low:.1f} to {high:.1f})")
        if name != "Model":
            pairs = [value - plain for value, plain in zip(values, times["Model"], strict=True)]
            low, middle, high = statistics.quantiles(pairs, n=4)
            print(f"{'  more than Model':<24} {middle:7.1f} us ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
