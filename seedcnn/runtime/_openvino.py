"""An OpenVINO session on the CPU, compiled for a single image.

A graph of fixed shape is faster than one for any batch size, so batches run image by image. On a residual network this
took about a tenth longer than a second model compiled for any batch size. It gives the same bits and saves the memory
of that second model.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.errors import BundleError
from seedcnn.runtime._onnx_wire import embed_initializers
from seedcnn.runtime._signal_stack import signal_stack_kept

__all__ = ["OpenVinoSession", "import_openvino", "one_line"]

_TELEMETRY = "openvino_telemetry"
_LONGEST = 400


def import_openvino() -> ModuleType:
    """Import ``openvino`` without its telemetry.

    By default the package reports each import to its maker through ``openvino_telemetry``. Without that module it falls
    back to a stub of its own that does nothing. If ``openvino`` has already been imported, this changes nothing.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]


def _settings(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        # There is one call at a time, so further streams would be idle.
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Some processors default to bfloat16; the answers must match the bundle's everywhere.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # Whoever starts the process decides where it runs.
        "ENABLE_CPU_PINNING": False,
    }


def one_line(error: BaseException) -> str:
    """Return a runtime's error message, which may be pages long, on one line and cut to fit into a sentence."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class OpenVinoSession:
    """A session of OpenVINO; see :func:`seedcnn.runtime.session.open_session`."""

    runtime = "openvino"

    def __init__(self, graph: bytes, tensors: Mapping[str, npt.NDArray[Any]], *, threads: int) -> None:
        ov = import_openvino()
        try:
            data = embed_initializers(graph, tensors)
        except BundleError as error:
            raise BundleError(f"OpenVINO does not accept the graph: {error}") from None
        try:
            # From memory, and with the ONNX reader only: models in the other formats could name files.
            reader = ov.frontend.FrontEndManager().load_by_framework("onnx")
            model = reader.convert(reader.load(io.BytesIO(data)))
            del data
            self._free = self._fix_batch(ov, model)
            with signal_stack_kept():
                compiled = ov.Core().compile_model(model, "CPU", _settings(threads))
        except Exception as error:  # OpenVINO raises RuntimeError for nearly everything
            raise BundleError(f"OpenVINO does not accept the graph: {one_line(error)}") from None
        self._inputs = {name: index for index, port in enumerate(compiled.inputs) for name in port.names}
        self._tensor = ov.Tensor
        self._outputs = [(port.names, index) for index, port in enumerate(compiled.outputs)]
        self._request = compiled.create_infer_request()

    @staticmethod
    def _fix_batch(ov: ModuleType, model: Any) -> bool:
        """Set free leading dimensions of the inputs to 1, and return whether there were any."""
        shapes, free = {}, False
        for port in model.inputs:
            shape = port.partial_shape
            if len(shape) and shape[0].is_dynamic:
                shapes[port] = ov.PartialShape([1, *list(shape)[1:]])
                free = True
        if shapes:
            model.reshape(shapes)
        return free

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        """See :class:`seedcnn.runtime.session.Session`."""
        wanted = self._indices(outputs)
        if inputs.keys() - self._inputs.keys() or not inputs:
            raise BundleError(f"OpenVINO cannot run the graph: its inputs are {', '.join(sorted(self._inputs))}")
        try:
            return self._one_by_one(wanted, inputs) if self._free else self._infer(wanted, inputs)
        except Exception as error:
            raise BundleError(f"OpenVINO cannot run the graph: {one_line(error)}") from None

    def _infer(self, wanted: Sequence[int], inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        # Passing a dict to infer() does the same with two to three times the overhead, which a small network feels.
        for name, value in inputs.items():
            tensor = self._tensor(np.ascontiguousarray(value), shared_memory=True)
            self._request.set_input_tensor(self._inputs[name], tensor)
        self._request.infer()
        # Copy: the data is a view of the runtime's buffer, which the next image overwrites.
        return [self._request.get_output_tensor(index).data.copy() for index in wanted]

    def _indices(self, outputs: Sequence[str] | None) -> list[int]:
        if outputs is None:
            return [index for _, index in self._outputs]
        found = []
        for name in outputs:
            places = [index for names, index in self._outputs if name in names]
            if not places:
                raise BundleError(f"OpenVINO cannot run the graph: it has no output {name!r}")
            found.append(places[0])
        return found

    def _one_by_one(self, wanted: Sequence[int], inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        counts = {len(value) for value in inputs.values()}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"the inputs hold {sorted(counts)} images; all must hold the same number, at least 1")
        (count,) = counts
        parts: list[list[F32]] = [[] for _ in wanted]
        for place in range(count):
            answers = self._infer(wanted, {name: value[place : place + 1] for name, value in inputs.items()})
            for part, answer in zip(parts, answers, strict=True):
                part.append(answer)
        return [part[0] if count == 1 else np.concatenate(part) for part in parts]
