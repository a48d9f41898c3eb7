"""The optional fused operator for ONNX Runtime, built from C with the user's own compiler and checked before use.

``python -m seedcnn.runtime.custom_op`` builds it and prints its path, to be passed to
``open_session(..., libraries=[path])``. Only graphs exported for it (``fold(model, target="onnxruntime-custom-op")``)
need it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from seedcnn.arrays import F32, F64
from seedcnn.errors import DeviceError, SeedCNNError
from seedcnn.runtime._onnx_wire import encode_varint
from seedcnn.runtime._operator import COMMAND, OPERATOR
from seedcnn.runtime.session import open_session

__all__ = [
    "COMMAND",
    "FUNCTIONS",
    "OPERATOR",
    "build",
    "built",
    "check_library",
    "default_path",
]


_SOURCE = Path(__file__).with_suffix(".c")
_ERROR_LINES = 8


def _triangle(u: F64) -> F64:
    v = u / (2 * np.pi) - 0.25
    return 1 - 4 * np.abs(v - np.round(v))


FUNCTIONS: dict[str, Callable[[F64], F64]] = {
    "sine": np.sin,
    "triangle": _triangle,
    "gaussian": lambda u: np.exp(-(u**2)),
    "abs": np.abs,
    "negate": np.negative,
    "identity": lambda u: u,
}
"""The operator's functions of one affine argument, in numpy."""


def default_path() -> Path:
    """Return the library's default path: in the user's cache, named by the source's digest and the machine.

    Raises:
        DeviceError: if the user has no home directory and the environment names none.
    """
    try:
        if sys.platform == "darwin":
            cache = Path.home() / "Library" / "Caches"
        else:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise DeviceError(
            "there is no cache directory for the operator: the user has no home directory, and neither HOME nor "
            "XDG_CACHE_HOME is set; set one of them"
        ) from None
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    return cache / "seedcnn" / f"group_nl-{digest}-{platform.machine()}.so"


def _flags() -> list[str]:
    tune = {"x86_64": "-march=native", "AMD64": "-march=native", "i686": "-march=native"}
    native = tune.get(platform.machine(), "-mcpu=native")
    # Neither -fno-... flag changes a value: one drops errno, the other allows comparisons in vectors.
    return [
        "-std=c11",
        "-O3",
        native,
        "-fno-math-errno",
        "-fno-trapping-math",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
    ]


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise DeviceError(f"{what}: {command[0]!r} cannot be run: {error}") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_ERROR_LINES:])
        raise DeviceError(f"{what}: {command[0]!r} exited with status {done.returncode}\n{last}")


def build(output: Path | None = None, *, compiler: str = "cc") -> Path:
    """Build the operator for this machine's processor and check it against numpy.

    Args:
        output: the library to write; its directory is created. Default: :func:`default_path`.
        compiler: a GCC or Clang command, with or without options.

    Returns:
        The library's path. The file appears only after it has passed its check.

    Raises:
        DeviceError: if the compiler is missing or fails (with its last lines), if the library gives wrong answers or
            crashes (the check runs in a separate process), or if the path cannot be written.
    """
    command = shlex.split(compiler)
    if not command:
        raise ValueError("`compiler` is empty; it must be a command such as 'cc'")
    output = default_path() if output is None else Path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as directory:
            made = Path(directory) / output.name
            _run([*command, *_flags(), str(_SOURCE), "-o", str(made)], "the operator cannot be built")
            checking = [sys.executable, "-m", "seedcnn.runtime.custom_op", "--check", str(made)]
            _run(checking, "the operator was built but fails its check")
            made.replace(output)
    except OSError as error:
        raise DeviceError(f"the operator cannot be written to {output}: {error}") from None
    return output


def built() -> Path:
    """Return this machine's library at :func:`default_path`, and :func:`build` it if it does not exist."""
    path = default_path()
    return path if os.path.exists(path) else build()


def _field(number: int, content: bytes | str | int) -> bytes:
    """Encode a protobuf field: a number, or bytes with their length."""
    if isinstance(content, int):
        return encode_varint(number << 3) + encode_varint(content)
    content = content.encode() if isinstance(content, str) else content
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content


def _one_node(nlf: str, groups: int, relu: int) -> bytes:
    """Write an ONNX model of one operator without the onnx package, which devices do not have."""
    domain, kind = OPERATOR.split("::")
    inputs = ("z", "w", "b", "a", "c")
    node = b"".join(_field(1, name) for name in inputs) + _field(2, "y") + _field(4, kind) + _field(7, domain)
    node += _field(5, _field(1, "nlf") + _field(4, nlf) + _field(20, 3))
    for name, value in (("groups", groups), ("relu", relu)):
        node += _field(5, _field(1, name) + _field(3, value) + _field(20, 2))
    floats = _field(2, _field(1, _field(1, 1)))
    graph = _field(1, node) + _field(2, "one")
    graph += b"".join(_field(11, _field(1, name) + floats) for name in inputs) + _field(12, _field(1, "y") + floats)
    opsets = _field(8, _field(1, "") + _field(2, 20)) + _field(8, _field(1, domain) + _field(2, 1))
    return _field(1, 9) + _field(7, graph) + opsets


def _expected(nlf: str, groups: int, relu: int, values: Mapping[str, F32]) -> F64:
    z, w, b, a, c = (values[name].astype(np.float64) for name in "zwbac")
    generated = np.arange(len(w))
    per_group, gamma = z.shape[1] // groups, -(-len(w) // z.shape[1])
    source = generated // per_group // gamma * per_group + generated % per_group
    w, b, a, c = (v[:, None, None] for v in (w, b, a, c))
    y = np.concatenate([z, a * FUNCTIONS[nlf](w * z[:, source] + b) + c], axis=1)
    return np.maximum(y, 0) if relu else y


def check_library(library: Path) -> None:
    """Run the operator once for each of its functions, with and without ReLU, and compare it with numpy.

    Raises:
        BundleError: if ONNX Runtime cannot load the library or run the operator.
        DeviceError: if an answer differs from numpy's by more than 2e-6.
    """
    rng = np.random.default_rng(0)
    for nlf in FUNCTIONS:
        for relu in (0, 1):
            values = {"z": rng.uniform(-2, 2, (2, 6, 5, 7))} | {name: rng.uniform(-2, 2, 11) for name in "wbac"}
            arrays = {name: value.astype(np.float32) for name, value in values.items()}
            session = open_session(_one_node(nlf, 2, relu), {}, libraries=[library])
            (found,) = session.run(["y"], arrays)
            off = float(np.abs(found - _expected(nlf, 2, relu, arrays)).max())
            if not off <= 2e-6:
                raise DeviceError(f"the operator's {nlf} differs from numpy's by {off:.1e}; at most 2e-6 is accepted")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m seedcnn.runtime.custom_op``: build the operator and print its path."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Build the fused GroupNL operator for ONNX Runtime.")
    parser.add_argument("--output", type=Path, help="library to write (default: in the user's cache)")
    parser.add_argument("--cc", default="cc", help="GCC or Clang command (default: cc)")
    parser.add_argument("--check", type=Path, metavar="LIBRARY", help="only check an existing library")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.check is not None:
            check_library(chosen.check)
            print(f"{chosen.check} passes its check")
        else:
            print(build(chosen.output, compiler=chosen.cc))
    except SeedCNNError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
