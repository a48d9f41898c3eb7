"""Pack a trained network: export it, round it to the grid, and measure what that costs before anything is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import fx, nn

from seedcnn.bundle import Preprocessing, read_bundle
from seedcnn.bundle.delta import write_delta
from seedcnn.convert.filters import convolutions
from seedcnn.errors import ExportError
from seedcnn.evaluate.accuracies import F32, Accuracy, accuracy_of_logits, predict_logits, torch_predictor
from seedcnn.evaluate.equivalence import Equivalence, compare_logits
from seedcnn.export import BundleInfo, OnnxModel, absorbed_norms, fold, load_tensors, to_bundle, to_onnx
from seedcnn.export.bundles import OnGrid, grids_of_step, is_weight
from seedcnn.layers import ConvLayer
from seedcnn.pack.int8 import Int8, Int8Result, quantize_bundle
from seedcnn.pack.measuring import Runtime
from seedcnn.pack.parent import Parent, parent_grids
from seedcnn.pack.search import Candidate, Search, search_grids

__all__ = ["DEFAULT_STEP", "PackResult", "pack", "preprocessing_of"]

DEFAULT_STEP = 1 / 512
INT8_MAX_DROP = 1.0
_EXPORT_TOLERANCE = 1e-4


def preprocessing_of(
    mean: tuple[float, float, float], std: tuple[float, float, float], size: tuple[int, int] = (32, 32)
) -> Preprocessing:
    """Mean and standard deviation (0..1 scale) as the manifest carries them, in units of 1e-8."""
    return Preprocessing(*size, tuple(round(m * 1e8) for m in mean), tuple(round(s * 1e8) for s in std))


@dataclass(frozen=True)
class PackResult:
    """A bundle and what packing did to the network, on ``before.n`` pictures.

    Attributes:
        data: the bundle's bytes.
        before: accuracy of the torch network as it was trained.
        on_grid: accuracy of the torch network with the bundle's weights.
        after: accuracy of the bundle, expanded and run as on a device.
        grid: trained weights against the bundle's weights, both in torch.
        export: torch against the float32 bundle, both with the bundle's weights.
        step: of the weights' grid (the typical one after a search), or None for float32 or a parent's grids.
        weights: values on the grid (or stored as float32 where there is no grid).
        weight_bytes: their coded bytes.
        seeded_values: values that travel as seeds.
        plain: of a converted network the convolutions that are packed as they are, by name; () of any other.
        int8: what int8 did, or None for a float32 graph.
        tried: the grids that a search tried, the finest first.
        delta: from the parent, or None.
        learned: the tensors that travel, before rounding.
    """

    data: bytes
    before: Accuracy
    on_grid: Accuracy
    after: Accuracy
    grid: Equivalence
    export: Equivalence
    step: float | None
    weights: int
    weight_bytes: int
    seeded_values: int
    plain: tuple[str, ...] = ()
    int8: Int8Result | None = None
    tried: tuple[Candidate, ...] = ()
    delta: bytes | None = None
    learned: Mapping[str, F32] = field(default_factory=dict, repr=False)

    @property
    def drop(self) -> float:
        """Accuracy lost from the trained network to the bundle, in percentage points."""
        return self.before.top1 - self.after.top1

    @property
    def bits_per_weight(self) -> float:
        """Coded bits for each weight."""
        return 8 * self.weight_bytes / max(self.weights, 1)


@dataclass(frozen=True)
class _Coding:
    """What the caller asked for."""

    step: float | None
    search: Search | None
    parent: Parent | None
    compression: str


def _grids(
    coding: _Coding, folded: fx.GraphModule, exported: OnnxModel, rule: Preprocessing, runtime: Runtime
) -> tuple[dict[str, OnGrid], tuple[Candidate, ...]]:
    if coding.parent is not None:
        return parent_grids(coding.parent, folded, exported, rule), ()
    if coding.search is not None:
        return search_grids(folded, exported, rule, coding.search, runtime, coding.compression)
    return ({} if coding.step is None else grids_of_step(exported.tensors, coding.step, exported.divisors)), ()


def _export(
    model: nn.Module,
    info: BundleInfo,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    coding: _Coding,
    target: str,
    runtime: Runtime,
) -> tuple[PackResult, OnnxModel, F32, dict[str, OnGrid]]:
    """The float32 bundle and what it costs, its graph, its logits [N, classes], and the grids."""
    rule = info.preprocessing
    mean, std = ([v * 1e-8 for v in values] for values in (rule.mean_e8, rule.std_e8))
    absorb = None if coding.parent is None else absorbed_norms(coding.parent.bundle.graph())
    folded = fold(model, target=target, absorb=absorb)
    exported = to_onnx(folded, (3, rule.height, rule.width))
    grids, tried = _grids(coding, folded, exported, rule, runtime)
    data = to_bundle(exported, info, grids=grids, libraries=runtime.libraries, compression=coding.compression)
    bundle = read_bundle(data)
    load_tensors(folded, bundle.tensors())
    predictors = (torch_predictor(model, mean, std), torch_predictor(folded, mean, std), runtime.predictor(bundle))
    trained, rounded, shipped = (predict_logits(predict, images) for predict in predictors)
    export = compare_logits(rounded, shipped)
    if export.max_rel > _EXPORT_TOLERANCE:
        raise ExportError(
            f"the bundle differs from the torch network by {export.max_rel:.1e} of the largest logit; "
            f"at most {_EXPORT_TOLERANCE:.0e} is accepted"
        )
    weights = [entry for entry in bundle.manifest.tensors if entry.seeded is None and is_weight(entry.shape)]
    result = PackResult(
        data=data,
        before=accuracy_of_logits(trained, labels),
        on_grid=accuracy_of_logits(rounded, labels),
        after=accuracy_of_logits(shipped, labels),
        grid=compare_logits(trained, rounded),
        export=export,
        step=max((each.step for each in tried if each.accepted), default=coding.step),
        weights=sum(e.elements for e in weights),
        weight_bytes=sum(len(bundle.payloads[e.name].data) for e in weights),
        seeded_values=sum(e.elements for e in bundle.manifest.tensors if e.seeded is not None),
        tried=tried,
        learned=exported.tensors,
        delta=None
        if coding.parent is None
        else write_delta(coding.parent.bundle, bundle, compression=coding.compression),
    )
    return result, exported, shipped, grids


def _check_finite(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if bad := int((~value.isfinite()).sum()) if value.is_floating_point() else 0:
            raise ExportError(f"{name} holds {bad} values that are not finite; such a network is not packed")


def _plain(model: nn.Module) -> tuple[str, ...]:
    found = list(convolutions(model))
    names = tuple(name for name, module, _ in found if not isinstance(module, ConvLayer))
    return names if len(names) < len(found) else ()


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
    compression: str = "zstd",
) -> PackResult:
    """Fold, export, code and measure.

    Args:
        model: a trained network.
        images, labels: uint8 [N, H, W, 3] and int64 [N]; what the accuracy change is measured on.
        step: one grid step for all folded weights; None keeps float32. What remains per channel has 16-bit grids of its
            own, so fine that they cost nothing.
        search: find the steps instead, see :func:`seedcnn.pack.search.search_grids`.
        parent: take the grids of this bundle instead, and make a delta from it.
        max_drop: largest accepted accuracy drop in percentage points; None accepts any, and reports it (with ``int8``
            None stands for 1).
        threads: of the runtime while accuracy is measured; latency is measured on one.
        target: the runtime's form, see :func:`seedcnn.export.fold`; accuracy and latency are measured in OpenVINO for
            "openvino", else in ONNX Runtime.
        libraries: for "onnxruntime-custom-op", see :mod:`seedcnn.runtime.custom_op`.
        int8: quantise the convolutions, see :func:`seedcnn.export.quantize.quantize`; None keeps float32.
        compression: "zstd", or "zlib" or "xz" for devices without it.

    Raises:
        ValueError: if there is no such target, or the calibration pictures do not fit.
        ExportError: if a weight is not finite, the bundle does not answer as the torch network with the same weights
            does (1e-4 of the largest logit), the accuracy drop is over ``max_drop``, no grid of the search is good
            enough, or int8 is slower than float32 and not forced.
        BundleError: if a weight does not fit the grid, a library is needed and not given, or the
            parent is of another architecture.
    """
    _check_finite(model)
    if parent is not None or search is not None:
        step = None
    runtime = Runtime("openvino" if target == "openvino" else "onnxruntime", threads, tuple(libraries))
    coding = _Coding(step, search, parent, compression)
    result, exported, shipped, grids = _export(model, info, images, labels, coding, target, runtime)
    result = replace(result, plain=_plain(model))
    if int8 is not None:
        max_drop = INT8_MAX_DROP if max_drop is None else max_drop
        data, answers, found = quantize_bundle(
            result.data, exported, shipped, info, grids, images, int8, runtime, compression
        )
        result = replace(result, data=data, after=accuracy_of_logits(answers, labels), int8=found)
    if max_drop is not None and result.drop > max_drop:
        what, remedy = (f"a grid step of {result.step}", "a finer step") if int8 is None else ("int8", "float32")
        raise ExportError(
            f"{what} costs {result.drop:.2f} points ({result.before.top1:.2f} -> "
            f"{result.after.top1:.2f} % on {len(images)} pictures); at most {max_drop} is accepted: use {remedy}"
        )
    if result.int8 is not None and int8 is not None and not int8.force:
        result.int8.require_faster()
    return result
