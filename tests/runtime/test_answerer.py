"""From uint8 images to logits: the rule and the names that go with a session."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import encode_raw, read_bundle
from seedcnn.errors import BundleError
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.names import RUNTIMES
from seedcnn.runtime.session import open_session, preprocess
from tests.bundle.bundles import RULE, tiny_bundle
from tests.runtime.test_session import TENSORS, WEIGHT, linear_graph

IMAGES = np.random.default_rng(8).integers(0, 256, (3, 4, 4, 3), np.uint8)
LOGITS = preprocess(IMAGES, RULE).mean((2, 3)) @ WEIGHT + 0.5


def answerer(runtime="onnxruntime", output="logits"):
    return Answerer(open_session(linear_graph(), TENSORS, runtime=runtime), "image", output, RULE)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_preprocesses_and_answers_in_float32(runtime):
    pytest.importorskip(runtime)
    logits = answerer(runtime).logits(IMAGES)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-5, atol=1e-6)


def test_names_and_rule_of_a_bundle():
    coded = [encode_raw(name, np.asarray(value)) for name, value in TENSORS.items()]
    bundle = read_bundle(tiny_bundle(graph=linear_graph(), tensors=coded))
    found = Answerer.of_manifest(open_session(bundle.graph(), bundle.tensors()), bundle.manifest)
    assert (found.input, found.output, found.rule) == ("image", "logits", RULE)
    np.testing.assert_array_equal(found.logits(IMAGES), answerer().logits(IMAGES))


def test_a_prepared_call_keeps_the_images_it_was_given():
    images, found = IMAGES.copy(), answerer()
    call = found.prepared(images)
    images[:] = 0
    np.testing.assert_array_equal(call(), found.logits(IMAGES))
    np.testing.assert_array_equal(call(), call())


def test_images_of_another_size_and_names_that_do_not_exist():
    for wrong in (IMAGES[:, :2], IMAGES.astype(np.float32)):
        for ask in (answerer().logits, answerer().prepared):
            with pytest.raises(ValueError, match=r"it must be uint8 \[N, 4, 4, 3\]"):
                ask(wrong)
    with pytest.raises(BundleError, match="ONNX Runtime cannot run the graph"):
        answerer(output="scores").logits(IMAGES)
