"""Training of one network by two processes over gloo: gradient bytes per step and process, and time per step.

All forms run in the same two processes and take turns in random order; a step begins when both processes are ready.
Only learnable gradients are exchanged, and the bytes are counted where ``DistributedDataParallel`` sends them. Both
processes run on this machine, so the exchange itself is fast; over a network, its time grows with the bytes.

    python benchmarks/ddp.py --record results/ddp.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import converted
from rich.console import Console
from rich.table import Table
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig
from seedcnn.evaluate.benchmark import conditions
from seedcnn.models import create_model
from seedcnn.processes import Processes

FORMS = {
    "GroupNL dense r=2": GroupNLConfig.paper(),
    "GroupNL sparse r=2": GroupNLConfig.paper(sparse=True),
    "Ghost r=2": GhostConfig(),
    "depthwise-separable": DepthwiseSeparableConfig(),
}
WORLD = 2


def counted(sent: list[int]) -> Callable[..., Any]:
    """Return a DDP gradient hook that does what DDP does by default and records the bytes."""

    def hook(_, bucket):  # type: ignore[no-untyped-def]  # DDP inspects annotations and rejects strings
        gradient = bucket.buffer()
        sent.append(gradient.numel() * gradient.element_size())
        future = distributed.all_reduce(gradient, async_op=True).get_future()
        return future.then(lambda done: done.value()[0] / WORLD)

    return hook


def step(called: Any, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Run one training step and return its seconds."""
    distributed.barrier()
    start = time.perf_counter()
    F.cross_entropy(called(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def work(rank: int, port: int, arguments: argparse.Namespace, out: Any) -> None:
    """Run one process: build every form and step them in turn; rank 0 puts its numbers into ``out``."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD)
    processes = Processes(torch.device("cpu"), rank, WORLD)
    torch.manual_seed(0)
    models = converted(create_model(arguments.model), FORMS)
    torch.manual_seed(rank)
    images = torch.randn(arguments.batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (arguments.batch,))
    runs: dict[str, tuple[Any, torch.optim.Optimizer, list[int]]] = {}
    for form, network in models.items():
        model: nn.Module = network.train().to(memory_format=torch.channels_last)
        called: Any = processes.wrap(model)
        sent: list[int] = []
        called.register_comm_hook(None, counted(sent))
        runs[form] = called, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9), sent
    times: dict[str, list[float]] = {form: [] for form in runs}
    order, shuffle = list(runs), random.Random(0).shuffle  # the same order in both processes
    for index in range(arguments.warmup + arguments.rounds):
        shuffle(order)
        for form in order:
            called, optimizer, sent = runs[form]
            sent.clear()
            seconds = step(called, optimizer, images, labels)
            if index >= arguments.warmup:
                times[form].append(1e3 * seconds)
    if rank == 0:
        out.put({form: (times[form], sum(sent), _learnable(models[form])) for form, (_, _, sent) in runs.items()})
    distributed.barrier()
    distributed.destroy_process_group()


def _learnable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18_cifar")
    parser.add_argument("--batch", type=int, default=32, help="images per process")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    started = [
        context.Process(target=work, args=(rank, port, arguments, out))
        for port in [_free_port()]
        for rank in range(WORLD)
    ]
    for process in started:
        process.start()
    while out.empty() and all(process.exitcode is None for process in started):
        time.sleep(0.2)
    if any(process.exitcode for process in started):
        for process in started:
            process.kill()
        raise SystemExit("a process failed")
    found = out.get(timeout=60)
    for process in started:
        process.join()
    rows: dict[str, dict[str, Any]] = {}
    base = found["vanilla"]
    for form, (times, sent, learnable) in found.items():
        low, median, high = statistics.quantiles(times, n=4)
        rows[form] = {
            "learnable": learnable,
            "gradient_bytes": sent,
            "bytes_ratio": round(sent / base[1], 4),
            "median_ms": round(median, 1),
            "quartiles_ms": [round(low, 1), round(high, 1)],
            "time_ratio": round(median / statistics.median(base[0]), 4),
        }
    about = conditions(threads=1, rounds=arguments.rounds, process=f"{WORLD} processes over gloo, a core each")
    table = Table("form", "learnable", "gradient bytes a step", "ratio", "ms a step", "quartiles", "ratio")
    for form, row in rows.items():
        quartiles = f"{row['quartiles_ms'][0]:.0f}, {row['quartiles_ms'][1]:.0f}"
        counts = [f"{row['learnable']:,}", f"{row['gradient_bytes']:,}", f"{row['bytes_ratio']:.4f}"]
        table.add_row(form, *counts, f"{row['median_ms']:.0f}", quartiles, f"{row['time_ratio']:.3f}")
    Console(width=120).print(table)
    if arguments.record:
        what = f"{arguments.model}, batches of {arguments.batch} in each of {WORLD} processes"
        arguments.record.write_text(json.dumps(about | {"what": what, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
