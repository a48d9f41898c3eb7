"""Files are replaced whole, whoever writes at the same time and whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from seedcnn.files import drop_temporaries, replace_symlink, write_file


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


WRITER = """
import sys
from pathlib import Path
from seedcnn.files import write_file
for _ in range(100):
    write_file(Path(sys.argv[1]), sys.argv[2].encode() * 100_000)
"""


def test_processes_that_write_one_path_never_break_each_other(tmp_path):
    path = tmp_path / "model.bundle"
    path.write_bytes(b"a" * 100_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter], stderr=subprocess.PIPE) for letter in "abcd"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        data = path.read_bytes()
        assert len(data) == 100_000
        assert len(set(data)) == 1
        seen.add(data[:1])
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [(b"", 0)] * 4
    assert len(seen) > 1
    assert [item.name for item in tmp_path.iterdir()] == ["model.bundle"]


def test_threads_that_write_one_path_never_break_each_other(tmp_path):
    path, failed = tmp_path / "table.csv", []

    def write(letter: bytes) -> None:
        try:
            for _ in range(50):
                write_file(path, letter * 50_000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(path.read_bytes()) <= set(b"abcd")
    assert len(path.read_bytes()) == 50_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(tmp_path, mask, expected):
    with umask(mask):
        write_file(tmp_path / "new", b"x")
        write_file(tmp_path / "key", b"x", mode=0o600)
        write_file(tmp_path / "public", b"x", mode=0o644, exact=True)
        (tmp_path / "old").write_bytes(b"x")
        (tmp_path / "old").chmod(0o640)
        write_file(tmp_path / "old", b"y")
        (tmp_path / "was").write_bytes(b"x")
        write_file(tmp_path / "was", b"y", mode=0o644, exact=True)
    modes = {path.name: mode(path) for path in tmp_path.iterdir()}
    assert modes == {"new": expected, "key": 0o600, "public": 0o644, "old": 0o640, "was": 0o644}


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    write_file(tmp_path / "link", b"one")
    write_file(tmp_path / "link", b"two")
    assert os.readlink(tmp_path / "link") == "real/file"
    assert (tmp_path / "real" / "file").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]


def test_devices_and_pipes_are_written_to_and_stay(tmp_path):
    write_file(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_file(Path("/dev/full"), b"x")
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        write_file(tmp_path / "pipe", b"through")
        assert reader.communicate(timeout=20)[0] == b"through"
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_the_file_behind_standard_output_keeps_what_is_printed_later(tmp_path):
    code = "from pathlib import Path; from seedcnn.files import write_file\n"
    code += "write_file(Path('/dev/stdout'), b'first\\n'); print('second')"
    with open(tmp_path / "out", "ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text().splitlines() == ["first", "second"]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_file(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("place", "number"),
    [("absent/x", errno.ENOENT), ("file/x", errno.ENOTDIR), ("folder", errno.EISDIR), ("n" * 256, errno.ENAMETOOLONG)],
)
def test_a_refusal_names_the_path_that_was_asked_for(tmp_path, place, number):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="'") as caught:
        write_file(tmp_path / place, b"x")
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / place))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.bundle"
    path.write_bytes(b"old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    code = "import sys; from pathlib import Path; from seedcnn.files import write_file\n"
    code += "write_file(Path(sys.argv[1]), bytes(5000))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert f"File too large: '{path}'" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_can_be_dropped(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from seedcnn.files import write_file
sys.addaudithook(lambda event, given: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
write_file(Path(sys.argv[1]), b"new")
"""
    (tmp_path / "state.json").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "state.json")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    drop_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert (tmp_path / "state.json").read_bytes() == b"old"


def test_links_are_replaced_by_many_at_once(tmp_path):
    code = "import sys; from pathlib import Path; from seedcnn.files import replace_symlink\n"
    code += "for _ in range(300): replace_symlink(Path(sys.argv[1]), sys.argv[2])"
    line = [sys.executable, "-c", code, str(tmp_path / "current")]
    running = [subprocess.Popen([*line, target], stderr=subprocess.PIPE) for target in ("slots/a", "slots/b")]
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 2
    assert os.readlink(tmp_path / "current") in ("slots/a", "slots/b")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        replace_symlink(tmp_path / "folder", "slots/a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "folder"]
