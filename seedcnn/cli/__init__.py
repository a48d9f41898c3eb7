"""The command line: one table, name -> function; everything heavy is imported inside the functions."""

from __future__ import annotations

import sys

from seedcnn.errors import SeedCNNError, missing_extra

__all__ = ["main"]


def main() -> int:
    """Entry point of ``seedcnn``: 0 on success, 1 with one sentence on standard error, 2 for a wrong command line."""
    try:
        from seedcnn.cli.app import app

        app(standalone_mode=True)
    except SeedCNNError as error:
        print(f"seedcnn: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        print(f"seedcnn: {sentence}", file=sys.stderr)
        return 1
    return 0
