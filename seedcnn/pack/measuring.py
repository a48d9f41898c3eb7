"""Where bundles are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.bundle import Bundle, Preprocessing
from seedcnn.evaluate.accuracies import F32, Predict
from seedcnn.evaluate.predictors import bundle_predictor
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import encode_tensors
from seedcnn.export.onnx_graphs import INPUT, OUTPUT
from seedcnn.latency import Latency, interleave
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.session import SessionOptions, open_session

__all__ = ["Runtime"]


@dataclass(frozen=True)
class Runtime:
    """Where bundles are measured: a name of :data:`seedcnn.runtime.session.RUNTIMES`, threads, operator libraries."""

    name: str
    threads: int
    libraries: tuple[Path, ...]

    def _options(self) -> SessionOptions:
        return {"libraries": self.libraries} if self.libraries else {}

    def predictor(self, bundle: Bundle) -> Predict:
        """The bundle as a callable from pictures to logits."""
        return bundle_predictor(bundle, threads=self.threads, runtime=self.name, **self._options())

    def graph_predictor(self, exported: OnnxModel, rule: Preprocessing) -> Callable[[Mapping[str, F32]], Predict]:
        """A graph that is not packed yet, as a function of its learned tensors."""
        seeded = {each.entry.name: each.expanded for each in encode_tensors(replace(exported, tensors={}))}

        def with_tensors(tensors: Mapping[str, F32]) -> Predict:
            session = open_session(
                exported.graph, {**tensors, **seeded}, threads=self.threads, runtime=self.name, **self._options()
            )
            return Answerer(session, INPUT, OUTPUT, rule).logits

        return with_tensors

    def latencies(self, bundles: Sequence[Bundle], image: npt.NDArray[np.uint8], rounds: int) -> list[Latency]:
        """Of one picture [1, H, W, 3] in each bundle, interleaved in this process, one thread."""
        calls: dict[int, Callable[[], object]] = {}
        for index, bundle in enumerate(bundles):
            session = open_session(bundle.graph(), bundle.tensors(), runtime=self.name, **self._options())
            calls[index] = Answerer.of_manifest(session, bundle.manifest).prepared(image)
        return list(interleave(calls, rounds=rounds, warmup=max(3, rounds // 10), settle=1).values())
