"""The state of a device for people: one line, and the rest below it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from seedcnn.device.status import FACTORY
from seedcnn.messages import counted, shown
from seedcnn.runtime.names import AUTO

__all__ = ["brief", "full"]

_LONGEST = 100  # characters of a reason in the line
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_WHY = {
    "probe": "the probe failed",
    "bad-answers": "too many answers were bad",
    "late-answers": "too many answers were late",
    "crash-loop": "three starts of the new model ended without an answer",
    "operator": "an operator took the new model back",
    "record": "the record of the probation was damaged",
    "superseded": "another release came before the probation had ended",
}
_BEGUN = {
    "ELIGIBLE": "update",
    "DOWNLOAD": "download",
    "VERIFY": "check of the signature",
    "EXPAND": "expansion",
    "SELFTEST": "self-test",
    "SWITCH": "switch",
}


def _ago(date: str, now: float) -> str:
    """Return how long ago a date was; of one ahead of the clock, or much earlier, the date itself."""
    passed = now - datetime.fromisoformat(date).timestamp()
    if passed < -1:
        return f"{_day_and_time(date)} (ahead of this device's clock)"
    if passed < _MINUTE:
        return f"{counted(max(0, int(passed)), 'second')} ago"
    if passed < _HOUR:
        return f"{counted(int(passed / _MINUTE), 'minute')} ago"
    if passed < 2 * _DAY:
        return f"{passed / _HOUR:.0f} h ago"
    return f"{counted(int(passed / _DAY), 'day')} ago"


def _day_and_time(date: str) -> str:
    return date.replace("T", " ").replace("Z", " UTC")


def _short(reason: str) -> str:
    """Return the heart of a refusal: without the URL that was refused, and without the details in brackets."""
    text = re.sub(r" \(.*\)$", "", shown(reason).rpartition(" was refused: ")[2])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _last(last: dict[str, Any] | None, now: float) -> str:
    if last is None:
        return "nothing tried yet"
    state, release, ago = last["state"], last["release"], _ago(last["date"], now)
    if state == "REFUSED":
        what = "the check failed"
        if release:
            what = f"refused {release}" if "could not" not in last["reason"] else f"{release} could not be installed"
        return f"{what}, {ago}: {_short(last['reason'])}"
    if state == "ROLLED_BACK":
        went = f"back to release {release}" if release else "no model is left"
        why = _WHY.get(last["code"], f"slot {last['slot']} is bad")
        return f"{why}, so {went}, {ago}"
    if state == "HOLD":
        return f"{release} is held, {ago}: {_short(last['reason'])}"
    if state == "CHECK":
        return f"checked {ago}"
    if state in ("ADAPTED", "UNADAPTED"):
        return f"{'learned' if state == 'ADAPTED' else 'forgot'} {_short(last['reason'])}, {ago}"
    if state == "PROBATION":
        return f"switched to {release}, {ago}"
    if state == "COMMITTED":
        return f"installed {release}, {ago}"
    return f"the {_BEGUN[state]} of {release} began {ago} and has not ended"


def _previous(previous: dict[str, Any] | None) -> str:
    if previous is None:
        return "none"
    name = f"release {previous['release']}" if "release" in previous else f"slot {previous['source']}"
    name += " (factory)" if previous["source"] == FACTORY and "release" in previous else ""
    return f"{name}, which cannot be used: {_short(previous['unusable'])}" if "unusable" in previous else name


def brief(status: dict[str, Any], now: float) -> str:
    """Return the state in a line: the active release, the one before it, and the last step.

    Args:
        status: of :func:`seedcnn.device.status.status`.
        now: seconds since 1970, for the times that have passed.
    """
    active, last = status["active"], status["last"]
    parts = []
    if active is not None:
        name = f" ({active['model']})" if active["model"] else ""
        since = f", since {_ago(active['since'], now)}" if active["since"] else ""
        factory = ", the factory model" if active["source"] == FACTORY else ""
        parts += [f"release {active['release']}{name}{factory}{since}", f"previous: {_previous(status['previous'])}"]
    elif not status["current"] and status["factory"] is None and (last is None or last["state"] != "ROLLED_BACK"):
        parts += ["no release yet"]
    else:
        parts += [f"no usable model: {status['problem'].partition(' has no usable model: ')[2]}"]
    if trial := status["probation"]:
        parts += [f"on probation: {trial.get('progress') or trial['unusable']}"]
    parts += [f"last: {_last(last, now)}"]
    if status["clock"]["behind"]:
        parts += [f"clock: {_clock(status['clock'])}"]
    line = f"{status['family']}  {' | '.join(parts)}"
    if active is None:
        line += f"\nnext: seedcnn-device --home {status['home']} update"
    return _shown_lines(line)


def _shown_lines(text: str) -> str:
    """Return lines of text with what cannot be printed as escapes."""
    return "\n".join(map(shown, text.split("\n")))


def _clock(clock: dict[str, Any]) -> str:
    if not clock["behind"]:
        return _day_and_time(clock["date"])
    return (
        f"it says {_day_and_time(clock['date'])}, but {_day_and_time(clock['passed'])} has passed, so the age of the "
        "repository's metadata is unknown"
    )


def _floor(floor: dict[str, Any]) -> str:
    if "unusable" in floor:
        return str(floor["unusable"])
    rule = f", SHA-256 {floor['rule']}" if floor["rule"] else ""
    return f"serial {floor['serial']}, minimum release {floor['min_release']}{rule}"


def _choice(choice: dict[str, Any]) -> str:
    """Describe one remembered choice of "auto"."""
    medians = ", ".join(f"{name} {value:.3f} ms" for name, value in choice["medians_ms"].items())
    failed = "; ".join(f"{name} failed: {reason}" for name, reason in choice["failed"].items())
    why = "; ".join(filter(None, [medians, failed])) or "the only runtime installed"
    return f"{choice['runtime']}, {counted(choice['threads'], 'thread')} ({why})"


def _model(record: dict[str, Any] | None) -> str:
    if record is None:
        return "-"
    if "release" not in record:
        return str(record["unusable"])
    lowest = f", minimum release {record['min_release']}" if record["min_release"] else ""
    delta = f", made by a delta from {record['artefact']}" if record["artefact"] != record["sha256"] else ""
    return f"release {record['release']}{lowest}, {record['size']:,} bytes, SHA-256 {record['sha256']}{delta}"


def _bad(file: dict[str, Any]) -> str:
    return (
        f"{file['sha256']} of release {file['release']}, {counted(file['count'], 'time')}, "
        f"{_day_and_time(file['date'])}: {file['reason']}"
    )


def _probation(trial: dict[str, Any]) -> str:
    if "unusable" in trial:
        return str(trial["unusable"])
    back = {"": "no model", "factory": "the factory model"}.get(trial["before"], f"slot {trial['before']}")
    return f"{trial['progress']}; {trial['bad']} bad, {trial['late']} late; back to {back} if it fails"


def full(status: dict[str, Any]) -> list[str]:
    """Return the rest of the state, a line for each thing, with dates in UTC."""
    active, last = status["active"], status["last"]
    since = f", since {_day_and_time(active['since'])}" if active and active["since"] else ""
    rows = {"home": status["home"], "device": status["device_id"], "cohort": status["cohort"] or "-"}
    rows |= {"url": status["url"], "runtime": status["runtime"]}
    rows["installed"] = ", ".join(f"{name} {number}" for name, number in status["runtimes"].items()) or "no runtime"
    if status["runtime"] == AUTO:
        rows["choices"] = "; ".join(map(_choice, status["choices"])) or "none yet"
    places = {"a": "slot a", "b": "slot b", FACTORY: "factory model"}
    rows["active"] = f"{places[active['source']]}{since}" if active else f"none: {status['problem']}"
    learned = [
        f"{each['name']} ({counted(each['images'], 'image')}, {_day_and_time(each['date'])})" for each in status["sets"]
    ]
    rows["learned"] = "; ".join(learned) or "-"
    rows |= {"slot a": _model(status["slot_a"]), "slot b": _model(status["slot_b"]), "factory": _model(status[FACTORY])}
    rows |= {"floor": _floor(status["floor"]), "clock": _clock(status["clock"])}
    if trial := status["probation"]:
        rows["probation"] = _probation(trial)
    if status["reports"]:
        rows["reports"] = f"{counted(status['reports'], 'report')} {'waits' if status['reports'] == 1 else 'wait'}"
    rows["bad"] = "; ".join(map(_bad, status["bad"])) or "-"
    if wait := status["postponed"]:
        rows["waiting"] = f"until {_day_and_time(wait['date'])}: {wait['reason']}"
    rows["last"] = "-"
    if last:
        about = [f"release {last['release']}"] * bool(last["release"]) + [f"slot {last['slot']}"] * bool(last["slot"])
        about += [last["reason"]] * bool(last["reason"])
        rows["last"] = ", ".join([f"{_day_and_time(last['date'])} {last['state']}", *about])
    width = max(map(len, rows))
    return [shown(f"{name:<{width}}  {text}") for name, text in rows.items()]
