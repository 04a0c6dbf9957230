"""The commands for tokens. The secret and the key of a new token, and a new key, are printed once and nowhere else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated

import typer

from config_client.protocol import format_timestamp

from .arguments import DEFAULT_URL, AsJson, Token, Url, command, duration
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_fields, print_json, print_line, print_note, print_table
from .wire import TOKEN_COLUMNS, TOKENS_ROUTE, retirements, rows_of, text, token_row

TokenId = Annotated[int, typer.Argument(metavar="ID", min=1, help="Id of the token.", show_default=False)]


def add_commands(program: typer.Typer) -> None:
    """Add the group ``token`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "create")(create)
    command(group, "list")(list_tokens)
    command(group, "rotate-key")(rotate_key)
    command(group, "revoke")(revoke)
    program.add_typer(group, name="token", help="Create, list, rekey and revoke tokens.")


def export_lines(variables: Mapping[str, str]) -> list[str]:
    """Return one ``export NAME=value`` line per variable, quoted for a POSIX shell."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def client_variables(host: str, secret: str, key: str) -> dict[str, str]:
    """Return the environment from which ``ConfigClient.from_env()`` makes a client."""
    return {"CONFIG_SERVICE_HOST": host, "CONFIG_SERVICE_TOKEN": secret, "CONFIG_SERVICE_KEY": key}


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is called in lists.", show_default=False)],
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            "-e",
            metavar="ENVIRONMENT",
            help="Its default environment. (default: default)",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="configs@environments:rights, such as orders-*@prod:read,export; may be repeated. "
            "Rights: read, export, write, admin. (default: *@*:read,export)",
            show_default=False,
        ),
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option("--expires-in", metavar="DURATION", help="Such as 12h, 90d or 2w.", show_default=False),
    ] = None,
    export: Annotated[bool, typer.Option("--export", help="Print a client's three export lines.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Create a token. Its secret and key are shown this once."""
    if export and as_json:
        raise CommandError("--export and --json exclude each other", ExitCode.USAGE)
    wanted: dict[str, object] = {"name": name}
    if environment:
        wanted["environment"] = environment
    if scope:
        wanted["scopes"] = scope
    if expires_in:
        wanted["expires_at"] = format_timestamp(_expiry(expires_in, datetime.now(timezone.utc)))
    with ManageApi(url, token) as service:
        row = service.call("POST", TOKENS_ROUTE, body=json.dumps(wanted).encode())
    if as_json:
        print_json(row)
        return
    if export:
        for line in export_lines(client_variables(url, text(row, "secret"), text(row, "key"))):
            print_line(line)
    else:
        fields = ("id", "name", "environment", "scopes", "expires_at", "secret", "key")
        print_fields({field: text(row, field) for field in fields})
    print_note("The secret and the key are shown this once: hand them to the client now.")


def list_tokens(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """List all tokens, revoked ones included. Secrets and keys are never shown again."""
    with ManageApi(url, token) as service:
        answer = service.call("GET", TOKENS_ROUTE)
    if as_json:
        print_json(answer)
        return
    now = datetime.now(timezone.utc)
    print_table(TOKEN_COLUMNS, [token_row(row, now) for row in rows_of(answer, "tokens")])


def rotate_key(
    token_id: TokenId,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long the old keys stay valid, such as 15m, 24h or 7d; 0 ends them at once. (default: 24h)",
            show_default=False,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Give a token a new key, shown this once. The old keys stay valid for a while, so that nobody is cut off."""
    wanted = {} if overlap is None else {"overlap_seconds": _overlap(overlap)}
    with ManageApi(url, token) as service:
        row = service.call("POST", f"{TOKENS_ROUTE}/{token_id}/key", body=json.dumps(wanted).encode())
    if as_json:
        print_json(row)
        return
    print_fields({field: text(row, field) for field in ("id", "name", "key_id", "key")})
    for line in retirements(row):
        print_note(line)
    print_note("The key is shown this once: put it in the client's CONFIG_SERVICE_KEY, before the old one and a comma.")


def revoke(
    token_id: TokenId,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Revoke a token: it is refused, and its streams end, at once."""
    with ManageApi(url, token) as service:
        row = service.call("DELETE", f"{TOKENS_ROUTE}/{token_id}")
    if as_json:
        print_json(row)
        return
    print_line(f"token {token_id}: revoked")


def _expiry(text: str, now: datetime) -> datetime:
    remaining = duration(text)
    if remaining:
        try:
            return now + remaining
        except OverflowError:
            pass
    raise CommandError(
        "--expires-in is a number and a unit of s, m, h, d or w, such as 90d, and ends before the year 10000",
        ExitCode.USAGE,
    )


def _overlap(text: str) -> int:
    wanted = duration("0s" if text == "0" else text)
    if wanted is None:
        raise CommandError("--overlap is a number and a unit of s, m, h, d or w, such as 24h, or 0", ExitCode.USAGE)
    return int(wanted.total_seconds())
