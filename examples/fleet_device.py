"""The application of a device in ``fleet_demo.py``; ``seedcnn-device run`` beside it keeps its model new.

They share nothing but the device's home: either may crash or be restarted without the other. For the device without a
clock this program also stands in for ``seedcnn-device run``, which takes the time from the system.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from seedcnn.device.agent import open_home, update
from seedcnn.device.live import LiveModel
from seedcnn.errors import SeedCNNError


def answer(home: Path, pictures: Path, rate: float, crash_with: int) -> None:
    """Answer pictures without end, and print a line for each: the time, the release, and right, wrong or bad.

    Args:
        pictures: directory of ``pictures.npy`` and ``labels.npy``.
        rate: answers per second.
        crash_with: a release that brings this program down before its first answer; 0 for none.
    """
    images, labels = np.load(pictures / "pictures.npy"), np.load(pictures / "labels.npy")
    index = os.getpid() % len(images)
    with LiveModel(home) as model:
        while True:
            if crash_with and open_home(home).active().record.release == crash_with:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.kill(os.getpid(), signal.SIGSEGV)
            found = model.predict(images[index : index + 1])
            verdict = "right" if found.indices[0] == labels[index] else "wrong"
            if not np.isfinite(found.probabilities).all():
                verdict = "bad"
            print(f"{time.time():.3f} {model.model.bundle.manifest.release} {verdict}", flush=True)
            index = (index + 1) % len(images)
            time.sleep(1 / rate)


def keep_updated(home: Path, every: float, reports: Path) -> None:
    """Update at intervals without end, with a clock that began in 1970 when this program did.

    Prints what comes of each update, unless that is what was printed last.

    Args:
        every: seconds.
        reports: directory that the reports are put into.
    """
    started, last = time.time(), ""
    while True:
        begun = time.monotonic()
        try:
            text = update(home, reports=reports, clock=lambda: time.time() - started).message
        except SeedCNNError as error:
            text = str(error)
        if text != last:
            print(f"{time.time():.3f} {text}", flush=True)
        last = text
        time.sleep(max(0.0, begun + every - time.monotonic()))


def main(argv: list[str] | None = None) -> None:
    """Run the application, or the updates, with the options ``argv``, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--pictures", type=Path, help="answer the pictures of this directory")
    parser.add_argument("--rate", type=float, default=6.0, help="answers per second (default: %(default)s)")
    parser.add_argument("--crash-with", type=int, default=0, help="a release that brings the application down")
    parser.add_argument("--reports", type=Path, help="instead, update as a device without a clock; reports go here")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between updates (default: %(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if arguments.pictures:
        answer(arguments.home, arguments.pictures, arguments.rate, arguments.crash_with)
    else:
        keep_updated(arguments.home, arguments.every, arguments.reports)


if __name__ == "__main__":
    main()
