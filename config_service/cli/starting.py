"""`init` and `serve`: from settings to a store with its first token, or to a service that accepts connections.

Names the concrete application and server, and is imported only when one of these commands runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..app import opened
from ..domain.errors import ServiceError, StoreMissingError
from ..logs import json_line
from ..operations import Operations
from ..server import run
from ..settings import Settings
from .exits import CommandError, ExitCode
from .output import print_json, print_line, print_note

ADMIN_NAME: Final = "admin"


@contextmanager
def start_failures() -> Iterator[None]:
    """Turn what keeps settings, store or server from starting into the command's end."""
    try:
        yield
    except StoreMissingError as error:
        failure = CommandError(f"{error}: is the store URL the one that was meant?", ExitCode.NOT_FOUND)
    except ServiceError as error:
        failure = CommandError(str(error), ExitCode.START_FAILED)
    else:
        return
    raise failure


def init_store(store_url: str | None, *, recover: bool, as_json: bool = False) -> None:
    """Create the store and print its first admin token; with ``recover`` add one to a store that has tokens.

    Raises CommandError.
    """
    with start_failures():
        secret = asyncio.run(_mint_admin(_settings(store_url=store_url), recover))
    if as_json:
        print_json({"token": secret})
    else:
        print_line(secret)
    print_note("This admin token is shown this once: keep it, and give it to `config-service` as CONFIG_SERVER_TOKEN.")


def serve_store(*, host: str | None, port: int | None, store_url: str | None, workers: int | None) -> None:
    """Serve until SIGTERM or SIGINT. What is None is left to the settings. Raises CommandError."""
    with start_failures():
        settings = _settings(host=host, port=port, store_url=store_url, workers=workers)
        run(settings, prepare=_require_token, announce=_announce_json if settings.log_format == "json" else _announce)


async def _mint_admin(settings: Settings, recover: bool) -> str:
    async with opened(settings) as operations:
        if _is_initialised(operations) and not recover:
            raise CommandError(
                "the store has tokens already, and nothing was changed: use an admin token with "
                "`config-service token create`, or, when all of them are lost, `config-service init --recover`",
                ExitCode.CONFLICT,
            )
        return (await operations.tokens.bootstrap(ADMIN_NAME)).secret


async def _require_token(operations: Operations) -> None:
    """Refuse a store that nobody could use: it is new, or not the one that was meant."""
    if not _is_initialised(operations):
        raise CommandError(
            "the store has no token, so nobody could use it: run `config-service init` first, which creates one; if it "
            "did have tokens, CONFIG_SERVER_STORE_URL (or --store-url) names another store, or the file was replaced: "
            "restore it from a backup",
            ExitCode.START_FAILED,
        )


def _is_initialised(operations: Operations) -> bool:
    """Tell whether the store ever had a token: nothing changes without one, so the first change was its creation."""
    return operations.position.revision > 0


def _announce(url: str) -> None:
    print_note(f"Listening on {url}")


def _announce_json(url: str) -> None:
    print_note(json_line("listening", f"Listening on {url}", url=url))


def _settings(**options: str | int | None) -> Settings:
    return Settings.load(**{name: value for name, value in options.items() if value is not None})
