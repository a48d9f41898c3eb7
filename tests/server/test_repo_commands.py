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


def test_init_add_publish_refresh(tmp_path, make_bundle):
    for release in (1, 2):
        (tmp_path / f"{release}.bundle").write_bytes(make_bundle(release))
    result = invoke("init", tmp_path / "r")
    assert result.exit_code == 0
    assert str(tmp_path / "r" / "root.json") in result.output
    result = invoke("add-family", tmp_path / "r", "demo")
    assert f"Its key is {tmp_path / 'r' / 'keys' / 'demo.bundles.pem'}; move it" in result.output
    result = invoke("publish", tmp_path / "r", tmp_path / "1.bundle", tmp_path / "2.bundle")
    assert [line.split(":")[0] for line in result.output.splitlines()] == [
        "Published demo/1.bundle",
        "Published demo/2.bundle",
        "  delta from release 1",
    ]
    assert invoke("refresh", tmp_path / "r").output == "Signed anew: timestamp\n"
    with pytest.raises(RepositoryError, match="release 1 of 'demo' cannot be published: release 2 is out"):
        invoke("publish", tmp_path / "r", tmp_path / "1.bundle")


@pytest.mark.parametrize("command", ["init", "add-family", "publish", "refresh", "prune", "verify", "serve"])
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init", "DIR/file"], "cannot be written: Not a directory"),
        (["init", "DIR/file/x"], "cannot be written: Not a directory"),
        (["init", "/proc/x"], "cannot be written: No such file"),
        (["init", "DIR/r"], "already holds a repository"),
        (["init", "n" * 300], "File name too long"),
        (["publish", "DIR/r", "DIR/folder"], "folder cannot be read: Is a directory"),
        (["publish", "DIR/r", "DIR/[/b]:ghost:"], "[/b]:ghost: cannot be read: No such file"),
        (["publish", "DIR/r", "DIR/file"], "file has 0 bytes"),
        (["publish", "DIR/file", "DIR/1.bundle"], "is not a repository; make one with"),
        (["publish", "DIR/folder", "DIR/1.bundle"], "is not a repository; make one with"),
        (["refresh", "DIR/absent"], "is not a repository"),
        (["refresh", "DIR/file"], "is not a repository"),
        (["serve", "DIR/absent"], "is not a repository"),
        (["serve", "DIR/r", "--host", "nowhere.invalid"], "cannot serve on nowhere.invalid:8000"),
        (["serve", "DIR/r", "--host", "a..b"], "cannot serve on a..b:8000"),
        (["serve", "DIR/r", "--host", "[::g]"], "cannot serve on [::g]:8000"),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_a_user_can_type_is_one_sentence(tmp_path, make_bundle, arguments, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "1.bundle").write_bytes(make_bundle(1))
    invoke("init", tmp_path / "r")
    invoke("add-family", tmp_path / "r", "demo")
    line = [sys.executable, "-m", "seedcnn.cli", "repo", *(text.replace("DIR", str(tmp_path)) for text in arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("seedcnn: ")
    assert words in sentence
