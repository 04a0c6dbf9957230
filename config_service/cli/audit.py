"""The commands about the log: who changed what, and whether it is still what it was.

They talk HTTP to a running service; ``audit verify --store-url`` opens a stopped store instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import typer

from .arguments import DEFAULT_URL, AsJson, Token, Url, command
from .exits import CommandError, ExitCode, code_of_status
from .manage import ManageApi
from .output import print_fields, print_json, print_line, print_table
from .progress import progress
from .wire import AUDIT_COLUMNS, AUDIT_ROUTE, FINDING_COLUMNS, audit_row, finding_row, rows_of, text

Anchor = Annotated[
    str | None,
    typer.Option("--anchor", metavar="REVISION:LINK", help="What `audit head` printed once.", show_default=False),
]


def add_commands(program: typer.Typer) -> None:
    """Add the group ``audit`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "list")(list_entries)
    command(group, "head")(head)
    command(group, "verify")(verify)
    program.add_typer(group, name="audit", help="See who changed what, and verify that it is still what it was.")


def list_entries(
    name: Annotated[str | None, typer.Option(help="About this config.", metavar="NAME", show_default=False)] = None,
    by: Annotated[
        int | None, typer.Option("--by", min=0, metavar="ID", help="By or about this token.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="At this time (RFC 3339) or later.", show_default=False)
    ] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Of this kind.", show_default=False)] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """List the changes of the store: what, when, by which token, from where. Never a value."""
    query = {"name": name, "token": None if by is None else str(by), "since": since, "kind": kind}
    with ManageApi(url, token) as service:
        rows = list(_entries(service, query))
    if as_json:
        print_json({"entries": rows})
    else:
        print_table(AUDIT_COLUMNS, [audit_row(row) for row in rows])


def head(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """Print the anchor of the log as it is now. Keep it elsewhere, for `audit verify --anchor`."""
    with ManageApi(url, token) as service:
        answer = service.call("GET", f"{AUDIT_ROUTE}/head")
    if as_json:
        print_json(answer)
    else:
        print_line(text(answer, "anchor"))


def verify(
    anchor: Anchor = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            "--store-url",
            metavar="URL",
            help="Verify this store, which no service uses, instead. Needs CONFIG_SERVER_MASTER_KEY.",
            show_default=False,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Verify that nothing was altered, removed, moved or inserted behind the service's back. Changes nothing."""
    if store_url is not None:
        from .verifying import verify_store  # noqa: PLC0415 - the service is loaded when a store is to be opened

        report = verify_store(store_url, anchor, _watched)
    else:
        with ManageApi(url, token) as service, service.stream(f"{AUDIT_ROUTE}/verify", query={"anchor": anchor}) as got:
            report = _watched(_parsed(got))
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report.get("sound") is not True:
        raise CommandError(
            "the log or the store is not what it was; keep it as it is, and restore a backup that was kept elsewhere",
            ExitCode.TAMPERED,
        )


def _entries(service: ManageApi, query: Mapping[str, str | None]) -> Iterator[Mapping[str, object]]:
    after: object = 0
    while after is not None:
        answer = service.call("GET", AUDIT_ROUTE, query={**query, "after": str(after)})
        yield from rows_of(answer, "entries")
        after = answer.get("after")


def _watched(lines: Iterable[Mapping[str, object]]) -> Mapping[str, object]:
    """Show how far a verification is, and return its report. Raises CommandError when there is none."""
    before = 0
    with progress("verifying") as advance:
        for line in lines:
            report, error, done, total = (line.get(field) for field in ("report", "error", "done", "total"))
            if isinstance(report, dict):
                return report
            if isinstance(error, dict):
                raise CommandError(text(error, "message"), code_of_status(503))
            if isinstance(done, int) and isinstance(total, int):
                advance(done - before)
                before = done
    raise CommandError("the verification was cut off before its end; try again", ExitCode.UNAVAILABLE)


def _parsed(chunks: Iterator[bytes]) -> Iterator[Mapping[str, object]]:
    """Yield the JSON objects of ``chunks``, one a line."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            yield value if isinstance(value, dict) else {}


def _show(report: Mapping[str, object]) -> None:
    findings, told = rows_of(report, "findings"), report.get("head")
    if findings:
        print_table(FINDING_COLUMNS, [finding_row(row) for row in findings])
    elif isinstance(told, dict):
        print_fields({"STATE": "sound", "REVISION": text(told, "revision"), "ANCHOR": text(told, "anchor")})
