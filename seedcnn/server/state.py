"""The verified state of a repository, and the one way to write the next one.

Everything is signed before anything is written. New files come first, then ``N.root.json``, then ``timestamp.json``,
and ``DIR/root.json`` last; so whatever interrupts a command, the files that devices reach are those of the old state or
of the new one, and the command can be repeated. Only between a new root and the timestamp that its new keys sign do
devices refuse the repository; the next command of any kind writes that timestamp.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from seedcnn.bundle import Rollout, rollout_name
from seedcnn.errors import RepositoryError, UpdateError, did_you_mean
from seedcnn.files import drop_temporaries, write_in_order
from seedcnn.server.clock import note_clock
from seedcnn.server.keys import Keyring, MissingKeysError
from seedcnn.server.pending import drop_pending, pending_path, read_pending, same_content
from seedcnn.server.public import public_directory, write_public
from seedcnn.server.retention import sweep
from seedcnn.server.roles import TOP, Expires, bundles_role, families, family_of, role_of, rule_role
from seedcnn.server.sentences import believed

__all__ = ["Repository", "unsigned"]

_SERIALIZER = JSONSerializer(compact=True)


def unsigned(signed: Any) -> Metadata[Any]:
    """Return metadata that the first signing will make version 1."""
    signed.version = 0
    return Metadata(signed)


def _keys(role: Role) -> tuple[object, ...]:
    return role.threshold, *role.keyids


@dataclass
class Repository:
    """A verified state, changes to it, and the means to write them.

    Attributes:
        base: ``DIR/root.json``; older than ``root`` after an interruption.
        old_root: ``root`` as it was read; a new one is signed by its keys, too.
        roles: metadata of families' roles that has been read or changed, by name.
        dirty: roles to sign at the next commit.
        adopted: roles among them that carry their signatures already.
        files: path below ``public/targets`` -> bytes to write.
    """

    directory: Path
    now: datetime
    expires: Expires
    keyring: Keyring
    base: Metadata[Root]
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    roles: dict[str, Metadata[Targets]] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    old_root: Root = field(init=False)
    _delegated: dict[str, tuple[object, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.old_root = deepcopy(self.root.signed)
        self._delegated = {name: _keys(role) for name, role in self._roles_now().items()}

    def _roles_now(self) -> dict[str, Any]:
        delegations = self.targets.signed.delegations
        return dict((delegations.roles if delegations else None) or {})

    @property
    def interrupted(self) -> bool:
        """Whether a new root was written, and the command ended before the rest."""
        return self.base.signed.version != self.old_root.version

    @property
    def public(self) -> Path:
        return self.directory / "public"

    @property
    def metadata(self) -> Path:
        return self.public / "metadata"

    def of(self, name: str) -> Metadata[Any]:
        """Return a role's metadata; that of a family is read and verified first."""
        if name in TOP:
            found: Metadata[Any] = getattr(self, name)
            return found
        if name not in self.roles:
            version = self.snapshot.signed.meta[f"{name}.json"].version
            path = self.metadata / f"{version}.{name}.json"
            with believed(self.metadata):
                metadata: Metadata[Targets] = Metadata.from_bytes(path.read_bytes())
                self.targets.signed.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
                if metadata.signed.type != "targets" or metadata.signed.version != version:
                    raise TufRepositoryError(f"{path.name} is version {metadata.signed.version} of another role")
            self.roles[name] = metadata
        return self.roles[name]

    def edit(self, *names: str) -> None:
        """Mark roles that change, and read what the commit needs of them before they do."""
        for name in names:
            self.of(name)
            self.dirty.add(name)

    def check_family(self, family: str) -> None:
        """Raise ``RepositoryError`` for a family that has not been added."""
        known = families(self.targets.signed)
        if family not in known:
            raise RepositoryError(
                f"{self.directory} has no family {family!r}; {did_you_mean(family, known)}"
                f"add it with: seedcnn repo add-family {self.directory} {family}"
            )

    def rule(self, family: str) -> Rollout | None:
        """Return the rule of a family, or None before its first release.

        Raises:
            RepositoryError: if its file is missing or is not the one that was signed.
        """
        target = self.of(rule_role(family)).signed.targets.get(rollout_name(family))
        if target is None:
            return None
        path = self.public / "targets" / target.get_prefixed_paths()[0]
        try:
            data = path.read_bytes()
            target.verify_length_and_hashes(data)
            return Rollout.parse(data, family)
        except (OSError, TufRepositoryError, UpdateError) as error:
            raise RepositoryError(f"the rule of {family!r} in {path} is not what was signed: {error}") from None

    def replace_targets(self, targets: Metadata[Targets]) -> None:
        """Take other delegations, and read first the roles whose keys they change."""
        delegations = targets.signed.delegations
        for name, role in ((delegations.roles if delegations else None) or {}).items():
            if name in self._delegated and self._delegated[name] != _keys(role):
                self.of(name)
        self.targets = targets

    def add_target(self, role: str, name: str, data: bytes) -> None:
        """Register a target. :meth:`commit` writes its file before any metadata names it."""
        target = TargetFile.from_data(name, data)
        self.of(role).signed.targets[name] = target
        self.files[target.get_prefixed_paths()[0]] = data

    def signers(self, role: str) -> list[CryptoSigner]:
        """Return the keys of ``role`` that will sign, no more than must; a new root is signed for the old one, too.

        Raises:
            MissingKeysError: if there are too few.
        """
        wanted = [role_of(self.root.signed, self.targets.signed, role)]
        if role == "root" and self.root.signed.version:
            wanted.append(self.old_root.roles["root"])
        named = {keyid for each in wanted for keyid in each.keyids}
        at_hand = self.keyring.signers(role, named)
        chosen: list[CryptoSigner] = []
        at_hand.sort(key=lambda signer: -sum(signer.public_key.keyid in each.keyids for each in wanted))
        for each in wanted:
            of_role = [signer for signer in at_hand if signer.public_key.keyid in each.keyids]
            if len(of_role) < each.threshold:
                foreign = self.keyring.foreign(role, each.keyids)
                sentence = f"{role} needs {each.threshold} of its keys; {len(of_role)} at hand{foreign}"
                raise MissingKeysError(role, sentence)
            already = sum(signer.public_key.keyid in each.keyids for signer in chosen)
            chosen += [signer for signer in of_role if signer not in chosen][: each.threshold - already]
        return sorted(chosen, key=lambda signer: signer.public_key.keyid)

    def sign(self, role: str) -> None:
        """Give a role the next version and a new expiry, and sign it."""
        metadata, signers = self.of(role), self.signers(role)
        metadata.signed.version += 1
        metadata.signed.expires = self.now + self.expires.of(role)
        if isinstance(metadata.signed, Timestamp):
            note_clock(metadata.signed, self.now)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)

    def trusted(self, role: str) -> bool:
        """Return whether a role's metadata is signed as root or targets now say."""
        metadata, above = self.of(role), self.root.signed if role in TOP else self.targets.signed
        try:
            above.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError:
            return False
        return True

    def _sign_what_the_keys_require(self) -> None:
        """Find the roles that have to be signed anew because root or targets name other keys now."""
        for name, role in self._roles_now().items():
            if name in self.dirty or self._delegated.get(name) == _keys(role):
                continue
            if self._signed_before(name):
                self.adopted.add(name)
            elif name not in self._delegated:
                self.roles[name] = unsigned(Targets())
            elif self.trusted(name):
                continue
            self.dirty.add(name)
        if "root" in self.dirty or self.interrupted:
            left = {"targets", "snapshot"} - self.adopted
            self.dirty |= {role for role in left if not self.trusted(role)}

    def _signed_before(self, name: str) -> bool:
        """Take over metadata of a family that was signed when the change of its keys was prepared."""
        waiting = pending_path(self.directory, name)
        if not waiting.exists():
            return False
        with believed(waiting):
            metadata: Metadata[Targets] = Metadata.from_bytes(waiting.read_bytes())
        before = self.of(name) if name in self._delegated else None
        self.roles[name] = metadata
        if metadata.signed.version == 1 + (before.signed.version if before else 0) and self.trusted(name):
            return True
        del self.roles[name]
        if before is not None:
            self.roles[name] = before
        return False

    def commit(self, *, whole: bool = False) -> list[str]:
        """Sign and write everything, each file before the one that refers to it.

        Args:
            whole: look for superseded files of every family, not only of those that changed.

        Returns:
            The roles signed anew, as devices read them.

        Raises:
            MissingKeysError: if a role lacks keys; nothing is written then.
        """
        self._sign_what_the_keys_require()
        delegated = sorted(role for role in self.dirty if role not in TOP)
        first = [*delegated, *(role for role in ("targets", "root") if role in self.dirty)]
        for role in first:
            if role not in self.adopted:
                self.sign(role)
        data = {role: self.of(role).to_bytes(_SERIALIZER) for role in first}
        meta = self.snapshot.signed.meta
        for role in first:
            if role != "root":
                # No hashes: they would triple what every device fetches after anybody's publish.
                meta[f"{role}.json"] = MetaFile(self.of(role).signed.version)
        if "snapshot" in self.dirty or set(first) - {"root"}:
            self.sign("snapshot")
            data["snapshot"] = self.snapshot.to_bytes(_SERIALIZER)
            self.timestamp.signed.snapshot_meta = MetaFile.from_data(
                self.snapshot.signed.version, data["snapshot"], ["sha256"]
            )
        self.sign("timestamp")
        data["timestamp"] = self.timestamp.to_bytes(_SERIALIZER)
        self._write(data)
        self._settle(whole=whole)
        order = ["root", "targets", *delegated, "snapshot", "timestamp"]
        return [role for role in order if role in data]

    def _write(self, data: dict[str, bytes]) -> None:
        for place in (self.directory, self.metadata):
            drop_temporaries(place)
        for name, content in self.files.items():
            path = self.public / "targets" / name
            public_directory(path.parent)
            drop_temporaries(path.parent)
            write_public(path, content)
        for role in sorted(set(data) - {"root", "timestamp"}):
            write_public(self.metadata / f"{self.of(role).signed.version}.{role}.json", data[role])
        # A root with new keys and the timestamp that they sign: devices that come in between refuse both.
        last = {self.metadata / f"{self.root.signed.version}.root.json": data["root"]} if "root" in data else {}
        last[self.metadata / "timestamp.json"] = data["timestamp"]
        if "root" in data or self.interrupted:
            last[self.directory / "root.json"] = self.root.to_bytes(_SERIALIZER)
        write_in_order(last, mode=0o644)

    def _settle(self, *, whole: bool) -> None:
        """Do what a repeated command may do again: remove what is superseded, rename keys, forget what waited."""
        every = families(self.targets.signed)
        touched = every if whole else sorted({family_of(role) for role in self.dirty if role not in TOP})
        self._sweep(touched)
        changed = {name for name, role in self._roles_now().items() if self._delegated.get(name) != _keys(role)}
        if "root" in self.dirty or self.interrupted:
            changed |= set(TOP)
        names = {*TOP, *map(rule_role, touched)}
        changed |= {role for role in names if (self.keyring.directory / f"{role}.new.pem").exists()}
        for role in sorted(changed):
            self.keyring.settle(role, role_of(self.root.signed, self.targets.signed, role).keyids)
            if role not in TOP:
                drop_pending(self.directory, role)
        for parent in ("root", "targets"):
            todo = read_pending(self.directory, parent)
            if todo is not None and same_content(todo.metadata, self.of(parent)):
                drop_pending(self.directory, parent)

    def _sweep(self, touched: Iterable[str]) -> None:
        meta = {name.removesuffix(".json"): file.version for name, file in self.snapshot.signed.meta.items()}
        named = {f"metadata/{version}.{role}.json" for role, version in meta.items()}
        named.add(f"metadata/{self.snapshot.signed.version}.snapshot.json")
        found = [f"metadata/{path.name}" for path in self.metadata.iterdir()]
        rules = list((self.public / "targets" / "rollout").glob("*.json"))
        for family in touched:
            try:
                both = [self.of(role) for role in (bundles_role(family), rule_role(family))]
            except RepositoryError:
                continue  # its metadata is damaged, so nobody knows what it names
            for metadata in both:
                targets = metadata.signed.targets.values()
                named |= {f"targets/{target.get_prefixed_paths()[0]}" for target in targets}
            here = [*(self.public / "targets" / family).glob("*"), *rules]
            rule = f"{family}.json"
            wanted = (path for path in here if path.parent.name == family or path.name.partition(".")[2] == rule)
            found += [path.relative_to(self.public).as_posix() for path in wanted]
        sweep(self.directory, named, found, self.now, self.expires.timestamp)
