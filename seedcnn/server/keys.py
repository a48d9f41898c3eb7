"""Ed25519 signing keys in files: PEM, PKCS#8, readable only by their owner.

``root`` has three keys, two of which must sign; move them offline once the repository exists. ``targets``, ``snapshot``
and ``timestamp`` have one key each. Files are named after their role: ``root-1.pem``, ``targets.pem``.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from seedcnn.errors import RepositoryError
from seedcnn.files import write_file

__all__ = ["KEY_NAMES", "ROOT_THRESHOLD", "generate_keys", "load_signer", "load_signers", "refuse_keys"]

ROOT_THRESHOLD = 2
KEY_NAMES = {
    "root": ("root-1", "root-2", "root-3"),
    "targets": ("targets",),
    "snapshot": ("snapshot",),
    "timestamp": ("timestamp",),
}


def refuse_keys(directory: Path) -> None:
    """Raise ``RepositoryError`` if there are key files in ``directory``; keys are never overwritten."""
    if present := sorted(path.name for path in directory.glob("*.pem")):
        raise RepositoryError(f"{directory} already holds keys ({', '.join(present)}); keys are never overwritten")


def generate_keys(directory: Path) -> dict[str, list[CryptoSigner]]:
    """Generate all keys of a repository in ``directory``, which is created with mode 0700.

    Returns:
        The signers by role.

    Raises:
        RepositoryError: if there are key files already; keys are never overwritten.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_keys(directory)
    signers: dict[str, list[CryptoSigner]] = {}
    for role, names in KEY_NAMES.items():
        signers[role] = []
        for name in names:
            signer = CryptoSigner.generate_ed25519()
            write_file(directory / f"{name}.pem", signer.private_bytes, mode=0o600, exact=True)
            signers[role].append(signer)
    return signers


def load_signer(path: Path) -> CryptoSigner:
    """Read one key file.

    Raises:
        RepositoryError: if it is missing, accessible to other users, or not an Ed25519 key.
    """
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except OSError as error:
        raise RepositoryError(f"key {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise RepositoryError(f"key {path} has mode {mode:04o}; other users must have no access to it (chmod 600)")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RepositoryError(f"key {path} is not an unencrypted PEM private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RepositoryError(f"key {path} is not an Ed25519 key")
    return CryptoSigner(key)


def load_signers(directory: Path, role: str) -> list[CryptoSigner]:
    """Load the signers of ``role`` whose key files are in ``directory``; absent keys are kept elsewhere.

    Raises:
        RepositoryError: see :func:`load_signer`.
    """
    paths = (directory / f"{name}.pem" for name in KEY_NAMES[role])
    return [load_signer(path) for path in paths if path.exists()]
