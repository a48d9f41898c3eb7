"""``seedcnn repo``, in separate processes and through typer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from seedcnn.cli.repo import app
from seedcnn.errors import RepositoryError


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_init_publish_resign(tmp_path, make_bundle):
    for release in (1, 2):
        (tmp_path / f"{release}.bundle").write_bytes(make_bundle(release))
    result = invoke("init", tmp_path / "r")
    assert result.exit_code == 0
    assert str(tmp_path / "r" / "root.json") in result.output
    result = invoke("publish", tmp_path / "r", tmp_path / "1.bundle", tmp_path / "2.bundle")
    assert [line.split(":")[0] for line in result.output.splitlines()] == [
        "Published demo/1.bundle",
        "Published demo/2.bundle",
        "  delta from release 1",
    ]
    assert invoke("resign", tmp_path / "r").output == "Signed anew: snapshot, timestamp\n"
    with pytest.raises(RepositoryError, match="release 1 of 'demo' cannot be published: release 2 is out"):
        invoke("publish", tmp_path / "r", tmp_path / "1.bundle")


@pytest.mark.parametrize("command", ["init", "publish", "resign", "serve"])
def test_every_help_ends_with_an_example(command):
    assert f"Example: seedcnn repo {command}" in invoke(command, "--help").output


def test_serve_until_interrupted(tmp_path):
    invoke("init", tmp_path / "r")
    # Children of a shell's background job ignore interrupts; this one must not.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from seedcnn.cli.repo import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(tmp_path / "r"), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        url = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{url}/metadata/1.root.json", timeout=20) as response:
            assert response.read() == (tmp_path / "r" / "root.json").read_bytes()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
