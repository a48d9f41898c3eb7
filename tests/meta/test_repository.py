"""The repository itself: what its files may not hold, and that its papers keep step with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from seedcnn.bundle import Measured, Preprocessing, limits, read_bundle, with_accuracy
from seedcnn.bundle.compression import STORAGES
from seedcnn.bundle.container import ITEM_BYTES
from seedcnn.bundle.entries import CODINGS
from seedcnn.bundle.manifest import FORMAT, Manifest
from seedcnn.rng import RNG_NAME
from tests.bundle.test_norms import bundle as with_norms
from tests.test_rng import MAPPING, RANDOM123

ROOT = Path(__file__).parents[2]
# Spelled in parts, so that this file does not hold what it looks for.
HOSTS = [
    "py" + "pi.org",
    "files.python" + "hosted.org",
    "registry.npm" + "js",
    "npm" + "js.com",
    "download.py" + "torch.org",
]
HOSTS += ["index" + "-url", "anaconda" + ".org", "find" + "-links"]
PATHS = [r"(?<![\w.])/wo" + r"rk/", r"\.\./sha" + r"red\b", r"/ro" + r"ot/", r"/ho" + r"me/\w+/", r"/opt/py" + "pi"]
FORBIDDEN = re.compile("|".join([*map(re.escape, HOSTS), *PATHS]))


def _files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_registry_or_somebodys_directory():
    found = []
    for path in _files():
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
            if match := FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_looks_for():
    for text in ("https://py" + "pi.org/simple", "see ../sha" + "red/x", "/wo" + "rk/main", "/ro" + "ot/.cache"):
        assert FORBIDDEN.search(text)
    assert not FORBIDDEN.search("network/main tests/wor" + "k/x a/root.json /rooted")


def test_no_large_file():
    large = [f"{path.relative_to(ROOT)}: {size}" for path in _files() if (size := path.stat().st_size) > 500_000]
    assert not large


def test_constraints_are_exact_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 40
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
        assert not re.match(r"(nvidia|cuda)-|triton|seedcnn", line), line
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_the_changelog_has_an_unreleased_section():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)


def _rows(text: str) -> set[str]:
    """The names in the first column of the document's tables."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def _field_names(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {name for key, item in value.items() for name in {f"{path}{key}"} | _field_names(item, f"{path}{key}.")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {name for item in value for name in _field_names(item, f"{path.rstrip('.')}[].")}
    return set()


@pytest.fixture(scope="module")
def format_page() -> str:
    return (ROOT / "docs" / "bundle-format.md").read_text(encoding="utf-8")


def test_the_format_page_has_every_manifest_field_and_no_other(format_page):
    import json

    fields = set()
    for rule in (Preprocessing.crop(4), Preprocessing.pad(4)):  # each has a field that the other lacks
        stated = with_accuracy(read_bundle(with_norms(preprocessing=rule)), Measured("d", 1, 2))
        manifest = read_bundle(stated).manifest.dump()
        assert Manifest.parse(manifest).dump() == manifest
        fields |= _field_names(json.loads(manifest))
    documented = {
        name for name in _rows(format_page) if not name.isupper() and not re.fullmatch("[0-9a-f]{16}", name)
    } - {*CODINGS, *ITEM_BYTES}
    assert documented == fields


def test_the_format_page_has_every_limit_with_its_value(format_page):
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert len(values) > 12
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| ([\d,]+) \|", format_page, re.MULTILINE))
    assert {name: int(text.replace(",", "")) for name, text in documented.items()} == values


def test_the_format_page_has_the_names_and_the_known_answers(format_page):
    for text in (FORMAT, RNG_NAME, *ITEM_BYTES, *STORAGES, *CODINGS):
        assert f"`{text}`" in format_page
    for _, _, answer in RANDOM123:
        assert " ".join(f"{word:08x}" for word in answer) in format_page
    for seed, tensor_id, stream, (lo_q, span_q, frac_bits), answer in MAPPING:
        assert f"| `{seed:016x}` | {tensor_id} | {stream} | {lo_q}, {span_q}, {frac_bits} | `{answer}` |" in format_page
