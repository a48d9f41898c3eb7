"""Latency, training steps and loading of several forms of a network, timed against each other in one process."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.evaluate.runners import runner, settled
from seedcnn.latency import Latency, interleave
from seedcnn.machine import processor

__all__ = ["TRAINING_MODES", "Measurement", "bench_latency", "bench_training", "conditions", "quiet_process"]

TRAINING_MODES = ("eager", "eager channels_last", "compile", "compile channels_last")

_PACKAGES = ("seedcnn", "torch", "timm", "onnxruntime", "openvino", "numpy")
_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "LD_PRELOAD")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _HUGE = -1, -3, 1 << 30


@dataclass(frozen=True)
class Measurement:
    """One form in one runtime.

    Attributes:
        form: its name among the models measured.
        runtime: where it ran.
        latency: milliseconds of one call (inference) or of one step (training).
        ratio: its median over that of the first form in the same runtime.
        load_ms: milliseconds to build the session or to compile; 0 for training in eager mode.
        error: see :class:`seedcnn.evaluate.runners.Runner`; 0 for training.
        size: float32 bytes, see :class:`seedcnn.evaluate.runners.Runner`; 0 for training.
    """

    form: str
    runtime: str
    latency: Latency
    ratio: float
    load_ms: float = 0.0
    error: float = 0.0
    size: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a record, with times rounded to 0.1 microseconds."""
        t = self.latency
        row: dict[str, Any] = {"form": self.form, "runtime": self.runtime, "n": t.n, "median_ms": round(t.median_ms, 4)}
        row |= {"quartiles_ms": [round(t.q1_ms, 4), round(t.q3_ms, 4)], "ratio": round(self.ratio, 4)}
        return row | {"load_ms": round(self.load_ms, 1), "error": float(f"{self.error:.1e}"), "fp32_bytes": self.size}


def quiet_process(threads: int = 1) -> str:
    """Make timings in this process steady, and return a description of the settings.

    Sets the number of torch's threads, pins the process to that number of cores where the system allows it, and raises
    the thresholds of glibc's allocator: with the default ones, every large tensor is returned to the system and faulted
    in again, which can double the time of an eager layer.
    """
    torch.set_num_threads(threads)
    notes = []
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        os.sched_setaffinity(0, cores)
        notes.append(f"pinned to core {', '.join(map(str, cores))}")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        if libc.mallopt(_M_MMAP_THRESHOLD, _HUGE) and libc.mallopt(_M_TRIM_THRESHOLD, _HUGE):
            notes.append("glibc mmap and trim thresholds 1 GiB")
    notes += [f"{name}={os.environ[name]}" for name in _MALLOC if name in os.environ]
    return "; ".join(notes)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def conditions(*, threads: int, rounds: int, process: str) -> dict[str, Any]:
    """The conditions of a measurement, for its record.

    Args:
        threads, rounds: as measured.
        process: the text from :func:`quiet_process`.
    """
    return {
        "machine": f"{processor()}, {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": _versions(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "threads": threads,
        "rounds": rounds,
        "process": process,
        "how": "all forms in one process, interleaved in random order after a warm-up; inference after an untimed call "
        "of the same form; medians and quartiles; random weights, so these are costs, not accuracies",
    }


_Key = tuple[str, str]  # form, runtime or mode


def _measurements(times: Mapping[_Key, Latency], details: Mapping[_Key, dict[str, Any]]) -> list[Measurement]:
    base: dict[str, float] = {}
    result = []
    for (form, runtime), latency in times.items():
        first = base.setdefault(runtime, latency.median_ms)
        extra = details.get((form, runtime), {})
        result.append(Measurement(form, runtime, latency, latency.median_ms / first, **extra))
    return result


def bench_latency(
    models: Mapping[str, nn.Module],
    input_size: tuple[int, int, int],
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    rounds: int = 100,
    threads: int = 1,
    batch: int = 1,
) -> list[Measurement]:
    """Time inference of every network in every runtime, all interleaved; the first network is the baseline.

    Args:
        models: networks by name; copies are measured, with running statistics of noise.
        input_size: channels, height, width.
        runtimes: names from :data:`seedcnn.evaluate.runners.RUNNERS`.
        rounds: timed calls of each, after a tenth as many (at least 10) to warm up.
        threads: threads of the runtimes; torch uses the process's own setting.
        batch: images of a call.

    Raises:
        ExportError: if a network in a runtime differs from the same network in eager torch; nothing is timed then.
        BundleError: if a runtime does not accept a graph.
    """
    example = np.random.default_rng(0).standard_normal((batch, *input_size)).astype(np.float32)
    calls: dict[_Key, Callable[[], object]] = {}
    details: dict[_Key, dict[str, Any]] = {}
    for form, model in models.items():
        network = settled(model, input_size)
        for runtime in runtimes:
            ready = runner(network, example, runtime, threads=threads)
            calls[form, runtime] = lambda run=ready.run: run(example)  # type: ignore[misc]
            details[form, runtime] = {"load_ms": ready.load_s * 1e3, "error": ready.error, "size": ready.size}
    return _measurements(interleave(calls, rounds=rounds, warmup=max(10, rounds // 10), settle=1), details)


def _step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, compiled: bool) -> Callable[[], object]:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()

    return step


def bench_training(
    models: Mapping[str, nn.Module],
    input_size: tuple[int, int, int],
    *,
    batch: int,
    modes: Sequence[str] = ("eager",),
    rounds: int = 10,
) -> list[Measurement]:
    """Time a training step (forward, cross-entropy, backward, SGD with momentum) of every network.

    Args:
        models: classifiers by name; copies are trained, on noise.
        input_size: channels, height, width.
        batch: images of a step.
        modes: names from :data:`TRAINING_MODES`.
        rounds: timed steps of each, after two to warm up.

    Returns:
        One measurement for each network and mode; ``runtime`` is the mode, and ratios are within a mode.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, *input_size, generator=generator)
    with torch.no_grad():
        classes = next(iter(models.values()))(images[:2]).shape[1]
    labels = torch.randint(classes, (batch,), generator=generator)
    calls: dict[_Key, Callable[[], object]] = {}
    for mode in modes:
        last = mode.endswith("channels_last")
        layout = torch.channels_last if last else torch.contiguous_format
        for form, model in models.items():
            network = settled(model, input_size, passes=1).to(memory_format=layout)  # type: ignore[call-overload]
            compiled = mode.startswith("compile")
            calls[form, mode] = _step(network, images.contiguous(memory_format=layout), labels, compiled)
    return _measurements(interleave(calls, rounds=rounds, warmup=2), {})
