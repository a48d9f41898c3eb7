"""Icons-50 in the authors' layout, made here with subtypes of the original, and its three splits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets.icons50 import (
    HELD_OUT_STYLES,
    hold_out_style,
    hold_out_subtypes,
    hold_out_traditional,
    icons50_mapping,
    list_icons50,
    load_icons50,
)
from seedcnn.errors import DataError

STYLES = ("apple", "emoji-one")


@pytest.fixture(scope="module")
def tree(tmp_path_factory, save_picture):
    """Every class with its first two subtypes, by two vendors, twice by apple."""
    base = tmp_path_factory.mktemp("icons") / "Icons-50"
    for label, subtypes in icons50_mapping()["classes"].items():
        for subtype in list(subtypes)[:2]:
            for name in ("apple_1", "apple_2", "emoji-one_1"):
                save_picture(base / label / f"{name}_{subtype}.png", seed=len(subtype))
    (base / "README.txt").write_text("beside the class folders")
    return base.parent


@pytest.fixture
def copy(tree, tmp_path):
    return shutil.copytree(tree, tmp_path / "copy")


def named(names, styles=None):
    names = np.array(names)
    images = np.arange(len(names), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return ImageSet(images, np.zeros(len(names), np.int64), ("all",), "made here", styles, names)


def test_mapping_is_that_of_the_real_set():
    mapping = icons50_mapping()
    subtypes = [(label, name) for label, each in mapping["classes"].items() for name in each]
    assert len(mapping["classes"]) == 50
    assert list(mapping["classes"]) == sorted(mapping["classes"])
    assert len(subtypes) == len(set(subtypes)) == 568
    assert len(mapping["heldout_subtypes"]) == 50
    assert all(any(part in name for _, name in subtypes) for part in mapping["heldout_subtypes"])
    assert sum(len(each) for each in mapping["stand_ins"].values()) == 3
    codes = [code for part in ("classes", "stand_ins") for each in mapping[part].values() for code in each.values()]
    assert all(code == code.upper() and "FE0F" not in code and set(code) <= set("0123456789ABCDEF-") for code in codes)


def test_held_out_subtypes_leave_nine_classes_without_a_test_picture():
    mapping = icons50_mapping()["classes"]
    data = named([f"{label}/apple_1_{name}.png" for label, each in mapping.items() for name in each])
    tested = {name.split("/")[0] for name in hold_out_subtypes(data).test.names.tolist()}
    without = ["biking", "disk", "golfing", "holding_hands", "kiss", "numbers", "surfing", "water_polo", "wrestling"]
    assert sorted(set(mapping) - tested) == without


@pytest.mark.parametrize("inside", [False, True])
def test_layout(tree, inside):
    data = load_icons50(str(tree / "Icons-50" if inside else tree), size=9, verify=False)
    assert data.images.shape == (len(data), 9, 9, 3)
    assert data.classes == tuple(icons50_mapping()["classes"])
    assert sorted(set(data.styles.tolist())) == sorted(STYLES)
    assert data.names[0] == "airplane/apple_1_airplane.png"
    assert data.counts.tolist() == [3 * min(2, len(each)) for each in icons50_mapping()["classes"].values()]
    assert [name.split("/")[1].split("_")[0] for name in data.names.tolist()] == data.styles.tolist()


def test_numbers_and_classes_are_checked(copy):
    with pytest.raises(DataError, match=r"has \d+ images; Icons-50 has 10000"):
        list_icons50(copy)
    (copy / "Icons-50/airplane").rename(copy / "Icons-50/aeroplane")
    with pytest.raises(DataError, match="class folders that Icons-50 does not have: aeroplane"):
        list_icons50(copy)
    shutil.rmtree(copy / "Icons-50/aeroplane")
    with pytest.raises(DataError, match="has 49 class folders; Icons-50 has 50"):
        list_icons50(copy)


def test_wrong_names_and_damaged_pictures(copy, save_picture):
    (copy / "Icons-50/lock/apple_1_lock.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"1 of \d+ images .*lock/apple_1_lock\.png"):
        load_icons50(copy, verify=False)
    data = load_icons50(copy, verify=False, on_error="skip")
    assert [each.name for each in data.skipped] == ["lock/apple_1_lock.png"]
    assert len(data.styles) == len(data.names) == len(data)
    save_picture(copy / "Icons-50/lock/photo_1.png")
    with pytest.raises(DataError, match=r"1 files .* not named <class>/<style>_<rendition>_<subtype>\.png.*photo_1"):
        list_icons50(copy, verify=False)


def test_missing_layout(tmp_path):
    with pytest.raises(DataError, match=r"does not exist\. Expected for Icons-50: <class>/<style>_<rendition>_"):
        list_icons50(tmp_path / "nowhere")
    (tmp_path / "Icons-50.tar").write_text("")
    with pytest.raises(DataError, match=r"holds no Icons-50\. Expected: .* Found: Icons-50\.tar"):
        list_icons50(tmp_path)


NAMES = [
    "tree/apple_1_fir.png",
    "tree/google_1_fir.png",
    "tree/google_2_fir.png",
    "kiss/samsung_1_kiss_type_1_2.png",
    "bird/apple_1_duckling.png",
]


def test_style_is_held_out_by_a_part_of_the_path():
    parts = hold_out_style(named(NAMES), "apple")
    assert parts.test.names.tolist() == [NAMES[0], NAMES[4]]
    assert parts.train.names.tolist() == NAMES[1:4]
    assert parts.test.images[:, 0, 0, 0].tolist() == [0, 4]
    assert (parts.mean, parts.std) == ((0, 0, 0), (1, 1, 1))
    assert hold_out_style(named(NAMES), "tree/").test.names.tolist() == NAMES[:3]
    assert set(HELD_OUT_STYLES) == {"apple", "facebook", "google", "samsung"}


def test_a_set_without_names_is_divided_by_its_styles():
    data = ImageSet(np.zeros((2, 2, 2, 3), np.uint8), np.array([0, 0]), ("a",), "here", np.array(["lg", "apple"]))
    assert hold_out_style(data, "apple").test.styles.tolist() == ["apple"]
    with pytest.raises(ValueError, match=r"`style` \(='htc'\) matches none of the 2 names; styles: apple, lg"):
        hold_out_style(data, "htc")


def test_several_styles_are_held_out_together():
    styles = np.array(["lg", "htc", "apple"])
    data = ImageSet(np.zeros((3, 2, 2, 3), np.uint8), np.zeros(3, np.int64), ("a",), "here", styles)
    both = hold_out_style(data, ["apple", "lg"])
    assert both.test.styles.tolist() == ["lg", "apple"]
    assert both.train.styles.tolist() == ["htc"]
    with pytest.raises(ValueError, match=r"`style` \(='samsung'\) matches none of the 3 names"):
        hold_out_style(data, ["lg", "samsung"])


def test_other_divisions():
    data = named(NAMES)
    assert hold_out_subtypes(data, ["duck"]).test.names.tolist() == [NAMES[4]]
    assert hold_out_subtypes(data).test.names.tolist() == [NAMES[4]]
    assert hold_out_subtypes(data, ["fir.", "kiss"]).train.names.tolist() == [NAMES[4]]
    assert hold_out_traditional(data).test.names.tolist() == NAMES[2:4]
    # Subtypes are not matched with the name of the folder.
    assert hold_out_subtypes(data, ["bird", "fir"]).test.names.tolist() == NAMES[:3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: hold_out_style(d, ""), r"`style` \(=''\) must be distinct, non-empty parts of paths"),
        (lambda d: hold_out_style(d, ["apple", "apple"]), "must be distinct, non-empty"),
        (lambda d: hold_out_style(d, "png"), r"`style` \(='png'\) matches 5 of 5 names; both parts need images"),
        (lambda d: hold_out_subtypes(d, ["yak"]), r"`subtypes` \(=yak\) matches 0 of 5 names"),
        (lambda d: hold_out_subtypes(d, "duck"), r"`subtypes` \(='duck'\) must be a list of non-empty strings"),
        (lambda d: hold_out_subtypes(d, []), "must be a list of non-empty strings"),
        (lambda d: hold_out_subtypes(d, ["a", ""]), "non-empty strings"),
        (lambda d: hold_out_traditional(d.take([0, 1])), "the rule '_2' matches 0 of 2 names"),
    ],
)
def test_wrong_divisions(call, words):
    with pytest.raises(ValueError, match=words):
        call(named(NAMES))


@pytest.mark.parametrize("divide", [hold_out_subtypes, hold_out_traditional, lambda d: hold_out_style(d, "apple")])
def test_divisions_need_names(divide):
    data = ImageSet(np.zeros((2, 2, 2, 3), np.uint8), np.array([0, 0]), ("a",), "here")
    with pytest.raises(ValueError, match=r"`data` \(here\) has (no names|neither names nor styles)"):
        divide(data)
