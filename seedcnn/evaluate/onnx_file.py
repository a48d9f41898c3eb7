"""Any ONNX file as a callable from images to logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from seedcnn.arrays import F32
from seedcnn.errors import DataError
from seedcnn.evaluate.accuracies import Predict
from seedcnn.runtime.session import open_session

__all__ = ["OnnxFile", "onnx_predictor", "read_onnx"]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX network that maps images to logits.

    Attributes:
        graph: the ONNX bytes, with all weights inside.
        input, output: their names.
        shape: shape of the input, [N, 3, H, W]; None where the graph accepts any size.
    """

    graph: bytes
    input: str
    output: str
    shape: tuple[int | None, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of ``graph``, as hexadecimal."""
        return sha256(self.graph).hexdigest()


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises its own classes, one for each implementation
        raise DataError(
            f"{path} is not an ONNX file, or its weights are missing: {' '.join(str(error).split())}"
        ) from None
    if not model.graph.node:
        raise DataError(f"{path} is not an ONNX file: it holds no operator")
    return model


def read_onnx(path: str | Path) -> OnnxFile:
    """Read a network with one input, float32 [N, 3, H, W], and one output; weights in files beside it are read too.

    Raises:
        DataError: if there is no such file, it is not ONNX, or it has other inputs or outputs (the message lists them).
    """
    path = Path(path)
    model = _load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = [value.name for value in model.graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        names = f"{[value.name for value in inputs]} to {outputs}"
        raise DataError(f"{path} maps {names}; it must have one input, the images, and one output, the logits")
    kind = inputs[0].type.tensor_type
    # A size is either a positive number, or (a name, nothing, 0 or -1) free.
    shape = tuple(size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim)
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4 or shape[1] not in (3, None):
        found = f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()} {list(shape)}"
        raise DataError(f"the input {inputs[0].name!r} of {path} is {found}; it must be float [N, 3, H, W]")
    try:
        graph = model.SerializeToString()
    except Exception as error:  # again a class of protobuf's own
        raise DataError(f"{path} does not fit one piece of at most 2 GiB: {error}") from None
    return OnnxFile(graph, inputs[0].name, outputs[0], shape)


def onnx_predictor(file: OnnxFile, mean: Sequence[float], std: Sequence[float], *, threads: int = 1) -> Predict:
    """A network in ONNX Runtime: uint8 [N, H, W, 3] to logits.

    The input is (x / 255 - mean) / std. A graph for a fixed number of images is called with that number; the last batch
    is filled up with black images, whose logits are dropped.

    Args:
        mean, std: three numbers each, on the 0..1 scale.
        threads: threads of one run.

    Raises:
        ValueError: if ``mean`` or ``std`` is not three finite numbers, or one of ``std`` is not positive.
        BundleError: if ONNX Runtime does not accept the graph.
        DataError: raised by the callable if the images do not have the size that the graph takes.
    """
    means, stds = (np.array(values, np.float64) for values in (mean, std))
    for what, values in (("mean", means), ("std", stds)):
        if values.shape != (3,) or not np.isfinite(values).all() or (what == "std" and (values <= 0).any()):
            rule = "three positive numbers" if what == "std" else "three numbers"
            raise ValueError(f"`{what}` (={values.tolist()}) must be {rule}, one per channel")
    scale, shift = (1 / (255 * stds)).astype(np.float32), (-means / stds).astype(np.float32)
    session = open_session(file.graph, {}, threads=threads)
    fixed, _, *sides = file.shape

    def answer(images: npt.NDArray[np.uint8]) -> F32:
        x_NCHW = np.ascontiguousarray((images.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2))
        logits: F32 = session.run([file.output], {file.input: x_NCHW})[0]
        return logits

    def predict(images: npt.NDArray[np.uint8]) -> F32:
        if any(side not in (None, size) for side, size in zip(sides, images.shape[1:3], strict=True)):
            wanted, found = (
                " x ".join("any" if s is None else str(s) for s in each) for each in (sides, images.shape[1:3])
            )
            raise DataError(f"the network takes images of {wanted} pixels; these are {found}")
        if fixed is None:
            return answer(images)
        pieces = []
        for start in range(0, len(images), fixed):
            piece = images[start : start + fixed]
            filled = np.concatenate([piece, np.zeros((fixed - len(piece), *images.shape[1:]), np.uint8)])
            pieces.append(answer(filled)[: len(piece)])
        return np.concatenate(pieces)

    return predict
