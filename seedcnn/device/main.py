"""The command ``seedcnn-device``: the bodies of its commands, which import what they need."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict

from seedcnn.device.answering import evaluate, predict
from seedcnn.device.arguments import DEFAULT_HOME, make_parser
from seedcnn.errors import DeviceError
from seedcnn.messages import shown
from seedcnn.terminal import run_program

__all__ = ["DEFAULT_HOME", "main"]


def _init(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import init

    init(
        arguments.home,
        arguments.root,
        arguments.url,
        arguments.family,
        factory=arguments.factory,
        runtime=arguments.runtime,
        device_id=arguments.device_id,
        cohort=arguments.cohort or "",
    )
    print(f"{arguments.home} is ready; next: seedcnn-device --home {arguments.home} update")


def _update(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import update

    result = update(
        arguments.home,
        now=arguments.now,
        ready=arguments.ready or "",
        probe=arguments.probe or "",
        reports=arguments.reports,
    )
    print(shown(result.message))


def _rollback(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import rollback

    print(shown(rollback(arguments.home, reports=arguments.reports)))


def _run_forever(arguments: argparse.Namespace) -> None:
    from seedcnn.device.service import Request, run_forever

    request = Request(arguments.ready or "", arguments.probe or "", arguments.reports)
    run_forever(arguments.home, arguments.every, request)


def _forget_bad(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import open_home
    from seedcnn.device.bad import forget_bad

    slots = open_home(arguments.home)
    with slots.lock():
        found = forget_bad(slots.home, arguments.digest)
    print(f"forgotten: {found.sha256} of release {found.release}")


def _adapt(arguments: argparse.Namespace) -> None:
    from seedcnn.device.learning import DEFAULT_SET, adapt, undo

    if arguments.last is not None:
        raise DeviceError(
            "--last needs a process that keeps its last images in memory, and this command keeps none: give --images, "
            "or call LiveModel.adapt in your own process"
        )
    if arguments.undo:
        print(f"forgotten: {shown(', '.join(undo(arguments.home, arguments.set)))}")
        return
    name = DEFAULT_SET if arguments.set is None else arguments.set
    try:
        found = adapt(arguments.home, arguments.images, name=name, threads=arguments.threads)
    except ValueError as error:
        raise DeviceError(str(error)) from None
    print(
        f"learned the set {shown(found.name)} from {found.images} images: {found.norms} norms; the answers spread "
        f"over {found.classes:.1f} classes (as shipped: {found.shipped_classes:.1f})"
    )


def _bench(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import open_home
    from seedcnn.device.bench import bench, lines

    slots = open_home(arguments.home)
    result = bench(slots, runtimes=arguments.runtime, threads=arguments.threads, rounds=arguments.rounds)
    print(json.dumps(asdict(result), indent=2) if arguments.json else "\n".join(lines(result)))


def _history(arguments: argparse.Namespace) -> None:
    from seedcnn.device.history import as_json, as_text, history

    entries = history(arguments.home, arguments.last)
    if arguments.json:
        print(json.dumps(as_json(entries), indent=2))
    else:
        print("\n".join(as_text(entries)) or "no step has been journalled yet")


def _status(arguments: argparse.Namespace) -> None:
    from seedcnn.device.status import status
    from seedcnn.device.status_text import brief, full

    result = status(arguments.home)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print("\n".join([brief(result, time.time()), *(full(result) if arguments.verbose else [])]))


_BODIES = {
    "init": _init,
    "update": _update,
    "run": _run_forever,
    "rollback": _rollback,
    "forget-bad": _forget_bad,
    "adapt": _adapt,
    "predict": predict,
    "evaluate": evaluate,
    "bench": _bench,
    "history": _history,
    "status": _status,
}


def _parser() -> argparse.ArgumentParser:
    return make_parser(_BODIES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; by default those of the process.

    Returns:
        0 on success, 1 on a refusal or failure, with one sentence on stderr. Wrong arguments exit with 2. See
        :func:`seedcnn.terminal.run_program` for output that nobody reads or that cannot be written.
    """
    return run_program("seedcnn-device", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    logging.basicConfig(format="seedcnn-device: %(message)s", level=logging.WARNING)
    # It warns of every retry; if the last one fails, that is in the sentence.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # It says so before each https connection of a device without a clock; the certificate's sentence does, too.
    warnings.filterwarnings("ignore", "System time is way off")
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
