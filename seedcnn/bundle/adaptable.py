"""The table of norms in a bundle: where a device finds them, so that it can give them statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedcnn.bundle import limits
from seedcnn.bundle.entries import NORMS, TensorEntry
from seedcnn.bundle.fields import Fields
from seedcnn.errors import BundleFormatError

__all__ = ["Site", "check_norms", "sites_from_json"]

_MOST_PLACES = 4


@dataclass(frozen=True)
class Site:
    """A norm that was folded away: a value of the graph, and the tensors that scale and shift its channels.

    Attributes:
        value: name of the value in the graph, [N, channels, ...].
        channels: of the value.
        places: (scale, bias, first), of which scale and bias are indices in the tensor table. The bias has n values,
            for n channels from ``first`` on; the scale's first axis has n or a multiple of n rows, as many in a row for
            each channel.
    """

    value: str
    channels: int
    places: tuple[tuple[int, int, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        flat = [index for place in self.places for index in place]
        return {"value": self.value, "channels": self.channels, "places": flat}

    @classmethod
    def from_json(cls, value: Any) -> Site:
        """Parse the wire form."""
        f = Fields(value, "manifest.norms[]")
        most = limits.MAX_TENSOR_BYTES // 4
        flat = f.integers("places", 0, most, 3 * _MOST_PLACES)
        if not flat or len(flat) % 3:
            raise BundleFormatError(f"manifest.norms[].places must hold one triple or more, not {len(flat)} integers")
        places = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
        site = cls(f.text("value"), f.integer("channels", 1, most), places)
        f.end()
        return site


def sites_from_json(values: Sequence[Any]) -> tuple[Site, ...]:
    """Parse the table, which has one norm or more."""
    if not values:
        raise BundleFormatError("manifest.norms is empty; leave it out")
    return tuple(Site.from_json(value) for value in values)


def check_norms(sites: Sequence[Site], entries: Sequence[TensorEntry]) -> None:
    """Check the table of norms against the tensor table.

    One tensor of the role "norms", [2, channels of all sites], holds what the sites' values have on the training
    images: the means, and the standard deviations, which are at least 0.

    Raises:
        BundleFormatError: if the tensor is missing, is one of several, or has another shape; if a site's places are not
            tensors of the graph that fit its channels; or if two sites have one value.
    """
    found = [entry for entry in entries if entry.role == NORMS]
    if not sites and not found:
        return
    if len(found) != 1:
        raise BundleFormatError(f"{len(found)} tensors have the role {NORMS!r}; a table of norms needs one")
    if not sites:
        raise BundleFormatError(f"tensor {found[0].name!r} has the role {NORMS!r}, but there is no table of norms")
    total = sum(site.channels for site in sites)
    if found[0].shape != (2, total) or found[0].seeded is not None:
        raise BundleFormatError(f"tensor {found[0].name!r} has shape {found[0].shape}; the norms need (2, {total})")
    if len({site.value for site in sites}) != len(sites):
        raise BundleFormatError("manifest.norms has a duplicate value")
    for site in sites:
        for place in site.places:
            _check_place(site, place, entries)


def _check_place(site: Site, place: tuple[int, int, int], entries: Sequence[TensorEntry]) -> None:
    scale, bias, first = place
    what = f"the norm at {site.value!r}"
    for index in (scale, bias):
        if index >= len(entries):
            raise BundleFormatError(f"{what} names tensor {index}; there are {len(entries)}")
        if entries[index].role or entries[index].seeded is not None:
            raise BundleFormatError(f"{what} names tensor {entries[index].name!r}, no learned one of the graph")
    rows, count = entries[scale].shape[:1], entries[bias].elements
    if scale == bias or first + count > site.channels or not rows or rows[0] % count:
        shapes = f"{entries[scale].shape} and {entries[bias].shape}"
        raise BundleFormatError(f"{what} of {site.channels} channels cannot scale and shift tensors of shape {shapes}")
