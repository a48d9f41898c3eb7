"""The command ``seedcnn-device``. It uses argparse, so that it needs nothing beyond the device extra."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedcnn.bundle import check_family
from seedcnn.device.config import check_url
from seedcnn.runtime.names import AUTO, RUNTIMES
from seedcnn.terminal import run_program, version

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

    command = add("status", "show slots, floor, runtime and the last step", "status --json")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.set_defaults(run=_status)


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
    command.set_defaults(run=_init)

    command = add("update", "install the release that the repository's rollout rule requires", "update")
    command.set_defaults(run=_update)

    command = add("predict", "classify images, or a .npy batch of them", "predict cat.png dog.jpg --resize")
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image, or .npy of uint8 [N, H, W, 3]")
    command.add_argument("--resize", action="store_true", help="scale images of another size instead of refusing them")
    command.add_argument("--json", action="store_true", help="one JSON list instead of text")
    _add_threads(command)
    command.add_argument(
        "--runtime",
        choices=(AUTO, *RUNTIMES),
        help="runtime instead of init's choice; the model is tested in it first",
    )
    command.set_defaults(run=_predict)
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
    )
    print(f"{arguments.home} is ready; next: seedcnn-device --home {arguments.home} update")


def _update(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import update

    print(update(arguments.home).message)


def _predict(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import open_home
    from seedcnn.device.health import self_test
    from seedcnn.device.runtime import Model, load_batch, load_image

    model = Model.load(open_home(arguments.home), threads=arguments.threads, runtime=arguments.runtime)
    if arguments.runtime is not None:
        # The update tested the model in init's runtime, not in this one.
        self_test(model.session, model.bundle)
    rule = model.bundle.manifest.preprocessing
    results: list[dict[str, Any]] = []
    for path in arguments.images:
        if path.suffix == ".npy":
            images = load_batch(path, rule)
            names = [f"{path}[{index}]" for index in range(len(images))]
        else:
            images, names = load_image(path, rule, resize=arguments.resize)[None], [str(path)]
        answers = model.predict(images)
        for name, index, label, probability in zip(
            names, answers.indices, answers.labels, answers.probabilities, strict=True
        ):
            results.append({"image": name, "index": int(index), "label": label, "probability": float(probability)})
    if arguments.json:
        print(json.dumps(results))
        return
    for result in results:
        print(f"{result['image']}: {result['label']} {result['probability']:.4f}")


def _bench(arguments: argparse.Namespace) -> None:
    from seedcnn.device.agent import open_home
    from seedcnn.device.bench import bench, lines

    slots = open_home(arguments.home)
    result = bench(slots, runtimes=arguments.runtime, threads=arguments.threads, rounds=arguments.rounds)
    print(json.dumps(asdict(result), indent=2) if arguments.json else "\n".join(lines(result)))


def _choice(choice: dict[str, Any]) -> str:
    """Format one remembered choice of "auto"."""
    medians = ", ".join(f"{name} {value:.3f} ms" for name, value in choice["medians_ms"].items())
    failed = "; ".join(f"{name} failed: {reason}" for name, reason in choice["failed"].items())
    why = "; ".join(filter(None, [medians, failed])) or "the only runtime installed"
    threads = choice["threads"]
    return f"{choice['runtime']}, {threads} thread{'s' * (threads > 1)} ({why})"


def _status(arguments: argparse.Namespace) -> None:
    from seedcnn.device.status import status

    result = status(arguments.home)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    result["choices"] = "; ".join(map(_choice, result["choices"]))
    if result["runtime"] == AUTO and not result["choices"]:
        result["choices"] = "none yet"
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items() if item != "")
        print(f"{name}: {value if value not in ('', None) else '-'}")


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
