"""Measure a repository of many families: what a device fetches and spends, what a publish spends, what is kept.

``python benchmarks/repository.py`` builds 500 families of 50 releases each with really signed metadata; the bundles of
most families are synthetic entries, those of one are real and really published. It prints bytes and processor seconds.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.metadata import TargetFile

from seedcnn.server.clock import utc
from seedcnn.server.families import add_family
from seedcnn.server.keys import Keyring, generate_key
from seedcnn.server.loading import opened
from seedcnn.server.repository import init_repository, prune, publish
from seedcnn.server.roles import add_family_roles, bundles_role, rule_role
from seedcnn.server.state import Repository, unsigned

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.device.bundles import make_bundle

DEVICE = """
import resource, sys
from contextlib import closing
from pathlib import Path
from seedcnn.device.fetcher import DownloadLimits
from seedcnn.device.updater import Source

home, url, root, family = sys.argv[1:]
with closing(Source(Path(home), url, Path(root).read_bytes(), DownloadLimits())) as source:
    source.check(family)
used = resource.getrusage(resource.RUSAGE_SELF)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(used.ru_utime + used.ru_stime, int(peak) / 1000)
"""


def processor() -> float:
    """Return the processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def entries(family: str, release: int, deltas: int) -> dict[str, TargetFile]:
    """Return the signed entries of a release that has no file."""
    names = [f"{family}/{release}.bundle"]
    names += [f"{family}/{release}.from-{parent}.delta" for parent in range(max(1, release - deltas), release)]
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    return {name: TargetFile(7700, {"sha256": digest}, name) for name, digest in digests.items()}


def fill(repository: Repository, names: list[str], team: Path, keep: int, releases: int) -> None:
    """Add families with the newest ``keep`` of ``releases`` releases in one signing."""
    from tuf.api.metadata import Targets

    keyring = repository.keyring
    team_key = keyring.given[team]
    for name in names:
        rule = keyring.first(rule_role(name))
        add_family_roles(repository.targets.signed, name, [team_key.public_key], 1, rule.public_key)
        for role in (bundles_role(name), rule_role(name)):
            repository.roles[role] = unsigned(Targets())
            repository.roles[role].signed.version = releases - 1
            repository.dirty.add(role)
        for release in range(releases - keep + 1, releases + 1):
            repository.of(bundles_role(name)).signed.targets |= entries(name, release, 3)
        rule_name = f"rollout/{name}.json"
        digest = hashlib.sha256(name.encode()).hexdigest()
        repository.of(rule_role(name)).signed.targets[rule_name] = TargetFile(600, {"sha256": digest}, rule_name)
    repository.dirty.add("targets")
    repository.commit()


def sizes(metadata: Path, names: list[str]) -> tuple[int, int]:
    """Return the bytes of files, plain and gzipped one by one."""
    data = [(metadata / name).read_bytes() for name in names]
    return sum(map(len, data)), sum(len(gzip.compress(each)) for each in data)


def idle(directory: Path, place: Path, family: str, python: str) -> None:
    """Check twice as a device does, and print what the second, idle check spent."""
    from seedcnn.server.static import serve

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    (place / "home").mkdir()
    with serve(directory) as server:
        words = [python, "-c", DEVICE, str(place / "home"), server.url, str(directory / "root.json"), family]
        found = [
            subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout for _ in range(6)
        ]
    first, *rest = [tuple(map(float, text.split())) for text in found]
    print(f"first check: {first[0]:.2f} s of processor time, {first[1]:.0f} MB")
    times = sorted(each[0] for each in rest)
    print(
        f"idle check: {times[len(times) // 2]:.2f} s (of {len(times)}: {times[0]:.2f} to {times[-1]:.2f}), "
        f"{max(each[1] for each in rest):.0f} MB"
    )


def large(place: Path, families: int, releases: int, keep: int, length: int, python: str) -> None:
    """Print the figures of many families."""
    directory = place / "large"
    init_repository(directory)
    team = place / "team.pem"
    generate_key(team)
    names = [f"{'model' * 5}"[: length - 3] + f"{number:03d}" for number in range(families)]
    start = processor()
    with opened(directory, utc(None), None, Keyring([directory / "keys"], [team])) as repository:
        fill(repository, names, team, keep, releases)
    print(
        f"{families} families x {releases} releases, names of {length} characters, built in {processor() - start:.0f} s"
    )
    add_family(directory, "demo", [team])
    for release in (1, 2, 3):
        publish(directory, make_bundle(release, parent=1 if release > 1 else None), keys=[team])
    bundle, start = make_bundle(4, parent=1), processor()
    publish(directory, bundle, keys=[team])
    print(f"a publish: {processor() - start:.2f} s of processor time")
    metadata = directory / "public" / "metadata"

    def newest(role: str) -> str:
        return max((int(path.name.split(".")[0]), path.name) for path in metadata.glob(f"*.{role}.json"))[1]

    short = ["timestamp.json", newest("snapshot")]
    for text, files in (
        ("after a publish of another family", short),
        ("after a publish of its own family", [*short, newest(bundles_role(names[0])), newest(rule_role(names[0]))]),
        ("targets.json, when keys change", [newest("targets")]),
    ):
        plain, packed = sizes(metadata, files)
        print(f"{text}: {plain:,} bytes, {packed:,} with gzip")
    idle(directory, place, "demo", python)


def kept(place: Path) -> None:
    """Print what 100 publishes of two families leave, two a day."""
    directory, now = place / "kept", datetime(2026, 1, 1, tzinfo=UTC)
    from seedcnn.server.families import Access

    init_repository(directory, now=now)
    for family in ("first", "second"):
        add_family(directory, family, access=Access(now=now))
    for day in range(1, 51):
        for family in ("first", "second"):
            bundle = make_bundle(day, family=family, parent=1 if day > 1 else None)
            publish(directory, bundle, now=now + timedelta(days=day))

    def left() -> str:
        files = list((directory / "public" / "metadata").iterdir())
        return f"{len(files)} files of metadata, {sum(path.stat().st_size for path in files):,} bytes"

    print(f"100 publishes of two families in 50 days leave {left()}")
    prune(directory, keep=3, now=now + timedelta(days=57))
    print(f"a week later: {left()}")


def main() -> None:
    """Run the benchmark with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, default=500)
    parser.add_argument("--releases", type=int, default=50)
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--name-length", type=int, default=7)
    parser.add_argument("--device-python", default=sys.executable, help="interpreter of the device")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        large(
            Path(place),
            arguments.families,
            arguments.releases,
            arguments.keep,
            arguments.name_length,
            arguments.device_python,
        )
        kept(Path(place))
    print(f"in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
