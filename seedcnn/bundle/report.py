"""The report of a device about a rollout: what it did with a rule, and why. Nothing here imports numpy.

A report is one file of canonical JSON. It never changes what a device runs, and nothing is undone because it is lost.
Whoever collects reports may get one twice: ``id`` tells.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields

from seedcnn.bundle.canonical import dump_canonical, load_json
from seedcnn.bundle.limits import MAX_INT
from seedcnn.bundle.ranges import LATEST, check_integer
from seedcnn.bundle.rollout import check_cohort, check_device_id, check_family
from seedcnn.errors import BundleFormatError, UpdateError

__all__ = ["CODES", "ENDS", "FAILURES", "FORMAT", "MAX_BYTES", "STATES", "Report"]

FORMAT = "seedcnn-report/1"
MAX_BYTES = 4 << 10
STATES = ("ELIGIBLE", "HOLD", "DOWNLOAD", "PROBATION", "COMMITTED", "ROLLED_BACK", "REFUSED")
FAILURES = ("ROLLED_BACK", "REFUSED")
ENDS = ("COMMITTED", *FAILURES)
"""States after which a device does no more about a rule."""

CODES = ("", "self-test", "bundle", "space", "bad-answers", "late-answers", "probe", "crash-loop", "operator", "other")
_ID = re.compile(r"[0-9a-f]{32}")
_MOST_TEXT = 500  # characters


@dataclass(frozen=True)
class Report:
    """One thing that a device did with a rule.

    Attributes:
        id: 32 hexadecimal digits; the same in every copy of the report.
        device, cohort: names of the device and of its cohort; "" for none.
        family, serial, release: the rule, and the release that the state is about.
        state: one of :data:`STATES`.
        code: one of :data:`CODES`, the reason of a failure or a hold.
        text: the reason in words, at most 500 characters.
        time: seconds since 1970, by the device's clock.
        answers, bad, late: counted on probation.
        shift: how far the labels of these answers are from those that the model before gave on the same device: the
            total variation distance of the two distributions, per mille. It says nothing if ``compared`` is 0.
        compared: answers of the model before that ``shift`` rests on.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    id: str
    device: str
    cohort: str
    family: str
    serial: int
    release: int
    state: str
    time: int
    code: str = ""
    text: str = ""
    answers: int = 0
    bad: int = 0
    late: int = 0
    shift: int = 0
    compared: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise ValueError(f"id is {self.id!r:.80}; it must be 32 lower-case hexadecimal digits")
        check_device_id(self.device)
        if self.cohort != "":
            check_cohort(self.cohort)
        check_family(self.family)
        limits = {"serial": (1, MAX_INT), "release": (1, MAX_INT), "time": (0, LATEST), "shift": (0, 1000)}
        counted = ("answers", "bad", "late", "compared")
        for name, (low, high) in {**limits, **dict.fromkeys(counted, (0, MAX_INT))}.items():
            check_integer(name, getattr(self, name), low, high)
        for name, words in (("state", STATES), ("code", CODES)):
            if (value := getattr(self, name)) not in words:
                raise ValueError(f"{name} is {value!r:.80}; it must be one of {', '.join(filter(None, words))}")
        if not isinstance(self.text, str) or len(self.text) > _MOST_TEXT:
            raise ValueError(f"text is {self.text!r:.80}; it must be at most {_MOST_TEXT} characters")

    def dump(self) -> bytes:
        """Return the canonical JSON text."""
        return dump_canonical({"format": FORMAT, **asdict(self)})

    @classmethod
    def parse(cls, data: bytes) -> Report:
        """Parse a report. The format version is checked first.

        Raises:
            UpdateError: if it is malformed, too long, or of another format version.
        """
        if len(data) > MAX_BYTES:
            raise UpdateError(f"the report was refused: it has {len(data)} bytes; at most {MAX_BYTES} are read")
        try:
            value = load_json(data, "it")
        except BundleFormatError as error:
            raise UpdateError(f"the report was refused: {error}") from None
        if (found := value.pop("format", None)) != FORMAT:
            raise UpdateError(
                f"the report was refused: its format is {found!r:.80}; this version of seedcnn reads {FORMAT!r}"
            )
        if set(value) != {field.name for field in fields(cls)}:
            raise UpdateError(
                f"the report was refused: its fields are {', '.join(sorted(value))}; not exactly those of {FORMAT!r}"
            )
        try:
            return cls(**value)
        except ValueError as error:
            raise UpdateError(f"the report was refused: {error}") from None
