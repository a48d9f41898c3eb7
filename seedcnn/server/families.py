"""Who signs what: add a family, bring a new key into use, take a key out of use.

Each of them changes root or targets. If their keys are offline the change is prepared in ``DIR/pending/`` and an error
says which commands sign and import it; see :mod:`seedcnn.server.ceremony`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Targets

from seedcnn.bundle import check_family
from seedcnn.errors import RepositoryError
from seedcnn.server.ceremony import PreparedError, adopt_pending, commit_or_prepare
from seedcnn.server.clock import utc
from seedcnn.server.keys import Keyring, MissingKeysError, Passphrase, load_public, short
from seedcnn.server.loading import opened
from seedcnn.server.places import note_places
from seedcnn.server.roles import (
    TOP,
    Expires,
    add_family_roles,
    all_keys,
    bundles_role,
    check_unused,
    families,
    find_key,
    is_online,
    role_of,
    rule_role,
)
from seedcnn.server.state import Repository, unsigned

__all__ = ["Access", "Added", "add_family", "revoke", "rotate"]


@dataclass(frozen=True)
class Access:
    """Keys beyond those in ``DIR/keys``, and how to sign.

    Attributes:
        offline_keys: directory with keys of root and targets.
        keys: files with other private keys.
        passphrase: returns the passphrase of an encrypted key.
        clock_ok: sign even if the clock says a time before the last signing, or more than seven days after it.
        now, expires: see :func:`seedcnn.server.repository.init_repository`.
    """

    offline_keys: str | Path | None = None
    keys: Sequence[str | Path] = ()
    passphrase: Passphrase | None = None
    clock_ok: bool = False
    now: datetime | None = None
    expires: Expires | None = None

    def keyring(self, directory: Path) -> Keyring:
        """Return the keys at hand.

        Raises:
            RepositoryError: if one cannot be read, or there is no directory ``offline_keys``.
        """
        places = [directory / "keys"]
        if self.offline_keys is not None:
            if not Path(self.offline_keys).is_dir():
                raise RepositoryError(f"there is no directory {self.offline_keys} with offline keys")
            places.append(Path(self.offline_keys))
        return Keyring(places, [Path(path) for path in self.keys], self.passphrase)


@dataclass(frozen=True)
class Added:
    """A family's key ids; ``generated`` is the file of the team's key if the command made one."""

    team: tuple[str, ...]
    rule: str
    generated: Path | None


def add_family(
    directory: str | Path,
    family: str,
    team: Sequence[str | Path] = (),
    *,
    threshold: int = 1,
    access: Access | None = None,
) -> Added:
    """Delegate a family's bundles to its team and its rule to a new online key.

    Args:
        team: files with the team's keys, private ones for ``threshold`` of them, private or public for the others.
            Without any, a key is generated in ``DIR/keys/FAMILY.bundles.pem``.
        threshold: how many of them must sign a bundle.

    Raises:
        RepositoryError: if the name is not allowed or taken, a key cannot be read or signs for another kind of role,
            the threshold is not met, or the keys of targets are offline; the message then says which commands
            finish it.
    """
    directory, access = Path(directory), access or Access()
    try:
        check_family(family)
    except ValueError as error:
        raise RepositoryError(str(error)) from None
    keyring = access.keyring(directory)
    with opened(directory, utc(access.now), access.expires, keyring, clock_ok=access.clock_ok) as repository:
        if family in families(repository.targets.signed):
            raise RepositoryError(f"family {family!r} exists already; see its keys with: seedcnn repo keys {directory}")
        adopt_pending(repository, "targets")
        root, targets, role = repository.root.signed, repository.targets.signed, bundles_role(family)
        files = [Path(path) for path in team]
        read = [load_public(path, access.passphrase) for path in files] or [_own_key(keyring, role)]
        publics = [key for key, _ in read]
        if family in families(targets):  # it waits for the keys of targets
            waiting = targets.get_delegated_role(role).keyids
            if files and {key.keyid for key in publics} != set(waiting):
                raise RepositoryError(
                    f"family {family!r} waits for the keys of targets, with other keys of its own: "
                    f"{', '.join(map(short, waiting))}"
                )
            publics = [targets.get_key(keyid) for keyid in waiting]
        else:
            _check_team(repository, role, publics, threshold)
            if (at_hand := sum(signer is not None for _, signer in read)) < threshold:
                raise RepositoryError(f"{role} needs {threshold} of its keys; {at_hand} at hand")
            rule = keyring.first(rule_role(family))
            check_unused(root, targets, rule.public_key, rule_role(family))
            add_family_roles(targets, family, publics, threshold, rule.public_key)
        _sign_first(repository, family, [signer for _, signer in read if signer is not None])
        repository.dirty.add("targets")
        seen = {key.keyid: path for (key, _), path in zip(read, files, strict=False)}
        _commit(repository, f"adding family {family!r}", seen)
        made = role_of(root, repository.targets.signed, rule_role(family)).keyids[0]
    return Added(tuple(key.keyid for key in publics), made, None if files else keyring.directory / f"{role}.pem")


def _commit(repository: Repository, what: str, seen: dict[str, Path]) -> None:
    """Commit or prepare, and remember where keys are in either case."""
    try:
        commit_or_prepare(repository, what)
    except PreparedError:
        note_places(repository.directory, seen)
        raise
    note_places(repository.directory, seen)


def _own_key(keyring: Keyring, role: str) -> tuple[Key, CryptoSigner]:
    signer = keyring.first(role)
    return signer.public_key, signer


def _check_team(repository: Repository, role: str, keys: Sequence[Key], threshold: int) -> None:
    if len({key.keyid for key in keys}) != len(keys):
        raise RepositoryError(f"{role} was given one key twice")
    if not 1 <= threshold <= len(keys):
        raise RepositoryError(
            f"the threshold of {role} is {threshold}; it must be from 1 to the number of keys, {len(keys)}"
        )
    for key in keys:
        check_unused(repository.root.signed, repository.targets.signed, key, role)


def _sign_first(repository: Repository, family: str, signers: Sequence[CryptoSigner]) -> None:
    """Sign the first, empty list of bundles with the team's keys at hand."""
    role = bundles_role(family)
    repository.roles[role] = unsigned(Targets())
    repository.roles[rule_role(family)] = unsigned(Targets())
    repository.dirty |= {role, rule_role(family)}
    repository.keyring.add(signers)


def rotate(directory: str | Path, role: str, *, access: Access | None = None) -> str:
    """Replace the key of an online role: snapshot, timestamp, or the rule of a family.

    Returns:
        The id of the new key.

    Raises:
        RepositoryError: if there is no such role, its keys are not kept online, or the keys of the role above are
            offline; the message then says which commands finish it.
    """
    directory, access = Path(directory), access or Access()
    keyring = access.keyring(directory)
    with opened(directory, utc(access.now), access.expires, keyring, clock_ok=access.clock_ok) as repository:
        found = role_of(repository.root.signed, repository.targets.signed, role)
        if not is_online(role):
            raise RepositoryError(
                f"{role} has no online key to rotate; replace one with: "
                f"seedcnn repo revoke {directory} KEYID --replace-with NEW.pem"
            )
        above = "root" if role in TOP else "targets"
        if repository.interrupted and above == "root":
            repository.commit()  # an interrupted rotation, which the new root has decided
            return found.keyids[0]
        keyring.settle(role, found.keyids)  # what an interrupted rotation left
        repository.of(role)
        adopt_pending(repository, above)
        _exchange(repository, above, role, found.keyids[0], keyring.next(role).public_key)
        commit_or_prepare(repository, f"rotating {role}")
        return role_of(repository.root.signed, repository.targets.signed, role).keyids[0]


def _exchange(repository: Repository, above: str, role: str, old: str, new: Key | None) -> None:
    """Take a key from a role and give it another."""
    signed: Any = repository.of(above).signed
    keyids = signed.get_delegated_role(role).keyids
    if old in keyids:
        signed.revoke_key(old, role)
    if new is not None and new.keyid not in keyids:
        signed.add_key(new, role)
    repository.dirty.add(above)


def revoke(
    directory: str | Path,
    keyid: str,
    *,
    replace_with: str | Path | None = None,
    access: Access | None = None,
) -> tuple[str, ...]:
    """Take a key from every role that has it.

    Args:
        keyid: the id, or its beginning.
        replace_with: file with a key, private or public, that takes its place.

    Returns:
        The roles that had it.

    Raises:
        RepositoryError: if no key has that id, too few keys would be left to sign, what the key has signed cannot be
            signed by the keys at hand, or the keys of root or targets are offline; the message then says which
            commands finish it.
    """
    directory, access = Path(directory), access or Access()
    keyring = access.keyring(directory)
    with opened(directory, utc(access.now), access.expires, keyring, clock_ok=access.clock_ok) as repository:
        keyid = find_key(repository.root.signed, repository.targets.signed, keyid)
        roles = all_keys(repository.root.signed, repository.targets.signed)[keyid]
        new, signer = (None, None) if replace_with is None else load_public(Path(replace_with), access.passphrase)
        if signer is not None:
            keyring.add([signer])
        for role in roles:
            found = role_of(repository.root.signed, repository.targets.signed, role)
            if is_online(role):
                raise RepositoryError(
                    f"{role} has one key, which stays online; replace it with: seedcnn repo rotate {directory} {role}"
                )
            if new is not None:
                check_unused(repository.root.signed, repository.targets.signed, new, role)
            if new is None and len(found.keyids) - 1 < found.threshold:
                raise RepositoryError(
                    f"key {short(keyid)} cannot be revoked: {role} needs {found.threshold} of its keys and has "
                    f"{len(found.keyids)}; name another with --replace-with"
                )
            repository.of(role)
        above = "root" if roles[0] in TOP else "targets"
        adopt_pending(repository, above)
        for role in roles:
            _exchange(repository, above, role, keyid, new)
        seen = {new.keyid: Path(replace_with)} if new is not None and replace_with is not None else {}
        try:
            _commit(repository, f"revoking key {short(keyid)}", seen)
        except MissingKeysError as error:
            raise RepositoryError(
                f"key {short(keyid)} cannot be revoked yet, because it has signed {error.role}, and {error}; give them "
                f"with --key or --offline-keys, or first sign {error.role} anew with: seedcnn repo export {directory} "
                f"{error.role} > todo.json; seedcnn repo sign todo.json --key KEY.pem; "
                f"seedcnn repo import {directory} todo.json"
            ) from None
    return tuple(roles)
