"""``DIR/rollouts/FAMILY.json``: what the server remembers of a family's rollout. It is private, and not served.

A command that signs a rule writes the file first, with what was before, and each beside the digest of its rule. The
rule that is in force then says which of the two holds; so a command that is interrupted has either been done or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedcnn.bundle import check_family, rollout_name
from seedcnn.bundle.canonical import dump_canonical, load_json
from seedcnn.errors import BundleFormatError, RepositoryError
from seedcnn.files import drop_temporaries, write_file
from seedcnn.server.roles import rule_role
from seedcnn.server.staged import ENDED, Staged
from seedcnn.server.state import Repository

__all__ = ["FORMAT", "check_none_runs", "read_kept", "rule_digest", "write_kept"]

FORMAT = "seedcnn-staged/1"
_MOST = 16 << 20  # bytes


@dataclass(frozen=True)
class _Entry:
    rule: str
    rollout: Staged

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "rollout": self.rollout.to_json()}


def _path(directory: Path, family: str) -> Path:
    return directory / "rollouts" / f"{check_family(family)}.json"


def rule_digest(repository: Repository, family: str) -> str:
    """Return the SHA-256 of the rule in force, or "" before the first one."""
    target = repository.of(rule_role(family)).signed.targets.get(rollout_name(family))
    return "" if target is None else str(target.hashes["sha256"])


def _read(directory: Path, family: str) -> list[_Entry]:
    path = _path(directory, family)
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except FileNotFoundError:
        return []
    try:
        if len(data) > _MOST:
            raise ValueError(f"it has more than {_MOST} bytes")
        value = load_json(data, "it")
        if (found := value.get("format")) != FORMAT:
            raise ValueError(f"its format is {found!r:.80}; this version of seedcnn reads {FORMAT!r}")
        entries = [_Entry(each["rule"], Staged.from_json(each["rollout"])) for each in value["entries"]]
        if not 1 <= len(entries) <= 2 or any(each.rollout.family != family for each in entries):
            raise ValueError(f"it holds no rollout of {family!r}")
    except (BundleFormatError, ValueError, KeyError, TypeError) as error:
        raise RepositoryError(
            f"{path} is damaged ({error}); restore it from a copy, or move it away: the rule stays, and the rollout "
            "is forgotten"
        ) from None
    return entries


def read_kept(repository: Repository, family: str) -> Staged | None:
    """Return the rollout of a family that belongs to the rule in force, or the last one that has ended; else None.

    Raises:
        RepositoryError: if the file is damaged, or somebody has signed another rule while a rollout runs.
    """
    entries, rule = _read(repository.directory, family), rule_digest(repository, family)
    for entry in entries:
        if entry.rule == rule:
            return entry.rollout
    if not entries:
        return None
    newest = entries[0].rollout
    if newest.state in ENDED:
        return newest  # a release was published since
    # What follows was interrupted before its rule was signed, and perhaps a release was published since.
    if len(entries) == 2 and entries[1].rollout.state in ENDED:
        return entries[1].rollout
    if len(newest.rules) == 1:
        return None
    raise RepositoryError(
        f"the rule of {family!r} is not one of its rollout's, which has serial {newest.serial}: it was signed "
        f"elsewhere; if that is right, move {_path(repository.directory, family)} away"
    )


def write_kept(repository: Repository, rollout: Staged, rule: str) -> None:
    """Remember a rollout, beside what holds until the rule with the digest ``rule`` is in force.

    Raises:
        OSError: if the file system refuses.
    """
    path, now = _path(repository.directory, rollout.family), rule_digest(repository, rollout.family)
    entries = [_Entry(rule, rollout)]
    if rule != now and (before := read_kept(repository, rollout.family)) is not None:
        entries.append(_Entry(now, before))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    drop_temporaries(path.parent)
    value = {"format": FORMAT, "entries": [each.to_json() for each in entries]}
    write_file(path, dump_canonical(value), mode=0o600)


def check_none_runs(repository: Repository, family: str) -> None:
    """Raise ``RepositoryError`` while a rollout of a family runs or is paused."""
    rollout = read_kept(repository, family)
    if rollout is not None and rollout.state not in ENDED:
        where = f"{repository.directory} {family}"
        raise RepositoryError(
            f"a rollout of release {rollout.offer} of {family!r} is {rollout.state}; see it with: seedcnn rollout "
            f"status {where}, end it with: seedcnn rollout revert {where}, or seedcnn rollout dial {where} 100%"
        )
