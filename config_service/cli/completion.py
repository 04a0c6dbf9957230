"""What the shell completes: names of configs, environments and labels, asked of the service.

Knows the variables of an operator and how long a person waits for a completion. Whatever goes wrong completes nothing:
an error in the middle of a line that somebody types helps nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import typer

from .defaults import DEFAULT_URL
from .wire import CONFIGS_ROUTE, rows_of

PATIENCE: Final = 1.0
"""Seconds for which the service is asked, connecting included."""


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of configs that begin with ``incomplete``."""
    return _complete(context, "name", incomplete)


def complete_environment(context: typer.Context, incomplete: str) -> list[str]:
    """Return the environments in which there are configs."""
    return _complete(context, "environment", incomplete)


def complete_label(context: typer.Context, incomplete: str) -> list[str]:
    """Return the labels under which there are configs."""
    return _complete(context, "label", incomplete)


def _complete(context: typer.Context, field: str, incomplete: str) -> list[str]:
    given: Callable[[str], object] = context.params.get
    url = given("url") or os.environ.get("CONFIG_SERVER_URL") or DEFAULT_URL
    token = given("token") or os.environ.get("CONFIG_SERVER_TOKEN")
    if not isinstance(url, str) or not isinstance(token, str) or not token:
        return []
    try:
        from .manage import ManageApi  # noqa: PLC0415 - only here is the service asked

        with ManageApi(url, token, patience=PATIENCE) as service:
            rows = rows_of(service.call("GET", CONFIGS_ROUTE), "configs")
    except Exception:
        return []
    found = {value for row in rows if isinstance(value := row.get(field), str)}
    return sorted(value for value in found if value.startswith(incomplete) and value.isprintable())
