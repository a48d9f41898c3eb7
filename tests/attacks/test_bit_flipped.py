"""One flipped bit anywhere: in length, header, manifest, padding or payload."""

from __future__ import annotations

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import BundleError, DigestError
from tests.bundle.bundles import explore, with_manifest


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def test_in_every_byte(tiny):
    for at in range(len(tiny)):
        with pytest.raises(BundleError):
            explore(read_bundle(_flipped(tiny, at, at % 8)))


def test_in_every_bit_of_the_length_and_the_payloads(tiny):
    header = 8 + int.from_bytes(tiny[:8], "little")
    for at in [*range(8), *range(header, len(tiny))]:
        for bit in range(8):
            with pytest.raises(BundleError):
                explore(read_bundle(_flipped(tiny, at, bit)))


def test_in_a_payload_it_is_the_digest_that_says_so(tiny):
    start = 8 + int.from_bytes(tiny[:8], "little")
    for at in range(start, len(tiny)):
        with pytest.raises(DigestError, match="do not match their digest"):
            explore(read_bundle(_flipped(tiny, at, 3)))


def test_in_a_free_text_of_the_manifest_it_is_the_digest_that_says_so(tiny):
    changed = with_manifest(tiny, lambda manifest: manifest.update(model="tinx"))
    assert len(changed) == len(tiny)
    header = 8 + int.from_bytes(tiny[:8], "little")
    with pytest.raises(DigestError, match="the stored bytes do not match their digest"):
        read_bundle(tiny[:header] + changed[header:])
