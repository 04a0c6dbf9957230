"""The commands that start things: a key, a store, the service, everything at once.

Only declarations. The service, its store and its server are loaded when one of these commands runs.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from .arguments import command
from .output import print_json

StoreUrl = Annotated[
    str | None,
    typer.Option("--store-url", help="Where the store is. (default: CONFIG_SERVER_STORE_URL)", show_default=False),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def add_commands(program: typer.Typer) -> None:
    """Add ``keygen``, ``init``, ``serve`` and ``dev`` to ``program``."""
    command(program, "keygen")(keygen)
    command(program, "init")(init)
    command(program, "serve")(serve)
    command(program, "dev")(dev)


def keygen(as_json: AsJson = False) -> None:
    """Print a new master key, for CONFIG_SERVER_MASTER_KEY. Keep it safe: without it a store cannot be read."""
    key = secrets.token_hex(32)
    if as_json:
        print_json({"key": key})
    else:
        print(key)


def init(
    store_url: StoreUrl = None,
    recover: Annotated[
        bool, typer.Option("--recover", help="Add an admin token to a store that has tokens, all of them lost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the store and print its first admin token, once. Needs CONFIG_SERVER_MASTER_KEY."""
    from .starting import init_store  # noqa: PLC0415 - see above

    init_store(store_url, recover=recover, as_json=as_json)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. (default: CONFIG_SERVER_HOST)", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 takes a free one. (default: CONFIG_SERVER_PORT)", show_default=False
        ),
    ] = None,
    store_url: StoreUrl = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Processes that serve; several need PostgreSQL. (default: CONFIG_SERVER_WORKERS)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the service. Needs CONFIG_SERVER_MASTER_KEY; SIGTERM and Ctrl-C end it within 5 seconds."""
    from .starting import serve_store  # noqa: PLC0415

    serve_store(host=host, port=port, store_url=store_url, workers=workers)


def dev(
    data: Annotated[
        Path | None,
        typer.Option(help="Directory that keeps the store and its key. (default: a temporary one)", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    store_url: Annotated[
        str | None,
        typer.Option(
            "--store-url",
            help="Where the store is; needs --data, for its key. (default: SQLite in the directory)",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run everything for development on loopback, and print the variables that a client and an operator need."""
    from .development import develop  # noqa: PLC0415

    develop(data, port, store_url=store_url, as_json=as_json)
