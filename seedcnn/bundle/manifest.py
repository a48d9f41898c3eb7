"""The manifest of a bundle as typed data, checked when it is parsed and when it is written.

On the wire every value is an integer or a string; ``docs/bundle-format.md`` has the table of fields.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from seedcnn.bundle import limits
from seedcnn.bundle.adaptable import Site, check_norms, sites_from_json
from seedcnn.bundle.canonical import dump_canonical, parse_canonical
from seedcnn.bundle.compression import STORAGES
from seedcnn.bundle.container import FORMAT
from seedcnn.bundle.entries import TensorEntry, check_scales
from seedcnn.bundle.fields import Fields
from seedcnn.bundle.preprocessing import Preprocessing
from seedcnn.errors import BundleFormatError
from seedcnn.rng import RNG_NAME

__all__ = [
    "FORMAT",
    "MOST_EXPONENT",
    "Canned",
    "CannedPictures",
    "Graph",
    "Manifest",
    "Measured",
]

CONTENT = "seedcnn-content/1"
_OF_TENSOR = ("name", "shape", "role", "scale")  # the last two where they are present
MOST_EXPONENT = 60


@dataclass(frozen=True)
class Graph:
    """The ONNX graph: bytes and SHA-256 of it, and the names of its input and output."""

    size: int
    sha256: str
    input: str
    output: str

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"size": self.size, "sha256": self.sha256, "input": self.input, "output": self.output}

    @classmethod
    def from_json(cls, value: Any) -> Graph:
        """Parse and check the wire form."""
        f = Fields(value, "manifest.graph")
        size = f.integer("size", 1, limits.MAX_GRAPH_BYTES)
        graph = cls(size, f.digest("sha256"), f.text("input"), f.text("output"))
        f.end()
        return graph


class CannedPictures(NamedTuple):
    """Pictures that a rule is tested with: height, width and channels of each, and the SHA-256 of all results."""

    sizes: tuple[tuple[int, int, int], ...] = ()
    sha256: str = hashlib.sha256().hexdigest()


_NONE = CannedPictures()


@dataclass(frozen=True)
class Canned:
    """Canned test vectors: random images drawn from a seed, and the logits that they must give.

    The images' bytes are ``random_bytes(seed, tensor_id=0, count=count*height*width*channels)``. The bytes of picture i
    are ``random_bytes(seed, tensor_id=1 + i, count=its size)``.

    Attributes:
        seed: of images and pictures.
        count: number of images.
        exponent: a logit is its stored 16-bit integer times 2**-exponent.
        sha256: of the stored integers.
        tolerance_e6: largest allowed difference of a logit, in units of 1e-6.
        pictures: what the rule is tested with.
    """

    seed: int
    count: int
    exponent: int
    sha256: str
    tolerance_e6: int
    pictures: CannedPictures = _NONE

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        result: dict[str, Any] = {"seed": f"{self.seed:016x}", "count": self.count, "exponent": self.exponent}
        result |= {"sha256": self.sha256, "tolerance_e6": self.tolerance_e6}
        sizes = [list(each) for each in self.pictures.sizes]
        return result | {"pictures": sizes, "pictures_sha256": self.pictures.sha256}

    @classmethod
    def from_json(cls, value: Any, what: str) -> Canned:
        """Parse and check the wire form."""
        f = Fields(value, f"{what}.canned")
        seed, count = f.word64("seed"), f.integer("count", 1, limits.MAX_CANNED_IMAGES)
        exponent, digest = f.integer("exponent", -MOST_EXPONENT, MOST_EXPONENT), f.digest("sha256")
        tolerance = f.integer("tolerance_e6", 0, 10**9)
        sizes = tuple(_picture(item, f.what) for item in f.list("pictures", limits.MAX_CANNED_PICTURES))
        pictures = CannedPictures(sizes, f.digest("pictures_sha256"))
        canned = cls(seed, count, exponent, digest, tolerance, pictures)
        f.end()
        return canned


def _picture(value: Any, what: str) -> tuple[int, int, int]:
    sizes = Fields({"pictures[]": value}, what).integers("pictures[]", 1, limits.MAX_IMAGE_SIDE, 3)
    if len(sizes) != 3 or sizes[2] > 4:
        raise BundleFormatError(f"{what}.pictures[] must be height, width and 1 to 4 channels, not {value!r:.80}")
    return sizes[0], sizes[1], sizes[2]


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
    """Everything that a bundle states about itself.

    Attributes:
        integers: how the integers of tensors on grids are stored, one of :data:`seedcnn.bundle.codings.STORAGES`.
        tensors_sha256: of the float32 values of all tensors, one after another, before any channels are scaled.
        measured: None if no accuracy was measured.
        norms: the norms that a device can give statistics of its own; () if it can give them to none.
    """

    model: str
    family: str
    release: int
    min_release: int
    graph: Graph
    tensors: tuple[TensorEntry, ...]
    tensors_sha256: str
    integers: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    canned: Canned
    measured: Measured | None = None
    norms: tuple[Site, ...] = ()
    rng: str = field(default=RNG_NAME)

    def dump(self) -> bytes:
        """Return the canonical JSON text."""
        return dump_canonical(
            {
                "format": FORMAT,
                "rng": self.rng,
                "model": self.model,
                "family": self.family,
                "release": self.release,
                "min_release": self.min_release,
                "graph": self.graph.to_json(),
                "integers": self.integers,
                "tensors_sha256": self.tensors_sha256,
                "tensors": [entry.to_json() for entry in self.tensors],
                "preprocessing": self.preprocessing.to_json(),
                "labels": list(self.labels),
                "canned": self.canned.to_json(),
                **({} if self.measured is None else {"measured": self.measured.to_json()}),
                **({"norms": [site.to_json() for site in self.norms]} if self.norms else {}),
            }
        )

    def content_sha256(self) -> str:
        """Return the digest of the content: what the bundle states, regardless of how tensors and graph are stored.

        It is the SHA-256 of the canonical manifest without codings, grids and seeds. Two bundles of the same content
        give the same answers; a delta identifies its parent and its result by it.
        """
        value = json.loads(self.dump())
        value["format"] = CONTENT
        del value["integers"]
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
        norms = sites_from_json(f.list("norms", limits.MAX_NORMS)) if "norms" in value else ()
        check_norms(norms, tensors)
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
        size += sum(prod(picture) for picture in canned.pictures.sizes)
        if size > limits.MAX_CANNED_BYTES:
            raise BundleFormatError(
                f"the canned images and pictures take {size} bytes; at most {limits.MAX_CANNED_BYTES} are allowed"
            )
        manifest = cls(
            model=f.text("model"),
            family=f.text("family"),
            release=release,
            min_release=f.integer("min_release", 0, release),
            graph=Graph.from_json(f.object("graph")),
            tensors=tensors,
            tensors_sha256=f.digest("tensors_sha256"),
            integers=f.one_of("integers", STORAGES),
            preprocessing=preprocessing,
            labels=labels,
            canned=canned,
            measured=Measured.from_json(f.object("measured"), "manifest") if "measured" in value else None,
            norms=norms,
            rng=rng,
        )
        f.end()
        return manifest
