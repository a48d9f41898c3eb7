"""``seedcnn repo``: create, fill, re-sign and serve a signed repository of bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Publish signed bundles as plain static files.")

_ClockOk = Annotated[
    bool, typer.Option("--clock-ok", help="The clock is right, though it is far from the time of the last signing.")
]
_Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The repository's directory.", show_default=False)]


@app.command()
def init(directory: _Directory) -> None:
    """Create a repository with its signing keys.

    Example: seedcnn repo init fleet
    """
    from seedcnn.server.repository import init_repository

    root = init_repository(directory)
    typer.echo(f"Created the repository. Build {root} into your devices, serve {directory / 'public'},")
    typer.echo(f"and move two of {directory / 'keys'}/root-*.pem to places that are offline.")


@app.command()
def publish(
    directory: _Directory,
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundle files.", show_default=False)],
    deltas: Annotated[int, typer.Option(min=0, max=64, help="Make deltas from this many earlier releases.")] = 3,
    changes_interface: Annotated[
        bool,
        typer.Option(
            "--changes-interface", help="Accept other labels, or an input of another size, than the last release."
        ),
    ] = False,
    clock_ok: _ClockOk = False,
) -> None:
    """Sign bundles and offer each to the devices of its family.

    Example: seedcnn repo publish fleet model.bundle
    """
    from seedcnn.server.repository import publish as publish_one

    for bundle in bundles:
        done = publish_one(directory, bundle, deltas=deltas, changes_interface=changes_interface, clock_ok=clock_ok)
        typer.echo(f"Published {done.target}: {done.size} bytes, SHA-256 {done.sha256}")
        for parent, size in done.deltas.items():
            typer.echo(f"  delta from release {parent}: {size} bytes")


@app.command()
def resign(directory: _Directory, clock_ok: _ClockOk = False) -> None:
    """Renew the signatures of the short-lived metadata; run it daily.

    Example: seedcnn repo resign fleet
    """
    from seedcnn.server.repository import resign as resign_all

    result = resign_all(directory, clock_ok=clock_ok)
    typer.echo(f"Signed anew: {', '.join(result.roles)}")
    for sentence in result.due:
        typer.echo(f"Attention: {sentence}", err=True)


@app.command()
def serve(
    directory: _Directory,
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
