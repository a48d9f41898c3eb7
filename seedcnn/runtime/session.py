"""Sessions on the CPU, in ONNX Runtime or OpenVINO, built from a graph and its expanded tensors."""

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
    """A graph ready to run; ``runtime`` is one of :data:`seedcnn.runtime.names.RUNTIMES`."""

    @property
    def runtime(self) -> str: ...

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        """Run one batch.

        Args:
            outputs: names of the requested outputs; None for all.
            inputs: {input name: array}.

        Raises:
            BundleError: if the graph cannot run on these inputs or has no such output.
        """
        ...


class SessionOptions(TypedDict, total=False):
    """Options of ONNX Runtime; see :func:`open_session`."""

    arena: bool | None
    spinning: bool | None
    libraries: Sequence[Path]


def import_runtime(runtime: str) -> ModuleType:
    """Import a runtime's module; OpenVINO is imported without its telemetry.

    Raises:
        MissingExtraError: if it is not installed.
        ValueError: if ``runtime`` is not one of :data:`seedcnn.runtime.names.RUNTIMES`.
    """
    check_runtime(runtime)
    try:
        return import_openvino() if runtime == "openvino" else importlib.import_module(runtime)
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from None


class _OrtSession:
    """A session of ONNX Runtime."""

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
        # No thread spins between runs, so other work on the device, another runtime included, gets the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # ONNX Runtime would look for a missing external initializer as a file; no file can exist below this path.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(value, order="C")) for value in tensors.values()]
        options.add_external_initializers(list(tensors), values)
        try:
            for library in libraries:
                options.register_custom_ops_library(str(library))
        except Exception as error:  # ONNX Runtime has a pybind class for each status code
            raise BundleError(f"ONNX Runtime cannot load the library {library}: {one_line(error)}") from None
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            why = missing_operator(str(error)) or f"ONNX Runtime does not accept the graph: {one_line(error)}"
            raise BundleError(why) from None

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        try:
            result: list[F32] = self._session.run(outputs, inputs)
        except Exception as error:
            raise BundleError(f"ONNX Runtime cannot run the graph: {one_line(error)}") from None
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
    """Build a session that reads nothing from disk: ``tensors`` become the graph's external initializers.

    Args:
        graph: ONNX bytes.
        tensors: {initializer name: array}, with exactly the external initializers of the graph.
        threads: threads per run, at least 1.
        runtime: "onnxruntime" or "openvino", which runs a batch image by image.
        arena: ONNX Runtime only: keep freed memory for the next run and plan buffers ahead (the default). Without it, a
            process that has answered a large batch returns that memory.
        spinning: ONNX Runtime only: let idle threads spin during a run instead of sleeping, which shortens the run and
            costs processor time. By default they spin if there is more than one thread.
        libraries: ONNX Runtime only: shared libraries of custom operators. They are code: load only your own.

    Raises:
        BundleError: if the runtime does not accept the graph with these tensors, or cannot load a library.
        MissingExtraError: if the runtime is not installed.
        ValueError: if the runtime is unknown or lacks the option, or ``threads`` is below 1.
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
            raise BundleError(f"the graph needs the operator {OPERATOR}, which only ONNX Runtime can load")
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
    """Turn images into network input: uint8 [N, H, W, C] to float32 [N, C, H, W], (x / 255 - mean) / std.

    Raises:
        ValueError: if dtype or shape does not match the rule.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (rule.height, rule.width, rule.channels):
        wanted = f"{rule.height}, {rule.width}, {rule.channels}"
        raise ValueError(f"`images` is {images.dtype} {images.shape}; it must be uint8 [N, {wanted}]")
    mean, std = np.array(rule.mean, np.float64), np.array(rule.std, np.float64)
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return np.ascontiguousarray((images.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2))
