"""The processes of a run that torchrun starts: their devices, what they exchange, and which one writes."""

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
    """This process and the other processes of a run.

    Attributes:
        device: device of this process.
        rank, world: number of this process, and the number of processes.
        launched: whether torchrun started the process; torchrun may restart the whole group.
        restarted: whether torchrun has restarted the group because a process died on any machine.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    launched: bool = False
    restarted: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wrap(self, task: nn.Module) -> nn.Module:
        """Wrap a module in ``DistributedDataParallel`` if there are several processes.

        They exchange the gradients of learnable tensors, but no buffers. Fixed tensors of seeded layers are neither
        parameters nor buffers.
        """
        if self.world == 1:
            return task
        places = [self.device.index] if self.device.type == "cuda" else None
        # torch 2.15 renames this argument and warns about the old name.
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {sync: False}
        return DistributedDataParallel(task, device_ids=places, **options)

    def add(self, value: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def gather(self, value: _T) -> list[_T]:
        """The values of all processes, by rank."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in the first process; all processes return its result, or raise its ``SeedCNNError``."""
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
            "start one process per GPU, or use device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def is_first_process() -> bool:
    """Whether this process is the first of its run; it also works outside of :func:`open_processes`."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def _meet(store: distributed.Store, rank: int, world: int, patience: float) -> str:
    """Agree on a name for this start of the group, with which all of its processes find each other in ``store``.

    torchrun keeps one store for all starts of a group, and torch's process groups look up addresses in it under the
    same names at every start. The process that arrives first would find the addresses of dead processes, and hang or
    be refused (seen with torch 2.15). torchrun's restart count is per machine and may differ between machines. Here
    each process counts its own starts in the store. The first process names the group by its own count, and writes the
    name as an answer to the latest start of each other process. Nobody reads an answer to an older start, and a first
    process of an older start can never answer a newer start.

    Args:
        store: the store of torchrun.
        rank, world: number of this process, and the number of processes.
        patience: seconds that the first process waits for the others.

    Returns:
        A prefix for the keys of this start of the group.

    Raises:
        TrainingError: if a process does not arrive in time.
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
            raise TrainingError(f"processes {sorted(missing)} of {world} did not arrive within {patience:.0f} s")
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
    """Join the other processes if torchrun started this one (gloo between CPUs, NCCL between GPUs), and leave at exit.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA if it is available.

    Raises:
        ConfigError: if there is no such device.
        TrainingError: if a process does not arrive in time.
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
        # Perhaps only the machine whose process died counts the restart.
        yield replace(mine, restarted=any(mine.gather(restarted)))
    finally:
        if world > 1:
            distributed.destroy_process_group()
