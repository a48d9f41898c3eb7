"""Boxes and index maps move with their picture, and the letterbox is the bytes of a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from seedcnn.bundle import Preprocessing
from seedcnn.data import load_detection, load_segmentation
from seedcnn.data.dense.transforms import (
    DenseSamples,
    Letterbox,
    RandomScale,
    evaluation_transform,
    sample_of,
    training_transform,
)
from seedcnn.errors import DataError
from seedcnn.runtime.fitting import Fit
from seedcnn.runtime.pictures import prepare

SIZES = [(30, 40), (40, 30), (7, 61), (64, 64), (1, 200)]
RULES = [
    Preprocessing.pad((48, 64)),
    Preprocessing.pad((33, 20), filter="bicubic"),
    Preprocessing.squash((20, 50)),
    Preprocessing.crop((32, 32)),
]


def rectangle(height, width, box):
    """A black picture with a white box, the box, and the index map of it, as a sample."""
    x1, y1, x2, y2 = box
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 1
    image = tv_tensors.Image(torch.from_numpy(np.repeat(mask[None] * np.uint8(255), 3, axis=0)))
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[x1, y1, x2, y2]]).float(), format="XYXY", canvas_size=(height, width)
    )
    rest = {name: torch.zeros(1, dtype=torch.int64) for name in ("labels", "crowd", "difficult", "ids")}
    return {"image": image, "boxes": boxes, "mask": tv_tensors.Mask(torch.from_numpy(mask)), **rest}


def seen(sample):
    """The extent of what is white, and of what the map calls 1."""
    white = sample["image"][0].numpy() >= 128
    for shown in (white, sample["mask"].numpy() == 1):
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        yield [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.resize)
@pytest.mark.parametrize("size", SIZES)
def test_the_letterbox_is_the_rule_of_a_device(rule, size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = tv_tensors.Image(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
    found = Letterbox(rule)({"image": image})["image"]
    assert (found.permute(1, 2, 0).numpy() == prepare(pixels, rule)).all()
    assert found.is_contiguous()


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1)])
def test_a_letterbox_of_a_needle(size):
    fit = Fit.of(*size, RULES[0])
    assert min(fit.scaled_height, fit.scaled_width) == 1
    height, width = size
    moved = Letterbox(RULES[0])(rectangle(height, width, (0, 0, width, height)))
    assert (moved["image"] == 255).sum() == 3 * max(fit.scaled_height, fit.scaled_width)
    assert fit.to_picture(moved["boxes"].numpy()).tolist() == [[0, 0, width, height]]


@pytest.mark.parametrize("rule", RULES[:3], ids=lambda rule: rule.resize)
def test_boxes_and_maps_move_into_the_letterbox(rule):
    moved = evaluation_transform(rule)(rectangle(60, 80, (20, 10, 50, 40)))
    for extent in seen(moved):
        assert np.abs(np.array(extent) - moved["boxes"][0].numpy()).max() <= 1
    assert moved["boxes"].canvas_size == (rule.height, rule.width)
    outside = (moved["mask"] == 255).sum()
    fit = Fit.of(60, 80, rule)
    assert outside == rule.height * rule.width - fit.scaled_height * fit.scaled_width


def test_a_crop_cuts_boxes_and_maps():
    moved = Letterbox(Preprocessing.crop((32, 32), short_side=32))(rectangle(32, 64, (10, 0, 30, 8)))
    assert moved["boxes"].tolist() == [[0, 0, 14, 8]]
    assert (moved["mask"][:8, :14] == 1).all()
    assert (moved["mask"] == 1).sum() == 8 * 14
    assert not (moved["mask"] == 255).any()


@pytest.mark.parametrize("size", SIZES)
def test_a_fit_goes_there_and_back(size):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 1, (20, 2, 2)), axis=1).reshape(20, 4)
    boxes = corners * np.array([size[1], size[0]] * 2)
    for rule in (*RULES[:3], Preprocessing.pad((320, 320))):
        fit = Fit.of(*size, rule)
        inside = fit.to_input(boxes)
        assert inside.dtype == np.float32
        assert (inside >= 0).all()
        assert (inside[:, 2] <= rule.width + 1e-3).all()
        assert np.abs(fit.to_picture(inside) - boxes).max() < 1e-3
    beyond = np.array([[-50.0, -50, 9999, 9999]])
    assert Fit.of(*size, RULES[0]).to_picture(beyond).tolist() == [[0, 0, size[1], size[0]]]


def test_what_a_rule_refuses():
    with pytest.raises(DataError, match="a picture has 80 x 60 pixels; the model takes 8 x 8 and no other"):
        Letterbox(Preprocessing.exact(8))(rectangle(60, 80, (1, 1, 9, 9)))
    with pytest.raises(ValueError, match="`rule` has 1 channels"):
        Letterbox(Preprocessing.pad(8, channels=1))
    for options in ({}, {"short": 8, "longest": 4}, {"rule": RULES[0], "short": 8}, {"short": 8}):
        with pytest.raises(ValueError, match="give `rule` alone"):
            evaluation_transform(**options)


def test_the_short_side_of_the_papers():
    moved = evaluation_transform(short=30, longest=50)(rectangle(60, 80, (20, 10, 50, 40)))
    assert moved["image"].shape == (3, 30, 40)
    assert moved["boxes"].tolist() == [[10, 5, 25, 20]]
    assert evaluation_transform(short=30, longest=50)(rectangle(20, 80, (1, 1, 9, 9)))["image"].shape[2] == 50


@pytest.mark.parametrize("of", ["fit", "picture"])
def test_training_moves_boxes_and_maps_alike(of):
    transform = training_transform((64, 64), scale=(0.5, 1.5), of=of, fill=0)
    dropped = 0
    for seed in range(40):
        torch.manual_seed(seed)
        moved = transform(rectangle(60, 80, (20, 12, 52, 44)))
        assert moved["image"].shape == (3, 64, 64)
        assert moved["image"].dtype == torch.uint8
        assert moved["mask"].shape == (64, 64)
        if not len(moved["boxes"]):
            dropped += 1
            assert not len(moved["labels"])
            continue
        box = moved["boxes"][0].numpy()
        for extent in seen(moved):
            assert np.abs(np.array(extent) - box).max() <= 1.51
        assert ((moved["mask"] == 255) | (moved["mask"] < 2)).all()
    assert dropped < 10


def test_what_the_arguments_do():
    torch.manual_seed(0)
    sample = rectangle(64, 64, (0, 0, 20, 64))
    plain = {"scale": (1, 1), "flip": 0.0}
    same = training_transform((64, 64), **plain)(sample)
    assert (same["image"] == sample["image"]).all()
    flipped = training_transform((64, 64), **plain | {"flip": 1.0})(sample)
    assert flipped["boxes"].tolist() == [[44, 0, 64, 64]]
    assert (flipped["mask"] == sample["mask"].flip(-1)).all()
    grey = training_transform((64, 64), colour=0.5, **plain)(sample)
    assert (grey["image"] != sample["image"]).any()
    assert (grey["mask"] == sample["mask"]).all()
    small = training_transform((64, 64), fill=7, **plain | {"scale": (0.5, 0.5)})(sample)
    assert (small["image"] == 7).any()
    assert (small["mask"] == 255).any()
    thin = rectangle(64, 64, (0, 0, 3, 64))
    assert len(training_transform((64, 64), least=4, **plain)(thin)["boxes"]) == 0
    assert len(training_transform((64, 64), least=2, **plain)(thin)["boxes"]) == 1
    own = training_transform((64, 64), of="picture", **plain)(rectangle(128, 128, (0, 0, 128, 128)))
    fit = training_transform((64, 64), of="fit", **plain)(rectangle(128, 128, (0, 0, 64, 128)))
    assert (own["image"] == 255).all()
    assert fit["boxes"].tolist() == [[0, 0, 32, 64]]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": (0, 4)}, "size"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (2, 1)}, "scale"),
        ({"of": "width"}, "of"),
        ({"flip": 1.5}, "flip"),
        ({"colour": -1}, "colour"),
        ({"fill": 256}, "fill"),
        ({"least": 0}, "least"),
    ],
)
def test_bad_arguments(options, name):
    with pytest.raises(ValueError, match=f"`{name}` "):
        training_transform(**{"size": (8, 8)} | options)
    with pytest.raises(ValueError, match="`low`"):
        RandomScale(0, 1)


def test_samples_by_epoch_and_index(coco):
    making, _ = coco
    data = load_detection(making.root, "coco")
    sample = sample_of(data, 0)
    assert sample["boxes"].tolist() == data.objects(0).boxes.tolist()
    assert sample["boxes"].canvas_size == (30, 40)
    assert sample["ids"].tolist() == [1768, 12]
    assert (sample["image"].permute(1, 2, 0).numpy() == data.picture(0)).all()
    samples = DenseSamples(data, training_transform((32, 32)), seed=3)
    assert len(samples) == 3
    state = torch.get_rng_state()
    first, again, other = samples[0, 0], samples[0, 0], samples[1, 0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    assert not torch.equal(first["image"], DenseSamples(data, training_transform((32, 32)), seed=4)[0, 0]["image"])
    nothing = samples[0, 2]
    assert nothing["boxes"].shape == (0, 4)
    assert nothing["image"].shape == (3, 32, 32)
    with pytest.raises(ValueError, match="`seed`"):
        DenseSamples(data, training_transform((32, 32)), seed=-1)
    refusing = DenseSamples(data, evaluation_transform(Preprocessing.exact(8)))
    with pytest.raises(DataError, match=r"set/val2017/000000000139\.png has 40 x 30 pixels; the model takes 8 x 8"):
        refusing[0, 0]
    maps = DenseSamples(load_segmentation(making.root, "coco"), training_transform((32, 32)))
    assert set(maps[0, 0]) == {"image", "mask"}
    assert maps[0, 0]["mask"].shape == (32, 32)
