"""Open a bundle, checking everything that can be checked without running it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from seedcnn.arrays import F32, I16, U8
from seedcnn.bundle.codings import Stored, scale_channels, sha256
from seedcnn.bundle.container import BYTES, Container, read_container
from seedcnn.bundle.head import graph_of, manifest_of
from seedcnn.bundle.limits import MAX_FILE_BYTES
from seedcnn.bundle.manifest import FORMAT, Canned, Manifest
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import random_bytes

__all__ = ["Bundle", "draw_picture", "open_bundle", "read_bundle", "split_rest"]


def draw_picture(seed: int, index: int, height: int, width: int, channels: int) -> U8:
    """Draw canned picture ``index``: uint8 [height, width, channels]."""
    count = height * width * channels
    return random_bytes(seed, tensor_id=1 + index, count=count).reshape(height, width, channels)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Tensors and graph are decoded on request, and their digests checked then."""

    manifest: Manifest
    container: Container
    size: int
    sha256: str

    def __repr__(self) -> str:
        facts = self.manifest
        name = f"{facts.model!r}, release {facts.release} of {facts.family!r}"
        return f"Bundle({name}, {self.size:,} bytes, {len(facts.labels)} classes, SHA-256 {self.sha256[:16]}..)"

    def tensors(self) -> dict[str, F32]:
        """Expand every tensor of the graph to {name: float32 array}; scaled tensors are scaled, scales left out.

        Raises:
            BundleFormatError, DigestError: see :func:`seedcnn.bundle.codings.decode`.
        """
        found = self.unscaled()
        for entry in self.manifest.tensors:
            if entry.scale:
                scale_channels(found[entry.name], found[entry.scale], entry.scale)
        return {entry.name: found[entry.name] for entry in self.manifest.tensors if not entry.role}

    def unscaled(self, integers: dict[str, I16] | None = None) -> dict[str, F32]:
        """Expand every tensor of the bundle, scales included, to {name: float32 array}, and scale none.

        Args:
            integers: takes the integers of each tensor on a grid by name, int16 of its shape, if given.

        Raises:
            BundleFormatError, DigestError: see :meth:`seedcnn.bundle.codings.Stored.tensors`.
        """
        return self.stored.tensors(self.manifest.tensors, self.manifest.tensors_sha256, integers)

    @property
    def stored(self) -> Stored:
        """The coded tensors."""
        integers, _ = split_rest(self.container, self.manifest.canned, len(self.manifest.labels))
        floats = {name: data for name, data in self.container.payloads.items() if name != BYTES}
        return Stored(integers, self.manifest.integers, floats)

    def graph(self) -> bytes:
        """Return the ONNX graph, whose weights are external initializers.

        Raises:
            BundleFormatError, DigestError: if it does not decompress or does not match its digest.
        """
        info = self.manifest.graph
        data = graph_of(self.container.head, self.container.manifest_size, info.size)
        if sha256(data) != info.sha256:
            raise DigestError("graph: the decompressed bytes do not match their digest")
        return data

    def canned_images(self) -> U8:
        """Draw the canned images: uint8 array [count, height, width, channels]."""
        canned, rule = self.manifest.canned, self.manifest.preprocessing
        shape = canned.count, rule.height, rule.width, rule.channels
        return random_bytes(canned.seed, tensor_id=0, count=prod(shape)).reshape(shape)

    def canned_pictures(self) -> Iterator[U8]:
        """Draw the canned pictures: uint8 [h, w, 1 to 4]."""
        canned = self.manifest.canned
        for index, (height, width, channels) in enumerate(canned.pictures.sizes):
            yield draw_picture(canned.seed, index, height, width, channels)

    def canned_logits(self) -> F32:
        """Return the logits that the canned images must give: float32 array [count, classes].

        Raises:
            DigestError: if the stored bytes do not match their digest.
        """
        canned, labels = self.manifest.canned, len(self.manifest.labels)
        _, data = split_rest(self.container, canned, labels)
        if sha256(data) != canned.sha256:
            raise DigestError("canned vectors: the stored bytes do not match their digest")
        steps = np.frombuffer(data, "<i2").astype(np.float32).reshape(canned.count, labels)
        return np.multiply(steps, np.float32(2.0**-canned.exponent), dtype=np.float32)


def split_rest(container: Container, canned: Canned, labels: int) -> tuple[memoryview, memoryview]:
    """Split the bytes behind the head into the integers of the tensors and the logits of the canned vectors.

    Raises:
        BundleFormatError: if there are fewer bytes than the logits take.
    """
    size = 2 * canned.count * labels
    rest = container.rest
    if len(rest) < size:
        raise BundleFormatError(f"the file has {len(rest)} bytes behind the graph; the canned logits take {size}")
    return rest[: len(rest) - size], rest[len(rest) - size :]


def read_bundle(data: bytes) -> Bundle:
    """Parse a bundle held in memory.

    Raises:
        BundleFormatError: if it is malformed, over a cap, or of an unknown version or coding.
        DigestError: if the stored bytes do not match their digest.
    """
    container = read_container(data, FORMAT)
    manifest = Manifest.parse(manifest_of(container.head, container.manifest_size))
    bundle = Bundle(manifest, container, len(data), sha256(data))
    bundle.stored.check(manifest.tensors)
    return bundle


def open_bundle(path: str | Path) -> Bundle:
    """Read and parse a bundle file; a file over the size cap is refused before it is read.

    Raises:
        BundleFormatError, DigestError: see :func:`read_bundle`; the message starts with the path.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BundleFormatError(f"{path}: file has {size} bytes; at most {MAX_FILE_BYTES} are allowed")
    try:
        return read_bundle(path.read_bytes())
    except BundleError as error:
        raise type(error)(f"{path}: {error}") from None
