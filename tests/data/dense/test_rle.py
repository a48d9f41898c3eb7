"""Run lengths against the code of COCO's authors, in faster-coco-eval."""

from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval import mask
from hypothesis import given
from hypothesis import strategies as st

from seedcnn.data.dense.rle import decode, mask_of, runs_of, runs_to_text


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([0.02, 0.5, 0.97, 1.0]))
def test_text_is_that_of_the_authors(height, width, seed, share):
    drawn = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    theirs = mask.encode(np.asfortranarray(drawn))
    text = theirs["counts"].decode()
    runs = runs_of({"size": [height, width], "counts": text}, height, width)
    assert runs_to_text(runs) == text
    assert (decode(runs, height, width) == drawn).all()
    assert (mask_of({"size": [height, width], "counts": runs}, height, width) == drawn).all()


def test_polygons():
    drawn = mask_of([[0, 0, 10, 0, 10, 5, 0, 5], [12.0, 1.5, 18, 1.5, 18, 8, 12, 8]], 10, 20)
    assert drawn[:5, :10].all()
    assert not drawn[:, 10:12].any()
    assert drawn.sum() == 50 + 36
    for bad in ([[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [["1", 2, 3, 4, 5, 6]], "x", None, [[1, 2, 3, 4, 5, 1e9]]):
        with pytest.raises(ValueError, match=r"^has (a polygon|no segmentation)"):
            mask_of(bad, 10, 20)


@pytest.mark.parametrize(
    "bad", [{}, {"counts": "x"}, {"size": [1, 2]}, [1, 2], {"size": [10, 20], "counts": [True, 199]}]
)
def test_what_is_no_rle(bad):
    with pytest.raises(ValueError, match=r"^has (a mask that is no RLE|an RLE)"):
        runs_of(bad, 10, 20)


@given(st.text(alphabet=[chr(c) for c in range(33, 127)], max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        runs = runs_of({"size": [6, 7], "counts": text}, 6, 7)
    except ValueError as error:
        assert str(error).startswith("has an RLE")  # noqa: PT017
    else:
        assert sum(runs) == 42
