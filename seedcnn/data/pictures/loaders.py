"""Large image folders, read in batches through timm's transforms and prefetcher; needs timm.

timm's own data sets replace a damaged image by another one; these loaders stop and name the damaged file.
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
# timm treats an unknown crop_mode as "center", and only asserts the other two.
_MODES = {
    "crop_mode": ("center", "squash", "border"),
    "train_crop_mode": ("rrc", "rkrc", "rkrr"),
    "re_mode": ("const", "rand", "pixel"),
}


def _collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor] | Damaged:
    bad = [sample for sample in samples if isinstance(sample, Unreadable)]
    return Damaged(bad, len(samples)) if bad else fast_collate(samples)


class FolderLoader:
    """The loader that :func:`folder_loader` returns.

    Iterating yields (images float32 [n, 3, H, W], normalised; labels int64 [n]) on the loader's device.

    Attributes:
        folder: the files.
        transform: timm's transform, from a Pillow image to uint8 [3, H, W].
    """

    def __init__(self, folder: ImageFolder, transform: Any, loader: PrefetchLoader, order: Order) -> None:
        self.folder, self.transform = folder, transform
        self._loader, self._order = loader, order

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next iteration; they depend only on seed and epoch.

        Raises:
            ValueError: if the epoch is negative.
        """
        if epoch < 0:
            raise ValueError(f"`epoch` (={epoch}) must not be negative")
        self._order.epoch = epoch

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Indices into ``folder``, int64 [n], of the images of the next iteration, in order."""
        return self._order.indices()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch. The workers start and end with it.

        Raises:
            DataError: if files of a batch cannot be decoded; it gives their number and names.
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

    Training shuffles the order. The augmentation of an image depends only on (seed, epoch, its index), not on workers,
    batch size or processes, so a resumed run sees the same images. Random erasing is the exception: timm erases on the
    device and draws from the global generators of ``random`` and torch.

    Args:
        folder: the files, for example from ``list_imagenet``.
        training: use the transform and the order of training, instead of those of an evaluation.
        batch_size: images per batch of this process.
        input_size: (3, H, W).
        mean, std: the normalisation, per channel on the 0..1 scale.
        interpolation: "bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"; in training also "random".
        workers: processes that decode; 0 decodes in this process.
        seed: of the order and the augmentation, in [0, 2**64).
        device: device of the batches.
        rank, world_size: this process and the number of processes. Each gets the same number of images in training;
            in an evaluation each image goes to exactly one.
        drop_last: leave out an incomplete last batch in training; an evaluation always keeps it.
        options: of ``timm.data.create_transform``. Evaluation: crop_pct, crop_mode, crop_border_pixels (see
            :func:`evaluation_options`). Training: scale, ratio, hflip, vflip, color_jitter, auto_augment and others,
            re_prob, re_mode, re_count; by default timm augments only by crop, flip and colour jitter.

    Raises:
        ValueError: naming the argument, its value and the rule; for an unknown option near names are listed.
        DataError: if the folder is empty, or in training smaller than a batch.
    """
    _check(training, batch_size, input_size, mean, std, interpolation, options)
    _check_process(workers, seed, rank, world_size)
    order = _order(folder, training, batch_size, seed, rank, world_size)
    erasing = {name: options.pop(name) for name in _ERASING if name in options}
    normalisation = {"mean": tuple(mean), "std": tuple(std)}
    fixed = {"is_training": training, "interpolation": interpolation, **normalisation}
    transform = _transform(input_size, fixed, options)
    loader = _data_loader(
        Pictures(folder, transform, seed), order, torch.device(device), batch_size, workers, training and drop_last
    )
    fetched = PrefetchLoader(Sound(loader, folder), device=torch.device(device), **normalisation, **erasing)  # type: ignore[arg-type]
    return FolderLoader(folder, transform, fetched, order)


def _order(folder: ImageFolder, training: bool, batch_size: int, seed: int, rank: int, world_size: int) -> Order:
    order = Order(len(folder), training, seed, rank, world_size)
    needed = batch_size if training else 1
    if len(order) < needed:
        purpose = "a training batch" if training else "an evaluation"
        raise DataError(f"{folder.root} has {len(order)} images for this process; {purpose} needs {needed}")
    return order


def _data_loader(
    samples: Pictures, order: Order, device: torch.device, batch_size: int, workers: int, drop_last: bool
) -> DataLoader[Sample]:
    return DataLoader(
        samples,
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        drop_last=drop_last,
        # Persistent workers outlive an error, and collecting the reference cycle it leaves waits 5 s for each of them.
        persistent_workers=False,
        generator=torch.Generator(),  # so that iterating draws nothing from the global generator
    )


def _transform(input_size: tuple[int, int, int], fixed: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    try:
        return create_transform(input_size, use_prefetcher=True, **fixed, **options)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"timm cannot make a transform from the options {options} ({reason})") from error


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
            f"`mean` (={tuple(mean)}) and `std` (={tuple(std)}) must have 3 numbers each, and `std` positive ones"
        )
    known = _TRAINING + _ERASING if training else _EVALUATION
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            purpose = "training" if training else "an evaluation"
            raise ValueError(f"`{name}` is not a transform option of {purpose}; {hint}known: {', '.join(known)}")
        if name in _MODES and options[name] not in _MODES[name]:
            raise ValueError(f"`{name}` (={options[name]!r}) must be one of {', '.join(_MODES[name])}")
    if not (training and interpolation == "random"):
        try:
            str_to_interp_mode(interpolation)
        except KeyError:
            known_modes = "bicubic, bilinear, nearest, box, hamming or lanczos"
            raise ValueError(f"`interpolation` (={interpolation!r}) must be {known_modes}") from None
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
        test_size: use the larger input size that some models are tested with, as in timm's own accuracy tables,
            instead of the size they were trained with.

    Returns:
        input_size (3, H, W), interpolation, mean, std, crop_pct (size of the crop over the size of the resized image),
        crop_mode.

    Raises:
        ValueError: if it is not a timm model, because its transform is then unknown.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise ValueError(
            f"`model` is a {type(model).__name__} without `pretrained_cfg`; it must be a timm model "
            "(for other models pass input_size, mean and std yourself)"
        )
    return resolve_model_data_config(model, use_test_size=test_size)
