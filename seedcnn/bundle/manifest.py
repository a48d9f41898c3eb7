"""The manifest of a bundle as typed data, checked when it is parsed and when it is written.

On the wire every value is an integer or a string; ``docs/bundle-format.md`` has the table of fields.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from seedcnn.bundle import limits
from seedcnn.bundle.canonical import dump_canonical, parse_canonical
from seedcnn.bundle.compression import COMPRESSIONS
from seedcnn.bundle.entries import TensorEntry, check_scales
from seedcnn.bundle.fields import Fields
from seedcnn.bundle.preprocessing import Preprocessing
from seedcnn.errors import BundleFormatError
from seedcnn.rng import RNG_NAME

__all__ = [
    "FORMAT",
    "Canned",
    "CannedPicture",
    "Graph",
    "Manifest",
    "Measured",
]

FORMAT = "seedcnn-bundle/1"
CONTENT = "seedcnn-content/1"
_OF_GRAPH = ("size", "sha256", "input", "output")
_OF_TENSOR = ("name", "shape", "expanded_sha256", "role", "scale")  # the last two where they are present
_OF_CANNED = ("seed", "count", "sha256", "tolerance_e6", "pictures")


@dataclass(frozen=True)
class Graph:
    """The ONNX graph.

    Attributes:
        payload, coding: name and compression of its payload.
        coded_sha256: of the payload.
        size, sha256: in bytes, and of the decompressed bytes.
        input, output: names in the graph.
    """

    payload: str
    coding: str
    coded_sha256: str
    size: int
    sha256: str
    input: str
    output: str


@dataclass(frozen=True)
class CannedPicture:
    """A picture of random bytes, height x width x channels (1 to 4), and the SHA-256 of what the rule makes of it."""

    height: int
    width: int
    channels: int
    sha256: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.height * self.width * self.channels

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"height": self.height, "width": self.width, "channels": self.channels, "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Any, what: str) -> CannedPicture:
        """Parse and check the wire form."""
        f = Fields(value, f"{what}.canned.pictures[]")
        height, width = (f.integer(name, 1, limits.MAX_IMAGE_SIDE) for name in ("height", "width"))
        picture = cls(height, width, f.integer("channels", 1, 4), f.digest("sha256"))
        f.end()
        return picture


@dataclass(frozen=True)
class Canned:
    """Canned test vectors: random images drawn from a seed, expected logits as a float32 payload, absolute tolerance.

    The images' bytes are ``random_bytes(seed, tensor_id=0, count=count*height*width*channels)``; the tolerance is in
    units of 1e-6. The bytes of picture i are ``random_bytes(seed, tensor_id=1 + i, count=its size)``.
    """

    seed: int
    count: int
    payload: str
    sha256: str
    tolerance_e6: int
    pictures: tuple[CannedPicture, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        result: dict[str, Any] = {"seed": f"{self.seed:016x}", "count": self.count, "payload": self.payload}
        result |= {"sha256": self.sha256, "tolerance_e6": self.tolerance_e6}
        return result | {"pictures": [picture.to_json() for picture in self.pictures]}

    @classmethod
    def from_json(cls, value: Any, what: str) -> Canned:
        """Parse and check the wire form."""
        f = Fields(value, f"{what}.canned")
        seed, count = f.word64("seed"), f.integer("count", 1, limits.MAX_CANNED_IMAGES)
        payload, digest, tolerance = f.text("payload"), f.digest("sha256"), f.integer("tolerance_e6", 0, 10**9)
        listed = f.list("pictures", limits.MAX_CANNED_PICTURES)
        pictures = tuple(CannedPicture.from_json(item, what) for item in listed)
        canned = cls(seed, count, payload, digest, tolerance, pictures)
        f.end()
        return canned


@dataclass(frozen=True)
class Measured:
    """The accuracy of the bundle when it was packed.

    Attributes:
        data: name of the test set; may be empty.
        correct: number of its images that the bundle answers correctly.
        count: number of images.
    """

    data: str
    correct: int
    count: int

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct / self.count

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"data": self.data, "correct": self.correct, "count": self.count}

    @classmethod
    def from_json(cls, value: Any, what: str) -> Measured:
        """Parse and check the wire form."""
        f = Fields(value, f"{what}.measured")
        count = f.integer("count", 1, limits.MAX_INT)
        measured = cls(f.text("data", empty=True), f.integer("correct", 0, count), count)
        f.end()
        return measured


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle states about itself; ``measured`` is None if no accuracy was measured."""

    model: str
    family: str
    release: int
    min_release: int
    graph: Graph
    tensors: tuple[TensorEntry, ...]
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    canned: Canned
    measured: Measured | None = None
    rng: str = field(default=RNG_NAME)

    def dump(self) -> bytes:
        """Return the canonical JSON text."""
        g = self.graph
        return dump_canonical(
            {
                "format": FORMAT,
                "rng": self.rng,
                "model": self.model,
                "family": self.family,
                "release": self.release,
                "min_release": self.min_release,
                "graph": {
                    "payload": g.payload,
                    "coding": g.coding,
                    "coded_sha256": g.coded_sha256,
                    "size": g.size,
                    "sha256": g.sha256,
                    "input": g.input,
                    "output": g.output,
                },
                "tensors": [entry.to_json() for entry in self.tensors],
                "preprocessing": self.preprocessing.to_json(),
                "labels": list(self.labels),
                "canned": self.canned.to_json(),
                **({} if self.measured is None else {"measured": self.measured.to_json()}),
            }
        )

    def content_sha256(self) -> str:
        """Return the digest of the content: what the bundle states, regardless of how tensors and graph are stored.

        It is the SHA-256 of the canonical manifest without codings, payload names and digests of stored bytes. Two
        bundles of the same content give the same answers; a delta identifies its parent and its result by it.
        """
        value = json.loads(self.dump())
        value["format"] = CONTENT
        value["graph"] = {name: value["graph"][name] for name in _OF_GRAPH}
        value["canned"] = {name: value["canned"][name] for name in _OF_CANNED}
        value["tensors"] = [{name: each[name] for name in _OF_TENSOR if name in each} for each in value["tensors"]]
        return hashlib.sha256(dump_canonical(value)).hexdigest()

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Parse and check a manifest.

        Raises:
            BundleFormatError: naming the field, its value and the rule. The format version is checked first.
        """
        value = parse_canonical(text)
        version = value.get("format")
        if isinstance(version, str) and version.startswith("seedcnn-delta/"):
            raise BundleFormatError("this is a delta, not a bundle: `seedcnn apply` makes one of it and its parent")
        if version != FORMAT:
            raise BundleFormatError(f"bundle format is {version!r:.80}; this version of seedcnn reads {FORMAT!r}")
        f = Fields(value, "manifest")
        f.text("format")
        rng = f.text("rng")
        if rng != RNG_NAME:
            raise BundleFormatError(f"manifest.rng is {rng!r}; this version of seedcnn reads {RNG_NAME!r}")
        tensors = tuple(TensorEntry.from_json(item) for item in f.list("tensors", limits.MAX_TENSORS))
        if len({entry.name for entry in tensors}) != len(tensors):
            raise BundleFormatError("manifest.tensors has a duplicate name")
        check_scales(tensors)
        total = sum(entry.elements for entry in tensors) * 4
        if total > limits.MAX_EXPANDED_BYTES:
            raise BundleFormatError(f"tensors expand to {total} bytes; at most {limits.MAX_EXPANDED_BYTES} are allowed")
        labels = tuple(f.list("labels", limits.MAX_LABELS))
        if not labels or not all(isinstance(label, str) for label in labels):
            raise BundleFormatError("manifest.labels must be a list of strings, at least one")
        release = f.integer("release", 1, limits.MAX_INT)
        preprocessing, canned = (
            Preprocessing.from_json(f.object("preprocessing"), "manifest.preprocessing"),
            Canned.from_json(f.object("canned"), "manifest"),
        )
        size = canned.count * preprocessing.height * preprocessing.width * preprocessing.channels
        size += sum(picture.size for picture in canned.pictures)
        if size > limits.MAX_CANNED_BYTES:
            raise BundleFormatError(
                f"the canned images and pictures take {size} bytes; at most {limits.MAX_CANNED_BYTES} are allowed"
            )
        manifest = cls(
            model=f.text("model"),
            family=f.text("family"),
            release=release,
            min_release=f.integer("min_release", 0, release),
            graph=_parse_graph(f.object("graph")),
            tensors=tensors,
            preprocessing=preprocessing,
            labels=labels,
            canned=canned,
            measured=Measured.from_json(f.object("measured"), "manifest") if "measured" in value else None,
            rng=rng,
        )
        f.end()
        return manifest


def _parse_graph(value: Any) -> Graph:
    f = Fields(value, "manifest.graph")
    coding = f.text("coding")
    if coding not in COMPRESSIONS:
        raise BundleFormatError(f"the graph has coding {coding!r}; this version knows {', '.join(COMPRESSIONS)}")
    size = f.integer("size", 1, limits.MAX_GRAPH_BYTES)
    coded, expanded = f.digest("coded_sha256"), f.digest("sha256")
    graph = Graph(f.text("payload"), coding, coded, size, expanded, f.text("input"), f.text("output"))
    f.end()
    return graph
