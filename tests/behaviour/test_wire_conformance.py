"""The in-memory service on the wire, beside the real one: the same requests, the same answers, byte for byte.

Both hold the same history, made in the same order, so that versions, revisions and token ids agree. What must differ
is put under one name before it is compared: the epoch, times, key ids and ciphertext, which is opened.
"""

from __future__ import annotations

import json
import re
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from config_client.crypto import Keyring, key_id
from config_client.protocol import (
    CONFIGS_PATH,
    KEY_IDS_HEADER,
    MIN_REVISION_HEADER,
    SERVICE_PATH,
    TOKEN_HEADER,
    WATCH_PATH,
    Held,
    Position,
    dump_watch_request,
)
from config_client.testing import Credentials, InMemoryService
from config_service.process import Operator, ServiceProcess

pytestmark = pytest.mark.e2e

ORDERS = f"{CONFIGS_PATH}/orders"
BOUND = "application/vnd.config-service.sealed; format=2"
# Those of the connection rather than of the answer, and those that every server words as it likes.
_INCIDENTAL = {"date", "server", "connection", "transfer-encoding", "keep-alive", "x-request-id"}
# What only browsers read; the service in memory meets none.
_INCIDENTAL |= {"content-security-policy", "cross-origin-resource-policy", "referrer-policy", "x-content-type-options"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")

Tell = Callable[["Side"], str]


@dataclass
class Side:
    """One of the two services, and what its requests are made of."""

    url: str
    control: InMemoryService | Operator
    app: Credentials
    narrow: Credentials
    epoch: str = ""

    def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str | list[str]] | None = None,
        body: bytes | None = None,
        *,
        secret: str | None = "app",
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Send one request exactly as given, and return the connection and the answer's head."""
        address = urlsplit(self.url)
        connection = HTTPConnection(str(address.hostname), address.port or 0, timeout=20)
        connection.putrequest(method, target, skip_accept_encoding=True)
        token = {"app": self.app.token, "narrow": self.narrow.token}.get(secret or "", secret)
        if token is not None:
            connection.putheader(TOKEN_HEADER, token)
        for name, value in (headers or {}).items():
            for each in value if isinstance(value, list) else [value]:
                connection.putheader(name, self.fill(each))
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection, connection.getresponse()

    def fill(self, text: str) -> str:
        """Return ``text`` with this service's epoch and key id in their places."""
        return text.replace("<epoch>", self.epoch).replace("<key>", key_id(bytes.fromhex(self.app.key)))

    def plain(self, text: str) -> str:
        """Return ``text`` with what differs between two services under one name."""
        for name, credentials in (("<key>", self.app), ("<narrow key>", self.narrow)):
            text = text.replace(key_id(bytes.fromhex(credentials.key)), name)
        return _TIME.sub("<time>", text.replace(self.epoch, "<epoch>"))

    def opened(self, payload: bytes, encoding: int) -> object:
        """Return what a sealed payload holds, and what it is bound to."""
        ring = Keyring((bytes.fromhex(self.app.key),))
        if encoding == 1:
            return ring.open(payload).decode()
        binding, document = ring.open_bound(payload)
        return [self.plain(repr(tuple(binding))), document.decode()]

    def answer(self, *request: Any, **options: Any) -> dict[str, object]:
        """Return everything that one answer tells, fit to be compared."""
        connection, response = self.ask(*request, **options)
        try:
            body = response.read()
            headers = {
                name.lower(): self.plain(value)
                for name, value in response.getheaders()
                if name.lower() not in _INCIDENTAL
            }
            kind = headers.get("content-type", "")
            told: object = self.plain(body.decode("latin-1"))
            if body and kind == "application/octet-stream":
                told = self.opened(body, 1)
            elif body and kind == BOUND:
                told = self.opened(body, 2)
            return {"status": response.status, "headers": headers, "body": told}
        finally:
            connection.close()

    def stream(self, events: int, *request: Any, act: Callable[[Side], None] | None = None) -> dict[str, object]:
        """Open a stream, let ``act`` change something, and return its head and its first ``events`` events."""
        connection, response = self.ask(*request)
        try:
            headers = {
                name.lower(): self.plain(value)
                for name, value in response.getheaders()
                if name.lower() not in _INCIDENTAL
            }
            lines = [response.fp.readline() if response.chunked is False else response.readline()]
            if act is not None:
                act(self)
            found: list[list[object]] = [[]]
            while len(found) <= events:
                line = response.readline()
                assert line, "the stream ended"
                text = line.decode().removesuffix("\n")
                if text == "":
                    found.append([])
                elif text != ":":
                    found[-1].append(self._told(text))
            return {"status": response.status, "headers": headers, "first": lines[0], "events": found[:-1]}
        finally:
            connection.close()

    def _told(self, line: str) -> object:
        if not line.startswith("data: {"):
            return self.plain(line)
        fields = json.loads(line.removeprefix("data: "))
        if "payload" in fields:
            fields["payload"] = self.opened(b64decode(fields["payload"]), fields["format"])
        # In order, because old clients of other languages may mind.
        return [(name, self.plain(value) if isinstance(value, str) else value) for name, value in fields.items()]


def prepare(side: Side) -> Side:
    """Give ``side`` its history."""
    control = side.control
    control.publish("orders", b'{"n": 1}')
    control.publish("orders", b'{"n": 2, "s": "x y"}')
    control.publish("orders", b'{"n": "prod"}', environment="prod")
    control.publish("orders", b'{"n": "branch"}', label="feature/x")
    control.publish("elsewhere", b'{"n": 1}', environment="prod")
    control.publish("odd", b'{"a": {"b": 1}, "a_b": 2}')
    control.publish("gone", b'{"n": 1}')
    control.delete("gone")
    connection, response = side.ask("GET", ORDERS)
    side.epoch = str(response.getheader("X-Config-Epoch"))
    connection.close()
    return side


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, new_store: ServiceProcess) -> Iterator[tuple[Side, Side]]:
    """Run the in-memory service and the real one; no test of this module changes what both hold."""
    process = ServiceProcess(tmp_path_factory.mktemp("conformance"), copy_of=new_store)
    with InMemoryService() as service, process:
        operator = process.operator()
        scopes = ("orders@default:read",)
        minted = [operator.mint("app"), operator.mint("narrow", scopes=scopes)]
        app, narrow = (Credentials(one.token, one.key) for one in minted)
        memory = Side(service.url, service, service.credentials, service.mint(scopes=scopes))
        yield prepare(memory), prepare(Side(process.url, operator, app, narrow))


def agree(sides: tuple[Side, Side], *request: Any, **options: Any) -> dict[str, object]:
    """Ask both services the same; assert that they answer the same, and return the answer."""
    memory, real = (side.answer(*request, **options) for side in sides)
    assert memory == real
    return memory


CONFIGS = {
    "the list": CONFIGS_PATH,
    "a config": ORDERS,
    "an environment": f"{ORDERS}?environment=prod",
    "a label": f"{ORDERS}?label=feature/x",
    "an escaped label": f"{ORDERS}?label=feature%2Fx",
    "an old version": f"{ORDERS}?version=1",
    "empty parameters": f"{ORDERS}?environment=&label=&version=",
    "an unknown parameter": f"{ORDERS}?colour=red&colour=blue",
    "an escaped name": f"{CONFIGS_PATH}/o%72ders",
    "a version that is not": f"{ORDERS}?version=99",
    "version 0": f"{ORDERS}?version=0",
    "a version that is no number": f"{ORDERS}?version=abc",
    "a parameter twice": f"{ORDERS}?version=1&version=2",
    "a query that is not UTF-8": f"{ORDERS}?label=%ff",
    "a bad environment": f"{ORDERS}?environment=a..b",
    "a bad label": f"{ORDERS}?label=a//b",
    "nothing under this name": f"{CONFIGS_PATH}/nothing",
    "nothing in this environment": f"{ORDERS}?environment=staging",
    "a deleted config": f"{CONFIGS_PATH}/gone",
    "a deleted config's old version": f"{CONFIGS_PATH}/gone?version=1",
    "a tombstone": f"{CONFIGS_PATH}/gone?version=2",
    "a reserved name": f"{CONFIGS_PATH}/docs",
    "a name with a space": f"{CONFIGS_PATH}/a%20b",
    "a name that is not UTF-8": f"{CONFIGS_PATH}/%ff",
    "an encoded slash": f"{CONFIGS_PATH}/a%2fb",
    "an encoded backslash": f"{CONFIGS_PATH}/a%5Cb",
    "an encoded null": f"{CONFIGS_PATH}/a%00b",
    "an encoded percent": f"{CONFIGS_PATH}/a%252fb",
    "an incomplete escape": f"{CONFIGS_PATH}/a%2",
    "a dot segment": f"{CONFIGS_PATH}/./orders",
    "an encoded dot segment": f"{CONFIGS_PATH}/%2e%2e/configs",
    "a double slash": f"{CONFIGS_PATH}//orders",
    "a backslash": f"{CONFIGS_PATH}/a\\b",
    "a trailing slash": f"{CONFIGS_PATH}/",
    "an unknown view": f"{ORDERS}/unknown",
    "the prefix alone": SERVICE_PATH,
    "an unknown route": f"{SERVICE_PATH}/nothing",
    "a long query": f"{ORDERS}?x={'y' * 9000}",
    "too many parameters": f"{ORDERS}?{'a=1&' * 101}",
    "an export": f"{ORDERS}/formatted",
    "an export as JSON": f"{ORDERS}/formatted?format=json",
    "an export as YAML": f"{ORDERS}/formatted?format=yaml",
    "an export as ENV": f"{ORDERS}/formatted?format=env&version=2",
    "an export in another format": f"{ORDERS}/formatted?format=toml",
    "an export without a faithful form": f"{CONFIGS_PATH}/odd/formatted?format=env",
    "an export of nothing": f"{CONFIGS_PATH}/nothing/formatted?format=env",
    "a stream of nothing": f"{CONFIGS_PATH}/nothing/watch",
    "a stream of another environment": f"{ORDERS}/watch?environment=staging",
    "a stream with a bad label": f"{ORDERS}/watch?label=a//b",
}


@pytest.mark.parametrize("target", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_path_and_query_is_answered_alike(sides: tuple[Side, Side], method: str, target: str) -> None:
    """Status, headers and body agree, for what is found and for what is refused."""
    answer = agree(sides, method, target)
    assert (answer["body"] == "") == (method == "HEAD")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("target", [CONFIGS_PATH, ORDERS, f"{ORDERS}/formatted", f"{ORDERS}/watch"])
def test_other_methods_are_refused_alike(sides: tuple[Side, Side], method: str, target: str) -> None:
    """405 names the methods of the route."""
    assert agree(sides, method, target)["status"] == 405


@pytest.mark.parametrize("target", [CONFIGS_PATH, ORDERS, f"{ORDERS}/formatted", f"{ORDERS}/watch"])
@pytest.mark.parametrize("secret", [None, "", "cst_unknown", "ünknown"])
def test_every_route_refuses_what_proves_no_token(sides: tuple[Side, Side], target: str, secret: str | None) -> None:
    """401, with the header that says how to authenticate."""
    assert agree(sides, "GET", target, secret=secret)["status"] == 401


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (CONFIGS_PATH, 200),
        (ORDERS, 200),
        (f"{ORDERS}?environment=prod", 403),
        (f"{CONFIGS_PATH}/gone", 403),
        (f"{CONFIGS_PATH}/nothing", 403),
        (f"{ORDERS}/formatted", 403),
        (f"{CONFIGS_PATH}/gone/watch", 403),
        (f"{ORDERS}/watch?environment=prod", 403),
        (f"{ORDERS}/watch?label=nothing", 404),
    ],
)
def test_scopes_are_enforced_alike(sides: tuple[Side, Side], target: str, status: int) -> None:
    """What the scopes do not cover is refused whether or not it exists."""
    assert agree(sides, "HEAD", target, secret="narrow")["status"] == status


@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [
        ('"<epoch>-5-<key>-1"', 304),
        ('W/"<epoch>-5-<key>-1"', 304),
        ('"x", "<epoch>-5-<key>-1"', 304),
        ("*", 304),
        ('"<epoch>-5-<key>-2"', 200),
        ('"<epoch>-4-<key>-1"', 200),
        ("<epoch>-5-<key>-1", 200),
    ],
)
def test_conditional_requests_are_answered_alike(sides: tuple[Side, Side], if_none_match: str, status: int) -> None:
    """The entity tag, which names position, key and encoding, is compared weakly."""
    assert agree(sides, "GET", ORDERS, {"If-None-Match": if_none_match})["status"] == status


def test_conditional_exports_are_answered_alike(sides: tuple[Side, Side]) -> None:
    """Plaintext has entity tags of its own, one for each format."""
    tag = {"If-None-Match": '"<epoch>-5-plain-yaml"'}
    assert agree(sides, "GET", f"{ORDERS}/formatted?format=yaml", tag)["status"] == 304
    assert agree(sides, "GET", f"{ORDERS}/formatted?format=json", tag)["status"] == 200


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (BOUND, BOUND),
        ("application/vnd.config-service.sealed;format=2", BOUND),
        ("Application/Vnd.Config-Service.Sealed; Format=2", BOUND),
        ('application/vnd.config-service.sealed; format="2"', BOUND),
        ("text/html, application/vnd.config-service.sealed; format=2; q=0.5", BOUND),
        ("application/vnd.config-service.sealed; format=2; q=0", "application/octet-stream"),
        ("application/vnd.config-service.sealed; format=2; q=0.000", "application/octet-stream"),
        ("application/vnd.config-service.sealed; format=3", "application/octet-stream"),
        ("application/vnd.config-service.sealed", "application/octet-stream"),
        ("*/*", "application/octet-stream"),
        ("application/vnd.config-service.sealed; format=2; q=2", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_the_sealed_format_is_chosen_alike(sides: tuple[Side, Side], accept: str, media_type: str) -> None:
    """Format 2 only for who asks for exactly that; the binding names the config, its version and its position."""
    answer = agree(sides, "GET", ORDERS, {"Accept": accept})
    assert answer["headers"]["content-type"] == media_type  # type: ignore[index]


@pytest.mark.parametrize(
    ("ids", "status"),
    [
        ("<key>", 200),
        ("0000000000000000, <key>", 200),
        ("0000000000000000", 200),
        ("", 200),
        ("nonsense", 400),
        ("<key>,", 400),
        (", ".join(["0000000000000000"] * 33), 400),
    ],
)
def test_the_ids_of_held_keys_are_read_alike(sides: tuple[Side, Side], ids: str, status: int) -> None:
    """With one key there is no choice, whatever the client says that it holds; what are no ids is refused."""
    assert agree(sides, "GET", ORDERS, {KEY_IDS_HEADER: ids})["status"] == status


@pytest.mark.parametrize(
    ("minimum", "status"),
    [
        ("<epoch>-1", 200),
        ("<epoch>-5", 200),
        ("000000000000000000000000-999999", 200),
        ("<epoch>-999999", 503),
        ("ffffffffffffffffffffffff-1", 503),
        ("5", 400),
        ("nonsense", 400),
    ],
)
@pytest.mark.parametrize("target", [ORDERS, f"{ORDERS}/formatted"])
def test_the_minimum_revision_is_kept_alike(sides: tuple[Side, Side], target: str, minimum: str, status: int) -> None:
    """What is behind says 503 and when to come again; an earlier epoch asks for nothing."""
    assert agree(sides, "GET", target, {MIN_REVISION_HEADER: minimum})["status"] == status


@pytest.mark.parametrize("name", [TOKEN_HEADER, "If-None-Match", MIN_REVISION_HEADER, KEY_IDS_HEADER])
def test_a_header_given_twice_is_read_alike(sides: tuple[Side, Side], name: str) -> None:
    """What two readers could take differently is refused, or means nothing, on both alike."""
    agree(sides, "GET", ORDERS, {name: ["<epoch>-1", "<epoch>-2"]}, secret=None if name == TOKEN_HEADER else "app")


# --- streams ---


def changes(side: Side) -> None:
    """Change a config of its own in every way, and others beside it."""
    side.control.publish("live", b'{"n": "other label"}', label="x")
    side.control.publish("live", b'{"n": 2}')
    side.control.publish("live", b'{"n": 3}')
    roll_back = side.control.rollback if isinstance(side.control, InMemoryService) else side.control.roll_back
    roll_back("live", 2)
    side.control.delete("live")
    side.control.publish("live", b'{"n": "prod"}', environment="prod")
    side.control.publish("live", b'{"n": 6}')


@pytest.fixture
def live(tmp_path_factory: pytest.TempPathFactory, new_store: ServiceProcess) -> Iterator[tuple[Side, Side]]:
    """Run two services of one test's own, which it may change."""
    process = ServiceProcess(tmp_path_factory.mktemp("live"), copy_of=new_store)
    with InMemoryService() as service, process:
        operator = process.operator()
        scopes = ("live@default:read",)
        minted = [operator.mint("app"), operator.mint("narrow", scopes=scopes)]
        app, narrow = (Credentials(one.token, one.key) for one in minted)
        pair = (
            Side(service.url, service, service.credentials, service.mint(scopes=scopes)),
            Side(process.url, operator, app, narrow),
        )
        for side in pair:
            side.control.publish("live", b'{"n": 1}')
            connection, response = side.ask("GET", f"{CONFIGS_PATH}/live")
            side.epoch = str(response.getheader("X-Config-Epoch"))
            connection.close()
        yield pair


def agree_on_stream(sides: tuple[Side, Side], events: int, *request: Any, **options: Any) -> dict[str, Any]:
    """Open the same stream on both; assert that head and events agree, and return them."""
    memory, real = (side.stream(events, *request, **options) for side in sides)
    assert memory == real
    return memory


def test_base_streams_tell_alike(live: tuple[Side, Side]) -> None:
    """Opening, every kind of change, and the replay of what was missed: all agree."""
    path = f"{CONFIGS_PATH}/live/watch"
    told = agree_on_stream(live, 6, "GET", path, act=changes)
    assert [dict(event[2])["version"] for event in told["events"]] == [2, 3, 4, 5, 1, 6]
    replayed = agree_on_stream(live, 6, "GET", path, {"Last-Event-ID": "<epoch>-4"})
    assert (replayed["headers"]["x-config-replay"], replayed["events"]) == ("exact", told["events"])
    narrower = agree_on_stream(live, 5, "GET", f"{path}?environment=default", {"Last-Event-ID": "<epoch>-4"})
    assert [dict(event[2])["version"] for event in narrower["events"]] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("last", ["<epoch>-999999", "000000000000000000000000-1", "nonsense"])
def test_what_cannot_be_replayed_is_reset_alike(live: tuple[Side, Side], last: str) -> None:
    """A position that was never reached, of another epoch, or none at all."""
    told = agree_on_stream(live, 1, "GET", f"{CONFIGS_PATH}/live/watch", {"Last-Event-ID": last})
    assert told["headers"]["x-config-replay"] == "reset"
    assert "event: reset" in told["events"][0]


def held(side: Side, *rows: Held) -> bytes:
    """Return the body of a state-first watch; the epoch ``0`` stands for the service's own."""
    return dump_watch_request(
        row._replace(position=Position(side.epoch, row.position.revision) if row.position else None) for row in rows
    )


def agree_on_states(
    sides: tuple[Side, Side], events: int, *rows: Held, headers: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """As ``agree_on_stream``, for a state-first stream of ``rows``."""
    memory, real = (
        side.stream(events, "POST", WATCH_PATH, headers or {}, held(side, *rows), **options) for side in sides
    )
    assert memory == real
    return memory


def test_state_first_streams_tell_alike(live: tuple[Side, Side]) -> None:
    """What differs is stated, then ``synced``, then every kind of change with its payload."""
    told = agree_on_states(live, 8, Held("live"), Held("nothing"), act=changes)
    names = [event[0] for event in told["events"]]
    assert names == ["event: config_state"] * 2 + ["event: synced"] + ["event: config_changed"] * 5
    states = [dict(event[1]).get("state") for event in told["events"]]
    assert states == ["running", "missing", None, "running", "running", "running", "deleted", "running"]


@pytest.mark.parametrize(
    ("rows", "stated"),
    [
        ([Held("live", position=Position("0" * 24, 4))], []),
        ([Held("live", position=Position("0" * 24, 3))], ["running"]),
        ([Held("live", "default", "main", Position("0" * 24, 4)), Held("live")], ["running"]),
        ([Held("live"), Held("live")], ["running"]),
        ([Held("nothing", position=Position("0" * 24, 4))], ["missing"]),
        ([Held("live", "prod"), Held("live", label="x")], ["missing", "missing"]),
    ],
    ids=["current", "behind", "twice, one behind", "twice", "held and missing", "elsewhere"],
)
def test_what_differs_is_stated_alike(live: tuple[Side, Side], rows: list[Held], stated: list[str]) -> None:
    """A config is stated unless every row of it holds its newest position."""
    told = agree_on_states(live, len(stated) + 1, *rows)
    assert [dict(event[1])["state"] for event in told["events"][:-1]] == stated
    assert told["events"][-1][0] == "event: synced"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[]", 400),
        (b"nonsense", 400),
        (b'[{"name": "a..b"}]', 400),
        (b'[{"name": "live", "epoch": "0"}]', 400),
        (b'[{"name": "live", "label": "a//b"}]', 400),
        (b'[{"name": 7}]', 400),
        (json.dumps([{"name": "a"}] * 10_001).encode(), 400),
        (b"[" + b" " * (4 * 1024 * 1024) + b"]", 413),
    ],
    ids=[
        *["empty", "object", "no rows", "no JSON", "bad name", "half a position", "bad label", "number", "many", "long"]
    ],
)
def test_malformed_watch_requests_are_refused_alike(sides: tuple[Side, Side], body: bytes, status: int) -> None:
    """The body is read as a whole before anything is opened."""
    assert agree(sides, "POST", WATCH_PATH, {}, body)["status"] == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_the_state_first_route_knows_one_method_alike(sides: tuple[Side, Side], method: str) -> None:
    """Anything but POST is refused."""
    assert agree(sides, method, WATCH_PATH)["status"] == 405


def test_the_state_first_route_authenticates_alike(sides: tuple[Side, Side]) -> None:
    """401 for what proves no token, before the body matters."""
    for secret in (None, "cst_unknown"):
        assert agree(sides, "POST", WATCH_PATH, {}, b"nonsense", secret=secret)["status"] == 401


def test_a_position_that_was_never_reached_is_refused_alike(live: tuple[Side, Side]) -> None:
    """503: a replica that is behind must not pretend to know the newest state."""
    memory, real = (
        side.answer("POST", WATCH_PATH, {}, held(side, Held("live", position=Position("0" * 24, 999)))) for side in live
    )
    assert memory == real
    assert memory["status"] == 503


def test_what_is_refused_is_told_as_a_state_alike(live: tuple[Side, Side]) -> None:
    """On a state-first stream a config beyond the token's scopes is one event and never a failed stream."""
    told = []
    for side in live:
        connection, response = side.ask(
            "POST", WATCH_PATH, {}, held(side, Held("other"), Held("live", "prod")), secret="narrow"
        )
        lines = [response.readline() for _ in range(10)]
        told.append([side.plain(line.decode()) for line in lines])
        connection.close()
    assert told[0] == told[1]
    assert sum('"state":"refused"' in line for line in told[0]) == 2


def test_requests_on_one_connection_are_answered_in_order(sides: tuple[Side, Side]) -> None:
    """Pipelined requests get their answers one after the other; ``Connection: close`` ends the connection."""
    for side in sides:
        address = urlsplit(side.url)
        head = f"Host: x\r\n{TOKEN_HEADER}: {side.app.token}\r\n"
        first = f"GET {ORDERS}/formatted HTTP/1.1\r\n{head}\r\n"
        last = f"GET {CONFIGS_PATH}/nothing HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=20) as sock:
            sock.sendall((first * 2 + last).encode())
            received = b""
            while data := sock.recv(65536):
                received += data
        assert re.findall(rb"HTTP/1\.1 (\d{3})", received) == [b"200", b"200", b"404"]
