"""Bundles and graphs, run in the target's runtime to be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.bundle import Bundle, Preprocessing, read_bundle
from seedcnn.evaluate import Predict
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import encode_tensors
from seedcnn.export.onnx_graphs import INPUT, OUTPUT
from seedcnn.latency import Latency, interleave
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.session import Session, SessionOptions, open_session

__all__ = ["Expanded", "Runtime"]


@dataclass(frozen=True, eq=False)
class Expanded:
    """A bundle as a device holds it: expanded once, and ready to answer.

    Attributes:
        data: the bundle's bytes.
        bundle: the opened bundle.
        tensors: all its tensors, by name.
        predict: uint8 [N, H, W, 3] to logits [N, classes].
    """

    data: bytes
    bundle: Bundle
    tensors: Mapping[str, F32]
    predict: Predict


@dataclass(frozen=True)
class Runtime:
    """A runtime to measure in: one of :data:`seedcnn.runtime.names.RUNTIMES`, its threads, its operator libraries."""

    name: str
    threads: int
    libraries: tuple[Path, ...]

    def _session(self, graph: bytes, tensors: Mapping[str, F32], threads: int) -> Session:
        options: SessionOptions = {"libraries": self.libraries} if self.libraries else {}
        if self.name == "onnxruntime":
            options["spinning"] = False  # accuracy takes as long, and other work keeps its core
            options["arena"] = False  # several sessions at a time would each keep what their largest batch took
        return open_session(graph, tensors, threads=threads, runtime=self.name, **options)

    def expand(self, data: bytes) -> Expanded:
        """Open a bundle, expand it and build its session; every digest is checked."""
        bundle = read_bundle(data)
        tensors = bundle.tensors()
        session = self._session(bundle.graph(), tensors, self.threads)
        return Expanded(data, bundle, tensors, Answerer.of_manifest(session, bundle.manifest).logits)

    def graph_predictor(self, exported: OnnxModel, rule: Preprocessing) -> Callable[[Mapping[str, F32]], Predict]:
        """Make a predictor of a graph that is not packed yet, given its learned tensors."""
        seeded = {each.entry.name: each.expanded for each in encode_tensors(replace(exported, tensors={}))}

        def with_tensors(tensors: Mapping[str, F32]) -> Predict:
            session = self._session(exported.graph, {**tensors, **seeded}, self.threads)
            return Answerer(session, INPUT, OUTPUT, rule).logits

        return with_tensors

    def latencies(self, bundles: Sequence[Expanded], image: npt.NDArray[np.uint8], rounds: int) -> list[Latency]:
        """Time one image [1, H, W, 3] in each bundle, interleaved in this process, on one thread."""
        calls: dict[int, Callable[[], object]] = {}
        for index, each in enumerate(bundles):
            session = self._session(each.bundle.graph(), each.tensors, 1)
            calls[index] = Answerer.of_manifest(session, each.bundle.manifest).prepared(image)
        return list(interleave(calls, rounds=rounds, warmup=max(3, rounds // 10), settle=1).values())
