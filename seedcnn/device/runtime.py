"""A model ready to run: an expanded bundle in a session of ONNX Runtime or OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Unpack

import numpy as np

from seedcnn.arrays import F32, I64, U8
from seedcnn.bundle import Bundle, Preprocessing, open_bundle, read_bundle
from seedcnn.device.choice import current_key, recall, remember
from seedcnn.device.config import read_config
from seedcnn.device.expand import MAX_EXPANDED_BYTES, expand
from seedcnn.device.measure import choose
from seedcnn.device.records import Active
from seedcnn.device.slots import Slots
from seedcnn.errors import BundleError, ImageError, MissingExtraError, SlotError
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.names import AUTO, check_runtime
from seedcnn.runtime.pictures import load_picture
from seedcnn.runtime.session import Session, SessionOptions, open_session

__all__ = ["Answer", "Model", "Predictions", "answer_files", "predictions_of"]

_BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """The best class of each of N images: int64 indices [N], float32 probabilities [N], N labels."""

    indices: I64
    probabilities: F32
    labels: tuple[str, ...]


def predictions_of(logits: F32, labels: Sequence[str]) -> Predictions:
    """Return the best class of each image and its softmax probability.

    Args:
        logits: float32 [N, classes].
        labels: of the classes.
    """
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    best = probabilities.argmax(axis=1)
    chosen = probabilities[np.arange(len(best)), best].astype(np.float32)
    return Predictions(best.astype(np.int64), chosen, tuple(labels[index] for index in best))


@dataclass(frozen=True)
class Answer:
    """The answer to one file: its best class, or why there is none.

    Attributes:
        path: the file.
        index, label, probability: of the best class; -1, "" and 0 if there is an error.
        error: one sentence that names the file; "" if there is an answer.
    """

    path: str
    index: int = -1
    label: str = ""
    probability: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Model:
    """An expanded bundle with its session. ``source`` is "a", "b", "factory" or a path."""

    bundle: Bundle
    session: Session
    source: str

    @classmethod
    def load(
        cls,
        where: str | Path | Slots,
        *,
        threads: int = 1,
        max_bytes: int = MAX_EXPANDED_BYTES,
        runtime: str | None = None,
        active: Active | None = None,
        **options: Unpack[SessionOptions],
    ) -> Model:
        """Open and expand a bundle, and build its session.

        Args:
            where: path of a bundle, or a device's slots, whose active model is loaded.
            active: model of these slots to load instead of the active one.
            threads: threads per inference.
            max_bytes: see :func:`seedcnn.device.expand.expand`.
            runtime: "onnxruntime", "openvino" or "auto". Default: for slots the device's own runtime, in which the
                update tested the model; for a file "onnxruntime".
            options: see :meth:`of_bundle`.

        Raises:
            SlotError: if no slot has a usable model.
            BundleError: if the bundle does not open, expand or run.
            SelfTestError: with "auto", if no runtime passes the canned test vectors.
            MissingExtraError: if the runtime is not installed.
            OSError: if the file cannot be read.
        """
        if not isinstance(where, Slots):
            return cls.of_bundle(
                open_bundle(where),
                str(where),
                threads=threads,
                max_bytes=max_bytes,
                runtime=runtime or "onnxruntime",
                **options,
            )
        runtime = runtime or read_config(where.home).runtime
        active = active or where.active()
        try:
            return cls.of_bundle(
                read_bundle(active.data),
                active.source,
                threads=threads,
                max_bytes=max_bytes,
                runtime=runtime,
                memory=where,
                **options,
            )
        except BundleError as error:
            raise SlotError(f"the model in {active.source} does not open: {error}") from None

    @classmethod
    def of_bundle(
        cls,
        bundle: Bundle,
        source: str,
        *,
        threads: int = 1,
        max_bytes: int = MAX_EXPANDED_BYTES,
        runtime: str = "onnxruntime",
        memory: Slots | None = None,
        **options: Unpack[SessionOptions],
    ) -> Model:
        """Expand an opened bundle and build its session.

        Args:
            runtime: "onnxruntime", "openvino", or "auto" for the faster installed one that passes the canned test
                vectors, measured here unless ``memory`` has the result.
            memory: the device that remembers what "auto" chose; with ``options`` nothing is remembered.
            options: ``arena``, ``spinning`` and ``libraries`` of ONNX Runtime, see
                :func:`seedcnn.runtime.session.open_session`; "auto" passes them to that runtime only.

        Raises:
            BundleError: if it does not expand, or the runtime does not accept it.
            SelfTestError: with "auto", if no runtime passes the canned test vectors.
            MissingExtraError: if the runtime is not installed.
            ValueError: if ``runtime`` is unknown or lacks one of the options.
        """
        check_runtime(runtime, auto=True)
        tensors = expand(bundle, max_bytes=max_bytes)
        if runtime != AUTO:
            return cls(
                bundle, open_session(bundle.graph(), tensors, threads=threads, runtime=runtime, **options), source
            )
        if options:
            memory = None
        known = recall(memory.home, current_key(bundle.sha256, threads)) if memory else None
        if known is not None:
            try:
                session = open_session(bundle.graph(), tensors, threads=threads, runtime=known.runtime)
                return cls(bundle, session, source)
            except (BundleError, MissingExtraError):
                pass  # something has changed since it was chosen, so measure again
        choice, session = choose(bundle, tensors, threads=threads, options=options)
        if memory is not None:
            remember(memory, choice)
        return cls(bundle, session, source)

    def logits(self, images: U8) -> F32:
        """Run images in batches of at most 64.

        Args:
            images: uint8 [N, height, width, channels], of the manifest's size.

        Returns:
            float32 array [N, classes].

        Raises:
            ValueError: if dtype or shape is wrong.
        """
        answerer = Answerer.of_manifest(self.session, self.bundle.manifest)
        parts = [np.zeros((0, len(self.bundle.manifest.labels)), np.float32)]
        parts += [answerer.logits(images[begin : begin + _BATCH]) for begin in range(0, len(images), _BATCH)]
        return np.concatenate(parts)

    def predict(self, images: U8) -> Predictions:
        """Return the best class of each image and its softmax probability.

        Args:
            images: see :meth:`logits`.
        """
        return predictions_of(self.logits(images), self.bundle.manifest.labels)

    def predict_files(self, paths: Iterable[str | Path]) -> Iterator[Answer]:
        """Answer picture files, in order, each prepared by the bundle's rule; a bad file is an answer with an error.

        Args:
            paths: of pictures in a format of :data:`seedcnn.runtime.pictures.FORMATS`.
        """
        yield from answer_files(self.predict, self.bundle.manifest.preprocessing, paths)


def answer_files(
    predict: Callable[[U8], Predictions], rule: Preprocessing, paths: Iterable[str | Path]
) -> Iterator[Answer]:
    """Answer picture files, in order, at most 64 at a time; a bad file is an answer with an error.

    Args:
        predict: from images to their answers.
        rule: by which pictures become images.
        paths: of pictures in a format of :data:`seedcnn.runtime.pictures.FORMATS`.
    """
    remaining = iter(paths)
    while batch := list(islice(remaining, _BATCH)):
        found: list[U8 | str] = []
        for path in batch:
            try:
                found.append(load_picture(path, rule))
            except ImageError as error:
                found.append(str(error))
        good = [picture for picture in found if not isinstance(picture, str)]
        answers = _rows(predict(np.stack(good))) if good else iter(())
        for path, picture in zip(batch, found, strict=True):
            yield Answer(str(path), error=picture) if isinstance(picture, str) else Answer(str(path), *next(answers))


def _rows(found: Predictions) -> Iterator[tuple[int, str, float]]:
    yield from zip(found.indices.tolist(), found.labels, found.probabilities.tolist(), strict=True)
