"""Small versions of GTSRB in the layouts of the official archives and of torchvision."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from seedcnn.data.image_set import channel_statistics
from seedcnn.data.sets.gtsrb import CLASSES, list_gtsrb, load_gtsrb
from seedcnn.errors import DataError

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, save_picture):
    """43 training classes of two images, four test images, and the table of labels, in no layout yet."""
    base = tmp_path_factory.mktemp("gtsrb")
    for label in range(43):
        for track in range(2):
            size = (20 + label, 25 + track)
            save_picture(base / f"train/{label:05d}/00000_{track:05d}.ppm", size, seed=2 * label + track)
        (base / f"train/{label:05d}/GT-{label:05d}.csv").write_text(HEADER)
    for i in range(4):
        save_picture(base / f"test/{i:05d}.ppm", (30 + i, 40), seed=1000 + i)
    rows = [f"{i:05d}.ppm;{30 + i};40;5;5;25;35;{label}\n" for i, label in enumerate([16, 1, 42, 0])]
    (base / "GT-final_test.csv").write_text(HEADER + "".join(rows))
    return base


LAYOUTS = {
    "archives": ("GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images", "GTSRB/GT-final_test.csv"),
    "inside": ("Final_Training/Images", "Final_Test/Images", "Final_Test/Images/GT-final_test.csv"),
    "beside": ("GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images", "GT-final_test.csv"),
    "torchvision": ("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"),
}


@pytest.fixture
def lay(pictures, tmp_path):
    def make(layout="archives"):
        for source, place in zip(("train", "test", "GT-final_test.csv"), LAYOUTS[layout], strict=True):
            target = tmp_path / layout / place
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copy if source.endswith(".csv") else shutil.copytree)(pictures / source, target)
        return tmp_path / layout

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(pictures, lay, layout):
    data = load_gtsrb(lay(layout), verify=False)
    assert data.train.images.shape == (86, 32, 32, 3)
    assert data.train.labels.tolist() == [label for label in range(43) for _ in range(2)]
    assert data.test.labels.tolist() == [16, 1, 42, 0]
    with Image.open(pictures / "test/00002.ppm") as image:
        np.testing.assert_array_equal(data.test.images[2], np.asarray(image.resize((32, 32), Image.BILINEAR)))
    assert data.classes == CLASSES
    assert len(set(CLASSES)) == 43
    assert (data.mean, data.std) == channel_statistics(data.train.images)


def test_a_byte_order_mark_and_upper_case_names(lay):
    usual = load_gtsrb(lay(), verify=False)
    root = lay("beside")
    for path in root.rglob("*.ppm"):
        path.rename(path.with_name(path.name.upper()))
    table = root / "GT-final_test.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    data = load_gtsrb(root, verify=False)
    assert data.test.labels.tolist() == [16, 1, 42, 0]
    assert data.test.names.tolist() == ["00000.PPM", "00001.PPM", "00002.PPM", "00003.PPM"]
    assert data.train.names[0] == "00000/00000_00000.PPM"
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(data, part).images, getattr(usual, part).images)
        np.testing.assert_array_equal(getattr(data, part).labels, getattr(usual, part).labels)


def test_names_that_differ_only_in_case(lay):
    root = lay()
    images = root / "GTSRB/Final_Test/Images"
    shutil.copy(images / "00003.ppm", images / "00003.PPM")
    with pytest.raises(DataError, match=r"Images holds images whose names differ only in case: 00003\.PPM"):
        list_gtsrb(root, verify=False)


def test_agrees_with_torchvision(lay):
    root = lay("torchvision")
    for split, ours in zip(("train", "test"), list_gtsrb(root, verify=False), strict=True):
        theirs = datasets.GTSRB(str(root), split)
        assert [(str(ours.root / name), label) for name, label in zip(ours.names, ours.labels, strict=True)] == [
            (str(path), label) for path, label in theirs._samples
        ]


def test_the_full_training_set_goes_first_and_the_size_is_free(pictures, lay):
    root = lay()
    shutil.copytree(pictures / "train", root / "GTSRB/Training")
    (root / "GTSRB/Training/00000/00000_00000.ppm").unlink()
    data = load_gtsrb(root, size=12, verify=False)
    assert data.train.images.shape == (86, 12, 12, 3)


def test_the_numbers_of_pictures_are_checked(lay):
    with pytest.raises(DataError, match=r"Final_Training/Images has 86 images; the original has 39209"):
        list_gtsrb(lay())
    with pytest.raises(DataError, match=r"Training has 86 images; the original has 26640"):
        list_gtsrb(lay("torchvision"))


def test_damaged_pictures(lay):
    root = lay()
    (root / "GTSRB/Final_Test/Images/00001.ppm").write_bytes(b"P6\n30 40\n255\nshort")
    with pytest.raises(DataError, match=r"1 of 4 images .*00001\.ppm"):
        load_gtsrb(root, verify=False)
    data = load_gtsrb(root, verify=False, on_error="skip")
    assert data.test.labels.tolist() == [16, 42, 0]
    assert [each.name for each in data.test.skipped] == ["00001.ppm"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: shutil.rmtree(r / "Final_Training"), r"holds no GTSRB \(train\)\. Expected: GTSRB/Final_Training"),
        (lambda r: shutil.rmtree(r / "Final_Test"), r"holds no GTSRB \(test\)\. Expected: .* Found: GTSRB"),
        (lambda r: shutil.rmtree(r / "Final_Training/Images/00042"), "has 42 class folders; GTSRB has 43"),
        (
            lambda r: (r / "Final_Training/Images/00042").rename(r / "Final_Training/Images/42"),
            "has the class folders 42; they must be 00000 to 00042",
        ),
        (lambda r: (r / "GT-final_test.csv").unlink(), r"labels of .* are missing; looked for .*GT-final_test\.csv"),
        (lambda r: (r / "Final_Test/Images/00003.ppm").unlink(), r"Images lacks 1 of the test images: 00003\.ppm"),
        (
            lambda r: shutil.copy(r / "Final_Test/Images/00003.ppm", r / "Final_Test/Images/00004.ppm"),
            r"GT-final_test\.csv lacks 1 of the test images: 00004\.ppm",
        ),
    ],
)
def test_incomplete_layouts(lay, change, words):
    root = lay()
    change(root / "GTSRB")
    with pytest.raises(DataError, match=words):
        list_gtsrb(root, verify=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER, "names 0 images"),
        ("Filename;Width;Height\n00000.ppm;1;1\n", "does not hold Filename;...;ClassId: KeyError"),
        (HEADER + "00000.ppm;1;1;1;1;1;1;43\n", "line 2 has '00000.ppm' of class 43"),
        (HEADER + "../00000.ppm;1;1;1;1;1;1;4\n", "line 2 has '../00000.ppm'"),
        (HEADER + "00000.ppm;1;1\n", "does not hold"),
        (HEADER + "00000.ppm;1;1;1;1;1;1;x\n", "ValueError"),
        (HEADER + "00000.ppm;1;1;1;1;1;1;1\n" * 2, "names 2 images, 1 of them distinct"),
        (HEADER + "0.ppm;1;1;1;1;1;1;1\n0.PPM;1;1;1;1;1;1;1\n", "names 2 images, 1 of them distinct"),
        (b"\xff\xfe\x00", "UnicodeDecodeError"),
    ],
)
def test_damaged_labels(lay, text, words):
    root = lay()
    (root / "GTSRB/GT-final_test.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words):
        list_gtsrb(root, verify=False)
