"""A tensor in the manifest: its name, shape and coding, and what a reader needs to expand it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from seedcnn.bundle import limits
from seedcnn.bundle.fields import Fields
from seedcnn.errors import BundleFormatError
from seedcnn.rng import RNG_NAME, FixedPoint

__all__ = ["CODINGS", "NORMS", "SCALE", "Grid", "Seeded", "TensorEntry", "check_scales"]

CODINGS = (
    *("raw-f32", "raw-f16", "raw-bf16"),
    *("grid-i8", "grid-i16"),
    RNG_NAME,
)
SCALE = "scale"
"""The role of a tensor that the graph does not read: it holds the scales of another one's output channels."""
NORMS = "norms"
"""The role of the tensor of norms, see :mod:`seedcnn.bundle.adaptable`; the graph does not read it."""

_FINEST = 2.0**-80  # step of a scaled tensor: with scales within 2**+-40 every product is a normal float32


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
    """A tensor: its name, its shape, and how it is coded.

    Attributes:
        name: of the graph's initializer; of nothing in the graph for a tensor with a role.
        shape: after expansion.
        coding: one of :data:`CODINGS`.
        grid: of the integers; None for other codings.
        seeded: the draws of a tensor that travels as a seed.
        scale: name of the tensor [shape[0]] that the values of each output channel are multiplied by, or "".
        role: "" for an initializer of the graph, :data:`SCALE` for the scales of one other tensor, or :data:`NORMS`.
    """

    name: str
    shape: tuple[int, ...]
    coding: str
    grid: Grid | None = None
    seeded: Seeded | None = None
    scale: str = ""
    role: str = ""

    @property
    def elements(self) -> int:
        """Number of values after expansion."""
        return prod(self.shape)

    @property
    def width(self) -> int:
        """Bytes of an integer of a tensor on a grid: 1 or 2."""
        return {"grid-i8": 1, "grid-i16": 2}[self.coding]

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        result: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.shape),
            "coding": self.coding,
        }
        if self.grid is not None:
            result["step_mantissa"], result["step_exponent"] = self.grid.mantissa, self.grid.exponent
        if self.seeded is not None:
            s = self.seeded
            result |= {"seed": f"{s.seed:016x}", "tensor_id": s.tensor_id, "stream": s.stream, "count": s.count}
            result |= {"repeat": s.repeat, "lo_q": s.fixed.lo_q, "span_q": s.fixed.span_q}
            result["frac_bits"] = s.fixed.frac_bits
        return result | {name: word for name, word in (("scale", self.scale), ("role", self.role)) if word}

    @classmethod
    def from_json(cls, value: Any) -> TensorEntry:
        """Parse and check the wire form."""
        f = Fields(value, "manifest.tensors[]")
        scale = f.text("scale") if "scale" in value else ""
        role = f.one_of("role", (SCALE, NORMS)) if "role" in value else ""
        name, coding = f.text("name"), f.text("coding")
        if coding not in CODINGS:
            raise BundleFormatError(f"tensor {name!r} has coding {coding!r}; this version knows {', '.join(CODINGS)}")
        shape = f.integers("shape", 1, limits.MAX_TENSOR_BYTES // 4, limits.MAX_RANK)
        if prod(shape) * 4 > limits.MAX_TENSOR_BYTES:
            raise BundleFormatError(f"tensor {name!r} of shape {shape} expands beyond {limits.MAX_TENSOR_BYTES} bytes")
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
        return cls(name, shape, coding, grid, seeded, scale, role)


def check_scales(entries: Sequence[TensorEntry]) -> None:
    """Check that scaled tensors and their scales belong together: each scale scales one tensor.

    Raises:
        BundleFormatError: if a scale is missing, lacks its role, has another shape, is scaled itself or is used by two
            tensors or by none, or if a scaled tensor is not on a grid or its step is below 2**-80.
    """
    known = {entry.name: entry for entry in entries}
    free = {entry.name for entry in entries if entry.role == SCALE}
    for entry in entries:
        if not entry.scale:
            continue
        what, scale = f"tensor {entry.name!r}", known.get(entry.scale)
        if entry.role:
            raise BundleFormatError(f"{what} has the role {entry.role!r} and a scale; a scale is not scaled itself")
        if scale is None:
            raise BundleFormatError(f"{what} has the scale {entry.scale!r}, which is not in the tensor table")
        if scale.role != SCALE:
            raise BundleFormatError(f"{what} has the scale {entry.scale!r}, which has not the role {SCALE!r}")
        if scale.name not in free:
            raise BundleFormatError(f"{what} has the scale {entry.scale!r}, which scales another tensor too")
        free.remove(scale.name)
        if entry.grid is None or entry.grid.step < _FINEST:
            raise BundleFormatError(f"{what} has a scale; it must be on a grid with a step of at least 2**-80")
        if scale.shape != entry.shape[:1] or not entry.shape:
            raise BundleFormatError(f"{what} has shape {entry.shape}; its scale cannot have shape {scale.shape}")
    if free:
        raise BundleFormatError(f"tensor {min(free)!r:.80} has the role {SCALE!r}, but it is the scale of no tensor")
