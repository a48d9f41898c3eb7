"""Load the active model in a process of its own and report what that took: ``python -m seedcnn.device.footprint``.

One process per runtime, so that none is charged for the memory of another. Run by :mod:`seedcnn.device.bench`; prints
one JSON object.
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
    """Milliseconds of each step from a fresh process to the first answer, and resident memory in bytes.

    ``read``: the bundle from the disk (cached by the system, if it was read before); ``verify``: SHA-256 of the file,
    container and manifest; ``expand``: tensors from seeds and grids, the digest of each, and the graph; ``import_ms``:
    the runtime's own modules; ``build``: the session; ``first``: one picture. ``rss_*`` is the whole process with the
    interpreter: after the imports, after twenty answers, and at its highest; None where the system does not tell.
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
    """Bytes of a line of /proc/self/status (Linux)."""
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
    """Load the bundle at ``path`` and let it answer, in this process.

    Raises:
        BundleError, MissingExtraError, OSError: as loading a model does.
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
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("runtime")
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.path, arguments.runtime, arguments.threads))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
