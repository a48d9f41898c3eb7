"""An exported network as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.bundle import Preprocessing, encode_grid, encode_raw, encode_seeded, grid_of_step, write_bundle
from seedcnn.bundle.codings import Coded
from seedcnn.bundle.session import open_session, preprocess
from seedcnn.errors import ExportError
from seedcnn.export.to_onnx import INPUT, OUTPUT, OnnxModel
from seedcnn.rng import random_bytes

__all__ = ["BundleInfo", "encode_tensors", "is_weight", "to_bundle"]

CANNED_COUNT = 8
_CANNED_SEED = 0x5EEDC44E
RELATIVE_TOLERANCE = 1e-3
_MAX_LOGIT = 1e6


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says about its model besides the tensors.

    Args:
        model, family: names; a device follows one family.
        release: counter that grows with each release of the family.
        min_release: devices that once ran a release above this may not go below it.
        preprocessing: how a picture becomes the input.
        labels: class names in the order of the logits.
    """

    model: str
    family: str
    release: int
    preprocessing: Preprocessing
    labels: Sequence[str]
    min_release: int = 0


def is_weight(shape: tuple[int, ...]) -> bool:
    """Whether a tensor goes on the grid: two or more axes with more than one value (convolutions, linear layers)."""
    return sum(size > 1 for size in shape) >= 2


def encode_tensors(model: OnnxModel, step: float | None) -> list[Coded]:
    """Code every tensor of the graph.

    Args:
        step: grid step of the weights (see :func:`is_weight`); None stores everything as float32. What remains per
            channel (biases, folded norms) is always stored as float32.
    """
    grid = None if step is None else grid_of_step(step)
    coded = []
    for name, values in model.tensors.items():
        coded.append(encode_grid(name, values, grid) if grid and is_weight(values.shape) else encode_raw(name, values))
    coded += [encode_seeded(name, shape, seeded) for name, (shape, seeded) in model.seeded.items()]
    return coded


def to_bundle(
    model: OnnxModel,
    info: BundleInfo,
    *,
    step: float | None,
    tolerance: float = RELATIVE_TOLERANCE,
    libraries: Sequence[Path] = (),
) -> bytes:
    """Write a bundle: coded tensors, seeds, graph, manifest and eight canned test vectors.

    The expected logits of the canned vectors come from ONNX Runtime on the tensors as the device will expand them.

    Args:
        step: grid step of the weights, see :func:`encode_tensors`.
        tolerance: how far a device's answers to the canned vectors may be off, as a share of the largest logit.
        libraries: shared libraries of the operators that the graph needs, see ``seedcnn.bundle.custom_op``.

    Raises:
        BundleError: if a weight is not finite or does not fit the grid.
        ExportError: if the network's answers to the canned vectors are not finite, over 1e6, or do not fit the labels.
    """
    coded = encode_tensors(model, step)
    session = open_session(model.graph, {item.entry.name: item.expanded for item in coded}, libraries=libraries)
    rule = info.preprocessing
    shape = (CANNED_COUNT, rule.height, rule.width, 3)
    images = random_bytes(_CANNED_SEED, tensor_id=0, count=int(np.prod(shape))).reshape(shape)
    logits: npt.NDArray[np.float32] = session.run([OUTPUT], {INPUT: preprocess(images, rule)})[0]
    if not np.isfinite(logits).all():
        raise ExportError("the network answers the canned vectors with values that are not finite")
    largest = float(np.abs(logits).max())
    if largest > _MAX_LOGIT:
        raise ExportError(
            f"the network answers the canned vectors with logits up to {largest:.1e}; at most {_MAX_LOGIT:.0e} can be "
            "checked on a device (were the running statistics of its norms ever estimated?)"
        )
    if logits.shape != (CANNED_COUNT, len(info.labels)):
        raise ExportError(f"the network gives logits of shape {logits.shape} but there are {len(info.labels)} labels")
    return write_bundle(
        model=info.model,
        family=info.family,
        release=info.release,
        min_release=info.min_release,
        graph=model.graph,
        graph_input=INPUT,
        graph_output=OUTPUT,
        tensors=coded,
        preprocessing=rule,
        labels=info.labels,
        canned_seed=_CANNED_SEED,
        canned_logits=logits,
        canned_tolerance=max(1e-4, tolerance * largest),
    )
