"""Commands on a disk that is full, here a limit on the size of files: what was there stays, and it is one sentence."""

from __future__ import annotations

import resource
import subprocess
import sys

from seedcnn.bundle import read_bundle, write_delta
from tests.device.bundles import make_bundle


def limited(*arguments: object) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    line = [sys.executable, "-m", "seedcnn.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, preexec_fn=limit)


def test_apply_keeps_the_bundle_that_was_there(tmp_path):
    (tmp_path / "1.bundle").write_bytes(make_bundle(1))
    delta = write_delta(read_bundle(make_bundle(1)), read_bundle(make_bundle(2, parent=1)))
    (tmp_path / "2.delta").write_bytes(delta)
    out = tmp_path / "out.bundle"
    out.write_bytes(b"what was there")
    before = sorted(tmp_path.iterdir())
    done = limited("apply", tmp_path / "1.bundle", tmp_path / "2.delta", "--out", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"seedcnn: {out}: File too large\n"
    assert out.read_bytes() == b"what was there"
    assert sorted(tmp_path.iterdir()) == before
