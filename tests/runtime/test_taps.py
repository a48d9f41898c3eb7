"""Values inside a graph as outputs, beside the graph's own or alone, in both runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import BundleError
from seedcnn.runtime.session import open_session
from seedcnn.runtime.taps import with_outputs
from tests.device.bundles import make_bundle


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(make_bundle(1))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_value_is_what_the_graph_computes(bundle, runtime, alone):
    pytest.importorskip(runtime)
    tensors = bundle.tensors()
    x = np.random.default_rng(0).normal(0, 1, (3, 3, 32, 32)).astype(np.float32)
    session = open_session(with_outputs(bundle.graph(), ["p", "s"], alone=alone), tensors, runtime=runtime)
    phases, sines = session.run(["p", "s"], {"x": x})
    np.testing.assert_allclose(np.sin(phases), sines, atol=1e-4)
    logits = sines.mean((2, 3)) @ tensors["fc.weight"] + tensors["fc.bias"]
    if alone:
        with pytest.raises(BundleError, match="logits"):
            session.run(["logits"], {"x": x})
    else:
        np.testing.assert_allclose(session.run(["logits"], {"x": x})[0], logits, atol=1e-4)


def test_what_cannot_be_tapped(bundle):
    graph = bundle.graph()
    with pytest.raises(BundleError, match="a value without a name"):
        with_outputs(graph, ["p", ""])
    with pytest.raises(BundleError, match="ONNX Runtime does not accept the graph"):
        open_session(with_outputs(graph, ["absent"], alone=True), bundle.tensors())
    with pytest.raises(BundleError, match="it holds 0 graphs"):
        with_outputs(b"", ["p"])
    with pytest.raises(BundleError, match="it holds 2 graphs"):
        with_outputs(graph + graph, ["p"])
    with pytest.raises(BundleError, match=r"truncated|malformed"):
        with_outputs(graph[:-3], ["p"])
