"""The batches of an epoch of reduced sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from seedcnn.errors import TrainingError
from seedcnn.sampling.theory import Number, batches, full_batches, positive, short_batch

__all__ = ["ReducedBatchSampler"]


class ReducedBatchSampler(Sampler[list[int]]):
    """Batches of indices for ``DataLoader(dataset, batch_sampler=...)``; an epoch of a smaller ratio has fewer of them.

    The order depends only on (seed, epoch), so a resumed run draws the same batches. With several processes a step
    takes ``batch_size * world_size`` images, the same ones that a single process would take in one batch of that size.
    All processes have the same number of batches, of the same sizes, and no image comes twice in an epoch. The
    processes share an incomplete last step equally, which leaves out up to ``world_size - 1`` images.

    Call :meth:`set_epoch` before every epoch except the first.

    Args:
        samples: images in the data set.
        batch_size: images in a batch of this process.
        ratios: the ratio of each epoch, from :meth:`SamplingConfig.ratios`; ``[1] * epochs`` for all images.
        seed: of the order, in [0, 2**64).
        rank, world_size: this process and the number of processes.
        drop_last: leave out the incomplete last batch of an epoch of ratio 1.

    Raises:
        TypeError, ValueError: naming the argument, its value and the rule; also if an epoch would have no batch.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        ratios: Sequence[Number],
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if not len(ratios):
            raise ValueError("`ratios` must hold at least one epoch")
        if positive("seed", seed, 0) >= 2**64:
            raise ValueError(f"`seed` (={seed}) must be in [0, 2**64)")
        place = (samples, batch_size, drop_last, world_size)
        self._full, self._short = full_batches(*place), short_batch(*place)
        if positive("rank", rank, 0) >= world_size:
            raise ValueError(f"`rank` (={rank}) must be below `world_size` (={world_size})")
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.batches_per_epoch = [batches(samples, batch_size, ratio, drop_last, world_size) for ratio in ratios]
        self._epoch, self._drawn = 0, False

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration draws.

        Raises:
            ValueError: if the schedule has no such epoch.
        """
        if positive("epoch", epoch, 0) >= len(self.batches_per_epoch):
            count = len(self.batches_per_epoch)
            raise ValueError(f"`epoch` (={epoch}) must be below the {count} epochs of the schedule")
        self._epoch, self._drawn = epoch, False

    def __len__(self) -> int:
        """Number of batches of this process in the chosen epoch."""
        return self.batches_per_epoch[self._epoch]

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the chosen epoch.

        Raises:
            TrainingError: if this epoch was already drawn; its images would come a second time.
        """
        epoch = self._epoch
        if self._drawn:
            raise TrainingError(f"epoch {epoch} of the sampling schedule was drawn already; call set_epoch first")
        self._drawn = True  # at the first batch, because a DataLoader with workers makes two iterators and uses one
        words = np.random.Philox(key=np.array([self.seed, epoch], np.uint64)).random_raw(self.samples)
        order = np.argsort(words, kind="stable")
        step = self.batch_size * self.world_size
        for index in range(self.batches_per_epoch[epoch]):
            size = self._short if index + 1 == self._full else self.batch_size
            taken = order[index * step : index * step + size * self.world_size]
            yield taken[self.rank :: self.world_size].tolist()
