"""Signing with keys that are offline: export a change, sign it elsewhere, import it.

The change of root or targets that waits in ``DIR/pending/`` is always the newest: it holds everything that was prepared
so far. Importing checks the signatures against the repository's own keys, and that nothing was signed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.metadata import Root, Targets

from seedcnn.errors import RepositoryError
from seedcnn.server.clock import utc
from seedcnn.server.keys import Keyring, MissingKeysError, Passphrase, load_signer, short
from seedcnn.server.loading import opened
from seedcnn.server.pending import Todo, pending_path, read_pending
from seedcnn.server.public import public_directory
from seedcnn.server.roles import TOP, Expires, families, is_online, role_of
from seedcnn.server.state import Repository

__all__ = ["PreparedError", "adopt_pending", "commit_or_prepare", "export", "import_todo", "sign_todo", "summary"]


class PreparedError(RepositoryError):
    """A change that waits for the keys of root or targets; the message says which commands finish it."""


def adopt_pending(repository: Repository, role: str) -> None:
    """Put what waits for the offline keys into ``repository``, so that the next change comes on top of it."""
    todo = read_pending(repository.directory, role)
    if todo is None:
        return
    metadata: Any = todo.metadata
    metadata.signed.version = repository.of(role).signed.version
    if role == "root":
        repository.root = metadata
    else:
        repository.replace_targets(metadata)


def commit_or_prepare(repository: Repository, what: str) -> None:
    """Commit a change of root or targets, or store it where it waits for their keys.

    Args:
        what: the change, as the beginning of a sentence.

    Raises:
        PreparedError: if keys of root or targets are missing; it says which commands finish the change.
        MissingKeysError: if other keys are missing.
    """
    try:
        repository.commit()
    except MissingKeysError as error:
        if error.role not in repository.dirty or error.role not in ("root", "targets"):
            raise
        todo = _todo(repository, error.role)
        public_directory(pending_path(repository.directory, "x").parent)
        for name in sorted(repository.dirty):
            if name not in TOP and not is_online(name) and repository.of(name).signatures:
                path = pending_path(repository.directory, name)
                Todo.write_metadata(path, repository.of(name))
        todo.write(pending_path(repository.directory, error.role))
        raise PreparedError(
            f"{what} is prepared, not done, because {error}: {_commands(repository.directory, error.role)}"
        ) from None


def _commands(directory: Path, role: str) -> str:
    return (
        f"seedcnn repo export {directory} {role} > todo.json; seedcnn repo sign todo.json --key KEY.pem, where the "
        f"keys are; seedcnn repo import {directory} todo.json"
    )


def _todo(repository: Repository, role: str) -> Todo:
    """Make the next version of a role, with the signatures of the keys at hand."""
    metadata = deepcopy(repository.of(role))
    metadata.signed.version += 1
    metadata.signed.expires = repository.now + repository.expires.of(role)
    metadata.signatures.clear()
    here = role_of(repository.root.signed, repository.targets.signed, role)
    keyids = set(here.keyids)
    if role == "root":
        keyids |= set(repository.old_root.roles["root"].keyids)
    for signer in repository.keyring.signers(role, keyids):
        metadata.sign(signer, append=True)
    return Todo(role, here.threshold, sorted(keyids), metadata)


def export(
    directory: str | Path,
    role: str,
    *,
    passphrase: Passphrase | None = None,
    clock_ok: bool = False,
    now: datetime | None = None,
    expires: Expires | None = None,
) -> bytes:
    """Return the todo file of a role's next version: the change that waits, or else the same with a new expiry.

    Raises:
        RepositoryError: if there is no such role, or its key is online.
    """
    directory = Path(directory)
    keyring = Keyring([directory / "keys"], (), passphrase)
    with opened(directory, utc(now), expires, keyring, clock_ok=clock_ok) as repository:
        role_of(repository.root.signed, repository.targets.signed, role)
        if is_online(role):
            raise RepositoryError(f"{role} has its key online; renew it with: seedcnn repo refresh {directory}")
        if role in TOP:
            adopt_pending(repository, role)
        return _todo(repository, role).dump()


def summary(todo: Todo) -> list[str]:
    """Return lines that tell whoever signs a todo file what it would put into force."""
    signed = todo.metadata.signed
    lines = [f"{todo.role} version {signed.version}, valid until {signed.expires:%Y-%m-%d}"]
    if isinstance(signed, Root):
        roles: dict[str, Any] = dict(signed.roles)
    else:
        roles = dict((signed.delegations.roles if signed.delegations else None) or {})
        if todo.role != "targets":
            lines += [f"  {name}: {file.length} bytes" for name, file in sorted(signed.targets.items())]
    for name, role in roles.items():
        lines.append(f"  {name}: {role.threshold} of {', '.join(map(short, role.keyids))}")
    done = [short(keyid) for keyid in todo.metadata.signatures]
    lines.append(f"signed by {', '.join(done) or 'nobody'}; {todo.threshold} must sign")
    return lines


def sign_todo(path: str | Path, keys: Sequence[str | Path], *, passphrase: Passphrase | None = None) -> Todo:
    """Add signatures to a todo file; this needs no repository and no network.

    Raises:
        RepositoryError: if the file is none, or a key cannot be read or does not sign this role.
    """
    todo = Todo.read(Path(path))
    signers = [(key, load_signer(Path(key), passphrase)) for key in keys]
    for key, signer in signers:
        if signer.public_key.keyid not in todo.keyids:
            raise RepositoryError(f"key {key} (id {short(signer.public_key.keyid)}) does not sign {todo.role}")
    for _, signer in signers:
        todo.metadata.sign(signer, append=True)
    todo.write(Path(path))
    return todo


def import_todo(
    directory: str | Path,
    path: str | Path,
    *,
    keys: Sequence[str | Path] = (),
    passphrase: Passphrase | None = None,
    clock_ok: bool = False,
    now: datetime | None = None,
    expires: Expires | None = None,
) -> tuple[str, ...]:
    """Publish a todo file that enough keys have signed.

    Args:
        keys: files with private keys that must sign in the same step, because the change makes them a family's.

    Returns:
        The roles that were signed or renewed.

    Raises:
        RepositoryError: if the file is none, signatures are missing, the role moved on since the export, it is valid
            for longer than it may, or online keys are missing.
    """
    directory, todo = Path(directory), Todo.read(Path(path))
    keyring = Keyring([directory / "keys"], list(map(Path, keys)), passphrase)
    with opened(directory, utc(now), expires, keyring, clock_ok=clock_ok) as repository:
        role = todo.role
        role_of(repository.root.signed, repository.targets.signed, role)
        current = repository.of(role)
        if current.signed == todo.metadata.signed and repository.interrupted:
            return tuple(repository.commit())  # interrupted after the new root was written
        _check(repository, todo, path)
        if role == "root":
            repository.root = todo.metadata  # type: ignore[assignment]
        elif role == "targets":
            repository.replace_targets(todo.metadata)  # type: ignore[arg-type]
        else:
            repository.roles[role] = todo.metadata  # type: ignore[assignment]
        repository.dirty.add(role)
        repository.adopted.add(role)
        try:
            return tuple(repository.commit())
        except MissingKeysError as error:
            raise RepositoryError(f"{path} cannot be imported: {error}; give them with --key") from None


def _check(repository: Repository, todo: Todo, path: str | Path) -> None:
    """Refuse a todo file that does not follow from the repository's state."""
    role, signed, current = todo.role, todo.metadata.signed, repository.of(todo.role).signed
    if signed.version != current.version + 1:
        raise RepositoryError(
            f"{path} holds version {signed.version} of {role}, but the repository has version {current.version} now, "
            f"so it moved on since the export; export it again: {_commands(repository.directory, role)}"
        )
    if not repository.now < signed.expires <= repository.now + repository.expires.of(role):
        raise RepositoryError(
            f"{path} holds {role} that is valid until {signed.expires:%Y-%m-%d %H:%M}; that must be in the future and "
            f"at most {repository.expires.of(role).days} days ahead; export it again"
        )
    try:
        for above in _above(repository, todo):
            above.verify_delegate(role, todo.metadata.signed_bytes, todo.metadata.signatures)
    except TufRepositoryError as error:
        raise RepositoryError(
            f"{path} is not signed by enough keys of {role}: {error}; sign it with: "
            f"seedcnn repo sign {path} --key KEY.pem"
        ) from None
    if isinstance(signed, Targets) and role == "targets":
        gone = set(families(repository.targets.signed)) - set(families(signed)) if signed.delegations else {"all"}
        if gone or signed.targets:
            raise RepositoryError(
                f"{path} would drop families ({', '.join(sorted(gone))}) or list files in targets itself"
            )


def _above(repository: Repository, todo: Todo) -> list[Any]:
    if todo.role == "root":
        return [repository.root.signed, todo.metadata.signed]
    return [repository.root.signed if todo.role == "targets" else repository.targets.signed]
