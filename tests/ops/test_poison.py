"""The memory that these tests run on is poisoned."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_fresh_memory_is_nan(dtype):
    like = torch.zeros(4, 3, 2, 2, dtype=dtype)
    last = torch.empty_like(like, memory_format=torch.channels_last)
    strided = torch.empty_strided((4, 3), (3, 1), dtype=dtype)
    for fresh in (torch.empty(4, 3, dtype=dtype), torch.empty_like(like), last, like.new_empty(4, 3), strided):
        assert fresh.isnan().all()


def test_fresh_integers_are_the_largest():
    assert (torch.empty(5, dtype=torch.int64) == torch.iinfo(torch.int64).max).all()
