"""From files to inputs: every mode has one meaning, and a rule does what it says."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from seedcnn.bundle import Preprocessing
from seedcnn.errors import ImageError
from seedcnn.runtime.pictures import canned_pictures, load_picture, prepare, read_picture, read_size
from seedcnn.runtime.resampling import resample

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
EXACT = Preprocessing.exact((20, 30))


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(width, height, bits=8, colour=2, key=b"", rows=b""):
    """A PNG that claims a size, with these rows or no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"tRNS", key) if key else b"", chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def test_a_key_of_1_bit_is_the_stored_value_and_one_of_16_bits_is_ignored():
    for key, alpha in ((0, [255, 0]), (1, [0, 255])):
        bits = png(2, 1, 1, 0, struct.pack(">H", key), b"\0\x80")
        np.testing.assert_array_equal(read_picture(bits), [[[255, alpha[0]], [0, alpha[1]]]])
    deep = png(1, 1, 16, 2, struct.pack(">3H", 1, 2, 3), b"\0" + struct.pack(">3H", 256 + 7, 512 + 7, 768 + 7))
    np.testing.assert_array_equal(read_picture(deep), [[[1, 2, 3]]])


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_files_come_back_exactly(tmp_path, format):
    (tmp_path / "x").write_bytes(encoded(Image.fromarray(RGB), format))
    np.testing.assert_array_equal(load_picture(tmp_path / "x", EXACT), RGB)
    np.testing.assert_array_equal(load_picture((tmp_path / "x").read_bytes(), EXACT), RGB)


def test_grey_palettes_bits_and_16_bits():
    grey = RGB[..., 0]
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(grey)))[..., 0], grey)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 200)
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_picture(encoded(deep, format))[..., 0], grey)
    bits = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(read_picture(encoded(bits))[..., 0], np.where(grey > 127, 255, 0))
    palette = Image.fromarray(RGB).quantize(64)
    np.testing.assert_array_equal(read_picture(encoded(palette)), np.asarray(palette.convert("RGB")))
    with_hole = encoded(palette, transparency=3)
    found = read_picture(with_hole)
    assert found.shape == (20, 30, 4)
    np.testing.assert_array_equal(found[..., 3], np.where(np.asarray(palette) == 3, 0, 255))
    keyed = encoded(Image.fromarray(RGB), transparency=tuple(RGB[0, 0].tolist()))
    assert read_picture(keyed)[0, 0, 3] == 0


def test_cmyk_is_ink_on_white():
    inks = np.random.default_rng(1).integers(0, 256, (8, 8, 4), np.uint8)
    image = Image.fromarray(inks, "CMYK")
    found = read_picture(encoded(image, "TIFF")).astype(int)
    exact = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    assert np.abs(found - exact).max() <= 0.51
    assert np.abs(found - np.asarray(image.convert("RGB"))).max() <= 1
    white = Image.new("CMYK", (16, 16), 0)
    assert (read_picture(encoded(white, "JPEG")) == 255).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])  # Pillow turns a TIFF itself
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_a_picture_upright(turn, format):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(Image.fromarray(RGB), format, exif=exif)
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read_picture(data), upright)
    np.testing.assert_array_equal(read_picture(data, orientation="stored"), RGB)
    assert read_size(data) == upright.shape[:2]
    assert read_size(data, orientation="stored") == (20, 30)


def test_the_size_is_read_from_the_head(tmp_path):
    data = encoded(Image.fromarray(RGB))[:1000]
    assert read_size(data) == (20, 30)
    (tmp_path / "x.png").write_bytes(data)
    assert read_size(tmp_path / "x.png") == (20, 30)
    with pytest.raises(ImageError, match=r"absent\.png does not exist"):
        read_size(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="at most 50000000 are allowed"):
        read_size(png(8000, 8000))
    with pytest.raises(ImageError, match="is not a picture of a known format"):
        read_size(b"no picture")


def test_broken_exif_and_colour_profiles_are_ignored():
    data = encoded(Image.fromarray(RGB), exif=b"Exif\0\0II*\0\xff\xff\xff\xff", icc_profile=b"broken")
    np.testing.assert_array_equal(read_picture(data), RGB)


@pytest.mark.parametrize("format", ["WEBP", "TIFF"])
def test_xmp_turns_nothing(format):
    says = b'<rdf:Description tiff:Orientation="6"/>'
    options = {"tiffinfo": {700: says}} if format == "TIFF" else {"xmp": says, "lossless": True}
    data = encoded(Image.fromarray(RGB), format, **options)
    assert says in data
    for orientation in ("exif", "stored"):
        np.testing.assert_array_equal(read_picture(data, orientation=orientation), RGB)


def test_transparent_pixels_show_the_background():
    picture = np.dstack([RGB, np.random.default_rng(2).integers(0, 256, (20, 30), np.uint8)])
    exact = (RGB * (picture[..., 3:] / 255)) + np.array([10, 200, 30]) * (1 - picture[..., 3:] / 255)
    rule = dataclasses.replace(EXACT, background=(10, 200, 30))
    assert np.abs(prepare(picture, rule) - exact).max() <= 0.51
    white = np.asarray(Image.alpha_composite(Image.new("RGBA", (30, 20), "white"), Image.fromarray(picture)))
    assert np.abs(prepare(picture, EXACT).astype(int) - white[..., :3]).max() <= 1
    clear = picture.copy()
    clear[..., 3] = 0
    assert (prepare(clear, EXACT) == 255).all()
    grey = Preprocessing.exact((20, 30), channels=1, background=(10, 200, 30))
    assert (prepare(clear, grey) == (10 * 19595 + 200 * 38470 + 30 * 7471 + 32768) >> 16).all()
    assert (prepare(clear[..., 2:], rule) == [10, 200, 30]).all()


def test_one_channel_is_luma():
    found = prepare(RGB, Preprocessing.exact((20, 30), channels=1))
    np.testing.assert_array_equal(found[..., 0], np.asarray(Image.fromarray(RGB).convert("L")))
    np.testing.assert_array_equal(prepare(found, EXACT), np.repeat(found, 3, 2))


@pytest.mark.parametrize(("h", "w"), [(20, 30), (31, 20), (7, 501), (500, 9), (24, 24), (21, 28)])
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_crop_is_torchvisions(h, w, filter):
    from torchvision.transforms import v2

    picture = np.random.default_rng(h).integers(0, 256, (h, w, 3), np.uint8)
    rule = Preprocessing.crop((16, 13), short_side=21, filter=filter)
    mode = v2.InterpolationMode(filter)
    theirs = v2.Compose([v2.Resize(21, mode), v2.CenterCrop((16, 13))])(Image.fromarray(picture))
    found = prepare(picture, rule)
    # Pillow may go along the height first, which rounds elsewhere.
    assert np.abs(found.astype(int) - np.asarray(theirs)).max() <= (2 if filter == "bilinear" else 40)
    assert np.abs(found.astype(int) - np.asarray(theirs)).mean() < 0.6


def test_squash_and_pad():
    found = prepare(RGB, Preprocessing.squash((12, 12)))
    np.testing.assert_array_equal(found, resample(RGB, 12, 12))
    padded = prepare(RGB, Preprocessing.pad((31, 30), fill=(1, 2, 3)))
    np.testing.assert_array_equal(padded[5:25], RGB)
    assert (padded[:5] == [1, 2, 3]).all()
    assert (padded[25:] == [1, 2, 3]).all()
    thin = prepare(RGB[:1], Preprocessing.pad(10, fill=9))
    assert (thin[4] != 9).any()
    assert (thin[np.arange(10) != 4] == 9).all()


def test_other_sizes_are_refused_where_the_rule_says_so(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(Image.fromarray(RGB)))
    with pytest.raises(ImageError, match=r"x\.png has 30 x 20 pixels; the model takes 32 x 32 and no other"):
        load_picture(tmp_path / "x.png", Preprocessing.exact(32))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(100)])
def test_what_is_no_picture(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.png (is not a picture of a known format|cannot be decoded)"):
        read_picture(tmp_path / "x.png")


def test_damaged_missing_and_strange_files(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(Image.fromarray(RGB))[:1000])
    with pytest.raises(ImageError, match=r"x\.png cannot be decoded"):
        read_picture(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"absent\.png does not exist"):
        read_picture(tmp_path / "absent.png")
    with pytest.raises(ImageError, match=r"is a directory without a picture"):
        read_picture(tmp_path)
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    with pytest.raises(ImageError, match="has 2 frames; a picture has one"):
        read_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert read_picture(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])).shape == (20, 30, 3)
    with pytest.raises(ImageError, match="mode F"):
        read_picture(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("size", [(8000, 8000), (12_000, 12_000), (60_000, 60_000), (70_000, 2)])
def test_a_bomb_is_not_decompressed(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png(*size))
    with pytest.raises(ImageError, match=r"at most 50000000 are allowed|decompression bomb|a side must be in"):
        read_picture(tmp_path / "x.png")


def test_a_needle_is_cut_or_refused():
    needle = np.zeros((1, 5000, 3), np.uint8)
    assert prepare(needle, Preprocessing.crop(8)).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"has 5000 x 1 pixels: with 256 .* would have 1280000"):
        prepare(needle, Preprocessing.crop(224))


@pytest.mark.parametrize(
    "rule",
    [
        Preprocessing.crop(9),
        Preprocessing.squash((5, 8), filter="box"),
        Preprocessing.pad(12, fill=7, channels=1),
        Preprocessing.exact((3, 4)),
    ],
)
def test_canned_pictures_depend_on_every_part_of_the_rule(rule):
    pictures = canned_pictures(5, rule)
    assert {channels for _, _, channels in pictures.sizes} == {1, 2, 3, 4}
    assert len({sizes[:2] for sizes in pictures.sizes}) == (1 if rule.resize == "none" else 2)
    for change in ({"background": (1, 2, 3)}, {"filter": "nearest"}, {"fill": (9,)}, {"short_side": 13}):
        (name,) = change
        if name == "background" or name in rule.to_json():
            other = canned_pictures(5, dataclasses.replace(rule, **change))
            assert other.sha256 != pictures.sha256, change


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Preprocessing.crop(0), r"height must be an integer in \[1, 4096\], not 0"),
        (lambda: Preprocessing.crop(96, short_side=90), r"short_side must be an integer in \[96, 4096\], not 90"),
        (lambda: Preprocessing.crop(96, filter="lanczos"), "filter must be one of bilinear, bicubic, box, nearest"),
        (lambda: Preprocessing.crop(96, channels=2), "channels must be 1 or 3"),
        (lambda: Preprocessing.crop(96, mean=(0.5,) * 2), "mean_e8 must hold 3 integers, not 2"),
        (lambda: Preprocessing.crop(96, std=0.0), "std_e8 must hold integers in"),
        (lambda: Preprocessing.pad(96, fill=(1, 2)), "fill must hold 3 integers, not 2"),
        (lambda: dataclasses.replace(EXACT, short_side=40), "takes no `short_side` or `fill`"),
        (lambda: dataclasses.replace(EXACT, resize="stretch"), "resize must be one of crop, squash, pad, none"),
        (lambda: dataclasses.replace(EXACT, background=(256, 0, 0)), "background must hold integers in"),
    ],
)
def test_rules_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_long_crops_have_canned_pictures_too():
    for rule in (Preprocessing.crop((32, 2048), short_side=2340), Preprocessing.crop((1, 4096), short_side=4096)):
        assert len(canned_pictures(5, rule).sizes) == 8


def test_rules_come_back_from_json():
    for rule in (Preprocessing.crop(96, mean=0.5, std=0.25), Preprocessing.pad((4, 5), channels=1), EXACT):
        assert Preprocessing.from_json(rule.to_json()) == rule
    assert Preprocessing.crop(224).short_side == 256
    assert Preprocessing.crop(96, mean=0.5, std=0.25).mean == (0.5, 0.5, 0.5)
