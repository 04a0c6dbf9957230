"""Reading once: what is fetched, listed and exported, and which error tells what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from config_client import (
    DecryptionError,
    ForbiddenError,
    Format,
    GetOptions,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
    UnmarshalError,
)


@dataclass
class Database:
    host: str
    port: int = 5432


@dataclass
class Orders:
    database: Database
    log_level: str = "info"


@pytest.fixture
def connect(subscriber: Callable[..., Any]) -> Callable[..., Any]:
    """Make clients of both kinds."""
    return subscriber


def test_a_published_config_is_read_back_byte_for_byte_and_in_every_target(
    backend: Any, connect: Callable[..., Any]
) -> None:
    """What is published is served unchanged, and decodes into a dict and a dataclass."""
    raw = b'{ "database": {"host":"db1",  "port":5433},\n "log_level":"debug" }'
    assert backend.publish("orders", raw) == 1
    client = connect()
    assert client.get_bytes("orders") == raw
    assert client.get_raw("orders") == {"database": {"host": "db1", "port": 5433}, "log_level": "debug"}
    assert client.get("orders", Orders) == Orders(Database("db1", 5433), "debug")


def test_publishing_identical_bytes_makes_no_version(backend: Any) -> None:
    """The version that runs already is answered again; different bytes of equal meaning are another one."""
    assert backend.publish("orders", b'{"n": 1}') == 1
    assert backend.publish("orders", b'{"n": 1}') == 1
    assert backend.publish("orders", b'{"n":1}') == 2


def test_versions_are_pinned_and_kept(backend: Any, connect: Callable[..., Any]) -> None:
    """Every version with content stays readable by its number; a tombstone and a number too high are not found."""
    backend.publish("orders", {"n": 1})
    backend.publish("orders", {"n": 2})
    assert backend.delete("orders") == 3
    assert backend.publish("orders", {"n": 4}) == 4
    client = connect()
    numbers = {version: client.get_raw("orders", GetOptions(version=version)) for version in (1, 2, 4)}
    assert numbers == {1: {"n": 1}, 2: {"n": 2}, 4: {"n": 4}}
    for missing in (3, 5):
        with pytest.raises(NotFoundError):
            client.get_raw("orders", GetOptions(version=missing))


def test_a_rollback_is_a_newer_version_of_an_older_document(backend: Any, connect: Callable[..., Any]) -> None:
    """Rolling back takes the next number; rolling back to what is running changes nothing."""
    backend.publish("orders", {"n": 1})
    backend.publish("orders", {"n": 2})
    assert backend.rollback("orders", 1) == 3
    assert backend.rollback("orders", 1) == 3
    assert connect().get_raw("orders") == {"n": 1}


def test_environments_and_labels_are_configs_of_their_own(backend: Any, connect: Callable[..., Any]) -> None:
    """A request without environment means the token's own; there is no fallback from one to another."""
    backend.publish("orders", {"n": "default"})
    backend.publish("orders", {"n": "prod"}, environment="prod")
    backend.publish("orders", {"n": "branch"}, environment="prod", label="feature/x")
    client, in_prod = connect(), connect(backend.mint(environment="prod"))
    assert client.get_raw("orders") == {"n": "default"}
    assert in_prod.get_raw("orders") == {"n": "prod"}
    assert client.get_raw("orders", GetOptions(environment="prod")) == {"n": "prod"}
    assert in_prod.get_raw("orders", GetOptions(label="feature/x")) == {"n": "branch"}
    with pytest.raises(NotFoundError):
        client.get_raw("orders", GetOptions(environment="staging"))
    with pytest.raises(NotFoundError):
        client.get_raw("orders", GetOptions(label="feature/x"))


def test_what_is_deleted_or_was_never_there_is_not_found(backend: Any, connect: Callable[..., Any]) -> None:
    """Both are a NotFoundError, sealed and exported; publishing again takes the number after the tombstone."""
    backend.publish("orders", {"n": 1})
    assert backend.delete("orders") == 2
    client = connect()
    for name in ("orders", "nothing"):
        with pytest.raises(NotFoundError):
            client.get_raw(name)
        with pytest.raises(NotFoundError):
            client.get_formatted(name, Format.JSON)
    assert backend.publish("orders", {"n": 3}) == 3
    assert client.get_raw("orders") == {"n": 3}


def test_unknown_and_revoked_tokens_are_unauthorized(backend: Any, connect: Callable[..., Any]) -> None:
    """401 surfaces as UnauthorizedError, at once after a revocation."""
    backend.publish("orders", {"n": 1})
    with pytest.raises(UnauthorizedError):
        connect(service_token="cst_unknown").get_raw("orders")
    credentials = backend.mint()
    client = connect(credentials)
    assert client.get_raw("orders") == {"n": 1}
    backend.revoke(credentials)
    with pytest.raises(UnauthorizedError):
        client.get_raw("orders")


def test_scopes_are_enforced_whether_or_not_the_config_exists(backend: Any, connect: Callable[..., Any]) -> None:
    """403 surfaces as ForbiddenError for another name, another environment, and an export without the right."""
    backend.publish("orders", {"n": 1})
    backend.publish("secrets", {"n": 1})
    client = connect(backend.mint(scopes=("orders@default:read",)))
    assert client.get_raw("orders") == {"n": 1}
    refused: list[Callable[[], object]] = [
        lambda: client.get_raw("secrets"),
        lambda: client.get_raw("nothing"),
        lambda: client.get_raw("orders", GetOptions(environment="prod")),
        lambda: client.get_formatted("orders", Format.JSON),
    ]
    for ask in refused:
        with pytest.raises(ForbiddenError):
            ask()


def test_another_key_does_not_open_and_another_shape_does_not_fit(backend: Any, connect: Callable[..., Any]) -> None:
    """A wrong key is a DecryptionError, a document that does not fit its target an UnmarshalError."""
    backend.publish("orders", {"log_level": "info"})
    with pytest.raises(DecryptionError):
        connect(encryption_key="ab" * 32).get_raw("orders")
    with pytest.raises(UnmarshalError):
        connect().get("orders", Orders)


def test_exports_are_rendered_in_every_format(backend: Any, connect: Callable[..., Any]) -> None:
    """JSON comes as published; YAML and ENV as other tools read them; what has no faithful form is refused."""
    backend.publish("orders", b'{"db": {"host": "a b", "port": 5432}, "tags": ["x"], "none": null}')
    client = connect()
    assert client.get_formatted("orders", Format.JSON) == client.get_bytes("orders")
    assert client.get_formatted("orders", Format.YAML) == b"db:\n  host: a b\n  port: 5432\ntags:\n- x\nnone: null\n"
    lines = client.get_formatted("orders", Format.ENV).decode().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["DB_HOST", "DB_PORT", "TAGS", "NONE"]
    backend.publish("orders", b'{"a": {"b": 1}, "a_b": 2}')
    with pytest.raises(InvalidResponseError, match="422 at /"):
        client.get_formatted("orders", Format.ENV)


def test_the_list_has_a_row_for_every_name_that_the_token_may_read(backend: Any, connect: Callable[..., Any]) -> None:
    """A deleted config stays listed and is not valid; what a token may not read is not listed."""
    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 1})
    backend.publish("secrets", {"n": 1})
    backend.publish("elsewhere", {"n": 1}, environment="prod")
    backend.delete("payments")
    client = connect(backend.mint(scopes=("orders@*:read", "pay*@default:read", "elsewhere@default:read")))
    assert [(row.name, row.is_valid) for row in client.list()] == [("orders", True), ("payments", False)]
    assert [row.name for row in connect().list()] == ["elsewhere", "orders", "payments", "secrets"]


def test_a_stopped_service_that_returns_serves_what_was_acknowledged(backend: Any, connect: Callable[..., Any]) -> None:
    """The same client reads on after the service was down, at the same address."""
    backend.publish("orders", {"n": 1})
    client = connect(retry_count=20)
    assert client.get_raw("orders") == {"n": 1}
    backend.stop()
    backend.start()
    assert client.get_raw("orders") == {"n": 1}
    backend.cut()
    assert client.get_raw("orders") == {"n": 1}


def test_a_key_is_rotated_without_an_outage(backend: Any, connect: Callable[..., Any]) -> None:
    """During the overlap clients of either key read, and one that holds both; afterwards only the new key opens."""
    backend.publish("orders", {"n": 1})
    before = backend.mint()
    old = connect(before)
    assert old.get_raw("orders") == {"n": 1}
    after = backend.rotate_key(before)
    assert after.key != before.key
    both = connect(after, encryption_key=f"{after.key},{before.key}")
    for client in (old, connect(after), both):
        assert client.get_raw("orders") == {"n": 1}
    last = backend.rotate_key(before, overlap=False)
    assert connect(last).get_raw("orders") == {"n": 1}
    for client in (old, both):
        with pytest.raises(DecryptionError):
            client.get_raw("orders")
