"""A download that stopped, or a flash that lost its tail."""

from __future__ import annotations

import pytest

from seedcnn.bundle import open_bundle
from seedcnn.errors import BundleFormatError

MESSAGE = "truncated|header length|payloads end at"


def test_cut_anywhere(tiny, refused):
    for length in [*range(0, len(tiny), 97), *range(20), len(tiny) - 1]:
        refused(tiny[:length], MESSAGE)


def test_cut_on_disk(tiny, tmp_path):
    path = tmp_path / "cut.bundle"
    for length in range(0, len(tiny), 997):
        path.write_bytes(tiny[:length])
        with pytest.raises(BundleFormatError, match=MESSAGE):
            open_bundle(path)


def test_cut_at_the_front(tiny, refused):
    for start in range(1, len(tiny), 97):
        refused(tiny[start:], "header")
