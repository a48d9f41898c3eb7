"""Training and test sets by name, with small sets in the official layouts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.pictures.folder import ImageFolder
from seedcnn.data.sets import cifar10 as real
from seedcnn.data.sets.named import DATA_SETS, load_test, load_train, random_choice
from seedcnn.errors import ConfigError, DataError

WNIDS = ["n01440764", "n01443537", "n02123045"]


@pytest.fixture
def icons(tmp_path, save_picture):
    """Three classes by four vendors, with two renditions each."""
    for rank, label in enumerate(("airplane", "bird", "boat")):
        for style in ("apple", "google", "lg", "samsung"):
            for rendition in (1, 2):
                save_picture(
                    tmp_path / label / f"{style}_{rendition}_{label}.png", (40, 40), seed=rank * 10 + rendition
                )
    return tmp_path


@pytest.fixture
def imagenet(tmp_path, save_picture):
    """Four images per class in val, and fog at severity 3 of all but one of them, at 224 x 224 as published."""
    for rank, wnid in enumerate(WNIDS):
        for number in range(4):
            name = f"{wnid}/ILSVRC2012_val_{rank * 4 + number:08d}.JPEG"
            save_picture(tmp_path / "val" / name, (280, 260), seed=rank * 4 + number)
            if (rank, number) != (2, 3):
                save_picture(tmp_path / "c/fog/3" / name, (224, 224), seed=100 + rank * 4 + number, quality=95)
    return tmp_path


def test_cifar10_goes_by_its_own_numbers(cifar10):
    found = load_test("cifar10", limit=5)
    assert (found.name, found.constants, found.held_out, found.corrupted) == ("cifar10", "cifar", (), None)
    assert (found.mean, found.std) == (real.MEAN, real.STD)
    np.testing.assert_array_equal(found.test.images, cifar10.test_images)  # the limit is for image files only


def test_icons_and_their_hold_outs(icons):
    whole = load_test(f"icons50:{icons}", verify=False)
    assert len(whole.test) == 24
    assert (whole.mean, whole.std, whole.held_out) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), ())
    two = load_test(f"icons50:{icons}", hold_out="lg,apple", verify=False)
    assert two.held_out == ("lg", "apple")
    assert set(two.test.styles.tolist()) == {"lg", "apple"}
    assert len(two.test) == 12
    second = load_test(f"icons50:{icons}", hold_out="traditional", verify=False)
    assert all("_2_" in name for name in second.test.names)
    assert second.held_out == ()
    some = load_test(f"icons50:{icons}", limit=7, verify=False).test
    assert some.names.tolist() == whole.test.names[random_choice(24, 7)].tolist()
    with pytest.raises(ConfigError, match=r"hold-out 'htc': `style` \(='htc'\) matches none of the 24 names"):
        load_test(f"icons50:{icons}", hold_out="htc", verify=False)
    with pytest.raises(DataError, match="has 3 class folders; Icons-50 has 50"):
        load_test(f"icons50:{icons}")


def test_a_damaged_picture_is_an_error_or_listed(icons):
    (icons / "bird" / "lg_1_bird.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 24 images .* cannot be decoded: bird/lg_1_bird\.png"):
        load_test(f"icons50:{icons}", verify=False)
    found = load_test(f"icons50:{icons}", verify=False, on_error="skip")
    assert len(found.test) == 23
    assert [each.name for each in found.test.skipped] == ["bird/lg_1_bird.png"]


def test_imagenet_and_its_published_corruptions(imagenet):
    said = []
    found = load_test(f"imagenet:{imagenet}", limit=9, verify=False, progress=said.append)
    assert said == [f"decoding 9 images of {imagenet / 'val'}"]
    assert found.test.images.shape == (9, 224, 224, 3)
    assert found.constants == "imagenet"
    kept = load_test(f"imagenet:{imagenet}", limit=9, verify=False, decoded=imagenet / "kept.npy").test
    np.testing.assert_array_equal(kept.images, found.test.images)
    np.testing.assert_array_equal(np.load(imagenet / "kept.npy"), found.test.images)
    found = load_test(f"imagenet:{imagenet}", verify=False, corrupted=imagenet / "c")
    assert found.test.images.shape == (12, 224, 224, 3)
    assert found.corrupted.source == str(imagenet / "c")
    both = found.corrupted.pick("fog", 3, np.array([7, 2]))
    one = found.corrupted.pick("fog", 3, np.array([2]))
    assert both.shape == (2, 224, 224, 3)
    np.testing.assert_array_equal(both[1:], one)
    with Image.open(imagenet / "c/fog/3" / found.test.names[2]) as file:
        np.testing.assert_array_equal(one[0], np.asarray(file))
    with pytest.raises(DataError, match=r"lacks 1 of the test images: n02123045/ILSVRC2012_val_00000011\.JPEG"):
        found.corrupted.pick("fog", 3, np.array([0, 11]))
    with pytest.raises(DataError, match="has no severity 4"):
        found.corrupted.pick("fog", 4, np.array([0]))


@pytest.fixture
def published(tmp_path, cifar10):
    """fog.npy and labels.npy in the official layout; the file is sparse."""
    array = np.lib.format.open_memmap(tmp_path / "fog.npy", mode="w+", dtype=np.uint8, shape=(50000, 32, 32, 3))
    for severity in range(1, 6):
        array[(severity - 1) * 10000 + 3] = severity
    np.save(tmp_path / "labels.npy", np.tile(cifar10.test_labels, 5).astype(np.uint8))
    return tmp_path


def test_published_cifar10_c(published):
    found = load_test("cifar10", corrupted=published)
    picked = found.corrupted.pick("fog", 4, np.array([3, 5]))
    assert (picked[0] == 4).all()
    assert not picked[1].any()
    with pytest.raises(DataError, match=r"holds no 'snow'\. Found: fog"):
        found.corrupted.pick("snow", 4, np.array([3]))


def test_published_cifar10_c_of_other_pictures(published, cifar10):
    np.save(published / "labels.npy", np.tile(np.roll(cifar10.test_labels, 1), 5).astype(np.uint8))
    with pytest.raises(DataError, match="are not those of the 10000 images"):
        load_test("cifar10", corrupted=published)


def test_random_choice():
    assert random_choice(5, 9).tolist() == [0, 1, 2, 3, 4]
    few, more = random_choice(1000, 10), random_choice(1000, 100)
    assert set(few.tolist()) < set(more.tolist())
    assert (np.diff(more) > 0).all()
    assert 350 < more.mean() < 650


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("cifar", {}, r"unknown data 'cifar'; did you mean cifar10.*NAME or NAME:DIRECTORY: cifar10 \(downloaded"),
        ("gtsrb", {}, "data 'gtsrb' needs the directory it lies in: gtsrb:DIRECTORY"),
        ("icons50-rebuilt:x", {}, "data 'icons50-rebuilt' takes no directory"),
        ("cifar10", {"hold_out": "apple"}, "goes with the data icons50 and icons50-rebuilt only"),
        ("gtsrb:x", {"decoded": "y"}, "goes with the data imagenet, not with gtsrb"),
        ("gtsrb:x", {"corrupted": "y"}, "go with the data cifar10 and imagenet, not with gtsrb"),
    ],
)
def test_mistakes(data, options, words):
    with pytest.raises(ConfigError, match=words):
        load_test(data, **options)


@pytest.mark.parametrize(
    ("name", "directory", "hold_out", "words"),
    [
        ("cifar", None, "", "unknown data 'cifar'; did you mean cifar10"),
        ("gtsrb", None, "", "data 'gtsrb' needs the directory it lies in$"),
        ("icons50-rebuilt", "x", "apple", "data 'icons50-rebuilt' takes no directory"),
        ("icons50", "x", "", "data 'icons50' has no test part of its own: set hold_out to"),
        ("cifar100", "x", "apple", "goes with the data icons50 and icons50-rebuilt only, not with cifar100"),
    ],
)
def test_mistakes_in_training_sets(name, directory, hold_out, words):
    with pytest.raises(ConfigError, match=words):
        load_train(name, directory, hold_out=hold_out)


@pytest.mark.parametrize("name", [name for name, known in DATA_SETS.items() if known.directory != "none"])
def test_a_directory_that_is_not_there(name, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load_test(f"{name}:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="nowhere"):
        load_train(name, tmp_path / "nowhere", hold_out="apple" if DATA_SETS[name].hold_out else "")


def test_training_and_test_part_go_together(icons):
    train = load_train("icons50", icons, hold_out="lg,apple", verify=False)
    test = load_test(f"icons50:{icons}", hold_out="lg,apple", verify=False)
    assert set(train.train.styles.tolist()) == {"google", "samsung"}
    assert len(train.train) + len(test.test) == 24
    assert (train.mean, train.std) == (test.mean, test.std)


def test_training_files_of_imagenet_are_listed(imagenet):
    (imagenet / "val").rename(imagenet / "train")
    files = load_train("imagenet", imagenet, verify=False).train
    assert isinstance(files, ImageFolder)
    assert len(files) == 12


def test_a_set_without_a_picture(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(DataError, match=r"train/n01440764 holds no image"):
        load_train("imagenet", tmp_path, verify=False)
    with pytest.raises(DataError, match=r"val/n01440764 holds no image"):
        load_test(f"imagenet:{tmp_path}", verify=False)
