"""``seedcnn repo init``: keys, and version 1 of the metadata, made beside and moved into place when whole."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Delegations, Root, Snapshot, Targets, Timestamp

from seedcnn.errors import RepositoryError
from seedcnn.files import fsync_directory, remove, write_file
from seedcnn.server.clock import utc
from seedcnn.server.keys import ONLINE, THRESHOLD, Keyring, generate_key, load_signer, offline_files
from seedcnn.server.lock import exclusive
from seedcnn.server.places import note_places
from seedcnn.server.public import public_directory
from seedcnn.server.roles import Expires
from seedcnn.server.sentences import writing
from seedcnn.server.state import Repository, unsigned

__all__ = ["init_repository"]

_MAKING, _ON_THE_STICK = ".seedcnn-init", ".seedcnn-offline.json"


def init_repository(
    directory: str | Path,
    *,
    offline_keys: str | Path | None = None,
    passphrase: bytes | None = None,
    now: datetime | None = None,
    expires: Expires | None = None,
) -> Path:
    """Make a repository without families: keys, and version 1 of every role's metadata.

    It is made in ``DIR/.seedcnn-init`` and moved into place when it is whole, so that nothing is overwritten.

    Args:
        offline_keys: where the keys of root and targets go, encrypted; by default ``DIR/keys``, unencrypted.
        passphrase: of the keys in ``offline_keys``.
        now: time of signing, with a time zone; by default the current time.
        expires: validity of each role; devices refuse metadata that has expired.

    Returns:
        Path of ``DIR/root.json``, the trust anchor for devices.

    Raises:
        RepositoryError: if a repository or keys exist already, or a directory cannot be written. A run that was
            interrupted can be repeated.
        ValueError: if ``offline_keys`` comes without a passphrase, or a passphrase without it.
    """
    directory, stick = Path(directory), None if offline_keys is None else Path(offline_keys)
    if (stick is None) != (not passphrase):
        raise ValueError("`offline_keys` and `passphrase` belong together: keys that go offline are encrypted")
    with writing(directory):
        public_directory(directory)
        with exclusive(directory):
            made = directory / _MAKING
            if not (made / "root.json").exists() and not _finished(directory):
                _make(made, stick, passphrase, utc(now), expires or Expires())
            _move(made, directory)
    return directory / "root.json"


def _finished(directory: Path) -> bool:
    """Return whether an interrupted init has nothing left to do but to tidy up.

    Raises:
        RepositoryError: if a repository or keys exist that no interrupted init made.
    """
    left = (directory / _MAKING).exists() or (directory / _ON_THE_STICK).exists()
    if (directory / "root.json").exists() and left:
        return True
    if (directory / "root.json").exists() or (directory / "public").exists():
        raise RepositoryError(f"{directory} already holds a repository")
    _refuse_keys(directory / "keys")
    return False


def _refuse_keys(directory: Path) -> None:
    if present := sorted(path.name for path in directory.glob("*.pem")):
        raise RepositoryError(f"{directory} already holds keys ({', '.join(present)}); keys are never overwritten")


def _make(directory: Path, stick: Path | None, passphrase: bytes | None, now: datetime, expires: Expires) -> None:
    """Make a whole repository; ``root.json`` is written last. What an interrupted init left here is removed."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    keys = directory / "keys"
    keys.mkdir(mode=0o700)
    signers: dict[str, list[CryptoSigner]] = {role: [generate_key(keys / f"{role}.pem")] for role in ONLINE}
    if stick is None:
        for role, files in offline_files(keys).items():
            signers[role] = [generate_key(path) for path in files]
    else:
        assert passphrase
        signers |= _keys_on(stick, passphrase, directory.parent / _ON_THE_STICK)
    root = Root(consistent_snapshot=True)
    for role in ("root", "targets", *ONLINE):
        for signer in signers[role]:
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = THRESHOLD if len(signers[role]) > 1 else 1
    keyring = Keyring([keys, *([stick] if stick else [])], (), lambda _: passphrase or b"")
    if stick is not None:
        pairs = [
            pair for role, files in offline_files(stick).items() for pair in zip(signers[role], files, strict=True)
        ]
        note_places(directory, {signer.public_key.keyid: path for signer, path in pairs})
    _write_first(directory, keyring, root, now, expires)


def _write_first(directory: Path, keyring: Keyring, signed: Root, now: datetime, expires: Expires) -> None:
    root, targets = unsigned(signed), unsigned(Targets(delegations=Delegations({}, {})))
    repository = Repository(
        directory, now, expires, keyring, root, root, targets, unsigned(Snapshot()), unsigned(Timestamp())
    )
    for place in (repository.metadata, directory / "public" / "targets"):
        public_directory(place)
    repository.dirty |= {"root", "targets"}
    repository.commit()


def _keys_on(stick: Path, passphrase: bytes, note: Path) -> dict[str, list[CryptoSigner]]:
    """Generate the offline keys on a stick; take over those of an interrupted init, which ``note`` names.

    Raises:
        RepositoryError: if there are other keys.
    """
    try:
        stick.mkdir(mode=0o700, parents=True, exist_ok=True)
        here = json.dumps(str(stick.resolve())).encode()
        if not note.exists() or note.read_bytes() != here:
            _refuse_keys(stick)
        write_file(note, here, mode=0o600)
        signers: dict[str, list[CryptoSigner]] = {}
        for role, files in offline_files(stick).items():
            signers[role] = [
                load_signer(path, lambda _: passphrase) if path.exists() else generate_key(path, passphrase)
                for path in files
            ]
    except OSError as error:
        raise RepositoryError(f"{stick} cannot be written: {error.strerror or error}") from None
    return signers


def _move(made: Path, directory: Path) -> None:
    """Move a whole repository up to ``directory``, ``root.json`` last; repeat it after an interruption.

    Raises:
        RepositoryError: if a key or the public half exists there already.
    """
    keys = directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    pairs = [(path, keys / path.name) for path in sorted((made / "keys").glob("*.pem"))]
    others = ("places.json", "public", "root.json")
    pairs += [(made / name, directory / name) for name in others if (made / name).exists()]
    for _, target in pairs:
        if target.exists():
            raise RepositoryError(f"{target} exists, so the interrupted init in {made} cannot be completed")
    for source, target in pairs:
        source.rename(target)
        for changed in (source.parent, target.parent):
            fsync_directory(changed)
    if made.exists():
        shutil.rmtree(made)
    fsync_directory(directory)
    if (directory / _ON_THE_STICK).exists():
        remove(directory / _ON_THE_STICK)
