"""``seedcnn repo``: create, fill, renew, check and serve a signed repository of bundles."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from seedcnn.cli import _repo_keys
from seedcnn.cli._repo_options import (
    ClockOk,
    Directory,
    Keys,
    OfflineKeys,
    PassphraseFile,
    duration_of,
    new_passphrase,
    passphrase_of,
)
from seedcnn.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Publish signed bundles as plain static files.")


@app.command()
def init(directory: Directory, offline_keys: OfflineKeys = None, passphrase_file: PassphraseFile = None) -> None:
    """Create a repository with its signing keys.

    Example: seedcnn repo init fleet --offline-keys STICK/
    """
    from seedcnn.server.repository import init_repository

    if offline_keys is None and passphrase_file is not None:
        raise ConfigError(f"--passphrase-file {passphrase_file} has no effect without --offline-keys")
    word = None if offline_keys is None else new_passphrase(passphrase_file)
    root = init_repository(directory, offline_keys=offline_keys, passphrase=word)
    typer.echo(f"Created the repository. Build {root} into your devices and serve {directory / 'public'}.")
    if offline_keys is None:
        kept = directory / "keys"
        typer.echo(f"Move {kept}/root-*.pem and {kept}/targets-*.pem to places that are offline;")
        typer.echo("they are not encrypted. --offline-keys puts them elsewhere from the start, encrypted.")
    else:
        typer.echo(f"The keys of root and targets are in {offline_keys}, encrypted; two of three must sign.")
    typer.echo(f"Add a family with: seedcnn repo add-family {directory} FAMILY")


app.command("add-family")(_repo_keys.add_family)


@app.command()
def publish(
    directory: Directory,
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundle files.", show_default=False)],
    key: Keys = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Sign, but offer to nobody; publishing again without it offers.")
    ] = False,
    deltas: Annotated[int, typer.Option(min=0, max=64, help="Make deltas from this many earlier releases.")] = 3,
    keep: Annotated[
        int, typer.Option(min=1, help="Releases of the family that stay signed, besides the one its rule names.")
    ] = 3,
    changes_interface: Annotated[
        bool,
        typer.Option(
            "--changes-interface", help="Accept other labels, or an input of another size, than the last release."
        ),
    ] = False,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Sign bundles and offer each to the devices of its family.

    Example: seedcnn repo publish fleet model.bundle --key team.pem
    """
    from seedcnn.server.repository import publish as publish_one

    passphrase = passphrase_of(passphrase_file)
    for bundle in bundles:
        done = publish_one(
            directory,
            bundle,
            keys=key or (),
            passphrase=passphrase,
            hold=hold,
            deltas=deltas,
            keep=keep,
            changes_interface=changes_interface,
            clock_ok=clock_ok,
        )
        verb = "Published" if done.offered else "Signed, and held,"
        typer.echo(f"{verb} {done.target}: {done.size} bytes, SHA-256 {done.sha256}")
        for parent, size in done.deltas.items():
            typer.echo(f"  delta from release {parent}: {size} bytes")
        if done.withdrawn:
            typer.echo(f"  no longer signed (--keep {keep}): {', '.join(map(str, done.withdrawn))}")


@app.command()
def refresh(
    directory: Directory,
    every: Annotated[str | None, typer.Option(help="Go on, at this interval: 30m, 6h, 1d.")] = None,
    clock_ok: ClockOk = False,
) -> None:
    """Renew the signatures of metadata that expires; run it daily, or for ever with --every.

    Example: seedcnn repo refresh fleet --every 6h
    """
    from seedcnn.server.refresh import refresh as refresh_once
    from seedcnn.server.refresh import refresh_forever

    if every is None:
        result = refresh_once(directory, clock_ok=clock_ok)
        typer.echo(f"Signed anew: {', '.join(result.roles)}")
        for sentence in result.due:
            typer.echo(f"Attention: {sentence}", err=True)
        return
    interval, stop = duration_of("--every", every), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    refresh_forever(directory, interval, stop, typer.echo, clock_ok=clock_ok)


@app.command()
def prune(
    directory: Directory,
    keep: Annotated[
        int, typer.Option(min=0, help="Releases of each family that stay, besides what its rule names.")
    ] = 3,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Withdraw old releases, and remove files that were superseded six days ago or earlier.

    Example: seedcnn repo prune fleet --keep 3
    """
    from seedcnn.server.repository import prune as prune_all

    done = prune_all(directory, keep=keep, keys=key or (), passphrase=passphrase_of(passphrase_file), clock_ok=clock_ok)
    for family, releases in done.withdrawn.items():
        typer.echo(f"Withdrew releases {', '.join(map(str, releases))} of {family}; their files go in six days")
    for sentence in done.notes:
        typer.echo(f"Attention: {sentence}", err=True)
    if not done.withdrawn:
        typer.echo("No release was withdrawn")


@app.command()
def verify(directory: Directory) -> None:
    """Check every signature, expiry and file; exit with 1 and a sentence for each that is wrong.

    Example: seedcnn repo verify fleet
    """
    from seedcnn.server.verify import verify as verify_all

    problems = verify_all(directory)
    for sentence in problems:
        typer.echo(sentence)
    if problems:
        raise typer.Exit(1)
    typer.echo("Every signature and every file is as it should be")


app.command("keys")(_repo_keys.keys)
app.command("rotate")(_repo_keys.rotate)
app.command("revoke")(_repo_keys.revoke)
app.command("export")(_repo_keys.export)
app.command("sign")(_repo_keys.sign)
app.command("import")(_repo_keys.import_)


@app.command()
def serve(
    directory: Directory,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 lets the system choose.", min=0, max=65535)] = 8000,
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line for each request.")] = False,
) -> None:
    """Serve the public files over HTTP until interrupted.

    Example: seedcnn repo serve fleet --port 8000
    """
    from seedcnn.server.static import serve as bind

    server = bind(directory, host, port, access_log=access_log)
    typer.echo(f"Serving {directory / 'public'} at {server.url}")
    server.run()
