"""Releases that the metadata of a family has signed, as a rule names them."""

from __future__ import annotations

from pathlib import Path

from tuf.api.exceptions import RepositoryError as TufRepositoryError

from seedcnn.bundle import Artefact, bundle_name, read_bundle, read_delta
from seedcnn.bundle.rollout import MAX_DELTAS
from seedcnn.errors import BundleError, RepositoryError
from seedcnn.server.roles import bundles_role, releases_of, rule_role, target_release
from seedcnn.server.state import Repository

__all__ = ["highest_min_release", "next_serial", "signed_artefact"]


def next_serial(repository: Repository, family: str) -> int:
    """Return the serial of a family's next rule; a rule whose file is damaged can be replaced, too."""
    try:
        rule = repository.rule(family)
    except RepositoryError:
        # Version 1 of the role has no rule, and each later one at most one serial more than the version before.
        return int(repository.of(rule_role(family)).signed.version)
    return 1 if rule is None else rule.serial + 1


def _read(repository: Repository, family: str, name: str) -> tuple[Path, bytes]:
    """Return the file of a signed target and what it holds; RepositoryError if it is not what was signed."""
    target = repository.of(bundles_role(family)).signed.targets[name]
    path = repository.public / "targets" / target.get_prefixed_paths()[0]
    try:
        data = path.read_bytes()
        target.verify_length_and_hashes(data)
    except (OSError, TufRepositoryError) as error:
        raise RepositoryError(f"{path} is not what was signed: {getattr(error, 'strerror', None) or error}") from None
    return path, data


def signed_artefact(repository: Repository, family: str, release: int) -> Artefact:
    """Return how a rule names a signed release, with every delta that is signed for it.

    Raises:
        RepositoryError: if the release is not signed, or its file is not what was signed.
    """
    targets = repository.of(bundles_role(family)).signed.targets
    if bundle_name(family, release) not in targets:
        known = ", ".join(map(str, releases_of(family, targets))) or "none"
        raise RepositoryError(
            f"release {release} of {family!r} is not signed (signed: {known}); sign it with: seedcnn repo publish "
            f"{repository.directory} BUNDLE --hold"
        )
    path, data = _read(repository, family, bundle_name(family, release))
    try:
        content = read_bundle(data).manifest.content_sha256()
    except BundleError as error:
        raise RepositoryError(f"{path} cannot be offered: {error}") from None
    deltas = {}
    for name in sorted(targets):
        if name.endswith(".delta") and target_release(family, name) == release:
            try:
                deltas[read_delta(_read(repository, family, name)[1]).parent] = name
            except (RepositoryError, BundleError):
                continue  # devices fetch the whole bundle then
    return Artefact(family, release, content, dict(sorted(deltas.items())[:MAX_DELTAS]))


def highest_min_release(repository: Repository, family: str) -> tuple[int, int]:
    """Return the highest ``min_release`` of a family's signed bundles, and the release that asks for it.

    Raises:
        RepositoryError: if one of the bundles is not what was signed, so that nobody knows.
    """
    found = [(0, 0)]
    for release in releases_of(family, repository.of(bundles_role(family)).signed.targets):
        path, data = _read(repository, family, bundle_name(family, release))
        try:
            found.append((read_bundle(data).manifest.min_release, release))
        except BundleError as error:
            raise RepositoryError(f"{path} cannot be read: {error}") from None
    return max(found)
