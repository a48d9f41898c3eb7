"""The signed repository: TUF metadata and bundles as static files, signed with python-tuf's Metadata API.

Layout of the directory::

    DIR/root.json                                 the trust anchor for devices (the newest N.root.json)
    DIR/keys/*.pem                                the online keys, never served
    DIR/pending/, retired.json                    changes that wait for offline keys; files that will be removed
    DIR/public/metadata/N.root.json, N.targets.json, N.FAMILY.bundles.json, N.FAMILY.rule.json, N.snapshot.json,
                        timestamp.json
    DIR/public/targets/FAMILY/SHA256.RELEASE.bundle
    DIR/public/targets/FAMILY/SHA256.RELEASE.from-PARENT.delta
    DIR/public/targets/rollout/SHA256.FAMILY.json

Every file except ``timestamp.json`` has a unique name and never changes. ``timestamp.json`` is replaced last, by a
rename, so a device sees either the old state or the new one. A device fetches the roles of its own family only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from seedcnn.bundle import Artefact, Rollout, bundle_name, rollout_name
from seedcnn.bundle.rollout import MAX_DELTAS
from seedcnn.errors import RepositoryError
from seedcnn.server.artefacts import next_serial, signed_artefact
from seedcnn.server.clock import utc
from seedcnn.server.creation import init_repository
from seedcnn.server.deltas import make_deltas
from seedcnn.server.intake import Accepted, accept, check_interface
from seedcnn.server.kept import check_none_runs
from seedcnn.server.keys import Keyring, Passphrase
from seedcnn.server.loading import opened
from seedcnn.server.roles import (
    Expires,
    bundles_role,
    families,
    releases_of,
    role_of,
    rule_role,
    target_release,
)
from seedcnn.server.state import Repository

__all__ = ["KEEP", "Expires", "Pruned", "Published", "init_repository", "prune", "publish"]

KEEP = 3  # releases of a family that stay signed


@dataclass(frozen=True)
class Published:
    """A published bundle: target name, size in bytes, SHA-256 in hexadecimal.

    ``deltas`` has the sizes in bytes of the deltas made, by the release of their parent. ``offered`` is False for a
    bundle that is signed and offered to nobody. ``withdrawn`` lists the releases that are not signed any more.
    """

    family: str
    release: int
    target: str
    size: int
    sha256: str
    deltas: Mapping[int, int]
    offered: bool = True
    withdrawn: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """The releases withdrawn, by family, and a sentence for each that could not be, or that a rule keeps."""

    withdrawn: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()


def publish(
    directory: str | Path,
    bundle: str | Path | bytes,
    *,
    keys: Sequence[str | Path] = (),
    passphrase: Passphrase | None = None,
    hold: bool = False,
    deltas: int = 3,
    keep: int = KEEP,
    changes_interface: bool = False,
    clock_ok: bool = False,
    now: datetime | None = None,
    expires: Expires | None = None,
) -> Published:
    """Sign a bundle and point its family's rollout rule at it.

    Publishing a bundle that is held offers it; that needs no key of the team.

    Args:
        bundle: path of a bundle, or its bytes.
        keys: files with private keys of the family's team; those in ``DIR/keys/FAMILY.bundles.pem`` are found.
        passphrase: returns the passphrase of an encrypted key.
        hold: sign the bundle, but offer it to nobody.
        deltas: number of latest releases to make deltas from. A release that differs in more than its weights gets
            none, nor does one whose delta is not smaller than the bundle; devices then fetch the whole bundle.
        keep: releases that stay signed, besides the one that the rule names; files of others go after two timestamp
            lives.
        changes_interface: accept other labels, or an input of another shape, than the family's last release.
        clock_ok: sign even if the clock says a time before the last signing, or more than seven days after it.
        now, expires: see :func:`init_repository`.

    Raises:
        RepositoryError: if the bundle does not open or expand, its family is unknown, its release is not above the
            published one, its labels or its input are others than the published one's, a key is missing or signs
            another role, a rollout of its family runs or is paused, the clock is implausible, or the directory cannot
            be written.
        ValueError: if ``deltas`` is negative, or above the 64 that a rollout rule may list, or ``keep`` is below 1.
    """
    if not 0 <= deltas <= MAX_DELTAS:
        raise ValueError(f"`deltas` (={deltas}) must be in [0, {MAX_DELTAS}]")
    if keep < 1:
        raise ValueError(f"`keep` (={keep}) must be 1 or more")
    accepted, directory = accept(bundle), Path(directory)
    keyring = Keyring([directory / "keys"], list(map(Path, keys)), passphrase)
    with opened(directory, utc(now), expires, keyring, clock_ok=clock_ok) as repository:
        repository.check_family(accepted.family)
        team = bundles_role(accepted.family)
        keyring.check_given(team, role_of(repository.root.signed, repository.targets.signed, team).keyids)
        if not hold:
            check_none_runs(repository, accepted.family)
        sizes: dict[int, int] = {}
        artefact = _is_held(repository, accepted, hold)
        if artefact is None:
            artefact, sizes = _add(repository, accepted, deltas, changes_interface)
        in_use = repository.rule(accepted.family) if hold else _to_all(repository, artefact)
        withdrawn = _withdraw(repository, accepted.family, keep, in_use) if team in repository.dirty else ()
        repository.commit()
    facts = accepted.family, accepted.release, artefact.target, len(accepted.data), accepted.sha256
    return Published(*facts, sizes, not hold, withdrawn)


def _path(repository: Repository, family: str, release: int) -> tuple[Path, str]:
    """Return a published bundle's file and its signed SHA-256."""
    target = repository.of(bundles_role(family)).signed.targets[bundle_name(family, release)]
    return repository.public / "targets" / target.get_prefixed_paths()[0], target.hashes["sha256"]


def _add(
    repository: Repository, accepted: Accepted, deltas: int, changes_interface: bool
) -> tuple[Artefact, dict[int, int]]:
    """Register a bundle and the deltas to it; return how a rule names it, and the deltas' sizes."""
    family, release, team = accepted.family, accepted.release, bundles_role(accepted.family)
    releases = releases_of(family, repository.of(team).signed.targets)
    published = max(releases, default=0)
    if release <= published:
        raise RepositoryError(
            f"release {release} of {family!r} cannot be published: release {published} is out; releases only go up"
        )
    if published and not changes_interface:
        check_interface(accepted, _path(repository, family, published)[0], published)
    parents = {parent: _path(repository, family, parent) for parent in (releases[-deltas:] if deltas else [])}
    made = make_deltas(accepted, parents)
    artefact = Artefact(family, release, accepted.content, {one.parent_content: one.target for one in made})
    repository.edit(team)
    repository.add_target(team, artefact.target, accepted.data)
    for one in made:
        repository.add_target(team, one.target, one.data)
    return artefact, {one.parent: len(one.data) for one in made}


def _to_all(repository: Repository, artefact: Artefact) -> Rollout:
    """Register the next rule, which offers a release to every device."""
    family, serial = artefact.family, next_serial(repository, artefact.family)
    salt = hashlib.sha256(f"{family}/{serial}".encode()).hexdigest()[:32]
    rule = Rollout(artefact, serial, None, salt, 1000, int(repository.now.timestamp()))
    repository.edit(rule_role(family))
    repository.add_target(rule_role(family), rollout_name(family), rule.dump())
    return rule


def _is_held(repository: Repository, accepted: Accepted, hold: bool) -> Artefact | None:
    """Return how a rule names a bundle which is signed and held; None for one that is not."""
    family, release = accepted.family, accepted.release
    signed = repository.of(bundles_role(family)).signed.targets.get(bundle_name(family, release))
    if signed is None or signed.hashes["sha256"] != accepted.sha256 or hold:
        return None
    rule = repository.rule(family)
    if rule is not None and rule.offer.release >= release:
        return None
    return signed_artefact(repository, family, release)


def _withdraw(repository: Repository, family: str, keep: int, rule: Rollout | None) -> tuple[int, ...]:
    """Take all but the newest releases out of the signed list, except the one that the rule names."""
    targets = repository.of(bundles_role(family)).signed.targets
    releases = releases_of(family, targets)
    kept = set(releases[len(releases) - keep :] if keep < len(releases) else releases)
    artefacts = rule.artefacts if rule is not None else ()
    kept.update(each.release for each in artefacts)
    named = {name for each in artefacts for name in each.deltas.values()}
    for name in list(targets):
        if target_release(family, name) not in kept and name not in named:
            del targets[name]
    return tuple(release for release in releases if release not in kept)


def prune(
    directory: str | Path,
    *,
    keep: int = KEEP,
    keys: Sequence[str | Path] = (),
    passphrase: Passphrase | None = None,
    clock_ok: bool = False,
    now: datetime | None = None,
    expires: Expires | None = None,
) -> Pruned:
    """Withdraw all but the newest releases of every family, except what a rule names, and remove superseded files.

    Files go once two timestamp lives have passed since they were superseded.

    Args:
        keep: releases that stay signed; 0 leaves only what a rule names.
        keys, passphrase, clock_ok, now, expires: see :func:`publish`.

    Raises:
        RepositoryError: if there is no repository, a rule cannot be read, a key that was given signs no family's
            bundles, the clock is implausible, or the directory cannot be written.
        ValueError: if ``keep`` is negative.
    """
    if keep < 0:
        raise ValueError(f"`keep` (={keep}) must be 0 or more")
    directory = Path(directory)
    keyring = Keyring([directory / "keys"], list(map(Path, keys)), passphrase)
    withdrawn: dict[str, tuple[int, ...]] = {}
    notes = []
    with opened(directory, utc(now), expires, keyring, clock_ok=clock_ok) as repository:
        every = families(repository.targets.signed)
        teams = [role_of(repository.root.signed, repository.targets.signed, bundles_role(each)) for each in every]
        keyring.check_given("the bundles of any family", {keyid for role in teams for keyid in role.keyids})
        for family, role in zip(every, teams, strict=True):
            rule = repository.rule(family)
            releases = releases_of(family, repository.of(bundles_role(family)).signed.targets)
            newest = releases[len(releases) - keep :] if keep < len(releases) else releases
            old = [each for each in releases if each not in newest]
            for named in sorted({each.release for each in rule.artefacts} & set(old)) if rule is not None else ():
                notes.append(f"release {named} of {family!r} stays: its rule names it")
                old.remove(named)
            if not old:
                continue
            if len(keyring.signers(bundles_role(family), role.keyids)) < role.threshold:
                notes.append(
                    f"{len(old)} releases of {family!r} stay: {bundles_role(family)} needs {role.threshold} of its "
                    "keys; give them with --key"
                )
                continue
            repository.edit(bundles_role(family))
            withdrawn[family] = _withdraw(repository, family, keep, rule)
        repository.commit(whole=True)
    return Pruned(withdrawn, tuple(notes))
