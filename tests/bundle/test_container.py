"""The outer file is a safetensors file, written one way only."""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle.container import BYTES, FORMAT, ITEM_BYTES, Container, read_container, write_container
from seedcnn.bundle.head import dictionary, graph_of, manifest_of, pack_head
from seedcnn.errors import BundleFormatError

FLOATS = st.integers(0, 5)
TEXT = b'{"a":1}'


def _container(floats, rest):
    head = pack_head(TEXT, b"graph")
    payloads = {name: bytes(size * ITEM_BYTES[name]) for name, size in floats.items() if size}
    return Container(FORMAT, len(TEXT), len(head), payloads | {BYTES: head + rest})


@settings(deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(("f32", "bf16", "f16"), FLOATS)), st.binary(max_size=20))
def test_what_is_written_is_read_and_the_safetensors_library_agrees(floats, rest):
    written = _container(floats, rest)
    data = write_container(written)
    found = read_container(data, FORMAT)
    assert manifest_of(found.head, found.manifest_size) == TEXT
    assert graph_of(found.head, found.manifest_size, 5) == b"graph"
    assert bytes(found.rest) == rest
    assert {name: bytes(each) for name, each in found.payloads.items()} == written.payloads
    library = safetensors.deserialize(data)
    assert {name: bytes(value["data"]) for name, value in library} == written.payloads


def test_the_layout_is_the_documented_one():
    container = Container(FORMAT, 2, 3, {"bytes": b"xyz", "f16": b"ab", "f32": bytes(range(8)), "bf16": b""})
    data = write_container(container)
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    body = bytes(range(8)) + b"ab" + b"xyz"
    expected = (
        f'{{"__metadata__":{{"seedcnn":"seedcnn-bundle/1 2 3 {hashlib.sha256(body).hexdigest()}"}},'
        '"f32":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"f16":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},'
        '"bytes":{"dtype":"U8","shape":[3],"data_offsets":[10,13]}}'
    )
    assert data[8 : 8 + length].rstrip(b" ") == expected.encode()
    assert data[8 + length :] == body


def test_the_dictionary_is_the_documented_one():
    root = Path(__file__).parents[2]
    digest = hashlib.sha256(dictionary()).hexdigest()
    assert digest in (root / "docs" / "bundle-format.md").read_text()
    numbers = re.findall(r"0x([0-9a-f]{2})", (root / "examples" / "reader" / "dictionary.h").read_text())
    assert bytes.fromhex("".join(numbers)) == dictionary()


def test_a_head_without_the_dictionary_is_refused():
    other = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary()[1:])
    for head in (zlib.compress(TEXT), other.compress(TEXT) + other.flush(), b"", b"x\xbb"):
        for read in (lambda data: manifest_of(data, len(TEXT)), lambda data: graph_of(data, len(TEXT), 0)):
            with pytest.raises(BundleFormatError, match="not a zlib stream with the dictionary of this format"):
                read(head)


def test_a_damaged_head_is_refused():
    head = bytearray(pack_head(TEXT, b"graph"))
    head[-1] ^= 1
    assert manifest_of(head, len(TEXT)) == TEXT
    with pytest.raises(BundleFormatError, match="the graph is not a zlib stream"):
        graph_of(head, len(TEXT), 5)
    with pytest.raises(BundleFormatError, match="the manifest"):
        manifest_of(head[:8], len(TEXT))
    for size in (4, 6):
        with pytest.raises(BundleFormatError, match="the graph"):
            graph_of(pack_head(TEXT, b"graph"), len(TEXT), size)


def test_the_library_finds_the_parts(tiny, tmp_path):
    path = tmp_path / "tiny.bundle"
    path.write_bytes(tiny)
    with safetensors.safe_open(path, "np") as file:
        assert set(file.keys()) == {"f32", "f16", "bf16", "bytes"}
        assert file.metadata()["seedcnn"].startswith("seedcnn-bundle/1 ")
        assert file.get_tensor("f16").dtype == "float16"
        assert file.get_tensor("f32").shape == (5,)
