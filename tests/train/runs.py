"""Small training runs, in this process or in others that can be killed."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from seedcnn.convert import GroupNLConfig
from seedcnn.processes import open_processes
from seedcnn.train import TrainConfig, TrainData, TrainProgress, train
from seedcnn.train._counts import Counts
from seedcnn.train._run import Run

SMALL = TrainConfig(
    model="resnet8_cifar",
    model_options={"widths": (4, 4, 8), "patch": 8},
    convert=GroupNLConfig.paper(nlf_groups=2, normalize="batch"),
    epochs=2,
    batch_size=16,
    lr=0.1,
    warmup_epochs=0.5,
)


def coloured(n=96, seed=0, classes=10):
    """Images whose class is their colour, which a network learns in seconds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    colours = np.random.default_rng(99).integers(40, 215, (10, 3))
    images = colours[labels][:, None, None, :] + rng.integers(-40, 41, (n, 32, 32, 3))
    return TrainData(images.clip(0, 255).astype(np.uint8), labels.astype(np.int64), (0.5,) * 3, (0.25,) * 3)


def quiet(config):
    return TrainProgress("test", config.epochs, 1, quiet=True)


def run(path, config=SMALL, *, data=None, **options):
    """Train on 96 images (six batches per epoch), quietly."""
    return train(config, data or coloured(), path, progress=quiet(config), device="cpu", **options)


def same(a, b):
    """Whether two state_dicts are equal, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def work(path, config, environment, options):
    """The target of a process: train to the end, and write any error to a file beside the checkpoint."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    try:
        run(path, config, **options)
    except Exception as error:
        rank = environment.get("RANK", "0")
        Path(f"{path}.{rank}.error").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(3) from error


def count_bytes(path, config, environment):
    """The target of a process: train an epoch, and write what the gradient hook sent and the process saw."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    sent, seen = [], []

    def hook(_, bucket):
        sent.append(bucket.buffer().numel() * bucket.buffer().element_size())
        world = distributed.get_world_size()
        future = distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
        return future.then(lambda done: done.value()[0] / world)

    with open_processes("cpu") as processes:
        task = Run(config, coloured(), processes, model=None, teacher=None, workers=0)
        task.called.register_comm_hook(None, hook)
        for _ in task.epoch(0, 0, Counts(), quiet(config)):
            pass
        for _, _, indices in task.batches.epoch(0, 0, task.steps):
            seen += indices.tolist()
        learnable = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        bits = [float(p.detach().double().sum()) for p in task.model.parameters()]
        told = {"sent": sum(sent), "steps": task.steps, "learnable": learnable, "seen": seen, "sums": bits}
        told["fixed"] = sum(b.numel() for b in task.model.buffers())
    Path(f"{path}.{environment['RANK']}.json").write_text(json.dumps(told))


def meet(path, environment, delay=0.0):
    """The target of a process: join the others after ``delay`` seconds, and write their ranks."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    time.sleep(delay)
    with open_processes("cpu") as processes:
        told = {"ranks": processes.gather(processes.rank), "restarted": processes.restarted}
    Path(f"{path}.{environment['RANK']}.json").write_text(json.dumps(told))


def changed(**fields):
    """SMALL with other fields."""
    return dataclasses.replace(SMALL, **fields)


# Every option with random numbers or a state of its own, and epochs whose last update has fewer batches.
EVERYTHING = changed(
    epochs=6,
    batch_size=8,
    deterministic=True,
    optimizer="adamw",
    ema=0.9,
    clip_grad=1.0,
    grad_accumulation=5,
    mixup=0.2,
    cutmix=0.5,
    random_erasing=0.5,
)
