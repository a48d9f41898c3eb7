"""Names that look like paths are only names; no file is ever opened by one."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from seedcnn.bundle import encode_raw, read_bundle
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, tiny_bundle

NAMES = [
    "/etc/passwd",
    "../../etc/passwd",
    "C:\\autoexec.bat",
    "a/b",
    "~/x",
    "file:///etc/passwd",
    "nul\x00byte",
    ".",
    "..",
]


class Watch:
    """The paths that this process opens while watching."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if self.on and event == "open":
            self.paths.append(str(args[0]))

    def __enter__(self) -> Watch:
        self.paths.clear()
        self.on = True
        return self

    def __exit__(self, *_: object) -> None:
        self.on = False


@pytest.fixture(scope="module")
def watch() -> Watch:
    """One hook for all tests, because an audit hook cannot be removed."""
    return Watch()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(watch, name):
    data = tiny_bundle(model=name, family=name, tensors=[encode_raw(name, np.ones(2))], labels=[name, "b", "c"])
    with watch:
        bundle = read_bundle(data)
        explore(bundle)
    assert watch.paths == []
    assert list(bundle.tensors()) == [name]


def test_the_watch_sees_what_is_opened(watch, tmp_path):
    with watch:
        (tmp_path / "seen").write_bytes(b"")
    assert watch.paths == [str(tmp_path / "seen")]


@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_a_graph_cannot_read_a_weight_from_the_disk(tmp_path, relative):
    pytest.importorskip("onnx", reason="the graph of this test is built with onnx")
    from seedcnn.runtime.session import open_session
    from tests.runtime.test_session import WEIGHT, linear_graph

    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        graph = linear_graph("secret" if relative else str(tmp_path / "secret"))
        bias = np.asarray(0, np.float32)
        assert open_session(graph, {"weight": WEIGHT, "bias": bias})
        with pytest.raises(BundleError, match="does not accept the graph"):
            open_session(graph, {"bias": bias})
    finally:
        os.chdir(before)
