"""The processes of a run, as torchrun starts them: who writes, what is exchanged, on which device."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from seedcnn.errors import ConfigError, SeedCNNError, TrainingError

__all__ = ["Processes", "is_first_process", "open_processes"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        device: of this process.
        rank, world: its number and how many there are.
        launched: by torchrun, which may start the group again.
        restarted: torchrun did so after one of them died, on whichever machine.
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


def _meet(store: distributed.Store, rank: int, world: int, patience: float) -> str:
    """A name for this group in ``store``, of which every process of this start of the group is sure.

    torchrun keeps one store for all starts of a group, and torch's process groups look up addresses there under names
    that are the same each time: a process that comes first finds the dead ones of the start before, and hangs or is
    refused (seen with torch 2.15). torchrun's count of restarts is of one machine and may differ between them. So each
    process counts its own starts, and the first one, by its count, answers the latest start of each of the others:
    an answer to an older start is read by nobody, and no older first process can answer a newer start.

    Args:
        patience: seconds that the first process waits for the others.

    Raises:
        TrainingError: if a process does not come.
    """
    start = store.add(f"seedcnn/start/{rank}", 1)
    if rank:
        group = store.get(f"seedcnn/answer/{rank}/{start}").decode()
        store.set(f"seedcnn/{group}/{rank}", "")
        return group
    group, missing = f"group{start}", set(range(1, world))
    deadline = time.monotonic() + patience
    while missing:
        if time.monotonic() > deadline:
            raise TrainingError(f"processes {sorted(missing)} of {world} did not come within {patience:.0f} s")
        for other in missing:
            latest = store.add(f"seedcnn/start/{other}", 0)
            store.set(f"seedcnn/answer/{other}/{latest}", group)
        time.sleep(0.02)
        missing = {other for other in missing if not store.check([f"seedcnn/{group}/{other}"])}
    return group


def _join(backend: str) -> None:
    store, rank, world = next(distributed.rendezvous("env://"))
    group = _meet(store, rank, world, distributed.constants.default_pg_timeout.total_seconds())
    distributed.init_process_group(backend, store=distributed.PrefixStore(group, store), rank=rank, world_size=world)


@contextmanager
def open_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes if torchrun started this one (gloo between CPUs, NCCL between GPUs), and leave them.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA where it is to be had.

    Raises:
        ConfigError: if there is no such device.
        TrainingError: if a process does not come.
    """
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    world = int(os.environ.get("WORLD_SIZE", "1")) if launched else 1
    rank, local_rank = (int(os.environ[name]) if launched else 0 for name in ("RANK", "LOCAL_RANK"))
    place = _device(device, local_rank)
    restarted = launched and int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0
    if world > 1:
        _join("nccl" if place.type == "cuda" else "gloo")
    try:
        mine = Processes(place, rank, world, launched, restarted)
        # The machine whose process died may be the only one that counts it.
        yield replace(mine, restarted=any(mine.gather(restarted)))
    finally:
        if world > 1:
            distributed.destroy_process_group()
