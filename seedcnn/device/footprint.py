"""Load a model in a separate process and report time and memory: ``python -m seedcnn.device.footprint``.

Each runtime gets a process of its own, so that its memory is counted alone. :mod:`seedcnn.device.bench` runs this
module, which prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Footprint", "measure"]

_ANSWERS = 20


@dataclass(frozen=True)
class Footprint:
    """Milliseconds per step from a fresh process to the first answer, and resident memory in bytes.

    Attributes:
        read_ms: reading the bundle from disk, or from the system's cache if it was read before.
        verify_ms: SHA-256 of the file, container and manifest.
        expand_ms: expanding the tensors with their digests, and decompressing the graph.
        import_ms: importing the runtime.
        build_ms: building the session.
        first_ms: answering the first image.
        rss_imports, rss_steady, rss_peak: memory of the whole process after the imports, after twenty answers and at
            its highest; None if the system does not report it.
    """

    read_ms: float
    verify_ms: float
    expand_ms: float
    import_ms: float
    build_ms: float
    first_ms: float
    rss_imports: int | None
    rss_steady: int | None
    rss_peak: int | None


def _proc_status(name: str) -> int | None:
    """Read a size in bytes from /proc/self/status (Linux)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), None)


def _peak() -> int | None:
    if (peak := _proc_status("VmHWM")) is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak if sys.platform == "darwin" else peak << 10


def measure(path: Path, runtime: str, threads: int) -> Footprint:
    """Load the bundle at ``path`` and run it in this process.

    Raises:
        BundleError, MissingExtraError, OSError: as when loading a model.
    """
    from seedcnn.bundle import read_bundle
    from seedcnn.device.expand import expand
    from seedcnn.runtime.answerer import Answerer
    from seedcnn.runtime.session import import_runtime, open_session

    times: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        times[name] = (time.perf_counter() - start) * 1e3

    with timed("read_ms"):
        data = path.read_bytes()
    with timed("verify_ms"):
        bundle = read_bundle(data)
    with timed("expand_ms"):
        graph, tensors = bundle.graph(), expand(bundle)
    with timed("import_ms"):
        import_runtime(runtime)
    imports = _proc_status("VmRSS")
    with timed("build_ms"):
        session = open_session(graph, tensors, threads=threads, runtime=runtime)
    del tensors
    answer = Answerer.of_manifest(session, bundle.manifest).prepared(bundle.canned_images()[:1])
    with timed("first_ms"):
        answer()
    for _ in range(_ANSWERS):
        answer()
    return Footprint(**times, rss_imports=imports, rss_steady=_proc_status("VmRSS"), rss_peak=_peak())


def main() -> int:
    """Measure the bundle and runtime given as arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("runtime")
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.path, arguments.runtime, arguments.threads))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
