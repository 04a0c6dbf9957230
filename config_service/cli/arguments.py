"""The arguments that commands share, declared once, and the connection that they describe.

Knows Typer, the names of environment variables and how a duration is written. Knows no command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Final, ParamSpec

import typer

from ..domain.keys import ConfigKey
from ..domain.names import is_savepoint
from . import defaults
from .completion import complete_environment, complete_label, complete_name
from .exits import CommandError, ExitCode, reporting

P = ParamSpec("P")

DEFAULT_URL: Final = defaults.DEFAULT_URL

_DURATION: Final = re.compile(r"(0|[1-9][0-9]{0,8})([smhdw])\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the config.", show_default=False, autocompletion=complete_name)
]
Environment = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        metavar="ENVIRONMENT",
        help="Environment. (default: the token's own)",
        show_default=False,
        autocompletion=complete_environment,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        "-l",
        metavar="LABEL",
        help="Label. (default: main)",
        show_default=False,
        autocompletion=complete_label,
    ),
]
IfMatch = Annotated[
    int | None,
    typer.Option("--if-match", min=1, metavar="N", help="Only while version N is running.", show_default=False),
]
ValidFrom = Annotated[
    str | None,
    typer.Option(
        "--valid-from",
        metavar="TIME",
        help="Run it from this moment on, such as 2030-01-31T12:00:00Z, instead of at once.",
        show_default=False,
    ),
]
Url = Annotated[str, typer.Option("--url", metavar="URL", envvar="CONFIG_SERVER_URL", help="Address of the service.")]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="CONFIG_SERVER_TOKEN",
        help="Operator token. Prefer the variable: arguments are public to every user of the machine.",
        show_default=False,
    ),
]
Diff = Annotated[bool, typer.Option("--diff", help="Show what the draft changes of what is running, values included.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]


def command(program: typer.Typer, name: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator that adds a function to ``program`` as the command ``name`` that reports its failures."""

    def add(function: Callable[P, None]) -> Callable[P, None]:
        return program.command(name)(reporting(function))

    return add


def key_query(name: str, environment: str | None, label: str | None) -> dict[str, str | None]:
    """Return the query that selects the config, after checking its name: it becomes a part of the path.

    Raises InvalidRequestError.
    """
    ConfigKey.of(name, environment or "default", label or "main")
    return {"environment": environment or None, "label": label or None}


def duration(text: str) -> timedelta | None:
    """Return the time that ``text`` spells, a whole number and a unit of s, m, h, d or w; None when it spells none."""
    match = _DURATION.match(text)
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    except OverflowError:
        return None


def version_or_savepoint(text: str) -> int | str:
    """Return the number of a version, or the name of a savepoint, that ``text`` spells. Raises CommandError."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**18:
        return int(text)
    if not is_savepoint(text):
        raise CommandError("a version is named by its number, from 1, or by a savepoint", ExitCode.USAGE)
    return text


def precondition(if_match: int | None) -> dict[str, str]:
    """Return the header that makes a change conditional on the running version."""
    return {} if if_match is None else {"If-Match": f'"{if_match}"'}
