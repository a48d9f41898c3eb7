"""The processes of a run, as torchrun starts them: who writes, what is exchanged, on which device."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from seedcnn.errors import ConfigError, SeedCNNError

__all__ = ["Processes", "is_first_process", "open_processes"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        device: of this process.
        rank, world: its number and how many there are.
        launched: by torchrun, which may start the group again.
        restarted: torchrun did so after one of them died.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    launched: bool = False
    restarted: bool = False

    @property
    def first(self) -> bool:
        """The process that writes and shows."""
        return self.rank == 0

    def wrap(self, task: nn.Module) -> nn.Module:
        """``DistributedDataParallel`` where there are several: gradients of learnable tensors are exchanged, no buffer
        is; fixed tensors of seeded layers are neither parameters nor buffers."""
        if self.world == 1:
            return task
        places = [self.device.index] if self.device.type == "cuda" else None
        # torch 2.15 has a new name for it and warns of the old one.
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {sync: False}
        return DistributedDataParallel(task, device_ids=places, **options)

    def add(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def gather(self, value: _T) -> list[_T]:
        """What each process gave, by rank."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in the first process; all get what it returns, or raise the error on purpose that it raises."""
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except SeedCNNError as error:
                answer[1] = error
        if self.world > 1:
            distributed.broadcast_object_list(answer, src=0)
        value, failure = answer
        if failure is not None:
            raise failure
        return value


def _device(wanted: str, local_rank: int) -> torch.device:
    kind = wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"device (={wanted!r}) must be auto, cpu or cuda")
    if kind == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
            "start as many processes as there are GPUs, or use device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def is_first_process() -> bool:
    """Whether this process is the one of its run that shows things, also outside of :func:`open_processes`."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


@contextmanager
def open_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes if torchrun started this one (gloo between CPUs, NCCL between GPUs), and leave them.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA where it is to be had.

    Raises:
        ConfigError: if there is no such device.
    """
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    world = int(os.environ.get("WORLD_SIZE", "1")) if launched else 1
    rank, local_rank = (int(os.environ[name]) if launched else 0 for name in ("RANK", "LOCAL_RANK"))
    place = _device(device, local_rank)
    restarted = launched and int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0
    if world > 1:
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(place, rank, world, launched, restarted)
    finally:
        if world > 1:
            distributed.destroy_process_group()
