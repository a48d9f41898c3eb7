"""Ed25519 signing keys in files: PEM, PKCS#8, readable only by their owner; keys that go offline are encrypted.

``root`` and ``targets`` have three keys each, two of which must sign; they belong offline. ``snapshot``, ``timestamp``
and the rule of each family have one key each, which stays in ``DIR/keys/``. Files there are named after their role:
``root-1.pem``, ``snapshot.pem``, ``cifar.rule.pem``; ``ROLE.new.pem`` is a key that a rotation will bring into use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from seedcnn.errors import RepositoryError
from seedcnn.files import fsync_directory, write_file

__all__ = [
    "OFFLINE",
    "ONLINE",
    "THRESHOLD",
    "Keyring",
    "MissingKeysError",
    "Passphrase",
    "generate_key",
    "load_public",
    "load_signer",
    "offline_files",
    "short",
]

Passphrase = Callable[[Path], bytes]
"""Returns the passphrase of an encrypted key file."""

OFFLINE, ONLINE = ("root", "targets"), ("snapshot", "timestamp")
_KEYS, THRESHOLD = 3, 2  # of each offline role
_ENCRYPTED, _PUBLIC = b"ENCRYPTED PRIVATE KEY", b"BEGIN PUBLIC KEY"


class MissingKeysError(RepositoryError):
    """Fewer of a role's keys are at hand than must sign; ``role`` names it."""

    def __init__(self, role: str, sentence: str) -> None:
        super().__init__(sentence)
        self.role = role


def short(keyid: str) -> str:
    """Return the part of a key id that is shown."""
    return keyid[:8]


def offline_files(directory: Path) -> dict[str, list[Path]]:
    """Return the key files of the offline roles, by role."""
    return {role: [directory / f"{role}-{number + 1}.pem" for number in range(_KEYS)] for role in OFFLINE}


def generate_key(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """Generate a key in a new file.

    Args:
        passphrase: encrypts the file.

    Raises:
        RepositoryError: if the file exists; keys are never overwritten.
        OSError: if the file system refuses.
    """
    if path.exists():
        raise RepositoryError(f"{path} exists; keys are never overwritten")
    key = Ed25519PrivateKey.generate()
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    write_file(path, data, mode=0o600, exact=not passphrase)  # a stick's file system may know no modes
    return CryptoSigner(key)


def _read(path: Path) -> bytes:
    try:
        mode, data = path.stat().st_mode & 0o777, path.read_bytes()
    except OSError as error:
        raise RepositoryError(f"key {path} cannot be read: {error.strerror}") from None
    if mode & 0o077 and _ENCRYPTED not in data and _PUBLIC not in data:
        raise RepositoryError(f"key {path} has mode {mode:04o}; other users must have no access to it (chmod 600)")
    return data


def load_signer(path: Path, passphrase: Passphrase | None = None) -> CryptoSigner:
    """Read one private key.

    Args:
        passphrase: is asked only if the file is encrypted.

    Raises:
        RepositoryError: if the file is missing, not encrypted and accessible to other users, not an Ed25519 private
            key, or encrypted with another passphrase.
    """
    data, word = _read(path), None
    if _PUBLIC in data:
        raise RepositoryError(f"key {path} is a public key; signing needs the private one")
    if _ENCRYPTED in data:
        if passphrase is None:
            raise RepositoryError(f"key {path} is encrypted; give its passphrase with --passphrase-file")
        word = passphrase(path)
    try:
        key = load_pem_private_key(data, word)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if word is not None:
            raise RepositoryError(
                f"key {path} does not open: the passphrase is wrong, or the file is damaged"
            ) from None
        raise RepositoryError(f"key {path} is not a PEM private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RepositoryError(f"key {path} is not an Ed25519 key")
    return CryptoSigner(key)


def load_public(path: Path, passphrase: Passphrase | None = None) -> tuple[Key, CryptoSigner | None]:
    """Read a public key or the public part of a private one.

    Returns:
        The public key, and the signer if the file holds the private key.

    Raises:
        RepositoryError: see :func:`load_signer`.
    """
    data = _read(path)
    if _PUBLIC not in data:
        signer = load_signer(path, passphrase)
        return signer.public_key, signer
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RepositoryError(f"key {path} is not a PEM public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise RepositoryError(f"key {path} is not an Ed25519 key")
    return SSlibKey.from_crypto(key), None


class Keyring:
    """The keys at hand: in directories, by the names of their files, and those that were given one by one.

    Args:
        directories: ``DIR/keys`` first, where new online keys are made.
        given: paths of private keys.
        passphrase: of whatever is encrypted.
    """

    def __init__(
        self, directories: Sequence[Path], given: Sequence[Path] = (), passphrase: Passphrase | None = None
    ) -> None:
        self.directory, self._directories, self._passphrase = directories[0], directories, passphrase
        self.given = {path: load_signer(path, passphrase) for path in given}
        self._more: list[CryptoSigner] = []
        self._names: dict[Path, list[str]] = {}
        self._loaded: dict[Path, CryptoSigner] = {}

    def add(self, signers: Sequence[CryptoSigner]) -> None:
        """Take in keys that a command has read."""
        self._more += signers

    def load(self, path: Path) -> CryptoSigner:
        """Read a key once; see :func:`load_signer`."""
        if path not in self._loaded:
            self._loaded[path] = load_signer(path, self._passphrase)
        return self._loaded[path]

    def files(self, role: str) -> list[Path]:
        """Return the files that are named after ``role``."""
        form = re.compile(rf"{re.escape(role)}(-[0-9a-z]+)?(\.new)?\.pem")
        found = []
        for directory in self._directories:
            if directory not in self._names:
                self._names[directory] = sorted(os.listdir(directory)) if directory.is_dir() else []
            found += [directory / name for name in self._names[directory] if form.fullmatch(name)]
        return found

    def places(self, role: str, keyids: Collection[str]) -> dict[str, Path]:
        """Return the files that hold keys of ``role``, by key id."""
        held = {signer.public_key.keyid: path for path, signer in self.given.items()}
        held |= {self.load(path).public_key.keyid: path for path in self.files(role)}
        return {keyid: held[keyid] for keyid in keyids if keyid in held}

    def signers(self, role: str, keyids: Collection[str]) -> list[CryptoSigner]:
        """Return the signers of ``role`` that are at hand, in the order of their ids."""
        every = [*self.given.values(), *self._more, *(self.load(path) for path in self.files(role))]
        found = {signer.public_key.keyid: signer for signer in every if signer.public_key.keyid in keyids}
        return [found[keyid] for keyid in sorted(found)]

    def foreign(self, role: str, keyids: Collection[str]) -> str:
        """Name a key file of ``role`` whose key is none of ``keyids``, as the end of a sentence, or return ""."""
        for path in self.files(role):
            if (keyid := self.load(path).public_key.keyid) not in keyids:
                return f"; {path} holds a {role} key (id {short(keyid)}) that the signed metadata does not name"
        return ""

    def check_given(self, role: str, keyids: Collection[str]) -> None:
        """Raise ``RepositoryError`` if a key that was given does not sign ``role``."""
        for path, signer in self.given.items():
            if signer.public_key.keyid not in keyids:
                raise RepositoryError(f"key {path} (id {short(signer.public_key.keyid)}) does not sign {role}")

    def next(self, role: str) -> CryptoSigner:
        """Return the key that a rotation brings into use; it is generated once, and kept until it is in use."""
        path = self.directory / f"{role}.new.pem"
        return self.load(path) if path.exists() else self._generated(path)

    def first(self, role: str) -> CryptoSigner:
        """Return the key of an online role that starts; an interrupted command may have generated it."""
        path = self.directory / f"{role}.pem"
        return self.load(path) if path.exists() else self._generated(path)

    def _generated(self, path: Path) -> CryptoSigner:
        self._loaded[path] = generate_key(path)
        self._names.pop(path.parent, None)
        return self._loaded[path]

    def settle(self, role: str, keyids: Collection[str]) -> None:
        """After a change of keys: a new key takes the old one's name, and the name of a revoked key says so."""
        new = self.directory / f"{role}.new.pem"
        for path in self.files(role):
            if path.parent == self.directory and path != new and self.load(path).public_key.keyid not in keyids:
                path.rename(path.with_name(f"{path.name}.revoked"))
        if new.exists() and self.load(new).public_key.keyid in keyids:
            new.rename(self.directory / f"{role}.pem")
            (self.directory / f"{role}.pem.revoked").unlink(missing_ok=True)
        fsync_directory(self.directory)
        self._names.clear()
        self._loaded.clear()
