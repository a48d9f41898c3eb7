"""Compare the runtimes: check their answers first, then time one image at a time, in random order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seedcnn.arrays import F32
from seedcnn.bundle import Bundle
from seedcnn.device.choice import Choice, current_key
from seedcnn.device.health import self_test
from seedcnn.errors import BundleError, MissingExtraError, SelfTestError
from seedcnn.latency import interleave
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.session import Session, SessionOptions, open_session

__all__ = ["choose", "image_calls", "open_passing"]

_ROUNDS, _WARMUP, _SECONDS = 200, 3, 1.0


def image_calls(bundle: Bundle, sessions: Mapping[str, Session]) -> dict[str, Callable[[], object]]:
    """Return a call per session that runs it on the first canned image, preprocessed beforehand."""
    image = bundle.canned_images()[:1]
    return {name: Answerer.of_manifest(session, bundle.manifest).prepared(image) for name, session in sessions.items()}


def open_passing(
    bundle: Bundle,
    tensors: Mapping[str, F32],
    runtimes: tuple[str, ...],
    *,
    threads: int,
    options: SessionOptions | None = None,
) -> tuple[dict[str, Session], dict[str, str]]:
    """Build a session in each runtime and keep those that pass the canned test vectors.

    Args:
        options: for ONNX Runtime; OpenVINO has none of them.

    Returns:
        {runtime: session}, and {runtime: why it failed}.

    Raises:
        SelfTestError: naming each runtime and its reason, if none passes.
    """
    sessions: dict[str, Session] = {}
    failed: dict[str, str] = {}
    for name in runtimes:
        own: SessionOptions = options or {} if name == "onnxruntime" else {}
        try:
            session = open_session(bundle.graph(), tensors, threads=threads, runtime=name, **own)
            self_test(session, bundle)
            sessions[name] = session
        except (BundleError, SelfTestError, MissingExtraError) as error:
            failed[name] = str(error)
    if not sessions:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise SelfTestError(f"no runtime passes the bundle's canned test vectors: {reasons or 'none is installed'}")
    return sessions, failed


def choose(
    bundle: Bundle,
    tensors: Mapping[str, F32],
    *,
    threads: int = 1,
    options: SessionOptions | None = None,
) -> tuple[Choice, Session]:
    """Choose the fastest installed runtime that passes the canned test vectors, and return its session too.

    The sessions of all runtimes are in memory while they are timed, for about a second, on one image.

    Args:
        tensors: the expanded bundle.
        threads: threads per run.
        options: see :func:`open_passing`.

    Raises:
        SelfTestError: naming each runtime and its reason, if none passes.
    """
    key = current_key(bundle.sha256, threads)
    sessions, failed = open_passing(bundle, tensors, tuple(key.versions), threads=threads, options=options)
    medians: dict[str, float] = {}
    best = next(iter(sessions))
    if len(sessions) > 1:
        timings = interleave(image_calls(bundle, sessions), rounds=_ROUNDS, warmup=_WARMUP, settle=1, seconds=_SECONDS)
        medians = {name: timing.median_ms for name, timing in timings.items()}
        best = min(medians, key=medians.__getitem__)
    return Choice(key, best, medians, failed), sessions[best]
