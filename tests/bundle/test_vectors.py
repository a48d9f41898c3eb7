"""The files in ``vectors/`` are frozen: every reader on every machine gets the numbers in their text files."""

from __future__ import annotations

import hashlib
import shutil
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
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, replace_one, tiny_bundle, tiny_tensors, with_header, with_manifest

ROOT = Path(__file__).parents[2]
READER = ROOT / "examples" / "reader" / "seedcnn_reader.c"
VECTORS = ROOT / "tests" / "bundle" / "vectors"
CORTEX_M = ROOT / "tests" / "bundle" / "cortex_m"
NAMES = ("zstd", "zlib", "xz")
SHORT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def told(data: bytes) -> str:
    """What a reader prints about a bundle."""
    bundle = read_bundle(data)
    lines = [f"bundle {bundle.manifest.model} release {bundle.manifest.release}"]
    for name, value in bundle.tensors().items():
        digest = hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()
        lines.append(f"tensor {name} {'x'.join(map(str, value.shape))} {digest}")
    lines.append(f"graph {hashlib.sha256(bundle.graph()).hexdigest()}")
    lines.append(f"pictures {hashlib.sha256(bundle.canned_images().tobytes()).hexdigest()}")
    return "\n".join(lines) + "\n"


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _build(tmp: Path, compiler: str, *options: str | Path) -> Path:
    out = tmp / "reader"
    warnings = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([_tool(compiler), *warnings, "-o", out, READER, *options, "-lm"], check=True)
    return out


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    """The C reader without any library: zlib bundles."""
    return _build(tmp_path_factory.mktemp("reader"), "cc", "-O2")


@pytest.fixture(scope="module")
def zstd_reader(tmp_path_factory) -> Path:
    """The C reader with zstd."""
    tmp = tmp_path_factory.mktemp("zstd_reader")
    probe = tmp / "probe.c"
    probe.write_text("#include <zstd.h>\nint main(void) { return (int)ZSTD_isError(0); }\n")
    if subprocess.run([_tool("cc"), "-o", tmp / "probe", probe, "-lzstd"], capture_output=True).returncode:
        pytest.skip("zstd's C library is not installed")
    return _build(tmp, "cc", "-O2", "-DWITH_ZSTD", "-lzstd")


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_python(name):
    assert told((VECTORS / f"{name}.bundle").read_bytes()) == (VECTORS / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_python_with_a_delta(name):
    parent, delta = (read_bundle((VECTORS / f"{name}.bundle").read_bytes()), (VECTORS / f"{name}.delta").read_bytes())
    made = apply_delta(parent, read_delta(delta))
    assert told(made) == (VECTORS / f"{name}-next.txt").read_text()


def test_c_reads_what_a_delta_made(reader, tmp_path):
    parent = read_bundle((VECTORS / "zlib.bundle").read_bytes())
    made = tmp_path / "next.bundle"
    made.write_bytes(apply_delta(parent, read_delta((VECTORS / "zlib.delta").read_bytes())))
    done = _run([reader, made])
    assert (done.returncode, done.stdout) == (0, (VECTORS / "zlib-next.txt").read_text())


def test_torch():
    bundle = read_bundle((VECTORS / "zstd.bundle").read_bytes())
    for entry in bundle.manifest.tensors:
        if entry.grid:
            width = 1 if "i8" in entry.coding else 2
            data = decompress(bundle.payloads[entry.name].data, entry.elements * width, entry.name)
            planes = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(width, -1).to(torch.int32)
            q = sum(plane << 8 * i for i, plane in enumerate(planes))
            q = torch.where(q >= 1 << (8 * width - 1), q - (1 << 8 * width), q)
            value = q.float() * torch.tensor(entry.grid.step, dtype=torch.float32)
            assert hashlib.sha256(value.numpy().tobytes()).hexdigest() == entry.expanded_sha256


def test_c_without_a_library(reader):
    done = _run([reader, VECTORS / "zlib.bundle"])
    assert (done.returncode, done.stdout) == (0, (VECTORS / "zlib.txt").read_text())
    for name, why in (("zstd", "this reader was built without zstd"), ("xz", "this reader leaves xz out")):
        done = _run([reader, VECTORS / f"{name}.bundle"])
        assert done.returncode == 1
        assert why in done.stderr


def test_c_with_zstd(zstd_reader):
    done = _run([zstd_reader, VECTORS / "zstd.bundle"])
    assert (done.returncode, done.stdout) == (0, (VECTORS / "zstd.txt").read_text())


@pytest.mark.parametrize("options", [["-O0"], ["-O3", "-ffast-math"]])
def test_c_on_aarch64(tmp_path, options):
    qemu = _tool("qemu-aarch64")
    built = _build(tmp_path, "aarch64-linux-gnu-gcc", "-static", *options)
    assert _run([qemu, built, VECTORS / "zlib.bundle"]).stdout == (VECTORS / "zlib.txt").read_text()


@pytest.mark.parametrize("cpu", ["cortex-m3", "cortex-m4"])
def test_c_on_cortex_m(tmp_path, cpu):
    qemu = _tool("qemu-system-arm")
    machine = ["-mthumb", f"-mcpu={cpu}", "-mfloat-abi=soft", "--specs=rdimon.specs", "-Wl,--no-warn-rwx-segments"]
    built = _build(tmp_path, "arm-none-eabi-gcc", "-Os", *machine, "-T", CORTEX_M / "mps2.ld", CORTEX_M / "start.c")
    board = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386"}[cpu]
    hosting = f"enable=on,target=native,arg=reader,arg={VECTORS / 'zlib.bundle'}"
    quiet = ["-nographic", "-monitor", "none", "-serial", "none"]
    done = _run([qemu, "-M", board, *quiet, "-kernel", built, "-semihosting-config", hosting])
    assert done.stdout == (VECTORS / "zlib.txt").read_text()


def _agree(reader: Path, place: Path, data: bytes) -> None:
    """Either both readers accept a file or both refuse it; the C reader never crashes."""
    try:
        explore(read_bundle(data))
        wanted = 0
    except BundleError:
        wanted = 1
    place.write_bytes(data)
    done = _run([reader, place])
    assert done.returncode == wanted, done.stderr


@pytest.fixture(scope="module")
def tiny_zlib() -> bytes:
    return tiny_bundle(tensors=tiny_tensors("zlib"), compression="zlib")


@SHORT
@given(data=st.data())
def test_c_and_python_refuse_the_same_damage(reader, tiny_zlib, tmp_path, data):
    damaged = bytearray(tiny_zlib)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        removed = data.draw(st.integers(0, 3))
        damaged[at : at + removed] = data.draw(st.binary(max_size=3))
    _agree(reader, tmp_path / "damaged", bytes(damaged))


JUNK = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**24 - 1, 2**24, 2**25 - 1, 2**25, 2**30, 2**31, 2**53 - 1, 2**53, 2**64, 10**30, -(2**24)]),
    st.text(max_size=3),
    st.sampled_from(["", "0" * 64, "0" * 16, "F" * 64, "\x00", "\x7f", "\ud7ff", "a" * 256, "a" * 257, "é" * 129]),
    st.sampled_from(["raw-f16", "grid-i8-zlib", "grid-i16-zlib", "grid-i8-xz", "seedcnn-rng/1", "zlib", "head.bias"]),
    st.lists(st.integers(-1, 3), max_size=10),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)


@SHORT
@given(pick=st.integers(0, 999), junk=JUNK)
def test_c_and_python_refuse_the_same_manifests(reader, tiny_zlib, tmp_path, pick, junk):
    _agree(reader, tmp_path / "changed", with_manifest(tiny_zlib, lambda value: replace_one(value, pick, junk)))


@SHORT
@given(pick=st.integers(0, 999), junk=JUNK | st.none() | st.booleans() | st.floats())
def test_c_and_python_refuse_the_same_headers(reader, tiny_zlib, tmp_path, pick, junk):
    _agree(reader, tmp_path / "changed", with_header(tiny_zlib, lambda value: replace_one(value, pick, junk)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(1, 40_000), st.sampled_from([0.2, 1, 5, 40, 3000]), st.integers(0, 9))
def test_c_inflates_what_zlib_deflates(reader, tmp_path, seed, size, spread, repeat):
    rng = np.random.default_rng(seed)
    values = np.clip(np.rint(rng.standard_normal(size) * spread), -32767, 32767)
    values[size // 2 :] = (
        np.resize(values[: max(1, size // 2)], size - size // 2) if repeat > 5 else values[size // 2 :]
    )
    tensors = [encode_grid("w", values, grid_of_step(1), "zlib")]
    data = tiny_bundle(tensors=tensors, compression="zlib")
    (tmp_path / "large").write_bytes(data)
    done = _run([reader, tmp_path / "large"])
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
