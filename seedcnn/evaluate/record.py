"""The record of a robustness evaluation: a JSON file of every answer, from which an interrupted run goes on."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.data.corruptions import CORRUPTIONS
from seedcnn.errors import DataError
from seedcnn.files import lock_file, write_file
from seedcnn.literals import parse_json

__all__ = ["CLEAN", "EvaluationRecord", "exclusive", "pictures_digest"]

FORMAT = "seedcnn-evaluation/1"
CLEAN = "clean"
"""The name of the answers without corruption."""

Bools = npt.NDArray[np.bool_]


def pictures_digest(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> str:
    """SHA-256 of the images' shape and pixels and of the labels, as hexadecimal."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, np.int64).data)
    return digest.hexdigest()


@contextmanager
def exclusive(path: Path | None) -> Iterator[None]:
    """Lock the record ``path`` against other evaluations; None needs no lock.

    Raises:
        DataError: if another evaluation holds the lock, or the directory cannot be written.
    """
    if path is None:
        yield
        return
    beside = path.with_name(f".{path.name}.lock")
    try:
        file = lock_file(beside)
    except BlockingIOError:
        raise DataError(f"record {path} is in use: another evaluation is writing it") from None
    except OSError as error:
        raise DataError(f"record {path} cannot be written: {error}") from error
    with file:
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} becomes {"a b": 1}, so that a difference can be named."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, inner in value.items() for key, leaf in _flat(inner, f"{name} {part}".strip()).items()}


def _pack(right: Bools) -> dict[str, Any]:
    rows = [base64.b64encode(np.packbits(row).tobytes()).decode() for row in right]
    return {"accuracies": [100 * int(row.sum()) / len(row) for row in right], "right": rows}


def _unpack(stored: Any, rows: int, n: int) -> Bools:
    """Bool [rows, n]; raises ValueError, KeyError or TypeError for anything that ``_pack`` does not write."""
    right = np.zeros((rows, n), bool)
    for index, text in enumerate(stored["right"]):
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        if index >= rows or len(packed) != (n + 7) // 8:
            raise ValueError(f"answers of {rows} x {n} images expected")
        right[index] = np.unpackbits(packed, count=n).astype(bool)
    if len(stored["right"]) != rows or not np.allclose(100 * right.mean(axis=1), stored["accuracies"], atol=1e-6):
        raise ValueError("answers and accuracies disagree")
    return right


class EvaluationRecord:
    """Answers by seed, corruption and model, in a file that is rewritten whole after each corruption.

    The file holds the conditions and, for each model, corruption and severity, the accuracy in percent and which images
    were classified correctly, as base64 of ``numpy.packbits``.

    Args:
        path: the file, which is read if it exists; its directory must exist.
        conditions: everything that the answers depend on, as JSON values; "models" maps names to digests.
        severities, n: the number of severities and of images, which give the shape of the answers.

    Raises:
        DataError: if the file cannot be read, is damaged, or was made under other conditions (the message names them).
    """

    def __init__(self, path: str | Path, conditions: Mapping[str, Any], severities: int, n: int) -> None:
        self._path = Path(path)
        # Through JSON, so that the comparison sees the values as the file holds them.
        self._conditions: dict[str, Any] = json.loads(json.dumps(conditions))
        self._shape = (severities, n)
        self._stored: dict[str, dict[str, Any]] = {}
        self._answers: dict[tuple[str, str], dict[str, Bools]] = {}
        if not self._path.parent.is_dir():
            raise DataError(f"record {self._path}: there is no directory {self._path.parent}")
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = parse_json(self._path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"record {self._path} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f"{self._path} is not the record of an evaluation: its format is not {FORMAT}")
        self._compare(content.get("conditions"))
        try:
            for seed, names in content["results"].items():
                for name, models in names.items():
                    if (name != CLEAN and name not in CORRUPTIONS) or list(models) != list(self._conditions["models"]):
                        raise ValueError(f"unexpected entry {name!r} of seed {seed}")
                    rows = 1 if name == CLEAN else self._shape[0]
                    found = {model: _unpack(stored, rows, self._shape[1]) for model, stored in models.items()}
                    self._answers[seed, name] = found
            self._stored = content["results"]
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise DataError(f"record {self._path} is damaged: {error}; remove it to start over") from error

    def _compare(self, found: Any) -> None:
        theirs, ours = _flat(found), _flat(self._conditions)
        differ = [
            key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key) or (key in theirs) != (key in ours)
        ]
        if differ:
            told = [f"{key}: {theirs.get(key, 'none')} there, {ours.get(key, 'none')} here" for key in differ]
            raise DataError(
                f"record {self._path} was made under other conditions ({'; '.join(told)}); "
                "evaluate under the same ones, or name another record"
            )

    def get(self, seed: int | None, name: str) -> dict[str, Bools] | None:
        """The answers of all models, bool [severities, n] each ([1, n] for ``CLEAN``); None if there are none.

        Args:
            seed: seed of the corruption; None for ``CLEAN``.
            name: name of the corruption, or ``CLEAN``.
        """
        return self._answers.get((self._key(seed), name))

    def put(self, seed: int | None, name: str, right: Mapping[str, Bools]) -> None:
        """Add the answers of all models and write the file; after a power cut it holds the old state or the new.

        Raises:
            DataError: if the file cannot be written.
        """
        key = self._key(seed)
        self._answers[key, name] = dict(right)
        self._stored.setdefault(key, {})[name] = {model: _pack(answers) for model, answers in right.items()}
        content = {"format": FORMAT, "conditions": self._conditions, "results": self._stored}
        try:
            write_file(self._path, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise DataError(f"record {self._path} cannot be written: {error}") from error

    @staticmethod
    def _key(seed: int | None) -> str:
        return "any" if seed is None else str(seed)
