from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seedcnn.bundle import read_bundle
from seedcnn.device.expand import expand
from seedcnn.device.health import self_test
from seedcnn.device.runtime import Model
from seedcnn.errors import BundleError, BundleFormatError, DigestError, SelfTestError
from seedcnn.runtime.session import open_session
from tests.device.bundles import CANNED_COUNT, LABELS
from tests.device.fleet import IMAGES


@pytest.fixture
def bundle(make_bundle):
    return read_bundle(make_bundle(1))


def session_of(bundle, **changes):
    return open_session(bundle.graph(), {**expand(bundle), **changes})


def test_self_test_passes_and_tells_the_error(bundle):
    assert 0 <= self_test(session_of(bundle), bundle) < 3e-4


def test_self_test_names_image_and_difference(make_bundle):
    bundle = read_bundle(make_bundle(1, logit_error=0.25))
    with pytest.raises(SelfTestError, match=r"canned image 3 is off by 0.25; 0.001 is allowed"):
        self_test(session_of(bundle), bundle)
    lenient = read_bundle(make_bundle(1, logit_error=0.25, tolerance=0.3))
    assert self_test(session_of(lenient), lenient) == pytest.approx(0.25, abs=3e-4)


def test_self_test_refuses_numbers_that_are_not_finite(bundle):
    bias = np.array([0, 0, np.nan, 0, 0, 0, 0, 0, 0, 0], np.float32)
    with pytest.raises(SelfTestError, match="canned image 0 gives logits that are not finite"):
        self_test(session_of(bundle, **{"fc.bias": bias}), bundle)


def test_self_test_catches_other_weights(bundle):
    weights = expand(bundle)["conv.weight"].copy()
    weights[0, 0, 0, 0] += 1
    with pytest.raises(SelfTestError, match="canned image 0 is off by"):
        self_test(session_of(bundle, **{"conv.weight": weights}), bundle)


def test_self_test_refuses_a_graph_without_the_named_output(bundle):
    graph = dataclasses.replace(bundle.manifest.graph, output="absent")
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, graph=graph))
    with pytest.raises(SelfTestError, match="the model does not run"):
        self_test(session_of(bundle), other)


def test_expand_checks_the_cap_before_it_allocates(bundle):
    needed = sum(4 * entry.elements for entry in bundle.manifest.tensors)
    assert set(expand(bundle, max_bytes=needed)) == {"conv.weight", "phase", "fc.weight", "fc.bias"}
    with pytest.raises(BundleFormatError, match=f"expands to {needed} bytes; this device allows {needed - 1}"):
        expand(bundle, max_bytes=needed - 1)


def test_expand_checks_digests(bundle):
    manifest = dataclasses.replace(bundle.manifest, tensors_sha256="0" * 64)
    with pytest.raises(DigestError, match="the expanded values of the tensors do not match their digest"):
        expand(dataclasses.replace(bundle, manifest=manifest))


def test_model_from_a_file(tmp_path, make_bundle):
    path = tmp_path / "m.bundle"
    path.write_bytes(make_bundle(1))
    model = Model.load(path)
    assert model.source == str(path)
    logits = model.logits(IMAGES)
    assert (logits.shape, logits.dtype) == ((5, 10), np.float32)
    result = model.predict(IMAGES)
    np.testing.assert_array_equal(result.indices, logits.argmax(axis=1))
    assert result.labels == tuple(LABELS[index] for index in result.indices)
    powers = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(result.probabilities, powers.max(axis=1) / powers.sum(axis=1), rtol=1e-5)
    with pytest.raises(BundleError, match="this device allows 100"):
        Model.load(path, max_bytes=100)
    path.write_bytes(make_bundle(1)[:-1])
    with pytest.raises(BundleError, match=r"m.bundle"):
        Model.load(path)


def test_batches_of_any_size_give_the_same_answers(bundle):
    model = Model.of_bundle(bundle, "test")
    images = np.tile(bundle.canned_images(), (17, 1, 1, 1))
    assert len(images) == 17 * CANNED_COUNT > 2 * 64
    logits = model.logits(images)
    np.testing.assert_allclose(logits, np.tile(bundle.canned_logits(), (17, 1)), atol=3e-4)
    assert model.logits(images[:0]).shape == (0, 10)
    assert model.predict(images[:0]).labels == ()
    with pytest.raises(ValueError, match="must be uint8"):
        model.logits(images.astype(np.float32))
