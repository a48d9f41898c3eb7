"""The rows of ``tools.py``, each run in a process of its own: inputs from a fixed seed, and the work that is timed.

    python benchmarks/tools_rows.py prepare DIR ROW ...    # write what the rows need
    python benchmarks/tools_rows.py run DIR ROW            # do the work of one row; its last line is JSON

``run`` works with every checkout of seedcnn that PYTHONPATH names first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # tools.py reads the table of rows, and its own memory must not count for the processes it starts
    from torch import Tensor, nn

CLASSES = tuple(f"class {number}" for number in range(8))
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_SEED, _THREADS, _BATCH = 0x5EED, 2, 50
_SHARE = 0.75  # of the vanilla network's latency, for a plan
_GRID_TESTS = 16  # of a row that is about the grid, not about its accuracy
FIRST_LINE = "evaluate-first-line"


@dataclass(frozen=True)
class Row:
    """One row: a sentence, the network, pixels a side, numbers of test and calibration images, and the work."""

    what: str
    network: str
    size: int
    tests: int
    calibration: int
    work: Callable[[Row, Path], dict[str, Any]]

    @property
    def inputs(self) -> str:
        """The name of the row's files; rows with the same images and network share them."""
        return f"{self.network}-{self.size}-{self.tests}-{self.calibration}"


def draw(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy pictures of a shifted pattern for each class: uint8 [count, size, size, 3], and int64 labels."""
    from PIL import Image

    patterns = np.random.default_rng(_SEED).integers(0, 256, (len(CLASSES), 6, 6, 3), np.uint8)
    rng = np.random.default_rng((_SEED, seed))
    wide = [np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BILINEAR)) for each in patterns]
    labels = np.arange(count) % len(CLASSES)
    images = np.empty((count, size, size, 3), np.uint8)
    for index, label in enumerate(labels):
        moved = np.roll(wide[label], rng.integers(-size // 8, size // 8 + 1, 2), axis=(0, 1)).astype(np.float32)
        noise = rng.standard_normal((size, size, 3), np.float32)
        images[index] = np.clip(128 + rng.uniform(0.3, 1.0) * (moved - 128) + 50 * noise, 0, 255)
    return images, labels


def build(name: str) -> nn.Module:
    """Build a network with weights from a fixed seed."""
    import torch

    torch.manual_seed(_SEED)
    if name == "resnet18":
        import timm

        return timm.create_model("resnet18", num_classes=len(CLASSES))
    from seedcnn.convert import GroupNLConfig, convert_
    from seedcnn.models import create_model

    if name == "demo":
        return create_model("resnet8_cifar", num_classes=len(CLASSES), widths=(32, 64, 128), patch=2)
    base, _, form = name.partition("+")
    model = create_model(base, num_classes=len(CLASSES))
    if form:
        convert_(model, GroupNLConfig(reduction_ratio=2), seed=_SEED)
    return model


def normalised(images: np.ndarray) -> Tensor:
    """Turn uint8 [N, H, W, 3] into the network's input [N, 3, H, W]."""
    import torch

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train_head(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    """Set the norms to the statistics of the images, and fit the last layer to the labels by ridge regression.

    The network then classifies the pictures well above chance, as a search for a grid needs, in two passes.
    """
    import torch
    from torch import nn

    from seedcnn.convert import reestimate_batchnorm_

    reestimate_batchnorm_(model, (normalised(images[at : at + _BATCH]) for at in range(0, 500, _BATCH)))
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    kept: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach()))
    with torch.no_grad():
        for at in range(0, len(images), _BATCH):
            model.eval()(normalised(images[at : at + _BATCH]))
    hook.remove()
    features = torch.cat(kept).double()
    centre, spread = features.mean(0), features.std(0) + 1e-6
    x = (features - centre) / spread
    target = nn.functional.one_hot(torch.from_numpy(labels), len(CLASSES)).double() - 1 / len(CLASSES)
    weight = 8 * torch.linalg.solve(x.T @ x + len(x) * 0.1 * torch.eye(x.shape[1]), x.T @ target).T / spread
    with torch.no_grad():
        head.weight.copy_(weight.float())
        head.bias.copy_((-weight @ centre).float())


def prepare(place: Path, names: Sequence[str]) -> None:
    """Write images and weights of the rows, the latency of a network to plan for, a bundle and a folder of pictures."""
    import torch

    for row in {ROWS[name].inputs: ROWS[name] for name in names}.values():
        if (place / f"{row.inputs}.pt").exists():
            continue
        fitted = max(row.calibration, 1000)
        images, labels = draw(fitted, row.size, 1)
        tests, answers = draw(row.tests, row.size, 2)
        model = build(row.network)
        train_head(model, images, labels)
        torch.save(model.state_dict(), place / f"{row.inputs}.pt")
        np.savez(place / f"{row.inputs}.npz", images=images, labels=labels, tests=tests, answers=answers)
    if "plan" in names:
        _prepare_budget(ROWS["plan"], place)
    if FIRST_LINE in names:
        _prepare_folder(ROWS[FIRST_LINE], place)


def _prepare_budget(row: Row, place: Path) -> None:
    from seedcnn.plan import Budget, plan

    model, _ = _opened(row, place)
    found = plan(model, Budget("latency", 1e3), input_size=(3, row.size, row.size), forms=("dws",))
    (place / "budget.json").write_text(json.dumps(_SHARE * found.vanilla.of("latency")))


def _prepare_folder(row: Row, place: Path) -> None:
    from PIL import Image

    model, data = _opened(row, place)
    for index, (image, label) in enumerate(zip(data["tests"], data["answers"], strict=True)):
        folder = place / "photos" / "val" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:04d}.png")
        twin = place / "photos" / "train" / CLASSES[label]
        twin.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(twin / f"{index:04d}.png")
    from seedcnn.pack import pack

    few = slice(None, _GRID_TESTS)
    packed = pack(model, _info(row), data["tests"][few], data["answers"][few])
    (place / "photos.bundle").write_bytes(packed.data)


def _opened(row: Row, place: Path) -> tuple[nn.Module, dict[str, np.ndarray]]:
    import torch

    model = build(row.network)
    model.load_state_dict(torch.load(place / f"{row.inputs}.pt", weights_only=True))
    with np.load(place / f"{row.inputs}.npz") as file:
        return model.eval(), dict(file)


def _info(row: Row) -> Any:
    from seedcnn.export import BundleInfo
    from seedcnn.pack import preprocessing_of

    return BundleInfo(row.network, "tools", 1, preprocessing_of(MEAN, STD, (row.size, row.size)), CLASSES)


def _found(result: Any) -> dict[str, Any]:
    accuracies = {"before": round(result.before.top1, 2), "after": round(result.after.top1, 2)}
    return {"bytes": len(result.data), "step": result.step, "tried": len(result.tried), **accuracies}


def search(row: Row, place: Path) -> dict[str, Any]:
    """Pack with a search for the grid."""
    from seedcnn.pack import Search, pack

    model, data = _opened(row, place)
    wanted = slice(None, row.calibration)
    searched = Search(data["images"][wanted], data["labels"][wanted], 0.5)
    return _found(pack(model, _info(row), data["tests"], data["answers"], search=searched, threads=_THREADS))


def one_step(row: Row, place: Path) -> dict[str, Any]:
    """Pack on one step; so few test images that the time is that of export, coding and checks."""
    from seedcnn.pack import pack

    model, data = _opened(row, place)
    return _found(pack(model, _info(row), data["tests"], data["answers"], step=1 / 512, threads=_THREADS))


def _planned(found: Any) -> dict[str, Any]:
    seconds = {name: round(value, 3) for name, value in found.seconds.items()}
    return {
        "replaced": len(found.overrides),
        "layers": len(found.layers),
        "macs": found.predicted.macs,
        "parts": seconds,
    }


def plan_latency(row: Row, place: Path) -> dict[str, Any]:
    """Plan for a share of the vanilla network's latency, the same milliseconds for old and new code."""
    from seedcnn.plan import Budget, plan

    model, _ = _opened(row, place)
    budget = Budget("latency", json.loads((place / "budget.json").read_text()))
    return _planned(plan(model, budget, input_size=(3, row.size, row.size)))


def plan_sensitivity(row: Row, place: Path) -> dict[str, Any]:
    """Plan for 0.6 of the MACs with sensitivities measured on calibration images, without latencies."""
    import torch

    from seedcnn.evaluate import cost
    from seedcnn.plan import Budget, Calibration, plan

    model, data = _opened(row, place)
    size = (3, row.size, row.size)
    wanted = slice(None, row.calibration)
    calibration = Calibration(normalised(data["images"][wanted]), torch.from_numpy(data["labels"][wanted]))
    budget = Budget("macs", 0.6 * cost(model, size).macs)
    return _planned(plan(model, budget, input_size=size, calibration=calibration, latency=False))


def first_line(row: Row, place: Path) -> dict[str, Any]:
    """Refuse: ``tools.py`` runs the command :func:`first_line_command` instead, until it says something."""
    raise SystemExit(f"{row.what}: this row is a command, with the inputs in {place}")


def first_line_command(place: Path) -> list[str]:
    """Return the arguments of python for the row that waits for the first line."""
    kinds = ["--corruptions", "gaussian_noise,contrast"]
    return ["-m", "seedcnn.cli", "evaluate", str(place / "photos.bundle"), "--data", str(place / "photos"), *kinds]


ROWS = {
    "pack-224": Row("pack, searched: ResNet-18 at 224 pixels", "resnet18", 224, 375, 1000, search),
    "pack-64": Row("pack, searched: ResNet-18 at 64 pixels", "resnet18", 64, 375, 1000, search),
    "pack-cifar": Row("pack, searched: CIFAR ResNet-18", "resnet18_cifar", 32, 1000, 1000, search),
    "pack-resnet8": Row("pack, searched: ResNet-8 of the demo", "demo", 32, 2000, 5000, search),
    "pack-step": Row("pack --step: CIFAR ResNet-18, GroupNL", "resnet18_cifar+groupnl", 32, _GRID_TESTS, 0, one_step),
    "plan": Row("plan under a latency budget: resnet8_cifar", "resnet8_cifar", 32, _GRID_TESTS, 0, plan_latency),
    "plan-sensitivity": Row("plan, measured: resnet8_cifar", "resnet8_cifar", 32, _GRID_TESTS, 512, plan_sensitivity),
    FIRST_LINE: Row("evaluate a bundle until the first line", "demo", 64, 1000, 0, first_line),
}


def main(arguments: Sequence[str]) -> None:
    """Prepare or run, as the module says."""
    what, place, *names = arguments
    if what == "prepare":
        prepare(Path(place), names)
        return
    import seedcnn

    start = time.perf_counter()
    found = ROWS[names[0]].work(ROWS[names[0]], Path(place))
    work = time.perf_counter() - start
    print(json.dumps({"code": os.path.dirname(seedcnn.__file__), "work_s": work, "found": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
