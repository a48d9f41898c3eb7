"""Deltas: small files that turn the bundle on a device into the next one.

A delta is a container like a bundle, with a manifest of its own (``docs/bundle-format.md``). It lists the tensors that
change; a change on the parent's grid travels as sparse integer differences. Parent and result are identified by the
digest of their content (:meth:`seedcnn.bundle.manifest.Manifest.content_sha256`), so a delta applies both to a bundle
as published and to one made by an earlier delta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seedcnn.bundle import limits
from seedcnn.bundle.canonical import dump_canonical, parse_canonical
from seedcnn.bundle.codings import (
    Coded,
    check_payload,
    decode,
    encode_integers,
    integers_of,
    sha256,
)
from seedcnn.bundle.compression import COMPRESSIONS, compress, decompress
from seedcnn.bundle.container import Payload, read_container, write_container
from seedcnn.bundle.entries import TensorEntry
from seedcnn.bundle.fields import Fields
from seedcnn.bundle.manifest import Canned, Manifest, Measured
from seedcnn.bundle.reader import Bundle, read_bundle
from seedcnn.bundle.sparse import LONGEST, add_sparse, sparse_difference
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import RNG_NAME

__all__ = ["DELTA_FORMAT", "Delta", "Sparse", "apply_delta", "read_delta", "write_delta"]

DELTA_FORMAT = "seedcnn-delta/1"
_CODINGS = tuple(f"sparse-{compression}" for compression in COMPRESSIONS)


@dataclass(frozen=True)
class Sparse:
    """A tensor that changes on its parent's grid.

    Attributes:
        name: of the tensor.
        coding: compression of the differences.
        coded_sha256, expanded_sha256: digests of the stored and of the expanded bytes.
        size: bytes before compression.
        count: number of values that change.
    """

    name: str
    coding: str
    coded_sha256: str
    expanded_sha256: str
    size: int
    count: int

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, value: Any) -> Sparse:
        """Parse and check the wire form."""
        f = Fields(value, "delta.tensors[]")
        name, coding = f.text("name"), f.text("coding")
        coded, expanded = f.digest("coded_sha256"), f.digest("expanded_sha256")
        count = f.integer("count", 1, limits.MAX_TENSOR_BYTES // 4)
        size = f.integer("size", 2 * count, 2 * LONGEST * count)
        f.end()
        return cls(name, coding, coded, expanded, size, count)


@dataclass(frozen=True)
class Delta:
    """An opened delta.

    Attributes:
        parent, result: content digests of the bundle it applies to and of the bundle it makes.
        release, min_release: of the result.
        tensors: the changes; a :class:`TensorEntry` replaces a whole tensor.
        canned: test vectors of the result.
        measured: accuracy of the result; None if it was not measured.
        payloads: stored bytes by name.
        size, sha256: of the file.
    """

    parent: str
    result: str
    release: int
    min_release: int
    tensors: tuple[Sparse | TensorEntry, ...]
    canned: Canned
    payloads: Mapping[str, Payload]
    measured: Measured | None = None
    size: int = 0
    sha256: str = ""

    def _dump(self) -> bytes:
        return dump_canonical(
            {
                "format": DELTA_FORMAT,
                "rng": RNG_NAME,
                "parent": self.parent,
                "result": self.result,
                "release": self.release,
                "min_release": self.min_release,
                "tensors": [entry.to_json() for entry in self.tensors],
                "canned": self.canned.to_json(),
                **({} if self.measured is None else {"measured": self.measured.to_json()}),
            }
        )


def read_delta(data: bytes) -> Delta:
    """Parse a delta held in memory.

    Raises:
        BundleFormatError: if it is malformed, over a cap, or of an unknown version or coding.
        DigestError: if the manifest does not match its digest.
    """
    container = read_container(data)
    value = parse_canonical(container.manifest)
    version = value.get("format")
    if version != DELTA_FORMAT:
        raise BundleFormatError(f"delta format is {version!r:.80}; this version of seedcnn reads {DELTA_FORMAT!r}")
    f = Fields(value, "delta")
    f.text("format")
    if (rng := f.text("rng")) != RNG_NAME:
        raise BundleFormatError(f"delta.rng is {rng!r}; this version of seedcnn reads {RNG_NAME!r}")
    release = f.integer("release", 1, limits.MAX_INT)
    delta = Delta(
        parent=f.digest("parent"),
        result=f.digest("result"),
        release=release,
        min_release=f.integer("min_release", 0, release),
        tensors=tuple(_parse_tensor(item) for item in f.list("tensors", limits.MAX_TENSORS)),
        canned=Canned.from_json(f.object("canned"), "delta"),
        payloads=container.payloads,
        measured=Measured.from_json(f.object("measured"), "delta") if "measured" in value else None,
        size=len(data),
        sha256=sha256(data),
    )
    f.end()
    if sha256(container.manifest) != container.manifest_sha256:
        raise DigestError("delta: the manifest does not match its digest")
    _check_payloads(delta)
    return delta


def _parse_tensor(value: Any) -> Sparse | TensorEntry:
    sparse = isinstance(value, dict) and value.get("coding") in _CODINGS
    return Sparse.from_json(value) if sparse else TensorEntry.from_json(value)


def _check_payloads(delta: Delta) -> None:
    names = [entry.name for entry in delta.tensors]
    if len(set(names)) != len(names):
        raise BundleFormatError("delta.tensors has a duplicate name")
    stored = [entry for entry in delta.tensors if isinstance(entry, Sparse) or entry.seeded is None]
    wanted = {entry.name for entry in stored} | {delta.canned.payload}
    if len(wanted) != len(stored) + 1 or wanted != set(delta.payloads):
        odd = sorted(wanted ^ set(delta.payloads)) or [delta.canned.payload]
        raise BundleFormatError(f"the payloads of the delta are not those in its manifest: {', '.join(odd):.200}")
    for entry in stored:
        check_payload(entry.name, delta.payloads[entry.name], entry.coding, getattr(entry, "shape", ()))


def apply_delta(parent: Bundle, delta: Delta) -> bytes:
    """Apply a delta to its parent and return the bytes of the resulting bundle.

    The result has the content of the published bundle (the content digests are compared), but other bytes, because it
    is compressed for speed. Every change is checked against its digest before the bundle is returned.

    Raises:
        BundleError: if the delta has another parent.
        BundleFormatError: if the delta is malformed or does not fit its parent.
        DigestError: if the result is not what the delta promises.
    """
    found = parent.manifest.content_sha256()
    if found != delta.parent:
        raise BundleError(f"the delta applies to the bundle with content {delta.parent}; this one has {found}")
    known = {entry.name: entry for entry in parent.manifest.tensors}
    payloads = dict(parent.payloads)
    del payloads[parent.manifest.canned.payload]
    for change in delta.tensors:
        old = known.get(change.name)
        if old is None:
            raise BundleFormatError(f"the delta changes tensor {change.name!r}, which its parent does not have")
        payloads.pop(change.name, None)
        if isinstance(change, Sparse):
            coded = _changed(old, parent.payloads.get(change.name), change, delta.payloads[change.name])
            known[change.name], new = coded.entry, coded.payload
        else:
            if change.shape != old.shape:
                raise BundleFormatError(f"tensor {change.name!r} has shape {old.shape}; the delta has {change.shape}")
            if (change.scale, change.role) != (old.scale, old.role):
                raise BundleFormatError(f"the delta gives tensor {change.name!r} another scale or role")
            decode(change, delta.payloads.get(change.name))
            known[change.name], new = change, delta.payloads.get(change.name)
        if new is not None:
            payloads[change.name] = new
    if delta.canned.payload in payloads:
        raise BundleFormatError(f"the delta's canned payload has the name of another payload: {delta.canned.payload!r}")
    payloads[delta.canned.payload] = delta.payloads[delta.canned.payload]
    manifest = replace(
        parent.manifest,
        release=delta.release,
        min_release=delta.min_release,
        tensors=tuple(known.values()),
        canned=delta.canned,
        measured=delta.measured,
    )
    data = write_container(manifest.dump(), payloads)
    result = read_bundle(data)
    result.canned_logits()
    if (content := result.manifest.content_sha256()) != delta.result:
        raise DigestError(f"the delta makes a bundle with content {content}; it promises {delta.result}")
    return data


def _changed(old: TensorEntry, before: Payload | None, change: Sparse, stored: Payload) -> Coded:
    """Add sparse differences to a tensor of the parent."""
    what = f"tensor {old.name!r} of the delta"
    if old.grid is None:
        raise BundleFormatError(f"{what} has coding {change.coding!r}, but its parent is not on a grid: {old.coding!r}")
    if change.count > old.elements:
        raise BundleFormatError(f"{what} changes {change.count} values; the tensor has {old.elements}")
    if sha256(stored.data) != change.coded_sha256:
        raise DigestError(f"{what}: the stored bytes do not match their digest")
    data = decompress(stored.data, change.size, what, change.coding.removeprefix("sparse-"))
    integers = add_sparse(integers_of(old, before), data, change.count, what)
    coded = encode_integers(old.name, integers, old.grid, old.coding.rpartition("-")[2], fast=True)
    if coded.entry.expanded_sha256 != change.expanded_sha256:
        raise DigestError(f"{what}: the expanded values do not match their digest")
    return replace(coded, entry=replace(coded.entry, scale=old.scale, role=old.role))


def write_delta(parent: Bundle, result: Bundle, *, compression: str = "zstd") -> bytes:
    """Write the delta from one bundle to another, and apply it once before returning it.

    A tensor that changed on the same grid travels as sparse differences, or whole where that is smaller. Pack the
    result on its parent's grid; otherwise every tensor travels whole.

    Raises:
        BundleError: if the bundles differ in more than release, tensor values and canned vectors (publish the full
            bundle then), or if the release does not grow.
    """
    old, new = parent.manifest, result.manifest
    _check_kin(old, new)
    known = {entry.name: entry for entry in old.tensors}
    tensors: list[Sparse | TensorEntry] = []
    payloads = {new.canned.payload: result.payloads[new.canned.payload]}
    for entry in new.tensors:
        before, payload = known[entry.name], result.payloads.get(entry.name)
        if entry.expanded_sha256 == before.expanded_sha256:
            continue
        change: Sparse | TensorEntry = entry
        if entry.grid is not None and entry.grid == before.grid:
            own = parent.payloads.get(entry.name)
            data, count = sparse_difference(integers_of(before, own), integers_of(entry, payload))
            frame = compress(data, compression)
            if payload is not None and len(frame) < len(payload.data):
                payload = Payload.of_bytes(frame)
                coding = f"sparse-{compression}"
                change = Sparse(entry.name, coding, sha256(frame), entry.expanded_sha256, len(data), count)
        tensors.append(change)
        if payload is not None:
            payloads[entry.name] = payload
    made = Delta(
        parent=old.content_sha256(),
        result=new.content_sha256(),
        release=new.release,
        min_release=new.min_release,
        tensors=tuple(tensors),
        canned=new.canned,
        payloads=payloads,
        measured=new.measured,
    )
    data = write_container(made._dump(), payloads)
    apply_delta(parent, read_delta(data))
    return data


def _check_kin(old: Manifest, new: Manifest) -> None:
    names: Sequence[str] = ("model", "family", "preprocessing", "labels", "rng")
    unlike = [name for name in names if getattr(old, name) != getattr(new, name)]
    if old.graph.sha256 != new.graph.sha256:
        unlike.append("graph")
    parts = [[(entry.name, entry.shape, entry.scale, entry.role) for entry in each.tensors] for each in (old, new)]
    if parts[0] != parts[1]:
        unlike.append("the names or shapes of their tensors")
    if unlike:
        raise BundleError(f"no delta can be made: the bundles differ in {', '.join(unlike)}")
    if new.release <= old.release:
        raise BundleError(f"a delta leads to a later release, not from {old.release} to {new.release}")
