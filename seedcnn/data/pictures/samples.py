"""Parts of a loader: samples by (epoch, index), their order, and the report of damaged files."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seedcnn.data.image_set import Unreadable
from seedcnn.data.pictures.batches import undecodable
from seedcnn.data.pictures.decoders import open_rgb, why_not
from seedcnn.data.pictures.folder import ImageFolder

__all__ = ["Damaged", "Order", "Pictures", "Sample", "Seeded", "Sound"]

Sample = tuple[Tensor, int] | Unreadable


class Pictures(Dataset[Sample]):
    """Transformed images, addressed by (epoch, index).

    A file that cannot be decoded comes as an ``Unreadable`` sample, not as an exception, so that its name reaches the
    main process from a worker.
    """

    def __init__(self, folder: ImageFolder, transform: Callable[[Image.Image], Tensor], seed: int) -> None:
        self.folder, self.transform, self.seed = folder, transform, seed

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, address: tuple[int, int]) -> Sample:
        epoch, index = address
        name = str(self.folder.names[index])
        try:
            picture = open_rgb(self.folder.root / name)
        except Exception as error:  # Pillow can raise any exception for a damaged file
            return Unreadable(name, why_not(self.folder.root / name, error))
        with Seeded(self.seed, epoch, index):
            return self.transform(picture), int(self.folder.labels[index])


class Seeded:
    """Seeds the global generators that timm's transforms draw from for one image, then restores their states."""

    def __init__(self, *words: int) -> None:
        self._seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1

    def __enter__(self) -> None:
        self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self._seed)
        np.random.seed(self._seed % 2**32)
        # Not torch.manual_seed, which would also seed the accelerators.
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        python, numpy, ours = self._states
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(ours)


class Order(Sampler[tuple[int, int]]):
    """This process's part of an epoch as (epoch, index): in order, or shuffled by raw words of Philox(seed, epoch).

    In training all processes get parts of one length, because they exchange gradients in step; if the images do not
    divide evenly, the first ones of the order come twice. In evaluation each image comes once.
    """

    def __init__(self, size: int, training: bool, seed: int, rank: int, world_size: int) -> None:
        self.size, self.training, self.seed, self.rank, self.world_size = size, training, seed, rank, world_size
        self.epoch = 0

    def __len__(self) -> int:
        if self.training:
            return math.ceil(self.size / self.world_size)
        return len(range(self.rank, self.size, self.world_size))

    def indices(self) -> npt.NDArray[np.int64]:
        """The indices of this process's part of the epoch, int64 [len(self)], in order."""
        order: npt.NDArray[np.int64] = np.arange(self.size)
        if self.training:
            words = np.random.Philox(key=np.array([self.seed, self.epoch], np.uint64)).random_raw(self.size)
            order = np.resize(np.argsort(words, kind="stable"), len(self) * self.world_size)
        return order[self.rank :: self.world_size].copy()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, index) for index in self.indices().tolist()])


@dataclass(frozen=True)
class Damaged:
    """A batch with files that cannot be decoded: these files, and the size of the batch."""

    bad: list[Unreadable]
    total: int


class Sound:
    """The batches of a ``DataLoader``; raises ``DataError``, in the main process, for files no worker could decode."""

    def __init__(self, loader: DataLoader[Sample], folder: ImageFolder) -> None:
        self.loader, self.folder = loader, folder

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            if isinstance(batch, Damaged):
                raise undecodable(batch.bad, batch.total, self.folder.root)
            yield batch
