"""A file of every kind that is read: formats, modes, transparency, EXIF orientations, in a few sizes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

HEIGHT, WIDTH = 20, 30
_FORMATS = {
    "png": ("1", "L", "LA", "P", "P clear", "P alpha", "RGB", "RGBA", "I;16", "1 key", "L key", "RGB key"),
    "jpg": ("L", "RGB", "CMYK"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "webp": ("RGB", "RGBA", "RGB lossless", "RGBA lossless"),
    "gif": ("1", "L", "P", "P clear"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B"),
    "ppm": ("1", "L", "RGB", "I;16"),
}
_XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
_SIZES = ((7, 9), (5, 90), (64, 21))


def _picture(height: int, width: int) -> np.ndarray:
    """A wave in each channel with some noise; uint8 [height, width, 4]."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(rows / (2 + k) + columns / (5 - k) + k) for k in range(4)]
    noise = np.random.default_rng(height * width).normal(0, 9, (height, width, 4))
    return np.clip(np.stack(waves, 2) + noise, 0, 255).astype(np.uint8)


def _save(picture: np.ndarray, path: Path, kind: str) -> None:
    mode, _, extra = kind.partition(" ")
    colours, options = Image.fromarray(np.ascontiguousarray(picture[..., :3])), {}
    if mode == "P":
        image = colours.quantize(32)
        options = {"clear": {"transparency": 3}, "alpha": {"transparency": bytes(range(0, 256, 8))}}.get(extra, {})
    elif mode in ("I;16", "I;16B"):
        order = ">u2" if mode == "I;16B" else "<u2"
        deep = picture[..., 0].astype(order) * 256 + picture[..., 1]
        image = Image.frombytes(mode, (picture.shape[1], picture.shape[0]), deep.astype(order).tobytes())
    elif mode == "RGBA":
        image = Image.fromarray(picture)
    elif mode == "LA":
        image = Image.fromarray(np.ascontiguousarray(picture[..., 2:]))
    else:
        image = colours.convert(mode)
    if extra == "key":
        pixel = image.getpixel((4, 3))
        options["transparency"] = pixel
    elif extra == "lossless":
        options = {"lossless": True, "exact": True}
    image.save(path, **options)


def _raw_png(picture: np.ndarray, bits: int, key: tuple[int, ...]) -> bytes:
    """A PNG that Pillow does not write: grey of 1 bit or RGB of 16, with a transparent colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = picture.shape[:2]
    if bits == 1:
        rows = [np.packbits(row > 127).tobytes() for row in picture[..., 0]]
    else:
        rows = [row.tobytes() for row in picture[..., :3].astype(">u2") * 256 + 77]
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if bits == 1 else 2, 0, 0, 0)
    keyed = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + keyed + pixels + chunk(b"IEND", b"")


def _save_turned(picture: Image.Image, folder: Path) -> None:
    """Save pictures that EXIF data or XMP turn."""
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        picture.save(folder / f"exif {turn}.jpg", exif=exif)
        picture.save(folder / f"exif {turn}.tif", exif=exif, compression=("raw", "tiff_lzw")[turn % 2])
        if turn in (3, 6):
            picture.save(folder / f"exif {turn}.webp", exif=exif, lossless=True)
            picture.save(folder / f"exif {turn}.png", exif=exif)
    picture.save(folder / "XMP.jpg", xmp=_XMP)
    picture.save(folder / "XMP.webp", xmp=_XMP, lossless=True)
    picture.save(folder / "XMP.tif", tiffinfo={700: _XMP})
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    picture.save(folder / "XMP.png", pnginfo=text)


def write_kinds(folder: Path) -> list[str]:
    """Write a picture of 20 x 30 pixels as each kind of file, a few of other sizes, and one for each EXIF value.

    Returns:
        The names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, kinds in _FORMATS.items():
        for kind in kinds:
            _save(_picture(HEIGHT, WIDTH), folder / f"{kind.replace(';', '')}.{suffix}", kind)
    for height, width in _SIZES:
        for kind in ("RGBA", "L"):
            _save(_picture(height, width), folder / f"{kind} {height}x{width}.png", kind)
    picture = _picture(HEIGHT, WIDTH)
    (folder / "1 key of 1.png").write_bytes(_raw_png(picture, 1, (1,)))
    low = tuple(picture[2, 2, :3].tolist())  # as 16 bits it is no colour of the picture
    (folder / "RGB16 key.png").write_bytes(_raw_png(picture, 16, low))
    _save_turned(Image.fromarray(np.ascontiguousarray(picture[..., :3])), folder)
    return sorted(path.name for path in folder.iterdir())
