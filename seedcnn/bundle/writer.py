"""Write a bundle, and open it again before returning it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor, log2

import numpy as np

from seedcnn.arrays import F32
from seedcnn.bundle.adaptable import Site
from seedcnn.bundle.codings import Coded, Stored, sha256, store
from seedcnn.bundle.container import BYTES, Container, write_container
from seedcnn.bundle.head import pack_head
from seedcnn.bundle.manifest import FORMAT, MOST_EXPONENT, Canned, CannedPictures, Graph, Manifest, Measured
from seedcnn.bundle.preprocessing import Preprocessing
from seedcnn.bundle.reader import Bundle, read_bundle, split_rest
from seedcnn.errors import BundleFormatError

__all__ = ["assemble", "with_accuracy", "write_bundle"]

_LARGEST = 32767


def assemble(text: bytes, wanted: str, graph: bytes, stored: Stored, logits: bytes | memoryview) -> bytes:
    """Put the parts of a file together.

    Args:
        text: of the manifest.
        wanted: the file's format.
        graph: ONNX bytes; empty in a delta.
        stored: the coded tensors.
        logits: of the canned vectors, as stored.
    """
    head = pack_head(text, graph)
    payloads = {**stored.floats, BYTES: b"".join((head, stored.integers, logits))}
    return write_container(Container(wanted, len(text), len(head), payloads))


def _steps_of(logits: F32, tolerance: float) -> tuple[bytes, int]:
    """Logits as 16-bit integers, and the exponent of their step, 2**-exponent.

    Raises:
        BundleFormatError: if a logit is not finite, since no answer can be close to it, or too large, or if rounding
            takes more than half of the tolerance.
    """
    if not np.isfinite(logits).all():
        raise BundleFormatError("canned vectors hold logits that are not finite")
    largest = float(np.abs(logits).max(initial=0))
    exponent = MOST_EXPONENT if largest < 2.0**-40 else min(MOST_EXPONENT, floor(log2(_LARGEST / largest)))
    if exponent < -MOST_EXPONENT:
        raise BundleFormatError(f"canned vectors hold the logit {largest:g}, which is too large")
    steps = np.rint(logits.astype(np.float64) * 2.0**exponent)
    apart = float(np.abs(steps * 2.0**-exponent - logits).max(initial=0))
    if 0 <= tolerance < 2 * apart:
        raise BundleFormatError(
            f"canned vectors: a tolerance of {tolerance:g} is too small for logits up to {largest:g}, which are "
            f"rounded by up to {apart:g}"
        )
    return steps.astype("<i2").tobytes(), exponent


def write_bundle(
    *,
    model: str,
    family: str,
    release: int,
    min_release: int,
    graph: bytes,
    graph_input: str,
    graph_output: str,
    tensors: Sequence[Coded],
    preprocessing: Preprocessing,
    labels: Sequence[str],
    canned_seed: int,
    canned_logits: F32,
    canned_tolerance: float,
    canned_pictures: CannedPictures = CannedPictures(),  # noqa: B008
    compression: str = "entropy",
    norms: Sequence[Site] = (),
) -> bytes:
    """Serialise a bundle and read it back; the same input gives the same bytes.

    Args:
        graph: ONNX bytes whose weights are external initializers named as in ``tensors``.
        canned_logits: float32 [count, classes], the answers to the images drawn from ``canned_seed``; they are rounded
            to 16 bits.
        canned_tolerance: largest allowed absolute difference of a logit.
        canned_pictures: see :func:`seedcnn.runtime.pictures.canned_pictures`.
        compression: of the integers, one of :data:`seedcnn.bundle.compression.STORAGES`.
        norms: see :mod:`seedcnn.bundle.adaptable`.

    Raises:
        BundleFormatError: if the result cannot be read, tensors, graph and canned vectors included.
    """
    logits = np.asarray(canned_logits, dtype="<f4", order="C")
    if logits.ndim != 2 or logits.shape[1] != len(labels):
        raise BundleFormatError(f"canned.logits has shape {logits.shape}; it must be [count, {len(labels)}]")
    stored, digest = store(tensors, compression)
    steps, exponent = _steps_of(logits, canned_tolerance)
    manifest = Manifest(
        model=model,
        family=family,
        release=release,
        min_release=min_release,
        graph=Graph(len(graph), sha256(graph), graph_input, graph_output),
        tensors=tuple(coded.entry for coded in tensors),
        tensors_sha256=digest,
        integers=compression,
        preprocessing=preprocessing,
        labels=tuple(labels),
        canned=Canned(
            canned_seed, len(logits), exponent, sha256(steps), round(canned_tolerance * 1e6), canned_pictures
        ),
        norms=tuple(norms),
    )
    data = assemble(manifest.dump(), FORMAT, graph, stored, steps)
    bundle = read_bundle(data)
    bundle.tensors()
    bundle.graph()
    bundle.canned_logits()
    return data


def with_accuracy(bundle: Bundle, measured: Measured) -> bytes:
    """Return the bytes of a bundle that states the accuracy that was measured with it, and is the same otherwise."""
    manifest = replace(bundle.manifest, measured=measured)
    _, logits = split_rest(bundle.container, manifest.canned, len(manifest.labels))
    return assemble(manifest.dump(), FORMAT, bundle.graph(), bundle.stored, logits)
