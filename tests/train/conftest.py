"""One thread for this process, and a fork server that has imported everything."""

from __future__ import annotations

import multiprocessing
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train import runs


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks are slower with more threads, and the last bit of the weights depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def start():
    """Start processes with ``start(target, *arguments)``; at the end those that still run are killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.runs"])
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
            start(target, *arguments, runs.torchrun_environment(port, rank, world, restarts), *more)
            for rank in range(world)
        ]

    return begin


@pytest.fixture
def save_picture():
    """Write a random image of (width, height) to a path, creating its folders."""

    def save(path, size, seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    return save
