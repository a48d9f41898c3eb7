"""The files in ``vectors/`` are frozen: every reader on every machine gets the numbers in their text files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedcnn.bundle import encode_grid, grid_of_step, read_bundle
from seedcnn.bundle.compression import decompress
from seedcnn.bundle.container import FORMAT, read_container
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.bundle.preprocessing import FILTERS, MODES
from seedcnn.runtime.pictures import check_canned_pictures
from tests.bundle.bundles import (
    integers_of,
    replace_one,
    tiny_bundle,
    with_head,
    with_header,
    with_integers,
    with_manifest,
)
from tests.bundle.c_reader import agree, build, run, tool
from tests.bundle.make_vectors import NAMES, RULES, VECTORS, bundle_of, told

ROOT = Path(__file__).parents[2]
CORTEX_M = ROOT / "tests" / "bundle" / "cortex_m"
WITHOUT_LIBRARY = ("entropy", "zlib", *(name for name in RULES if name not in NAMES))
SHORT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def zstd_reader(tmp_path_factory) -> Path:
    """The C reader with zstd."""
    tmp = tmp_path_factory.mktemp("zstd_reader")
    probe = tmp / "probe.c"
    probe.write_text("#include <zstd.h>\nint main(void) { return (int)ZSTD_isError(0); }\n")
    if subprocess.run([tool("cc"), "-o", tmp / "probe", probe, "-lzstd"], capture_output=True).returncode:
        pytest.skip("zstd's C library is not installed")
    return build(tmp, "cc", "-O2", "-DWITH_ZSTD", "-lzstd")


@pytest.mark.parametrize("name", RULES)
def test_python(name):
    data = (VECTORS / f"{name}.bundle").read_bytes()
    assert told(data) == (VECTORS / f"{name}.txt").read_text()
    check_canned_pictures(read_bundle(data))


@pytest.mark.parametrize("name", RULES)
def test_the_files_are_what_make_vectors_makes(name):
    frozen = read_bundle((VECTORS / f"{name}.bundle").read_bytes())
    assert read_bundle(bundle_of(name)).manifest.content_sha256() == frozen.manifest.content_sha256()


def test_the_rules_differ():
    assert {rule.resize for rule in RULES.values()} == set(MODES)
    assert {rule.filter for rule in RULES.values() if rule.resize != "none"} == set(FILTERS)
    assert {rule.channels for rule in RULES.values()} == {1, 3}


@pytest.mark.parametrize("name", NAMES)
def test_python_with_a_delta(name):
    parent, delta = (read_bundle((VECTORS / f"{name}.bundle").read_bytes()), (VECTORS / f"{name}.delta").read_bytes())
    made = apply_delta(parent, read_delta(delta))
    assert told(made) == (VECTORS / f"{name}-next.txt").read_text()


def test_c_reads_what_a_delta_made(reader, tmp_path):
    parent = read_bundle((VECTORS / "zlib.bundle").read_bytes())
    made = tmp_path / "next.bundle"
    made.write_bytes(apply_delta(parent, read_delta((VECTORS / "zlib.delta").read_bytes())))
    done = run([reader, made])
    assert (done.returncode, done.stdout) == (0, (VECTORS / "zlib-next.txt").read_text())


def test_torch():
    bundle = read_bundle((VECTORS / "zstd.bundle").read_bytes())
    integers = {}
    bundle.unscaled(integers)
    planes = decompress(
        bundle.stored.integers, sum(e.width * e.elements for e in bundle.manifest.tensors if e.grid), "q"
    )
    place = 0
    for entry in bundle.manifest.tensors:
        if entry.grid:
            data = planes[place : (place := place + entry.elements * entry.width)]
            halves = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(entry.width, -1).to(torch.int32)
            q = sum(half << 8 * i for i, half in enumerate(halves))
            q = torch.where(q >= 1 << (8 * entry.width - 1), q - (1 << 8 * entry.width), q)
            assert q.tolist() == integers[entry.name].reshape(-1).tolist()
            value = q.float() * torch.tensor(entry.grid.step, dtype=torch.float32)
            assert value.numpy().tobytes() == bundle.unscaled()[entry.name].tobytes()


def test_c_without_a_library(reader):
    for name in WITHOUT_LIBRARY:
        done = run([reader, VECTORS / f"{name}.bundle"])
        assert (done.returncode, done.stdout) == (0, (VECTORS / f"{name}.txt").read_text()), done.stderr
    for name, why in (("zstd", "this reader was built without zstd"), ("xz", "this reader leaves xz out")):
        done = run([reader, VECTORS / f"{name}.bundle"])
        assert done.returncode == 1
        assert why in done.stderr


def test_c_with_zstd(zstd_reader):
    done = run([zstd_reader, VECTORS / "zstd.bundle"])
    assert (done.returncode, done.stdout) == (0, (VECTORS / "zstd.txt").read_text())


@pytest.mark.parametrize("options", [["-O0"], ["-O3", "-ffast-math"]])
def test_c_on_aarch64(tmp_path, options):
    qemu = tool("qemu-aarch64")
    built = build(tmp_path, "aarch64-linux-gnu-gcc", "-static", *options)
    for name in WITHOUT_LIBRARY:
        assert run([qemu, built, VECTORS / f"{name}.bundle"]).stdout == (VECTORS / f"{name}.txt").read_text()


@pytest.mark.parametrize("cpu", ["cortex-m3", "cortex-m4"])
def test_c_on_cortex_m(tmp_path, cpu):
    qemu = tool("qemu-system-arm")
    machine = ["-mthumb", f"-mcpu={cpu}", "-mfloat-abi=soft", "--specs=rdimon.specs", "-Wl,--no-warn-rwx-segments"]
    built = build(tmp_path, "arm-none-eabi-gcc", "-Os", *machine, "-T", CORTEX_M / "mps2.ld", CORTEX_M / "start.c")
    board = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386"}[cpu]
    quiet = ["-nographic", "-monitor", "none", "-serial", "none"]
    for name in WITHOUT_LIBRARY:
        hosting = f"enable=on,target=native,arg=reader,arg={VECTORS / f'{name}.bundle'}"
        done = run([qemu, "-M", board, *quiet, "-kernel", built, "-semihosting-config", hosting])
        assert done.stdout == (VECTORS / f"{name}.txt").read_text()


@SHORT
@given(data=st.data())
def test_c_and_python_refuse_the_same_damaged_integers(reader, tiny, tiny_zlib, tmp_path, data):
    whole = data.draw(st.sampled_from([tiny, tiny_zlib]))
    damaged = bytearray(integers_of(whole))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        removed = data.draw(st.integers(0, 3))
        damaged[at : at + removed] = data.draw(st.binary(max_size=3))
        damaged = damaged or bytearray(1)
    agree(reader, tmp_path / "damaged", with_integers(whole, bytes(damaged)))


@SHORT
@given(data=st.data())
def test_c_and_python_refuse_the_same_damaged_heads(reader, tiny, tmp_path, data):
    damaged = bytearray(read_container(tiny, FORMAT).head)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        damaged = damaged or bytearray(1)
    agree(reader, tmp_path / "damaged", with_head(tiny, bytes(damaged)))


@SHORT
@given(data=st.data())
def test_c_and_python_refuse_the_same_damage(reader, tiny_zlib, tmp_path, data):
    damaged = bytearray(tiny_zlib)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        removed = data.draw(st.integers(0, 3))
        damaged[at : at + removed] = data.draw(st.binary(max_size=3))
    agree(reader, tmp_path / "damaged", bytes(damaged))


JUNK = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**24 - 1, 2**24, 2**25 - 1, 2**25, 2**30, 2**31, 2**53 - 1, 2**53, 2**64, 10**30, -(2**24)]),
    st.text(max_size=3),
    st.sampled_from(["", "0" * 64, "0" * 16, "F" * 64, "\x00", "\x7f", "\ud7ff", "a" * 256, "a" * 257, "é" * 129]),
    st.sampled_from(["raw-f16", "grid-i8", "grid-i16", "xz", "entropy", "scale", "seedcnn-rng/1", "zlib", "head.bias"]),
    st.lists(st.integers(-1, 3), max_size=10),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)


@SHORT
@given(pick=st.integers(0, 999), junk=JUNK)
def test_c_and_python_refuse_the_same_manifests(reader, tiny_zlib, tmp_path, pick, junk):
    agree(reader, tmp_path / "changed", with_manifest(tiny_zlib, lambda value: replace_one(value, pick, junk)))


@SHORT
@given(pick=st.integers(0, 999), junk=JUNK | st.none() | st.booleans() | st.floats())
def test_c_and_python_refuse_the_same_headers(reader, tiny_zlib, tmp_path, pick, junk):
    agree(reader, tmp_path / "changed", with_header(tiny_zlib, lambda value: replace_one(value, pick, junk)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(1, 40_000), st.sampled_from([0.2, 1, 5, 40, 3000]), st.integers(0, 9))
def test_c_inflates_what_zlib_deflates(reader, tmp_path, seed, size, spread, repeat):
    rng = np.random.default_rng(seed)
    values = np.clip(np.rint(rng.standard_normal(size) * spread), -32767, 32767)
    values[size // 2 :] = (
        np.resize(values[: max(1, size // 2)], size - size // 2) if repeat > 5 else values[size // 2 :]
    )
    tensors = [encode_grid("w", values, grid_of_step(1))]
    data = tiny_bundle(tensors=tensors, compression="zlib")
    (tmp_path / "large").write_bytes(data)
    done = run([reader, tmp_path / "large"])
    assert (done.returncode, done.stdout) == (0, told(data)), done.stderr


@pytest.mark.slow
def test_another_numpy(tmp_path):
    """numpy 1.26 reads the vectors like the numpy of this environment, which is 2 or later."""
    assert int(np.__version__.split(".")[0]) >= 2
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = ["numpy==1.26.4", "backports.zstd"]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=500)
    code = (
        "import hashlib, sys, numpy\nfrom pathlib import Path\nfrom seedcnn.bundle import open_bundle\n"
        "assert numpy.__version__ == '1.26.4'\n"
        "for name in sys.argv[1:]:\n"
        "    for key, value in open_bundle(Path(name)).tensors().items():\n"
        "        print(key, hashlib.sha256(value.tobytes()).hexdigest())\n"
    )
    files = [VECTORS / f"{name}.bundle" for name in NAMES]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([python, "-c", code, *files], capture_output=True, text=True, env=environment)
    wanted = [
        f"{line.split()[1]} {line.split()[3]}"
        for name in NAMES
        for line in (VECTORS / f"{name}.txt").read_text().splitlines()
        if line.startswith("tensor")
    ]
    assert done.stdout.splitlines() == wanted, done.stderr
