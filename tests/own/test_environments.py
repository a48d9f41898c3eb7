"""The same numbers and bundle without assertions, in the C locale and without a home; names in any alphabet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.own import chain
from tests.own.photos import CLASSES, write_photos

ROOT = Path(__file__).parents[2]
NAMES = ("Grün", "猫", "Ünïté 日本", "γάτα")
FLAGS, LOCALE, HOME = ["-O"], {"LC_ALL": "C"}, {"HOME": "/proc/nonexistent"}
ENVIRONMENTS = {
    "without assertions": (FLAGS, {}),
    "C locale": ([], LOCALE),
    "no home": ([], HOME),
}


def start(place: Path, photos: Path, flags: list[str], variables: dict[str, str]) -> subprocess.Popen:
    """Start the chain in an environment of its own."""
    place.mkdir()
    command = [sys.executable, *flags, ROOT / "tests" / "own" / "chain.py", place, photos]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "XDG_", "PYTHON"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    photos = write_photos(tmp_path_factory.mktemp("environments") / "bilder 图", 12)
    for part in ("train", "val"):
        for old, new in zip(CLASSES, NAMES, strict=True):
            (photos / part / old).rename(photos / part / new)
    for path in sorted(photos.rglob("*-001.*")):
        path.rename(path.with_name(f"größe 大小{path.suffix}"))
    return photos


@pytest.fixture(scope="module")
def results(photos) -> tuple[dict, dict]:
    """What the chain prints and writes: here, and at the same time where everything is different."""
    other = start(photos.parent / "other", photos, FLAGS, {**LOCALE, **HOME})
    (photos.parent / "here").mkdir()
    here = chain.main(photos.parent / "here", photos)
    return here, end(other)


def test_the_chain_works(results):
    here, _ = results
    printed = here["printed"]
    assert all(text.startswith("0: ") for text in printed), printed
    assert len(here["bundle"]) == 64
    measured = [json.loads(text[3 : text.rindex("}") + 1]) for text in (printed[3], printed[9])]
    assert next(iter(measured[0].values()))["clean"] == measured[1]["top1"]
    assert set(measured[1]["by_class"]) == set(NAMES)


def test_without_assertions_and_a_home_in_the_c_locale_nothing_changes(results):
    here, other = results
    assert other == here


def test_where_python_reads_names_as_ascii_the_remedy_is_named(photos):
    code = "import sys; from seedcnn.data.sets.own import load_folder; load_folder(sys.argv[1])"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, photos]
    done = subprocess.run(command, env={**os.environ, **ascii_only}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert r"has the class folder Gr\udcc3\udcbcn: a class must have a name in UTF-8" in line
    assert "set PYTHONUTF8=1" in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_alone_changes_nothing(results, photos, name):
    assert end(start(photos.parent / name, photos, *ENVIRONMENTS[name])) == results[0]
