"""The signed rollout rule of a family: which artefact its devices should run; and the names a device accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from seedcnn.errors import UpdateError

__all__ = ["FORMAT", "MAX_BYTES", "Rollout", "check_family", "check_url", "parse_rollout", "rollout_name"]

FORMAT = "seedcnn-rollout/1"
MAX_BYTES = 64 << 10
_FAMILY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_RELEASE = 2**53 - 1
_MAX_DELTAS = 64
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Rollout:
    """A checked rule.

    Attributes:
        family, release: of the bundle that the devices should run.
        artefact: its target name.
        content: digest of what it says (:meth:`seedcnn.bundle.manifest.Manifest.content_sha256`).
        deltas: target names of the deltas that make it, by the digest of what their parent says.
    """

    family: str
    artefact: str
    release: int
    content: str
    deltas: Mapping[str, str]


def check_family(family: str) -> str:
    """Return ``family`` if it may be used in names.

    Raises:
        ValueError: naming the rule.
    """
    if not _FAMILY.fullmatch(family) or family == "rollout":
        raise ValueError(f"`family` (={family!r}) must be 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit")
    return family


def check_url(url: str) -> str:
    """Return the base URL without a trailing slash.

    Raises:
        ValueError: if it is not an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.port == 0:
        raise ValueError(f"`url` (={url!r}) must be an http or https URL without query or fragment")
    return url.rstrip("/")


def rollout_name(family: str) -> str:
    """Target name of a family's rule."""
    return f"rollout/{check_family(family)}.json"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def parse_rollout(data: bytes, family: str) -> Rollout:
    """Parse a rule that has been verified; the format version is looked at before anything else.

    Raises:
        UpdateError: if it is malformed, of another format version, or about another family or artefact.
    """
    what = f"the rollout rule of {family!r} was refused"
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UpdateError(f"{what}: it is not JSON ({error})") from None
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise UpdateError(f"{what}: its format is {found!r:.80}; this version of seedcnn reads {FORMAT!r}")
    if set(value) != {"format", "family", "artefact", "release", "content", "deltas"}:
        raise UpdateError(f"{what}: its fields are {', '.join(sorted(value))}; not exactly those of {FORMAT!r}")
    release = value["release"]
    if type(release) is not int or not 1 <= release <= _MAX_RELEASE:
        raise UpdateError(f"{what}: release is {release!r:.80}; it must be an integer from 1 to 2**53 - 1")
    if value["family"] != family:
        raise UpdateError(f"{what}: it is about family {value['family']!r:.80}")
    if value["artefact"] != f"{family}/{release}.bundle":
        raise UpdateError(
            f"{what}: artefact is {value['artefact']!r:.80}; release {release} is '{family}/{release}.bundle'"
        )
    if not isinstance(value["content"], str) or not _DIGEST.fullmatch(value["content"]):
        raise UpdateError(f"{what}: content is {value['content']!r:.80}; it must be 64 hexadecimal digits")
    return Rollout(
        family, value["artefact"], release, value["content"], _deltas(value["deltas"], family, release, what)
    )


def _deltas(value: Any, family: str, release: int, what: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or len(value) > _MAX_DELTAS:
        raise UpdateError(f"{what}: deltas is {value!r:.80}; it must be at most {_MAX_DELTAS} names by parent")
    name = re.compile(rf"{re.escape(family)}/{release}\.from-[1-9][0-9]{{0,15}}\.delta")
    for parent, delta in value.items():
        if not _DIGEST.fullmatch(parent) or not isinstance(delta, str) or not name.fullmatch(delta):
            raise UpdateError(
                f"{what}: deltas has {parent!r:.80}: {delta!r:.80}; it must be a digest and a name such as "
                f"'{family}/{release}.from-1.delta'"
            )
    return value
