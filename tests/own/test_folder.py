"""Pictures of one's own: what is loaded, what is left out, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from seedcnn.bundle import Preprocessing
from seedcnn.data.image_set import channel_statistics
from seedcnn.data.sets.own import TrainedOn, load_folder, load_pictures
from seedcnn.errors import DataError
from seedcnn.runtime.pictures import load_picture
from tests.own.photos import CLASSES, write_photos

RULE = Preprocessing.crop(16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def photos(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "photos")


def test_every_kind_is_loaded_as_a_device_does(photos):
    found = load_folder(photos, preprocessing=RULE)
    assert found.classes == CLASSES
    assert (len(found.train), len(found.val), found.left_out, found.in_both) == (80, 20, (), 0)
    assert found.train.counts.tolist() == [20] * 4
    for part in (found.train, found.val):
        for name, image in zip(part.names, part.images, strict=True):
            np.testing.assert_array_equal(image, load_picture(photos / name, found.preprocessing))
    mean, std = channel_statistics(found.train.images)
    assert found.preprocessing.mean == pytest.approx(mean, abs=1e-8)
    assert found.preprocessing.std == pytest.approx(std, abs=1e-8)
    assert any("80 pictures to train on, 20 to measure on; 4 classes" in line for line in found.about)


def test_a_given_mean_stays_and_grey_has_one_channel(photos):
    rule = Preprocessing.squash((12, 20), channels=1, mean=0.25, std=0.5)
    found = load_folder(photos, preprocessing=rule)
    assert found.train.images.shape == (80, 12, 20, 1)
    assert found.preprocessing == rule
    assert load_folder(photos, preprocessing=Preprocessing.pad(16, channels=1)).preprocessing.mean != (0.0,)


def test_without_parts_the_bytes_decide_and_new_files_move_no_old_one(tmp_path):
    photos = write_photos(tmp_path / "photos", parts=False)
    first = load_folder(photos, preprocessing=RULE, val=0.3)
    assert 10 < len(first.val) < 40
    write_photos(photos, 10, parts=False, seed=1)
    second = load_folder(photos, preprocessing=RULE, val=0.3)
    assert len(second.train) + len(second.val) == 120
    assert set(first.val.names) <= set(second.val.names)
    assert set(first.train.names) <= set(second.train.names)
    held = load_pictures(photos, RULE, CLASSES, val=0.3)
    assert held.names.tolist() == second.val.names.tolist()
    np.testing.assert_array_equal(held.images, second.val.images)
    assert len(load_pictures(photos, RULE, CLASSES)) == 120


def test_a_csv_file_names_pictures(photos):
    lines = ["path,label,part"]
    for number, path in enumerate(sorted((photos / "train").rglob("*.*"))):
        lines.append(f'"{path.relative_to(photos)}",{path.parent.name[:4]},{"val" if number % 4 == 0 else "train"}')
    (photos / "list.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    found = load_folder(photos / "list.csv", preprocessing=RULE)
    assert found.classes == ("acro", "down")
    assert (len(found.train), len(found.val)) == (60, 20)
    (photos / "list.csv").write_text("file,label\na,b\n")
    with pytest.raises(DataError, match=r"must have the columns path and label; its first line names file, label"):
        load_folder(photos / "list.csv")
    (photos / "list.csv").write_text("path,label,part\na.png,b,tset\n")
    with pytest.raises(DataError, match=r"line 2 of .* has path 'a.png', label 'b', part 'tset'; it must have a path"):
        load_folder(photos / "list.csv")


def test_bad_files_are_left_out_with_their_reasons(photos, tmp_path):
    folder = photos / "train" / CLASSES[0]
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes(next(folder.glob("*.jpg")).read_bytes()[:300])
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "inside.png").symlink_to(next(folder.glob("*.png")))
    (folder / ".hidden").write_text("x")
    name = "наш кот\n" + "x" * 200 + ".png"
    Image.new("RGB", (9, 9)).save(folder / name)
    found = load_folder(photos, preprocessing=RULE)
    reasons = {each.name.rpartition("/")[2]: each.reason for each in found.left_out}
    assert reasons.keys() == {"broken.png", "cut.jpg", "link.png"}
    assert reasons["link.png"] == "it is a link that leaves the folder"
    assert "is not a picture of a known format" in reasons["broken.png"]
    assert len(found.train) == 82
    with pytest.raises(DataError, match=r"3 of 105 files of .* cannot be used: .*broken\.png"):
        load_folder(photos, preprocessing=RULE, strict=True)


def test_pictures_in_both_parts_are_counted(photos):
    source = next((photos / "train" / CLASSES[1]).glob("*.png"))
    shutil.copy(source, photos / "val" / CLASSES[1] / "again.png")
    found = load_folder(photos, preprocessing=RULE)
    assert found.in_both == 1
    assert "also trained on, byte for byte" in found.about[-1]


def empty(photos):
    (photos / "train" / "empty").mkdir()


def nested(photos):
    (photos / "train" / "deep" / "deeper").mkdir(parents=True)


def one_class(photos):
    for part in ("train", "val"):
        for name in CLASSES[1:]:
            shutil.rmtree(photos / part / name)


def new_in_val(photos):
    shutil.copytree(photos / "val" / CLASSES[0], photos / "val" / "zebra")


def all_broken(photos):
    for path in (photos / "train" / CLASSES[2]).iterdir():
        path.write_bytes(b"broken")


def no_val(photos):
    shutil.rmtree(photos / "val")


def two_vals(photos):
    shutil.copytree(photos / "val", photos / "test")


def nothing(photos):
    shutil.rmtree(photos / "train")
    shutil.rmtree(photos / "val")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, r"the class folder .*empty holds no file$"),
        (nested, r"the class folder .*deep holds no file, only folders"),
        (one_class, r"has 1 class \(across fine\); a classifier needs two at least"),
        (new_in_val, r"has the class zebra in val, but not in train"),
        (all_broken, r"has no picture to train on of the class down fine"),
        (no_val, r"has train and has none of val, valid, validation, test"),
        (two_vals, r"has train and has val and test; the pictures to measure on must be in one of them"),
        (nothing, r"holds no class folder"),
        (lambda photos: shutil.rmtree(photos), r"there is no directory or CSV file .*photos"),
    ],
)
def test_folders_that_cannot_be_used(photos, spoil, message):
    spoil(photos)
    with pytest.raises(DataError, match=message):
        load_folder(photos, preprocessing=RULE)


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(tmp_path):
    lines = [f"absent.png,{'cat' if number % 2 else 'dog'}" for number in range(400_000)]  # 20 TB
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    with pytest.raises(DataError, match=r"400,000 pictures of 4096 x 4096 take 20132\.7 GB, .* GB of memory are free"):
        load_folder(tmp_path / "list.csv", preprocessing=Preprocessing.squash(4096))


def test_other_classes_are_refused_by_name(photos):
    with pytest.raises(DataError, match=r"has the class across fine, across wide, down fine, down wide, which the net"):
        load_pictures(photos, RULE, ("cat", "dog"))
    with pytest.raises(
        DataError, match=r"photos has 2 classes \(a, b\), but the network was trained on 2 \(b, a\), from"
    ):
        TrainedOn(("b", "a"), RULE, "folder:/x").check(("a", "b"), "photos")
