"""Open a bundle, checking everything that can be checked without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from seedcnn.arrays import F32, U8
from seedcnn.bundle.codings import check_payload, decode, scale_channels, sha256
from seedcnn.bundle.compression import decompress
from seedcnn.bundle.container import Payload, read_container
from seedcnn.bundle.limits import MAX_FILE_BYTES
from seedcnn.bundle.manifest import Manifest
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import random_bytes

__all__ = ["Bundle", "draw_picture", "open_bundle", "read_bundle"]


def draw_picture(seed: int, index: int, height: int, width: int, channels: int) -> U8:
    """Draw canned picture ``index``: uint8 [height, width, channels]."""
    count = height * width * channels
    return random_bytes(seed, tensor_id=1 + index, count=count).reshape(height, width, channels)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Tensors and graph are decoded on request, and their digests checked then."""

    manifest: Manifest
    payloads: Mapping[str, Payload]
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

    def unscaled(self) -> dict[str, F32]:
        """Expand every tensor of the bundle, scales included, to {name: float32 array}, and scale none.

        Raises:
            BundleFormatError, DigestError: see :func:`seedcnn.bundle.codings.decode`.
        """
        return {entry.name: decode(entry, self.payloads.get(entry.name)) for entry in self.manifest.tensors}

    def graph(self) -> bytes:
        """Return the ONNX graph, whose weights are external initializers.

        Raises:
            BundleFormatError, DigestError: if it does not decompress or does not match its digest.
        """
        info, payload = self.manifest.graph, self.payloads[self.manifest.graph.payload]
        if sha256(payload.data) != info.coded_sha256:
            raise DigestError("graph: the stored bytes do not match their digest")
        data = decompress(payload.data, info.size, "graph", info.coding)
        if sha256(data) != info.sha256:
            raise DigestError("graph: the decompressed bytes do not match their digest")
        return data

    def canned_images(self) -> U8:
        """Draw the canned images: uint8 array [count, height, width, channels]."""
        canned, rule = self.manifest.canned, self.manifest.preprocessing
        shape = canned.count, rule.height, rule.width, rule.channels
        return random_bytes(canned.seed, tensor_id=0, count=prod(shape)).reshape(shape)

    def canned_pictures(self) -> Iterator[tuple[U8, str]]:
        """Draw the canned pictures: uint8 [h, w, 1 to 4], and the SHA-256 of what the rule must make of each."""
        canned = self.manifest.canned
        for index, each in enumerate(canned.pictures):
            yield draw_picture(canned.seed, index, each.height, each.width, each.channels), each.sha256

    def canned_logits(self) -> F32:
        """Return the logits that the canned images must give: float32 array [count, classes].

        Raises:
            DigestError: if the stored bytes do not match their digest.
            BundleFormatError: if a logit is not finite, since no answer can be close to it.
        """
        canned = self.manifest.canned
        data = self.payloads[canned.payload].data
        if sha256(data) != canned.sha256:
            raise DigestError("canned vectors: the stored bytes do not match their digest")
        logits = np.frombuffer(data, "<f4").reshape(canned.count, len(self.manifest.labels))
        if not np.isfinite(logits).all():
            raise BundleFormatError("canned vectors hold logits that are not finite")
        return logits


def _check_payloads(manifest: Manifest, payloads: Mapping[str, Payload]) -> None:
    wanted = [entry.name for entry in manifest.tensors if entry.seeded is None]
    wanted += [manifest.graph.payload, manifest.canned.payload]
    if len(set(wanted)) != len(wanted):
        raise BundleFormatError("manifest uses one payload twice")
    if missing := sorted(set(wanted) - set(payloads)):
        raise BundleFormatError(f"manifest names payloads that are not in the file: {', '.join(missing):.200}")
    if extra := sorted(set(payloads) - set(wanted)):
        raise BundleFormatError(f"file holds payloads that the manifest does not name: {', '.join(extra):.200}")
    for entry in manifest.tensors:
        if entry.seeded is None:
            check_payload(entry.name, payloads[entry.name], entry.coding, entry.shape)
    check_payload(manifest.graph.payload, payloads[manifest.graph.payload], manifest.graph.coding, ())
    logits_shape = (manifest.canned.count, len(manifest.labels))
    check_payload(manifest.canned.payload, payloads[manifest.canned.payload], "raw-f32", logits_shape)


def read_bundle(data: bytes) -> Bundle:
    """Parse a bundle held in memory.

    Raises:
        BundleFormatError: if it is malformed, over a cap, or of an unknown version or coding.
        DigestError: if the manifest does not match its digest.
    """
    container = read_container(data)
    manifest = Manifest.parse(container.manifest)
    # Checked after the format version: a later version may keep its digest elsewhere, and must be refused as such.
    if sha256(container.manifest) != container.manifest_sha256:
        raise DigestError("manifest: the text does not match its digest")
    _check_payloads(manifest, container.payloads)
    return Bundle(manifest, container.payloads, len(data), sha256(data))


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
