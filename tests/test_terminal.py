"""What the two programs do with terminals that lack characters, pipes that nobody reads and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedcnn import __version__
from seedcnn.bundle import read_bundle, write_delta
from seedcnn.server.repository import init_repository
from seedcnn.terminal import console, run_program, version
from tests.device.bundles import make_bundle
from tests.device.fleet import init

PROGRAMS = {"seedcnn": "seedcnn.cli", "seedcnn-device": "seedcnn.device.main"}
CAT = "\u732b"


def run(program: str, *arguments: object, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment: str):
    line = [sys.executable, "-m", PROGRAMS[program], *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "PYTHONIOENCODING")}
    return subprocess.run(line, stdout=stdout, stderr=stderr, env={**kept, **environment}, check=False, timeout=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bundle whose path cannot be written in ASCII or Latin-1, a delta from it, and a device that runs it."""
    place = tmp_path_factory.mktemp("place")
    bundle = place / f"{CAT}.bundle"
    bundle.write_bytes(make_bundle(1))
    delta = write_delta(read_bundle(make_bundle(1)), read_bundle(make_bundle(2, parent=1)))
    (place / "made.delta").write_bytes(delta)
    init_repository(place / "fleet")
    init(place / CAT, place / "fleet" / "root.json", "http://127.0.0.1:1", "demo", factory=bundle)
    return place


def commands(place: Path) -> list[tuple[str, list[object]]]:
    """Commands of both programs that print the name."""
    return [
        ("seedcnn-device", ["--home", place / CAT, "status", "--verbose"]),
        ("seedcnn", ["apply", place / f"{CAT}.bundle", place / "made.delta", "--out", place / f"{CAT}-2.bundle"]),
    ]


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"PYTHONIOENCODING": "utf-8"}, "utf-8"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "ascii"),
    ],
    ids=str,
)
def test_characters_that_the_terminal_lacks_are_replaced(place, environment, encoding):
    for program, arguments in commands(place):
        done = run(program, *arguments, **environment)
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        assert (CAT in text) == (encoding == "utf-8")
        if encoding != "utf-8":
            assert "?" in text or "\\udce7" in text  # a character that is lacking, or bytes that are no text here
        bad = run(program, "--home" if program == "seedcnn-device" else "inspect", f"/{CAT}", "status", **environment)
        assert bad.returncode in (1, 2)
        assert b"Traceback" not in bad.stderr
        bad.stderr.decode(encoding)


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_pipe_that_nobody_reads_is_no_event(place, unbuffered):
    for program, arguments in [*commands(place), ("seedcnn", ["recipes", "--all"]), ("seedcnn", ["--help"])]:
        reading, writing = os.pipe()
        os.close(reading)
        done = run(program, *arguments, stdout=writing, **unbuffered)
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")


def test_the_first_line_is_enough():
    done = subprocess.run(
        ["bash", "-c", '"$0" -m seedcnn.cli recipes --all | head -1; echo ${PIPESTATUS[0]}', sys.executable],
        capture_output=True,
        text=True,
        check=True,
    )
    line, code = done.stdout.splitlines()
    assert line.startswith("demo:")
    assert code in ("0", "141")
    assert done.stderr == ""


def test_standard_error_that_nobody_reads(place):
    for program, arguments in (
        ("seedcnn", ["inspect", "/absent"]),
        ("seedcnn-device", ["--home", "/absent", "status"]),
    ):
        reading, writing = os.pipe()
        os.close(reading)
        done = run(program, *arguments, stderr=writing)
        os.close(writing)
        assert (done.returncode, done.stdout) == (1, b"")


def test_a_full_disk_behind_the_output_is_one_sentence(place):
    for program, arguments in [*commands(place), ("seedcnn", ["recipes", "--all"])]:
        with open("/dev/full", "wb") as full:
            done = run(program, *arguments, stdout=full)
        assert done.returncode == 1
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith(f"{program}: ")
        assert line.endswith("No space left on device")


def test_closed_streams_are_not_handed_to_files(tmp_path):
    """With standard output closed, the next file that is opened would get what a library prints there."""
    code = """
import os, sys
from seedcnn.terminal import run_program
def body():
    with open(sys.argv[1], "wb", buffering=0) as file:
        os.write(1, b"from a library")
        print("from us")
        print("from us", file=sys.stderr)
        file.write(b"content")
sys.exit(run_program("seedcnn", body))
"""
    line = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(["bash", "-c", '"$@" >&- 2>&- <&-', "bash", *line], check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_needs_neither_torch_nor_numpy(program):
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "PIL", "onnxruntime", "tuf"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from {PROGRAMS[program]} import main
sys.argv = [{program!r}, "--version"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program} {__version__}\n", "")
    assert version() == __version__


def test_where_nothing_is_installed_the_sources_know_their_version():
    code = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    code += "from seedcnn.terminal import version; print(version())"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"


def test_markup_and_emoji_are_text(capsys):
    from rich.table import Table

    text = "groupnl_table1:ghost: [/b] [red]x[/red] \\[y]"
    shown = console(width=200)
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    shown.print(text, table)
    assert capsys.readouterr().out.count(text) == 5


def test_sentences_hold_no_codes_for_colours(capsys):
    from seedcnn.errors import ExportError

    def fail() -> None:
        raise ExportError("the network \x1b[96mcannot\x1b[0m be exported: \x1b[1;31m[/b]\x1b[K")

    assert run_program("seedcnn", fail) == 1
    assert capsys.readouterr().err == "seedcnn: the network cannot be exported: [/b]\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a/b"), "/a/b: No such file or directory"),
        (IsADirectoryError(21, "Is a directory", b"/a"), "/a: Is a directory"),
        (OSError("just words"), "just words"),
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("x", name="tuf"), "pip install 'seedcnn[agent]'"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
    ],
)
def test_expected_failures_are_one_sentence(error, sentence, capsys):
    def fail() -> None:
        raise error

    assert run_program("seedcnn", fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seedcnn: ")
    assert line.endswith(sentence)


def test_defects_keep_their_traceback_and_exits_their_code(capsys):
    def fail(error: BaseException):
        def body() -> None:
            raise error

        return body

    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="nowhere")):
        with pytest.raises(type(error)):
            run_program("seedcnn", fail(error))
    for code in (0, 2, "words"):
        with pytest.raises(SystemExit) as caught:
            run_program("seedcnn", fail(SystemExit(code)))
        assert caught.value.code == code
    assert run_program("seedcnn", fail(KeyboardInterrupt())) == 130
