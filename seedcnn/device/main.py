"""The command ``seedcnn-device``. It uses argparse, so that it needs nothing beyond the device extra."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedcnn.bundle import check_family
from seedcnn.bundle.rollout import check_cohort, check_device_id
from seedcnn.device.commands import check_command
from seedcnn.device.config import check_url
from seedcnn.errors import DeviceError, ImageError
from seedcnn.messages import shown
from seedcnn.runtime.names import AUTO, RUNTIMES
from seedcnn.terminal import run_program, version

if TYPE_CHECKING:
    from seedcnn.device.runtime import Answer, Model

__all__ = ["DEFAULT_HOME", "main"]

DEFAULT_HOME = Path("/var/lib/seedcnn-device")
_MAX_THREADS = 1024


def _argument(check: Callable[[str], str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
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
    command.set_defaults(run=_bench)

    command = add("status", "show the active release, the one before it and the last step", "status --verbose")
    shown_as = command.add_mutually_exclusive_group()
    shown_as.add_argument("--verbose", action="store_true", help="also runtime, slots, floor, digests and dates")
    shown_as.add_argument("--json", action="store_true", help="everything as one JSON object instead of text")
    command.set_defaults(run=_status)


def _add_update(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    command = add(
        "update",
        "do what the repository's rollout rule wants of this device",
        "update --probe '/opt/camera/check --quick'",
    )
    command.add_argument("--now", action="store_true", help="ask even if the repository has asked to wait")
    for option, words in (
        ("--ready", "run before anything is fetched; unless it exits with 0, the release is held"),
        ("--probe", "run after the switch; unless it exits with 0, the model before takes its place again"),
    ):
        command.add_argument(option, type=_argument(check_command), metavar="CMD", help=f"{words} (60 s, no shell)")
    command.set_defaults(run=_update)

    command = add(
        "forget-bad", "let a bundle that failed here be fetched and tried again", "forget-bad 5f0c1a3e9b7d2c48"
    )
    command.add_argument(
        "digest", metavar="DIGEST", help="its SHA-256 as status shows it, or the first 8 digits or more"
    )
    command.set_defaults(run=_forget_bad)


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
    command.set_defaults(run=_adapt)
    _add_threads(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedcnn-device",
        description="Keep a signed model up to date and classify images with it.",
        epilog="Example: seedcnn-device init --root root.json --url http://127.0.0.1:8000 --family demo",
    )
    parser.add_argument("--version", action="version", version=f"seedcnn-device {version()}")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="the device's directory (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help, epilog=f"Example: seedcnn-device {example}")

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
    command.set_defaults(run=_init)

    _add_update(add)

    _add_adapt(add)
    command = add("predict", "classify pictures", "predict cat.png holiday/")
    command.add_argument(
        "pictures", nargs="+", type=Path, metavar="PATH", help="picture, directory of pictures, or .npy of uint8 NHWC"
    )
    command.set_defaults(run=_predict)
    _add_asking(command)

    command = add("evaluate", "measure the accuracy on pictures in class folders", "evaluate val")
    command.add_argument("directory", type=Path, metavar="DIR", help="one folder of pictures for each class")
    command.set_defaults(run=_evaluate)
    _add_asking(command)
    _add_reports(add)
    return parser


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

    result = update(arguments.home, now=arguments.now, ready=arguments.ready or "", probe=arguments.probe or "")
    print(shown(result.message))


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


def _model(arguments: argparse.Namespace) -> Model:
    from seedcnn.device.adaptive import AdaptiveModel
    from seedcnn.device.agent import open_home
    from seedcnn.device.health import self_test
    from seedcnn.device.runtime import Model

    model = Model.load(open_home(arguments.home), threads=arguments.threads, runtime=arguments.runtime)
    if arguments.runtime is not None:
        # The update tested the model in init's runtime, not in this one.
        self_test(model.session, model.bundle)
    return AdaptiveModel.beside(model, open_home(arguments.home), threads=arguments.threads)


def _predict(arguments: argparse.Namespace) -> None:
    from seedcnn.device.images import list_pictures

    model = _model(arguments)
    results: list[dict[str, Any]] = []
    errors: list[str] = []
    for answer in _answers(model, list_pictures(arguments.pictures)):
        if answer.error:
            errors.append(answer.error)
            continue
        result = {"image": answer.path, "index": answer.index, "label": answer.label}
        results.append({**result, "probability": answer.probability})
        if not arguments.json:
            print(shown(f"{answer.path}: {answer.label} {answer.probability:.4f}"))
    if arguments.json:
        print(json.dumps(results))
    _report(errors, len(results) + len(errors))


def _answers(model: Model, paths: Iterable[Path]) -> Iterator[Answer]:
    """Answer pictures and NumPy batches, in order."""
    from seedcnn.device.images import load_batch
    from seedcnn.device.runtime import Answer

    for is_batch, group in groupby(paths, lambda path: path.suffix == ".npy"):
        if not is_batch:
            yield from model.predict_files(group)
            continue
        for path in group:
            try:
                found = model.predict(load_batch(path, model.bundle.manifest.preprocessing))
            except ImageError as error:
                yield Answer(str(path), error=str(error))
                continue
            rows = zip(found.indices.tolist(), found.labels, found.probabilities.tolist(), strict=True)
            yield from (Answer(f"{path}[{row}]", *answer) for row, answer in enumerate(rows))


def _report(errors: list[str], total: int) -> None:
    """Name the pictures without an answer on stderr, and fail if there are any."""
    if len(errors) == total == 1:
        raise ImageError(shown(errors[0]))
    for error in errors:
        print(f"seedcnn-device: {shown(error)}", file=sys.stderr)
    if errors:
        raise ImageError(f"{len(errors)} of {total} pictures have no answer")


def _evaluate(arguments: argparse.Namespace) -> None:
    from seedcnn.device.images import list_pictures

    model = _model(arguments)
    labels = model.bundle.manifest.labels
    known = shown(", ".join(labels))
    if not arguments.directory.is_dir():
        raise ImageError(f"{arguments.directory} is not a directory of class folders")
    folders = sorted(each.name for each in arguments.directory.iterdir() if each.is_dir() and each.name[0] != ".")
    if not folders:
        raise ImageError(f"{arguments.directory} holds no class folder; the model knows {known:.200}")
    if unknown := [name for name in folders if name not in labels]:
        named = f"{shown(', '.join(unknown)):.200} in {arguments.directory}"
        raise ImageError(f"the model does not know the class {named}; it knows {known:.200}")
    rows: list[tuple[str, int, int]] = []
    errors: list[str] = []
    for name in folders:
        answers = list(model.predict_files(list_pictures([arguments.directory / name])))
        errors += [answer.error for answer in answers if answer.error]
        right = sum(answer.label == name for answer in answers)
        rows.append((name, right, sum(not answer.error for answer in answers)))
    right, total = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if not total:
        _report(errors, len(errors))
    top1 = 100 * right / total
    if arguments.json:
        by_class = {name: {"right": good, "pictures": count} for name, good, count in rows}
        print(json.dumps({"top1": top1, "right": right, "pictures": total, "by_class": by_class}))
    else:
        print(f"accuracy {top1:.2f} % ({right} of {total} pictures)")
        for name, good, count in rows:
            print(f"  {shown(name)}: {good} of {count}")
    _report(errors, total + len(errors))


def _bench(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import open_home
    from seedcnn.device.bench import bench, lines

    slots = open_home(arguments.home)
    result = bench(slots, runtimes=arguments.runtime, threads=arguments.threads, rounds=arguments.rounds)
    print(json.dumps(asdict(result), indent=2) if arguments.json else "\n".join(lines(result)))


def _status(arguments: argparse.Namespace) -> None:
    from seedcnn.device.status import status
    from seedcnn.device.status_text import brief, full

    result = status(arguments.home)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print("\n".join([brief(result, time.time()), *(full(result) if arguments.verbose else [])]))


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
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
