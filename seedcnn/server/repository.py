"""The signed repository: TUF metadata and bundles as static files, signed with python-tuf's Metadata API.

Layout of the directory::

    DIR/root.json                                 the trust anchor for devices (the newest N.root.json)
    DIR/keys/*.pem                                private keys, never served
    DIR/public/metadata/N.root.json, N.targets.json, N.snapshot.json, timestamp.json
    DIR/public/targets/FAMILY/SHA256.RELEASE.bundle
    DIR/public/targets/FAMILY/SHA256.RELEASE.from-PARENT.delta
    DIR/public/targets/rollout/SHA256.FAMILY.json

Every file except ``timestamp.json`` has a unique name and never changes. ``timestamp.json`` is replaced last, by a
rename, so a device sees either the old state or the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from seedcnn.bundle import Rollout, bundle_name, release_of, rollout_name
from seedcnn.bundle.rollout import MAX_DELTAS
from seedcnn.errors import RepositoryError
from seedcnn.files import drop_temporaries, fsync_directory
from seedcnn.server.clock import check_clock, note_clock, utc
from seedcnn.server.deltas import make_deltas
from seedcnn.server.intake import accept, check_interface
from seedcnn.server.keys import ROOT_THRESHOLD, generate_keys, load_signers, refuse_keys
from seedcnn.server.lock import exclusive
from seedcnn.server.public import public_directory, write_public

__all__ = ["Expires", "Published", "Resigned", "init_repository", "publish", "resign"]

_MAKING = ".seedcnn-init"
_SERIALIZER = JSONSerializer(compact=True)
_S = TypeVar("_S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True)
class Expires:
    """How long each role's metadata is valid, counted from signing."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=180)
    snapshot: timedelta = timedelta(days=7)
    timestamp: timedelta = timedelta(days=3)

    def of(self, role: str) -> timedelta:
        """Return the validity of ``role``."""
        return {"root": self.root, "targets": self.targets, "snapshot": self.snapshot, "timestamp": self.timestamp}[
            role
        ]


@dataclass(frozen=True)
class Published:
    """A published bundle: target name, size in bytes, SHA-256 in hexadecimal.

    ``deltas`` has the sizes in bytes of the deltas made, by the release of their parent.
    """

    family: str
    release: int
    target: str
    size: int
    sha256: str
    deltas: Mapping[int, int]


@dataclass(frozen=True)
class Resigned:
    """The result of :func:`resign`: the roles signed again, and a sentence for each due role whose keys are missing."""

    roles: tuple[str, ...]
    due: tuple[str, ...] = ()


@dataclass
class _Repository:
    """The verified state that ``timestamp.json`` points to, and the means to write the next one."""

    directory: Path
    now: datetime
    expires: Expires
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    pending: dict[str, bytes] = field(default_factory=dict)

    @property
    def metadata(self) -> Path:
        return self.directory / "public" / "metadata"

    def signers(self, role: str) -> list[CryptoSigner]:
        """Load the signers of ``role`` in ``keys/``, all of which root.json must name."""
        known = self.root.signed.roles[role].keyids
        signers = load_signers(self.directory / "keys", role)
        if foreign := [signer.public_key.keyid for signer in signers if signer.public_key.keyid not in known]:
            raise RepositoryError(f"keys/ holds a {role} key (id {foreign[0][:8]}) that root.json does not name")
        return signers

    def has_keys(self, role: str) -> bool:
        return len(self.signers(role)) >= self.root.signed.roles[role].threshold

    def sign(self, metadata: Metadata[_S], *, bump: bool = True) -> bytes:
        """Give ``metadata`` the next version and a new expiry, sign it, and return its bytes."""
        signed: Signed = metadata.signed
        role, needed = signed.type, self.root.signed.roles[signed.type].threshold
        signers = self.signers(role)
        if len(signers) < needed:
            raise RepositoryError(
                f"{role} needs {needed} of its keys in {self.directory / 'keys'}; found {len(signers)}"
            )
        signed.version += int(bump)
        signed.expires = self.now + self.expires.of(role)
        if isinstance(signed, Timestamp):
            note_clock(signed, self.now)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes(_SERIALIZER)

    def add_target(self, name: str, data: bytes) -> TargetFile:
        """Register a target. :meth:`commit` writes its file before any metadata names it."""
        target = TargetFile.from_data(name, data)
        self.targets.signed.targets[name] = target
        self.pending[target.get_prefixed_paths()[0]] = data
        return target

    def published(self, family: str, release: int) -> tuple[Path, str]:
        """Return a published bundle's file and its signed SHA-256."""
        target = self.targets.signed.targets[bundle_name(family, release)]
        return self.directory / "public" / "targets" / target.get_prefixed_paths()[0], target.hashes["sha256"]

    def commit(self, *, targets: bool, bump: bool = True) -> None:
        """Sign and write everything, each file before the one that refers to it; ``timestamp.json`` comes last."""
        for place in (self.directory, self.metadata):
            drop_temporaries(place)
        for name, data in self.pending.items():
            path = self.directory / "public" / "targets" / name
            public_directory(path.parent)
            drop_temporaries(path.parent)
            write_public(path, data)
        versioned: list[tuple[Metadata[Targets] | Metadata[Snapshot], bytes]] = []
        if targets:
            data = self.sign(self.targets, bump=bump)
            versioned.append((self.targets, data))
            self.snapshot.signed.meta["targets.json"] = MetaFile.from_data(
                self.targets.signed.version, data, ["sha256"]
            )
        data = self.sign(self.snapshot, bump=bump)
        versioned.append((self.snapshot, data))
        self.timestamp.signed.snapshot_meta = MetaFile.from_data(self.snapshot.signed.version, data, ["sha256"])
        timestamp = self.sign(self.timestamp, bump=bump)
        for metadata, data in versioned:
            write_public(self.metadata / f"{metadata.signed.version}.{metadata.signed.type}.json", data)
        write_public(self.metadata / "timestamp.json", timestamp)

    def write_root(self, data: bytes) -> None:
        write_public(self.metadata / f"{self.root.signed.version}.root.json", data)
        write_public(self.directory / "root.json", data)


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RepositoryError(f"{directory} cannot be written: {error.strerror or error}{where}") from None


def _load(directory: Path, now: datetime, expires: Expires, *, clock_ok: bool) -> _Repository:
    """Read the published state and check every signature and the clock, so that nothing foreign gets signed again."""
    metadata = directory / "public" / "metadata"
    if not (directory / "root.json").is_file() or not metadata.is_dir():
        raise RepositoryError(f"{directory} is not a repository; make one with: seedcnn repo init {directory}")
    try:
        root: Metadata[Root] = Metadata.from_file(str(directory / "root.json"))
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)

        def read(name: str, role: str) -> bytes:
            data = (metadata / name).read_bytes()
            parsed: Metadata[Timestamp] = Metadata.from_bytes(data)
            if parsed.signed.type != role:
                raise TufRepositoryError(f"{name} holds {parsed.signed.type}, not {role}")
            root.signed.verify_delegate(role, parsed.signed_bytes, parsed.signatures)
            return data

        timestamp: Metadata[Timestamp] = Metadata.from_bytes(read("timestamp.json", "timestamp"))
        meta = timestamp.signed.snapshot_meta
        data = read(f"{meta.version}.snapshot.json", "snapshot")
        meta.verify_length_and_hashes(data)
        snapshot: Metadata[Snapshot] = Metadata.from_bytes(data)
        meta = snapshot.signed.meta["targets.json"]
        data = read(f"{meta.version}.targets.json", "targets")
        meta.verify_length_and_hashes(data)
        targets: Metadata[Targets] = Metadata.from_bytes(data)
    except (OSError, KeyError, TufRepositoryError) as error:
        raise RepositoryError(
            f"{metadata} holds metadata that was not signed by this repository's keys: {error}"
        ) from None
    check_clock(timestamp.signed, now, clock_ok=clock_ok)
    return _Repository(directory, now, expires, root, targets, snapshot, timestamp)


def init_repository(directory: str | Path, *, now: datetime | None = None, expires: Expires | None = None) -> Path:
    """Make a repository without bundles: keys, and version 1 of every role's metadata.

    It is made in ``DIR/.seedcnn-init`` and moved into place when it is whole, so that nothing is overwritten.

    Args:
        now: time of signing, with a time zone; by default the current time.
        expires: validity of each role; devices refuse metadata that has expired.

    Returns:
        Path of ``DIR/root.json``, the trust anchor for devices.

    Raises:
        RepositoryError: if a repository or keys exist already, or the directory cannot be written. A run that was
            interrupted can be repeated.
    """
    directory = Path(directory)
    with _writing(directory):
        public_directory(directory)
        with exclusive(directory):
            made = directory / _MAKING
            if not (made / "root.json").exists() and not _finished(directory):
                _make(made, utc(now), expires or Expires())
            _move(made, directory)
    return directory / "root.json"


def _finished(directory: Path) -> bool:
    """Return whether an interrupted init has nothing left to do but to remove ``_MAKING``.

    Raises:
        RepositoryError: if a repository or keys exist that no interrupted init made.
    """
    if (directory / "root.json").exists() and (directory / _MAKING).exists():
        return True
    if (directory / "root.json").exists() or (directory / "public").exists():
        raise RepositoryError(f"{directory} already holds a repository")
    refuse_keys(directory / "keys")
    return False


def _make(directory: Path, now: datetime, expires: Expires) -> None:
    """Make a whole repository; ``root.json`` is written last. What an interrupted init left here is removed."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    signers = generate_keys(directory / "keys")
    root = Root(consistent_snapshot=True)
    for role, of_role in signers.items():
        for signer in of_role:
            root.add_key(signer.public_key, role)
    root.roles["root"].threshold = ROOT_THRESHOLD
    repository = _Repository(
        directory, now, expires, Metadata(root), Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp())
    )
    for place in (repository.metadata, directory / "public" / "targets"):
        public_directory(place)
    data = repository.sign(repository.root, bump=False)
    repository.commit(targets=True, bump=False)
    repository.write_root(data)


def _move(made: Path, directory: Path) -> None:
    """Move a whole repository up to ``directory``, ``root.json`` last; repeat it after an interruption.

    Raises:
        RepositoryError: if a key or the public half exists there already.
    """
    keys = directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    pairs = [(path, keys / path.name) for path in sorted((made / "keys").glob("*.pem"))]
    pairs += [(made / name, directory / name) for name in ("public", "root.json") if (made / name).exists()]
    for _, target in pairs:
        if target.exists():
            raise RepositoryError(f"{target} exists, so the interrupted init in {made} cannot be completed")
    for source, target in pairs:
        source.rename(target)
        for changed in (source.parent, target.parent):
            fsync_directory(changed)
    shutil.rmtree(made)
    fsync_directory(directory)


def publish(
    directory: str | Path,
    bundle: str | Path | bytes,
    *,
    deltas: int = 3,
    changes_interface: bool = False,
    clock_ok: bool = False,
    now: datetime | None = None,
    expires: Expires | None = None,
) -> Published:
    """Publish a bundle and point its family's rollout rule at it.

    Args:
        bundle: path of a bundle, or its bytes.
        deltas: number of latest releases to make deltas from. A release that differs in more than its weights gets
            none, nor does one whose delta is not smaller than the bundle; devices then fetch the whole bundle.
        changes_interface: accept other labels, or an input of another shape, than the family's last release.
        clock_ok: sign even if the clock says a time before the last signing, or more than seven days after it.
        now, expires: see :func:`init_repository`.

    Raises:
        RepositoryError: if the bundle does not open or expand, its family's name is not allowed, its release is not
            above the published one, its labels or its input are others than the published one's, the targets, snapshot
            or timestamp key is missing, the clock is implausible, or the directory cannot be written.
        ValueError: if ``deltas`` is negative, or above the 64 that a rollout rule may list.
    """
    if not 0 <= deltas <= MAX_DELTAS:
        raise ValueError(f"`deltas` (={deltas}) must be in [0, {MAX_DELTAS}]")
    directory = Path(directory)
    accepted = accept(bundle)
    family, release = accepted.family, accepted.release
    moment = utc(now)
    if not directory.is_dir():
        raise RepositoryError(f"{directory} is not a repository; make one with: seedcnn repo init {directory}")
    with _writing(directory), exclusive(directory):
        repository = _load(directory, moment, expires or Expires(), clock_ok=clock_ok)
        published = max(_releases(repository.targets.signed, family), default=0)
        if release <= published:
            raise RepositoryError(
                f"release {release} of {family!r} cannot be published: release {published} is out; releases only go up"
            )
        if published and not changes_interface:
            check_interface(accepted, repository.published(family, published)[0], published)
        parents = _releases(repository.targets.signed, family)[-deltas:] if deltas else []
        made = make_deltas(accepted, {parent: repository.published(family, parent) for parent in parents})
        rule = Rollout(family, release, accepted.content, {one.parent_content: one.target for one in made})
        repository.add_target(rule.artefact, accepted.data)
        for one in made:
            repository.add_target(one.target, one.data)
        repository.add_target(rollout_name(family), rule.dump())
        repository.commit(targets=True)
    sizes = {one.parent: len(one.data) for one in made}
    return Published(family, release, rule.artefact, len(accepted.data), accepted.sha256, sizes)


def _releases(targets: Targets, family: str) -> list[int]:
    """Return the published releases of a family in ascending order."""
    found = (release_of(family, name) for name in targets.targets)
    return sorted(release for release in found if release is not None)


def resign(
    directory: str | Path, *, clock_ok: bool = False, now: datetime | None = None, expires: Expires | None = None
) -> Resigned:
    """Sign snapshot and timestamp again, and targets and root once half of their validity has passed.

    What is valid for longer than its role allows, because a clock was ahead, is renewed, too. Run it at least daily,
    since the timestamp is valid for three days. It changes nothing that is published.

    Raises:
        RepositoryError: if there is no repository, the snapshot or timestamp key is missing, the clock is implausible
            (see :func:`publish`), or the directory cannot be written.
    """
    directory = Path(directory)
    moment = utc(now)
    if not directory.is_dir():
        raise RepositoryError(f"{directory} is not a repository; make one with: seedcnn repo init {directory}")
    with _writing(directory), exclusive(directory):
        repository = _load(directory, moment, expires or Expires(), clock_ok=clock_ok)
        roles, due = ["snapshot", "timestamp"], []
        for metadata in (repository.targets, repository.root):
            role, left = metadata.signed.type, metadata.signed.expires - moment
            allowed = repository.expires.of(role)
            if allowed / 2 < left <= allowed:
                continue
            if repository.has_keys(role):
                roles.insert(0, role)
            else:
                late = f", later than it may ({allowed.days} days)" if left > allowed else ""
                until = f"{metadata.signed.expires:%Y-%m-%d}{late}"
                due.append(f"{role} expires {until} and its keys are not in {directory / 'keys'}")
        if "root" in roles:
            repository.write_root(repository.sign(repository.root))
        repository.commit(targets="targets" in roles)
    return Resigned(tuple(roles), tuple(due))
