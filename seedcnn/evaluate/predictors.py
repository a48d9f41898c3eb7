"""A bundle as a callable from images to logits, so that every form of a network is measured in the same way."""

from __future__ import annotations

from typing import Unpack

from seedcnn.bundle import Bundle
from seedcnn.evaluate.accuracies import Predict
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.session import SessionOptions, open_session

__all__ = ["bundle_predictor"]


def bundle_predictor(
    bundle: Bundle, *, threads: int = 1, runtime: str = "onnxruntime", **options: Unpack[SessionOptions]
) -> Predict:
    """A bundle as a device would run it, expanded and with its digests checked: uint8 [N, H, W, 3] to logits.

    Args:
        threads, runtime, options: see :func:`seedcnn.runtime.session.open_session`.

    Raises:
        BundleFormatError, DigestError: if the bundle is damaged.
        BundleError: if the runtime does not accept its graph.
    """
    session = open_session(bundle.graph(), bundle.tensors(), threads=threads, runtime=runtime, **options)
    return Answerer.of_manifest(session, bundle.manifest).logits
