"""The main job with nothing in between: a real service on a real socket, the real SDK, a real database."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from config_client import (
    ConfigChangeEvent,
    ConfigClient,
    DecryptionError,
    ForbiddenError,
    Format,
    GetOptions,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
    UnmarshalError,
)
from config_service.process import Credentials, Operator, ServiceProcess

DOCUMENT = {"database": {"host": "db1", "port": 5432}, "log_level": "info"}


@dataclass
class Database:
    host: str
    port: int = 1


@dataclass
class Orders:
    database: Database
    log_level: str = "warning"


class OrdersModel(BaseModel):
    database: dict[str, Any]
    log_level: str


def test_a_published_config_is_read_back_byte_for_byte_and_in_every_target(
    operator: Operator, connect: Callable[..., ConfigClient]
) -> None:
    """What is published is served unchanged, and decodes into a dict, a dataclass and a pydantic model."""
    raw = b'{ "database": {"host":"db1",  "port":5432},\n "log_level":"info" }'
    assert operator.publish("orders", raw) == 1
    client = connect()
    assert client.get_bytes("orders") == raw
    assert client.get_raw("orders") == DOCUMENT
    assert client.get("orders", Orders) == Orders(Database("db1", 5432), "info")
    assert client.get("orders", OrdersModel).database["port"] == 5432


def test_a_running_process_takes_every_change_and_refuses_one_that_does_not_fit(
    operator: Operator, watch: Callable[..., Any]
) -> None:
    """The snapshot fills at once, follows changes, keeps its value at an unfit one, and goes on after it."""
    operator.publish("orders", DOCUMENT)
    watching = watch("orders", Orders)
    assert watching.snapshot.wait_for(version=1, timeout=60)
    operator.publish("orders", {"database": {"host": "db2"}})
    assert watching.snapshot.wait_for(version=2, timeout=60)
    assert watching.snapshot.load() == Orders(Database("db2", 1), "warning")
    operator.publish("orders", {"database": {"host": 7}})
    assert watching.wait_for_error(UnmarshalError)
    assert watching.snapshot.load() == Orders(Database("db2", 1), "warning")
    operator.publish("orders", DOCUMENT)
    assert watching.snapshot.wait_for(version=4, timeout=60)
    assert watching.versions == [1, 2, 4]


def test_a_rollback_and_a_new_start_after_a_deletion_reach_the_watcher(
    operator: Operator, watch: Callable[..., Any]
) -> None:
    """A rollback is a newer version of an older document; a deletion keeps the value; publishing again replaces it."""
    operator.publish("orders", {"n": 1})
    watching = watch("orders")
    operator.publish("orders", {"n": 2})
    assert watching.snapshot.wait_for(version=2, timeout=60)
    assert operator.roll_back("orders", 1) == 3
    assert watching.snapshot.wait_for(version=3, timeout=60)
    assert watching.snapshot.load() == {"n": 1}
    assert operator.delete("orders") == 4
    assert watching.wait_for_error(NotFoundError)
    assert watching.snapshot.load() == {"n": 1}
    assert operator.publish("orders", {"n": 5}) == 5
    assert watching.snapshot.wait_for(version=5, timeout=60)
    assert watching.raised == []


def test_environments_labels_and_versions_are_told_apart(
    operator: Operator, connect: Callable[..., ConfigClient], watch: Callable[..., Any]
) -> None:
    """The same name in another environment or label is another config; an old version stays readable."""
    operator.publish("orders", {"n": "default"})
    operator.publish("orders", {"n": "prod"}, environment="prod")
    operator.publish("orders", {"n": "branch"}, environment="prod", label="feature/x")
    operator.publish("orders", {"n": "default 2"})
    client = connect()
    assert client.get_raw("orders") == {"n": "default 2"}
    assert client.get_raw("orders", GetOptions(version=1)) == {"n": "default"}
    assert client.get_raw("orders", GetOptions(environment="prod")) == {"n": "prod"}
    assert client.get_raw("orders", GetOptions(environment="prod", label="feature/x")) == {"n": "branch"}
    with pytest.raises(NotFoundError):
        client.get_raw("orders", GetOptions(version=9))
    watching = watch("orders", dict, GetOptions(environment="prod"))
    assert watching.snapshot.wait_for(version=1, timeout=60)
    operator.publish("orders", {"n": "default 3"})
    operator.publish("orders", {"n": "branch 2"}, environment="prod", label="feature/x")
    operator.publish("orders", {"n": "prod 2"}, environment="prod")
    assert watching.snapshot.wait_for(version=2, timeout=60)
    assert watching.snapshot.load() == {"n": "prod 2"}
    assert watching.versions == [1, 2]


def test_watch_tells_of_every_change_in_every_environment_in_order(
    operator: Operator, connect: Callable[..., ConfigClient]
) -> None:
    """``watch`` without an environment hears of all of them, once each, with who published and what was deleted."""
    operator.publish("orders", {"n": 1}, environment="prod")
    heard: Queue[ConfigChangeEvent] = Queue()
    client = connect()
    thread = threading.Thread(target=client.watch, args=("orders", heard.put), daemon=True)
    thread.start()
    _await_watcher(operator, heard)
    operator.publish("orders", {"n": 2})
    operator.delete("orders", environment="prod")
    first, second = heard.get(timeout=60), heard.get(timeout=60)
    assert (first.environment, first.version, first.deleted) == ("default", 1, False)
    assert (second.environment, second.deleted) == ("prod", True)
    assert first.changed_by == second.changed_by == 1
    assert first.timestamp <= second.timestamp
    client.close()
    thread.join(60)
    assert not thread.is_alive()


def _await_watcher(operator: Operator, heard: Queue[ConfigChangeEvent]) -> None:
    """Publish until the watch hears of it: only then is its stream known to be open. Then empty the queue."""
    for number in range(200):
        version = operator.publish("orders", {"probe": number}, environment="prod")
        try:
            while heard.get(timeout=0.1).version != version:
                pass
        except Empty:
            continue
        return
    raise AssertionError("the watch never heard of a change")


def test_exports_are_rendered_by_the_service(operator: Operator, connect: Callable[..., ConfigClient]) -> None:
    """JSON comes as published, YAML and ENV as other tools read them; what has no faithful ENV form is refused."""
    operator.publish("orders", b'{"db": {"host": "a b", "port": 5432}, "tags": ["x"], "none": null}')
    client = connect()
    assert client.get_formatted("orders", Format.JSON) == client.get_bytes("orders")
    assert client.get_formatted("orders", Format.YAML) == (b"db:\n  host: a b\n  port: 5432\ntags:\n- x\nnone: null\n")
    lines = client.get_formatted("orders", Format.ENV).decode().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["DB_HOST", "DB_PORT", "TAGS", "NONE"]
    operator.publish("orders", b'{"a": {"b": 1}, "a_b": 2}')
    with pytest.raises(InvalidResponseError, match="422 at /"):
        client.get_formatted("orders", Format.ENV)


def test_the_list_tells_what_the_token_may_read(operator: Operator, connect: Callable[..., ConfigClient]) -> None:
    """A row per readable name; a deleted one is not valid."""
    operator.publish("orders", {"n": 1})
    operator.publish("payments", {"n": 1})
    operator.publish("secret", {"n": 1})
    operator.delete("payments")
    client = connect(operator.mint("narrow", scopes=("orders@*:read", "pay*@default:read")))
    assert [(info.name, info.is_valid) for info in client.list()] == [("orders", True), ("payments", False)]
    assert all(info.updated_at.utcoffset() is not None for info in client.list())


def test_wrong_credentials_and_narrow_scopes_get_their_own_errors(
    service: ServiceProcess, operator: Operator, access: Credentials, connect: Callable[..., ConfigClient]
) -> None:
    """401, 403 and 404 surface as typed errors, a wrong key as DecryptionError."""
    operator.publish("orders", DOCUMENT)
    with pytest.raises(UnauthorizedError):
        connect(service_token="cst_unknown").get_raw("orders")
    with pytest.raises(DecryptionError):
        connect(encryption_key="ab" * 32).get_raw("orders")
    narrow = connect(operator.mint("narrow", scopes=("orders@default:read",)))
    assert narrow.get_raw("orders") == DOCUMENT
    for refused in (
        lambda: narrow.get_raw("payments"),
        lambda: narrow.get_raw("orders", GetOptions(environment="prod")),
        lambda: narrow.get_formatted("orders", Format.JSON),
    ):
        with pytest.raises(ForbiddenError):
            refused()
    with pytest.raises(NotFoundError):
        connect().get_raw("no-such-config")


def test_a_revoked_token_loses_its_stream_at_once(
    service: ServiceProcess, operator: Operator, watch: Callable[..., Any]
) -> None:
    """Revocation ends the watch with UnauthorizedError, and the value stays."""
    operator.publish("orders", DOCUMENT)
    watching = watch("orders")
    assert watching.snapshot.wait_for(timeout=60)
    operator.revoke(2)
    watching.thread.join(60)
    assert [type(error) for error in watching.raised] == [UnauthorizedError]
    assert watching.snapshot.load() == DOCUMENT


def test_an_unchanged_config_is_not_sent_again_and_sealed_only_once(
    service: ServiceProcess, operator: Operator, access: Credentials
) -> None:
    """Two GETs carry the same sealed bytes; with the ETag the answer is 304; another version has another ETag."""
    operator.publish("orders", DOCUMENT)
    url = f"{service.url}/api/v1/service/configs/orders"
    headers = {"X-Service-Token": access.token}
    first, second = httpx.get(url, headers=headers), httpx.get(url, headers=headers)
    assert first.content == second.content
    assert httpx.get(url, headers={**headers, "If-None-Match": first.headers["ETag"]}).status_code == 304
    operator.publish("orders", {"n": 2})
    third = httpx.get(url, headers={**headers, "If-None-Match": first.headers["ETag"]})
    assert third.status_code == 200
    assert third.headers["X-Config-Version"] == "2"


def test_publishing_identical_bytes_makes_no_version(operator: Operator) -> None:
    """The same bytes again are the same version."""
    body = json.dumps(DOCUMENT).encode()
    assert operator.publish("orders", body) == operator.publish("orders", body) == 1
    assert len(operator.history("orders")) == 1


def test_a_token_revoked_while_its_request_is_on_the_way_changes_nothing(
    service: ServiceProcess, operator: Operator
) -> None:
    """The head proves a valid token, the body comes after the revocation: 401, and no version is made."""
    operator.publish("orders", {"n": 1})
    writer = operator.mint("writer", scopes=("*@*:read,write",))
    host, port = service.url.removeprefix("http://").split(":")
    body = b'{"n": 2}'
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"PUT /api/v1/manage/configs/orders HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nX-Service-Token: "
            + writer.token.encode()
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        # The service asks for the body only after it has accepted the token.
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        operator.revoke(2)
        connection.sendall(body)
        assert connection.recv(12) == b"HTTP/1.1 401"
    assert [row["version"] for row in operator.history("orders")] == [1]
