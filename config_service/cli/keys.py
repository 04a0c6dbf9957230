"""The commands about the keys of the store: the data key, and the master key over it. They talk HTTP to a service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer

from .arguments import DEFAULT_URL, AsJson, Token, Url, command
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_json, print_line, print_note, print_table
from .progress import progress
from .wire import DATA_KEY_COLUMNS, KEYS_ROUTE, data_key_row, rows_of, text

_PASSES = 8
"""How often everything is gone through; more than once only when it is changed, or the key rotated, meanwhile."""


def add_commands(program: typer.Typer) -> None:
    """Add the group ``keys`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "list")(list_keys)
    command(group, "rotate")(rotate)
    command(group, "reseal")(reseal)
    command(group, "rotate-master")(rotate_master)
    program.add_typer(group, name="keys", help="Rotate the keys over everything that is stored.")


def list_keys(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """List the keys of the store, and how much is sealed under each. No key is shown."""
    with ManageApi(url, token) as service:
        answer = service.call("GET", KEYS_ROUTE)
    _show(answer, as_json=as_json)


def rotate(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """Seal everything new under a fresh data key from now on. Then `keys reseal` does the same with what is there."""
    with ManageApi(url, token) as service:
        answer = service.call("POST", f"{KEYS_ROUTE}/rotate")
    _show(answer, as_json=as_json)
    print_note("What is new is sealed under the new key. Run `config-service keys reseal` for what is there already.")


def rotate_master(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """Wrap the keys of the store under the CONFIG_SERVER_MASTER_KEY that the service was started with."""
    with ManageApi(url, token) as service:
        answer = service.call("POST", f"{KEYS_ROUTE}/rotate-master")
    _show(answer, as_json=as_json)
    if answer.get("changed") is False:
        print_note("Every key was wrapped under this master key already.")
    else:
        print_note(
            "Every key is wrapped under the new master key. Take CONFIG_SERVER_PREVIOUS_MASTER_KEYS out of the "
            "settings of every replica, and keep the old master key as long as you keep backups from before."
        )


def reseal(
    batch: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Values to seal in one step.")] = 32,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Seal everything anew under the active data key, while the service runs; then older keys are destroyed.

    It may be interrupted and begun again at any time.
    """
    resealed, damaged, destroyed = 0, set[str](), list[object]()
    remaining: object = 0
    with ManageApi(url, token) as service:
        for _ in range(_PASSES):
            last, done, faults = _pass(service, batch)
            resealed, remaining, damaged = resealed + done, last.get("remaining"), faults
            destroyed += _listed(last, "destroyed")
            if not remaining or damaged:
                break
    told = {"resealed": resealed, "remaining": remaining, "destroyed": destroyed, "damaged": sorted(damaged)}
    if as_json:
        print_json(told)
    else:
        print_line(f"{resealed} sealed anew, {len(destroyed)} keys destroyed")
    if remaining:
        for fault in sorted(damaged):
            print_note(fault)
        raise CommandError(
            f"{text(told, 'remaining')} values are still sealed under older keys, which are kept: "
            + ("those named above do not open" if damaged else "they change all the time; run it again"),
            ExitCode.TAMPERED if damaged else ExitCode.UNAVAILABLE,
        )


def _pass(service: ManageApi, batch: int) -> tuple[Mapping[str, object], int, set[str]]:
    """Go through everything once; return the last answer, how much was sealed anew, and what does not open."""
    keys = rows_of(service.call("GET", KEYS_ROUTE), "keys")
    total = sum(count for key in keys if isinstance(count := key.get("values"), int))
    resealed, damaged, after = 0, set[str](), None
    with progress("sealing anew", total) as advance:
        while True:
            body = json.dumps({"after": after, "limit": batch}).encode()
            answer = service.call("POST", f"{KEYS_ROUTE}/reseal", body=body)
            advance(_count(answer, "checked"))
            resealed += _count(answer, "resealed")
            damaged |= set(map(str, _listed(answer, "damaged")))
            after = answer.get("after")
            if after is None:
                return answer, resealed, damaged


def _show(answer: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_table(DATA_KEY_COLUMNS, [data_key_row(row, answer) for row in rows_of(answer, "keys")])


def _count(answer: Mapping[str, object], field: str) -> int:
    value = answer.get(field)
    return value if isinstance(value, int) else 0


def _listed(answer: Mapping[str, object], field: str) -> list[object]:
    value = answer.get(field)
    return value if isinstance(value, list) else []
