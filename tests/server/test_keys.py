from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from seedcnn.errors import RepositoryError
from seedcnn.server.keys import Keyring, generate_key, load_public, load_signer


def test_a_key_is_for_its_owner_only_and_never_overwritten(tmp_path):
    made = generate_key(tmp_path / "a.pem")
    assert (tmp_path / "a.pem").stat().st_mode & 0o777 == 0o600
    assert load_signer(tmp_path / "a.pem").public_key == made.public_key
    with pytest.raises(RepositoryError, match="keys are never overwritten"):
        generate_key(tmp_path / "a.pem")
    assert load_signer(tmp_path / "a.pem").public_key == made.public_key


def test_an_encrypted_key_opens_with_its_passphrase_only(tmp_path):
    made = generate_key(tmp_path / "a.pem", b"open sesame")
    assert b"ENCRYPTED" in (tmp_path / "a.pem").read_bytes()
    assert load_signer(tmp_path / "a.pem", lambda _: b"open sesame").public_key == made.public_key
    with pytest.raises(RepositoryError, match=r"a\.pem does not open: the passphrase is wrong"):
        load_signer(tmp_path / "a.pem", lambda _: b"open barley")
    with pytest.raises(RepositoryError, match=r"a\.pem is encrypted; give its passphrase with --passphrase-file"):
        load_signer(tmp_path / "a.pem")
    # A stick's file system may know no modes, and what others read there does not open.
    (tmp_path / "a.pem").chmod(0o644)
    assert load_signer(tmp_path / "a.pem", lambda _: b"open sesame").public_key == made.public_key


def test_a_public_key_does_not_sign(tmp_path):
    made = generate_key(tmp_path / "a.pem")
    public = made._private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    assert load_public(tmp_path / "public.pem") == (made.public_key, None)
    key, signer = load_public(tmp_path / "a.pem")
    assert (key, signer.public_key) == (made.public_key, made.public_key)
    with pytest.raises(RepositoryError, match="is a public key; signing needs the private one"):
        load_signer(tmp_path / "public.pem")


def test_keys_are_found_by_the_names_of_their_files(tmp_path):
    made = {name: generate_key(tmp_path / f"{name}.pem") for name in ("root-1", "root-2", "a.rule", "a.rule-b.rule")}
    ring = Keyring([tmp_path])
    every = {signer.public_key.keyid for signer in made.values()}
    assert {path.name for path in ring.files("root")} == {"root-1.pem", "root-2.pem"}
    assert [path.name for path in ring.files("a.rule")] == ["a.rule.pem"]
    found = [signer.public_key.keyid for signer in ring.signers("root", every)]
    assert found == sorted(made[name].public_key.keyid for name in ("root-1", "root-2"))
    assert ring.signers("root", {made["root-1"].public_key.keyid})[0].public_key == made["root-1"].public_key


def test_missing_and_open_keys_are_refused(tmp_path):
    with pytest.raises(RepositoryError, match=r"root-2\.pem cannot be read: No such file"):
        load_signer(tmp_path / "root-2.pem")
    generate_key(tmp_path / "targets-1.pem")
    (tmp_path / "targets-1.pem").chmod(0o640)
    with pytest.raises(RepositoryError, match="has mode 0640; other users must have no access"):
        load_signer(tmp_path / "targets-1.pem")


def test_other_kinds_of_key_are_refused(tmp_path):
    path = tmp_path / "targets-1.pem"
    curve = generate_private_key(SECP256R1())
    other = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for content, match in ((b"text", "not a PEM private key"), (other, "not an Ed25519 key")):
        path.write_bytes(content)
        path.chmod(0o600)
        for call in (load_signer, load_public):
            with pytest.raises(RepositoryError, match=match):
                call(path)
    for content, match in ((public, "not an Ed25519 key"), (public[:60], "not a PEM public key")):
        path.write_bytes(content)
        with pytest.raises(RepositoryError, match=match):
            load_public(path)
