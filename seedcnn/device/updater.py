"""Find out what to run and download it verified. No other module of the device knows TUF.

python-tuf's ngclient checks the metadata, always starting from the factory root. Bundles are downloaded by our own
loop, because ngclient's has no deadline, no minimum rate, no resume and no fsync, and then verified with ngclient's
length and hash check. Needs python-tuf and urllib3, but no numpy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from seedcnn.bundle import Artefact, Rollout, rollout_name
from seedcnn.bundle.rollout import MAX_BYTES
from seedcnn.device.config import check_url
from seedcnn.device.fetcher import DownloadLimits, HttpStatusError, LaterError, PacedClient, Pool, TransferError
from seedcnn.device.part import Part
from seedcnn.device.transfer import fetch
from seedcnn.device.trusted import Seen
from seedcnn.device.validators import Validator
from seedcnn.errors import PostponedError, UpdateError
from seedcnn.files import remove, write_file

__all__ = ["Offer", "Source", "Target", "check_root"]

_PACKED = {"Accept-Encoding": "gzip"}
_TIMESTAMP = "timestamp.json"

Target = TargetFile
"""A signed file: name, length and hashes."""


@dataclass(frozen=True)
class Offer:
    """A bundle that the repository has signed for this family: size in bytes, SHA-256 in hexadecimal.

    ``delta`` makes it from the device's current bundle; it is None unless it is smaller than the bundle.
    """

    artefact: Artefact
    size: int
    sha256: str
    target: Target
    delta: Target | None = None


def _ids(keyids: Iterable[str]) -> str:
    return ",".join(sorted(keyids))


class _Fetcher(FetcherInterface):
    """Adapts :class:`PacedClient` to ngclient; metadata is downloaded to memory."""

    def __init__(self, client: PacedClient, validator: Validator) -> None:
        self._client, self._validator = client, validator

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._client.get(url, _PACKED)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Download at most ``max_length`` decoded bytes to memory; the inherited method uses the system's /tmp."""
        try:
            if url.endswith(_TIMESTAMP):
                return self._client.retrying(url, lambda: self._timestamp(url, max_length))
            return self._client.retrying(url, lambda: self._once(url, max_length, _PACKED)[0])
        except HttpStatusError as error:
            raise exceptions.DownloadHTTPError(str(error), error.status) from None

    def _timestamp(self, url: str, max_length: int) -> bytes:
        """Ask for the timestamp metadata on the condition that they are others than those in the home."""
        tag = self._validator.tag(url)
        try:
            data, new = self._once(url, max_length, {**_PACKED, "If-None-Match": tag} if tag else _PACKED)
        except HttpStatusError as error:
            if error.status == 304 and tag:
                return self._validator.cached()
            raise
        self._validator.saw(url, new, data)
        return data

    def _once(self, url: str, max_length: int, fields: Mapping[str, str]) -> tuple[bytes, str | None]:
        """Return the body of an answer and its entity tag."""
        data, response = bytearray(), self._client.open(url, fields)
        with closing(self._client.body(url, response)) as chunks:
            for chunk in chunks:
                data += chunk
                if len(data) > max_length:
                    raise exceptions.DownloadLengthMismatchError(
                        f"{url} sends more than the {max_length} bytes allowed"
                    )
        return bytes(data), response.headers.get("ETag")


class _Updater(Updater):
    """python-tuf's updater with a time of ours, and that writes a file only if it has changed, and flushes it.

    Its own writes every root at every check, and flushes nothing. If a newer python-tuf calls these methods by other
    names, a check writes more than it need and takes the clock for granted; tests count the writes and set the clock.
    It has no public way to the time or to the keys of a role, so nothing else here touches its internals.

    Attributes:
        now: returns the time in seconds since 1970, given the ids of the keys of the timestamp role.
    """

    now: Callable[[str], float]

    def _load_root(self) -> None:
        """Load the newest root, and set the time before anything is checked for its age."""
        super()._load_root()
        self._trusted_set.reference_time = datetime.fromtimestamp(self.now(self.timekeepers()), UTC)

    def timekeepers(self) -> str:
        """Return the ids of the keys of the timestamp role."""
        return _ids(self._trusted_set.root.roles[Timestamp.type].keyids)

    def keys_of(self, name: str) -> str:
        """Return the ids of the keys of the role that has signed a target."""
        targets = self._trusted_set.targets
        if name not in targets.targets and targets.delegations is not None:
            for role, _ in targets.delegations.get_roles_for_target(name):
                if not self._trusted_set.contains(role, Targets.type) or targets.delegations.roles is None:
                    continue
                if name in self._load_targets(role, Targets.type).targets:
                    return _ids(targets.delegations.roles[role].keyids)
        return _ids(self._trusted_set.root.roles[Targets.type].keyids)

    def until(self) -> int:
        """Return when the first of the metadata in use expires, in seconds since 1970."""
        return int(min(signed.expires.timestamp() for signed in self._trusted_set))

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        with suppress(OSError):
            if path.read_bytes() == data:
                return
        write_file(path, data, mode=0o644)

    def _update_root_symlink(self) -> None:
        """Leave out the link to the newest root: a check starts from the factory root, so nobody reads it."""


@contextmanager
def _refusals(url: str) -> Iterator[None]:
    """Turn every failure of TUF, HTTP or the disk into a sentence that says what was refused and why."""
    try:
        yield
    except exceptions.ExpiredMetadataError as error:
        raise UpdateError(
            f"{url} was refused: its metadata has expired or this device's clock is wrong ({error})", "metadata"
        ) from None
    except exceptions.UnsignedMetadataError as error:
        raise UpdateError(
            f"{url} was refused: its metadata is not signed by the keys this device trusts ({error})", "metadata"
        ) from None
    except exceptions.BadVersionNumberError as error:
        raise UpdateError(
            f"{url} was refused: its metadata is older than what this device has seen ({error})", "metadata"
        ) from None
    except exceptions.LengthOrHashMismatchError as error:
        raise UpdateError(f"{url} was refused: a file is not what was signed ({error})", "transfer") from None
    except exceptions.RepositoryError as error:
        raise UpdateError(f"{url} was refused: its metadata is not valid ({error})", "metadata") from None
    except LaterError as error:
        raise PostponedError(f"the update is put off: {error}", error.seconds) from None
    except (exceptions.DownloadError, TransferError) as error:
        raise UpdateError(f"the update could not be downloaded: {error}", "transfer") from None
    except OSError as error:
        raise UpdateError(
            f"the update could not be stored: {error.strerror or error} ({error.filename or 'home'})"
        ) from error


def check_root(data: bytes) -> int:
    """Check that ``data`` is root metadata signed by its own keys, and return its version.

    Raises:
        UpdateError: if it is not.
    """
    try:
        root: Metadata[Root] = Metadata.from_bytes(data)
        if root.signed.type != Root.type:
            raise exceptions.RepositoryError(f"it is {root.signed.type} metadata")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except exceptions.RepositoryError as error:
        raise UpdateError(f"the trust anchor was refused: it is not valid root metadata ({error})") from None
    return root.signed.version


class Source:
    """A repository as a device sees it. Use it in ``with closing(Source(...)) as source``.

    Args:
        pool: sends the requests; None for HTTP.
    """

    def __init__(self, home: Path, url: str, root: bytes, limits: DownloadLimits, pool: Pool | None = None) -> None:
        self._home, self._url, self._root, self._limits = home, check_url(url), root, limits
        self._client = PacedClient(limits, pool)
        self._validator = Validator(home, home / "metadata" / _TIMESTAMP)
        self._fetcher = _Fetcher(self._client, self._validator)
        self._updater: _Updater | None = None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def check(self, family: str, now: Callable[[str], float] = lambda _: time.time()) -> Seen:
        """Refresh the metadata and read the family's rollout rule.

        Args:
            now: returns the time in seconds since 1970, given the ids of the keys of the timestamp role.

        Raises:
            UpdateError: if anything is refused or unreachable, nothing is published for the family, or the rule names a
                release that is not signed.
        """
        directory, name = self._home / "metadata", rollout_name(family)
        with _refusals(self._url):
            directory.mkdir(exist_ok=True)
            _drop_debris(directory)
            updater = _Updater(str(directory), f"{self._url}/metadata/", fetcher=self._fetcher, bootstrap=self._root)
            updater.now = now
            updater.refresh()
            self._validator.remember()
            rule = updater.get_targetinfo(name)
            if rule is None:
                raise UpdateError(f"{self._url} has published nothing for family {family!r}")
            rollout = Rollout.parse(self._rule_text(rule), family)
            for artefact in rollout.artefacts:
                if updater.get_targetinfo(artefact.target) is None:
                    raise UpdateError(
                        f"the rollout rule of {family!r} was refused: {artefact.target} is not a signed target"
                    )
            self._updater = updater
            return Seen(rollout, self.digest(rule), updater.keys_of(name), updater.timekeepers(), updater.until())

    def offer(self, artefact: Artefact, content: str = "") -> Offer:
        """Look up the signed files of a release that the rule names; :meth:`check` comes first.

        Args:
            content: content digest of the device's current bundle, to look for a delta from it.

        Raises:
            UpdateError: if the release is not signed, or larger than this device accepts.
        """
        if self._updater is None:
            raise ValueError("`check` comes before `offer`")
        with _refusals(self._url):
            target = self._updater.get_targetinfo(artefact.target)
            name = artefact.deltas.get(content)
            delta = self._updater.get_targetinfo(name) if name else None
        if target is None:
            raise UpdateError(f"{artefact.target} was refused: it is not a signed target", "metadata")
        if target.length > self._limits.max_bytes:
            raise UpdateError(
                f"{artefact.target} was refused: it has {target.length} bytes; "
                f"this device accepts {self._limits.max_bytes}"
            )
        smaller = delta is not None and delta.length < target.length
        return Offer(artefact, target.length, self.digest(target), target, delta if smaller else None)

    def _rule_text(self, rule: TargetFile) -> bytes:
        cached = self._home / "rollout.json"
        try:
            data = cached.read_bytes()
            rule.verify_length_and_hashes(data)
            return data
        except (OSError, exceptions.LengthOrHashMismatchError):
            # There is no rule yet or an older one: fetch the one that is signed now.
            data = self._fetcher.download_bytes(self._target_url(rule), min(rule.length, MAX_BYTES))
        rule.verify_length_and_hashes(data)
        write_file(cached, data, mode=0o644)
        return data

    def digest(self, target: Target) -> str:
        """Return the signed SHA-256 of a target, in hexadecimal.

        Raises:
            UpdateError: if it is signed without one.
        """
        if "sha256" not in target.hashes:
            raise UpdateError(f"{target.path} was refused: it is signed without a SHA-256 digest")
        return target.hashes["sha256"]

    def _target_url(self, target: TargetFile) -> str:
        parent, separator, name = target.path.rpartition("/")
        return f"{self._url}/targets/{parent}{separator}{self.digest(target)}.{name}"

    def part(self, target: Target) -> Part:
        """Return the partial download of a target."""
        return Part(self._home, self.digest(target), target.length)

    def download(self, target: Target, part: Part) -> None:
        """Complete the partial download of a target, at most the signed number of bytes, and flush it.

        Raises:
            UpdateError: if the transfer fails or is too slow, or the disk is full.
        """
        with _refusals(self._url):
            fetch(self._client, self._target_url(target), part)

    def verify(self, target: Target, part: Part) -> None:
        """Check a download against the signed length and hashes. One that fails is removed.

        Raises:
            UpdateError: if one of them differs.
        """
        with _refusals(self._url):
            try:
                with open(part.path, "rb") as file:
                    target.verify_length_and_hashes(file)
            except exceptions.LengthOrHashMismatchError:
                part.drop()
                raise


def _drop_debris(directory: Path) -> None:
    """Remove what a power cut left behind: empty files, and temporary files that were never renamed."""
    for path in (*directory.glob("*"), *directory.glob("root_history/*")):
        if path.is_file() and (path.suffix != ".json" or path.stat().st_size == 0):
            remove(path)
