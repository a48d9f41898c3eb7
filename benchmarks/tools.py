"""How long the commands take: each row in a process of its own, this checkout against another one.

    python benchmarks/tools.py --against ../before --rows pack-64,plan --rounds 5 --out results/tools.json

A round runs every row once with each checkout, in turns. The record has wall seconds and processor seconds of the whole
process and of those that it started, seconds of the work without the start of Python, and peak memory: of the largest
process (resident), and of all together (proportional, sampled once a second). Without --against, this checkout
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from tools_rows import FIRST_LINE, ROWS, first_line_command

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MEASURES = ("wall_s", "work_s", "cpu_s", "largest_mb", "together_mb")
_PAUSE = 1.0  # seconds between two looks at the memory, which take some milliseconds of a core


@dataclass(frozen=True)
class Run:
    """One run of a row: seconds (``work_s`` without the start of Python), memory in MB, and what the row found."""

    wall_s: float
    work_s: float
    cpu_s: float
    largest_mb: float
    together_mb: float
    found: dict[str, Any]


class _Watch(threading.Thread):
    """Looks at the memory of a process and of all that it started, until it is stopped."""

    def __init__(self, pid: int, pause: float = _PAUSE) -> None:
        super().__init__(daemon=True)
        self._pause = pause
        self._pid, self._end, self.peak_kb = pid, threading.Event(), 0
        self.start()

    def run(self) -> None:
        while not self._end.wait(self._pause):
            self.peak_kb = max(self.peak_kb, sum(map(_memory_kb, _family(self._pid))))

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        self.join()


def _family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    except OSError:  # it has ended
        pass
    return found


def _memory_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def run_row(name: str, checkout: Path, place: Path) -> Run:
    """Run one row with the code of a checkout.

    Raises:
        SystemExit: if it fails, or runs other code than the checkout's.
    """
    if name == FIRST_LINE:
        return _run_until_line(name, checkout, place)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = _start(checkout, [str(HERE / "tools_rows.py"), "run", str(place), name], out, errors)
        watch = _Watch(process.pid)
        code, cpu, largest = _wait(process)
        wall = time.perf_counter() - start
        watch.stop()
        out.seek(0), errors.seek(0)
        if code:
            raise SystemExit(f"tools: {name} with {checkout} ended with {code}: {errors.read()[-2000:]}")
        said = json.loads(out.read().splitlines()[-1])
    if Path(said["code"]) != checkout / "seedcnn":
        raise SystemExit(f"tools: {name} ran the code of {said['code']}; it must run that of {checkout}")
    return Run(wall, said["work_s"], cpu, largest, watch.peak_kb / 1e3, said["found"])


def _run_until_line(name: str, checkout: Path, place: Path) -> Run:
    """Run a command until it says something, and end it."""
    start = time.perf_counter()
    process = _start(checkout, first_line_command(place), subprocess.PIPE, subprocess.STDOUT, session=True)
    watch = _Watch(process.pid)
    assert process.stdout is not None
    line = next((text.strip() for text in process.stdout if text.strip()), "")
    wall = time.perf_counter() - start
    os.killpg(process.pid, signal.SIGTERM)
    process.stdout.close()
    code, cpu, largest = _wait(process)
    watch.stop()
    if not line or code not in (0, -signal.SIGTERM):
        raise SystemExit(f"tools: {name} with {checkout} ended with {code}, having said: {line or 'nothing'}")
    return Run(wall, wall, cpu, largest, watch.peak_kb / 1e3, {"line": line})


def _start(
    checkout: Path, arguments: Sequence[str], out: Any, errors: Any, *, session: bool = False
) -> subprocess.Popen[str]:
    """Start Python with the code of a checkout; in a session of its own, all that it starts can be ended with it."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-u", *arguments]
    return subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=out, stderr=errors, text=True, start_new_session=session
    )


def _wait(process: subprocess.Popen[str]) -> tuple[int, float, float]:
    """Wait for the end: exit code, processor seconds with those of the processes it waited for, MB of the largest."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def measure(name: str, checkouts: dict[str, Path], place: Path, rounds: int) -> dict[str, list[Run]]:
    """Run a row ``rounds`` times with each checkout, in turns; every other round in the opposite order."""
    found: dict[str, list[Run]] = {which: [] for which in checkouts}
    for number in range(rounds):
        for which in list(checkouts)[:: -1 if number % 2 else 1]:
            found[which].append(run_row(name, checkouts[which], place))
            last = found[which][-1]
            print(f"{name}, {which}, round {number + 1}: {last.wall_s:.1f} s", file=sys.stderr, flush=True)
    return found


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return median, smallest and largest of each measure, and what the last run found."""
    result: dict[str, Any] = {"runs": len(runs)}
    for measure_name in MEASURES:
        values = [getattr(run, measure_name) for run in runs]
        result[measure_name] = {
            "median": round(median(values), 3),
            "least": round(min(values), 3),
            "most": round(max(values), 3),
        }
    return result | {"found": runs[-1].found}


def ratios(old: dict[str, Any], new: dict[str, Any]) -> dict[str, float]:
    """Return new over old, of the medians."""
    return {name: round(new[name]["median"] / old[name]["median"], 3) for name in MEASURES if old[name]["median"]}


def _cell(measured: dict[str, float]) -> str:
    spread = "" if measured["least"] == measured["most"] else f" [{measured['least']:.4g}, {measured['most']:.4g}]"
    return f"{measured['median']:.4g}{spread}"


def print_rows(rows: dict[str, dict[str, Any]]) -> None:
    """Print the medians, with their range, old and new, and the ratios."""
    table = Table("row", "", "wall, s", "work, s", "processor, s", "largest, MB", "together, MB")
    for name, row in rows.items():
        for which in ("old", "new"):
            if which in row:
                table.add_row(name, which, *(_cell(row[which][measure_name]) for measure_name in MEASURES))
        if "ratio" in row:
            table.add_row("", "new/old", *(f"{row['ratio'].get(measure_name, 1):.2f}" for measure_name in MEASURES))
        table.add_section()
    Console(width=140).print(table)
    print("medians [least, most]")


def state_of(checkout: Path) -> str:
    """Return the commit of a checkout, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", checkout, *arguments], capture_output=True, text=True).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no", "--", "seedcnn") else ""
    return f"{git('rev-parse', '--short=12', 'HEAD') or 'no repository'}{changed}"


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options, and refuse what cannot work before anything is run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of seedcnn, the old code")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each row and checkout (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the record as JSON")
    arguments = parser.parse_args(argv)
    arguments.rows = list(dict.fromkeys(filter(None, arguments.rows.split(","))))
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        parser.error(f"--rows {','.join(unknown)}: there is no such row; there are {', '.join(ROWS)}")
    if not arguments.rows or arguments.rounds < 1:
        parser.error("--rows must name a row, and --rounds must be at least 1")
    if arguments.against is not None and not (arguments.against / "seedcnn" / "__init__.py").is_file():
        parser.error(f"--against {arguments.against} holds no checkout of seedcnn")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the inputs, run the rows, print the table, and write the record after each row."""
    arguments = options(argv)
    old = {} if arguments.against is None else {"old": arguments.against.resolve()}
    checkouts = {**old, "new": ROOT}
    given = [f"--rows {','.join(arguments.rows)}", f"--rounds {arguments.rounds}"]
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/tools.py", *["--against DIRECTORY"] * bool(old), *given]),
        "what": "each row in processes of their own, old and new code in turns; medians, least and most",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as there are cores"),
        "versions": {name: version(name) for name in ("torch", "timm", "onnxruntime", "numpy")},
        "code": {which: state_of(checkout) for which, checkout in checkouts.items()},
        "rows": {},
    }
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        print("drawing pictures and fitting networks", file=sys.stderr, flush=True)
        prepare = [sys.executable, str(HERE / "tools_rows.py"), "prepare", directory, *arguments.rows]
        subprocess.run(prepare, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        for name in arguments.rows:
            runs = measure(name, checkouts, place, arguments.rounds)
            row: dict[str, Any] = {"what": ROWS[name].what, "tests": ROWS[name].tests}
            row |= {"calibration": ROWS[name].calibration}
            row |= {which: summary(each) for which, each in runs.items()}
            if old:
                row["ratio"] = ratios(row["old"], row["new"])
            record["rows"][name] = row
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print_rows(record["rows"])


if __name__ == "__main__":
    main()
