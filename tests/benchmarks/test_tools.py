"""The table of times, old against new: options, figures, and what is measured of a process; the rows take minutes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def tools():
    """The module by its file: the directory of that name may have been imported before."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        found = importlib.util.spec_from_file_location("benchmarks_tools", BENCHMARKS / "tools.py")
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module  # dataclasses look it up
        found.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("benchmarks_tools", None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rows", "pack-1024,plan"], "--rows pack-1024: there is no such row; there are pack-224, pack-64, "),
        (["--rows", ","], "must name a row"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--against", "/nowhere"], "--against /nowhere holds no checkout of seedcnn"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(tools, arguments, says, capsys):
    with pytest.raises(SystemExit):
        tools.options(arguments)
    assert says in capsys.readouterr().err


def test_figures_and_ratios(tools, capsys):
    old = tools.summary([tools.Run(seconds, 1.0, 2.0, 100.0, 0.0, {"bytes": 5}) for seconds in (4.0, 8.0, 6.0)])
    new = tools.summary([tools.Run(3.0, 1.0, 4.0, 50.0, 0.0, {"bytes": 6})])
    assert old["wall_s"] == {"median": 6.0, "least": 4.0, "most": 8.0}
    assert (old["runs"], old["found"], new["found"]) == (3, {"bytes": 5}, {"bytes": 6})
    found = tools.ratios(old, new)
    assert found == {"wall_s": 0.5, "work_s": 1.0, "cpu_s": 2.0, "largest_mb": 0.5}
    tools.print_rows({"plan": {"old": old, "new": new, "ratio": found}})
    out = capsys.readouterr().out
    assert "6 [4, 8]" in out
    assert "0.50" in out


def test_seconds_and_memory_of_a_process_and_its_children(tools):
    work = "end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    child = f"import time; x = bytearray(120_000_000)\n{work}"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = tools._start(ROOT, ["-c", code], subprocess.DEVNULL, subprocess.DEVNULL)
    watch = tools._Watch(process.pid, pause=0.05)
    exit_code, seconds, largest = tools._wait(process)
    watch.stop()
    assert exit_code == 0
    assert 0.6 <= seconds < 3
    assert largest > 120
    assert watch.peak_kb > 120_000


def test_the_table_of_rows_needs_no_torch(tools):
    """The largest process is measured from its start, which has the memory of the one that started it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import tools; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(BENCHMARKS)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_rows_run_with_two_checkouts(tools, tmp_path, capsys):
    out = tmp_path / "record.json"
    rows = ["--rows", "plan-sensitivity,evaluate-first-line", "--rounds", "1"]
    tools.main(["--against", str(ROOT), *rows, "--out", str(out)])
    record = json.loads(out.read_text())
    assert list(record["rows"]) == ["plan-sensitivity", "evaluate-first-line"]
    for row in record["rows"].values():
        assert row["old"]["found"].keys() == row["new"]["found"].keys()
        assert row["ratio"]["wall_s"] > 0
    assert str(ROOT) not in out.read_text()
    assert "new/old" in capsys.readouterr().out
