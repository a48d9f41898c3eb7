"""The rule by which a picture becomes an input, as data; :mod:`seedcnn.runtime.pictures` applies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import floor
from typing import Any

from seedcnn.bundle import limits
from seedcnn.bundle.fields import Fields
from seedcnn.errors import BundleFormatError

__all__ = ["FILTERS", "MODES", "ORIENTATIONS", "Preprocessing"]

MODES = ("crop", "squash", "pad", "none")
FILTERS = ("bilinear", "bicubic", "box", "nearest")
ORIENTATIONS = ("exif", "stored")
CROP_PCT = 0.875
"""Share of the short side that the middle takes if nothing else is said, as in timm and torchvision (224 of 256)."""

_MEAN = 10**10


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network, float32 [channels, height, width].

    In this order: the picture is turned upright (``orientation``), gets ``channels`` channels, its transparent pixels
    show ``background``, it takes the size (``resize``, ``filter``), and x becomes (x / 255 - mean) / std. The exact
    arithmetic is in docs/bundle-format.md. :meth:`crop`, :meth:`squash`, :meth:`pad` and :meth:`exact` are shorter.

    Attributes:
        height, width: of the input, in pixels.
        mean_e8, std_e8: one number for each channel, of values in 0..1, in units of 1e-8.
        channels: 3 (RGB) or 1 (grey, ITU-R 601).
        resize: "crop" scales the short side to ``short_side`` and keeps the middle; "squash" scales each side by
            itself; "pad" scales the picture to fit and fills the rest with ``fill``; "none" refuses other sizes.
        short_side: pixels, at least as long as both sides of the input; 0 unless ``resize`` is "crop".
        filter: "bilinear", "bicubic", "box" or "nearest"; all but the last are antialiased.
        orientation: "exif" turns a picture as its EXIF data say, "stored" leaves it.
        background: red, green and blue under transparent pixels.
        fill: one number for each channel around a picture; empty unless ``resize`` is "pad".

    Raises:
        ValueError: naming the attribute, its value and the rule.
    """

    height: int
    width: int
    mean_e8: tuple[int, ...]
    std_e8: tuple[int, ...]
    channels: int = 3
    resize: str = "none"
    short_side: int = 0
    filter: str = "bilinear"
    orientation: str = "exif"
    background: tuple[int, ...] = (255, 255, 255)
    fill: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean_e8", "std_e8", "background", "fill"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        try:
            if Preprocessing.from_json(self.to_json(), check=False) != self:
                raise ValueError(f"a rule with `resize` (={self.resize!r}) takes no `short_side` or `fill` of its own")
        except BundleFormatError as error:
            raise ValueError(str(error)) from None

    @classmethod
    def crop(cls, size: int | tuple[int, int], *, short_side: int | None = None, **options: Any) -> Preprocessing:
        """Scale the short side and keep the middle: ``Resize`` and ``CenterCrop`` of torchvision and timm.

        Args:
            size: pixels of a square, or (height, width).
            short_side: pixels before the crop; the default is the longer side of ``size`` over 0.875.
            options: ``channels`` (3), ``mean`` and ``std`` (numbers in 0..1, one for each channel or one for all; 0
                and 1), ``filter``, ``orientation``, ``background``.
        """
        height, width = _sides(size)
        short_side = floor(max(height, width) / CROP_PCT) if short_side is None else short_side
        return cls._made(height, width, "crop", short_side=short_side, **options)

    @classmethod
    def squash(cls, size: int | tuple[int, int], **options: Any) -> Preprocessing:
        """Scale each side by itself; options as for :meth:`crop`."""
        return cls._made(*_sides(size), "squash", **options)

    @classmethod
    def pad(cls, size: int | tuple[int, int], *, fill: int | Sequence[int] = 114, **options: Any) -> Preprocessing:
        """Scale the picture to fit, and fill the rest; options as for :meth:`crop`."""
        channels = options.get("channels", 3)
        filling = (fill,) * channels if isinstance(fill, int) else tuple(fill)
        return cls._made(*_sides(size), "pad", fill=filling, **options)

    @classmethod
    def exact(cls, size: int | tuple[int, int], **options: Any) -> Preprocessing:
        """Take pictures of this size only; options as for :meth:`crop`, except ``filter``."""
        return cls._made(*_sides(size), "none", **options)

    @classmethod
    def _made(
        cls,
        height: int,
        width: int,
        resize: str,
        *,
        channels: int = 3,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        **fields: Any,
    ) -> Preprocessing:
        means, stds = _units(mean, channels), _units(std, channels)
        return cls(height, width, means, stds, channels, resize, **fields)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, of values in 0..1."""
        return tuple(value / 1e8 for value in self.mean_e8)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, of values in 0..1."""
        return tuple(value / 1e8 for value in self.std_e8)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return self.channels, self.height, self.width

    def in_words(self) -> str:
        """Return the rule as a sentence without a full stop."""
        ways = {
            "crop": f"short side to {self.short_side}, then the middle",
            "squash": "each side scaled by itself",
            "pad": f"scaled to fit, filled with {', '.join(map(str, self.fill))}",
            "none": "other sizes are refused",
        }
        way = ways[self.resize] + ("" if self.resize == "none" else f", {self.filter}")
        numbers = [", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std)]
        turned = "as EXIF says" if self.orientation == "exif" else "as stored"
        size = " x ".join(map(str, self.shape))
        return f"input {size}: {way}, turned {turned}; mean {numbers[0]}, standard deviation {numbers[1]}"

    def differences(self, other: Preprocessing) -> str:
        """Return the fields that another rule has otherwise, with both values; "" if there are none."""
        found = []
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(other, each.name)
            if ours != theirs:
                found.append(f"{each.name} {ours} and {theirs}")
        return "; ".join(found)

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        result: dict[str, Any] = {"channels": self.channels, "height": self.height, "width": self.width}
        result |= {"resize": self.resize, "orientation": self.orientation, "background": list(self.background)}
        if self.resize != "none":
            result["filter"] = self.filter
        if self.resize == "crop":
            result["short_side"] = self.short_side
        elif self.resize == "pad":
            result["fill"] = list(self.fill)
        return result | {"mean_e8": list(self.mean_e8), "std_e8": list(self.std_e8)}

    @classmethod
    def from_json(cls, value: Any, what: str = "preprocessing", *, check: bool = True) -> Preprocessing:
        """Parse and check the wire form.

        Args:
            what: begins the messages.
            check: False skips the constructor's own check, which would come here again.

        Raises:
            BundleFormatError: naming the field, its value and the rule.
        """
        f = Fields(value, what)
        most = limits.MAX_IMAGE_SIDE
        channels = f.integer("channels", 1, 3)
        if channels == 2:
            raise BundleFormatError(f"{what}.channels must be 1 or 3, not 2")
        height, width = f.integer("height", 1, most), f.integer("width", 1, most)
        resize = f.one_of("resize", MODES)
        found: dict[str, Any] = {"orientation": f.one_of("orientation", ORIENTATIONS)}
        found["background"] = _numbers(f, "background", 0, 255, 3)
        if resize != "none":
            found["filter"] = f.one_of("filter", FILTERS)
        if resize == "crop":
            found["short_side"] = f.integer("short_side", max(height, width), most)
        elif resize == "pad":
            found["fill"] = _numbers(f, "fill", 0, 255, channels)
        mean, std = _numbers(f, "mean_e8", -_MEAN, _MEAN, channels), _numbers(f, "std_e8", 1, _MEAN, channels)
        f.end()
        if check:
            return cls(height, width, mean, std, channels, resize, **found)
        made = object.__new__(cls)
        defaults = {"short_side": 0, "filter": "bilinear", "fill": ()}
        facts = {"channels": channels, "height": height, "width": width, "resize": resize}
        for name, each in {**defaults, **facts, "mean_e8": mean, "std_e8": std, **found}.items():
            object.__setattr__(made, name, each)
        return made


def _numbers(f: Fields, name: str, low: int, high: int, count: int) -> tuple[int, ...]:
    values = f.integers(name, low, high, count)
    if len(values) != count:
        raise BundleFormatError(f"{f.what}.{name} must hold {count} integers, not {len(values)}")
    return values


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _units(value: float | Sequence[float], channels: int) -> tuple[int, ...]:
    values = (value,) * channels if isinstance(value, (int, float)) else value
    return tuple(round(float(each) * 1e8) for each in values)
