"""Packing as int8: the images that calibrate it, and whether it is faster in the target's runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from seedcnn.bundle import Bundle
from seedcnn.errors import BundleError, ExportError
from seedcnn.evaluate import Equivalence
from seedcnn.export import BundleInfo, OnnxModel, to_bundle
from seedcnn.export.bundles import OnGrid
from seedcnn.export.quantize import quantize
from seedcnn.latency import Latency
from seedcnn.pack.measuring import Expanded, Runtime
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
# Runtimes round sums of int8 products differently: logits differed from float32 by 0.02-0.03 of the largest.
_TOLERANCE = 0.05


def draw_calibration(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], count: int = CALIBRATION_COUNT, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Draw calibration images, class by class in turn and at random within each class.

    Args:
        images, labels: uint8 [N, H, W, 3] and int64 [N], the training images.
        count: how many to draw, 1 to N.
        seed: of the draw.

    Returns:
        uint8 [count, H, W, 3].

    Raises:
        ValueError: if ``count`` is out of range, or there are not as many labels as images.
    """
    if len(images) != len(labels):
        raise ValueError(f"`images` holds {len(images)} images and `labels` {len(labels)}")
    return images[calibration_order(labels, count, seed)]


def calibration_order(labels: npt.NDArray[np.int64], count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """The indices [count] of the images that :func:`draw_calibration` draws.

    Raises:
        ValueError: if ``count`` is not between 1 and the number of labels.
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


@dataclass(frozen=True, eq=False)
class Int8:
    """Options of packing as int8.

    Args:
        calibration: uint8 [N, H, W, 3] training images that give the ranges of the activations, see
            :func:`draw_calibration`; None for the child of an int8 parent, which keeps its parent's ranges.
        force: accept int8 even where it is slower than float32.
        rounds: timed answers of each graph.
    """

    calibration: npt.NDArray[np.uint8] | None = None
    force: bool = False
    rounds: int = 60


@dataclass(frozen=True)
class Int8Result:
    """The int8 graph against the float32 graph, in one runtime.

    Attributes:
        runtime: the runtime's name.
        calibration: number of calibration images; 0 if the ranges are the parent's.
        logits: how far the logits of the two differ.
        float32_latency, latency: of one image on one thread, the two graphs interleaved.
    """

    runtime: str
    calibration: int
    logits: Equivalence
    float32_latency: Latency
    latency: Latency

    def require_faster(self) -> None:
        """Refuse int8 that is not faster than float32.

        Raises:
            ExportError: with both medians.
        """
        if self.latency.median_ms >= self.float32_latency.median_ms:
            raise ExportError(
                f"int8 takes {self.latency.median_ms:.3f} ms an image in {self.runtime} here and float32 "
                f"{self.float32_latency.median_ms:.3f} ms (medians of {self.latency.n}, one thread): int8 would be "
                "slower and less exact; pack float32, or force int8"
            )


def quantize_bundle(
    exact: Expanded,
    exported: OnnxModel,
    info: BundleInfo,
    grids: Mapping[str, OnGrid],
    calibration: npt.NDArray[np.uint8],
    runtime: Runtime,
    parent: Bundle | None = None,
    compression: str = "entropy",
) -> Expanded:
    """Replace the graph of a float32 bundle by an int8 graph, calibrated with the weights that are shipped.

    Args:
        exact: the float32 bundle.
        exported: the graph that it was made from.
        grids, compression: how its tensors were coded.
        calibration: uint8 [N, H, W, 3] images that give the ranges of the activations; with ``parent`` any image will
            do.
        parent: an int8 bundle whose ranges the child keeps, so that both have the same graph.

    Raises:
        ValueError: if the calibration images have the wrong size or type.
        ExportError: if the network has nothing to quantise.
        BundleError: if the parent's graph belongs to another network.
    """
    rounded = replace(exported, tensors={name: exact.tensors[name] for name in exported.tensors})
    quantized = quantize(rounded, preprocess(calibration, info.preprocessing), libraries=runtime.libraries)
    if parent is not None:
        quantized = replace(quantized, graph=_with_ranges(quantized.graph, parent))
    data = to_bundle(
        quantized, info, grids=grids, tolerance=_TOLERANCE, libraries=runtime.libraries, compression=compression
    )
    return runtime.expand(data)


def _with_ranges(graph: bytes, parent: Bundle) -> bytes:
    """The graph with the ranges of the parent's graph; it must then equal the parent's graph to the byte."""
    wanted = parent.graph()
    proto, old = (onnx.load_model_from_string(each) for each in (graph, wanted))
    ranges = {tensor.name: tensor for tensor in old.graph.initializer if tensor.name.endswith((":step", ":zero"))}
    for tensor in proto.graph.initializer:
        if tensor.name in ranges:
            tensor.CopyFrom(ranges[tensor.name])
    found: bytes = proto.SerializeToString(deterministic=True)
    if found != wanted:
        raise BundleError(
            f"the parent, {parent.manifest.model} release {parent.manifest.release}, has another int8 graph than the "
            "network, even with the same ranges: no delta leads from one to the other; pack without a parent"
        )
    return found
