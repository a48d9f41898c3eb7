"""Roles: their names, how long their metadata is valid, and the delegations to the families.

``root`` names the keys of ``targets``, ``snapshot`` and ``timestamp``. ``targets`` lists no file: it delegates the
bundles and deltas of a family to ``FAMILY.bundles``, the team's keys, and the family's rollout rule to ``FAMILY.rule``,
one online key. Both are terminating, so nobody else can sign for these paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root, Targets

from seedcnn.bundle import rollout_name
from seedcnn.errors import RepositoryError, did_you_mean
from seedcnn.server.keys import ONLINE, short

__all__ = [
    "TOP",
    "Expires",
    "add_family_roles",
    "all_keys",
    "bundles_role",
    "check_unused",
    "families",
    "family_of",
    "find_key",
    "is_online",
    "key_of",
    "releases_of",
    "role_of",
    "rule_role",
    "target_release",
]

TOP = ("root", "targets", "snapshot", "timestamp")
_BUNDLES, _RULE = ".bundles", ".rule"
_TARGET = re.compile(r"([1-9][0-9]{0,15})(\.from-[1-9][0-9]{0,15}\.delta|\.bundle)")


@dataclass(frozen=True)
class Expires:
    """How long each role's metadata is valid, counted from signing."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=180)
    bundles: timedelta = timedelta(days=90)
    rule: timedelta = timedelta(days=30)
    snapshot: timedelta = timedelta(days=7)
    timestamp: timedelta = timedelta(days=3)

    def of(self, role: str) -> timedelta:
        """Return the validity of ``role``."""
        kind = role if role in TOP else role.rpartition(".")[2]
        return {name: getattr(self, name) for name in (*TOP, "bundles", "rule")}[kind]  # type: ignore[no-any-return]


def bundles_role(family: str) -> str:
    """Return the role that signs a family's bundles and deltas."""
    return family + _BUNDLES


def rule_role(family: str) -> str:
    """Return the role that signs a family's rollout rule."""
    return family + _RULE


def family_of(role: str) -> str:
    """Return the family of a delegated role."""
    return role.removesuffix(_BUNDLES) if role.endswith(_BUNDLES) else role.removesuffix(_RULE)


def is_online(role: str) -> bool:
    """Return whether the one key of ``role`` stays in ``DIR/keys/``."""
    return role in ONLINE or (role not in TOP and role.endswith(_RULE))


def families(targets: Targets) -> list[str]:
    """Return the families in alphabetical order."""
    return sorted(family_of(name) for name in _delegations(targets).roles or {} if name.endswith(_BUNDLES))


def _delegations(targets: Targets) -> Delegations:
    if targets.delegations is None:
        raise RepositoryError("targets.json has no delegations")
    return targets.delegations


def role_of(root: Root, targets: Targets, name: str) -> Role:
    """Return the keys and the threshold of a role.

    Raises:
        RepositoryError: if there is none of that name.
    """
    every: dict[str, Role] = {**root.roles, **(_delegations(targets).roles or {})}
    if name not in every:
        raise RepositoryError(
            f"there is no role {name!r}; {did_you_mean(name, every)}see all of them with: seedcnn repo keys"
        )
    return every[name]


def key_of(root: Root, targets: Targets, keyid: str) -> Key:
    """Return a public key by its id."""
    return root.keys[keyid] if keyid in root.keys else _delegations(targets).keys[keyid]


def all_keys(root: Root, targets: Targets) -> dict[str, list[str]]:
    """Return the roles of every key, by key id."""
    found: dict[str, list[str]] = {}
    for name, role in {**root.roles, **(_delegations(targets).roles or {})}.items():
        for keyid in role.keyids:
            found.setdefault(keyid, []).append(name)
    return found


def find_key(root: Root, targets: Targets, start: str) -> str:
    """Return the key id that begins with ``start``.

    Raises:
        RepositoryError: if none does, or several do.
    """
    found = [keyid for keyid in all_keys(root, targets) if keyid.startswith(start.lower())]
    if len(start) < 4 or len(found) != 1:
        why = (
            "no key has this id"
            if len(start) >= 4 and not found
            else "it must begin one key's id, with 4 digits or more"
        )
        raise RepositoryError(f"key id {start!r:.80}: {why}; see all of them with: seedcnn repo keys")
    return found[0]


def check_unused(root: Root, targets: Targets, key: Key, role: str) -> None:
    """Refuse a key that signs for another kind of role; a team may have one key for several families.

    Raises:
        RepositoryError: naming the key and the other role.
    """
    for other in all_keys(root, targets).get(key.keyid, ()):
        if other == role:
            raise RepositoryError(f"key {short(key.keyid)} signs {role} already")
        if not (role.endswith(_BUNDLES) and other not in TOP and other.endswith(_BUNDLES)):
            raise RepositoryError(
                f"key {short(key.keyid)} cannot sign {role}: it signs {other}, and a stolen key must open one door only"
            )


def add_family_roles(targets: Targets, family: str, team: Sequence[Key], threshold: int, rule: Key) -> None:
    """Delegate a family's bundles to ``team`` and its rule to the key ``rule``."""
    delegations = _delegations(targets)
    for name, keys, needed, path in (
        (bundles_role(family), team, threshold, f"{family}/*"),
        (rule_role(family), [rule], 1, rollout_name(family)),
    ):
        role = DelegatedRole(name, [], needed, terminating=True, paths=[path])
        assert delegations.roles is not None
        delegations.roles[name] = role
        for key in sorted(keys, key=lambda each: each.keyid):
            targets.add_key(key, name)


def target_release(family: str, name: str) -> int | None:
    """Return the release that a bundle or delta makes, by its target name; None for another name."""
    found = _TARGET.fullmatch(name.removeprefix(f"{family}/"))
    return int(found[1]) if found and name.startswith(f"{family}/") else None


def releases_of(family: str, names: Iterable[str]) -> list[int]:
    """Return the releases among target names, in ascending order."""
    found = (target_release(family, name) for name in names if name.endswith(".bundle"))
    return sorted(release for release in found if release is not None)
