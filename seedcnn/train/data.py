"""Training images by name, in memory or as files, and the batches of an epoch for each process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from seedcnn.bundle import Preprocessing
from seedcnn.data import ImageFolder, limited, load_train, normalize, random_crop_flip, random_shift_flip
from seedcnn.data.augmentation import augmix, gaussian_noise, prime, trivial_augment
from seedcnn.data.pictures.loaders import folder_loader
from seedcnn.data.sets import imagenet
from seedcnn.data.sets.named import FOLDER
from seedcnn.errors import ConfigError
from seedcnn.messages import Say
from seedcnn.processes import Processes
from seedcnn.sampling import full_batches, short_batch
from seedcnn.train._rules import in_memory_only
from seedcnn.train.config import TrainConfig
from seedcnn.train.randomness import epoch_generator

__all__ = ["Batch", "Batches", "FolderData", "TrainData", "load_training_data", "open_batches"]

_PADDING = 4
_MAPS = {"prime": prime, "augmix": augmix, "trivial": trivial_augment}  # parts of ``augment``
_SIDES = -1  # the "epoch" whose generator draws which images are mirrored first

Batch = tuple[Tensor, Tensor, Tensor]
"""Images float32 [n, 3, H, W], labels int64 [n], both on the device, and indices int64 [n] into the set."""


@dataclass(frozen=True, eq=False)
class TrainData:
    """Training images in memory.

    Attributes:
        images: uint8 [N, H, W, channels].
        labels: int64 [N].
        mean, std: of the normalisation, per channel on the 0..1 scale.
        classes: the class names, by label; () if they are not known.
        rule: how a picture becomes such an image, and an image an input; None for the images as they are.
        source: NAME or NAME:DIRECTORY of the data set, which a checkpoint keeps; "" if there is none.
        sha256: digest of pictures of one's own and their labels, without which a run is not resumed; "" for other data.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    rule: Preprocessing | None = None
    source: str = ""
    sha256: str = ""

    @property
    def size(self) -> tuple[int, int, int]:
        """(channels, H, W) of the images."""
        return self.images.shape[3], self.images.shape[1], self.images.shape[2]

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule, or that for images of exactly this size."""
        channels, height, width = self.size
        return self.rule or Preprocessing.exact((height, width), channels=channels, mean=self.mean, std=self.std)


@dataclass(frozen=True, eq=False)
class FolderData:
    """Training images as files, decoded when needed.

    Attributes:
        folder: the files.
        mean, std: of the normalisation, per channel on the 0..1 scale.
        size: (3, H, W) of the crops.
        rule, source, sha256: as for :class:`TrainData`; the rule is that for measuring.
    """

    folder: ImageFolder
    mean: tuple[float, ...] = imagenet.MEAN
    std: tuple[float, ...] = imagenet.STD
    size: tuple[int, int, int] = (3, 224, 224)
    rule: Preprocessing | None = None
    source: str = ""
    sha256: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, by label."""
        return self.folder.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule for measuring: the middle of a picture, of the crops' size."""
        return self.rule or Preprocessing.crop((self.size[1], self.size[2]), mean=self.mean, std=self.std)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64 [N]."""
        return self.folder.labels


class Batches(Protocol):
    """The batches of one process."""

    @property
    def steps(self) -> int:
        """Number of batches of an epoch over all images."""
        ...

    def epoch(self, number: int, first: int, last: int) -> Iterator[Batch]:
        """Batches ``first`` to ``last`` - 1 of an epoch; they depend only on seed, epoch and process."""
        ...


class _InMemory:
    """Batches of decoded images, which stay on the device."""

    def __init__(self, config: TrainConfig, data: TrainData, processes: Processes) -> None:
        self.config, self.data, self.processes = config, data, processes
        place = (len(data.images), config.batch_size, config.drop_last, processes.world)
        self.steps, self.short = full_batches(*place), short_batch(*place)
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.images = torch.from_numpy(np.ascontiguousarray(data.images.transpose(0, 3, 1, 2))).to(processes.device)
        self.labels = torch.from_numpy(data.labels).to(processes.device)
        self.sides = torch.rand(len(self.images), generator=epoch_generator(config.seed, _SIDES)) < 0.5

    def _pictures(self, picked: Tensor, number: int, generator: torch.Generator) -> Tensor:
        images = self.images[picked.to(self.images.device)]
        if self.config.augments:
            flip: bool | Tensor = self.config.flip == "random"
            if self.config.flip == "alternating":
                flip = self.sides[picked] ^ (number % 2 == 1)
            if "shift2" in self.config.augment_parts:
                images = random_shift_flip(images, generator, 2, flip=flip)
            else:
                padding = _PADDING if self.config.data != FOLDER else max(_PADDING, images.shape[2] // 8)
                crop = "crop" in self.config.augment_parts
                images = random_crop_flip(images, generator, padding if crop else 0, flip=flip)
            for part in self.config.augment_parts:
                images = _MAPS[part](images, generator) if part in _MAPS else images
        if self.config.noise:
            images = gaussian_noise(images, generator, self.config.noise)
        return normalize(images, self.data.mean, self.data.std).contiguous(memory_format=self.layout)

    def epoch(self, number: int, first: int, last: int) -> Iterator[Batch]:
        generator = epoch_generator(self.config.seed, number)
        order = torch.randperm(len(self.images), generator=generator)[self.processes.rank :: self.processes.world]
        if self.processes.rank:
            generator = epoch_generator(self.config.seed, number, self.processes.rank)
        size = self.config.batch_size
        for step in range(last):
            picked = order[step * size :][: self.short if step + 1 == self.steps else size]
            images = self._pictures(picked, number, generator)  # finished steps draw their random numbers again
            if step >= first:
                yield images, self.labels[picked.to(self.labels.device)], picked


class _FromFolder:
    """Batches of files through timm's transforms; resuming within an epoch decodes its first batches again."""

    def __init__(self, config: TrainConfig, data: FolderData, processes: Processes, workers: int) -> None:
        plain = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "color_jitter": 0.0}
        options: dict[str, Any] = {} if config.augments else plain
        if config.flip == "none":
            options["hflip"] = 0.0
        if config.rand_augment:
            options["auto_augment"] = config.rand_augment
        self.loader = folder_loader(
            data.folder,
            training=True,
            batch_size=config.batch_size,
            input_size=data.size,
            mean=data.mean,
            std=data.std,
            workers=workers,
            seed=config.seed,
            device=processes.device,
            rank=processes.rank,
            world_size=processes.world,
            drop_last=config.drop_last,
            **options,
        )
        self.steps, self.size = len(self.loader), config.batch_size
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format

    def epoch(self, number: int, first: int, last: int) -> Iterator[Batch]:
        self.loader.set_epoch(number)
        picked = torch.from_numpy(self.loader.indices)
        for step, (images, labels) in enumerate(itertools.islice(self.loader, last)):
            if step >= first:
                indices = picked[step * self.size : (step + 1) * self.size]
                yield images.contiguous(memory_format=self.layout), labels, indices


class _Erased:
    """Batches after timm's random erasing, which draws from the global generators."""

    def __init__(self, batches: Batches, probability: float, device: torch.device) -> None:
        self.batches, self.steps = batches, batches.steps
        self.erase = RandomErasing(probability, mode="pixel", device=str(device))

    def epoch(self, number: int, first: int, last: int) -> Iterator[Batch]:
        for images, labels, indices in self.batches.epoch(number, first, last):
            yield self.erase(images), labels, indices


def open_batches(config: TrainConfig, data: TrainData | FolderData, processes: Processes, workers: int) -> Batches:
    """Open the batches of this process.

    Args:
        config: of the run.
        data: the training images.
        processes: the processes of the run.
        workers: number of processes that decode files; images in memory need none.

    Raises:
        ConfigError: if there are no images, or fewer than a batch for each process, or an option of the config needs
            images in memory and these are files.
    """
    count, needed = len(data.labels), config.batch_size * processes.world
    if not count:
        raise ConfigError("there are no training images")
    if count < needed:
        each = f" of {processes.world} processes" if processes.world > 1 else ""
        raise ConfigError(f"batch_size (={config.batch_size}){each} exceeds the {count} training images")
    if isinstance(data, FolderData) and (told := in_memory_only(config)):
        raise ConfigError(f"{told} goes with images in memory, not with files")
    batches: Batches = (
        _FromFolder(config, data, processes, workers)
        if isinstance(data, FolderData)
        else _InMemory(config, data, processes)
    )
    return _Erased(batches, config.random_erasing, processes.device) if config.random_erasing else batches


def load_training_data(
    config: TrainConfig, directory: str | Path | None = None, *, verify: bool = True, progress: Say | None = None
) -> TrainData | FolderData:
    """Load the training part of the config's data set, or the fraction of it that the config asks for.

    Args:
        config: of the run.
        directory: where the set is; None for sets that are downloaded (:data:`seedcnn.data.sets.named.DATA_SETS`).
        verify: refuse an incomplete set.
        progress: called with one sentence per step.

    Raises:
        ConfigError: if the set needs a directory or takes none, or the hold-out or fraction does not fit it.
        DataError: if the data are missing, incomplete or damaged, or there is no training image.
    """
    found = load_train(config.data, directory, hold_out=config.hold_out, verify=verify, progress=progress)
    train, source = found.train, config.data if directory is None else f"{config.data}:{Path(directory).absolute()}"
    if config.fraction < 1:
        try:
            train = limited(train, config.fraction, seed=config.data_seed)
        except ValueError as error:
            raise ConfigError(f"data {config.data!r}: {error}") from None
    if isinstance(train, ImageFolder):
        side = config.input_size or 224
        return FolderData(train, found.mean, found.std, (3, side, side), source=source)
    return TrainData(train.images, train.labels, found.mean, found.std, train.classes, found.preprocessing, source)
