"""Statistics of the place: what they bring, what stale ones cost, and what choosing by window saves.

    python benchmarks/adapt.py BUNDLE --data cifar10 --out results/adapt.json [--images 500]

It takes an adaptable bundle and a test set whose images are of the bundle's size. Each row is written when it is done,
and an interrupted run goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seedcnn.bundle import open_bundle
from seedcnn.data.corruptions import corrupt
from seedcnn.data.sets.named import load_test
from seedcnn.device.adapted import LearnedSet
from seedcnn.device.adaptive import AdaptiveModel
from seedcnn.device.learning import classes_left
from seedcnn.device.runtime import Model
from seedcnn.files import write_file
from seedcnn.runtime.adapting import Norms, measure

NAMES = ("gaussian_noise", "impulse_noise", "motion_blur", "frost", "fog", "contrast", "pixelate", "jpeg_compression")
PLACES = [("clean", 0), *((name, severity) for name in NAMES for severity in (3, 5))]
COUNTS = (10, 25, 50, 100, 200, 2000)
STREAMS = {
    "clean, noise, clean, fog": [("clean", 0), ("gaussian_noise", 3), ("clean", 0), ("fog", 5)],
    "noise, impulse noise, clean, pixelate": [
        ("gaussian_noise", 5),
        ("impulse_noise", 3),
        ("clean", 0),
        ("pixelate", 3),
    ],
}
WINDOW = 64


class Bench:
    """A bundle, its test images, and learned sets."""

    def __init__(self, path: Path, data: str, images: int, out: Path) -> None:
        self.model = Model.of_bundle(open_bundle(path), str(path))
        self.norms, self.tensors = Norms.of(self.model.bundle), self.model.bundle.tensors()
        test = load_test(data).test
        order = np.random.default_rng(0).permutation(len(test.labels))
        self.pictures, self.labels = test.images, test.labels
        self.asked, self.pool = order[:images], order[images:]
        self.out = out
        self.rows: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}

    def at(self, place: tuple[str, int], which: Any) -> Any:
        """The images of a place."""
        return self.pictures[which] if place[1] == 0 else corrupt(self.pictures[which], *place)

    def learn(self, name: str, images: Any) -> LearnedSet:
        """A set learned from images."""
        found = measure(self.model.bundle, self.norms, self.tensors, images)
        return LearnedSet(name, len(images), 0, found.means.tobytes(), found.stds.tobytes())

    def right(self, logits: Any, which: Any) -> float:
        """Percent of right answers."""
        return 100 * float(np.mean(logits.argmax(1) == self.labels[which]))

    def forced(self, learned: LearnedSet) -> Model:
        """The model that always answers with a set."""
        chooser = AdaptiveModel.of_model(self.model, [learned]).chooser
        assert chooser is not None
        return Model(self.model.bundle, chooser.session(learned.name), "bench")

    def row(self, name: str, make: Callable[[], Any]) -> None:
        """Do a row unless it is there."""
        if name not in self.rows:
            self.rows[name] = make()
            write_file(self.out, (json.dumps(self.rows, indent=1) + "\n").encode())
            print(name, self.rows[name], flush=True)

    def place(self, place: tuple[str, int]) -> dict[str, Any]:
        """The accuracy at a place: as shipped, by number of images, of one class, and of a mixed pool."""
        asked = self.at(place, self.asked)
        shipped = self.model.logits(asked)
        found: dict[str, Any] = {"shipped": self.right(shipped, self.asked), "classes": classes_left(shipped)}
        most = self.pool[: max(COUNTS)] if place[0] in ("clean", "gaussian_noise", "fog") else self.pool[:200]
        learned = self.at(place, most)
        cases = {str(count): learned[:count] for count in COUNTS if count <= len(learned)}
        one = self.pool[self.labels[self.pool] == 3][:200]
        cases["one class"] = self.at(place, one)
        cases["half clean"] = np.concatenate([learned[:100], self.pictures[self.pool[100:200]]])
        for name, images in cases.items():
            model = self.forced(self.learn("x", images))
            before, after = (classes_left(each.logits(images)) for each in (self.model, model))
            found[name] = {"accuracy": self.right(model.logits(asked), self.asked), "left": after / before}
        stale = self.forced(self.learn("x", learned[:100])).logits(self.pictures[self.asked])
        found["then clean"] = self.right(stale, self.asked)
        return found

    def stream(self, places: list[tuple[str, int]]) -> dict[str, Any]:
        """The accuracy over a stream of places: as shipped, adapted to the last that was not clean, and chosen."""
        sets = [self.learn(f"{place}", self.at(place, self.pool[:100])) for place in dict.fromkeys(places) if place[1]]
        known = {each.name: each for each in sets}
        chosen = AdaptiveModel.of_model(self.model, sets)
        unheard = AdaptiveModel.of_model(self.model, sets[:1])
        rows, last = [], None
        for place in places:
            images = self.at(place, self.asked)
            last = known.get(f"{place}", last)
            windows = [images[begin : begin + WINDOW] for begin in range(0, len(images), WINDOW)]
            always = self.model if last is None else self.forced(last)
            models = {
                "shipped": self.model,
                "adapted last": always,
                "chosen": chosen,
                "chosen, first set only": unheard,
            }
            found = {
                name: self.right(np.concatenate([model.logits(window) for window in windows]), self.asked)
                for name, model in models.items()
            }
            rows.append({"place": f"{place[0]} {place[1]}".removesuffix(" 0"), **found})
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "place"}
        return {"places": rows, "mean": mean}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("results/adapt.json"))
    parser.add_argument("--images", type=int, default=500)
    arguments = parser.parse_args()
    bench = Bench(arguments.bundle, arguments.data, arguments.images, arguments.out)
    facts = {"model": bench.model.bundle.manifest.model, "size": bench.model.bundle.size, "images": arguments.images}
    bench.row("bundle", lambda: facts)
    for name, places in STREAMS.items():
        bench.row(f"stream: {name}", lambda places=places: bench.stream(places))
    for place in PLACES:
        bench.row(f"{place[0]} {place[1]}", lambda place=place: bench.place(place))


if __name__ == "__main__":
    main()
