"""Evaluations in processes of their own, which may be killed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from seedcnn.bundle import Preprocessing
from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets.named import NamedTest
from seedcnn.data.sets.official import OfficialFiles
from seedcnn.evaluate import EvaluateRequest, Opened
from seedcnn.processes import open_processes

CLASSES = ("a", "b", "c", "d")
SOME = ("gaussian_noise", "contrast", "pixelate", "snow")
N = 1100
RULE = Preprocessing.exact(32, mean=0.5, std=0.25)


def images(change=0):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8), rng.integers(0, 4, N)
    styles = np.array(["flat", "round"])[np.arange(N) % 2]
    return ImageSet(pixels ^ np.uint8(change), labels, CLASSES, "tests", styles)


class Model:
    """Answers that any change of an image changes."""

    def __init__(self, options):
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(32 * 32 * 3, 4, generator=generator)
        self.options, self.calls = options, 0

    def __call__(self, batch):
        self.calls += 1
        time.sleep(self.options.get("delay", 0.0))
        logits = (torch.from_numpy(batch.copy()).flatten(1) / 255 - 0.5) @ self.weight
        if self.calls == self.options.get("nan"):
            logits[7, 2] = float("nan")
        return logits.numpy()


def published(name, severity, where):
    """Corrupted images as from files."""
    return images().images[where] ^ np.uint8(len(name) + severity)


def measure(options, processes=None):
    test = NamedTest("tests", images(options.get("change", 0)), RULE, "cifar", ("flat",))
    if options.get("published"):
        test = replace(test, corrupted=OfficialFiles("files", published))
    request = EvaluateRequest("tests", corruptions=SOME, images=600, record=options.get("record"))
    if not options.get("published"):
        request = EvaluateRequest("tests", corruptions=SOME, images=600, record=options.get("record"), seeds=2)
    model, other = Model(options), Model({})
    opened = {"one": Opened(model, "1", "function"), "two": Opened(lambda batch: -other(batch), "2", "function")}
    found = request.measure(opened, test, None, processes)
    return json.dumps(found.to_dict()) + found.to_csv(), model.calls


def work(path, environment, options):
    """The target of a process: measure, and write the tables or the error beside ``path``."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    rank = int(environment["RANK"])
    options = {**options, **options.get(rank, {})}
    try:
        with open_processes("cpu") as processes:
            text, calls = measure(options, processes)
    except Exception as error:
        Path(f"{path}.{rank}.error").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(3) from error
    Path(f"{path}.{rank}.json").write_text(text)
    Path(f"{path}.{rank}.calls").write_text(str(calls))
