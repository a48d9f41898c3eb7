"""``seedcnn repo``: the commands about keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedcnn.cli._arguments import AsJson
from seedcnn.cli._repo_options import (
    ClockOk,
    Directory,
    Keys,
    OfflineKeys,
    PassphraseFile,
    access_of,
    duration_of,
    passphrase_of,
)

if TYPE_CHECKING:
    from seedcnn.server.inventory import RoleKeys

__all__ = ["add_family", "export", "import_", "keys", "revoke", "rotate", "sign"]

_Role = Annotated[str, typer.Argument(metavar="ROLE", help="root, targets, FAMILY.bundles ...", show_default=False)]
_Todo = Annotated[Path, typer.Argument(metavar="FILE", help="A file of seedcnn repo export.", show_default=False)]


def add_family(
    directory: Directory,
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="The family's name.", show_default=False)],
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="A key of the team, private or public (then another one must sign); may be repeated. "
            "Without it, a key is made in DIR/keys.",
        ),
    ] = None,
    threshold: Annotated[int, typer.Option(help="How many of the keys must sign a bundle.")] = 1,
    offline_keys: OfflineKeys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Let a team sign the bundles of a new family; needs the keys of targets.

    Example: seedcnn repo add-family fleet cifar --key team.pem
    """
    from seedcnn.server.families import add_family as add
    from seedcnn.server.keys import short

    access = access_of(offline_keys, None, passphrase_file, clock_ok)
    added = add(directory, family, key or (), threshold=threshold, access=access)
    typer.echo(f"Added family {family}: {threshold} of {', '.join(map(short, added.team))} must sign its bundles")
    if added.generated is not None:
        typer.echo(f"Its key is {added.generated}; move it to those who publish, and name it there with --key.")


def keys(
    directory: Directory,
    warn: Annotated[
        str, typer.Option(help="Exit with 1 if anything expires within this time: 90s, 30m, 6h, 2d.")
    ] = "2d",
    as_json: AsJson = False,
) -> None:
    """List the roles, their keys, where each key is, and the days to expiry; exit with 1 if one expires soon.

    Example: seedcnn repo keys fleet --warn 2d
    """
    from seedcnn.server.inventory import list_keys

    within = duration_of("--warn", warn)
    rows = list_keys(directory)
    late = [row for row in rows if row.problem or row.left <= within]
    if as_json:
        typer.echo(json.dumps([_row(row) for row in rows], indent=1))
    else:
        _print(rows)
    for row in late:
        when = f"expires in {_days(row)} days" if row.left.total_seconds() > 0 else "has expired"
        typer.echo(f"Attention: {row.role} {row.problem or when}", err=True)
    if late:
        raise typer.Exit(1)


def _days(row: RoleKeys) -> float:
    return int(row.left.total_seconds() / 8640) / 10


def _row(row: RoleKeys) -> dict[str, Any]:
    return {
        "role": row.role,
        "threshold": row.threshold,
        "keys": [{"id": keyid, "place": place} for keyid, place in row.keys.items()],
        "expires": f"{row.expires:%Y-%m-%dT%H:%M:%SZ}" if row.expires else None,
        "days": _days(row) if row.expires else None,
    }


def _print(rows: list[RoleKeys]) -> None:
    from rich.table import Table

    from seedcnn.server.keys import short
    from seedcnn.terminal import console

    table = Table("role", "signs", "key id", "where", "expires", "days")
    for row in rows:
        ids, places = map(short, row.keys), (place or "not known here" for place in row.keys.values())
        signs, expires = f"{row.threshold} of {len(row.keys)}", f"{row.expires:%Y-%m-%d}" if row.expires else "?"
        days = f"{_days(row):.1f}" if row.expires else "?"
        table.add_row(row.role, signs, "\n".join(ids), "\n".join(places), expires, days)
    console(width=160).print(table)


def rotate(
    directory: Directory,
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help="snapshot, timestamp or FAMILY.rule.", show_default=False)
    ],
    offline_keys: OfflineKeys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Give an online role a new key; needs the keys of root, or of targets for a family's rule.

    Example: seedcnn repo rotate fleet timestamp
    """
    from seedcnn.server.families import rotate as rotate_one
    from seedcnn.server.keys import short

    keyid = rotate_one(directory, role, access=access_of(offline_keys, None, passphrase_file, clock_ok))
    typer.echo(f"{role} has the new key {short(keyid)}; devices follow at their next update")


def revoke(
    directory: Directory,
    keyid: Annotated[str, typer.Argument(metavar="KEYID", help="The key's id, or its beginning.", show_default=False)],
    replace_with: Annotated[
        Path | None, typer.Option("--replace-with", metavar="FILE", help="A key that takes its place.")
    ] = None,
    key: Keys = None,
    offline_keys: OfflineKeys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Take a key from every role that has it; needs the keys of root, or of targets for a team's key.

    Example: seedcnn repo revoke fleet 3fa94c1b --replace-with new.pem
    """
    from seedcnn.server.families import revoke as revoke_one

    access = access_of(offline_keys, key, passphrase_file, clock_ok)
    roles = revoke_one(directory, keyid, replace_with=replace_with, access=access)
    typer.echo(f"Revoked {keyid}, which signed {', '.join(roles)}; devices follow at their next update")


def export(
    directory: Directory, role: _Role, passphrase_file: PassphraseFile = None, clock_ok: ClockOk = False
) -> None:
    """Write the next version of a role to standard output, for keys that are offline to sign.

    Example: seedcnn repo export fleet root > todo.json
    """
    from seedcnn.server.ceremony import export as export_one

    text = export_one(directory, role, passphrase=passphrase_of(passphrase_file), clock_ok=clock_ok)
    sys.stdout.write(text.decode())


def sign(
    todo: _Todo,
    key: Annotated[
        list[Path], typer.Option("--key", metavar="FILE", help="A private key; may be repeated.", show_default=False)
    ],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign what was exported; needs neither the repository nor a network.

    Example: seedcnn repo sign todo.json --key root-2.pem
    """
    from seedcnn.server.ceremony import sign_todo, summary

    for line in summary(sign_todo(todo, key, passphrase=passphrase_of(passphrase_file))):
        typer.echo(line)


def import_(
    directory: Directory,
    todo: _Todo,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    clock_ok: ClockOk = False,
) -> None:
    """Publish what offline keys have signed.

    Example: seedcnn repo import fleet todo.json
    """
    from seedcnn.server.ceremony import import_todo

    roles = import_todo(directory, todo, keys=key or (), passphrase=passphrase_of(passphrase_file), clock_ok=clock_ok)
    typer.echo(f"Signed anew: {', '.join(roles)}")
