"""docs/PROTOCOL.md against the code: its examples are what the service says to the byte, and nothing is left out."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from config_client import protocol
from config_client.crypto import Keyring, key_id
from config_client.protocol import (
    CONFIGS_PATH,
    Position,
    Standing,
    dump_position,
    parse_change_event,
    parse_config_state,
    parse_position,
    parse_watch_request,
)
from config_service.api.errors import STATUS
from config_service.delivery.frames import change_frame, reset_frame, state_frame
from config_service.domain.errors import ServiceError, ThrottledError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, LogEntry

PAGE = (Path(__file__).parents[3] / "docs" / "PROTOCOL.md").read_text()
KEY = bytes(range(32))
EPOCH = "0192f3a4b5c6d7e8f9a0b1c2"
EVENTS = re.findall(r"((?:^    (?:id|event|data): .*\n)+)", PAGE, re.MULTILINE)


def event(name: str, mark: str = "") -> bytes:
    """Return the one example of an event, as the bytes of a stream."""
    found = [block for block in EVENTS if f"event: {name}\n" in block and mark in block]
    assert len(found) == 1, (name, mark)
    return re.sub(r"^    ", "", found[0], flags=re.MULTILINE).encode() + b"\n"


def test_the_base_stream_is_as_the_page_has_it() -> None:
    """A change and a reset, to the byte."""
    noon = datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=timezone.utc)
    key = ConfigKey("orders")
    entry = LogEntry(42, ChangeKind.PUBLISHED, 3, noon, key, 7)
    shown = event("config_changed", f"id: {EPOCH}-42")
    assert change_frame(entry, key, 7, EPOCH) == shown
    assert parse_change_event(shown.decode().split("data: ")[1]).version == 7
    assert reset_frame(Position(EPOCH, 57)) == event("reset")


@pytest.mark.parametrize(
    ("name", "mark", "standing"),
    [
        ("config_state", '"running"', Standing.RUNNING),
        ("config_state", '"missing"', Standing.MISSING),
        ("config_changed", '"deleted"', Standing.DELETED),
    ],
)
def test_the_state_first_stream_is_as_the_page_has_it(name: str, mark: str, standing: Standing) -> None:
    """What a client reads from each example is, encoded again, the example."""
    shown = event(name, mark)
    state = parse_config_state(shown.decode().split("data: ")[1])
    assert state.standing is standing
    assert state_frame(name, state) == shown


def test_the_payload_on_the_page_opens() -> None:
    """Under the key that the page names, to the document that it names, bound to what stands around it."""
    state = parse_config_state(event("config_state", '"running"').decode().split("data: ")[1])
    assert "the key `000102…1f`" in PAGE
    assert 'opens to `{"port":5432}`' in PAGE
    binding, document = Keyring([KEY]).open_bound(state.payload)
    assert document == b'{"port":5432}'
    assert binding == (EPOCH, state.name, state.environment, state.label, state.version, 42)
    assert f"X-Config-Key-Ids: {key_id(KEY)}\n" in PAGE


def test_synced_and_the_request_are_as_the_page_has_them() -> None:
    """The request is understood, and the position is what the service writes."""
    data = event("synced").decode().split("data: ")[1].rstrip()
    position = parse_position(data)
    assert position == Position(EPOCH, 42)
    assert dump_position(Position(EPOCH, 42)) == data
    (body,) = re.findall(r'^    (\[\{"name".*)$', PAGE, re.MULTILINE)
    first, second = parse_watch_request(body.encode())
    assert (first.name, first.environment, first.position) == ("orders", "prod", Position(EPOCH, 41))
    assert (second.name, second.environment, second.position) == ("billing", None, None)
    assert json.loads(body)[1] == {"name": "billing"}


def test_every_header_route_and_event_of_the_code_is_on_the_page() -> None:
    """By the constants of the module that both ends share."""
    constants: dict[str, Any] = vars(protocol)
    words = {value for name, value in constants.items() if name.endswith(("_HEADER", "_EVENT", "_MEDIA_TYPE"))}
    words |= {standing.value for standing in Standing}
    for word in words:
        assert f"`{word}`" in PAGE or f"`{word}," in PAGE or f" {word}" in PAGE, word
    for route in ("", "/{name}", "/{name}/formatted", "/{name}/watch"):
        assert f"`GET {CONFIGS_PATH.removeprefix(protocol.SERVICE_PATH)}{route}`" in PAGE
    assert f"`POST {protocol.WATCH_PATH.removeprefix(protocol.SERVICE_PATH)}`" in PAGE
    assert f"`{protocol.SERVICE_PATH}`" in PAGE
    assert f"1 to {protocol.MAX_WATCHED} objects" in PAGE


def test_every_refusal_is_on_the_page_with_its_status() -> None:
    """The table of errors and the code's own table agree, row by row."""
    rows = re.findall(r"^\| (\d{3}) \| ((?:`[a-z_]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    told = {code: int(status) for status, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)}
    known = {kind.code: status for kind, status in STATUS.items() if kind not in {ServiceError, ThrottledError}}
    assert {code: told.get(code) for code in known} == known
    assert told.keys() - known.keys() == {"internal", "method_not_allowed"}
