"""Write docs/cli.md from the help of the two commands, or check that it is up to date."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDTH = 100
PATH = Path(__file__).parents[1] / "docs" / "cli.md"
INTRO = """# The commands

Written by `make docs` from the commands' own `--help`; CI fails when it is out of date.
"""


def server_help() -> Iterator[tuple[str, str]]:
    """Yield (command, help) of ``seedcnn`` and its subcommands, depth first."""
    from typer.main import get_command

    from seedcnn.cli.app import app

    def walk(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
        # The plain format: the rich one draws boxes that depend on the terminal.
        command.rich_markup_mode = None
        context = command.make_context(
            name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
        )
        yield context.command_path, command.get_help(context)
        for child in getattr(command, "list_commands", lambda _: [])(context):
            if not command.get_command(context, child).hidden:
                yield from walk(command.get_command(context, child), child, context)

    yield from walk(get_command(app), "seedcnn")


def device_help() -> Iterator[tuple[str, str]]:
    """Yield (command, help) of ``seedcnn-device`` and its subcommands, as they print it."""
    from seedcnn.device.main import main as run

    os.environ |= {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}

    def ask(*words: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
            run([*words, "--help"])
        return text.getvalue()

    overview = ask()
    commands = re.findall(r"^    ([a-z-]+)(?: |$)", overview, re.MULTILINE)
    if not commands:
        raise RuntimeError("seedcnn-device --help lists no command")
    yield "seedcnn-device", overview
    for command in commands:
        yield f"seedcnn-device {command}", ask(command)


def render() -> str:
    """Compose the page."""
    parts = [INTRO]
    for name, text in [*server_help(), *device_help()]:
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"## {name}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with ``--check`` compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is out of date")
    check = parser.parse_args().check
    text = render()
    if not check:
        PATH.write_text(text, encoding="utf-8")
        return 0
    if not PATH.exists() or PATH.read_text(encoding="utf-8") != text:
        print(f"{PATH.name} is out of date; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
