"""Deltas: small files that turn the bundle on a device into the next one.

A delta is a container like a bundle, with a manifest of its own (``docs/bundle-format.md``). It lists the tensors that
change; a change on the parent's grid travels as integer differences. Parent and result are identified by the digest of
their content (:meth:`seedcnn.bundle.manifest.Manifest.content_sha256`), so a delta applies both to a bundle as
published and to one made by an earlier delta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seedcnn.arrays import F32, I16
from seedcnn.bundle import limits
from seedcnn.bundle.canonical import dump_canonical, parse_canonical
from seedcnn.bundle.codings import Coded, Stored, encode_integers, sha256, store
from seedcnn.bundle.compression import STORAGES
from seedcnn.bundle.container import BYTES, Container, read_container
from seedcnn.bundle.entries import CODINGS, TensorEntry
from seedcnn.bundle.fields import Fields
from seedcnn.bundle.head import graph_of, manifest_of
from seedcnn.bundle.integers import load_integers, store_integers, width_of
from seedcnn.bundle.manifest import FORMAT, MOST_EXPONENT, Canned, Manifest, Measured
from seedcnn.bundle.reader import Bundle, read_bundle, split_rest
from seedcnn.bundle.writer import assemble
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import RNG_NAME

__all__ = ["DELTA_FORMAT", "Change", "Delta", "apply_delta", "read_delta", "write_delta"]

DELTA_FORMAT = "seedcnn-delta/1"
DIFFERENCES = {"difference-i8": 1, "difference-i16": 2}
"""Codings of changes on the parent's grid, and the bytes of each difference."""

_KEPT = ("name", "shape", "scale", "role")  # fields of a tensor that a delta does not change


@dataclass(frozen=True)
class Change:
    """A tensor that changes.

    Attributes:
        index: its place in the parent's tensor table.
        coding: a key of :data:`DIFFERENCES`, or one of :data:`seedcnn.bundle.entries.CODINGS`: then the tensor is
            replaced.
        fields: the other fields of the new entry, but those that it keeps.
    """

    index: int
    coding: str
    fields: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {"index": self.index, "coding": self.coding, **self.fields}

    @classmethod
    def from_json(cls, value: Any) -> Change:
        """Parse the wire form of a tensor that is replaced; :meth:`entry` checks the fields of a new entry."""
        f = Fields(value, "delta.tensors[]")
        index, coding = f.integer("index", 0, limits.MAX_TENSORS - 1), f.one_of("coding", CODINGS)
        fields = {name: each for name, each in value.items() if name not in ("index", "coding")}
        if fields.keys() & set(_KEPT):
            f.end()
        return cls(index, coding, fields)

    def entry(self, old: TensorEntry) -> TensorEntry:
        """The new entry of a tensor that is replaced.

        Raises:
            BundleFormatError: if a field is missing or wrong.
        """
        kept = {name: each for name, each in old.to_json().items() if name in _KEPT}
        return TensorEntry.from_json({**kept, "coding": self.coding, **self.fields})


@dataclass(frozen=True)
class Delta:
    """An opened delta.

    Attributes:
        parent, result: content digests of the bundle it applies to and of the bundle it makes.
        release, min_release: of the result.
        integers: how integers and differences are stored, one of :data:`seedcnn.bundle.compression.STORAGES`.
        tensors: the changes, in the order of the parent's table.
        exponent, tolerance_e6: of the test vectors of the result, see :class:`seedcnn.bundle.manifest.Canned`.
        measured: accuracy of the result; None if it was not measured.
        container: the parsed file.
        size, sha256: of the file.
    """

    parent: str
    result: str
    release: int
    min_release: int
    integers: str
    tensors: tuple[Change, ...]
    exponent: int
    tolerance_e6: int
    measured: Measured | None = None
    container: Container | None = None
    size: int = 0
    sha256: str = ""

    def dump(self) -> bytes:
        """Return the canonical JSON text of the manifest."""
        return dump_canonical(
            {
                "format": DELTA_FORMAT,
                "rng": RNG_NAME,
                "parent": self.parent,
                "result": self.result,
                "release": self.release,
                "min_release": self.min_release,
                "integers": self.integers,
                "tensors": [change.to_json() for change in self.tensors if change.coding not in DIFFERENCES],
                **{name: [each.index for each in self.tensors if each.coding == name] for name in DIFFERENCES},
                "exponent": self.exponent,
                "tolerance_e6": self.tolerance_e6,
                **({} if self.measured is None else {"measured": self.measured.to_json()}),
            }
        )


def read_delta(data: bytes) -> Delta:
    """Parse a delta held in memory.

    Raises:
        BundleFormatError: if it is malformed, over a cap, or of an unknown version or coding.
        DigestError: if the stored bytes do not match their digest.
    """
    container = read_container(data, DELTA_FORMAT)
    value = parse_canonical(manifest_of(container.head, container.manifest_size))
    graph_of(container.head, container.manifest_size, 0)
    f = Fields(value, "delta")
    f.one_of("format", (DELTA_FORMAT,))
    f.one_of("rng", (RNG_NAME,))
    release = f.integer("release", 1, limits.MAX_INT)
    changes = [Change.from_json(item) for item in f.list("tensors", limits.MAX_TENSORS)]
    for name in DIFFERENCES:
        indices = f.integers(name, 0, limits.MAX_TENSORS - 1, limits.MAX_TENSORS)
        changes += [Change(index, name, {}) for index in indices]
    _check_order(changes)
    delta = Delta(
        parent=f.digest("parent"),
        result=f.digest("result"),
        release=release,
        min_release=f.integer("min_release", 0, release),
        integers=f.one_of("integers", STORAGES),
        tensors=tuple(sorted(changes, key=lambda change: change.index)),
        exponent=f.integer("exponent", -MOST_EXPONENT, MOST_EXPONENT),
        tolerance_e6=f.integer("tolerance_e6", 0, 10**9),
        measured=Measured.from_json(f.object("measured"), "delta") if "measured" in value else None,
        container=container,
        size=len(data),
        sha256=sha256(data),
    )
    f.end()
    return delta


def _check_order(changes: list[Change]) -> None:
    """Check that every index occurs once, and that those of each kind grow, so that a delta has one text."""
    kinds: dict[str, list[int]] = {}
    for change in changes:
        kinds.setdefault(change.coding if change.coding in DIFFERENCES else "", []).append(change.index)
    if any(order != sorted(order) for order in kinds.values()) or len({each.index for each in changes}) != len(changes):
        raise BundleFormatError("the tensors of a delta must be in the order of their indices, each once")


def apply_delta(parent: Bundle, delta: Delta) -> bytes:
    """Apply a delta to its parent and return the bytes of the resulting bundle.

    The result has the content of the published bundle (the content digests are compared), but other bytes, because it
    is compressed for speed.

    Raises:
        BundleError: if the delta has another parent.
        BundleFormatError: if the delta is malformed or does not fit its parent.
        DigestError: if the parent is damaged, or the result is not what the delta promises.
    """
    found = parent.manifest.content_sha256()
    if found != delta.parent:
        raise BundleError(f"the delta applies to the bundle with content {delta.parent}; this one has {found}")
    if delta.container is None:
        raise ValueError("`delta` has no container; only a delta that was read can be applied")
    table = list(parent.manifest.tensors)
    replaced = _entries(delta, table)
    floats = {name: data for name, data in delta.container.payloads.items() if name != BYTES}
    canned = replace(parent.manifest.canned, exponent=delta.exponent, tolerance_e6=delta.tolerance_e6)
    integers, logits = split_rest(delta.container, canned, len(parent.manifest.labels))
    changes = dict(_changes(delta, table, replaced, Stored(integers, delta.integers, floats)))
    tensors = _changed(parent, changes)
    stored, digest = store(tensors, "zlib", fast=True)
    manifest = replace(
        parent.manifest,
        release=delta.release,
        min_release=delta.min_release,
        tensors=tuple(coded.entry for coded in tensors),
        tensors_sha256=digest,
        integers="zlib",
        canned=replace(canned, sha256=sha256(logits)),
        measured=delta.measured,
    )
    if (content := manifest.content_sha256()) != delta.result:
        raise DigestError(f"the delta makes a bundle with content {content}; it promises {delta.result}")
    data = assemble(manifest.dump(), FORMAT, parent.graph(), stored, logits)
    read_bundle(data).canned_logits()
    return data


def _entries(delta: Delta, table: list[TensorEntry]) -> dict[int, TensorEntry]:
    """The entries of the tensors that a delta replaces, by index, after checking all changes against the parent."""
    found = {}
    for change in delta.tensors:
        if change.index >= len(table):
            raise BundleFormatError(f"the delta changes tensor {change.index}; its parent has {len(table)} tensors")
        old = table[change.index]
        if change.coding not in DIFFERENCES:
            found[change.index] = change.entry(old)
        elif old.grid is None:
            raise BundleFormatError(
                f"tensor {old.name!r} of the delta has coding {change.coding!r}, but its parent is not on a grid: "
                f"{old.coding!r}"
            )
    return found


def _changes(
    delta: Delta, table: list[TensorEntry], replaced: Mapping[int, TensorEntry], stored: Stored
) -> list[tuple[int, Coded | I16]]:
    """The new tensors and the differences by index."""
    stored.check(list(replaced.values()))
    widths = {change.index: DIFFERENCES.get(change.coding) for change in delta.tensors}
    shapes = [
        (table[index].shape, width or replaced[index].width)
        for index, width in widths.items()
        if width or replaced[index].grid is not None
    ]
    loaded = load_integers(stored.integers, shapes, stored.storage)
    found: list[tuple[int, Coded | I16]] = []
    places: dict[str, int] = {}
    for index, width in widths.items():
        entry = replaced.get(index)
        if width or (entry is not None and entry.grid is not None):
            whole = next(loaded).astype(np.int16).reshape(table[index].shape)
            found.append((index, whole if entry is None else _on_grid(entry, whole)))
        elif entry is not None:
            found.append((index, stored.raw_or_seeded(entry, places)))
    for _ in loaded:
        pass
    return found


def _on_grid(entry: TensorEntry, integers: I16) -> Coded:
    if entry.grid is None:
        raise ValueError(f"`entry` {entry.name} has no grid")
    coded = encode_integers(entry.name, integers, entry.grid)
    return replace(coded, entry=replace(coded.entry, scale=entry.scale, role=entry.role))


def _changed(parent: Bundle, changes: Mapping[int, Coded | I16]) -> list[Coded]:
    """The tensors of the result."""
    before: dict[str, I16] = {}
    values = parent.unscaled(before)
    made = []
    for index, entry in enumerate(parent.manifest.tensors):
        change, old = changes.get(index), before.get(entry.name)
        if isinstance(change, Coded):
            made.append(change)
        elif old is None:
            made.append(Coded(entry, values[entry.name], data=_bytes_of(entry, values[entry.name])))
        else:
            whole = old.astype(np.int32) + (0 if change is None else change)
            if (largest := int(np.abs(whole).max(initial=0))) > 32767:
                raise BundleFormatError(f"tensor {entry.name!r} of the delta leads to the integer {largest}")
            made.append(_on_grid(entry, whole.astype(np.int16)))
    return made


def _bytes_of(entry: TensorEntry, values: F32) -> bytes | None:
    """The stored bytes of a raw tensor, from its values, which its coding can hold exactly."""
    if entry.seeded is not None:
        return None
    if entry.coding == "raw-f32":
        return values.astype("<f4").tobytes()
    if entry.coding == "raw-f16":
        return values.astype("<f2").tobytes()
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def write_delta(parent: Bundle, result: Bundle, *, compression: str = "entropy") -> bytes:
    """Write the delta from one bundle to another, and apply it once before returning it.

    A tensor that changed on the same grid travels as differences, or whole where that is smaller. Pack the result on
    its parent's grid; otherwise every tensor travels whole.

    Args:
        compression: of the integers, one of :data:`seedcnn.bundle.compression.STORAGES`.

    Raises:
        BundleError: if the bundles differ in more than release, tensor values and canned vectors (publish the full
            bundle then), or if the release does not grow.
    """
    old, new = parent.manifest, result.manifest
    _check_kin(old, new)
    integers: tuple[dict[str, I16], dict[str, I16]] = ({}, {})
    values = parent.unscaled(integers[0]), result.unscaled(integers[1])
    changes: list[Change] = []
    whole: list[tuple[I16, int]] = []
    floats: dict[str, list[bytes]] = {}
    for index, (before, entry) in enumerate(zip(old.tensors, new.tensors, strict=True)):
        if values[0][entry.name].tobytes() == values[1][entry.name].tobytes():
            continue
        first, second = (each.get(entry.name) for each in integers)
        if second is not None:
            same = first if entry.grid == before.grid else None
            changes.append(_grid_change(index, entry, same, second, whole))
            continue
        changes.append(_whole(index, entry))
        if (data := _bytes_of(entry, values[1][entry.name])) is not None:
            floats.setdefault(entry.coding.removeprefix("raw-"), []).append(data)
    made = Delta(
        parent=old.content_sha256(),
        result=new.content_sha256(),
        release=new.release,
        min_release=new.min_release,
        integers=compression,
        tensors=tuple(changes),
        exponent=new.canned.exponent,
        tolerance_e6=new.canned.tolerance_e6,
        measured=new.measured,
    )
    joined = {name: b"".join(parts) for name, parts in floats.items()}
    stored = Stored(store_integers(whole, compression), compression, joined)
    _, logits = split_rest(result.container, new.canned, len(new.labels))
    data = assemble(made.dump(), DELTA_FORMAT, b"", stored, logits)
    apply_delta(parent, read_delta(data))
    return data


def _whole(index: int, entry: TensorEntry) -> Change:
    fields = {name: each for name, each in entry.to_json().items() if name not in (*_KEPT, "coding")}
    return Change(index, entry.coding, fields)


def _grid_change(
    index: int, entry: TensorEntry, before: I16 | None, after: I16, integers: list[tuple[I16, int]]
) -> Change:
    """The change of a tensor on a grid, whose integers or differences go to ``integers``."""
    if before is not None:
        apart = after.astype(np.int32) - before
        if np.abs(apart).max() <= 32767 and _entropy(apart) < _entropy(after):
            difference = apart.astype(np.int16)
            width = width_of(difference)
            integers.append((difference, width))
            return Change(index, "difference-i8" if width == 1 else "difference-i16", {})
    integers.append((after, entry.width))
    return _whole(index, entry)


def _entropy(values: np.ndarray[Any, Any]) -> float:
    """Bits that the values take if each is coded by how often it occurs."""
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / values.size)).sum())


def _questions(canned: Canned) -> Canned:
    """The images and pictures of canned vectors, without the answers."""
    return replace(canned, exponent=0, tolerance_e6=0, sha256="")


def _check_kin(old: Manifest, new: Manifest) -> None:
    unlike = [
        name
        for name in ("model", "family", "preprocessing", "labels", "norms", "rng")
        if getattr(old, name) != getattr(new, name)
    ]
    if old.graph.sha256 != new.graph.sha256:
        unlike.append("graph")
    if _questions(old.canned) != _questions(new.canned):
        unlike.append("the images of their canned vectors")
    parts = [[(entry.name, entry.shape, entry.scale, entry.role) for entry in each.tensors] for each in (old, new)]
    if parts[0] != parts[1]:
        unlike.append("the names or shapes of their tensors")
    if unlike:
        raise BundleError(f"no delta can be made: the bundles differ in {', '.join(unlike)}")
    if new.release <= old.release:
        raise BundleError(f"a delta leads to a later release, not from {old.release} to {new.release}")
