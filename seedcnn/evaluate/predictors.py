"""An exported network as a callable from pictures to logits, so that every form of a network is measured alike."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import numpy.typing as npt

from seedcnn.bundle import Bundle
from seedcnn.evaluate.accuracies import F32, Predict
from seedcnn.runtime.session import SessionOptions, open_session, preprocess

__all__ = ["bundle_predictor"]


def bundle_predictor(
    bundle: Bundle, *, threads: int = 1, runtime: str = "onnxruntime", **options: Unpack[SessionOptions]
) -> Predict:
    """A bundle as a device would run it (expanded, digests checked): uint8 [N, H, W, 3] to logits.

    Args:
        threads, runtime, options: see :func:`seedcnn.runtime.session.open_session`.
    """
    manifest = bundle.manifest
    session = open_session(bundle.graph(), bundle.tensors(), threads=threads, runtime=runtime, **options)

    def predict(images: npt.NDArray[np.uint8]) -> F32:
        inputs = {manifest.graph.input: preprocess(images, manifest.preprocessing)}
        logits: F32 = session.run([manifest.graph.output], inputs)[0]
        return logits

    return predict
