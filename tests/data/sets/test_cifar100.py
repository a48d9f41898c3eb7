"""Small versions of both official layouts of CIFAR-100; by default the digests of the originals are required."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from seedcnn.data.sets.cifar100 import CLASSES, load_cifar100
from seedcnn.errors import DataError

PARTS = {"train": 12, "test": 5}


@pytest.fixture(scope="module")
def content():
    """Pixels [N, 3072], coarse and fine labels by part."""
    rng = np.random.default_rng(3)
    return {
        part: (
            rng.integers(0, 256, (n, 3072), dtype=np.uint8),
            rng.integers(0, 20, n).tolist(),
            [99, 0, *rng.integers(0, 100, n - 2).tolist()],
        )
        for part, n in PARTS.items()
    }


def blob(pixels, coarse, fine):
    return np.concatenate([np.uint8(coarse)[:, None], np.uint8(fine)[:, None], pixels], axis=1).tobytes()


def write_python(content, directory):
    directory.mkdir(parents=True)
    for part, (pixels, coarse, fine) in content.items():
        names = [f"{i}.png" for i in range(len(fine))]
        whole = {"filenames": names, "batch_label": part, "fine_labels": fine, "coarse_labels": coarse, "data": pixels}
        (directory / part).write_bytes(pickle.dumps(whole, protocol=2))


def write_binary(content, directory):
    directory.mkdir(parents=True)
    for part, columns in content.items():
        (directory / f"{part}.bin").write_bytes(blob(*columns))


@pytest.mark.parametrize(
    ("write", "place"),
    [(write_python, "."), (write_python, "cifar-100-python"), (write_binary, "."), (write_binary, "cifar-100-binary")],
)
def test_both_layouts(content, tmp_path, write, place):
    write(content, tmp_path / "root" / place)
    data = load_cifar100(str(tmp_path / "root"), verify=False)
    for part in PARTS:
        pixels, _, fine = content[part]
        found = getattr(data, part)
        np.testing.assert_array_equal(found.images, pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        assert found.labels.tolist() == fine
        assert part in found.source
    assert data.classes == CLASSES
    assert len(set(CLASSES)) == 100
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize(("write", "name"), [(write_python, "train"), (write_binary, r"train\.bin")])
def test_another_set_is_refused_with_both_digests(content, tmp_path, write, name):
    write(content, tmp_path / "root")
    found = hashlib.sha1(blob(*content["train"])).hexdigest()
    with pytest.raises(DataError, match=f"{name} is not the original train: .* is {found}, expected e207cd2e05b7"):
        load_cifar100(tmp_path / "root")


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_hostile_pickle_runs_nothing(content, tmp_path):
    write_python(content, tmp_path / "root")
    (tmp_path / "root" / "test").write_bytes(pickle.dumps({"data": Exploit(tmp_path / "marker")}, protocol=2))
    with pytest.raises(DataError, match=r"test is not a part of CIFAR-100: .*open"):
        load_cifar100(tmp_path / "root", verify=False)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": np.zeros((2, 3071), np.uint8)}, r"data must be uint8 \[N, 3072\]"),
        ({"data": np.zeros(3072, np.uint8)}, r"data must be uint8"),
        ({"data": np.zeros((2, 3072), np.int64)}, "only u1"),
        ({"fine_labels": [1, 100]}, "integers from 0 to 99"),
        ({"coarse_labels": [1, -1]}, "integers from 0 to 99"),
        ({"fine_labels": [1]}, "labels must be 2 integers"),
        ({"fine_labels": [1.0, 2.0]}, "labels must be 2 integers"),
    ],
)
def test_damaged_pickle(content, tmp_path, change, words):
    write_python(content, tmp_path / "root")
    good = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1, 2], "coarse_labels": [1, 2]}
    (tmp_path / "root" / "train").write_bytes(pickle.dumps({**good, **change}, protocol=2))
    with pytest.raises(DataError, match=f"train is not a part of CIFAR-100: .*({words})"):
        load_cifar100(tmp_path / "root", verify=False)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(3073), "has 3073 bytes; the binary layout has 3074 per image"),
        (b"", "has 0 bytes"),
        (bytes([0, 100]) + bytes(3072), "has the fine label 100; labels go from 0 to 99"),
    ],
)
def test_damaged_binary(content, tmp_path, data, words):
    write_binary(content, tmp_path / "root")
    (tmp_path / "root" / "test.bin").write_bytes(data)
    with pytest.raises(DataError, match=words):
        load_cifar100(tmp_path / "root", verify=False)


def test_missing_files(content, tmp_path):
    with pytest.raises(DataError, match=r"does not exist\. Expected for CIFAR-100: the files train and test"):
        load_cifar100(tmp_path / "nowhere")
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"holds no CIFAR-100\. Expected: .*train\.bin.*Found: cifar-10-batches-py"):
        load_cifar100(tmp_path)
    write_binary(content, tmp_path / "root")
    (tmp_path / "root" / "train.bin").unlink()
    with pytest.raises(DataError, match=r"train\.bin cannot be read: No such file"):
        load_cifar100(tmp_path / "root", verify=False)
