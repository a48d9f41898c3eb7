"""An OpenVINO session on the CPU, compiled for one picture.

A graph of fixed shape is faster than one of any batch size. Batches run picture by picture: measured on a residual
network that costs about a tenth more than a second model compiled for any batch size, gives the same bits, and spares
the memory of that second model.
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

__all__ = ["OpenVinoSession", "import_openvino", "one_line"]

_TELEMETRY = "openvino_telemetry"
_LONGEST = 400


def import_openvino() -> ModuleType:
    """Import ``openvino`` so that it sends nothing.

    Its package reports each import to its maker, by default and unasked, through ``openvino_telemetry``; without that
    module it uses a stand-in of its own that does nothing. An ``openvino`` that is imported already is left as it is.

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
        # One call at a time: more streams would wait for nothing.
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # The default is bfloat16 on some processors; the answers must be those of the bundle everywhere.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # Whoever starts the process decides where it runs.
        "ENABLE_CPU_PINNING": False,
    }


def one_line(error: BaseException) -> str:
    """The text of a runtime's error, which may run over pages, as a part of a sentence."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class OpenVinoSession:
    """See :func:`seedcnn.runtime.session.open_session`."""

    runtime = "openvino"

    def __init__(self, graph: bytes, tensors: Mapping[str, npt.NDArray[Any]], *, threads: int) -> None:
        ov = import_openvino()
        try:
            data = embed_initializers(graph, tensors)
        except BundleError as error:
            raise BundleError(f"OpenVINO does not accept the graph: {error}") from None
        try:
            # Never a path, and the ONNX reader only: a model in another of the readers' formats could name files.
            reader = ov.frontend.FrontEndManager().load_by_framework("onnx")
            model = reader.convert(reader.load(io.BytesIO(data)))
            del data
            self._free = self._fix_batch(ov, model)
            compiled = ov.Core().compile_model(model, "CPU", _settings(threads))
        except Exception as error:  # the runtime raises RuntimeError for nearly everything
            raise BundleError(f"OpenVINO does not accept the graph: {one_line(error)}") from None
        self._inputs = {name: index for index, port in enumerate(compiled.inputs) for name in port.names}
        self._tensor = ov.Tensor
        self._outputs = [(port.names, index) for index, port in enumerate(compiled.outputs)]
        self._request = compiled.create_infer_request()

    @staticmethod
    def _fix_batch(ov: ModuleType, model: Any) -> bool:
        """Make free leading dimensions of the inputs 1; whether there was one."""
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
            raise BundleError(f"OpenVINO does not run the graph: its inputs are {', '.join(sorted(self._inputs))}")
        try:
            return self._one_by_one(wanted, inputs) if self._free else self._infer(wanted, inputs)
        except Exception as error:
            raise BundleError(f"OpenVINO does not run the graph: {one_line(error)}") from None

    def _infer(self, wanted: Sequence[int], inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        # Passing a dict to infer() does the same at two to three times the overhead of a small network's answer.
        for name, value in inputs.items():
            tensor = self._tensor(np.ascontiguousarray(value), shared_memory=True)
            self._request.set_input_tensor(self._inputs[name], tensor)
        self._request.infer()
        # A copy, for the view is of the runtime's own buffer, which the next picture overwrites.
        return [self._request.get_output_tensor(index).data.copy() for index in wanted]

    def _indices(self, outputs: Sequence[str] | None) -> list[int]:
        if outputs is None:
            return [index for _, index in self._outputs]
        found = []
        for name in outputs:
            places = [index for names, index in self._outputs if name in names]
            if not places:
                raise BundleError(f"OpenVINO does not run the graph: it has no output {name!r}")
            found.append(places[0])
        return found

    def _one_by_one(self, wanted: Sequence[int], inputs: Mapping[str, npt.NDArray[Any]]) -> list[F32]:
        counts = {len(value) for value in inputs.values()}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"the inputs hold {sorted(counts)} pictures; it must be one number, at least 1")
        (count,) = counts
        parts: list[list[F32]] = [[] for _ in wanted]
        for place in range(count):
            answers = self._infer(wanted, {name: value[place : place + 1] for name, value in inputs.items()})
            for part, answer in zip(parts, answers, strict=True):
                part.append(answer)
        return [part[0] if count == 1 else np.concatenate(part) for part in parts]
