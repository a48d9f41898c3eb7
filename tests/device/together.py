"""A process that answers until a file appears: a LiveModel that counts, and the right answers to compare with.

Arguments: home, stop file, and a JSON file of {release: [indices, probabilities as hexadecimal bytes]}. Prints one JSON
object: {release: images answered}.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from seedcnn.device.live import LiveModel
from tests.device.fleet import IMAGES


def main(home: Path, stop: Path, right: Path) -> dict[int, int]:
    given: Counter[int] = Counter()
    known: dict[str, list[object]] = {}
    with LiveModel(home) as live:
        while not stop.exists():
            found = live.predict(IMAGES)
            release = live.bundle.manifest.release
            if str(release) not in known:
                known = json.loads(right.read_bytes())
            answer = [found.indices.tolist(), found.probabilities.tobytes().hex()]
            if answer != known[str(release)]:
                raise AssertionError(f"release {release} answers {answer}")
            given[release] += len(IMAGES)
    return dict(given)


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:]))))
