"""The rollout rule, which states what each device of a family should run, and the names of the signed files.

The server writes the rule and signs it as a target of its own; a device parses it after checking the signature and
decides by its own name what the rule wants of it (``docs/rollouts.md`` has the format and test vectors). Nothing here
imports numpy, which the update agent does not have.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from seedcnn.bundle.canonical import dump_canonical, load_json
from seedcnn.bundle.limits import MAX_INT
from seedcnn.bundle.ranges import LATEST, check_integer
from seedcnn.errors import BundleFormatError, UpdateError

__all__ = [
    "FORMAT",
    "MAX_BYTES",
    "MAX_COHORTS",
    "MAX_DELTAS",
    "Artefact",
    "Probation",
    "Rollout",
    "bucket",
    "bundle_name",
    "check_cohort",
    "check_device_id",
    "check_family",
    "delta_name",
    "release_of",
    "rollout_name",
]

FORMAT = "seedcnn-rollout/2"
MAX_BYTES = 64 << 10
MAX_COHORTS = 64
MAX_DELTAS = 64
_MOST_ANSWERS = 10**9
_LONGEST_PROBATION = 30 * 86400  # seconds
_LONGEST_ANSWER = 3_600_000  # milliseconds
_FAMILY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RELEASE = re.compile(r"[1-9][0-9]{0,15}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SALT = re.compile(r"[0-9a-f]{32}")
_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


def check_family(family: str) -> str:
    """Return ``family`` if it is safe in a path and in a URL.

    Raises:
        ValueError: naming the rule.
    """
    return _check_name("family", family, _FAMILY, "a-z 0-9 . _ -", "rollout")


def check_cohort(cohort: str) -> str:
    """Return ``cohort`` if it is a name of devices.

    Raises:
        ValueError: naming the rule.
    """
    return _check_name("cohort", cohort, _FAMILY, "a-z 0-9 . _ -")


def check_device_id(device_id: str) -> str:
    """Return ``device_id`` if it can be the name of a device.

    Raises:
        ValueError: naming the rule.
    """
    return _check_name("device_id", device_id, _DEVICE_ID, "A-Z a-z 0-9 . _ : -")


def _check_name(what: str, name: object, pattern: re.Pattern[str], letters: str, taken: str = "") -> str:
    if isinstance(name, str) and pattern.fullmatch(name) and name != taken:
        return name
    other = f", and not {taken!r}" if taken else ""
    raise ValueError(f"`{what}` (={name!r:.80}) must be 1 to 64 of {letters}, starting with a letter or digit{other}")


def bucket(salt: str, device_id: str) -> int:
    """Return the number from 0 to 999 that decides whether the dial has reached a device.

    It is the SHA-256 of the salt followed by the device's name, both in ASCII, as a big-endian integer modulo 1000.
    """
    digest = hashlib.sha256(salt.encode("ascii") + check_device_id(device_id).encode("ascii")).digest()
    return int.from_bytes(digest, "big") % 1000


def rollout_name(family: str) -> str:
    """Return the target name of a family's rule."""
    return f"rollout/{check_family(family)}.json"


def bundle_name(family: str, release: int) -> str:
    """Return the target name of a release."""
    return f"{check_family(family)}/{release}.bundle"


def delta_name(family: str, release: int, parent: int) -> str:
    """Return the target name of the delta that makes ``release`` from release ``parent``."""
    return f"{check_family(family)}/{release}.from-{parent}.delta"


def release_of(family: str, name: str) -> int | None:
    """Return the release whose target name is ``name``, or None if it names no release of ``family``."""
    release = name.removeprefix(f"{family}/").removesuffix(".bundle")
    if not _RELEASE.fullmatch(release) or name != bundle_name(family, int(release)):
        return None
    return int(release)


def _is_delta(family: str, release: int, name: object) -> bool:
    if not isinstance(name, str):
        return False
    parent = name.removeprefix(f"{family}/{release}.from-").removesuffix(".delta")
    return bool(_RELEASE.fullmatch(parent)) and name == delta_name(family, release, int(parent))


@dataclass(frozen=True)
class Artefact:
    """One release of a family, as a rule names it.

    Attributes:
        family, release: of the bundle.
        content: its content digest (:meth:`seedcnn.bundle.manifest.Manifest.content_sha256`).
        deltas: target names of the deltas that make it, by the content digest of their parent.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    family: str
    release: int
    content: str
    deltas: Mapping[str, str]

    def __post_init__(self) -> None:
        check_family(self.family)
        check_integer("release", self.release, 1, MAX_INT)
        if not isinstance(self.content, str) or not _DIGEST.fullmatch(self.content):
            raise ValueError(f"content is {self.content!r:.80}; it must be 64 lower-case hexadecimal digits")
        if not isinstance(self.deltas, Mapping) or len(self.deltas) > MAX_DELTAS:
            raise ValueError(f"deltas is {self.deltas!r:.80}; it must map at most {MAX_DELTAS} parents to names")
        for parent, name in self.deltas.items():
            if not _DIGEST.fullmatch(parent) or not _is_delta(self.family, self.release, name):
                raise ValueError(
                    f"deltas has {parent!r:.80}: {name!r:.80}; it must be a digest and a name like "
                    f"'{delta_name(self.family, self.release, 1)}'"
                )

    @property
    def target(self) -> str:
        """Target name of the bundle."""
        return bundle_name(self.family, self.release)

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "artefact": self.target,
            "release": self.release,
            "content": self.content,
            "deltas": dict(self.deltas),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], family: str) -> Artefact:
        """Parse the wire form.

        Raises:
            ValueError: naming the field, its value and the rule.
        """
        found = cls(family, value["release"], value["content"], value["deltas"])
        if value["artefact"] != found.target:
            raise ValueError(f"artefact is {value['artefact']!r:.80}; release {found.release} is {found.target!r}")
        return found


@dataclass(frozen=True)
class Probation:
    """When a device commits to a release that it has switched to, or goes back.

    Attributes:
        answers: that it must have given.
        seconds: that it must have run.
        max_bad: answers that may not be finite or may fail.
        latency_ms: an answer that takes longer is late; 0 means that none is.
        max_late_per_mille: of the answers that may be late.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    answers: int = 0
    seconds: int = 0
    max_bad: int = 0
    latency_ms: int = 0
    max_late_per_mille: int = 1000

    def __post_init__(self) -> None:
        check_integer("probation.answers", self.answers, 0, _MOST_ANSWERS)
        check_integer("probation.seconds", self.seconds, 0, _LONGEST_PROBATION)
        check_integer("probation.max_bad", self.max_bad, 0, _MOST_ANSWERS)
        check_integer("probation.latency_ms", self.latency_ms, 0, _LONGEST_ANSWER)
        check_integer("probation.max_late_per_mille", self.max_late_per_mille, 0, 1000)


@dataclass(frozen=True)
class Rollout:
    """The rule: which devices of a family should run which of two releases.

    Attributes:
        offer: the release that is rolled out.
        serial: number of the rule; a device never follows a lower one than it has followed.
        base: what the other devices run, and the way back; None leaves them as they are.
        salt: 32 hexadecimal digits of chance; they stay while the dial turns, so that a higher one deselects nobody.
        per_mille: of the devices that are selected, the dial.
        cohorts: names of the cohorts that are selected from, in ascending order; () for all devices.
        not_before: time before which no device takes the offer, in seconds since 1970; 0 for none.
        deadline: time by which selected devices should have committed, in seconds since 1970; 0 for none.
        probation: before a device commits to the offer.
        signed_at: time of signing, in seconds since 1970.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    offer: Artefact
    serial: int
    base: Artefact | None
    salt: str
    per_mille: int
    signed_at: int
    cohorts: tuple[str, ...] = ()
    not_before: int = 0
    deadline: int = 0
    probation: Probation = Probation()

    def __post_init__(self) -> None:
        check_integer("serial", self.serial, 1, MAX_INT)
        if self.base is not None and self.base.family != self.offer.family:
            raise ValueError(f"base.family is {self.base.family!r}; it must be {self.offer.family!r}")
        if not isinstance(self.salt, str) or not _SALT.fullmatch(self.salt):
            raise ValueError(f"salt is {self.salt!r:.80}; it must be 32 lower-case hexadecimal digits")
        check_integer("per_mille", self.per_mille, 0, 1000)
        if len(self.cohorts) > MAX_COHORTS or list(self.cohorts) != sorted(set(self.cohorts)):
            raise ValueError(
                f"cohorts is {list(self.cohorts)!r:.80}; it must be at most {MAX_COHORTS} names in ascending order"
            )
        for cohort in self.cohorts:
            check_cohort(cohort)
        for name in ("signed_at", "not_before", "deadline"):
            check_integer(name, getattr(self, name), 0, LATEST)
        if self.deadline and self.deadline <= max(self.signed_at, self.not_before):
            raise ValueError(
                f"deadline is {self.deadline}; it must be after signed_at ({self.signed_at}) and not_before "
                f"({self.not_before})"
            )

    @property
    def family(self) -> str:
        """The family whose devices follow the rule."""
        return self.offer.family

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """The releases that the rule names: the offer, and the base if there is one."""
        return (self.offer,) if self.base is None else (self.offer, self.base)

    def selects(self, device_id: str, cohort: str = "") -> bool:
        """Return whether the dial has reached a device, whatever the time is.

        Args:
            device_id: the device's name.
            cohort: the cohort that it belongs to; "" for none.
        """
        if self.cohorts and cohort not in self.cohorts:
            return False
        return bucket(self.salt, device_id) < self.per_mille

    def wanted(self, device_id: str, cohort: str, now: int) -> Artefact | None:
        """Return what a device should run now: the offer, the base, or None if it should keep what it has.

        Args:
            device_id, cohort: see :meth:`selects`.
            now: the time in seconds since 1970.
        """
        if now >= self.not_before and self.selects(device_id, cohort):
            return self.offer
        return self.base

    def dump(self) -> bytes:
        """Return the canonical JSON text."""
        return dump_canonical(
            {
                "format": FORMAT,
                "family": self.family,
                "serial": self.serial,
                **self.offer.to_json(),
                "base": {} if self.base is None else self.base.to_json(),
                "salt": self.salt,
                "per_mille": self.per_mille,
                "cohorts": list(self.cohorts),
                "not_before": self.not_before,
                "deadline": self.deadline,
                "probation": asdict(self.probation),
                "signed_at": self.signed_at,
            }
        )

    @classmethod
    def parse(cls, data: bytes, family: str) -> Rollout:
        """Parse the rule of ``family`` after its signature has been checked. The format version is checked first.

        Raises:
            UpdateError: if it is malformed, of another format version, or about another family or artefact.
        """
        what = f"the rollout rule of {family!r} was refused"
        try:
            value = load_json(data, "it")
        except BundleFormatError as error:
            raise UpdateError(f"{what}: {error}") from None
        if (found := value.get("format")) != FORMAT:
            raise UpdateError(f"{what}: its format is {found!r:.80}; this version of seedcnn reads {FORMAT!r}")
        try:
            _exactly(value, "its fields", _FIELDS)
            if value["family"] != family:
                raise ValueError(f"it is about family {value['family']!r:.80}")
            return cls(
                Artefact.from_json(value, family),
                value["serial"],
                _base(value["base"], family),
                value["salt"],
                value["per_mille"],
                value["signed_at"],
                _cohorts(value["cohorts"]),
                value["not_before"],
                value["deadline"],
                Probation(**_exactly(value["probation"], "probation's fields", _PROBATION)),
            )
        except ValueError as error:
            raise UpdateError(f"{what}: {error}") from None


_ARTEFACT = {"artefact", "release", "content", "deltas"}
_PROBATION = {field.name for field in fields(Probation)}
_FIELDS = {
    *_ARTEFACT,
    *("format", "family", "serial", "base", "salt", "per_mille", "cohorts"),
    *("not_before", "deadline", "probation", "signed_at"),
}


def _exactly(value: object, what: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} are missing: {value!r:.80} is no object")
    if set(value) != names:
        raise ValueError(f"{what} are {', '.join(sorted(value))}; not exactly those of {FORMAT!r}")
    return value


def _base(value: object, family: str) -> Artefact | None:
    if value == {}:
        return None
    try:
        return Artefact.from_json(_exactly(value, "the fields", _ARTEFACT), family)
    except ValueError as error:
        raise ValueError(f"base: {error}") from None


def _cohorts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"cohorts is {value!r:.80}; it must be a list of names")
    return tuple(value)
