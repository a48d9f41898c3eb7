"""Open a bundle: check everything that can be checked without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.bundle.codings import decode, decompress, sha256
from seedcnn.bundle.container import Payload, read_container
from seedcnn.bundle.limits import MAX_FILE_BYTES
from seedcnn.bundle.manifest import Manifest
from seedcnn.errors import BundleFormatError, DigestError
from seedcnn.rng import random_bytes

__all__ = ["Bundle", "open_bundle", "read_bundle"]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Tensors and the graph are decoded, and their digests checked, when asked for."""

    manifest: Manifest
    payloads: Mapping[str, Payload]
    size: int
    sha256: str

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Expand every tensor the graph needs: {name: float32 array}.

        Raises:
            BundleFormatError, DigestError: see :func:`seedcnn.bundle.codings.decode`.
        """
        return {entry.name: decode(entry, self.payloads.get(entry.name)) for entry in self.manifest.tensors}

    def graph(self) -> bytes:
        """The ONNX graph (weights are external initializers).

        Raises:
            BundleFormatError, DigestError: if it does not decompress or does not match its digest.
        """
        info = self.manifest.graph
        data = decompress(self.payloads[info.payload].data, info.size, "graph")
        if sha256(data) != info.sha256:
            raise DigestError("graph: its bytes do not match their digest")
        return data

    def canned_images(self) -> npt.NDArray[np.uint8]:
        """The canned input pictures. uint8 array [count, height, width, 3]."""
        canned, shape = self.manifest.canned, self.manifest.preprocessing
        count = canned.count * shape.height * shape.width * 3
        return random_bytes(canned.seed, tensor_id=0, count=count).reshape(canned.count, shape.height, shape.width, 3)

    def canned_logits(self) -> npt.NDArray[np.float32]:
        """The logits that the canned pictures must give. float32 array [count, classes]."""
        canned = self.manifest.canned
        data = self.payloads[canned.payload].data
        if sha256(data) != canned.sha256:
            raise DigestError("canned vectors: their bytes do not match their digest")
        return np.frombuffer(data, "<f4").reshape(canned.count, len(self.manifest.labels))


def _check_payloads(manifest: Manifest, payloads: Mapping[str, Payload]) -> None:
    wanted = [entry.name for entry in manifest.tensors if entry.seeded is None]
    wanted += [manifest.graph.payload, manifest.canned.payload]
    if len(set(wanted)) != len(wanted):
        raise BundleFormatError("manifest uses one payload twice")
    if missing := sorted(set(wanted) - set(payloads)):
        raise BundleFormatError(f"manifest names payloads that are not in the file: {', '.join(missing)}")
    if extra := sorted(set(payloads) - set(wanted)):
        raise BundleFormatError(f"file holds payloads that the manifest does not name: {', '.join(extra)}")
    canned = payloads[manifest.canned.payload]
    if canned.dtype != "F32" or canned.shape != (manifest.canned.count, len(manifest.labels)):
        raise BundleFormatError(f"canned vectors are {canned.dtype} {canned.shape}, not one logit per picture and label")


def read_bundle(data: bytes) -> Bundle:
    """Parse a bundle held in memory.

    Raises:
        BundleFormatError: if anything about it is malformed, over a cap, or of an unknown version or coding.
    """
    container = read_container(data)
    manifest = Manifest.parse(container.manifest)
    _check_payloads(manifest, container.payloads)
    return Bundle(manifest, container.payloads, len(data), sha256(data))


def open_bundle(path: str | Path) -> Bundle:
    """Read and parse a bundle file; a file over the size cap is refused unread.

    Raises:
        BundleFormatError: see :func:`read_bundle`; the message starts with the path.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BundleFormatError(f"{path}: file has {size} bytes; at most {MAX_FILE_BYTES} are allowed")
    try:
        return read_bundle(path.read_bytes())
    except BundleFormatError as error:
        raise BundleFormatError(f"{path}: {error}") from None
