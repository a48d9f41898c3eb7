"""The command line: one table, name -> function; everything heavy is imported inside the functions."""

from __future__ import annotations

from seedcnn.terminal import run_program

__all__ = ["main"]


def main() -> int:
    """Entry point of ``seedcnn``: 0 on success, 1 with one sentence on standard error, 2 for a wrong command line.

    See :func:`seedcnn.terminal.run_program` for output that nobody reads or that cannot be written.
    """
    return run_program("seedcnn", _run)


def _run() -> None:
    from seedcnn.cli._arguments import naming_plugins
    from seedcnn.cli._together import one_voice
    from seedcnn.cli.app import app

    with one_voice(), naming_plugins():
        app(prog_name="seedcnn", standalone_mode=True)
