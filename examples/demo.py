"""The main job, end to end, on real CIFAR-10: convert, train, measure, pack, publish, update a device, classify.

Run it with ``make demo``. It writes everything to ``demo-out/``; its last line is the path of the HTML report.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from seedcnn.bundle import read_bundle
from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.evaluate.accuracies import torch_predictor
from seedcnn.evaluate.costs import cost
from seedcnn.evaluate.predictors import bundle_predictor
from seedcnn.evaluate.report import advice
from seedcnn.evaluate.robustness_runs import RobustnessTable, robustness_many
from seedcnn.export import BundleInfo
from seedcnn.latency import interleave
from seedcnn.messages import Advance, counted
from seedcnn.pack import PackResult, Parent, Search, pack, preprocessing_of
from seedcnn.progress import Progress, duration
from seedcnn.server.families import add_family
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.static import serve
from seedcnn.train import TrainConfig, TrainData, find_recipe, load_model

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo_report import (
    SHOWN,
    TRAINING,
    Network,
    console,
    machine,
    model_rows,
    packed,
    print_advice,
    print_tables,
    report,
    table_rows,
    verdict,
    versions,
)
from demo_training import Told, train_side_by_side

ROOT = Path(__file__).resolve().parent.parent
FAMILY = "demo-cifar10"
DEVICE_IMAGES = 1000
NAMES = {"vanilla": "vanilla", "narrow": "narrowed", "groupnl": "GroupNL r=2", "recommended": "recommended"}
LONGEST_FIRST = ("groupnl", "vanilla", "recommended", "narrow")  # in training
RELEASES = {"groupnl": 1, "recommended": 3}  # of FAMILY; the device never sees the other two
CALIBRATION, MAX_DROP = 5000, 0.5  # the search for a grid: training images, and the points it may lose on them
progress = Progress()


class Stages:
    """The time of each stage, printed at its end and the demo's; the processor time is that of children, too."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        console.rule(name, align="left", style="bold")
        start, worked = time.monotonic(), sum(os.times()[:4])
        yield
        self.seconds[name] = time.monotonic() - start
        self.processor[name] = sum(os.times()[:4]) - worked
        console.print(f"{self.seconds[name]:.1f} s", style="dim")


class Bars:
    """A bar for each network in training, and a line when it is done."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._bars: dict[str, tuple[Advance, int]] = {}

    def __call__(self, told: Told) -> None:
        """Show a batch, or the end of a training."""
        if told.name not in self._bars:
            self._bars[told.name] = self._open.enter_context(progress.steps(told.name, told.total)), 0
        advance, done = self._bars[told.name]
        advance(told.done - done, f"epoch {told.epoch}, accuracy {told.accuracy:.1f} %")
        self._bars[told.name] = advance, told.done
        if told.finished:
            said = f"loss {told.loss:.3f}, accuracy on training images {told.accuracy:.1f} %"
            console.print(f"{told.name:<12} {counted(told.epoch, 'epoch')} in {duration(told.seconds)}, {said}")

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


class Device:
    """A device: an environment of its own without torch. Every call is a new process."""

    def __init__(self, out: Path) -> None:
        self.out, self.venv, self.home = out, out / "device-venv", out / "device"
        subprocess.run([ROOT / "tools" / "device_venv.sh", self.venv], check=True)
        listed = "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version)"
        self.packages = sorted(self._python(listed).splitlines())
        if any(package.split()[0] == "torch" for package in self.packages):
            raise SystemExit("demo: torch is installed in the device's environment")
        files = (file for file in self.venv.rglob("*") if file.is_file() and not file.is_symlink())
        self.megabytes = sum(file.stat().st_size for file in files if file.suffix != ".pyc") / 1e6

    def _python(self, code: str) -> str:
        return subprocess.run(
            [self.venv / "bin" / "python", "-c", code], check=True, text=True, capture_output=True
        ).stdout

    def run(self, *arguments: str | Path, refuse: bool = False) -> str:
        """Run ``seedcnn-device`` and print the command and its output. With ``refuse`` it must fail with a reason."""
        command = [self.venv / "bin" / "seedcnn-device", "--home", self.home, *arguments]
        shown = self.shorter(" ".join(str(part) for part in ("seedcnn-device", *arguments)))
        console.print(f"$ {shown}", soft_wrap=True, style="bold")
        done = subprocess.run(command, text=True, capture_output=True)
        if (done.returncode != 0) != refuse:
            raise SystemExit(f"demo: `{shown}` ended with {done.returncode}: {done.stderr or done.stdout}")
        text = done.stderr if refuse else done.stdout
        if "--json" not in arguments:
            console.print(self.shorter(text.strip()))
        return text

    def shorter(self, text: str) -> str:
        """Shorten the paths below the output directory."""
        return text.replace(str(self.out), self.out.name)

    def classify(self, images: Path) -> np.ndarray:
        """Return the class index of every image of a .npy batch."""
        return np.array([row["index"] for row in json.loads(self.run("predict", images, "--json"))])


def shorten(cifar: Cifar10, images: int | None) -> Cifar10:
    """Keep the first training images and a fifth as many test images, at least those that the device classifies."""
    if images is None:
        return cifar
    tests = max(images // 5, DEVICE_IMAGES)
    return replace(
        cifar,
        train_images=cifar.train_images[:images],
        train_labels=cifar.train_labels[:images],
        test_images=cifar.test_images[:tests],
        test_labels=cifar.test_labels[:tests],
    )


def trained(runs: dict[str, tuple[TrainConfig, Path]], cifar: Cifar10) -> dict[str, Network]:
    """Train networks side by side."""
    data = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)
    with Bars() as show:
        train_side_by_side({NAMES.get(key, key): run for key, run in runs.items()}, data, show)
    models = {key: load_model(path)[0] for key, (_, path) in runs.items()}
    return {key: Network(NAMES.get(key, key), model, cost(model)) for key, model in models.items()}


def train_all(cifar: Cifar10, out: Path, epochs: int | None) -> dict[str, Network]:
    """Train the four recipes of recipes/demo.py, those that take longest first."""
    runs = {}
    for key in LONGEST_FIRST:
        config = find_recipe(f"demo:{key}")
        config = config if epochs is None else replace(config, epochs=epochs, warmup_epochs=min(1.0, epochs / 2))
        few = len(cifar.train_images) // 16  # so that a quick look has some updates, too
        config = replace(config, batch_size=max(16, min(config.batch_size, few)))
        runs[key] = config, out / f"{key}.ckpt"
    networks = trained(runs, cifar)
    return {key: networks[key] for key in NAMES}


def pack_one(
    network: Network, cifar: Cifar10, family: str, release: int, parent: PackResult | None = None
) -> PackResult:
    """Pack a network on the coarsest grid that is good enough, or on its parent's; print what that costs."""
    info = BundleInfo(network.name, family, release, preprocessing_of(cifar.mean, cifar.std), cifar.classes)
    images, labels = cifar.train_images[:CALIBRATION], cifar.train_labels[:CALIBRATION]
    result = pack(
        network.model,
        info,
        cifar.test_images,
        cifar.test_labels,
        search=Search(images, labels, MAX_DROP) if parent is None else None,
        parent=None if parent is None else Parent(read_bundle(parent.data), images),
        threads=torch.get_num_threads(),
    )
    console.print(
        f"{network.name:<12} {len(result.data):,} bytes, {result.bits_per_weight:.2f} bits a weight; accuracy "
        f"{result.before.top1:.2f} -> {result.after.top1:.2f} %"
    )
    return result


def measure_latency(networks: dict[str, Network], cifar: Cifar10) -> None:
    """Time one image on one thread of ONNX Runtime, the bundles interleaved in one process."""
    image = cifar.test_images[:1]
    calls = {}
    for key, network in networks.items():
        predict = bundle_predictor(read_bundle(packed(network).data), threads=1)
        calls[key] = lambda predict=predict: predict(image)
    for key, latency in interleave(calls, rounds=1000, warmup=100).items():
        networks[key].latency = latency


def check_device(device: Device, images: Path, cifar: Cifar10, network: Network) -> str:
    """Classify the images on the device, compare with the torch network and return a sentence for the report."""
    result, labels = packed(network), cifar.test_labels[:DEVICE_IMAGES]
    answers = 100 * float((device.classify(images) == labels).mean())
    on_grid, trained = (100 * float(a.correct[:DEVICE_IMAGES].mean()) for a in (result.on_grid, result.before))
    sentence = (
        f"device {answers:.1f} % of {DEVICE_IMAGES} images; torch with the shipped weights {on_grid:.1f} %, "
        f"torch with the trained float32 weights {trained:.1f} %"
    )
    console.print(re.sub("[;,] torch", "\ntorch", sentence))
    if abs(answers - on_grid) > 0.1 + 1e-9:
        raise SystemExit(f"demo: the device is more than 0.1 point away from torch: {sentence}")
    return sentence


def fine_tune(cifar: Cifar10, out: Path, parent: PackResult) -> Network:
    """Train one more epoch at a low learning rate and pack it as release 2 on the grid of release 1."""
    config = replace(find_recipe("demo:finetune"), init_from=str(out / "groupnl.ckpt"))
    (tuned,) = trained({"fine-tune": (config, out / "groupnl-2.ckpt")}, cifar).values()
    tuned.name = NAMES["groupnl"]
    tuned.packed = pack_one(tuned, cifar, FAMILY, 2, parent)
    return tuned


def tamper(fleet: Path) -> None:
    """Flip one bit in the middle of the published release 4."""
    (target,) = (fleet / "public" / "targets" / FAMILY).glob("*.4.bundle")
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    console.print("one bit of the published release 4 flipped on the server")


def pack_and_measure(networks: dict[str, Network], cifar: Cifar10, corrupted: int) -> dict[str, RobustnessTable]:
    """Pack each network, corrupt the images, and time the bundles."""
    with progress.steps("packing", len(networks)) as advance:
        for key, network in networks.items():
            family = FAMILY if key in RELEASES else f"demo-{key}"
            network.packed = pack_one(network, cifar, family, RELEASES.get(key, 1))
            advance(1, network.name)
    predictors = {n.name: torch_predictor(n.model, cifar.mean, cifar.std) for n in networks.values()}
    with progress.steps("corrupting", None) as advance:
        tables = robustness_many(
            predictors,
            cifar.test_images,
            cifar.test_labels,
            corruptions=SHOWN,
            max_images=corrupted,
            progress=lambda done, total: advance(0, f"{done:,} of {total:,} images"),
        )
    measure_latency(networks, cifar)
    return tables


def device_story(networks: dict[str, Network], cifar: Cifar10, out: Path, stages: Stages) -> list[str]:
    """Publish, update and classify four times: seeds, a delta, another network, and a file that was tampered with.

    Returns:
        Sentences for the report.
    """
    fleet, images, grown, best = out / "fleet", out / "images.npy", networks["groupnl"], networks["recommended"]
    np.save(images, cifar.test_images[:DEVICE_IMAGES])
    with stages("set up a device without torch"):
        device = Device(out)
        console.print(f"{device.megabytes:.0f} MB installed: {', '.join(device.packages)}")
    init_repository(fleet)
    add_family(fleet, FAMILY)
    with serve(fleet) as server:
        with stages("release 1: publish, update, classify"):
            publish(fleet, packed(grown).data)
            device.run("init", "--root", fleet / "root.json", "--url", server.url, "--family", FAMILY)
            device.run("update")
            first = check_device(device, images, cifar, grown)
        with stages("release 2: fine-tune, publish, delta, classify"):
            tuned = fine_tune(cifar, out, packed(grown))
            deltas = publish(fleet, packed(tuned).data).deltas
            device.run("update")
            second = check_device(device, images, cifar, tuned)
        with stages("release 3: another network, update, classify"):
            publish(fleet, packed(best).data)
            device.run("update")
            third = check_device(device, images, cifar, best)
        with stages("release 4: publish, tamper, refuse"):
            publish(fleet, pack_one(best, cifar, FAMILY, 4, packed(best)).data, deltas=0)
            tamper(fleet)
            before = device.classify(images)
            device.run("update", refuse=True)
            device.run("status")
            if not (device.classify(images) == before).all():
                raise SystemExit("demo: the device answers differently after the refused update")
            console.print("release 3 still answers, as before")
    return [
        f"Release 1, {grown.name}, {len(packed(grown).data):,} bytes: {first}.",
        f"Release 2, one more epoch, a delta of {deltas[1]:,} bytes: {second}.",
        f"Release 3, the {best.name} network, {len(packed(best).data):,} bytes: {third}.",
        "Release 4 was tampered with on the server: the device refused it and still answers with release 3.",
    ]


def near(path: Path) -> Path:
    """Return a path as seen from the working directory, if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(argv: list[str] | None = None) -> None:
    """Run the demo with the options ``argv``, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", help="output directory (default: demo-out)")
    parser.add_argument("--data", type=Path, help="directory that holds CIFAR-10; downloaded if not given")
    parser.add_argument("--epochs", type=int, help="epochs of each network (default: the recipe's)")
    parser.add_argument("--images", type=int, help="train on this many images only, for a quick look")
    parser.add_argument("--corrupted", type=int, default=2000, help="test images to corrupt (default: %(default)s)")
    parser.add_argument("--started", type=float, help="Unix time at which the set-up before the demo started")
    arguments = parser.parse_args(argv)
    out: Path = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    stages = Stages()
    if arguments.started:
        stages.seconds["set up (install)"] = max(0.0, time.time() - arguments.started - time.process_time())
    with stages("data"):
        cifar = shorten(load_cifar10(arguments.data, progress=console.print), arguments.images)
    with stages("train four networks"):
        networks = train_all(cifar, out, arguments.epochs)
    with stages("pack and measure"):
        tables = pack_and_measure(networks, cifar, arguments.corrupted)
    rows, sentence = table_rows(networks, tables), verdict(networks, tables)
    console.rule("the networks side by side", align="left", style="bold")
    print_tables(networks, tables)
    console.rule("which to take", align="left", style="bold")
    print_advice(advice(model_rows(networks, tables), training=TRAINING))
    notes = device_story(networks, cifar, out, stages)
    with stages("report"):
        path = report(networks, tables, cifar, out, [sentence, *notes])
        record = {
            "command": "make demo",
            "machine": machine(),
            "versions": versions(),
            "networks": [network.name for network in networks.values()],
            "rows": rows,
            "verdict": sentence,
            "device": notes,
            "seconds": {name: round(seconds, 1) for name, seconds in stages.seconds.items()},
            "processor_seconds": {name: round(seconds, 1) for name, seconds in stages.processor.items()},
        }
        (out / "demo.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    console.rule("times", align="left", style="bold")
    for name, seconds in {**stages.seconds, "all": sum(stages.seconds.values())}.items():
        worked = sum(stages.processor.values()) if name == "all" else stages.processor.get(name)
        spent = "" if worked is None else f"{worked:6.1f} s of processor"
        console.print(f"{name:<46.46} {seconds:6.1f} s {spent}")
    console.print(f"report: {near(path)}", soft_wrap=True)


if __name__ == "__main__":
    main()
