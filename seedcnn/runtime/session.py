"""From a graph and expanded tensors to something that answers, on the CPU: ONNX Runtime, or OpenVINO."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, U8
from seedcnn.bundle import Preprocessing
from seedcnn.errors import BundleError, missing_extra
from seedcnn.runtime._openvino import OpenVinoSession, import_openvino, one_line
from seedcnn.runtime._operator import OPERATOR, missing_operator, uses_operator
from seedcnn.runtime.names import check_runtime

__all__ = ["Session", "SessionOptions", "import_runtime", "open_session", "preprocess"]


class Session(Protocol):
    """A graph that answers; ``runtime`` is the name of what it runs in (:data:`seedcnn.runtime.names.RUNTIMES`)."""

    @property
    def runtime(self) -> str: ...

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        """Answer one batch.

        Args:
            outputs: names of the outputs wanted; None for all.
            inputs: {input name: array}.

        Raises:
            BundleError: if the graph does not run on these inputs or has no such output.
        """
        ...


class SessionOptions(TypedDict, total=False):
    """Options of ONNX Runtime, see :func:`open_session`."""

    arena: bool | None
    spinning: bool | None
    libraries: Sequence[Path]


def import_runtime(runtime: str) -> ModuleType:
    """The module of a runtime; OpenVINO without its telemetry, see ``import_openvino``.

    Raises:
        MissingExtraError: if it is not installed.
        ValueError: if it is none of :data:`seedcnn.runtime.names.RUNTIMES`.
    """
    check_runtime(runtime)
    try:
        return import_openvino() if runtime == "openvino" else importlib.import_module(runtime)
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from None


class _OrtSession:
    """ONNX Runtime."""

    runtime = "onnxruntime"

    def __init__(
        self,
        graph: bytes,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        threads: int,
        arena: bool,
        spinning: bool,
        libraries: Sequence[Path],
    ) -> None:
        onnxruntime = import_runtime("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # Between two runs nobody spins: what else the device does, another runtime too, has the cores for itself.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # An external initializer that nobody passed would be looked up as a file; no file can lie below this one.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(value, order="C")) for value in tensors.values()]
        options.add_external_initializers(list(tensors), values)
        try:
            for library in libraries:
                options.register_custom_ops_library(str(library))
        except Exception as error:  # the runtime raises its own pybind classes, one for each status code
            raise BundleError(f"ONNX Runtime does not load the library {library}: {one_line(error)}") from None
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            why = missing_operator(str(error)) or f"ONNX Runtime does not accept the graph: {one_line(error)}"
            raise BundleError(why) from None

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        try:
            result: list[F32] = self._session.run(outputs, inputs)
        except Exception as error:
            raise BundleError(f"ONNX Runtime does not run the graph: {one_line(error)}") from None
        return result


def open_session(
    graph: bytes,
    tensors: Mapping[str, npt.NDArray[Any]],
    *,
    threads: int = 1,
    runtime: str = "onnxruntime",
    arena: bool | None = None,
    spinning: bool | None = None,
    libraries: Sequence[Path] = (),
) -> Session:
    """Build a session; ``tensors`` are passed as the graph's external initializers, nothing is read from disk.

    Args:
        graph: ONNX bytes.
        tensors: {initializer name: array}; each external initializer of the graph, and no other.
        threads: number of threads of one run, at least 1.
        runtime: "onnxruntime" or "openvino" (which takes pictures of a batch one by one, see ``_openvino``).
        arena: ONNX Runtime only: keep freed memory for the next run and plan buffers ahead (default: yes). Without,
            a process that has once answered a large batch gives that memory back.
        spinning: ONNX Runtime only: during a run idle threads spin for the next operator instead of sleeping: a
            shorter run for more processor time. Default: only with more than one thread (one has nobody to wait for).
        libraries: ONNX Runtime only: shared libraries of custom operators. They are code: load only your own.

    Raises:
        BundleError: if the runtime does not accept the graph with these tensors, or a library does not load.
        MissingExtraError: if the runtime is not installed.
        ValueError: if the runtime is unknown, has no such option, or ``threads`` is below 1.
    """
    if threads < 1:
        raise ValueError(f"`threads` (={threads}) must be at least 1")
    import_runtime(runtime)
    if runtime == "openvino":
        if arena is not None or spinning is not None or libraries:
            raise ValueError(
                "`arena`, `spinning` and `libraries` are options of ONNX Runtime; OpenVINO has none of them"
            )
        if uses_operator(graph):
            raise BundleError(f"the graph needs the operator {OPERATOR}, which ONNX Runtime alone can load")
        return OpenVinoSession(graph, tensors, threads=threads)
    return _OrtSession(
        graph,
        tensors,
        threads=threads,
        arena=arena is not False,
        spinning=threads > 1 if spinning is None else spinning,
        libraries=libraries,
    )


def preprocess(images: U8, rule: Preprocessing) -> F32:
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
