"""Training, evaluate, pack and a device make the same bytes of the same file, whatever its kind and the rule."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import PIL
import pytest

from seedcnn.bundle import Preprocessing
from seedcnn.bundle.preprocessing import FILTERS, MODES, ORIENTATIONS
from seedcnn.data.sets.own import TrainedOn, load_folder
from seedcnn.evaluate import EvaluateRequest
from seedcnn.pack import int8, request
from tests.own.kinds import HEIGHT, WIDTH, write_kinds

ROOT = Path(__file__).parents[2]
CLASSES = ("one", "two")
COMMON = {"background": (10, 200, 30), "mean": 0.4, "std": 0.3}


def rules() -> list[Preprocessing]:
    """Every way to take a size, with every filter, orientation and number of channels."""
    made = []
    for mode, channels, orientation in product(MODES, (1, 3), ORIENTATIONS):
        options = {"channels": channels, "orientation": orientation, **COMMON}
        if mode == "none":
            made.append(Preprocessing.exact((HEIGHT, WIDTH), **options))
            continue
        make = {"crop": Preprocessing.crop, "squash": Preprocessing.squash, "pad": Preprocessing.pad}[mode]
        fill = {"fill": tuple(range(7, 7 + channels))} if mode == "pad" else {}
        made += [make((13, 17), filter=each, **fill, **options) for each in FILTERS]
    return made


RULES = rules()


def digests(names, images) -> dict[str, str]:
    """What each file became, by its name without the part."""
    return {
        name.partition("/")[2]: hashlib.sha256(image.tobytes()).hexdigest()
        for name, image in zip(names, images, strict=True)
    }


def refused(left, part: str = "val") -> dict[str, str]:
    """Why each file of a part was left out, by its name without the part."""
    return {each.name.partition("/")[2]: each.reason for each in left if each.name.startswith(part)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Every file in val, in two classes, and some of them in train, too."""
    root = tmp_path_factory.mktemp("agreement")
    for number, name in enumerate(write_kinds(root / "all")):
        for part in ("train", "val") if number % 6 < 2 else ("val",):
            place = root / "photos" / part / CLASSES[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / "all" / name, place / name)
    return root / "photos"


def in_the_cloud(photos: Path, rule: Preprocessing) -> Iterator[tuple[str, dict[str, str]]]:
    """What training learns and is measured on, and what ``evaluate`` and ``pack`` get, each by its own code."""
    own = load_folder(photos, preprocessing=rule)
    left = refused(own.left_out, "train")
    yield "train", digests(own.train.names, own.train.images) | left
    yield "training's measure", digests(own.val.names, own.val.images) | refused(own.left_out)
    known = TrainedOn(CLASSES, rule, f"folder:{photos}")
    test = EvaluateRequest(known.source, corruptions=()).load(trained_on=known).test
    yield "evaluate", digests(test.names, test.images) | refused(test.skipped)
    test = request.load_test(known.source, trained_on=known).test
    yield "pack", digests(test.names, test.images) | refused(test.skipped)
    picked = int8.calibration_order(own.train.labels, len(own.train))
    images, _ = request._calibration(known.source, "", known, len(own.train), None)
    yield "pack's calibration", digests(own.train.names[picked], images) | left


def on_a_device(python: Path, photos: Path) -> dict:
    """Ask the interpreter of an environment without torch about the same files."""
    files = sorted(path.relative_to(photos / "val").as_posix() for path in (photos / "val").rglob("*.*"))
    asked = {"root": str(photos / "val"), "files": files, "rules": [rule.to_json() for rule in RULES]}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, ROOT / "tests" / "own" / "on_a_device.py"]
    done = subprocess.run(command, input=json.dumps(asked), env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert not answer["versions"]["torch"]
    return answer


def environment(place: Path, *, copied: bool = False) -> Path:
    """Make an environment with the sources of seedcnn; ``copied`` adds links to the NumPy and Pillow that run here."""
    venv.create(place, with_pip=False)
    (inside,) = place.glob("lib/python*/site-packages")
    (inside / "seedcnn").symlink_to(ROOT / "seedcnn")
    for module, name, libraries in ((np, "numpy", "numpy.libs"), (PIL, "PIL", "pillow.libs")) if copied else ():
        here = Path(module.__file__).parents[1]
        for each in (name, libraries):
            if (here / each).exists():
                (inside / each).symlink_to(here / each)
    return place / "bin" / "python"


def by_kind(rows: list[dict[str, str]]) -> dict[str, Counter]:
    """How many cases of each kind of file became bytes, and how many a rule refused."""
    counts: dict[str, Counter] = {}
    for row in rows:
        for name, found in row.items():
            kind = re.sub(r" \d+(x\d+)?", "", Path(name).name)
            counts.setdefault(kind, Counter())["refused" if " " in found else "equal"] += 1
    return counts


def table(rows: list[dict[str, str]]) -> str:
    """The matrix of cases that agreed, as Markdown: kinds of files down, ways to take a size across."""
    lines = ["| file | " + " | ".join(MODES) + " |", "|---" * (len(MODES) + 1) + "|"]
    whole = by_kind(rows)
    by_mode = {
        mode: by_kind([row for rule, row in zip(RULES, rows, strict=True) if rule.resize == mode]) for mode in MODES
    }
    for kind in sorted(whole, key=lambda name: (Path(name).suffix, name)):
        cells = []
        for mode in MODES:
            count = by_mode[mode][kind]
            cells.append(f"{count['equal']}" + (f" (refused {count['refused']})" if count["refused"] else ""))
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def device_rows(photos, tmp_path_factory) -> list[dict[str, str]]:
    return on_a_device(environment(tmp_path_factory.mktemp("device") / "venv", copied=True), photos)["found"]


def test_every_file_becomes_the_same_bytes_everywhere(photos, device_rows):
    for rule, on_device in zip(RULES, device_rows, strict=True):
        for who, found in in_the_cloud(photos, rule):
            some = who in ("train", "pack's calibration")
            wanted = {name: on_device[name] for name in on_device if (photos / "train" / name).exists() or not some}
            assert found == wanted, (who, rule)


def test_the_matrix_holds_every_case(device_rows):
    assert len(RULES) == 2 * 2 * (3 * len(FILTERS) + 1)
    counts = by_kind(device_rows)
    assert {Path(name).suffix for name in counts} == {".png", ".jpg", ".bmp", ".webp", ".gif", ".tif", ".ppm"}
    none = {kind: count["refused"] for kind, count in counts.items() if count["refused"]}
    # Three sizes that "none" refuses, and the EXIF values that exchange the sides, in one and three channels.
    sizes, turned = {"L.png": 3 * 2 * 2, "RGBA.png": 3 * 2 * 2}, {"exif.jpg": 4 * 2, "exif.tif": 4 * 2}
    assert none == {**sizes, **turned, "exif.png": 2, "exif.webp": 2}
    for rule, row in zip(RULES, device_rows, strict=True):
        named = {Path(name).name: found for name, found in row.items()}
        assert named["XMP.jpg"] == named["exif 1.jpg"]  # XMP turns nothing
        for lossless in ("tif", "png", "webp"):
            assert named[f"XMP.{lossless}"] == named["exif 1.tif"]
            for turn in (3, 6):
                assert named[f"exif {turn}.{lossless}"] == named[f"exif {turn}.tif"]
        for suffix in ("jpg", "tif"):
            different = {named[f"exif {turn}.{suffix}"] for turn in range(1, 9)}
            assert len(different) > 4 if rule.orientation == "exif" else len(different) == 1
    assert len(table(device_rows).splitlines()) == 2 + len(counts)


def oldest(package: str) -> str:
    """The lower bound of the device extra, as an exact version."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (bound,) = [text.partition(">=")[2] for text in extras["device"] if text.startswith(f"{package}>=")]
    return f"{package}=={bound}"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_other_versions_of_pillow_and_numpy_make_the_same_bytes(photos, device_rows, tmp_path, which):
    python = environment(tmp_path / "venv")
    packages = [oldest(name) if which == "oldest" else name for name in ("pillow", "numpy")]
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", "--only-binary", ":all:"]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, timeout=280)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(f"no wheels of {' and '.join(packages)} for this Python")
    assert done.returncode == 0, done.stderr
    answer = on_a_device(python, photos)
    if which == "oldest":
        for name in ("pillow", "numpy"):
            assert answer["versions"][name].startswith(oldest(name).partition("==")[2])
    assert answer["found"] == device_rows
