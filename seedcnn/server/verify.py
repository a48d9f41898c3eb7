"""``seedcnn repo verify``: check what devices will check, and whatever the signed metadata names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile

from seedcnn.bundle import open_bundle
from seedcnn.errors import BundleError, RepositoryError
from seedcnn.server.clock import utc
from seedcnn.server.loading import opened
from seedcnn.server.roles import TOP, bundles_role, families, rule_role
from seedcnn.server.state import Repository

__all__ = ["verify"]


def verify(directory: str | Path, *, now: datetime | None = None) -> list[str]:
    """Check signatures, versions, expiry, every file that metadata names, and that rules name signed bundles.

    Returns:
        A sentence for each problem.

    Raises:
        RepositoryError: if there is no repository, or so much is wrong that the rest cannot be checked.
    """
    directory = Path(directory)
    with opened(directory, utc(now), None, clock_ok=True) as repository:
        return [*_roots(repository), *_top(repository), *_families(repository)]


def _roots(repository: Repository) -> Iterator[str]:
    """Check the chain that leads a device from the first root to the newest."""
    before: Metadata[Root] | None = None
    for version in range(1, repository.root.signed.version + 1):
        path = repository.metadata / f"{version}.root.json"
        try:
            root: Metadata[Root] = Metadata.from_bytes(path.read_bytes())
            for above in (root, before or root):
                above.signed.verify_delegate("root", root.signed_bytes, root.signatures)
            if root.signed.version != version:
                raise TufRepositoryError(f"it is version {root.signed.version}")
        except (OSError, TufRepositoryError) as error:
            yield f"{path} does not lead devices to the next root: {error}"
            return
        before = root
    if repository.interrupted:
        yield f"a command was interrupted; complete it with: seedcnn repo refresh {repository.directory}"
    elif before is not None and before.to_dict() != repository.root.to_dict():
        yield f"{repository.directory / 'root.json'} is not {path.name}"


def _top(repository: Repository) -> Iterator[str]:
    for role in TOP:
        expires = repository.of(role).signed.expires
        if expires <= repository.now:
            yield f"{role} has expired on {expires:%Y-%m-%d %H:%M}"
    named, listed = set(repository.snapshot.signed.meta), {"targets.json"}
    for family in families(repository.targets.signed):
        listed |= {f"{bundles_role(family)}.json", f"{rule_role(family)}.json"}
    for name in sorted(named - listed):
        yield f"snapshot names {name}, which no role signs"


def _families(repository: Repository) -> Iterator[str]:
    for family in families(repository.targets.signed):
        sound = True
        for role in (bundles_role(family), rule_role(family)):
            try:
                signed = repository.of(role).signed
            except RepositoryError as error:
                yield f"{role} is not what was signed: {error}"
                sound = False
                continue
            if signed.expires <= repository.now:
                yield f"{role} has expired on {signed.expires:%Y-%m-%d %H:%M}"
            for target in signed.targets.values():
                yield from _file(repository, target)
        if sound:
            yield from _rule(repository, family)


def _file(repository: Repository, target: TargetFile) -> Iterator[str]:
    path = repository.public / "targets" / target.get_prefixed_paths()[0]
    try:
        with open(path, "rb") as file:
            target.verify_length_and_hashes(file)
    except (OSError, TufRepositoryError) as error:
        yield f"{path} is not what was signed: {getattr(error, 'strerror', None) or error}"


def _rule(repository: Repository, family: str) -> Iterator[str]:
    """Check that a rule names signed files, and the content of its bundle."""
    try:
        rule = repository.rule(family)
    except RepositoryError as error:
        yield str(error)
        return
    if rule is None:
        return
    targets = repository.of(bundles_role(family)).signed.targets
    for artefact in rule.artefacts:
        for name in (artefact.target, *artefact.deltas.values()):
            if name not in targets:
                yield f"the rule of {family!r} names {name}, which is not signed"
        if artefact.target not in targets:
            continue
        path = repository.public / "targets" / targets[artefact.target].get_prefixed_paths()[0]
        try:
            content = open_bundle(path).manifest.content_sha256()
        except (OSError, BundleError):
            continue  # said already
        if content != artefact.content:
            yield f"the rule of {family!r} names another content than {artefact.target} has"
