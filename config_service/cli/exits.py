"""How a command ends: the exit codes, and the one way from a failure to a sentence on stderr.

Knows the service's errors and HTTP statuses as kinds. Knows no command, and prints no secret: a failure that nobody
foresaw is told by its type and place, because its text may hold anything.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final, ParamSpec

import typer

from ..backup.chain import DamagedFileError
from ..domain.errors import InvalidRequestError
from .output import printable

P = ParamSpec("P")


class ExitCode(IntEnum):
    """What a script may tell from the exit status of a command."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    INVALID = 6
    UNAVAILABLE = 7
    START_FAILED = 8
    TAMPERED = 9


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "done",
    ExitCode.UNEXPECTED: "an unexpected failure, or a confirmation declined",
    ExitCode.USAGE: "wrong usage: an unknown option, a missing argument, a file that cannot be read, no operator token",
    ExitCode.DENIED: "the token is unknown, expired or revoked, or its scopes do not cover the request",
    ExitCode.NOT_FOUND: "no such config, version, draft, schema or token, or no store where one was to be opened",
    ExitCode.CONFLICT: "a precondition did not hold, the draft is outdated or a patch does not apply to it, the token "
    "can be given no other key, the store is initialised already or not empty, or the file is there already; nothing "
    "was changed",
    ExitCode.INVALID: "the input was refused: a name, a document, a patch, a schema, a scope, a damaged backup; "
    "nothing was changed",
    ExitCode.UNAVAILABLE: "the service cannot be reached, or cannot serve now",
    ExitCode.START_FAILED: "the service or its store could not be started: settings, master key, lock, damage, "
    "address; or the store holds another history than the one that was served",
    ExitCode.TAMPERED: "`audit verify` found that the log or the store is not what it was, or `keys reseal` could not "
    "seal everything anew",
}
"""One line per code; ``docs/OPERATIONS.md`` says the same, and a test compares them."""

_BY_STATUS: Final[Mapping[int, ExitCode]] = {
    401: ExitCode.DENIED,
    403: ExitCode.DENIED,
    404: ExitCode.NOT_FOUND,
    408: ExitCode.UNAVAILABLE,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
    429: ExitCode.UNAVAILABLE,
}


class CommandError(Exception):
    """A foreseen end of a command: one sentence for the operator, and the exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def code_of_status(status: int) -> ExitCode:
    """Return the exit code for an HTTP status that is not a success."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ExitCode.INVALID if 400 <= status < 500 else ExitCode.UNAVAILABLE


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Return ``command`` such that a failure becomes one sentence on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # Typer's own ways to end; a reader that went away is no failure to report
        except CommandError as error:
            failure = error
        except (InvalidRequestError, DamagedFileError) as error:
            failure = CommandError(str(error), ExitCode.INVALID)
        except Exception as error:
            failure = CommandError(_where(error), ExitCode.UNEXPECTED)
        else:
            return
        print(f"error: {printable(str(failure))}", file=sys.stderr, flush=True)
        raise typer.Exit(failure.code)

    return run


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}; please report it"
