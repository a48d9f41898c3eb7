"""The rollout rule, which states what the devices of a family should run, and the names of the signed files.

The server writes the rule and signs it as a target of its own; a device parses it after checking the signature. Nothing
here imports numpy, which the update agent does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedcnn.bundle.canonical import dump_canonical, load_json
from seedcnn.bundle.limits import MAX_INT
from seedcnn.errors import BundleFormatError, UpdateError

__all__ = [
    "FORMAT",
    "MAX_BYTES",
    "MAX_DELTAS",
    "Rollout",
    "bundle_name",
    "check_family",
    "delta_name",
    "release_of",
    "rollout_name",
]

FORMAT = "seedcnn-rollout/1"
MAX_BYTES = 64 << 10
MAX_DELTAS = 64
_FAMILY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RELEASE = re.compile(r"[1-9][0-9]{0,15}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_family(family: str) -> str:
    """Return ``family`` if it is safe in a path and in a URL.

    Raises:
        ValueError: naming the rule.
    """
    if not _FAMILY.fullmatch(family) or family == "rollout":
        raise ValueError(
            f"`family` (={family!r}) must be 1 to 64 of a-z 0-9 . _ -, "
            "starting with a letter or digit, and not 'rollout'"
        )
    return family


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
class Rollout:
    """The rule: the devices of a family should run this release.

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
        if type(self.release) is not int or not 1 <= self.release <= MAX_INT:
            raise ValueError(f"release is {self.release!r:.80}; it must be an integer from 1 to 2**53 - 1")
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
    def artefact(self) -> str:
        """Target name of the bundle."""
        return bundle_name(self.family, self.release)

    def _fields(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "family": self.family,
            "artefact": self.artefact,
            "release": self.release,
            "content": self.content,
            "deltas": dict(self.deltas),
        }

    def dump(self) -> bytes:
        """Return the canonical JSON text."""
        return dump_canonical(self._fields())

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
        if set(value) != {"format", "family", "artefact", "release", "content", "deltas"}:
            raise UpdateError(f"{what}: its fields are {', '.join(sorted(value))}; not exactly those of {FORMAT!r}")
        if value["family"] != family:
            raise UpdateError(f"{what}: it is about family {value['family']!r:.80}")
        try:
            rule = cls(family, value["release"], value["content"], value["deltas"])
        except ValueError as error:
            raise UpdateError(f"{what}: {error}") from None
        if value["artefact"] != rule.artefact:
            raise UpdateError(
                f"{what}: artefact is {value['artefact']!r:.80}; release {rule.release} is {rule.artefact!r}"
            )
        return rule
