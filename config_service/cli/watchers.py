"""The command that shows who is watching what, and at which version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from .arguments import DEFAULT_URL, AsJson, Token, Url, command
from .completion import complete_environment, complete_name
from .manage import ManageApi
from .output import print_json, print_note, print_table
from .wire import WATCHERS_ROUTE, rows_of, text

_WHO: Final = ("TOKEN", "TOKEN NAME", "ADDRESS", "SINCE", "KIND")
COLUMNS: Final = (*_WHO, "NAME", "ENVIRONMENT", "LABEL", "SENT", "RUNNING", "STATE", "QUEUED")


def add_commands(program: typer.Typer) -> None:
    """Add ``watchers`` to ``program``."""
    command(program, "watchers")(watchers)


def watchers(
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only streams about configs of this name.",
            show_default=False,
            autocompletion=complete_name,
        ),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            "-e",
            metavar="ENVIRONMENT",
            help="Only streams about configs in this environment. (default: any)",
            show_default=False,
            autocompletion=complete_environment,
        ),
    ] = None,
    behind: Annotated[bool, typer.Option("--behind", help="Only what a newer version waits for.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Show who is watching what through the process that answers, and at which version. Needs the right admin."""
    with ManageApi(url, token) as service:
        answer = service.call("GET", WATCHERS_ROUTE, query={"config": config, "environment": environment})
    streams = rows_of(answer, "watchers")
    if behind:
        streams = [_only_behind(stream) for stream in streams if stream.get("behind") is True]
    if as_json:
        print_json({**answer, "watchers": streams})
        return
    print_table(COLUMNS, [row for stream in streams for row in watcher_rows(stream)])
    if answer.get("truncated") is True:
        print_note("There are more: name a config with --config.")


def watcher_rows(stream: Mapping[str, object]) -> list[list[str]]:
    """Return the cells of COLUMNS for every config of a stream; one row of dashes for a stream about none."""
    who = [text(stream, field) for field in ("token_id", "token_name", "address", "since", "kind")]
    queued = text(stream, "queued_frames")
    configs = rows_of(stream, "configs") or [{}]
    return [
        [
            *who,
            *(text(config, field) for field in ("name", "environment", "label", "sent_version", "running_version")),
            "behind" if config.get("behind") is True else "deleted" if config.get("deleted") is True else "current",
            queued,
        ]
        for config in configs
    ]


def _only_behind(stream: Mapping[str, object]) -> Mapping[str, object]:
    return {**stream, "configs": [config for config in rows_of(stream, "configs") if config.get("behind") is True]}
