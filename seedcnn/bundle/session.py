"""From a graph and expanded tensors to something that answers: an ONNX Runtime session on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime

from seedcnn.bundle.manifest import Preprocessing
from seedcnn.errors import BundleError

__all__ = ["open_session", "preprocess"]


def open_session(
    graph: bytes, tensors: Mapping[str, npt.NDArray[np.float32]], *, threads: int = 1
) -> onnxruntime.InferenceSession:
    """Build a session; ``tensors`` are passed as the graph's external initializers, nothing is read from disk.

    Args:
        graph: ONNX bytes.
        tensors: {initializer name: float32 array}; each external initializer of the graph, and no other.
        threads: number of threads of one run.

    Raises:
        BundleError: if the runtime does not accept the graph with these tensors.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    # An external initializer that nobody passed would be looked up as a file; no file can lie below this one.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(value, order="C")) for value in tensors.values()]
    options.add_external_initializers(list(tensors), values)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own pybind classes, one for each status code
        raise BundleError(f"ONNX Runtime does not accept the graph: {error}") from None


def preprocess(images: npt.NDArray[np.uint8], rule: Preprocessing) -> npt.NDArray[np.float32]:
    """Pictures to network input: uint8 [N, H, W, 3] to float32 [N, 3, H, W], (x / 255 - mean) / std.

    Raises:
        ValueError: if dtype or shape is not what the rule wants.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (rule.height, rule.width, 3):
        raise ValueError(
            f"`images` is {images.dtype} {images.shape}; it must be uint8 [N, {rule.height}, {rule.width}, 3]"
        )
    mean, std = (np.array(values, np.float64) * 1e-8 for values in (rule.mean_e8, rule.std_e8))
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return np.ascontiguousarray((images.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2))
