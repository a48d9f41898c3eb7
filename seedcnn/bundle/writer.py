"""Write a bundle: coded tensors, the graph, the canned vectors and one canonical manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seedcnn.arrays import F32
from seedcnn.bundle.codings import Coded, sha256
from seedcnn.bundle.compression import compress
from seedcnn.bundle.container import Payload, write_container
from seedcnn.bundle.manifest import Canned, CannedPicture, Graph, Manifest, Measured
from seedcnn.bundle.preprocessing import Preprocessing
from seedcnn.bundle.reader import Bundle, read_bundle

__all__ = ["with_accuracy", "write_bundle"]

GRAPH_PAYLOAD, CANNED_PAYLOAD = "graph.onnx", "canned.logits"


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
    canned_pictures: Sequence[CannedPicture] = (),
    compression: str = "zstd",
) -> bytes:
    """Serialise a bundle and read it back; the same input gives the same bytes.

    Args:
        graph: ONNX bytes whose weights are external initializers named as in ``tensors``.
        canned_logits: float32 [count, classes], the answers to the images drawn from ``canned_seed``.
        canned_tolerance: largest allowed absolute difference of a logit.
        canned_pictures: see :func:`seedcnn.runtime.pictures.canned_pictures`.
        compression: of the graph, see :mod:`seedcnn.bundle.compression`.

    Raises:
        BundleFormatError: if the result cannot be read, tensors, graph and canned vectors included.
    """
    logits = np.asarray(canned_logits, dtype="<f4", order="C")
    payloads = {coded.entry.name: coded.payload for coded in tensors if coded.payload is not None}
    frame = compress(graph, compression)
    payloads[GRAPH_PAYLOAD] = Payload.of_bytes(frame)
    payloads[CANNED_PAYLOAD] = Payload("F32", logits.shape, logits.tobytes())
    manifest = Manifest(
        model=model,
        family=family,
        release=release,
        min_release=min_release,
        graph=Graph(GRAPH_PAYLOAD, compression, sha256(frame), len(graph), sha256(graph), graph_input, graph_output),
        tensors=tuple(coded.entry for coded in tensors),
        preprocessing=preprocessing,
        labels=tuple(labels),
        canned=Canned(
            canned_seed,
            len(logits),
            CANNED_PAYLOAD,
            sha256(logits.tobytes()),
            round(canned_tolerance * 1e6),
            tuple(canned_pictures),
        ),
    )
    data = write_container(manifest.dump(), payloads)
    bundle = read_bundle(data)
    bundle.tensors()
    bundle.graph()
    bundle.canned_logits()
    return data


def with_accuracy(bundle: Bundle, measured: Measured) -> bytes:
    """Return the bytes of a bundle that states the accuracy that was measured with it, and is the same otherwise."""
    return write_container(replace(bundle.manifest, measured=measured).dump(), dict(bundle.payloads))
