"""`dev`: a whole service for one developer, in a directory that holds nothing else.

Knows directories, permissions and the two tokens of a developer. Listens on loopback only, and takes neither store nor
key from the environment: the shell of a developer may hold those of production.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final

from config_client.crypto import parse_encryption_key
from config_client.errors import ConfigClientError

from ..domain.scopes import SERVICE_SCOPES
from ..operations import Operations
from ..security.tokens import MintedToken
from ..server import run
from ..settings import Settings
from ..token_operations import SYSTEM
from .exits import CommandError, ExitCode
from .output import print_json, print_line, print_note
from .starting import start_failures
from .tokens import client_variables, export_lines

KEY_FILE: Final = "master.key"
STORE_FILE: Final = "config.db"
HOST: Final = "127.0.0.1"
OPERATOR_NAME: Final = "dev operator"
CLIENT_NAME: Final = "dev client"


@dataclass(frozen=True, slots=True)
class _Minted:
    operator: MintedToken
    client: MintedToken


def develop(directory: Path | None, port: int, *, store_url: str | None = None, as_json: bool = False) -> None:
    """Serve ``directory``, or a temporary one, until a signal; print the variables once connections are accepted.

    With ``store_url`` the directory keeps only the key of the store that is there. Raises CommandError.
    """
    if store_url is not None and directory is None:
        raise CommandError("--store-url needs --data: a store is of no use without the key kept there", ExitCode.USAGE)
    with _clean_end(), _directory(directory) as data:
        key = claim_directory(data)
        minted: list[_Minted] = []

        async def prepare(operations: Operations) -> None:
            minted.append(await _mint(operations))

        def announce(url: str) -> None:
            _print_variables(url, minted[0], as_json=as_json)

        with start_failures():
            url = store_url or f"sqlite:///{data.resolve() / STORE_FILE}"
            settings = Settings.load(host=HOST, port=port, store_url=url, master_key=key, previous_master_keys="")
            run(settings, prepare=prepare, announce=announce)


def claim_directory(directory: Path) -> str:
    """Make ``directory`` private and return the master key it keeps, which is made when the directory is new or empty.

    Raises CommandError for a directory that holds anything that is not ours: its permissions are not ours to change.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(directory)
        if names and KEY_FILE not in names:
            raise CommandError(
                f"{directory} holds other things; give a new or empty directory, or one that `dev` made",
                ExitCode.START_FAILED,
            )
        path = directory / KEY_FILE
        key = _read_key(path) if names else secrets.token_hex(32)
        directory.chmod(0o700)
        if names:
            path.chmod(0o600)
        else:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(key + "\n")
    except OSError as error:
        reason = error.strerror
    else:
        return key
    raise CommandError(f"cannot use {directory}: {reason}; give another directory", ExitCode.START_FAILED)


def _read_key(path: Path) -> str:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        parse_encryption_key(text)
    except ConfigClientError:
        pass
    else:
        return text
    raise CommandError(
        f"{path} holds no master key of 64 hex characters; restore it, or give another directory",
        ExitCode.START_FAILED,
    )


async def _mint(operations: Operations) -> _Minted:
    """Make the tokens of this start, and revoke those of earlier ones: their secrets were shown on some terminal."""
    tokens = operations.tokens
    minted = _Minted(await tokens.bootstrap(OPERATOR_NAME), await tokens.bootstrap(CLIENT_NAME, SERVICE_SCOPES))
    admin = minted.operator.token
    for token in tokens.list(admin):
        ours = token.created_by == SYSTEM and token.name in {OPERATOR_NAME, CLIENT_NAME}
        if ours and token.revoked_at is None and token.id not in {admin.id, minted.client.token.id}:
            await tokens.revoke(admin, token.id)
    return minted


def _print_variables(url: str, minted: _Minted, *, as_json: bool) -> None:
    client = client_variables(url, minted.client.secret, minted.client.key.hex())
    operator = {"CONFIG_SERVER_URL": url, "CONFIG_SERVER_TOKEN": minted.operator.secret}
    if as_json:
        # Flushed: whoever started this reads it while it runs.
        print_json({"url": url, "client": client, "operator": operator}, flush=True)
        return
    for line in export_lines(client):
        print_line(line)
    print_note(f"Listening on {url}")
    print_note("The lines on stdout are for a client. For an operator, in another shell:")
    for line in export_lines(operator):
        print_note(line)


@contextmanager
def _directory(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    with TemporaryDirectory(prefix="config-service-dev-") as temporary:
        yield Path(temporary)


@contextmanager
def _clean_end() -> Iterator[None]:
    """End by a signal as by a return, also while the server does not look, so that a temporary directory goes."""
    taken = {signal.SIGTERM: signal.signal(signal.SIGTERM, _end)}
    if sys.platform != "win32":
        # The end of a terminal is the end of what was started in it.
        taken[signal.SIGHUP] = signal.signal(signal.SIGHUP, _pass_on)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _pass_on(_signal: int, _frame: FrameType | None) -> None:
    """Hand SIGHUP to whoever takes SIGTERM now: ``_end``, or the server while it runs."""
    signal.raise_signal(signal.SIGTERM)
