"""Bundles and deltas of CIFAR ResNet-18, vanilla and GroupNL, dense and sparse, after real training.

    python benchmarks/packing.py train vanilla       # or dense, sparse; an hour on one core, and half of it together
    python benchmarks/packing.py tune vanilla        # 60 SGD steps from the trained network, on all and on the head
    python benchmarks/packing.py measure             # bytes, accuracies, deltas and times of every trained form

Interrupted trainings resume. ``measure`` writes results/packing-resnet18.json, form by form.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from harness import about_runs
from torch import nn

from seedcnn.arrays import F32, I16
from seedcnn.bundle import Bundle, read_bundle
from seedcnn.bundle.compression import compress
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.convert import ConversionConfig, GroupNLConfig
from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.evaluate import bundle_predictor, cost
from seedcnn.evaluate.accuracies import accuracy_of_logits, predict_logits
from seedcnn.export import BundleInfo
from seedcnn.pack import PackResult, Parent, Search, calibration_order, pack, preprocessing_of
from seedcnn.pack.sizes import plain_sizes
from seedcnn.train import TrainConfig, TrainData, TrainProgress, load_model, load_training_data, train

FORMS: dict[str, ConversionConfig | None] = {
    "vanilla": None,
    "dense": GroupNLConfig(reduction_ratio=2),
    "sparse": GroupNLConfig(reduction_ratio=2, sparse=True),
}
_GROWING = ((16, 2), (24, 2), (32, 1))
STAGES = {
    "vanilla": ((32, 5),),
    "dense": _GROWING,
    "sparse": _GROWING,
}  # (pixels, epochs); smaller images take less time
STEPS = 60
CALIBRATION, FOLLOWED = 5000, 512
STEP = 0.006  # grid step of all weights
PRICES = (0.0, 0.5, 2.0)  # prices of a change in a delta
PICTURES = 10_000  # test images for the searched grid


def config(form: str, stage: int, precision: str = "bf16") -> TrainConfig:
    """Return the config of one training stage of a form; all stages together are one cycle of the learning rate.

    Deep seed networks diverge at the vanilla network's learning rate; here their blocks start as shortcuts only.
    """
    stages = STAGES[form]
    common: dict[str, Any] = {"model": "resnet18_cifar", "epochs": stages[stage][1], "precision": precision}
    if form == "vanilla":
        return TrainConfig(**common, lr=0.4, warmup_epochs=1.5)
    return TrainConfig(
        **common,
        model_options={"zero_init_residual": True},
        convert=FORMS[form],
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        schedule="cosine" if stage == len(stages) - 1 else "constant",
        warmup_epochs=0.1 if stage else 0.5,
    )


def data_of(cifar: Cifar10, size: int = 32) -> TrainData:
    """Return the training set, its images averaged down to ``size`` pixels."""
    images = torch.from_numpy(cifar.train_images).permute(0, 3, 1, 2)
    if size != images.shape[-1]:
        parts = [nn.functional.interpolate(part.float(), size=size, mode="area") for part in images.split(1000)]
        images = torch.cat([part.round().to(torch.uint8) for part in parts])
    return TrainData(images.permute(0, 2, 3, 1).contiguous().numpy(), cifar.train_labels, cifar.mean, cifar.std)


def place(arguments: argparse.Namespace, form: str, kind: str = "") -> Path:
    """Return the path of a checkpoint."""
    return Path(arguments.out) / f"{form}{'-' * bool(kind)}{kind}.ckpt"


def run_training(arguments: argparse.Namespace, cifar: Cifar10) -> None:
    """Train the named forms."""
    for form in arguments.forms:
        for stage, (size, _) in enumerate(STAGES[form]):
            last = stage == len(STAGES[form]) - 1
            out = place(arguments, form, "" if last else f"{size}px")
            before = place(arguments, form, f"{STAGES[form][stage - 1][0]}px") if stage else ""
            run = replace(config(form, stage, arguments.precision), init_from=str(before))
            _, state = train(run, data_of(cifar, size), out, name=form, resume=True, save_steps=arguments.save)
            print(form, f"{size} px", state.history[-1], flush=True)


def run_tuning(arguments: argparse.Namespace, cifar: Cifar10) -> None:
    """Run ``STEPS`` steps of SGD at 1e-3 from each named form, on all weights and on the head alone."""
    for form in arguments.forms:
        trained = config(form, -1)
        tune = replace(
            trained,
            **{
                "optimizer": "sgd",
                "weight_decay": 5e-4,
                "epochs": 1,
                "warmup_epochs": 0.0,
                "lr": 1e-3,
                "schedule": "constant",
                "seed": 1,
                "precision": "fp32",
            },
            init_from=str(place(arguments, form)),
            fraction=STEPS * trained.batch_size / len(cifar.train_labels),
        )
        quiet = TrainProgress(form, 1, 1, quiet=True)
        train(tune, load_training_data(tune), place(arguments, form, "tuned"), progress=quiet)
        model, saved = load_model(place(arguments, form))
        torch.save(tune_head(model, cifar, saved.config).state_dict(), place(arguments, form, "head"))


def tune_head(model: nn.Module, cifar: Cifar10, run: TrainConfig) -> nn.Module:
    """Run ``STEPS`` steps on the classifier alone, with the rest in eval mode."""
    head: Any = model.fc
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (cifar.mean, cifar.std))
    for _ in range(STEPS):
        picked = torch.randint(len(cifar.train_labels), (run.batch_size,), generator=generator).numpy()
        images = torch.from_numpy(cifar.train_images[picked]).permute(0, 3, 1, 2).float() / 255
        loss = nn.functional.cross_entropy(model((images - mean) / std), torch.from_numpy(cifar.train_labels[picked]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def told(result: PackResult) -> dict[str, Any]:
    """Return bytes, bits per weight and accuracies."""
    return {
        "bytes": len(result.data),
        "bits_per_weight": round(result.bits_per_weight, 3),
        "float32_top1": round(result.before.top1, 2),
        "bundle_top1": round(result.after.top1, 2),
        "same_first_class": round(result.grid.agreement, 2),
    }


def deltas(
    parent: Bundle, child: nn.Module, prices: Sequence[float], info: BundleInfo, cifar: Cifar10, pictures: int
) -> list[Any]:
    """Pack a child on its parent's grid, at several prices of a change."""
    picked = calibration_order(cifar.train_labels, FOLLOWED)
    test = cifar.test_images[:pictures], cifar.test_labels[:pictures]
    answers = predict_logits(bundle_predictor(parent, threads=torch.get_num_threads()), test[0])
    stayed = {"parent_top1": round(accuracy_of_logits(answers, test[1]).top1, 2)}
    found = []
    for price in prices:
        follow = Parent(parent, cifar.train_images[picked], price)
        result = pack(child, replace(info, release=2), *test, parent=follow, threads=torch.get_num_threads())
        assert result.delta is not None
        opened = read_delta(result.delta)
        apply_delta(parent, opened)
        changes = changed(parent, read_bundle(result.data))
        sizes = {"delta_bytes": len(result.delta), "of_the_bundle": round(len(result.delta) / len(result.data), 5)}
        found.append(
            {"price": price} | told(result) | stayed | sizes | {"tensors": len(opened.tensors), "changes": changes}
        )
    return found


def changed(parent: Bundle, child: Bundle) -> int:
    """Count the integers that differ."""
    before: dict[str, I16] = {}
    after: dict[str, I16] = {}
    parent.unscaled(before)
    child.unscaled(after)
    return sum(int((values != before[name]).sum()) for name, values in after.items())


def general_deltas(parent: dict[str, F32], child: dict[str, F32]) -> dict[str, int]:
    """Count the bytes of the changes, coded as one would without a common grid."""
    before, after = (np.concatenate([values.ravel() for values in each.values()]) for each in (parent, child))
    bits = (before.view(np.uint32) ^ after.view(np.uint32)).view(np.uint8).reshape(-1, 4)
    rounded = []
    for name, values in child.items():
        if values.ndim > 1:
            scale = np.abs(values.reshape(len(values), -1)).max(axis=1).reshape(-1, *(1,) * (values.ndim - 1)) / 127
            one, other = (
                np.rint(each / np.where(scale > 0, scale, 1)).clip(-128, 127) for each in (parent[name], values)
            )
            rounded.append((other - one).astype(np.int16).astype(np.int8).tobytes())
    return {
        "float32, xor, byte planes, zstd": len(compress(bits.T.tobytes(), fast=True)),
        "int8 per channel, differences, zstd": len(compress(b"".join(rounded))),
    }


def opening_ms(data: bytes, rounds: int = 15) -> float:
    """Measure the median milliseconds on one core to open a bundle and expand every tensor."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        bundle = read_bundle(data)
        bundle.tensors()
        bundle.graph()
        times.append(1000 * (time.process_time() - start))
    return round(median(times), 1)


def measure_form(form: str, arguments: argparse.Namespace, cifar: Cifar10) -> dict[str, Any]:
    """Measure all numbers of a form."""
    info = BundleInfo(form, form, 1, preprocessing_of(cifar.mean, cifar.std), cifar.classes)
    model, _ = load_model(place(arguments, form))
    counted = cost(model, (3, 32, 32))
    row: dict[str, Any] = {
        "epochs": sum(epochs for _, epochs in STAGES[form]),
        "params": counted.params,
        "macs": counted.macs,
    }
    started = time.process_time()
    plain = pack(model, info, cifar.test_images[:1], cifar.test_labels[:1], step=STEP)
    row["pack_cpu_seconds"] = round(time.process_time() - started, 2)
    row["open_cpu_ms"] = {"one step": opening_ms(plain.data)}
    row["plain"] = plain_sizes(plain.learned)
    few, threads = arguments.pictures, torch.get_num_threads()
    test = cifar.test_images[:few], cifar.test_labels[:few]
    row["one step"] = told(pack(model, info, *test, step=STEP, threads=threads)) | {"step": STEP}
    picked = calibration_order(cifar.train_labels, CALIBRATION)
    search = Search(cifar.train_images[picked], cifar.train_labels[picked])
    test = cifar.test_images[:PICTURES], cifar.test_labels[:PICTURES]
    started = time.process_time()
    searched = pack(model, info, *test, search=search, threads=threads)
    row["searched"] = told(searched) | {"cpu_seconds": round(time.process_time() - started, 1)}
    row["open_cpu_ms"]["searched"] = opening_ms(searched.data)
    parent = read_bundle(searched.data)
    tuned, head = load_model(place(arguments, form, "tuned"))[0], load_model(place(arguments, form))[0]
    head.load_state_dict(torch.load(place(arguments, form, "head"), weights_only=True))
    row["60 steps"] = deltas(parent, tuned.eval(), arguments.prices, info, cifar, few)
    row["head alone"] = deltas(parent, head.eval(), PRICES[1:2], info, cifar, few)
    for name, child in (("60 steps", tuned), ("head alone", head)):
        learned = pack(child, info, cifar.test_images[:1], cifar.test_labels[:1], step=None).learned
        row[f"{name}, in general"] = general_deltas(dict(plain.learned), dict(learned))
    return row


def run_measuring(arguments: argparse.Namespace, cifar: Cifar10) -> None:
    """Measure the named forms, or every form that is trained and tuned."""
    forms = arguments.forms or [form for form in FORMS if place(arguments, form, "head").is_file()]
    record = json.loads(arguments.record.read_text("utf-8")) if arguments.record.is_file() else {"forms": {}}
    for form in forms:
        row = measure_form(form, arguments, cifar)
        about = about_runs("packing.py", "bundles and deltas of CIFAR ResNet-18", torch.get_num_threads())
        row |= {"command": about["command"], "pictures": {"searched": PICTURES, "rest": arguments.pictures}}
        record = about | {"forms": record["forms"] | {form: row}}
        arguments.record.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        print(form, json.dumps(row, indent=1), flush=True)


def main() -> None:
    """Run one stage."""
    stages = {"train": run_training, "tune": run_tuning, "measure": run_measuring}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=stages)
    parser.add_argument("forms", nargs="*", choices=[*FORMS, []], help="of: " + ", ".join(FORMS))
    parser.add_argument("--out", default="runs/packing", help="directory of the checkpoints")
    parser.add_argument("--save", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="bf16", help="training precision; fp32 if the processor has no bfloat16")
    parser.add_argument("--pictures", type=int, default=4000, help="test images, except for the searched grid")
    parser.add_argument("--prices", type=float, nargs="+", default=list(PRICES), help="prices of a change in a delta")
    parser.add_argument("--record", type=Path, default=Path("results/packing-resnet18.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    stages[arguments.stage](arguments, load_cifar10())


if __name__ == "__main__":
    main()
