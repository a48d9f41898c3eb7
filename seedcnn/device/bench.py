"""Measure the active model on this device: latency, load time, memory and bytes, in each installed runtime."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from seedcnn import __version__
from seedcnn.bundle import read_bundle
from seedcnn.device.choice import installed_runtimes, machine
from seedcnn.device.expand import expand
from seedcnn.device.footprint import Footprint
from seedcnn.device.measure import image_calls, open_passing
from seedcnn.device.slots import MODEL, Slots
from seedcnn.errors import DeviceError
from seedcnn.latency import Latency, interleave

__all__ = ["Bench", "bench", "lines"]

_LOADS = 3


@dataclass(frozen=True)
class Bench:
    """The result.

    Attributes:
        bundle_bytes, expanded_bytes: size of the bundle file and of all expanded tensors.
        graph_coded_bytes, graph_bytes: size of the graph, compressed in the bundle and decompressed.
        latency, footprint: by runtime.
        failed: {runtime: why it was not measured}.
    """

    model: str
    release: int
    sha256: str
    bundle_bytes: int
    expanded_bytes: int
    graph_coded_bytes: int
    graph_bytes: int
    latency: dict[str, Latency]
    footprint: dict[str, Footprint]
    failed: dict[str, str]
    machine: str
    versions: dict[str, str]
    threads: int
    rounds: int


def _load(path: Path, runtime: str, threads: int) -> Footprint:
    """Return the median of each number over a few fresh processes."""
    runs: list[Footprint] = []
    for _ in range(_LOADS):
        line = [sys.executable, "-m", "seedcnn.device.footprint", str(path), runtime, str(threads)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise DeviceError(f"the load in {runtime} could not be measured: {last[0]}")
        runs.append(Footprint(**json.loads(done.stdout)))
    columns: dict[str, list[Any]] = {
        field.name: [getattr(run, field.name) for run in runs] for field in fields(Footprint)
    }
    medians: dict[str, Any] = {
        name: None if None in column else statistics.median(column) for name, column in columns.items()
    }
    return Footprint(**medians)


def bench(slots: Slots, *, runtimes: Sequence[str] = (), threads: int = 1, rounds: int = 200) -> Bench:
    """Measure the active model.

    Each runtime must first pass the canned test vectors. Then each answers one image per round in this process, in
    random order, without preprocessing. Loading and memory are measured in fresh processes, one runtime each; the
    result is the median of three.

    Args:
        runtimes: which runtimes to measure; by default all that are installed.
        threads: threads per inference.
        rounds: how often each runtime is timed.

    Raises:
        SlotError: if no slot has a usable model.
        SelfTestError: if no runtime passes the canned test vectors.
        BundleError: if the bundle does not expand.
        DeviceError: if a load could not be measured.
        ValueError: if ``threads`` or ``rounds`` is below 1, or a runtime is unknown.
    """
    installed = installed_runtimes()
    active = slots.active()
    bundle = read_bundle(active.data)
    tensors = expand(bundle)
    names = tuple(dict.fromkeys(runtimes)) or tuple(installed)
    sessions, failed = open_passing(bundle, tensors, names, threads=threads)
    latency = interleave(image_calls(bundle, sessions), rounds=rounds, warmup=max(3, rounds // 10), settle=1)
    path = slots.home / "factory.bundle" if active.source == "factory" else slots.path(active.source) / MODEL
    footprint = {name: _load(path, name, threads) for name in sessions}
    info = bundle.manifest.graph
    versions = {"seedcnn": __version__, "python": platform.python_version()}
    return Bench(
        model=bundle.manifest.model,
        release=bundle.manifest.release,
        sha256=bundle.sha256,
        bundle_bytes=bundle.size,
        expanded_bytes=sum(value.nbytes for value in tensors.values()),
        graph_coded_bytes=bundle.container.head_size,
        graph_bytes=info.size,
        latency=latency,
        footprint=footprint,
        failed=failed,
        machine=f"{machine()}, {platform.system()} {platform.release()}",
        versions={**versions, **{name: installed[name] for name in names if name in installed}},
        threads=threads,
        rounds=rounds,
    )


def _mega(value: int | None) -> str:
    return "not available" if value is None else f"{value / 1e6:.1f}"


def lines(result: Bench) -> Iterator[str]:
    """Yield the result as the lines of a table."""
    yield f"{result.model}, release {result.release}, sha256 {result.sha256[:16]}.."
    yield f"machine: {result.machine}"
    yield "versions: " + ", ".join(f"{name} {version}" for name, version in result.versions.items())
    yield (
        f"bytes: bundle {result.bundle_bytes:,}, expanded tensors {result.expanded_bytes:,}, "
        f"graph {result.graph_coded_bytes:,} in the bundle, {result.graph_bytes:,} unpacked"
    )
    yield f"threads {result.threads}, rounds {result.rounds}, loads {_LOADS} (fresh processes)"
    names = list(result.latency)
    rows = [("", names)]
    latency = [result.latency[name] for name in names]
    rows.append(
        ("latency, ms: median [quartiles]", [f"{t.median_ms:.3f} [{t.q1_ms:.3f}, {t.q3_ms:.3f}]" for t in latency])
    )
    loads = [asdict(result.footprint[name]) for name in names]
    labels = {
        "read_ms": "load, ms: read",
        "verify_ms": "  verify file and manifest",
        "expand_ms": "  expand, with digests",
        "import_ms": "  import the runtime",
        "build_ms": "  build the session",
        "first_ms": "  first answer",
    }
    rows += [(label, [f"{load[field]:.1f}" for load in loads]) for field, label in labels.items()]
    memory = {
        "rss_imports": "process, MB resident: after imports",
        "rss_steady": "  after twenty answers",
        "rss_peak": "  highest",
    }
    rows += [(label, [_mega(load[field]) for load in loads]) for field, label in memory.items()]
    widths = [max(len(cells[place]) for _, cells in rows) for place in range(len(names))]
    left = max(len(label) for label, _ in rows)
    for label, cells in rows:
        yield "  ".join([label.ljust(left), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
    for name, reason in result.failed.items():
        yield f"{name} was not measured: {reason}"
