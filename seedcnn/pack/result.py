"""The result of packing a network: a bundle, and how packing changed the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seedcnn import html
from seedcnn.arrays import F32
from seedcnn.evaluate import Accuracy, Equivalence
from seedcnn.pack.int8 import Int8Result
from seedcnn.pack.search import Candidate

__all__ = ["Adapts", "PackResult"]


@dataclass(frozen=True)
class Adapts:
    """The norms of an adaptable bundle.

    Attributes:
        norms: how many norms a device can give statistics of its own.
        left: names of the layers whose norms stay as they are.
        size: bytes of the file that this takes.
    """

    norms: int
    left: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class PackResult:
    """A bundle, and how packing changed the network, measured on ``before.n`` images.

    Attributes:
        data: the bundle's bytes.
        before: accuracy of the torch network as trained.
        on_grid: accuracy of the float32 bundle, expanded and run as on a device.
        after: accuracy of the bundle that is shipped, which is int8 or the same.
        grid: the trained network against the float32 bundle.
        export: torch with the bundle's weights against the float32 bundle, on some of the images.
        step: step of the weights' grid, after a search the typical one; None for float32 weights or a parent's grids.
        weights: number of values on the grid, or of float32 values where there is no grid.
        weight_bytes: their coded bytes.
        seeded_values: number of values that travel as seeds.
        plain: names of the convolutions that a converted network keeps as they were; () for any other network.
        int8: the int8 graph against the float32 graph; None for a float32 bundle.
        tried: the grids that a search tried, finest first.
        delta: leads from the parent to ``data``; None without a parent.
        learned: the tensors that travel, before rounding.
        seconds: where the time went, by stage.
        trained: whether the network was trained on its grid, which ``step`` then does not tell.
        adapts: what devices can adapt; None if nothing.
    """

    data: bytes
    before: Accuracy
    on_grid: Accuracy
    after: Accuracy
    grid: Equivalence
    export: Equivalence
    step: float | None
    weights: int
    weight_bytes: int
    seeded_values: int
    plain: tuple[str, ...] = ()
    int8: Int8Result | None = None
    tried: tuple[Candidate, ...] = ()
    delta: bytes | None = None
    learned: Mapping[str, F32] = field(default_factory=dict, repr=False)
    seconds: Mapping[str, float] = field(default_factory=dict, repr=False)
    trained: bool = False
    adapts: Adapts | None = None

    @property
    def drop(self) -> float:
        """Accuracy lost from the trained network to the bundle, in percentage points."""
        return self.before.top1 - self.after.top1

    @property
    def drop_error(self) -> float:
        """Standard error of ``drop`` for new images, at least one image's; both networks answered the same ones."""
        lost = 100.0 * self.before.correct - 100.0 * self.after.correct
        return float(max(lost.std() / len(lost) ** 0.5, 100.0 / len(lost)))

    @property
    def bits_per_weight(self) -> float:
        """Coded bits of a weight, on average."""
        return 8 * self.weight_bytes / max(self.weights, 1)

    def __repr__(self) -> str:
        size = f"{len(self.data):,} bytes, {self.bits_per_weight:.2f} bits a weight"
        return f"PackResult({size}; accuracy {self._change()}, n={self.before.n:,})"

    def _change(self) -> str:
        change = f"{self.after.top1 - self.before.top1:+.2f} ± {self.drop_error:.2f} points"
        return f"{self.before.top1:.2f} -> {self.after.top1:.2f} % ({change})"

    def _repr_html_(self) -> str:
        """The bundle's size, the accuracy before and after, and the grids tried, as a notebook shows them."""
        rows: list[tuple[str, object]] = [
            ("bundle, bytes", f"{len(self.data):,}"),
            ("bits a weight", f"{self.bits_per_weight:.2f}"),
            ("grid step", "as trained" if self.trained else None if self.step is None else f"{self.step:.4g}"),
            ("values that travel as seeds", f"{self.seeded_values:,}"),
            (f"accuracy of {self.before.n:,} images", self._change()),
            ("torch with the bundle's weights", f"{self.on_grid.top1:.2f} %"),
            ("the same top class as before, with float32 weights", f"{self.grid.agreement:.2f} %"),
            ("largest relative difference of the export", f"{self.export.max_rel:.1e}"),
        ]
        rows += [] if self.delta is None else [("delta from the parent, bytes", f"{len(self.delta):,}")]
        if self.int8 is not None:
            rows.append(("int8: the same top class as float32", f"{self.int8.logits.agreement:.2f} %"))
            rows.append(("int8: latency", f"{self.int8.latency.median_ms:.3f} ms in {self.int8.runtime}"))
        tried = [
            (
                f"{each.step:.4g}",
                each.weight_bytes,
                f"{each.bits_per_weight:.2f}",
                f"{each.drop:+.2f} ± {each.error:.2f}",
            )
            for each in self.tried
        ]
        heads = ("grid step", "weights, bytes", "bits a weight", "points lost")
        grids = html.folded(f"{len(tried)} grids tried", html.table(heads, tried)) if tried else ""
        return html.table(("packed", ""), rows) + grids
