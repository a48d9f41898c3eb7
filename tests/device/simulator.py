"""A TUF repository in memory: real Ed25519 keys, real metadata, signed when it is asked for; no socket and no file.

It signs whatever it is made to, also what no repository of ours would. A device asks it through its own client, by
``update(..., pool=simulator)``, so that everything but the connection is the real thing.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from urllib3.response import HTTPResponse

from seedcnn.bundle import Artefact, Rollout, read_bundle
from seedcnn.device.agent import init, update
from seedcnn.device.attempt import UpdateResult
from seedcnn.device.fetcher import DownloadLimits
from seedcnn.device.records import Floor
from seedcnn.device.slots import Slots
from seedcnn.device.trusted import BUILT
from seedcnn.errors import UpdateError
from tests.device.bundles import make_bundle
from tests.device.fleet import contents

NOW = BUILT + 40 * 86400
URL = "http://simulator.invalid"
BUNDLES, RULE = "demo.bundles", "demo.rule"
RULE_FILE = "rollout/demo.json"
LIVES = {"root": 365, "targets": 180, BUNDLES: 90, RULE: 30, "snapshot": 7, "timestamp": 3}  # days
ROLES = tuple(LIVES)
SALT = "00112233445566778899aabbccddeeff"
LIMITS = DownloadLimits(tries=1, connects=1)


def day(number: float) -> datetime:
    """The time ``number`` days after NOW."""
    return datetime.fromtimestamp(NOW, UTC) + timedelta(days=number)


def artefact_of(bundle: bytes, deltas: Mapping[str, str] | None = None) -> Artefact:
    manifest = read_bundle(bundle).manifest
    return Artefact(manifest.family, manifest.release, manifest.content_sha256(), dict(deltas or {}))


class Simulator:
    """A repository with the family "demo", one key for each role, and nothing published.

    Attributes:
        signed: what each role says now; ``signed["root"]`` and the like may be changed at will before it is asked for.
        signers: the keys that sign a role, whatever root or targets says about them.
        files: targets by name.
        served: answers that replace those of the repository, by the path below the URL; a number is an HTTP status.
        fetched: how often each path was asked for.
        asked: header fields of the last request.
    """

    def __init__(self) -> None:
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.signed: dict[str, Any] = {"root": Root(consistent_snapshot=True)}
        self.files: dict[str, bytes] = {}
        self.served: dict[str, bytes | int] = {}
        self.fetched: Counter[str] = Counter()
        self.asked: dict[str, str] = {}
        self.serial = 0
        delegations = Delegations({}, {})
        for role, path in ((BUNDLES, "demo/*"), (RULE, RULE_FILE)):
            delegations.roles[role] = DelegatedRole(role, [], 1, True, paths=[path])
            self.signed[role] = Targets()
        self.signed |= {"targets": Targets(delegations=delegations), "snapshot": Snapshot(), "timestamp": Timestamp()}
        for role in ROLES:
            self.signed[role].expires = day(LIVES[role])
            self._give_key(role)
        self.roots = [self.metadata("root")]
        self.publish()

    def copy(self) -> Simulator:
        """The same keys, metadata and files in another repository."""
        twin = copy.copy(self)
        twin.signed, twin.signers = copy.deepcopy(self.signed), {role: [*keys] for role, keys in self.signers.items()}
        twin.roots, twin.files, twin.served, twin.fetched = [*self.roots], {**self.files}, {}, Counter()
        return twin

    def parent(self, role: str) -> Root | Targets:
        """Who names the keys of a role."""
        return self.signed["targets" if role in (BUNDLES, RULE) else "root"]

    def role(self, role: str) -> Role:
        """The keys and the threshold of a role."""
        parent = self.parent(role)
        return parent.roles[role] if isinstance(parent, Root) else parent.delegations.roles[role]

    def _give_key(self, role: str) -> CryptoSigner:
        signer = CryptoSigner.generate_ed25519()
        self.parent(role).add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role: str, *, count: int = 1, threshold: int = 1) -> list[CryptoSigner]:
        """Replace the keys of a role by ``count`` new ones, publish it, and return the old ones."""
        old, self.signers[role] = self.signers[role], []
        for keyid in list(self.role(role).keyids):
            self.parent(role).revoke_key(keyid, role)
        for _ in range(count):
            self._give_key(role)
        self.role(role).threshold = threshold
        if isinstance(self.parent(role), Root):
            self.next_root(*(old if role == "root" else ()))
        else:
            self.bump("targets", role)
        self.bump(*({role} - {"root"}))
        return old

    def next_root(self, *others: CryptoSigner) -> None:
        """Sign the next root, by its keys and the others."""
        self.signed["root"].version += 1
        self.roots.append(self.metadata("root", [*self.signers["root"], *others]))

    def bump(self, *roles: str) -> None:
        """Make roles one version newer, and publish them."""
        for role in roles:
            self.signed[role].version += 1
        self.publish()

    def publish(self, **fields: Any) -> None:
        """Sign the next snapshot of what roles say now, and the next timestamp.

        Args:
            fields: length and hashes of the snapshot for the timestamp, as of MetaFile.
        """
        snapshot, timestamp = self.signed["snapshot"], self.signed["timestamp"]
        snapshot.version, timestamp.version = snapshot.version + 1, timestamp.version + 1
        snapshot.meta = {f"{role}.json": MetaFile(self.signed[role].version) for role in ("targets", BUNDLES, RULE)}
        timestamp.snapshot_meta = MetaFile(snapshot.version, **fields)

    def metadata(self, role: str, signers: list[CryptoSigner] | None = None) -> bytes:
        """What a role says now, signed by its keys or by others."""
        metadata = Metadata(self.signed[role])
        for signer in self.signers[role] if signers is None else signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def add(self, role: str, name: str, data: bytes) -> TargetFile:
        """Sign a file as a role."""
        self.files[name] = data
        self.signed[role].targets[name] = TargetFile.from_data(name, data)
        self.bump(role)
        return self.signed[role].targets[name]

    def offer(self, release: int, *, deltas: Mapping[str, str] | None = None, **options: Any) -> bytes:
        """Sign a release and a rule that offers it to all; return its bundle.

        Args:
            options: of ``make_bundle``.
        """
        bundle = make_bundle(release, **options)
        self.add(BUNDLES, f"demo/{release}.bundle", bundle)
        self.rule(artefact_of(bundle, deltas))
        return bundle

    def rule(self, offer: Artefact, changes: Mapping[str, object] | None = None, **fields: Any) -> None:
        """Sign the next rule.

        Args:
            changes: fields of its JSON that a repository would not write.
            fields: of :class:`seedcnn.bundle.Rollout`.
        """
        self.serial += 1
        values = {"serial": self.serial, "base": None, "per_mille": 1000, "signed_at": int(NOW) - 3600, **fields}
        rule = Rollout(offer, values.pop("serial"), values.pop("base"), SALT, **values)
        text = {**json.loads(rule.dump()), **(changes or {})}
        self.add(RULE, RULE_FILE, json.dumps(text, sort_keys=True, separators=(",", ":")).encode())

    def only_sha512(self, role: str, name: str) -> None:
        """Sign a target without its SHA-256."""
        self.signed[role].targets[name] = TargetFile.from_data(name, self.files[name], ["sha512"])
        self.bump(role)

    def request(
        self, method: str, url: str, /, *, headers: Mapping[str, str], redirect: bool, preload_content: bool
    ) -> HTTPResponse:
        """Answer a request, as :class:`seedcnn.device.fetcher.Pool`."""
        assert method == "GET"
        assert not redirect
        path = urlsplit(url).path.removeprefix("/")
        self.fetched[path] += 1
        self.asked = dict(headers)
        answer = self.served.get(path, self._answer(path))
        status, body = (answer, b"") if isinstance(answer, int) else (200, answer)
        fields = {"Content-Length": str(len(body))}
        return HTTPResponse(io.BytesIO(body), fields, status, preload_content=preload_content, request_method=method)

    def clear(self) -> None:
        """There is no connection to close."""

    def _answer(self, path: str) -> bytes | int:
        place, _, name = path.partition("/")
        if place == "targets":
            parent, _, file = name.rpartition("/")
            digest, _, base = file.partition(".")
            for role in ("targets", BUNDLES, RULE):
                target = self.signed[role].targets.get(f"{parent}/{base}")
                if target is not None and digest in target.hashes.values():
                    return self.files[target.path]
            return 404
        if name == "timestamp.json":
            return self.metadata("timestamp")
        version, _, role = name.removesuffix(".json").partition(".")
        if role == "root":
            return self.roots[int(version) - 1] if int(version) <= len(self.roots) else 404
        return self.metadata(role) if int(version) == self.signed[role].version else 404

    def path(self, role: str) -> str:
        """The path of a role's metadata as it is now."""
        return "metadata/timestamp.json" if role == "timestamp" else f"metadata/{self.signed[role].version}.{role}.json"

    def path_of(self, name: str) -> str:
        """The path of a target as it is signed now."""
        role = RULE if name == RULE_FILE else BUNDLES
        parent, _, base = name.rpartition("/")
        return f"targets/{parent}/{self.signed[role].targets[name].hashes['sha256']}.{base}"


@dataclass(frozen=True)
class Home:
    """A device of a simulator's."""

    path: Path
    repository: Simulator

    @classmethod
    def make(cls, path: Path, repository: Simulator) -> Home:
        """A device that trusts the repository's newest root, and has no model."""
        root = path.with_suffix(".root.json")
        root.write_bytes(repository.roots[-1])
        init(path, root, URL, "demo", device_id="camera-1")
        return cls(path, repository)

    def copy(self, path: Path) -> Home:
        """The same device, of a copy of its repository."""
        shutil.copytree(self.path, path, symlinks=True)
        return Home(path, self.repository.copy())

    @property
    def slots(self) -> Slots:
        return Slots(self.path)

    @property
    def floor(self) -> Floor:
        return self.slots.floor()

    @property
    def release(self) -> int:
        """The active release, 0 for none."""
        active = self.slots.active()
        return active.record.release if active else 0

    def update(self, *, at: float = NOW, clock: Callable[[], float] | None = None, **options: Any) -> UpdateResult:
        """Update at a time, or by a clock, with other options of ``update``."""
        return update(self.path, limits=LIMITS, pool=self.repository, clock=clock or (lambda: at), **options)

    def refused(self, words: str, *, at: float = NOW, serial: int | None = None) -> None:
        """The update ends in one sentence with these words, which is journalled; the model and the floor stay.

        Args:
            serial: of the rule that was followed all the same, because only its release was refused.
        """
        release, slots, before = self.release, contents(self.path), self.floor
        with pytest.raises(UpdateError, match=words) as caught:
            self.update(at=at)
        assert "\n" not in str(caught.value)
        last = self.slots.journal.last()
        assert last is not None
        assert (last.state, last.reason) == ("REFUSED", str(caught.value))
        assert (self.release, contents(self.path)) == (release, slots)
        if serial is None:
            assert self.floor == before
        else:
            assert (self.floor.serial, self.floor.min_release) == (serial, before.min_release)

    def takes(self, release: int, *, at: float = NOW) -> UpdateResult:
        """The update brings a release, and the floor is that of the rule."""
        result = self.update(at=at)
        assert (result.release, self.release) == (release, release)
        assert self.floor.serial == self.repository.serial
        assert self.slots.journal.last().state == "COMMITTED" or not result.updated
        return result
