"""Whatever is done to a bundle, the reader returns a bundle or raises its own error, never another one."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seedcnn.bundle import read_bundle
from seedcnn.bundle.container import FORMAT, read_container
from seedcnn.bundle.head import manifest_of
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, replace_one, with_header, with_header_text, with_manifest

FEW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# 64-bit and float oddities, and the types that a key, a length or a dtype must survive.
JUNK = st.one_of(
    st.integers(),
    st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=5),
    st.none(),
    st.booleans(),
    st.lists(st.integers(-1, 3) | st.text(max_size=2), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)


def _answers(data: bytes) -> bool:
    """True for a bundle that opens, False for one that is refused; any other exception ends the test."""
    try:
        explore(read_bundle(data))
    except BundleError:
        return False
    return True


@FEW
@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes(data):
    assert not _answers(data)


@FEW
@given(st.binary(max_size=120))
def test_random_header(tiny, text):
    assert not _answers(with_header_text(tiny, text))


@FEW
@given(data=st.data())
def test_bytes_replaced_inserted_and_removed(tiny, data):
    damaged = bytearray(tiny)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        removed = data.draw(st.integers(0, 5))
        damaged[at : at + removed] = data.draw(st.binary(max_size=5))
    assert _answers(bytes(damaged)) == (bytes(damaged) == tiny)


@FEW
@given(pick=st.integers(0, 999), junk=JUNK)
def test_header_fields_replaced(tiny, pick, junk):
    data = with_header(tiny, lambda header: replace_one(header, pick, junk))
    assert _answers(data) == (data == tiny)


@FEW
@given(pick=st.integers(0, 999), junk=JUNK)
def test_manifest_fields_replaced_and_signed_again(tiny, pick, junk):
    data = with_manifest(tiny, lambda manifest: replace_one(manifest, pick, junk))
    if _answers(data):
        container = read_container(data, FORMAT)
        text = manifest_of(container.head, container.manifest_size)
        assert read_bundle(data).manifest.dump() == text
