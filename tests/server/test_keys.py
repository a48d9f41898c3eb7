from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from seedcnn.errors import RepositoryError
from seedcnn.server.keys import KEY_NAMES, generate_keys, load_signer, load_signers

FILES = {"root-1.pem", "root-2.pem", "root-3.pem", "targets.pem", "snapshot.pem", "timestamp.pem"}


def test_every_key_is_its_own_file_for_its_owner_only(tmp_path):
    signers = generate_keys(tmp_path / "keys")
    assert {path.name for path in (tmp_path / "keys").iterdir()} == FILES
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    ids = [signer.public_key.keyid for of_role in signers.values() for signer in of_role]
    assert len(ids) == len(set(ids)) == 6
    assert {role: len(of_role) for role, of_role in signers.items()} == {
        "root": 3,
        "targets": 1,
        "snapshot": 1,
        "timestamp": 1,
    }
    for role in KEY_NAMES:
        loaded = load_signers(tmp_path / "keys", role)
        assert [s.public_key for s in loaded] == [s.public_key for s in signers[role]]


def test_keys_are_never_overwritten(tmp_path):
    generate_keys(tmp_path)
    before = (tmp_path / "targets.pem").read_bytes()
    with pytest.raises(RepositoryError, match="already holds keys"):
        generate_keys(tmp_path)
    assert (tmp_path / "targets.pem").read_bytes() == before


def test_absent_keys_are_kept_elsewhere(tmp_path):
    generate_keys(tmp_path)
    (tmp_path / "root-2.pem").unlink()
    assert len(load_signers(tmp_path, "root")) == 2
    with pytest.raises(RepositoryError, match=r"root-2\.pem cannot be read: No such file"):
        load_signer(tmp_path / "root-2.pem")


def test_keys_open_to_others_are_refused(tmp_path):
    generate_keys(tmp_path)
    (tmp_path / "targets.pem").chmod(0o640)
    with pytest.raises(RepositoryError, match="has mode 0640"):
        load_signers(tmp_path, "targets")


def test_other_kinds_of_key_are_refused(tmp_path):
    path = tmp_path / "targets.pem"
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, match in ((b"text", "not an unencrypted PEM"), (other, "not an Ed25519 key")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(RepositoryError, match=match):
            load_signer(path)
