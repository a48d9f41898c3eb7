"""The common type of a set in memory, its statistics, and limited training data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from seedcnn.data.image_set import ImageSet, TrainTest, channel_statistics, limited, stratified_indices


def make(n=6, classes=("a", "b", "c"), **more):
    images = np.random.default_rng(0).integers(0, 256, (n, 5, 4, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(n) % len(classes), tuple(classes), "made here", **more)


def test_take_keeps_every_column_in_step():
    data = make(styles=np.array(list("uvwxyz")), names=np.array([f"n{i}" for i in range(6)]))
    picked = data.take([4, 1])
    np.testing.assert_array_equal(picked.images, data.images[[4, 1]])
    assert picked.labels.tolist() == [1, 1]
    assert picked.styles.tolist() == ["y", "v"]
    assert picked.names.tolist() == ["n4", "n1"]
    assert data.take(data.labels == 2).names.tolist() == ["n2", "n5"]
    assert len(data.take([])) == 0
    picked.images[:] = 0
    assert data.images.any()


def test_counts_include_empty_classes():
    assert make(4).counts.tolist() == [2, 1, 1]
    assert make(1).counts.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, r"`images` is float32 \(2, 4, 4, 3\)"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8)}, r"it must be uint8 \[N, H, W, 3\]"),
        ({"labels": np.zeros(2, np.int32)}, r"`labels` is int32 \(2,\); it must be int64 \(2,\)"),
        ({"labels": np.zeros(3, np.int64)}, r"int64 \(3,\); it must be int64 \(2,\)"),
        ({"labels": np.array([0, 2])}, r"`labels` goes from 0 to 2; with 2 classes it must be in 0 to 1"),
        ({"labels": np.array([-1, 1])}, "`labels` goes from -1 to 1"),
        ({"styles": np.array(["x"])}, r"`styles` is <U1 \(1,\); it must hold one string per image, \(2,\)"),
        ({"names": np.array([1, 2])}, "`names` is int64"),
    ],
)
def test_wrong_columns(change, words):
    good = {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.array([0, 1]), "classes": ("a", "b")}
    with pytest.raises(ValueError, match=words):
        ImageSet(**{**good, **change}, source="made here")


def test_train_and_test_read_like_cifar10():
    data = TrainTest(make(6), make(3), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert data.train_images is data.train.images
    assert data.train_labels is data.train.labels
    assert data.test_images is data.test.images
    assert data.test_labels is data.test.labels
    assert data.classes == ("a", "b", "c")
    assert data.source == "made here"


def test_train_and_test_must_have_the_same_classes():
    with pytest.raises(ValueError, match=r"different classes \(3 and 2\)"):
        TrainTest(make(), make(classes=("a", "b")), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_channel_statistics():
    images = make(50).images
    images[..., 1] = 7
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 1, 2)) / 255, rtol=1e-9)
    assert std[1] == 0
    with pytest.raises(ValueError, match="not empty"):
        channel_statistics(images[:0])


LABELS = np.repeat(np.arange(4), [10, 25, 3, 100])


@pytest.mark.parametrize(
    ("fraction", "counts"), [(1, [10, 25, 3, 100]), (0.5, [5, 13, 2, 50]), (0.2, [2, 5, 1, 20]), (0.9, [9, 23, 3, 90])]
)
def test_fractions_are_exact_per_class(fraction, counts):
    labels = np.random.default_rng(0).permutation(LABELS)
    picked = stratified_indices(labels, fraction, seed=3)
    assert np.bincount(labels[picked]).tolist() == counts
    assert np.all(np.diff(picked) > 0)
    assert picked.dtype == np.int64


def test_the_pick_is_seeded_and_does_not_drift():
    first = stratified_indices(LABELS, 0.3, seed=1)
    np.testing.assert_array_equal(first, stratified_indices(LABELS, 0.3, seed=1))
    assert not np.array_equal(first, stratified_indices(LABELS, 0.3, seed=2))
    assert stratified_indices(LABELS[:35], 0.2, seed=5).tolist() == PINNED


PINNED = [2, 9, 14, 15, 17, 20, 24]


def test_smaller_parts_lie_inside_larger_ones():
    parts = [set(stratified_indices(LABELS, f / 20, seed=9).tolist()) for f in range(4, 21)]
    assert all(small <= large for small, large in itertools.pairwise(parts))
    assert parts[-1] == set(range(len(LABELS)))


def test_every_picture_is_as_likely():
    labels = np.zeros(20, np.int64)
    hits = np.bincount(
        np.concatenate([stratified_indices(labels, 0.25, seed=seed) for seed in range(2000)]), minlength=20
    )
    assert abs(hits - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("labels", "fraction", "seed", "words"),
    [
        (LABELS, 0, 0, r"`fraction` \(=0\) must be in \(0, 1\]"),
        (LABELS, 1.5, 0, r"`fraction` \(=1.5\)"),
        (LABELS, float("nan"), 0, r"`fraction` \(=nan\)"),
        (LABELS, 0.5, -1, r"`seed` \(=-1\)"),
        (LABELS, 0.1, 0, r"leaves none of the 3 images of class 2; it must be at least 0\.167"),
        (LABELS - 1, 0.5, 0, "`labels` is int64"),
        (LABELS.astype(float), 0.5, 0, "`labels` is float64"),
    ],
)
def test_wrong_fractions(labels, fraction, seed, words):
    with pytest.raises(ValueError, match=words):
        stratified_indices(labels, fraction, seed=seed)


def test_limited_set():
    data = make(60)
    part = limited(data, 0.1, seed=4)
    assert part.counts.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(part.images, data.images[stratified_indices(data.labels, 0.1, seed=4)])
