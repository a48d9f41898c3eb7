"""Pieces that both programs share: exit codes, streams that take any text, and tables that never interpret text.

Nothing here imports more than the standard library until a console is asked for.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING, TextIO

from seedcnn.errors import SeedCNNError, missing_extra

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["BROKEN_PIPE", "INTERRUPTED", "console", "prose", "run_program", "version"]

BROKEN_PIPE, INTERRUPTED = 141, 130
"""Exit codes that a shell reports for a program that SIGPIPE or SIGINT has ended."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ASCII = "seedcnn_ascii"


def version() -> str:
    """Return the version of the installed package, or of these sources if none is installed."""
    try:
        return metadata.version("seedcnn")
    except metadata.PackageNotFoundError:
        from seedcnn import __version__

        return __version__


def console(*, stderr: bool = False, highlight: bool = True, width: int | None = None) -> Console:
    """Return a rich console that shows text as it is: ``[red]`` and ``:ghost:`` have no meaning.

    Args:
        stderr: write to standard error instead of standard output.
        highlight: colour numbers and the like.
        width: in characters, where the output is not a terminal.
    """
    from rich.console import Console

    made = Console(stderr=stderr, highlight=highlight, markup=False, emoji=False)
    if width is not None and not made.is_terminal:
        made.width = width
    return made


def prose(console: Console, text: str, style: str | None = None) -> None:
    """Print a text that breaks at words in a terminal, and not at all elsewhere: programs look for whole lines."""
    console.print(text, style=style, highlight=False, soft_wrap=not console.is_terminal)


def run_program(name: str, body: Callable[[], object]) -> int:
    """Run a program's body and return its exit code.

    An expected failure becomes one sentence on standard error and code 1. If the reader of the output has gone away
    (``| head -1``) the program ends silently with code 141. Output that cannot be written for another reason is code 1
    with a sentence. Characters that the terminal's encoding lacks are replaced.

    Args:
        name: of the program, which begins the sentence.

    Raises:
        SystemExit: if ``body`` raises it.
        BaseException: a defect, with its traceback.
    """
    _prepare()
    streams, ended, code = (sys.stdout, sys.stderr), None, 0
    try:
        body()
    except SystemExit as error:
        ended = error
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.__context__, BrokenPipeError):  # typer and rich end with 1 then
            code = BROKEN_PIPE
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (SeedCNNError, ModuleNotFoundError, OSError, MemoryError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        code = BROKEN_PIPE if isinstance(error, BrokenPipeError) and _reader_is_gone() else _fail(name, sentence)
    sys.stdout, sys.stderr = streams  # typer puts others there when a pipe is broken
    code = _flush(name, code)
    if ended is None:
        return code
    raise SystemExit(ended.code if isinstance(ended.code, str) else code)


def _sentence(error: BaseException) -> str | None:
    """Describe an expected failure; return None for a defect."""
    if isinstance(error, ModuleNotFoundError) and not isinstance(error, SeedCNNError):
        missing = missing_extra(error)
        return None if missing is None else str(missing)
    if isinstance(error, OSError) and not isinstance(error, SeedCNNError):
        if error.filename is None:
            return error.strerror or str(error)
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, MemoryError):
        return str(error) or "not enough memory"
    return str(error)


def _fail(name: str, sentence: str) -> int:
    # Messages of torch and of compilers may hold codes for colours.
    with suppress(OSError):
        print(f"{name}: {_ESCAPES.sub('', sentence)}", file=sys.stderr)
    return 1


def _cannot_write(stream: TextIO) -> str | None:
    """Flush a stream; return a sentence if that fails, and drop what it held."""
    try:
        stream.flush()
    except OSError as error:
        _silence(stream)
        which = "standard error" if stream is sys.stderr else "standard output"
        return f"{which} cannot be written: {error.strerror}"
    return None


def _flush(name: str, code: int) -> int:
    """Write out what the streams hold, so that the interpreter has nothing left to complain about at its end."""
    gone = _reader_is_gone()
    for stream in (sys.stdout, sys.stderr):
        sentence = _cannot_write(stream)
        if sentence is not None and not code:
            code = BROKEN_PIPE if gone else _fail(name, sentence)
    return code


def _silence(stream: TextIO) -> None:
    with suppress(OSError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _reader_is_gone() -> bool:
    """Return whether standard output or standard error is a pipe without a reader."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, io.UnsupportedOperation):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                return True
    return False


def _prepare() -> None:
    """Open what is closed and make the streams replace what their encoding lacks."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file that is opened gets this number, and what is printed goes into it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            errors = "replace" if name == "stdout" else "backslashreplace"
            stream.reconfigure(encoding=_ASCII if ascii_only else stream.encoding, errors=errors)


def _find(name: str) -> codecs.CodecInfo | None:
    """ASCII under another name: typer writes UTF-8 to a stream that says ASCII, whatever its reader can show."""
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        known.streamreader,
        known.streamwriter,
        known.incrementalencoder,
        known.incrementaldecoder,
        name=_ASCII,
    )


codecs.register(_find)
