"""The manifest of a bundle as typed data, checked when it is parsed and when it is written.

On the wire every value is an integer or a string; ``docs/bundle-format.md`` has the table of fields.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import prod
from typing import Any

from seedcnn.bundle import limits
from seedcnn.bundle.canonical import dump_canonical, parse_canonical
from seedcnn.bundle.compression import COMPRESSIONS
from seedcnn.bundle.fields import Fields
from seedcnn.bundle.preprocessing import Preprocessing
from seedcnn.errors import BundleFormatError
from seedcnn.rng import RNG_NAME, FixedPoint

__all__ = [
    "CODINGS",
    "FORMAT",
    "Canned",
    "CannedPicture",
    "Graph",
    "Grid",
    "Manifest",
    "Measured",
    "Seeded",
    "TensorEntry",
]

FORMAT = "seedcnn-bundle/1"
CONTENT = "seedcnn-content/1"
CODINGS = (
    *("raw-f32", "raw-f16", "raw-bf16"),
    *(f"grid-{width}-{compression}" for width in ("i8", "i16") for compression in COMPRESSIONS),
    RNG_NAME,
)
_OF_GRAPH, _OF_TENSOR = ("size", "sha256", "input", "output"), ("name", "shape", "expanded_sha256")
_OF_CANNED = ("seed", "count", "sha256", "tolerance_e6", "pictures")


@dataclass(frozen=True)
class Grid:
    """An integer grid: value = integer * step, where step = mantissa * 2**-exponent is exact in float32.

    Raises:
        ValueError: if ``mantissa`` is not in [1, 2**24) or ``exponent`` not in [0, 126].
    """

    mantissa: int
    exponent: int

    def __post_init__(self) -> None:
        if not 1 <= self.mantissa < 2**24:
            raise ValueError(f"`mantissa` (={self.mantissa}) must be in [1, 2**24)")
        if not 0 <= self.exponent <= 126:
            raise ValueError(f"`exponent` (={self.exponent}) must be in [0, 126]")

    @property
    def step(self) -> float:
        """The step as a number."""
        return self.mantissa * 2.0**-self.exponent


@dataclass(frozen=True)
class Seeded:
    """A fixed tensor that travels as a seed: ``count`` draws, each repeated ``repeat`` times in a row, cropped to size.

    Draw h of the stream fills elements [h*repeat, (h+1)*repeat) of the flattened tensor (see :mod:`seedcnn.rng`).
    """

    seed: int
    tensor_id: int
    stream: int
    fixed: FixedPoint
    count: int
    repeat: int


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the graph: name, shape, coding, and the SHA-256 of its stored bytes and of its float32 values.

    ``coded_sha256`` is empty for a tensor that travels as a seed, because nothing is stored.
    """

    name: str
    shape: tuple[int, ...]
    coding: str
    coded_sha256: str
    expanded_sha256: str
    grid: Grid | None = None
    seeded: Seeded | None = None

    @property
    def elements(self) -> int:
        """Number of values after expansion."""
        return prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        result: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.shape),
            "coding": self.coding,
            "expanded_sha256": self.expanded_sha256,
        }
        if self.coding != RNG_NAME:
            result["coded_sha256"] = self.coded_sha256
        if self.grid is not None:
            result["step_mantissa"], result["step_exponent"] = self.grid.mantissa, self.grid.exponent
        if self.seeded is not None:
            s = self.seeded
            result |= {"seed": f"{s.seed:016x}", "tensor_id": s.tensor_id, "stream": s.stream, "count": s.count}
            result |= {"repeat": s.repeat, "lo_q": s.fixed.lo_q, "span_q": s.fixed.span_q}
            result["frac_bits"] = s.fixed.frac_bits
        return result

    @classmethod
    def from_json(cls, value: Any) -> TensorEntry:
        """Parse and check the wire form."""
        f = Fields(value, "manifest.tensors[]")
        name, coding = f.text("name"), f.text("coding")
        if coding not in CODINGS:
            raise BundleFormatError(f"tensor {name!r} has coding {coding!r}; this version knows {', '.join(CODINGS)}")
        shape = f.integers("shape", 1, limits.MAX_TENSOR_BYTES // 4, limits.MAX_RANK)
        if prod(shape) * 4 > limits.MAX_TENSOR_BYTES:
            raise BundleFormatError(f"tensor {name!r} of shape {shape} expands beyond {limits.MAX_TENSOR_BYTES} bytes")
        coded = "" if coding == RNG_NAME else f.digest("coded_sha256")
        expanded = f.digest("expanded_sha256")
        grid = seeded = None
        if coding.startswith("grid-"):
            grid = Grid(f.integer("step_mantissa", 1, 2**24 - 1), f.integer("step_exponent", 0, 126))
        elif coding == RNG_NAME:
            seed = f.word64("seed")
            tensor_id, stream = f.integer("tensor_id", 0, 2**32 - 1), f.integer("stream", 0, 2**32 - 1)
            count, repeat = f.integer("count", 1, prod(shape)), f.integer("repeat", 1, prod(shape))
            if not prod(shape) <= count * repeat < prod(shape) + repeat:
                raise BundleFormatError(f"tensor {name!r}: {count} draws x {repeat} do not fill shape {shape}")
            lo_q, span_q = f.integer("lo_q", -(2**24), 2**24), f.integer("span_q", 0, 2**25)
            try:
                fixed = FixedPoint(lo_q, span_q, f.integer("frac_bits", 0, 60))
            except ValueError as error:
                raise BundleFormatError(f"tensor {name!r}: {error}") from None
            seeded = Seeded(seed, tensor_id, stream, fixed, count, repeat)
        f.end()
        return cls(name, shape, coding, coded, expanded, grid, seeded)


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
        value["tensors"] = [{name: tensor[name] for name in _OF_TENSOR} for tensor in value["tensors"]]
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
