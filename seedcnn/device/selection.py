"""Whether a rollout rule gives a device the release that is rolled out, and on which probation."""

from __future__ import annotations

import time

from seedcnn.bundle.rollout import Artefact, Probation, Rollout
from seedcnn.device.config import Config
from seedcnn.device.trusted import Seen

__all__ = ["probation_of", "unselected"]


def unselected(seen: Seen, config: Config, now: float) -> str:
    """Return why a device does not get the release that is rolled out; "" if it does."""
    rollout = seen.rollout
    if rollout.cohorts and config.cohort not in rollout.cohorts:
        return f"not selected: the rule is for the cohorts {', '.join(rollout.cohorts):.200}"
    if not rollout.selects(config.device_id, config.cohort):
        return f"not selected: the dial is at {rollout.per_mille} per mille"
    if now < rollout.not_before:
        return f"before its start at {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(rollout.not_before))}"
    return ""


def probation_of(rollout: Rollout, wanted: Artefact) -> Probation | None:
    """Return the probation of a release, or None for one that is committed at once: the base, and without limits."""
    limits = rollout.probation
    return limits if wanted == rollout.offer and (limits.answers or limits.seconds) else None
