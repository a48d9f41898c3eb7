"""Options that the commands of ``seedcnn repo`` share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.errors import ConfigError
from seedcnn.literals import parse_duration

if TYPE_CHECKING:
    from seedcnn.server.families import Access

__all__ = [
    "ClockOk",
    "Directory",
    "Keys",
    "OfflineKeys",
    "PassphraseFile",
    "access_of",
    "duration_of",
    "new_passphrase",
    "passphrase_of",
]

ClockOk = Annotated[
    bool, typer.Option("--clock-ok", help="The clock is right, though it is far from the time of the last signing.")
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The repository's directory.", show_default=False)]
Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", metavar="FILE", help="A private key that is not in DIR/keys; may be repeated."),
]
OfflineKeys = Annotated[
    Path | None,
    typer.Option("--offline-keys", metavar="STICK", help="Directory with the keys of root and targets."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="File whose first line is the passphrase of encrypted keys; else asked.",
    ),
]


def duration_of(option: str, text: str) -> timedelta:
    """Parse 90s, 30m, 6h or 2d.

    Raises:
        ConfigError: for anything else, and for no time at all.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}") from None


def _read(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            word = opened.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"--passphrase-file {file} cannot be read: {error.strerror}") from None
    if not word:
        raise ConfigError(f"--passphrase-file {file}: its first line is empty")
    return word


def passphrase_of(file: Path | None) -> Callable[[Path], bytes] | None:
    """Return what finds the passphrase of a key: the file's first line, or the keyboard, once for all keys.

    Returns:
        None without file and terminal.

    Raises:
        ConfigError: if the file cannot be read or begins with an empty line.
    """
    if file is not None:
        word = _read(file)
        return lambda _: word
    if not sys.stdin.isatty():
        return None
    asked: list[str] = []

    def ask(path: Path) -> bytes:
        if not asked:
            asked.append(typer.prompt(f"Passphrase of {path}", hide_input=True, err=True))
        return asked[0].encode()

    return ask


def new_passphrase(file: Path | None) -> bytes:
    """Return the passphrase for keys that will be made; it is asked twice.

    Raises:
        ConfigError: if there is neither a file nor a terminal, or see :func:`passphrase_of`.
    """
    if file is not None:
        return _read(file)
    if not sys.stdin.isatty():
        raise ConfigError(
            "--offline-keys encrypts the keys; give a passphrase with --passphrase-file, or in a terminal"
        )
    word = typer.prompt("Passphrase for the offline keys", hide_input=True, confirmation_prompt=True, err=True)
    return str(word).encode()


def access_of(
    offline_keys: Path | None, keys: list[Path] | None, passphrase_file: Path | None, clock_ok: bool
) -> Access:
    """Gather the keys beyond those in ``DIR/keys``, and how to sign."""
    from seedcnn.server.families import Access

    return Access(offline_keys, tuple(keys or ()), passphrase_of(passphrase_file), clock_ok)
