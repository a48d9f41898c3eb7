"""The arguments of ``seedcnn-device``. They use argparse, so that the command needs nothing beyond the device extra."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from seedcnn.bundle import check_family
from seedcnn.bundle.rollout import check_cohort, check_device_id
from seedcnn.device.commands import check_command
from seedcnn.device.config import check_url
from seedcnn.device.schedule import parse_interval
from seedcnn.runtime.names import AUTO, RUNTIMES
from seedcnn.terminal import version

__all__ = ["DEFAULT_HOME", "Body", "make_parser"]

DEFAULT_HOME = Path("/var/lib/seedcnn-device")
Body = Callable[[argparse.Namespace], None]
_MAX_THREADS = 1024
_T = TypeVar("_T")


def _argument(check: Callable[[str], _T]) -> Callable[[str], _T]:
    def convert(text: str) -> _T:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


def _threads(text: str) -> int:
    if (threads := _positive(text)) > _MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} must be at most {_MAX_THREADS}")
    return threads


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_threads, default=1, help="threads per inference (default: %(default)s)")


def _add_asking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="JSON instead of text")
    _add_threads(command)
    command.add_argument(
        "--runtime",
        choices=(AUTO, *RUNTIMES),
        help="runtime instead of init's choice; the model is tested in it first",
    )


def _add_reports(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    command = add("bench", "measure the active model: latency, load time, memory, bytes", "bench --threads 2")
    command.add_argument(
        "--runtime",
        nargs="+",
        choices=RUNTIMES,
        default=[],
        metavar="NAME",
        help="default: all that are installed",
    )
    _add_threads(command)
    command.add_argument("--rounds", type=_positive, default=200, help="answers per runtime (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")

    command = add("history", "show the steps of the last updates, the newest last", "history --last 10")
    command.add_argument("--last", type=_positive, metavar="N", help="only the newest N steps")
    command.add_argument("--json", action="store_true", help="a JSON list with every field instead of text")

    command = add("status", "show the active release, the one before it and the last step", "status --verbose")
    shown_as = command.add_mutually_exclusive_group()
    shown_as.add_argument("--verbose", action="store_true", help="also runtime, slots, floor, digests and dates")
    shown_as.add_argument("--json", action="store_true", help="everything as one JSON object instead of text")


def _add_commands(command: argparse.ArgumentParser) -> None:
    for option, words in (
        ("--ready", "run before anything is fetched; unless it exits with 0, the release is held"),
        ("--probe", "run after the switch; unless it exits with 0, the model before takes its place again"),
    ):
        command.add_argument(option, type=_argument(check_command), metavar="CMD", help=f"{words} (60 s, no shell)")


def _add_update(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    command = add(
        "update",
        "do what the repository's rollout rule wants of this device",
        "update --probe '/opt/camera/check --quick'",
    )
    command.add_argument("--now", action="store_true", help="ask even if the repository has asked to wait")
    _add_commands(command)
    _add_outbox(command)

    command = add("run", "keep this device up to date until it is stopped, as a service", "run --every 6h")
    command.add_argument(
        "--every",
        type=_argument(parse_interval),
        default="6h",
        metavar="INTERVAL",
        help="from 1s to 7d; the device's name decides when in it the device asks (default: %(default)s)",
    )
    _add_commands(command)
    _add_outbox(command)

    command = add("rollback", "take the active model back: the one before it answers again", "rollback")
    _add_outbox(command)

    command = add(
        "forget-bad", "let a bundle that failed here be fetched and tried again", "forget-bad 5f0c1a3e9b7d2c48"
    )
    command.add_argument(
        "digest", metavar="DIGEST", help="its SHA-256 as status shows it, or the first 8 digits or more"
    )


def _add_outbox(command: argparse.ArgumentParser) -> None:
    command.add_argument("--reports", type=Path, metavar="DIR", help="directory that the device's reports are put into")


def _add_adapt(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    command = add(
        "adapt",
        "learn the norm statistics of this place from unlabelled pictures, or forget them",
        "adapt --images today/",
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--images", nargs="+", type=Path, metavar="PATH", help="pictures, directories of them, or .npy of uint8 NHWC"
    )
    what.add_argument(
        "--last", type=_positive, metavar="N", help="refused: no process of this command keeps images; see LiveModel"
    )
    what.add_argument("--undo", action="store_true", help="forget the set of --set, or all without it")
    command.add_argument("--set", metavar="NAME", help="name of the place (default: here)")
    _add_threads(command)


def make_parser(bodies: Mapping[str, Body]) -> argparse.ArgumentParser:
    """Return the parser of the command line. ``run`` of the parsed arguments is the body of the command.

    Args:
        bodies: the function of each command by its name.
    """
    parser = argparse.ArgumentParser(
        prog="seedcnn-device",
        description="Keep a signed model up to date and classify images with it.",
        epilog="Example: seedcnn-device init --root root.json --url http://127.0.0.1:8000 --family demo",
    )
    parser.add_argument("--version", action="version", version=f"seedcnn-device {version()}")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="the device's directory (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help, epilog=f"Example: seedcnn-device {example}")
        command.set_defaults(run=bodies[name])
        return command

    command = add(
        "init", "set the trust anchor, the repository and the family", "init --root root.json --url URL --family demo"
    )
    command.add_argument("--root", type=Path, required=True, metavar="FILE", help="the repository's root.json")
    command.add_argument("--url", type=_argument(check_url), required=True, help="base URL of the repository")
    command.add_argument("--family", type=_argument(check_family), required=True, help="model family to run")
    command.add_argument("--factory", type=Path, metavar="BUNDLE", help="bundle that answers until the first update")
    command.add_argument(
        "--runtime",
        choices=(AUTO, *RUNTIMES),
        default="onnxruntime",
        help="runtime; auto measures each new model and takes the faster one (default: %(default)s)",
    )
    command.add_argument(
        "--device-id", type=_argument(check_device_id), metavar="ID", help="the device's name (default: made by chance)"
    )
    command.add_argument("--cohort", type=_argument(check_cohort), metavar="NAME", help="devices it belongs with")

    _add_update(add)

    _add_adapt(add)
    command = add("predict", "classify pictures", "predict cat.png holiday/")
    command.add_argument(
        "pictures", nargs="+", type=Path, metavar="PATH", help="picture, directory of pictures, or .npy of uint8 NHWC"
    )
    _add_asking(command)

    command = add("evaluate", "measure the accuracy on pictures in class folders", "evaluate val")
    command.add_argument("directory", type=Path, metavar="DIR", help="one folder of pictures for each class")
    _add_asking(command)
    _add_reports(add)
    return parser
