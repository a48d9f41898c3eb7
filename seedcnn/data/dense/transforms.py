"""Transforms in which boxes and index maps move with their picture: torchvision's v2, and the house's own letterbox.

A sample is a dict. ``image`` is a ``tv_tensors.Image``, uint8 [3, h, w]. For detection, ``boxes`` is a
``tv_tensors.BoundingBoxes``, float32 [n, 4], XYXY; ``labels``, ``crowd``, ``difficult`` and ``ids`` have n entries. For
segmentation, ``mask`` is a ``tv_tensors.Mask``, uint8 [h, w].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from seedcnn.arrays import U8
from seedcnn.bundle import Preprocessing
from seedcnn.data.dense.detection_set import DetectionSet
from seedcnn.data.dense.segmentation_set import IGNORE, SegmentationSet
from seedcnn.data.pictures.samples import Seeded
from seedcnn.errors import DataError, ImageError
from seedcnn.runtime.fitting import Fit
from seedcnn.runtime.pictures import prepare
from seedcnn.runtime.resampling import resample

__all__ = ["DenseSamples", "Letterbox", "RandomScale", "evaluation_transform", "sample_of", "training_transform"]

DenseSample = dict[str, Any]
_ANY = "a picture "
_COLUMNS = ("labels", "crowd", "difficult", "ids")


def sample_of(data: DetectionSet | SegmentationSet, index: int) -> DenseSample:
    """Decode a picture with its boxes or its index map, as the module's docstring says.

    Raises:
        DataError: if it cannot be decoded, or no longer is what was checked.
    """
    picture = data.picture(index)
    image = tv_tensors.Image(torch.from_numpy(picture.transpose(2, 0, 1).copy()))
    if isinstance(data, SegmentationSet):
        return {"image": image, "mask": tv_tensors.Mask(torch.from_numpy(data.index_map(index).copy()))}
    objects = data.objects(index)
    boxes = torch.from_numpy(objects.boxes.copy())
    canvas = (picture.shape[0], picture.shape[1])
    found: DenseSample = {"image": image, "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)}  # type: ignore[call-overload]
    return found | {name: torch.from_numpy(getattr(objects, name).copy()) for name in _COLUMNS}


class Letterbox(v2.Transform):
    """The rule of an evaluation: the picture becomes the bytes that :func:`seedcnn.runtime.pictures.prepare` gives.

    Boxes move with it (see :class:`seedcnn.runtime.fitting.Fit`); index maps take the nearest pixel, and what is filled
    is ignored. Every ``resize`` of a rule works, "pad" is the letterbox.

    Args:
        rule: of the network; three channels.

    Raises:
        ValueError: if the rule has another number of channels.
    """

    def __init__(self, rule: Preprocessing) -> None:
        super().__init__()
        if rule.channels != 3:
            raise ValueError(f"`rule` has {rule.channels} channels; pictures with boxes or index maps have 3")
        self.rule = rule

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The fit of this picture."""
        height, width = _size(flat_inputs)
        try:
            return {"fit": Fit.of(height, width, self.rule)}
        except ImageError as error:
            raise DataError(f"{_ANY}{error}") from None

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Move one part of a sample."""
        fit: Fit = params["fit"]
        canvas = (self.rule.height, self.rule.width)
        if isinstance(inpt, tv_tensors.Image):
            pixels = inpt.as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy()
            return tv_tensors.Image(torch.from_numpy(prepare(pixels, self.rule).transpose(2, 0, 1).copy()))
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.Mask(torch.from_numpy(_fitted_map(inpt.as_subclass(Tensor).numpy(), fit, canvas)))
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            moved = torch.from_numpy(fit.to_input(inpt.as_subclass(Tensor).numpy()))
            boxes = tv_tensors.BoundingBoxes(moved, format="XYXY", canvas_size=canvas)  # type: ignore[call-overload]
            return F.clamp_bounding_boxes(boxes)
        return inpt


def _size(parts: list[Any]) -> tuple[int, int]:
    found = next(part for part in parts if isinstance(part, tv_tensors.Image))
    return int(found.shape[-2]), int(found.shape[-1])


def _fitted_map(index_map: U8, fit: Fit, canvas: tuple[int, int]) -> U8:
    scaled = resample(index_map[..., None], fit.scaled_height, fit.scaled_width, filter="nearest")[..., 0]
    result = np.full(canvas, IGNORE, np.uint8)
    top, left = max(0, fit.top), max(0, fit.left)
    part = scaled[top - fit.top :, left - fit.left :][: canvas[0] - top, : canvas[1] - left]
    result[top : top + part.shape[0], left : left + part.shape[1]] = part
    return result


class RandomScale(v2.Transform):
    """Scale a picture by a random factor of its own size, both sides alike.

    Args:
        low, high: bounds of the factor, drawn evenly.

    Raises:
        ValueError: unless 0 < low <= high.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not 0 < low <= high:
            raise ValueError(f"`low` (={low}) and `high` (={high}) must be positive and in order")
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size to scale to, drawn from torch's global generator."""
        factor = self.low + (self.high - self.low) * float(torch.rand(()))
        return {"size": [max(1, round(side * factor)) for side in _size(flat_inputs)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Scale one part of a sample."""
        return self._call_kernel(F.resize, inpt, size=params["size"], antialias=True)


def _columns(sample: DenseSample) -> tuple[Tensor, ...]:
    return tuple(sample[name] for name in _COLUMNS)


def training_transform(
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    of: str = "fit",
    flip: float = 0.5,
    colour: float = 0.0,
    fill: int = 114,
    least: float = 1.0,
) -> v2.Transform:
    """Scale jitter, crop, flip and colour, for samples of :func:`sample_of`. All draw from torch's global generator.

    Args:
        size: height and width of the result. What lies outside the picture is ``fill``, and ignored in index maps.
        scale: bounds of the random factor.
        of: what is scaled: "fit", the picture fitted into ``size`` (Ghiasi et al., 2021, large scale jitter), or
            "picture", its own size (BiSeNet, STDC-Seg: 0.125 to 1.5 with crops of 512 x 1024).
        flip: probability of mirroring.
        colour: strength of brightness, contrast and saturation, as of ``v2.ColorJitter``; 0 for none.
        fill: 0 to 255.
        least: pixels; boxes of which less is left on a side are dropped, with their labels.

    Returns:
        A transform from a sample to a sample, image uint8 [3, *size].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """
    _check(size, scale, of, flip, colour, fill, least)
    jitter: v2.Transform
    if of == "fit":
        jitter = v2.ScaleJitter(size, scale, antialias=True)
    else:
        jitter = RandomScale(*scale)
    fills: Any = {tv_tensors.Image: fill, tv_tensors.Mask: IGNORE, "others": 0}
    parts: list[v2.Transform] = [
        jitter,
        v2.RandomCrop(size, pad_if_needed=True, fill=fills),
        v2.RandomHorizontalFlip(flip),
    ]
    if colour:
        parts.append(v2.ColorJitter(colour, colour, colour))
    return _Augmented(parts, least)


class _Augmented(v2.Compose):
    """Transforms in order; boxes of which too little is left are dropped, with their labels, where there are boxes."""

    def __init__(self, parts: list[v2.Transform], least: float) -> None:
        super().__init__(parts)
        self._sound = v2.SanitizeBoundingBoxes(min_size=least, labels_getter=_columns)

    def forward(self, sample: DenseSample) -> DenseSample:  # type: ignore[override]
        """Transform a sample."""
        found: DenseSample = super().forward(sample)
        return self._sound(found) if "boxes" in found else found


def _check(
    size: tuple[int, int],
    scale: tuple[float, float],
    of: str,
    flip: float,
    colour: float,
    fill: int,
    least: float,
) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`size` (={tuple(size)}) must be height and width, both at least 1")
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"`scale` (={tuple(scale)}) must be two positive factors in order")
    if of not in ("fit", "picture"):
        raise ValueError(f"`of` (={of!r}) must be 'fit' or 'picture'")
    if not 0 <= flip <= 1:
        raise ValueError(f"`flip` (={flip}) must be in 0 to 1")
    if not 0 <= colour <= 1:
        raise ValueError(f"`colour` (={colour}) must be in 0 to 1")
    if not 0 <= fill <= 255:
        raise ValueError(f"`fill` (={fill}) must be in 0 to 255")
    if not least > 0:
        raise ValueError(f"`least` (={least}) must be positive")


def evaluation_transform(rule: Preprocessing | None = None, *, short: int = 0, longest: int = 0) -> v2.Transform:
    """The transform of an evaluation: a rule's fit, or torchvision's resize of the short side.

    Args:
        rule: of the network; the result has its size, byte for byte as on a device.
        short: without a rule: pixels of the short side (800, with ``longest`` 1333, for COCO; 600 and 1000 for VOC).
        longest: most pixels of the long side.

    Raises:
        ValueError: unless there is either a rule or both numbers, ``longest`` the larger.
    """
    if rule is not None and not short and not longest:
        return Letterbox(rule)
    if rule is not None or not 0 < short < longest:
        raise ValueError(f"give `rule` alone, or `short` (={short}) below `longest` (={longest})")
    return v2.Resize([short], max_size=longest, antialias=True)


class DenseSamples(Dataset[DenseSample]):
    """Transformed samples, addressed by (epoch, index); the augmentation depends only on (seed, epoch, index).

    Args:
        data: the set.
        transform: from a sample to a sample.
        seed: in [0, 2**64).
    """

    def __init__(self, data: DetectionSet | SegmentationSet, transform: v2.Transform, seed: int = 0) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"`seed` (={seed}) must be in [0, 2**64)")
        self.data, self.transform, self.seed = data, transform, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, address: tuple[int, int]) -> DenseSample:
        epoch, index = address
        sample = sample_of(self.data, index)
        try:
            with Seeded(self.seed, epoch, index):
                return self.transform(sample)
        except DataError as error:
            name = self.data.place.path(str(self.data.files[index]))
            raise DataError(f"{name} {str(error).removeprefix(_ANY)}") from None
