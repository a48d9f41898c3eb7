"""A network in a runtime as a callable to be timed: eager or compiled torch, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seedcnn.arrays import F32
from seedcnn.convert import reestimate_batchnorm_
from seedcnn.convert.copies import copy_model
from seedcnn.errors import BundleError, ExportError
from seedcnn.export import TARGETS, OnnxModel, fold, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.export.onnx_graphs import INPUT, OUTPUT
from seedcnn.export.together import to_onnx_together
from seedcnn.runtime.custom_op import built
from seedcnn.runtime.session import SessionOptions, open_session

__all__ = ["RUNNERS", "Runner", "runner", "runners", "settled"]


RUNNERS = ("torch", "torch-compile", "onnxruntime", "onnxruntime-custom-op", "openvino")
"""Where a network can run: folded in eager torch, folded and compiled, exported to ONNX Runtime (with or without the
fused operator of :mod:`seedcnn.runtime.custom_op`, which is built when it is first needed), or exported to OpenVINO."""

_LIMIT, _LARGEST_LIMIT, _ROUNDINGS = 1e-4, 1e-2, 4


@dataclass(frozen=True)
class Runner:
    """A network ready to answer.

    Attributes:
        run: float32 [N, c, H, W] to float32 logits [N, ...].
        load_s: seconds from the exported network in memory to a session; for torch, of folding and compilation.
        error: largest difference from the eager network in float64 on the example, over that network's largest logit.
        size: bytes of the network's learned tensors as float32 plus those of its graph.
    """

    run: Callable[[F32], F32]
    load_s: float
    error: float
    size: int


def settled(model: nn.Module, input_size: tuple[int, int, int], *, passes: int = 3) -> nn.Module:
    """A copy in eval mode whose norms hold running statistics of noise, so that random weights give ordinary numbers.

    Args:
        input_size: channels, height, width.
        passes: number of batches of four noise images.
    """
    model = copy_model(model).float()
    generator = torch.Generator().manual_seed(0)
    reestimate_batchnorm_(model, (torch.randn(4, *input_size, generator=generator) for _ in range(passes)))
    return model.eval()


def _size(example: F32) -> tuple[int, int, int]:
    """Channels, height, width."""
    return example.shape[1], example.shape[2], example.shape[3]


def _torch(model: nn.Module, example: F32, compiled: bool) -> tuple[Callable[[F32], F32], float, int]:
    start = time.perf_counter()
    folded = fold(model, input_size=_size(example))
    size = sum(p.numel() * p.element_size() for p in folded.parameters())
    call: Callable[[torch.Tensor], torch.Tensor] = folded
    if compiled:
        call = torch.compile(folded, options={"freezing": True})

    def run(images: F32) -> F32:
        with torch.inference_mode() if not compiled else torch.no_grad():
            answer: F32 = call(torch.from_numpy(images)).numpy()
        return answer

    if compiled:
        run(example)
    return run, time.perf_counter() - start, size


def _opened(exported: OnnxModel, target: str, threads: int) -> tuple[Callable[[F32], F32], float, int]:
    tensors = {item.entry.name: item.expanded for item in encode_tensors(exported, None)}
    fused = TARGETS[target].operator
    options: SessionOptions = {"libraries": [built()]} if fused else {}
    start = time.perf_counter()
    session = open_session(
        exported.graph, tensors, threads=threads, runtime="onnxruntime" if fused else target, **options
    )
    load = time.perf_counter() - start
    size = len(exported.graph) + sum(tensor.nbytes for tensor in exported.tensors.values())
    return lambda images: session.run([OUTPUT], {INPUT: images})[0], load, size


def _difference(answers: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The largest difference over the largest wanted value."""
    return float(np.abs(answers - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))


def runner(model: nn.Module, example: F32, runtime: str, *, threads: int = 1) -> Runner:
    """Fold a network, load it into a runtime, and check that it is still the same function.

    Args:
        model: a network in eval mode.
        example: float32 [N, c, H, W], which the check and the compilation use.
        runtime: one of :data:`RUNNERS`.
        threads: threads of the runtime; for torch, the caller sets the number for the process.

    Raises:
        ValueError: for an unknown runtime.
        ExportError: if the logits are not finite, or differ from the eager network's in float64 by more than 1e-4 of
            the largest one. Random networks of many sines can be so sensitive that float32 itself differs more; the
            limit is then four times the difference of eager float32, and at most 1e-2.
        BundleError: if the runtime does not accept the graph.
        DeviceError: if the fused operator cannot be built.
    """
    _check_runtime(runtime)
    exported = None
    if runtime in TARGETS:
        exported = to_onnx(fold(model, target=runtime, input_size=_size(example)), _size(example))
    return _checked(model, example, runtime, threads, exported)


def runners(
    models: Mapping[str, tuple[nn.Module, F32]], runtime: str, *, threads: int = 1
) -> Iterator[tuple[str, Runner]]:
    """Export many networks in one call, which saves most of the time that small ones take, then load each.

    Args:
        models: networks in eval mode, with their examples, by name.
        runtime: one of :data:`RUNNERS`.
        threads: threads of the runtime.

    Returns:
        Each network's name and itself in the runtime, in order, loaded and checked as by :func:`runner` when asked for.

    Raises:
        ValueError, ExportError, BundleError, DeviceError: as :func:`runner`; the message names the network.
    """
    _check_runtime(runtime)
    exported: dict[str, OnnxModel] = {}
    if runtime in TARGETS:
        folded = {}
        for name, (model, example) in models.items():
            with _named(name):
                folded[name] = fold(model, target=runtime, input_size=_size(example)), _size(example)
        exported = to_onnx_together(folded)
    return _loaded(models, runtime, threads, exported)


def _loaded(
    models: Mapping[str, tuple[nn.Module, F32]], runtime: str, threads: int, exported: dict[str, OnnxModel]
) -> Iterator[tuple[str, Runner]]:
    for name, (model, example) in models.items():
        with _named(name):
            ready = _checked(model, example, runtime, threads, exported.pop(name, None))
        yield name, ready


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the network in the message of an error."""
    try:
        yield
    except (BundleError, ExportError) as error:
        raise type(error)(f"{name}: {error}") from error


def _check_runtime(runtime: str) -> None:
    if runtime not in RUNNERS:
        raise ValueError(f"`runtime` (={runtime!r}) must be one of {', '.join(map(repr, RUNNERS))}")


def _checked(model: nn.Module, example: F32, runtime: str, threads: int, exported: OnnxModel | None) -> Runner:
    """Return a network in a runtime after comparing it with eager torch; ``exported`` is None for torch itself."""
    with torch.no_grad():
        wanted = copy_model(model).double()(torch.from_numpy(example).double()).numpy()
        rounding = _difference(model(torch.from_numpy(example)).numpy(), wanted)
    limit = min(max(_LIMIT, _ROUNDINGS * rounding), _LARGEST_LIMIT)
    if exported is None:
        run, load, size = _torch(model, example, runtime == "torch-compile")
    else:
        run, load, size = _opened(exported, runtime, threads)
    error = _difference(run(example), wanted)
    if not error <= limit:
        raise ExportError(
            f"in {runtime} the network's logits differ by {error:.1e} of the largest; {limit:.0e} is the limit"
        )
    return Runner(run, load, error, size)
