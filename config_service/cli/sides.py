"""The documents on both sides of a difference, as far as the operator may read them.

Knows the management API, and how a side is spelled. A draft takes the right to write, everything else the right to
export: whoever lacks it is shown no document.
"""

from __future__ import annotations

from collections.abc import Mapping

from config_client.protocol import formatted_path

from .exits import CommandError, ExitCode
from .manage import ManageApi
from .unified import print_unified
from .wire import config_route

STAGED = "staged"
RUNNING = "running"


def document_of(service: ManageApi, name: str, query: Mapping[str, str | None], side: str) -> bytes:
    """Return the document of ``side``: staged, running, the number of a version, or running@ENVIRONMENT.

    Raises CommandError.
    """
    place = {part: query.get(part) for part in ("environment", "label")}
    if side == STAGED:
        return service.fetch("GET", config_route(name, "draft/document"), query=place)
    _, _, environment = side.partition("@")
    number = side if side.isdecimal() else None
    wanted = {**place, "format": "json", "version": number, **({"environment": environment} if environment else {})}
    return service.fetch("GET", formatted_path(name), query=wanted)


def print_draft_difference(service: ManageApi, name: str, query: Mapping[str, str | None]) -> None:
    """Print what the draft changes of what is running; where nothing is running, all of it. Raises CommandError."""
    try:
        running = document_of(service, name, query, RUNNING)
    except CommandError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        running = b""
    print_unified(running, document_of(service, name, query, STAGED), RUNNING, STAGED)
