"""Damaged deltas on the command line: a sentence that names the file."""

from __future__ import annotations

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import write_delta
from tests.cli.calls import in_process
from tests.device.bundles import make_bundle


@pytest.fixture
def files(tmp_path):
    first, second = make_bundle(1), make_bundle(2, parent=1)
    delta = write_delta(read_bundle(first), read_bundle(second))
    for name, data in (("a.bundle", first), ("a.delta", delta)):
        (tmp_path / name).write_bytes(data)
    return tmp_path


def cut(data):
    return data[:-9]


def flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize("damage", [cut, flipped])
@pytest.mark.parametrize("command", ["inspect", "apply"])
def test_the_file_is_named(files, damage, command):
    bad, out = files / "bad.delta", files / "out.bundle"
    bad.write_bytes(damage((files / "a.delta").read_bytes()))
    given = (bad,) if command == "inspect" else (files / "a.bundle", bad, "--out", out)
    done = in_process(command, *given, expect=1)
    assert done.stderr.startswith(f"seedcnn: {bad}: ")
    assert not out.exists()


def test_a_bundle_is_no_delta(files):
    bundle = files / "a.bundle"
    done = in_process("apply", bundle, bundle, "--out", files / "out.bundle", expect=1)
    assert done.stderr == f"seedcnn: {bundle}: this is a bundle, not a delta\n"
    done = in_process("apply", bundle, files / "absent", "--out", files / "out.bundle", expect=1)
    assert "absent cannot be read: No such file or directory" in done.stderr
