"""``predict`` and ``evaluate`` on files as people have them: directories, other sizes, files that are no pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from seedcnn.bundle import Preprocessing
from seedcnn.device.main import main
from seedcnn.device.runtime import Model
from seedcnn.runtime.pictures import load_picture
from tests.device.bundles import LABELS, RULE
from tests.device.fleet import IMAGES, Device

CROP = Preprocessing.crop(32, mean=RULE.mean, std=RULE.std)


@pytest.fixture
def cropping(fleet, tmp_path) -> Device:
    """A device whose model takes pictures of any size."""
    fleet.publish(1, rule=CROP)
    device = fleet.device(tmp_path / "home")
    device.update()
    return device


def picture(path, seed, size=(48, 70)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


def labels_of(device, *paths):
    model = Model.load(device.slots)
    return list(model.predict(np.stack([load_picture(path, CROP) for path in paths])).labels)


def call(device, capsys, *arguments):
    code = main(["--home", str(device.home), *map(str, arguments)])
    return (code, *capsys.readouterr())


def mixed(tmp_path):
    """Two good pictures, one broken, one text, one hidden file."""
    good = [picture(tmp_path / "d" / "a.png", 1), picture(tmp_path / "d" / "sub" / "z.jpg", 2, (200, 33))]
    (tmp_path / "d" / "broken.png").write_bytes(good[0].read_bytes()[:900])
    (tmp_path / "d" / "sub" / "notes.txt").write_text("not a picture")
    (tmp_path / "d" / ".hidden").write_text("not a picture either")
    return good


def test_a_directory_of_good_and_bad_files(cropping, tmp_path, capsys):
    good = mixed(tmp_path)
    code, out, err = call(cropping, capsys, "predict", tmp_path / "d")
    labels = labels_of(cropping, *good)
    assert code == 1
    assert [line.rpartition(" ")[0] for line in out.splitlines()] == [
        f"{path}: {label}" for path, label in zip(good, labels, strict=True)
    ]
    first, second, last = err.splitlines()
    assert first.startswith(f"seedcnn-device: {tmp_path / 'd' / 'broken.png'} cannot be decoded: ")
    assert second.startswith(f"seedcnn-device: {tmp_path / 'd' / 'sub' / 'notes.txt'} is not a picture of a known form")
    assert last == "seedcnn-device: 2 of 4 pictures have no answer"


def test_json_holds_the_answers_alone(cropping, tmp_path, capsys):
    good = mixed(tmp_path)
    code, out, err = call(cropping, capsys, "predict", "--json", "--threads", "2", tmp_path / "d")
    answers = json.loads(out)
    assert (code, err.count("\n")) == (1, 3)
    assert [answer["image"] for answer in answers] == [str(path) for path in good]
    assert [answer["label"] for answer in answers] == labels_of(cropping, *good)
    for answer in answers:
        assert set(answer) == {"image", "index", "label", "probability"}
        assert answer["label"] == LABELS[answer["index"]]
        assert 0.1 <= answer["probability"] <= 1
    code, out, err = call(cropping, capsys, "predict", "--json", *good)
    assert (code, json.loads(out), err) == (0, answers, "")


def test_files_directories_and_batches_in_their_order(cropping, tmp_path, capsys):
    first, last = picture(tmp_path / "1.png", 1), picture(tmp_path / "9" / "x.bmp", 2)
    np.save(tmp_path / "all.npy", IMAGES)
    np.save(tmp_path / "wrong.npy", IMAGES[:, :8])
    (tmp_path / "empty").mkdir()
    paths = [
        first,
        tmp_path / "wrong.npy",
        tmp_path / "all.npy",
        tmp_path / "empty",
        tmp_path / "gone.png",
        last.parent,
    ]
    code, out, err = call(cropping, capsys, "predict", *paths)
    assert code == 1
    named = [str(first), *(f"{tmp_path / 'all.npy'}[{row}]" for row in range(5)), str(last)]
    assert [line.partition(": ")[0] for line in out.splitlines()] == named
    wrong, empty, gone, count = err.splitlines()
    assert "wrong.npy holds uint8 (5, 8, 32, 3); the model takes uint8 [N, 32, 32, 3]" in wrong
    assert "empty is a directory without a picture" in empty
    assert "gone.png does not exist" in gone
    assert count == "seedcnn-device: 3 of 10 pictures have no answer"


def test_more_pictures_than_a_batch(cropping, tmp_path, capsys):
    paths = [picture(tmp_path / "d" / f"{number:03}.png", number, (40, 33)) for number in range(70)]
    paths[5].write_text("broken")
    code, out, err = call(cropping, capsys, "predict", tmp_path / "d")
    del paths[5]
    assert (code, err.count("\n")) == (1, 2)
    labels = labels_of(cropping, *paths)
    assert [line.rpartition(" ")[0] for line in out.splitlines()] == [
        f"{path}: {label}" for path, label in zip(paths, labels, strict=True)
    ]


def test_a_model_of_one_size_refuses_others_in_one_sentence(device, tmp_path, capsys):
    path = picture(tmp_path / "wide.png", 0, (40, 50))
    code, out, err = call(device, capsys, "predict", path)
    assert (code, out) == (1, "")
    assert err == f"seedcnn-device: {path} has 50 x 40 pixels; the model takes 32 x 32 and no other\n"


@pytest.fixture
def folders(cropping, tmp_path):
    """Twelve pictures in the folders of three classes, and what is right: each folder's first picture at least."""
    paths = [picture(tmp_path / "new" / f"{number}.png", number) for number in range(12)]
    labels = labels_of(cropping, *paths)
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        wrong = LABELS[(LABELS.index(label) + 1) % len(LABELS)]
        name = wrong if number % 4 == 3 else label
        (tmp_path / "val" / name).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "val" / name / path.name)
    (tmp_path / "val" / ".cache").mkdir()
    (tmp_path / "val" / "README").write_text("a file beside the folders")
    return tmp_path / "val"


def test_evaluate_counts(cropping, folders, capsys):
    code, out, err = call(cropping, capsys, "evaluate", folders)
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head == "accuracy 75.00 % (9 of 12 pictures)"
    names = sorted(path.name for path in folders.iterdir() if path.is_dir() and path.name != ".cache")
    assert [row.strip().partition(":")[0] for row in rows] == names
    code, out, err = call(cropping, capsys, "evaluate", "--json", folders)
    result = json.loads(out)
    assert (code, result["top1"], result["right"], result["pictures"]) == (0, 75.0, 9, 12)
    assert sum(row["right"] for row in result["by_class"].values()) == 9
    for name, row in result["by_class"].items():
        assert row["pictures"] == sum(1 for _ in (folders / name).iterdir())


def test_evaluate_leaves_labels_without_a_folder_out_and_names_broken_files(cropping, folders, capsys):
    name = next(path.name for path in sorted(folders.iterdir()) if path.is_dir() and path.name[0] != ".")
    (folders / name / "broken.png").write_text("broken")
    code, out, err = call(cropping, capsys, "evaluate", folders)
    assert code == 1
    assert out.startswith("accuracy 75.00 % (9 of 12 pictures)\n")
    assert len(out.splitlines()) < 1 + len(LABELS)
    broken, count = err.splitlines()
    assert f"{name}/broken.png is not a picture of a known format" in broken
    assert count == "seedcnn-device: 1 of 13 pictures have no answer"
    code, out, _ = call(cropping, capsys, "evaluate", folders, "--json")
    assert (code, json.loads(out)["pictures"]) == (1, 12)


def test_evaluate_refuses_a_class_that_the_model_does_not_know(cropping, folders, capsys):
    picture(folders / "zebra" / "1.png", 1)
    code, out, err = call(cropping, capsys, "evaluate", folders)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"the model does not know the class zebra in {folders}; it knows airplane, automobile" in err


def test_evaluate_names_an_empty_folder_and_goes_on(cropping, folders, capsys):
    name = next(label for label in LABELS if not (folders / label).exists())
    (folders / name).mkdir()
    code, out, err = call(cropping, capsys, "evaluate", folders)
    assert (code, err.count("\n")) == (1, 2)
    assert out.startswith("accuracy 75.00 % (9 of 12 pictures)\n")
    assert f"  {name}: 0 of 0\n" in out
    assert f"{folders / name} is a directory without a picture" in err


def test_evaluate_where_nothing_can_be_read(cropping, tmp_path, capsys):
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "x.png").write_text("broken")
    code, out, err = call(cropping, capsys, "evaluate", tmp_path / "val")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cat/x.png is not a picture of a known format" in err
    (tmp_path / "val" / "dog").mkdir()
    code, out, err = call(cropping, capsys, "evaluate", "--json", tmp_path / "val")
    assert (code, out, err.count("\n")) == (1, "", 3)
