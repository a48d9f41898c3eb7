"""A TUF client of a repository's public files, without sockets: python-tuf's own, with its cache on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from seedcnn.bundle import Rollout, rollout_name


class Files(FetcherInterface):
    """Reads ``file`` paths, and notes what was fetched."""

    def __init__(self) -> None:
        self.fetched: dict[str, int] = {}

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url)
        if not path.is_file():
            raise DownloadHTTPError("no such file", 404)
        data = path.read_bytes()
        self.fetched[path.name] = len(data)
        return iter([data])


class Client:
    """A device's view of a repository; what it has seen stays in ``home``."""

    def __init__(self, directory: Path, home: Path, root: bytes | None = None) -> None:
        self.directory, self.home = directory, home
        self.root = root or (directory / "root.json").read_bytes()
        self.fetched: dict[str, int] = {}
        home.mkdir(parents=True, exist_ok=True)

    def look(self, family: str = "demo") -> Rollout | None:
        """The rule that the repository offers now, if its bundles and deltas are signed; raises as python-tuf does."""
        files = Files()
        metadata = f"{self.directory}/public/metadata/"
        updater = Updater(str(self.home), metadata, fetcher=files, bootstrap=self.root)
        try:
            updater.refresh()
            target = updater.get_targetinfo(rollout_name(family))
            if target is None:
                return None
            path = self.directory / "public" / "targets" / target.get_prefixed_paths()[0]
            data = path.read_bytes()
            target.verify_length_and_hashes(data)
            rule = Rollout.parse(data, family)
            for name in (name for each in rule.artefacts for name in (each.target, *each.deltas.values())):
                named = updater.get_targetinfo(name)
                assert named is not None, name
                file = self.directory / "public" / "targets" / named.get_prefixed_paths()[0]
                named.verify_length_and_hashes(file.read_bytes())
            return rule
        finally:
            self.fetched = files.fetched

    def release(self, family: str = "demo") -> int:
        """The release that is offered, 0 for none."""
        rule = self.look(family)
        return rule.offer.release if rule is not None else 0
