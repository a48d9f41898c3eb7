"""Shapes that are negative, not integers, or whose product overflows 64 bits."""

from __future__ import annotations

import pytest

from tests.bundle.bundles import with_header, with_manifest

BAD = [[-1, -5], [-5], [5.0], [True] * 5, ["5"], [[5]], [None], "5", 5, None, {}, [10**30], [2**63, 2], [2**32] * 2]
BAD += [[2**30] * 8, [1] * 9, [0], [0, 2**29], [2**61], [5, 0]]


@pytest.mark.parametrize("shape", BAD, ids=str)
def test_in_the_payload_table(tiny, refused, shape):
    refused(with_header(tiny, lambda h: h["f32"].update(shape=shape)), "f32|number 5.0")


@pytest.mark.parametrize("shape", BAD, ids=str)
@pytest.mark.parametrize("index", [0, 1, 3])
def test_in_the_tensor_table(tiny, refused, shape, index):
    refused(
        with_manifest(tiny, lambda m: m["tensors"][index].update(shape=shape)), "shape|number 5|outside|only integers"
    )


@pytest.mark.parametrize("shape", [[], [1], [4], [6], [5, 2], [2**27]], ids=str)
@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_shape_that_the_payload_does_not_fill(tiny, refused, shape, index):
    refused(
        with_manifest(tiny, lambda m: m["tensors"][index].update(shape=shape)),
        "the tensors take|end|size|fill|must be an|expands beyond|do not match their digest",
    )
