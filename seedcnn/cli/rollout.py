"""``seedcnn rollout``: offer a signed release to a few devices first, and take it back with one command."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedcnn.cli._arguments import AsJson
from seedcnn.cli._repo_options import ClockOk, Directory, Keys, PassphraseFile, access_of, duration_of
from seedcnn.errors import ConfigError

if TYPE_CHECKING:
    from seedcnn.server.deciding import Counts
    from seedcnn.server.staged import Staged

app = typer.Typer(no_args_is_help=True, help="Offer a signed release in waves, and take it back.")

_Family = Annotated[str, typer.Argument(metavar="FAMILY", help="The family's name.", show_default=False)]
_MOST_NAMED = 20  # reports that were ignored


def per_mille_of(option: str, text: str) -> int:
    """Parse 5% or 0.1% into per mille.

    Raises:
        ConfigError: for anything else, and for a percentage finer than 0.1%.
    """
    found = re.fullmatch(r"([0-9]{1,4})(?:\.([0-9]{1,9}))?%", text.strip())
    if not found:
        raise ConfigError(f"{option} {text!r:.80}: it must be a percentage, such as 5% or 0.1%")
    fraction = (found[2] or "").rstrip("0")
    if len(fraction) > 1:
        raise ConfigError(f"{option} {text!r:.80}: a percentage can be no finer than 0.1%")
    return int(found[1]) * 10 + int(fraction or "0")


def _seconds(option: str, text: str) -> int:
    return int(duration_of(option, text).total_seconds())


@app.command()
def start(
    directory: Directory,
    family: _Family,
    release: Annotated[int, typer.Argument(metavar="RELEASE", help="A signed release.", show_default=False)],
    waves: Annotated[str, typer.Option(help="Shares of the devices, rising.")] = "1%,5%,25%,100%",
    soak: Annotated[str, typer.Option(help="How long a wave lasts at least: 30m, 6h, 2d.")] = "6h",
    deadline: Annotated[
        str, typer.Option(help="After its first report, how long a device may be silent before it counts as failed.")
    ] = "3d",
    stop_at: Annotated[str, typer.Option(help="Share of failures above which the rollout stops.")] = "2%",
    on_stop: Annotated[str, typer.Option(metavar="revert|pause", help="What a stop does.")] = "revert",
    cohort: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only for devices of this cohort; may be repeated.")
    ] = None,
    answers: Annotated[int, typer.Option(help="Answers that a device must give before it commits.")] = 0,
    seconds: Annotated[int, typer.Option(help="Seconds that it must run before it commits.")] = 0,
    max_bad: Annotated[int, typer.Option(help="Answers that may fail or not be finite.")] = 0,
    latency_ms: Annotated[int, typer.Option(help="Milliseconds above which an answer is late; 0: none is.")] = 0,
    max_late: Annotated[str, typer.Option(help="Share of the answers that may be late.")] = "100%",
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Offer a release to the first wave; sign it before with repo publish --hold.

    Example: seedcnn rollout start fleet cifar 7 --waves 1%,5%,25%,100% --soak 6h --deadline 3d --stop-at 2%
    """
    from seedcnn.bundle import Probation
    from seedcnn.server.rollouts import Plan
    from seedcnn.server.rollouts import start as start_one

    late = per_mille_of("--max-late", max_late)
    try:
        probation = Probation(answers, seconds, max_bad, latency_ms, late)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    plan = Plan(
        [per_mille_of("--waves", each) for each in waves.split(",")],
        _seconds("--soak", soak),
        _seconds("--deadline", deadline),
        per_mille_of("--stop-at", stop_at),
        on_stop,
        cohort or (),
        probation,
    )
    begun = start_one(directory, family, release, plan, access=access_of(None, key, passphrase_file, clock_ok))
    base = f"release {begun.base}" if begun.base else "what they have"
    typer.echo(f"Release {release} of {family} is offered to {_share(begun)}; the others run {base}")


@app.command()
def status(directory: Directory, family: _Family, as_json: AsJson = False) -> None:
    """Show a rollout, running or the last one, and what the rule in force says.

    Example: seedcnn rollout status fleet cifar
    """
    from seedcnn.server.rollouts import status as status_of

    found = status_of(directory, family)
    rollout, rule = found.rollout, found.rule
    if as_json:
        values: dict[str, Any] = rollout.to_json()
        del values["salts"]
        typer.echo(json.dumps({**values, "dial": rollout.dial, "wave": rollout.wave, "rule": json.loads(rule.dump())}))
        return
    base = f"release {rollout.base}" if rollout.base else "none"
    typer.echo(f"Release {rollout.offer} of {family}, {rollout.state}: base {base}")
    typer.echo(f"  dial: {_share(rollout)}, wave {rollout.wave} of {len(rollout.waves)}")
    typer.echo(f"  since: {datetime.fromtimestamp(rollout.started, UTC):%Y-%m-%d %H:%M} UTC")
    who = f" of {', '.join(rule.cohorts)}" if rule.cohorts else ""
    others = f"; the others run release {rule.base.release}" if rule.base is not None and rule.per_mille < 1000 else ""
    typer.echo(
        f"  rule {rule.serial}: release {rule.offer.release} for {_percent(rule.per_mille)} of the devices{who}{others}"
    )


def _percent(per_mille: int) -> str:
    from seedcnn.server.staged import percent

    return percent(per_mille)


def _share(rollout: Staged) -> str:
    who = f" of {', '.join(rollout.cohorts)}" if rollout.cohorts else ""
    return f"{_percent(rollout.dial)} of the devices{who}"


@app.command()
def pause(directory: Directory, family: _Family) -> None:
    """Let a rollout rest where it is; advance does nothing until resume.

    Example: seedcnn rollout pause fleet cifar
    """
    from seedcnn.server.rollouts import pause as pause_one

    typer.echo(f"Paused at {_share(pause_one(directory, family, access=access_of(None, None, None, True)))}")


@app.command()
def resume(directory: Directory, family: _Family, clock_ok: ClockOk = False) -> None:
    """Let a paused rollout go on; the soak of its wave starts anew.

    Example: seedcnn rollout resume fleet cifar
    """
    from seedcnn.server.rollouts import resume as resume_one

    access = access_of(None, None, None, clock_ok)
    typer.echo(f"Running at {_share(resume_one(directory, family, access=access))}")


@app.command()
def dial(
    directory: Directory,
    family: _Family,
    share: Annotated[str, typer.Argument(metavar="SHARE", help="Such as 5% or 0.1%.", show_default=False)],
    down: Annotated[
        bool, typer.Option("--down", help="Allow a share below the present one; devices outside go to the base.")
    ] = False,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Turn the dial by hand; at the last wave or above, the rollout is done.

    Example: seedcnn rollout dial fleet cifar 5%
    """
    from seedcnn.server.rollouts import dial as dial_one

    access = access_of(None, key, passphrase_file, clock_ok)
    turned = dial_one(directory, family, per_mille_of("SHARE", share), down=down, access=access)
    typer.echo(f"Release {turned.offer} of {family} is offered to {_share(turned)}; the rollout is {turned.state}")


@app.command()
def revert(
    directory: Directory,
    family: _Family,
    to: Annotated[int | None, typer.Option(metavar="RELEASE", help="A signed release instead of the base.")] = None,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Send every device back to the base, or to an older signed release; it ends a rollout.

    Example: seedcnn rollout revert fleet cifar --to 6
    """
    from seedcnn.server.rollouts import revert as revert_one

    release = revert_one(directory, family, to=to, access=access_of(None, key, passphrase_file, clock_ok))
    typer.echo(f"Release {release} of {family} is offered to every device")


@app.command()
def advance(
    directory: Directory,
    family: _Family,
    reports: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory with reports of devices.", show_default=False)
    ],
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Go to the next wave, stop or wait, as the reports say; run it at intervals.

    Example: seedcnn rollout advance fleet cifar --reports reports/
    """
    from seedcnn.server.rollouts import advance as advance_one

    access = access_of(None, key, passphrase_file, clock_ok)
    decision, rollout = advance_one(directory, family, reports, access=access)
    verb = {"wait": "Wait", "advance": "Advance", "stop": "Stop", "done": "Done"}[decision.action]
    typer.echo(f"{verb}: {decision.reason}")
    _print_counts(decision.counts)
    if decision.action == "stop":
        typer.echo("Paused" if rollout.state == "paused" else f"Release {rollout.base} is offered to every device")


def _print_counts(counts: Counts) -> None:
    numbers = ("committed", "failed", "silent", "trying")
    typer.echo("  devices: " + ", ".join(f"{getattr(counts, each)} {each}" for each in numbers))
    if counts.codes:
        reasons = ", ".join(f"{code or 'no reason'} {number}" for code, number in counts.codes.items())
        typer.echo(f"  reasons of failures: {reasons}")
    if counts.earlier:
        typer.echo(f"  reports of earlier rollouts: {counts.earlier}, which do not count")
    for sentence in counts.ignored[:_MOST_NAMED]:
        typer.echo(f"Attention: ignored {sentence}", err=True)
    if (more := len(counts.ignored) - _MOST_NAMED) > 0:
        typer.echo(f"Attention: ignored {more} more", err=True)
