"""An attacker with a repository's online keys, who signs what the publishing side would refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from seedcnn.server.keys import load_signer


def rule(release: int, changes: Mapping[str, object] | None = None) -> bytes:
    """A rollout rule with fields changed at will."""
    value = {
        "format": "seedcnn-rollout/1",
        "family": "demo",
        "artefact": f"demo/{release}.bundle",
        "release": release,
        "content": "0" * 64,
        "deltas": {},
    }
    return json.dumps({**value, **(changes or {})}).encode()


def sign_targets(directory: Path, files: Mapping[str, bytes]) -> None:
    """Sign ``files`` (target name to content) as targets, as the next version of all metadata, and publish them."""
    metadata = directory / "public" / "metadata"

    def signer(role: str) -> CryptoSigner:
        return load_signer(directory / "keys" / f"{role}.pem")

    timestamp: Metadata[Timestamp] = Metadata.from_file(str(metadata / "timestamp.json"))
    version = timestamp.signed.snapshot_meta.version
    snapshot: Metadata[Snapshot] = Metadata.from_file(str(metadata / f"{version}.snapshot.json"))
    version = snapshot.signed.meta["targets.json"].version
    targets: Metadata[Targets] = Metadata.from_file(str(metadata / f"{version}.targets.json"))
    for name, data in files.items():
        target = TargetFile.from_data(name, data)
        targets.signed.targets[name] = target
        path = directory / "public" / "targets" / target.get_prefixed_paths()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for role in (targets, snapshot, timestamp):
        role.signed.version += 1
        role.signed.expires = datetime.now(UTC) + timedelta(days=1)
    targets.sign(signer("targets"))
    snapshot.signed.meta["targets.json"] = MetaFile(targets.signed.version)
    snapshot.sign(signer("snapshot"))
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    timestamp.sign(signer("timestamp"))
    targets.to_file(str(metadata / f"{targets.signed.version}.targets.json"))
    snapshot.to_file(str(metadata / f"{snapshot.signed.version}.snapshot.json"))
    timestamp.to_file(str(metadata / "timestamp.json"))
