"""The commands that prepare a version before anybody is served it, and the one that shows what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer

from .arguments import (
    DEFAULT_URL,
    AsJson,
    Diff,
    Environment,
    IfMatch,
    Label,
    Name,
    Token,
    Url,
    ValidFrom,
    command,
    key_query,
    precondition,
    version_or_savepoint,
)
from .documents import confirm, print_change, print_document, read_file
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import is_terminal, print_fields, print_json, print_line, print_table
from .sides import document_of, print_draft_difference
from .unified import print_unified
from .wire import (
    DIFFERENCE_COLUMNS,
    DRAFT_COLUMNS,
    DRAFTS_PUBLISH_ROUTE,
    config_route,
    described,
    difference_row,
    draft_row,
    rows_of,
    text,
    violation_lines,
)

_SIDES = "staged, running, the number of a version, a savepoint, or running@ENVIRONMENT"


def add_commands(program: typer.Typer) -> None:
    """Add the group ``draft`` and the command ``diff`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "show")(show)
    command(group, "set")(set_draft)
    command(group, "patch")(patch)
    command(group, "discard")(discard)
    command(group, "validate")(validate)
    command(group, "publish")(publish)
    command(group, "revert")(revert)
    program.add_typer(group, name="draft", help="Prepare a version before anybody is served it.")
    command(program, "diff")(diff)


def show(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    document: Annotated[bool, typer.Option("--document", help="Print the document itself, in plaintext.")] = False,
    difference: Diff = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Show the draft: the version it was made on, time and author; with --document what it says."""
    if document + difference + as_json > 1:
        raise CommandError(
            "--document prints the draft, --diff what it changes, --json what is known of it: choose one",
            ExitCode.USAGE,
        )
    query = key_query(name, environment, label)
    with ManageApi(url, token) as service:
        if document:
            print_document(service.fetch("GET", config_route(name, "draft/document"), query=query))
            return
        if difference:
            print_draft_difference(service, name, query)
            return
        row = service.call("GET", config_route(name, "draft"), query=query)
    if as_json:
        print_json(row)
        return
    print_fields(dict(zip(DRAFT_COLUMNS, draft_row(row), strict=True)) | {"NEWEST": text(row, "newest")})


def set_draft(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File that holds a JSON object; - is standard input.")],
    environment: Environment = None,
    label: Label = None,
    base: Annotated[
        int | None,
        typer.Option(
            "--base",
            min=0,
            metavar="N",
            help="The version that it was made on. (default: that of the draft before, or else the newest)",
            show_default=False,
        ),
    ] = None,
    difference: Diff = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Replace the draft as a whole. Nobody is served it before it is published."""
    query = key_query(name, environment, label) | {"base": None if base is None else str(base)}
    document = read_file(file)
    with ManageApi(url, token) as service:
        row = service.call("PUT", config_route(name, "draft"), query=query, body=document)
        _print_draft(row, as_json)
        if difference and not as_json:
            print_draft_difference(service, name, query)


def patch(
    name: Name,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="File that holds a JSON Merge Patch (an object) or a JSON Patch (an array); - is standard input.",
        ),
    ],
    environment: Environment = None,
    label: Label = None,
    difference: Diff = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Change the draft by a patch, all of it or nothing; without a draft, one begins from what is running."""
    query = key_query(name, environment, label)
    changes = read_file(file)
    kind = "json-patch" if changes.lstrip(b" \t\r\n").startswith(b"[") else "merge-patch"
    headers = {"Content-Type": f"application/{kind}+json"}
    with ManageApi(url, token) as service:
        row = service.call("PATCH", config_route(name, "draft"), query=query, headers=headers, body=changes)
        _print_draft(row, as_json)
        if difference and not as_json:
            print_draft_difference(service, name, query)


def discard(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Discard the draft, which is not kept anywhere."""
    query = key_query(name, environment, label)
    if not yes:
        confirm(f"Discard the draft of {name}?", "discard the draft")
    with ManageApi(url, token) as service:
        row = service.call("DELETE", config_route(name, "draft"), query=query)
    if as_json:
        print_json(row)
        return
    print_line(f"{described(row)}: draft discarded")


def validate(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Tell what publishing the draft would meet; exits with 6 when it does not fit its schema, 5 when outdated."""
    query = key_query(name, environment, label)
    with ManageApi(url, token) as service:
        row = service.call("POST", config_route(name, "draft/validate"), query=query)
    valid, outdated = row.get("valid") is True, row.get("outdated") is True
    if as_json:
        print_json(row)
    elif valid:
        print_line(f"{described(row)}: the draft fits its schema" if row.get("schema_number") else _unchecked(row))
    else:
        for line in violation_lines(rows_of(row, "violations")):
            print_line(line)
    if not valid:
        raise CommandError(f"the draft does not fit schema {text(row, 'schema_number')}", ExitCode.INVALID)
    if outdated:
        raise CommandError(
            f"the draft was made on version {text(row, 'base')}, but version {text(row, 'newest')} is the newest",
            ExitCode.CONFLICT,
        )


def publish(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Names of configs, published together, all or none. NAME=N: only while version N of it is running.",
            show_default=False,
        ),
    ],
    environment: Environment = None,
    label: Label = None,
    if_match: IfMatch = None,
    difference: Diff = False,
    valid_from: ValidFrom = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Publish the draft, which is served at once or from --valid-from on; several NAMEs all of them or none."""
    wanted = [_wanted(each) for each in names]
    if if_match is not None and (len(wanted) > 1 or wanted[0][1] is not None):
        raise CommandError("--if-match is about one draft; write NAME=N for each of several", ExitCode.USAGE)
    queries = [key_query(name, environment, label) for name, _ in wanted]
    if difference and not as_json:
        with ManageApi(url, token) as service:
            for (name, _), query in zip(wanted, queries, strict=True):
                print_draft_difference(service, name, query)
    if len(wanted) == 1:
        name, version = wanted[0]
        headers = precondition(if_match if version is None else version)
        with ManageApi(url, token) as service:
            query = queries[0] | {"valid_from": valid_from}
            row = service.call("POST", config_route(name, "draft/publish"), query=query, headers=headers)
        print_change(row, as_json)
        return
    rows = [
        {"name": name, "if_match": version, **query} for (name, version), query in zip(wanted, queries, strict=True)
    ]
    body = {"drafts": rows} | ({} if valid_from is None else {"valid_from": valid_from})
    with ManageApi(url, token) as service:
        answer = service.call("POST", DRAFTS_PUBLISH_ROUTE, body=json.dumps(body).encode())
    if as_json:
        print_json(answer)
        return
    for made in rows_of(answer, "published"):
        print_change(made, as_json=False)


def _wanted(text: str) -> tuple[str, int | None]:
    """Return the name and, behind ``=``, the version that has to be running."""
    name, equals, version = text.partition("=")
    if equals and not (version.isascii() and version.isdigit() and 0 < int(version) < 10**18):
        raise CommandError("behind NAME= stands the number of the version that has to be running", ExitCode.USAGE)
    return name, int(version) if equals else None


def revert(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="N", help="A version, by number or savepoint, instead of the running one."),
    ] = None,
    difference: Diff = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Make what is running, or an older version, the draft; what the draft held is lost."""
    query = key_query(name, environment, label)
    body = json.dumps({"version": None if version is None else version_or_savepoint(version)}).encode()
    with ManageApi(url, token) as service:
        row = service.call("POST", config_route(name, "draft/revert"), query=query, body=body)
        _print_draft(row, as_json)
        if difference and not as_json:
            print_draft_difference(service, name, query)


def diff(
    name: Name,
    old: Annotated[str, typer.Option("--from", metavar="SIDE", help=f"One of {_SIDES}.")] = "running",
    new: Annotated[str, typer.Option("--to", metavar="SIDE", help="The same.")] = "staged",
    unified: Annotated[
        bool | None,
        typer.Option(
            "--unified/--list",
            help="Show lines of both documents, coloured on a terminal, or list the places that differ. "
            "(default: lines on a terminal, a list elsewhere)",
            show_default=False,
        ),
    ] = None,
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Show what leads from one document of a config to another, values included."""
    place = key_query(name, environment, label)
    with ManageApi(url, token) as service:
        # Asked first in any case: it is what refuses a side that is none.
        answer = service.call("GET", config_route(name, "diff"), query=place | {"from": old, "to": new})
        if as_json:
            print_json(answer)
            return
        documents = _documents(service, name, place, (old, new), unified)
    if documents is not None:
        print_unified(documents[0], documents[1], old, new)
        return
    print_table(DIFFERENCE_COLUMNS, [difference_row(row) for row in rows_of(answer, "differences")])


def _documents(
    service: ManageApi, name: str, place: Mapping[str, str | None], sides: tuple[str, str], unified: bool | None
) -> list[bytes] | None:
    """Return the documents to show as lines; None where a list is wanted, or the token may not read them."""
    if unified is False or (unified is None and not is_terminal()):
        return None
    try:
        return [document_of(service, name, place, side) for side in sides]
    except CommandError as error:
        if unified or error.code is not ExitCode.DENIED:
            raise
    return None


def _unchecked(row: Mapping[str, object]) -> str:
    return f"{described(row)}: there is no schema that the draft would have to fit"


def _print_draft(row: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        print_line(f"{described(row)}: draft on version {text(row, 'base')}")
