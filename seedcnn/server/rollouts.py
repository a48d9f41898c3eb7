"""Staged rollouts from static files: each command signs one rule, or changes what the server remembers, or neither.

Only the online key of the family's rule signs, so a rollout picks among signed releases and never makes one. What the
server remembers is in ``DIR/rollouts/`` (:mod:`seedcnn.server.kept`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from seedcnn.bundle import Artefact, Probation, Rollout, rollout_name
from seedcnn.errors import RepositoryError
from seedcnn.server.artefacts import highest_min_release, next_serial, signed_artefact
from seedcnn.server.clock import utc
from seedcnn.server.deciding import Decision, decide
from seedcnn.server.families import Access
from seedcnn.server.kept import check_none_runs, read_kept, rule_digest, write_kept
from seedcnn.server.keys import Keyring
from seedcnn.server.loading import opened
from seedcnn.server.reports import read_reports
from seedcnn.server.roles import bundles_role, role_of, rule_role
from seedcnn.server.staged import Staged, percent
from seedcnn.server.state import Repository

__all__ = ["Plan", "Status", "advance", "dial", "pause", "resume", "revert", "start", "status"]


@dataclass(frozen=True)
class Plan:
    """How a release is rolled out.

    Attributes:
        waves: the dials it goes through, in per mille, rising.
        soak: seconds that a wave lasts at least.
        deadline: seconds after a device's first report by which it must have committed or failed.
        stop_at: share of failures, in per mille, above which it stops.
        on_stop: "revert" or "pause".
        cohorts: that it is for; () for all devices.
        probation: before a device commits.
    """

    waves: Sequence[int]
    soak: int
    deadline: int
    stop_at: int
    on_stop: str = "revert"
    cohorts: Sequence[str] = ()
    probation: Probation = field(default_factory=Probation)


@dataclass(frozen=True)
class Status:
    """A rollout, and the rule that is in force."""

    rollout: Staged
    rule: Rollout


@contextmanager
def _family(directory: str | Path, family: str, access: Access | None) -> Iterator[Repository]:
    directory, access = Path(directory), access or Access()
    keyring = access.keyring(directory)
    with opened(directory, utc(access.now), access.expires, keyring, clock_ok=access.clock_ok) as repository:
        repository.check_family(family)
        role = rule_role(family)
        keyring.check_given(role, role_of(repository.root.signed, repository.targets.signed, role).keyids)
        yield repository


def _seconds(repository: Repository) -> int:
    return int(repository.now.timestamp())


def _commit(repository: Repository, rule: Rollout, rollout: Staged | None) -> None:
    """Remember a rollout and sign its rule; nothing is written if a key is missing."""
    role, data = rule_role(rule.family), rule.dump()
    for each in (role, "snapshot", "timestamp"):
        repository.signers(each)
    if rollout is not None:
        write_kept(repository, rollout, hashlib.sha256(data).hexdigest())
    repository.edit(role)
    repository.add_target(role, rollout_name(rule.family), data)
    repository.commit()


def _last(repository: Repository, family: str) -> tuple[Staged, Rollout]:
    """Return a family's rollout, running or the last one, and the rule in force."""
    rollout, rule = read_kept(repository, family), repository.rule(family)
    if rollout is None or rule is None:
        raise RepositoryError(
            f"there is no rollout of {family!r}; start one with: seedcnn rollout start {repository.directory} {family} "
            "RELEASE"
        )
    return rollout, rule


def _belongs(rule: Rollout, rollout: Staged) -> bool:
    return (rule.serial, rule.salt) == (rollout.serial, rollout.salt)


def _current(repository: Repository, family: str) -> tuple[Staged, Rollout]:
    """Return the rollout that the rule in force belongs to, and that rule; RepositoryError if there is none."""
    rollout, rule = _last(repository, family)
    if not _belongs(rule, rollout):
        raise RepositoryError(
            f"the rollout of release {rollout.offer} of {family!r} has ended ({rollout.state}), and the rule in force "
            f"offers release {rule.offer.release}; start another with: seedcnn rollout start"
        )
    return rollout, rule


def start(
    directory: str | Path,
    family: str,
    release: int,
    plan: Plan,
    *,
    salt: str | None = None,
    access: Access | None = None,
) -> Staged:
    """Offer a signed release to the first wave of a family's devices.

    The others run the base: the release that the present rule offers to all, or its base if it does not offer to all.

    Args:
        salt: 32 hexadecimal digits that no rollout of the family has used; None for chance.
        access: further keys, and how to sign; the key of the family's rule is enough.

    Raises:
        RepositoryError: if the plan breaks a rule, the release is not signed or below the ``min_release`` of a signed
            bundle, all devices are offered it already, a rollout runs, there is no way back, the salt was used, or
            metadata would expire before the end that cannot be renewed here; or see
            :func:`seedcnn.server.repository.publish`. Nothing is written then.
    """
    with _family(directory, family, access) as repository:
        check_none_runs(repository, family)
        before, rule = read_kept(repository, family), repository.rule(family)
        used = before.salts if before is not None else ()
        salt = secrets.token_hex(16) if salt is None else salt
        if salt in used or (rule is not None and salt == rule.salt):
            raise RepositoryError(f"salt {salt!r:.80} was used before; the same devices would be the first ones again")
        base = _given_to_all(rule)
        try:
            rollout = Staged(
                family,
                release,
                base.release if base is not None else 0,
                next_serial(repository, family),
                ((plan.waves[0] if plan.waves else 0, _seconds(repository)),),
                salt,
                tuple(plan.waves),
                _seconds(repository),
                plan.soak,
                plan.deadline,
                plan.stop_at,
                plan.on_stop,
                tuple(sorted(set(plan.cohorts))),
                salts=(*used, salt),
            )
            _check_probation(plan)
            following = _first(repository, rollout, plan.probation)
        except ValueError as error:
            raise RepositoryError(str(error)) from None
        _check_ways(repository, rollout)
        _check_expiry(repository, family, following.deadline)
        _commit(repository, following, rollout)
    return rollout


def _check_probation(plan: Plan) -> None:
    """Refuse a probation that nothing can fail, or that no device can end in time.

    Raises:
        ValueError: naming the limit, its value and the rule.
    """
    trial = plan.probation
    if trial.answers and trial.max_bad >= trial.answers:
        raise ValueError(f"max_bad is {trial.max_bad}; it must be below the {trial.answers} answers that are wanted")
    if bool(trial.latency_ms) != (trial.max_late_per_mille < 1000):
        raise ValueError(
            f"latency_ms is {trial.latency_ms} and max_late {trial.max_late_per_mille / 10:g}%; give both, a time "
            "above which answers are late and a share below 100% that may be, or neither"
        )
    if trial.latency_ms and not trial.answers:
        raise ValueError("answers is 0; late answers are a share of the answers that are wanted, so want some")
    if trial.seconds >= plan.deadline:
        raise ValueError(
            f"deadline is {plan.deadline} s; it must be longer than the {trial.seconds} s of the probation, or every "
            "device fails by silence"
        )


def _given_to_all(rule: Rollout | None) -> Artefact | None:
    """Return the release that a rule gives to devices that its dial has not selected."""
    if rule is None:
        return None
    return rule.offer if rule.per_mille == 1000 and not rule.cohorts else rule.base


def _first(repository: Repository, rollout: Staged, probation: Probation) -> Rollout:
    """Return the first rule of a rollout."""
    offer = signed_artefact(repository, rollout.family, rollout.offer)
    base = signed_artefact(repository, rollout.family, rollout.base) if rollout.base else None
    moment, until = rollout.started, rollout.horizon(rollout.started, rollout.dial)
    return Rollout(
        offer, rollout.serial, base, rollout.salt, rollout.dial, moment, rollout.cohorts, 0, until, probation
    )


def _check_ways(repository: Repository, rollout: Staged) -> None:
    """Check that devices may go to the offer, and back to the base if a stop sends them there."""
    family, offer, base = rollout.family, rollout.offer, rollout.base
    if offer == base:
        raise RepositoryError(f"release {offer} of {family!r} is what all devices are offered already")
    floor, because = highest_min_release(repository, family)
    if offer < floor:
        raise RepositoryError(f"release {offer} of {family!r} is below {floor}, the min_release of release {because}")
    if rollout.on_stop == "revert" and base < max(floor, 1):
        why = f"its base {base} is below {floor}, the min_release of release {because}" if base else "it has no base"
        raise RepositoryError(
            f"a rollout of release {offer} of {family!r} could not be reverted: {why}; start it with --on-stop pause"
        )


def _check_expiry(repository: Repository, family: str, until: int) -> None:
    """Refuse a rollout whose metadata would expire before its end, with keys that no refresh would find."""
    online = Keyring([repository.directory / "keys"])
    for role in (bundles_role(family), rule_role(family)):
        expires = repository.of(role).signed.expires
        if role == rule_role(family):
            expires = repository.now + repository.expires.of(role)
        if expires.timestamp() >= until:
            continue
        needed = role_of(repository.root.signed, repository.targets.signed, role)
        try:
            here = len(online.signers(role, needed.keyids))
        except RepositoryError:
            here = 0  # encrypted, or no key
        if here < needed.threshold:
            end = datetime.fromtimestamp(until, UTC)
            raise RepositoryError(
                f"{role} expires {expires:%Y-%m-%d %H:%M}, before the rollout's deadline {end:%Y-%m-%d %H:%M} (soak x "
                f"waves + deadline), and its keys are not in {repository.directory / 'keys'}, so that no refresh could "
                "renew it; choose a shorter soak or deadline, or sign it anew first"
            )


def dial(
    directory: str | Path, family: str, per_mille: int, *, down: bool = False, access: Access | None = None
) -> Staged:
    """Turn the dial of a rollout; the salt stays, so whoever was selected stays selected by a higher dial.

    A dial at the last wave or above ends the rollout, since nobody waits for reports then.

    Args:
        down: allow a dial below the present one; devices outside go back to the base.

    Raises:
        RepositoryError: if there is no rollout, the dial is no per mille, is there already, or is below the present
            one without ``down``; or see :func:`start`.
    """
    with _family(directory, family, access) as repository:
        rollout, rule = _current(repository, family)
        if not 0 <= per_mille <= 1000:
            raise RepositoryError(f"a dial of {percent(per_mille)} is not possible; it must be from 0% to 100%")
        if per_mille == rollout.dial:
            raise RepositoryError(f"the dial of {family!r} is at {percent(per_mille)} already")
        if per_mille < rollout.dial and not down:
            raise RepositoryError(
                f"a dial of {percent(per_mille)} is below the present {percent(rollout.dial)}, and sends devices back "
                "to the base; if that is right, add --down"
            )
        if per_mille > rollout.dial and down:
            raise RepositoryError(
                f"a dial of {percent(per_mille)} is above the present {percent(rollout.dial)}: no --down"
            )
        turned = rollout.turned(per_mille, _seconds(repository), by_hand=True)
        _commit(repository, _turned(rule, turned), turned)
    return turned


def _turned(rule: Rollout, rollout: Staged) -> Rollout:
    """Return the rule that follows ``rule`` when the dial has been turned."""
    per_mille, moment = rollout.rules[-1]
    deadline = rollout.horizon(moment, per_mille)
    return replace(rule, serial=rollout.serial, per_mille=per_mille, signed_at=moment, deadline=deadline)


def pause(directory: str | Path, family: str, *, access: Access | None = None) -> Staged:
    """Let a rollout rest: its rule stays, and :func:`advance` does nothing.

    Raises:
        RepositoryError: if no rollout runs.
    """
    with _family(directory, family, access) as repository:
        rollout, _ = _current(repository, family)
        if rollout.state != "running":
            raise RepositoryError(f"the rollout of {family!r} is {rollout.state}; only a running one can be paused")
        rested = rollout.paused()
        write_kept(repository, rested, rule_digest(repository, family))
    return rested


def resume(directory: str | Path, family: str, *, access: Access | None = None) -> Staged:
    """Let a paused rollout go on; the soak of its wave starts anew.

    Raises:
        RepositoryError: if the rollout is not paused.
    """
    with _family(directory, family, access) as repository:
        rollout, _ = _current(repository, family)
        if rollout.state != "paused":
            raise RepositoryError(f"the rollout of {family!r} is {rollout.state}; only a paused one can be resumed")
        going = rollout.resumed(_seconds(repository))
        write_kept(repository, going, rule_digest(repository, family))
    return going


def revert(directory: str | Path, family: str, *, to: int | None = None, access: Access | None = None) -> int:
    """Offer the base, or an older signed release, to every device, by a newer rule; it ends a rollout.

    Args:
        to: the release; None for the base of the rule in force.

    Returns:
        The release that is offered now.

    Raises:
        RepositoryError: if there is no rule or no base, ``to`` is not signed, not below the release that the rule
            offers, or below the ``min_release`` of a signed bundle; or see :func:`start`.
    """
    with _family(directory, family, access) as repository:
        return _revert(repository, family, read_kept(repository, family), to)


def _revert(repository: Repository, family: str, rollout: Staged | None, to: int | None) -> int:
    rule = repository.rule(family)
    if rule is None:
        raise RepositoryError(f"{family!r} has no rule yet, so there is nothing to revert")
    if to is None and rule.base is None:
        raise RepositoryError(
            f"the rule of {family!r} offers release {rule.offer.release} and has no base; name a release with --to"
        )
    release = to if to is not None else rule.base.release if rule.base is not None else 0
    if to is not None and to >= rule.offer.release:
        raise RepositoryError(f"release {to} is not below {rule.offer.release}, which the rule of {family!r} offers")
    back: Artefact = signed_artefact(repository, family, release)
    floor, because = highest_min_release(repository, family)
    if release < floor:
        raise RepositoryError(f"release {release} of {family!r} is below {floor}, the min_release of release {because}")
    following = Rollout(back, rule.serial + 1, None, rule.salt, 1000, _seconds(repository))
    ended = rollout.ended("stopped") if rollout is not None and _belongs(rule, rollout) else None
    _commit(repository, following, ended)
    return release


def advance(
    directory: str | Path, family: str, reports: str | Path, *, access: Access | None = None
) -> tuple[Decision, Staged]:
    """Decide by the reports in a directory whether a rollout goes on, and do it.

    Returns:
        The decision, and the rollout after it.

    Raises:
        RepositoryError: if there is no rollout, or the directory of reports cannot be read; or see :func:`start`.
    """
    with _family(directory, family, access) as repository:
        rollout, rule = _last(repository, family)
        found, unread = read_reports(reports)
        decision = decide(rollout, found, _seconds(repository))
        counts = replace(decision.counts, ignored=(*unread, *decision.counts.ignored))
        decision = replace(decision, counts=counts)
        if decision.action == "stop" and rollout.on_stop == "revert":
            _revert(repository, family, rollout, None)
            return decision, rollout.ended("stopped")
        if decision.action == "advance" and rollout.following is not None:
            rollout = rollout.turned(rollout.following, _seconds(repository))
            _commit(repository, _turned(rule, rollout), rollout)
        elif decision.action in ("stop", "done"):
            rollout = rollout.paused() if decision.action == "stop" else rollout.ended("done")
            write_kept(repository, rollout, rule_digest(repository, family))
    return decision, rollout


def status(directory: str | Path, family: str, *, access: Access | None = None) -> Status:
    """Return a family's rollout, running or the last one, and the rule in force.

    Raises:
        RepositoryError: if there was none.
    """
    with _family(directory, family, access or Access(clock_ok=True)) as repository:
        return Status(*_last(repository, family))
