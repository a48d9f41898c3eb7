"""Measure the runtimes against each other: correctness first, then one picture at a time, in random order."""

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

__all__ = ["choose", "open_passing", "picture_calls"]

_ROUNDS, _WARMUP, _SECONDS = 200, 3, 1.0


def picture_calls(bundle: Bundle, sessions: Mapping[str, Session]) -> dict[str, Callable[[], object]]:
    """For each session a call that answers the first canned picture (its preprocessing is not part of the call)."""
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
    """Build a session in each runtime and keep those that answer the canned vectors.

    Args:
        options: for ONNX Runtime; the other has none of them.

    Returns:
        {runtime: session} and {runtime: why not}.

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
        raise SelfTestError(f"no runtime answers as the bundle says: {reasons or 'none is installed'}")
    return sessions, failed


def choose(
    bundle: Bundle,
    tensors: Mapping[str, F32],
    *,
    threads: int = 1,
    options: SessionOptions | None = None,
) -> tuple[Choice, Session]:
    """The fastest of the installed runtimes that answer the canned vectors, and its session.

    Both are in memory while they are timed, for about a second, with one picture and the threads asked for.

    Args:
        tensors: the expanded bundle.
        options: see :func:`open_passing`.

    Raises:
        SelfTestError: naming each runtime and its reason, if none passes.
    """
    key = current_key(bundle.sha256, threads)
    sessions, failed = open_passing(bundle, tensors, tuple(key.versions), threads=threads, options=options)
    medians: dict[str, float] = {}
    best = next(iter(sessions))
    if len(sessions) > 1:
        timings = interleave(
            picture_calls(bundle, sessions), rounds=_ROUNDS, warmup=_WARMUP, settle=1, seconds=_SECONDS
        )
        medians = {name: timing.median_ms for name, timing in timings.items()}
        best = min(medians, key=medians.__getitem__)
    return Choice(key, best, medians, failed), sessions[best]
