"""Folders of images: the decoders against torchvision, order, and damaged files, which are never dropped silently."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from seedcnn.data.image_set import limited
from seedcnn.data.pictures.folder import CenterCrop, FullFrame, list_class_folders
from seedcnn.errors import DataError


@pytest.fixture
def tree(tmp_path, save_picture):
    """Three classes with 5, 1 and 4 images, and their pixels by name."""
    pixels = {}
    for number, (label, count) in enumerate([("ant", 5), ("bee", 1), ("cat", 4)]):
        for i in range(count):
            name = f"{label}/{i}.png"
            pixels[name] = save_picture(tmp_path / name, seed=10 * number + i)
    return tmp_path, pixels


def listed(root, **more):
    return list_class_folders(root, "Zoo", "<class>/*.png", suffixes=(".png",), **more)


def whole(image):
    return np.asarray(image)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (33, 33), (257, 123)])
def test_decoders_do_what_torchvision_does(save_picture, tmp_path, size):
    image = Image.fromarray(save_picture(tmp_path / "a.png", size))
    ours = FullFrame(32)(image)
    np.testing.assert_array_equal(ours, np.asarray(transforms.Resize((32, 32))(image)))
    usual = transforms.Compose([transforms.Resize(29), transforms.CenterCrop(22)])
    np.testing.assert_array_equal(CenterCrop(22, 29)(image), np.asarray(usual(image)))
    np.testing.assert_array_equal(CenterCrop(25, None)(image), np.asarray(transforms.CenterCrop(25)(image)))
    assert not np.array_equal(ours, FullFrame(32, Image.Resampling.NEAREST)(image))
    assert not np.array_equal(CenterCrop(22, 29)(image), CenterCrop(22, 29, Image.Resampling.NEAREST)(image))


def test_listing_is_sorted_and_knows_pictures(tree):
    root, pixels = tree
    (root / "ant" / "notes.txt").write_text("no picture")
    (root / "ant" / "._0.png").write_text("what a file manager left")
    (root / ".hidden").mkdir()
    (root / "stray.png").write_text("in no class")
    (root / "bee" / "1.PNG").write_bytes((root / "bee" / "0.png").read_bytes())
    folder = listed(root)
    assert folder.names.tolist() == sorted([*pixels, "bee/1.PNG"])
    assert folder.classes == ("ant", "bee", "cat")
    assert folder.labels.tolist() == [0] * 5 + [1] * 2 + [2] * 4
    assert str(root) in folder.source


@pytest.mark.parametrize("size", [1, 3, 10, 64])
@pytest.mark.parametrize("threads", [1, 4])
def test_batches_are_in_order_and_can_be_read_again(tree, size, threads):
    root, pixels = tree
    batches = listed(root).batches(size, whole, threads=threads)
    for _ in range(2):
        parts = list(batches)
        assert len(parts) == len(batches)
        assert [len(part.images) for part in parts[:-1]] == [size] * (len(parts) - 1)
        np.testing.assert_array_equal(np.concatenate([p.images for p in parts]), np.stack(list(pixels.values())))
        np.testing.assert_array_equal(np.concatenate([p.labels for p in parts]), listed(root).labels)
        assert np.concatenate([p.indices for p in parts]).tolist() == list(range(10))
    assert batches.skipped == []


def test_only_what_is_read_is_decoded(tree):
    decoded = []
    batches = listed(tree[0]).batches(2, lambda image: (decoded.append(1), np.asarray(image))[1], threads=1)
    iterator = iter(batches)
    next(iterator)
    iterator.close()
    assert len(decoded) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_take_and_load(tree):
    root, pixels = tree
    data = listed(root).take([9, 0]).load(whole)
    assert data.names.tolist() == ["cat/3.png", "ant/0.png"]
    assert data.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(data.images[0], pixels["cat/3.png"])
    assert data.skipped == ()
    with pytest.raises(DataError, match="is selected; there is nothing to load"):
        listed(root).take([]).load(whole)


def test_limited_folder(tree):
    part = limited(listed(tree[0]), 0.5, seed=1)
    assert np.bincount(part.labels).tolist() == [3, 1, 2]
    assert part.load(whole).names.tolist() == part.names.tolist()


def damage(root):
    good = (root / "ant/2.png").read_bytes()
    (root / "ant/2.png").write_bytes(good[: len(good) // 2])
    (root / "bee/0.png").write_bytes(b"")
    (root / "cat/1.png").write_text("<html>404</html>")


def test_damaged_files_are_counted_and_named(tree):
    damage(tree[0])
    folder = listed(tree[0])
    with pytest.raises(DataError) as caught:
        folder.load(whole)
    for words in ("3 of 10 images", str(tree[0]), "ant/2.png (", "bee/0.png (", "cat/1.png (is not a picture"):
        assert words in str(caught.value)
    assert [each.name for each in folder.unreadable(whole)] == ["ant/2.png", "bee/0.png", "cat/1.png"]


def test_of_many_damaged_files_the_first_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(9):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"9 of 9 images .*a/0\.png .*a/4\.png .* and 4 more$"):
        listed(tmp_path).load(whole)
    with pytest.raises(DataError, match="9 of 9 images"):
        listed(tmp_path).load(whole, on_error="skip")


def test_skipping_is_asked_for_and_reported(tree, caplog):
    root, pixels = tree
    damage(root)
    data = listed(root).load(whole, on_error="skip")
    assert [each.name for each in data.skipped] == ["ant/2.png", "bee/0.png", "cat/1.png"]
    assert all(each.reason for each in data.skipped)
    assert "3 of 10 images" in caplog.text
    assert data.names.tolist() == [name for name in pixels if name not in {each.name for each in data.skipped}]
    np.testing.assert_array_equal(data.images, np.stack([pixels[name] for name in data.names]))
    assert data.labels.tolist() == [0] * 4 + [2] * 3


def test_streams_stop_at_the_batch_or_list_what_they_skip(tree):
    damage(tree[0])
    seen = []
    with pytest.raises(DataError, match=r"1 of 2 images .*ant/2\.png"):
        seen.extend(listed(tree[0]).batches(2, whole))
    assert [part.indices.tolist() for part in seen] == [[0, 1]]
    batches = listed(tree[0]).batches(1, whole, on_error="skip")
    for _ in range(2):
        assert [part.indices.item() for part in batches] == [0, 1, 3, 4, 6, 8, 9]
        assert len(batches.skipped) == 3


def test_every_mode_becomes_rgb(tmp_path, save_picture):
    pixels = save_picture(tmp_path / "a/0.png")
    image = Image.fromarray(pixels)
    image.convert("RGBA").save(tmp_path / "a/1.png")
    palette = image.quantize(16)
    palette.save(tmp_path / "a/2.png", transparency=bytes(range(16)))
    image.convert("L").save(tmp_path / "a/3.png")
    images = listed(tmp_path).load(whole).images
    np.testing.assert_array_equal(images[1], pixels)
    alpha = np.asarray(palette)[..., None] / 255  # the palette's first 16 entries are as opaque as their number
    over_white = np.asarray(palette.convert("RGB")) * alpha + 255 * (1 - alpha)
    assert np.abs(images[2] - over_white).max() <= 0.51
    np.testing.assert_array_equal(images[3], np.asarray(image.convert("L").convert("RGB")))


def test_pictures_of_several_sizes_need_a_decoder(tree, save_picture):
    save_picture(tree[0] / "cat/9.png", (7, 7))
    with pytest.raises(DataError, match=r"uint8 \(6, 8, 3\), uint8 \(7, 7, 3\); all images .* one size"):
        listed(tree[0]).load(whole)
    assert listed(tree[0]).load(FullFrame(5)).images.shape == (11, 5, 5, 3)


def test_too_small_for_the_crop_is_a_damaged_file(tree):
    with pytest.raises(DataError, match="8 x 6 pixels; the crop needs 7 x 7"):
        listed(tree[0]).load(CenterCrop(7, None))


@pytest.mark.parametrize(
    ("decode", "error", "words"),
    [
        (
            lambda i: np.asarray(i, np.float32),
            ValueError,
            r"returned an image of float32 \(6, 8, 3\); it must return uint8",
        ),
        (
            lambda i: np.asarray(i.convert("L")),
            ValueError,
            r"returned an image of uint8 \(6, 8\); it must return uint8 \[H",
        ),
        (lambda i: i.no_such_method(), AttributeError, "no_such_method"),
    ],
)
def test_a_wrong_decoder_is_no_damaged_file(tree, decode, error, words):
    for on_error in ("raise", "skip"):
        with pytest.raises(error, match=words):
            listed(tree[0]).load(decode, on_error=on_error)


def test_missing_folders(tmp_path):
    with pytest.raises(DataError, match=r"does not exist\. Expected for Zoo: <class>/\*\.png"):
        listed(tmp_path / "nowhere")
    (tmp_path / "stray.png").write_text("")
    with pytest.raises(DataError, match=r"holds no Zoo\. Expected: .* Found: stray\.png"):
        listed(tmp_path)
    with pytest.raises(DataError, match="is not a directory"):
        listed(tmp_path / "stray.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"class folder .*empty holds no image \(\.png\)"):
        listed(tmp_path)
    with pytest.raises(DataError, match=r"has 1 class folders; Zoo has 7\. Found: empty"):
        listed(tmp_path, classes=7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: f.batches(0, whole), r"`size` \(=0\) must be at least 1"),
        (lambda f: f.batches(1, whole, on_error="ignore"), r"`on_error` \(='ignore'\) must be 'raise' or 'skip'"),
        (lambda f: f.load(whole, on_error=""), "`on_error`"),
        (lambda f: f.batches(1, whole, threads=0), r"`threads` \(=0\) must be at least 1"),
        (lambda f: CenterCrop(224, 200), r"`resize` \(=200\) must be at least `size` \(=224\)"),
    ],
)
def test_wrong_arguments(tree, call, words):
    with pytest.raises(ValueError, match=words):
        call(listed(tree[0]))
