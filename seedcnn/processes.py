"""The processes of a run that torchrun starts: their devices, what they exchange, and which one writes."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from seedcnn.errors import ConfigError, ProcessError, SeedCNNError, shared

__all__ = ["EXPECTED", "Processes", "alone", "open_processes"]

_T = TypeVar("_T")
EXPECTED = (SeedCNNError, OSError, MemoryError)
"""Errors that a user can cause. One of them in one process becomes the same error in all."""


@dataclass(frozen=True)
class Processes:
    """This process and the other processes of a run. The default is a run of one process on the CPU.

    Attributes:
        device: device of this process.
        rank, world: number of this process, and the number of processes.
        local: number of this process on its machine.
        launched: whether torchrun started the process; torchrun may restart the whole group.
        restarted: whether torchrun has restarted the group because a process died on any machine.
        store: of the group, if there are several processes.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it cannot be changed
    rank: int = 0
    world: int = 1
    local: int = 0
    launched: bool = False
    restarted: bool = False
    store: distributed.Store | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

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
            with _naming_the_lost():
                distributed.all_reduce(value)
        return value

    def gather(self, value: _T) -> list[_T]:
        """The values of all processes, by rank."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            with _naming_the_lost():
                distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in the first process; all return its result, or raise its error if it is :data:`EXPECTED`."""
        if self.world == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except EXPECTED as error:
                answer[1] = _portable(error)
        with _naming_the_lost():
            distributed.broadcast_object_list(answer, src=0)
        value, failure = answer
        if failure is not None:
            raise shared(failure)
        return value

    def everywhere(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in all processes and return its result; an :data:`EXPECTED` error in one is raised in all."""
        if self.world == 1:
            return make()
        made, failure = None, None
        try:
            made = make()
        except EXPECTED as error:
            failure = _portable(error)
        for each in self.gather(failure):
            if each is not None:
                raise shared(each)
        return made  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], _T]) -> _T:
        """As :meth:`everywhere`, first in the first process of each machine, so that the others find what it stores."""
        if self.world == 1:
            return make()
        made = self.everywhere(lambda: None if self.local else make())
        other = self.everywhere(lambda: make() if self.local else None)
        return other if self.local else made  # type: ignore[return-value]

    def share(
        self, sizes: Sequence[int], work: Callable[[int], _T], advance: Callable[[int, int], None] | None = None
    ) -> list[_T]:
        """Do pieces of work, each in a process that is free.

        The pieces are taken in order, one by one, so that a slow process takes fewer. An :data:`EXPECTED` error ends
        the work of all. Of several errors that of the first piece counts, as in a single process.

        Args:
            sizes: one number for each piece: the steps that it counts as in ``advance``.
            work: from the index of a piece to its result, which must not depend on the process.
            advance: called in the first process after each of its pieces, with the steps that all processes have
                done since its last call, and the index of the piece.

        Returns:
            The results of all pieces, in order, in all processes.
        """
        if self.world == 1:
            found = []
            for piece, size in enumerate(sizes):
                found.append(work(piece))
                if advance:
                    advance(size, piece)
            return found
        mine, failure = self._taken(sizes, work, advance if self.first else None)
        told = self.gather((mine, failure))
        failures = [each for _, each in told if each is not None]
        if failures:
            raise shared(min(failures, key=lambda each: each[0])[1])
        whole = {piece: result for results, _ in told for piece, result in results.items()}
        return [whole[piece] for piece in range(len(sizes))]

    def _taken(
        self, sizes: Sequence[int], work: Callable[[int], _T], advance: Callable[[int, int], None] | None
    ) -> tuple[dict[int, _T], tuple[int, BaseException] | None]:
        """The results of the pieces that this process took, and the piece that failed with its error."""
        assert self.store is not None
        counter, mine, shown = f"share/{next(self._numbers)}", {}, 0
        with _naming_the_lost():
            piece = self.store.add(counter, 1) - 1
        while piece < len(sizes):
            try:
                mine[piece] = work(piece)
            except EXPECTED as error:
                with _naming_the_lost():
                    self.store.add(counter, len(sizes))  # nobody takes another one
                return mine, (piece, _portable(error))
            if advance:  # the others work on later pieces, or have done earlier ones
                advance(sum(sizes[shown : piece + 1]), piece)
                shown = piece + 1
            with _naming_the_lost():
                piece = self.store.add(counter, 1) - 1
        if advance and shown < len(sizes):
            advance(sum(sizes[shown:]), len(sizes) - 1)
        return mine, None


@contextmanager
def _naming_the_lost() -> Iterator[None]:
    """Turn the error of an exchange with a process that has ended into a sentence."""
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL and the store
        lost = ProcessError("another process of this run has ended before its work was done; start the run again")
        raise shared(lost) from error


def _portable(error: BaseException) -> BaseException:
    """The error if it survives the way to another process, otherwise one with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SeedCNNError(str(error))
    return error


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
        ProcessError: if a process does not arrive in time.
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
            raise ProcessError(f"processes {sorted(missing)} of {world} did not arrive within {patience:.0f} s")
        for other in missing:
            latest = store.add(f"seedcnn/start/{other}", 0)
            store.set(f"seedcnn/answer/{other}/{latest}", group)
        time.sleep(0.02)
        missing = {other for other in missing if not store.check([f"seedcnn/{group}/{other}"])}
    return group


def _join(backend: str, patience: timedelta | None) -> distributed.Store:
    """Join the group; return its store."""
    store, rank, world = next(distributed.rendezvous("env://"))
    waits = patience or distributed.constants.default_pg_timeout
    group = distributed.PrefixStore(_meet(store, rank, world, waits.total_seconds()), store)
    distributed.init_process_group(backend, store=group, rank=rank, world_size=world, timeout=patience)
    return group


def alone(device: str = "auto") -> Processes:
    """A run of this process only, on its own GPU if there is one, also where torchrun started it beside others.

    Raises:
        ConfigError: if there is no such device.
    """
    return Processes(_device(device, int(os.environ.get("LOCAL_RANK", "0"))))


@contextmanager
def open_processes(device: str = "auto", *, patience: timedelta | None = None) -> Iterator[Processes]:
    """Join the other processes if torchrun started this one (gloo between CPUs, NCCL between GPUs), and leave at exit.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA if it is available.
        patience: how long a process waits for another; None for torch's default, minutes.

    Raises:
        ConfigError: if there is no such device.
        ProcessError: if a process does not arrive in time.
    """
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    world = int(os.environ.get("WORLD_SIZE", "1")) if launched else 1
    rank, local = (int(os.environ[name]) if launched else 0 for name in ("RANK", "LOCAL_RANK"))
    place = _device(device, local)
    restarted = launched and int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0
    store = _join("nccl" if place.type == "cuda" else "gloo", patience) if world > 1 else None
    try:
        mine = Processes(place, rank, world, local, launched, restarted, store)
        # Perhaps only the machine whose process died counts the restart.
        yield replace(mine, restarted=any(mine.gather(restarted)))
    finally:
        if world > 1:
            distributed.destroy_process_group()
