"""Peak memory of a training step, measured in its own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing, nn
from torch.nn import functional as F

from seedcnn.evaluate.benchmark import TRAINING_MODES

__all__ = ["peak_training_memory"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # resets VmHWM; see proc(5)


def _status(field: str) -> int:
    """Read a size of this process in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def _measure(writer: Any, model: nn.Module, size: tuple[int, int, int], batch: int, mode: str) -> None:
    torch.set_num_threads(1)
    layout = torch.channels_last if mode.endswith("channels_last") else torch.contiguous_format
    model = model.train().to(memory_format=layout)  # type: ignore[call-overload]
    images = torch.randn(batch, *size).contiguous(memory_format=layout)
    with torch.no_grad():
        classes = model.eval()(images[:1]).shape[1]
    model.train()
    labels = torch.randint(classes, (batch,))
    if mode.startswith("compile"):
        torch.compile(nn.Linear(1, 1))(torch.zeros(1, 1))  # loads the compiler, which is not part of the step
    before = _status("VmRSS")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    called = torch.compile(model) if mode.startswith("compile") else model
    for index in range(2):
        if index:  # the first step compiled and created the optimizer's state
            _CLEAR.write_text(_RESET_PEAK)
        F.cross_entropy(called(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    writer.send(_status("VmHWM") - before)


def peak_training_memory(model: nn.Module, input_size: tuple[int, int, int], *, batch: int, mode: str = "eager") -> int:
    """Measure the peak bytes of a training step (forward, cross entropy, backward, SGD with momentum) on the CPU.

    A new process loads the network and the images and runs two steps; the result is its largest resident size during
    the second one, minus its size before the first: activations, gradients, the optimizer's state, the kernels' working
    memory, and memory that the allocator keeps.

    Args:
        model: a classifier, which is not changed.
        input_size: channels, height, width.
        batch: images per step.
        mode: one of :data:`seedcnn.evaluate.benchmark.TRAINING_MODES`.

    Raises:
        ValueError: if ``mode`` is unknown or ``batch`` not positive.
        RuntimeError: if the system does not report peak memory (only Linux does), or the process dies.
    """
    if mode not in TRAINING_MODES or batch < 1:
        raise ValueError(f"`mode` (={mode!r}) must be one of {', '.join(TRAINING_MODES)}, `batch` (={batch}) positive")
    if not _CLEAR.exists():
        raise RuntimeError("measuring the peak memory of a step needs /proc/self/clear_refs, which does not exist")
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(writer, model, input_size, batch, mode))
    process.start()
    writer.close()
    try:
        return int(reader.recv())
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that measured memory exited with code {process.exitcode}") from None
    finally:
        process.join()
