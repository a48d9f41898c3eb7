"""Packing a trained network: export it, round it to the grid, and measure the accuracy of what is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from seedcnn.arrays import F32, I16
from seedcnn.bundle import Bundle, Measured, Preprocessing, read_bundle, with_accuracy
from seedcnn.bundle.delta import write_delta
from seedcnn.bundle.integers import stored_size
from seedcnn.convert.filters import convolutions
from seedcnn.convert.given import unwrapped
from seedcnn.errors import ExportError
from seedcnn.evaluate import (
    Accuracy,
    Equivalence,
    Predict,
    accuracy_of_logits,
    compare_logits,
    predict_logits,
    torch_predictor,
)
from seedcnn.export import BundleInfo, OnnxModel, absorbed_norms, fold, load_tensors, to_bundle, to_onnx
from seedcnn.export.bundles import OnGrid, grids_of_step, is_weight
from seedcnn.export.norm_sites import NormSites
from seedcnn.layers import ConvLayer
from seedcnn.messages import Advance, Say
from seedcnn.pack.int8 import Int8, Int8Result, quantize_bundle
from seedcnn.pack.measuring import Expanded, Runtime
from seedcnn.pack.memory import Activations, Memory
from seedcnn.pack.norms import adapts_of, check_adaptable, norms_to_pack
from seedcnn.pack.parent import Parent, check_follows, check_kind, parent_grids
from seedcnn.pack.result import PackResult
from seedcnn.pack.search import Candidate, Search, search_grids
from seedcnn.pack.stopwatch import Stopwatch
from seedcnn.pack.trained import trained_grids
from seedcnn.rng import random_bytes
from seedcnn.runtime.session import preprocess

__all__ = ["DEFAULT_STEP", "pack", "preprocessing_of"]

DEFAULT_STEP = 1 / 512
INT8_MAX_DROP = 1.0
_EXPORT_TOLERANCE = 1e-4
_COMPARED, _NOISE = 256, 16  # images and noise images that the network and its folded form are compared on
_PIXELS, _FEWEST = 96 * 96, 32  # of larger images fewer are compared, but not fewer than this number
_NOISE_SEED = 0x5EEDF01D


def preprocessing_of(mean: Sequence[float], std: Sequence[float], size: tuple[int, int] = (32, 32)) -> Preprocessing:
    """The rule for images of one size, as those of CIFAR-10: no other is taken. Mean and std are on the 0..1 scale."""
    return Preprocessing.exact((size[0], size[1]), channels=len(mean), mean=mean, std=std)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """The options of :func:`pack`, and the runtime to measure in."""

    info: BundleInfo
    step: float | None
    search: Search | None
    parent: Parent | None
    max_drop: float | None
    int8: Int8 | None
    target: str
    compression: str
    runtime: Runtime
    memory: Memory
    watch: Stopwatch
    steps: Mapping[str, float]
    original: nn.Module | None
    adaptable: bool

    def __post_init__(self) -> None:
        """Refuse options that cannot work together, before any work is done."""
        if self.steps and self.search is not None:
            raise ValueError("`search` contradicts `grid_steps`: the network was trained on its grid")
        if self.parent is not None:
            check_kind(self.parent.bundle, self.int8 is not None)
            names = ("release", "family", "model", "preprocessing")
            facts = {name: getattr(self.info, name) for name in names} | {"labels": tuple(self.info.labels)}
            check_follows(self.parent.bundle, **facts)
        if self.adaptable:
            check_adaptable(self.target, self.parent, int8=self.int8 is not None)
        images = None if self.int8 is None else self.int8.calibration
        if self.int8 is not None and self.parent is None and images is None:
            raise ValueError("`int8.calibration` is None; only the child of an int8 parent needs no images")
        if self.parent is not None and images is not None:
            raise ValueError(
                f"`int8.calibration` holds {len(images)} images; leave it out: the child of an int8 parent keeps its "
                "parent's ranges"
            )

    @property
    def most(self) -> float | None:
        """The largest accepted drop; int8 always has a bound, the search's if there is a search."""
        if self.max_drop is not None or self.int8 is None:
            return self.max_drop
        return INT8_MAX_DROP if self.search is None else self.search.max_drop

    def grids(
        self, model: nn.Module, folded: fx.GraphModule, exported: OnnxModel
    ) -> tuple[dict[str, OnGrid], tuple[Candidate, ...]]:
        """The grids by tensor, and what a search tried."""
        rule = self.info.preprocessing
        if self.steps:
            parent = None if self.parent is None else self.parent.bundle
            return trained_grids(unwrapped(model), self.steps, exported, parent)[0], ()
        if self.parent is not None:
            with self.watch("following the parent's grid") as advance:
                return parent_grids(self.parent, folded, exported, rule, self.memory, advance), ()
        if self.search is not None:
            how = (self.search, self.runtime, self.compression, self.memory, self.watch)
            return search_grids(folded, exported, rule, *how)
        return ({} if self.step is None else grids_of_step(exported.tensors, self.step, exported.divisors)), ()


@dataclass(frozen=True, eq=False)
class _Float32:
    """The float32 bundle and what it was made from; ``folded`` has the bundle's weights, ``compared`` holds images to
    compare forms of the network on, and ``at_once`` is the number of images that fit into memory."""

    folded: fx.GraphModule
    exported: OnnxModel
    grids: dict[str, OnGrid]
    tried: tuple[Candidate, ...]
    opened: Expanded
    compared: npt.NDArray[np.uint8]
    at_once: int
    norms: NormSites | None = None


def _compared(images: npt.NDArray[np.uint8], rule: Preprocessing) -> npt.NDArray[np.uint8]:
    """Images to compare two forms of a network on: some of the images, evenly spread, and noise."""
    shape = (_NOISE, *images.shape[1:])
    noise = random_bytes(_NOISE_SEED, tensor_id=0, count=int(np.prod(shape))).reshape(shape)
    count = max(_FEWEST, min(_COMPARED, _COMPARED * _PIXELS // (rule.height * rule.width)))
    return np.concatenate([images[:: max(1, -(-len(images) // count))], noise])


def _export(model: nn.Module, wanted: _Wanted, images: npt.NDArray[np.uint8]) -> _Float32:
    rule, runtime, watch = wanted.info.preprocessing, wanted.runtime, wanted.watch
    absorb = None if wanted.parent is None else absorbed_norms(wanted.parent.bundle.graph())
    some = _compared(images, rule)
    with watch("folding and comparing"):
        folded = fold(model, target=wanted.target, absorb=absorb, check=torch.from_numpy(preprocess(some, rule)))
        at_once = wanted.memory.at_once(Activations.of(folded, rule.shape).forward)
    with watch("exporting"):
        exported = to_onnx(folded, rule.shape)
    norms, grid = norms_to_pack(folded, exported, rule, wanted.parent, wanted.adaptable)
    grids, tried = wanted.grids(model, folded, exported)
    compression = wanted.compression
    with watch("coding"):
        data = to_bundle(
            exported,
            wanted.info,
            grids=grids,
            libraries=runtime.libraries,
            compression=compression,
            norms=norms,
            norms_grid=grid,
        )
        opened = runtime.expand(data)
        load_tensors(folded, opened.tensors, exported.constants)
    return _Float32(folded, exported, grids, tried, opened, some, at_once, norms)


def _watched(predict: Predict, advance: Advance) -> Predict:
    """The same answers, and a step of progress for each image."""

    def answer(images: npt.NDArray[np.uint8]) -> F32:
        found = predict(images)
        advance(len(images))
        return found

    return answer


def _ask(
    model: nn.Module, exact: _Float32, wanted: _Wanted, images: npt.NDArray[np.uint8]
) -> tuple[F32, F32, Equivalence]:
    """Logits [N, classes] of the trained network and of the bundle, and how far its folded form with the bundle's
    weights and the bundle differ on some images.

    Raises:
        ExportError: if they differ.
    """
    rule, at_once = wanted.info.preprocessing, exact.at_once
    mean, std = ([v * 1e-8 for v in values] for values in (rule.mean_e8, rule.std_e8))
    some = exact.compared
    rounded = predict_logits(torch_predictor(exact.folded, mean, std), some, at_once)
    differ = compare_logits(rounded, predict_logits(exact.opened.predict, some, at_once))
    if differ.max_rel > _EXPORT_TOLERANCE:
        raise ExportError(
            f"the bundle differs from the torch network by {differ.max_rel:.1e} of the largest logit; "
            f"at most {_EXPORT_TOLERANCE:.0e} is accepted"
        )
    with wanted.watch("accuracy before packing", len(images)) as advance:
        trained = predict_logits(_watched(torch_predictor(model, mean, std), advance), images, at_once)
    with wanted.watch("accuracy of the bundle", len(images)) as advance:
        answers = predict_logits(_watched(exact.opened.predict, advance), images, at_once)
    return trained, answers, differ


def _quantized(
    exact: _Float32, answers: F32, wanted: _Wanted, int8: Int8, images: npt.NDArray[np.uint8]
) -> tuple[Expanded, F32, Int8Result]:
    """The int8 bundle, its logits [N, classes], and its comparison with the float32 bundle's ``answers``."""
    shipped = quantize_bundle(
        exact.opened,
        exact.exported,
        wanted.info,
        exact.grids,
        images[:1] if int8.calibration is None else int8.calibration,
        wanted.runtime,
        None if wanted.parent is None else wanted.parent.bundle,
        wanted.compression,
    )
    logits = predict_logits(shipped.predict, images, exact.at_once)
    before, after = wanted.runtime.latencies((exact.opened, shipped), images[:1], int8.rounds)
    count = 0 if int8.calibration is None else len(int8.calibration)
    return shipped, logits, Int8Result(wanted.runtime.name, count, compare_logits(answers, logits), before, after)


def _check_drop(before: Accuracy, after: Accuracy, wanted: _Wanted, step: float | None) -> None:
    if wanted.most is None or (drop := before.top1 - after.top1) <= wanted.most:
        return
    what, remedy = f"a grid step of {step}", "use a finer step"
    if wanted.int8 is not None:
        what, remedy = "int8", "use float32"
    elif wanted.parent is not None:
        what, remedy = "the parent's grid", "use a lower price, or pack without a parent"
    raise ExportError(
        f"{what} costs {drop:.2f} points ({before.top1:.2f} -> {after.top1:.2f} % on {before.n} images); "
        f"at most {wanted.most} is accepted: {remedy}"
    )


def _check_finite(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if bad := int((~value.isfinite()).sum()) if value.is_floating_point() else 0:
            raise ExportError(f"{name} holds {bad} values that are not finite; only finite weights can be packed")


def _weight_bytes(bundle: Bundle, compression: str) -> int:
    """Bytes of the weights alone, stored as in the bundle."""
    integers: dict[str, I16] = {}
    bundle.unscaled(integers)
    weights = [entry for entry in bundle.manifest.tensors if entry.seeded is None and is_weight(entry.shape)]
    raw = sum(4 * entry.elements for entry in weights if entry.grid is None)
    return raw + stored_size([integers[entry.name] for entry in weights if entry.grid is not None], compression)


def _plain(model: nn.Module) -> tuple[str, ...]:
    found = list(convolutions(model))
    names = tuple(name for name, module, _ in found if not isinstance(module, ConvLayer))
    return names if len(names) < len(found) else ()


def _pack(
    model: nn.Module, wanted: _Wanted, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> PackResult:
    _check_finite(model)
    exact = _export(model, wanted, images)
    trained, answers, export = _ask(wanted.original or model, exact, wanted, images)
    shipped, logits, int8 = exact.opened, answers, None
    if wanted.int8 is not None:
        shipped, logits, int8 = _quantized(exact, answers, wanted, wanted.int8, images)
    before, after = accuracy_of_logits(trained, labels), accuracy_of_logits(logits, labels)
    step = max((each.step for each in exact.tried if each.accepted), default=wanted.step)
    _check_drop(before, after, wanted, step)
    if wanted.int8 is not None and int8 is not None and not wanted.int8.force:
        int8.require_faster()
    data = with_accuracy(shipped.bundle, Measured(wanted.info.data, int(after.correct.sum()), after.n))
    delta = None
    if wanted.parent is not None:
        delta = write_delta(wanted.parent.bundle, read_bundle(data), compression=wanted.compression)
    tensors = shipped.bundle.manifest.tensors
    weights = [entry for entry in tensors if entry.seeded is None and is_weight(entry.shape)]
    return PackResult(
        data=data,
        before=before,
        on_grid=accuracy_of_logits(answers, labels),
        after=after,
        grid=compare_logits(trained, answers),
        export=export,
        step=step,
        weights=sum(entry.elements for entry in weights),
        weight_bytes=_weight_bytes(shipped.bundle, wanted.compression),
        seeded_values=sum(entry.elements for entry in tensors if entry.seeded is not None),
        plain=_plain(model),
        int8=int8,
        tried=exact.tried,
        delta=delta,
        learned=exact.exported.tensors,
        seconds=wanted.watch.seconds,
        trained=bool(wanted.steps),
        adapts=None if exact.norms is None else adapts_of(shipped.bundle, exact.norms),
    )


def pack(
    model: nn.Module,
    info: BundleInfo,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    step: float | None = DEFAULT_STEP,
    search: Search | None = None,
    parent: Parent | None = None,
    max_drop: float | None = None,
    threads: int = 1,
    target: str = "onnxruntime",
    libraries: Sequence[Path] = (),
    int8: Int8 | None = None,
    compression: str = "entropy",
    memory: str | None = None,
    grid_steps: Mapping[str, float] | None = None,
    original: nn.Module | None = None,
    adaptable: bool = False,
    progress: Say | None = None,
) -> PackResult:
    """Fold, export and code a network, and measure what that costs.

    Args:
        model: a trained network, also inside a wrapper of ``torch.compile``, DataParallel or DistributedDataParallel.
        images, labels: uint8 [N, H, W, 3] and int64 [N], the test images that accuracy is measured on.
        step: one grid step for all folded weights; None keeps float32. Per-channel tensors get 16-bit grids of their
            own, so fine that they cost no accuracy.
        search: find the steps instead, see :func:`seedcnn.pack.search.search_grids`.
        parent: take the grids of this bundle instead, and make a delta that leads from it to the result.
        max_drop: largest accepted accuracy drop in percentage points. None accepts any drop and reports it; with
            ``int8``, None means the search's bound, or 1 if there is no search.
        threads: threads of the runtime while accuracy is measured; latency is measured on one.
        target: form of the graph, see :func:`seedcnn.export.fold`; measured in OpenVINO or else in ONNX Runtime.
        libraries: the fused operator for "onnxruntime-custom-op", see :mod:`seedcnn.runtime.custom_op`.
        int8: quantise the convolutions, see :func:`seedcnn.export.quantize.quantize`; None keeps float32.
        compression: of the integers, one of :data:`seedcnn.bundle.compression.STORAGES`: "entropy" is the smallest.
        memory: a limit for the memory of this process, such as "2GB", which is the default: it decides how many images
            are answered at a time and how many layers' statistics are held, not what importing and exporting take.
        grid_steps: name of a weight -> step of the grid that it was trained on (``Checkpoint.steps``), instead of
            ``step`` and ``search``; each output channel then has a scale of its own (:mod:`seedcnn.pack.trained`).
        adaptable: let devices give the norms statistics of their own; a child is adaptable if its parent is.
        original: the network to compare the bundle with, if ``model`` was made from it by training on the grid.
        progress: told about each stage; a :class:`seedcnn.progress.Progress` shows bars.

    Raises:
        ConfigError: if the memory does not hold the activations of one image, or the process holds more already.
        ValueError: if there is no such target, options contradict, or calibration images have the wrong size or type.
        ExportError: if a weight is not finite, the network cannot be folded, its folded form answers differently
            (:func:`seedcnn.export.checking.check_folded`), the bundle and the torch network with the bundle's weights
            differ by more than 1e-4 of the largest logit, the accuracy drop is over ``max_drop``, no grid of the search
            is good enough, int8 is not faster than float32 and not forced, or no norm can be made adaptable.
        BundleError: if a weight does not fit the grid, a library is needed and not given, or no delta can lead from the
            parent to this network, because its architecture differs or only one of the two is int8.
    """
    runtime = Runtime("openvino" if target == "openvino" else "onnxruntime", threads, tuple(libraries))
    step = step if parent is None and search is None and not grid_steps else None
    how = (runtime, Memory.of(memory), Stopwatch(progress), grid_steps or {}, original, adaptable)
    wanted = _Wanted(info, step, search, parent, max_drop, int8, target, compression, *how)
    return _pack(unwrapped(model), wanted, images, labels)
