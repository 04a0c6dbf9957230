"""The commands about versions that wait for their moment. They talk HTTP and know nothing of stores."""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import DEFAULT_URL, AsJson, Environment, Label, Name, Token, Url, command, key_query
from .documents import confirm
from .manage import ManageApi
from .output import print_json, print_line, print_table
from .wire import SCHEDULE_COLUMNS, SCHEDULES_ROUTE, config_route, described, rows_of, schedule_row, text


def add_commands(program: typer.Typer) -> None:
    """Add the group ``schedule`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "list")(list_schedules)
    command(group, "cancel")(cancel)
    program.add_typer(group, name="schedule", help="See and cancel what was published for later.")


def list_schedules(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """List the versions that wait for their moment, as they come due."""
    with ManageApi(url, token) as service:
        answer = service.call("GET", SCHEDULES_ROUTE)
    if as_json:
        print_json(answer)
        return
    print_table(SCHEDULE_COLUMNS, [schedule_row(row) for row in rows_of(answer, "schedules")])


def cancel(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Cancel what is scheduled for a config: that version is kept, and `rollback` can still make it run."""
    query = key_query(name, environment, label)
    if not yes:
        confirm(f"Cancel what is scheduled for {name}?", "cancel the schedule")
    with ManageApi(url, token) as service:
        row = service.call("DELETE", config_route(name, "schedule"), query=query)
    if as_json:
        print_json(row)
        return
    print_line(f"{described(row)}: version {text(row, 'version')} does not run from {text(row, 'valid_from')} on")
