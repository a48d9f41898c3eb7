"""An attacker with keys of a repository, who signs what the publishing side would refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from seedcnn.bundle import read_bundle
from seedcnn.server.keys import load_signer
from tests.device.bundles import make_bundle

_SERIALS = count(1000, 1000)


def content_of(bundle: bytes) -> str:
    """The content digest of a bundle."""
    return read_bundle(bundle).manifest.content_sha256()


def rule(release: int, changes: Mapping[str, object] | None = None) -> bytes:
    """A rule with fields changed at will, by default for all devices, and newer than all that are published."""
    value = {
        "format": "seedcnn-rollout/2",
        "family": "demo",
        "serial": next(_SERIALS),
        "artefact": f"demo/{release}.bundle",
        "release": release,
        "content": content_of(make_bundle(release)),
        "deltas": {},
        "base": {},
        "salt": "0" * 32,
        "per_mille": 1000,
        "cohorts": [],
        "not_before": 0,
        "deadline": 0,
        "probation": {"answers": 0, "seconds": 0, "max_bad": 0, "latency_ms": 0, "max_late_per_mille": 1000},
        "signed_at": int(time.time()),
    }
    return json.dumps({**value, **(changes or {})}).encode()


def base(release: int) -> dict[str, object]:
    """The base of a rule."""
    content = content_of(make_bundle(release))
    return {"artefact": f"demo/{release}.bundle", "release": release, "content": content, "deltas": {}}


class Thief:
    """Signs with the keys in a directory, on top of what is published, and publishes it.

    Args:
        keys: directory of the stolen keys, by default those of the repository.
    """

    def __init__(self, directory: Path, keys: Path | None = None) -> None:
        self.public, self.keys = directory / "public", keys or directory / "keys"
        self.metadata = self.public / "metadata"
        self.timestamp: Metadata[Timestamp] = Metadata.from_file(str(self.metadata / "timestamp.json"))
        version = self.timestamp.signed.snapshot_meta.version
        self.snapshot: Metadata[Snapshot] = Metadata.from_file(str(self.metadata / f"{version}.snapshot.json"))

    def sign(self, role: str, metadata: Metadata[Any], *, version: int | None = None, key: str = "") -> bytes:
        """The next version of a role, valid for a day, by the stolen key."""
        metadata.signed.version = version or metadata.signed.version + 1
        metadata.signed.expires = datetime.now(UTC) + timedelta(days=1)
        metadata.sign(load_signer(self.keys / f"{key or role}.pem"))
        return metadata.to_bytes()

    def role(self, role: str, change: Callable[[Targets], None], *, key: str = "") -> None:
        """Change the signed list of a role."""
        version = self.snapshot.signed.meta[f"{role}.json"].version
        metadata: Metadata[Targets] = Metadata.from_file(str(self.metadata / f"{version}.{role}.json"))
        change(metadata.signed)
        data = self.sign(role, metadata, key=key)
        (self.metadata / f"{metadata.signed.version}.{role}.json").write_bytes(data)
        self.snapshot.signed.meta[f"{role}.json"] = MetaFile(metadata.signed.version)

    def add(self, role: str, name: str, data: bytes, *, key: str = "") -> None:
        """Sign a file as a role."""
        target = TargetFile.from_data(name, data)
        self.role(role, lambda targets: targets.targets.update({name: target}), key=key)
        path = self.public / "targets" / target.get_prefixed_paths()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def publish(self, *, snapshot: int | None = None, timestamp: int | None = None) -> None:
        """Sign snapshot and timestamp, by default as their next versions."""
        data = self.sign("snapshot", self.snapshot, version=snapshot)
        (self.metadata / f"{self.snapshot.signed.version}.snapshot.json").write_bytes(data)
        self.timestamp.signed.snapshot_meta = MetaFile(self.snapshot.signed.version)
        (self.metadata / "timestamp.json").write_bytes(self.sign("timestamp", self.timestamp, version=timestamp))


def sign_targets(directory: Path, files: Mapping[str, bytes]) -> None:
    """Sign ``files`` (target name to content) with all keys that are online, and publish them."""
    thief = Thief(directory)
    for name, data in files.items():
        thief.add("demo.rule" if name.startswith("rollout/") else "demo.bundles", name, data)
    thief.publish()
