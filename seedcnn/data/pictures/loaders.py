"""Large picture folders, batch by batch, through timm's transforms and prefetcher; needs timm.

Unlike timm's own data sets these never put another picture in a damaged one's place: the loader stops and names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.transforms import str_to_interp_mode
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seedcnn.data.image_set import Unreadable
from seedcnn.data.pictures.folder import ImageFolder
from seedcnn.data.pictures.samples import Damaged, Order, Pictures, Sample, Sound
from seedcnn.data.sets.imagenet import MEAN, STD
from seedcnn.errors import DataError, did_you_mean

__all__ = ["FolderLoader", "evaluation_options", "folder_loader"]

_EVALUATION = ("crop_pct", "crop_mode", "crop_border_pixels")
_TRAINING = (
    "train_crop_mode",
    "scale",
    "ratio",
    "hflip",
    "vflip",
    "color_jitter",
    "color_jitter_prob",
    "grayscale_prob",
    "gaussian_blur_prob",
    "auto_augment",
)
_ERASING = ("re_prob", "re_mode", "re_count")
# timm takes any other crop_mode for "center", and asserts the rest.
_MODES = {
    "crop_mode": ("center", "squash", "border"),
    "train_crop_mode": ("rrc", "rkrc", "rkrr"),
    "re_mode": ("const", "rand", "pixel"),
}


def _collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor] | Damaged:
    bad = [sample for sample in samples if isinstance(sample, Unreadable)]
    return Damaged(bad, len(samples)) if bad else fast_collate(samples)


class FolderLoader:
    """What :func:`folder_loader` makes. Iterate for (pictures float32 [n, 3, H, W], normalised; labels int64 [n]), on
    the loader's device.

    Attributes:
        folder: the files.
        transform: timm's, from a Pillow picture to uint8 [3, H, W].
    """

    def __init__(self, folder: ImageFolder, transform: Any, loader: PrefetchLoader, order: Order) -> None:
        self.folder, self.transform = folder, transform
        self._loader, self._order = loader, order

    def __len__(self) -> int:
        """Batches that this process gets in an epoch."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next iteration, which depend on seed and epoch alone.

        Raises:
            ValueError: if the epoch is negative.
        """
        if epoch < 0:
            raise ValueError(f"`epoch` (={epoch}) must not be negative")
        self._order.epoch = epoch

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Indices into ``folder``, int64 [n], of the images that the next iteration gives, in its order."""
        return self._order.indices()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch. The workers start with it and end with it.

        Raises:
            DataError: if files of a batch cannot be decoded: how many of the batch, and which.
        """
        yield from self._loader


def folder_loader(
    folder: ImageFolder,
    *,
    training: bool,
    batch_size: int,
    input_size: tuple[int, int, int] = (3, 224, 224),
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    interpolation: str = "bicubic",
    workers: int = 2,
    seed: int = 0,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = True,
    **options: Any,
) -> FolderLoader:
    """Read a folder with timm's transforms, in worker processes.

    In training the order is shuffled, and each picture's augmentation depends on
    (seed, epoch, its index) alone: not on the workers, the batch size or the processes, so that a resumed run sees the
    same pictures. Only random erasing draws from the global generators of ``random`` and torch, as timm erases on the
    device.

    Args:
        folder: the files, for example of ``list_imagenet``.
        training: training transform and order, or those of an evaluation.
        batch_size: pictures per batch of this process.
        input_size: (3, H, W).
        mean, std: of the normalisation, per channel on the 0..1 scale.
        interpolation: "bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"; in training also "random".
        workers: processes that decode; 0 decodes in this one.
        seed: of order and augmentation, in [0, 2**64).
        device: where the batches are put.
        rank, world_size: this process and their number in distributed work. In training each gets as many pictures; in
            evaluation each picture goes to exactly one.
        drop_last: whether training leaves out an incomplete last batch; an evaluation never does.
        options: of ``timm.data.create_transform``. For evaluation crop_pct, crop_mode, crop_border_pixels, as
            ``evaluation_options`` gives them. For training scale, ratio, hflip, vflip, color_jitter, auto_augment (and
            others), re_prob, re_mode, re_count; timm's defaults are not to augment but by crop, flip and colour.

    Raises:
        ValueError: naming the argument, its value and the rule; for an unknown option near names are listed.
        DataError: if the folder is empty, or in training smaller than a batch.
    """
    _check(training, batch_size, input_size, mean, std, interpolation, options)
    _check_process(workers, seed, rank, world_size)
    order = Order(len(folder), training, seed, rank, world_size)
    if len(order) < (batch_size if training else 1):
        raise DataError(
            f"{folder.root} has {len(order)} pictures for this process; "
            f"{'a batch of training' if training else 'an evaluation'} needs {batch_size if training else 1}"
        )
    erasing = {name: options.pop(name) for name in _ERASING if name in options}
    stated: dict[str, Any] = {
        "is_training": training,
        "interpolation": interpolation,
        "mean": tuple(mean),
        "std": tuple(std),
    }
    try:
        transform = create_transform(input_size, use_prefetcher=True, **stated, **options)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"timm cannot make a transform of the options {options} ({told})") from error
    where = torch.device(device)
    loader = DataLoader(
        Pictures(folder, transform, seed),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=where.type == "cuda",
        drop_last=training and drop_last,
        # Else workers outlive an error, and whatever collects the cycle it leaves waits five seconds for each.
        persistent_workers=False,
        generator=torch.Generator(),  # so that iterating draws nothing from the global one
    )
    fetched = PrefetchLoader(Sound(loader, folder), tuple(mean), tuple(std), device=where, **erasing)  # type: ignore[arg-type]
    return FolderLoader(folder, transform, fetched, order)


def _check(
    training: bool,
    batch_size: int,
    input_size: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    options: Mapping[str, Any],
) -> None:
    if batch_size < 1:
        raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
    if len(input_size) != 3 or input_size[0] != 3 or min(input_size) < 1:
        raise ValueError(f"`input_size` (={tuple(input_size)}) must be (3, height, width)")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"`mean` (={tuple(mean)}) and `std` (={tuple(std)}) must have 3 numbers, those of std positive"
        )
    known = _TRAINING + _ERASING if training else _EVALUATION
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            purpose = "training" if training else "an evaluation"
            raise ValueError(f"`{name}` is no option of the transform of {purpose}; {hint}known: {', '.join(known)}")
        if name in _MODES and options[name] not in _MODES[name]:
            raise ValueError(f"`{name}` (={options[name]!r}) must be one of {', '.join(_MODES[name])}")
    if not (training and interpolation == "random"):
        try:
            str_to_interp_mode(interpolation)
        except KeyError:
            raise ValueError(f"`interpolation` (={interpolation!r}) must be bicubic, bilinear or the like") from None
    crop_pct = options.get("crop_pct")
    if crop_pct is not None and not crop_pct > 0:
        raise ValueError(f"`crop_pct` (={crop_pct}) must be positive")


def _check_process(workers: int, seed: int, rank: int, world_size: int) -> None:
    if workers < 0:
        raise ValueError(f"`workers` (={workers}) must not be negative")
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` (={seed}) must be in [0, 2**64)")
    if not 0 <= rank < world_size:
        raise ValueError(f"`rank` (={rank}) must be in 0 to `world_size` - 1 (={world_size - 1})")


def evaluation_options(model: nn.Module, *, test_size: bool = True) -> dict[str, Any]:
    """The evaluation transform that a timm model was published with, as options of :func:`folder_loader`.

    Args:
        model: made by ``timm.create_model``.
        test_size: the larger pictures that some models are tested with, as timm's own accuracy tables use; else those
            that the model was trained with.

    Returns:
        input_size (3, H, W), interpolation, mean, std, crop_pct (size of the crop over that of the resized picture),
        crop_mode.

    Raises:
        ValueError: if the model is none of timm's, whose pictures nobody knows.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise ValueError(
            f"`model` is a {type(model).__name__} without `pretrained_cfg`; it must be a timm model "
            "(give input_size, mean and std yourself)"
        )
    return resolve_model_data_config(model, use_test_size=test_size)
