"""Keys in files, and the state of a repository, for the tests of who signs what."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from seedcnn.errors import RepositoryError
from seedcnn.server.families import Access
from seedcnn.server.keys import generate_key, load_signer

WORD = b"open sesame"
STICK = Access(passphrase=lambda _: WORD)


def keys(tmp_path, *names):
    return [(tmp_path / f"{name}.pem", generate_key(tmp_path / f"{name}.pem").public_key.keyid) for name in names]


def id_of(path):
    return load_signer(path).public_key.keyid


def public_of(path, to):
    key = load_signer(path)._private_key.public_key()
    to.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return to


def state(directory):
    """Every byte except what remembers and locks."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def refused(directory, call, match):
    before = state(directory)
    with pytest.raises(RepositoryError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert state(directory) == before


def delegations(directory):
    newest = max(
        (directory / "public" / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0])
    )
    found = json.loads(newest.read_bytes())["signed"]["delegations"]
    return {role["name"]: role for role in found["roles"]}
