"""The int8 side of packing: calibration pictures, and whether int8 pays in the runtime it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from seedcnn.bundle import read_bundle
from seedcnn.errors import ExportError
from seedcnn.evaluate.accuracies import F32, predict_logits
from seedcnn.evaluate.equivalence import Equivalence, compare_logits
from seedcnn.export import BundleInfo, OnnxModel, to_bundle
from seedcnn.export.bundles import OnGrid
from seedcnn.export.quantize import quantize
from seedcnn.latency import Latency
from seedcnn.pack.measuring import Runtime
from seedcnn.runtime.session import preprocess

__all__ = [
    "CALIBRATION_COUNT",
    "Int8",
    "Int8Result",
    "calibration_order",
    "draw_calibration",
    "quantize_bundle",
]

CALIBRATION_COUNT = 256
# Runtimes round sums of int8 products differently: logits were 0.02-0.03 of the largest away from float32.
_TOLERANCE = 0.05


def draw_calibration(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], count: int = CALIBRATION_COUNT, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Draw calibration pictures: the classes take turns, within a class the order is drawn by the seed.

    Args:
        images, labels: uint8 [N, H, W, 3] and int64 [N], of the training pictures.
        count: how many, 1 to N.

    Returns:
        uint8 [count, H, W, 3].
    """
    if len(images) != len(labels):
        raise ValueError(f"`images` holds {len(images)} pictures and `labels` {len(labels)}")
    return images[calibration_order(labels, count, seed)]


def calibration_order(labels: npt.NDArray[np.int64], count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Which pictures :func:`draw_calibration` draws, as indices [count].

    Raises:
        ValueError: if there are fewer.
    """
    if not 1 <= count <= len(labels):
        raise ValueError(f"`count` (={count}) must be in [1, {len(labels)}]")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        turn[mine] = np.arange(len(mine))
    return np.lexsort((labels, turn))[:count]


@dataclass(frozen=True)
class Int8:
    """What packing as int8 needs.

    Args:
        calibration: uint8 [N, H, W, 3] training pictures that the ranges are taken from, see :func:`draw_calibration`.
        force: pack it even where it is slower than float32.
        rounds: of the latency measurement.
    """

    calibration: npt.NDArray[np.uint8]
    force: bool = False
    rounds: int = 60


@dataclass(frozen=True)
class Int8Result:
    """What int8 did to the network, in the runtime that it was measured in, on one thread.

    Attributes:
        runtime: the runtime's name.
        calibration: number of calibration pictures.
        logits: float32 against int8.
        float32_latency, latency: of one picture, measured interleaved.
    """

    runtime: str
    calibration: int
    logits: Equivalence
    float32_latency: Latency
    latency: Latency

    def require_faster(self) -> None:
        """Raise ``ExportError`` with both numbers where int8 is not faster than float32."""
        if self.latency.median_ms >= self.float32_latency.median_ms:
            raise ExportError(
                f"int8 takes {self.latency.median_ms:.3f} ms a picture in {self.runtime} here and float32 "
                f"{self.float32_latency.median_ms:.3f} ms (medians of {self.latency.n}, one thread): it would be "
                "slower, and less exact; pack float32, or force int8"
            )


def quantize_bundle(
    data: bytes,
    exported: OnnxModel,
    shipped: F32,
    info: BundleInfo,
    grids: Mapping[str, OnGrid],
    images: npt.NDArray[np.uint8],
    int8: Int8,
    runtime: Runtime,
    compression: str = "zstd",
) -> tuple[bytes, F32, Int8Result]:
    """A float32 bundle with an int8 graph instead, calibrated with the weights that are shipped, and measured.

    Args:
        data, exported, shipped: the float32 bundle, the graph it was made of, and its logits on ``images``.
        grids, compression: what the bundle was coded with.

    Returns:
        The int8 bundle, its logits on ``images`` [N, classes], and what was measured.
    """
    exact = read_bundle(data)
    expanded = exact.tensors()
    rounded = replace(exported, tensors={name: expanded[name] for name in exported.tensors})
    pictures = preprocess(int8.calibration, info.preprocessing)
    quantized = quantize(rounded, pictures, libraries=runtime.libraries)
    changed = to_bundle(
        quantized, info, grids=grids, tolerance=_TOLERANCE, libraries=runtime.libraries, compression=compression
    )
    bundle = read_bundle(changed)
    answers = predict_logits(runtime.predictor(bundle), images)
    before, after = runtime.latencies((exact, bundle), images[:1], int8.rounds)
    found = Int8Result(runtime.name, len(pictures), compare_logits(shipped, answers), before, after)
    return changed, answers, found
