"""Fixtures for every room."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.errors import DataError

# A slow or busy machine is no failure.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def cifar10() -> Cifar10:
    """The real CIFAR-10, downloaded once into the user's cache (139 MB)."""
    try:
        return load_cifar10()
    except DataError as error:
        pytest.skip(f"CIFAR-10 could not be had: {error}")


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fill memory that torch allocates without values with NaN and the largest integers, so that a gap cannot hide.

    The same switch makes torch refuse operations that are not deterministic.
    """
    settings = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(settings[0])
    torch.utils.deterministic.fill_uninitialized_memory = settings[1]


@pytest.fixture(autouse=True)
def cores_stay_ours() -> Iterator[None]:
    """Undo the pinning to one core of commands that measure, for the tests that follow in this process."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session", autouse=True)
def operators_are_read_once() -> Iterator[None]:
    """Keep torch's table of ONNX operators for the next export of this process.

    torch reads it from the sources of 500 functions at every export, which takes 0.4 s: more than the export of a small
    network itself. The table is the same each time.
    """
    if "torch" not in sys.modules:  # no test of this session exports
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(autouse=True)
def child_signals() -> Iterator[None]:
    """Take back the handler of SIGCHLD that torch's DataLoader leaves behind.

    With it the end of any later child process interrupts native code, and where a runtime has left a signal stack that
    is too small for the processor's registers, the kernel ends the process.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture(scope="session")
def start():
    """Start processes with ``start(target, *arguments)``; at the end those that still run are killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.runs", "tests.evaluate.shared"])
    started = []

    def begin(target, *arguments):
        process = context.Process(target=target, args=arguments)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


@pytest.fixture
def start_group(start):
    """Start the processes of a run like torchrun: ``start_group(world, target, path, config, options)``."""

    def begin(world, target, *arguments, options=None, restarts=0):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        more = () if options is None else (options,)
        return [
            start(target, *arguments, torchrun_environment(port, rank, world, restarts), *more) for rank in range(world)
        ]

    return begin


def torchrun_environment(store, rank, world, restarts=0):
    """The environment that torchrun sets for a process; ``store`` is the port of the first process."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "TORCHELASTIC_RESTART_COUNT": restarts}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store, "TORCHELASTIC_RUN_ID": "test"}
    return {name: str(value) for name, value in names.items()}


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch until the module ends, as in torchrun's processes: last bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
