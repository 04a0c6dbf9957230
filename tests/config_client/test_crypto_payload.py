"""Opening a payload as one that was asked for: content types, formats, and every difference to its binding."""

from __future__ import annotations

from pathlib import Path

import pytest

from config_client._payload import Expected, OpenedPayload, encoding_of, open_payload, open_sealed
from config_client.crypto import Binding, Keyring, seal, seal_bound
from config_client.errors import DecryptionError, InvalidResponseError
from config_client.protocol import BOUND_MEDIA_TYPE, SEALED_MEDIA_TYPE, Position

KEY = bytes(range(32))
RING = Keyring([KEY])
DOCUMENT = b'{"password":"s3cr3t-canary"}'
EPOCH, EARLIER, LATER = "0192f3a4b5c6d7e8f9a0b1c2", "0192f3a4b5c5d7e8f9a0b1c2", "0192f3a4b5c7000000000000"
BINDING = Binding(EPOCH, "orders", "production", "main", 7, 42)
BOUND = seal_bound(DOCUMENT, KEY, BINDING)
EXACTLY = Expected("orders", "production", "main", 7, Position(EPOCH, 42))


def open_bound(expected: Expected, payload: bytes = BOUND) -> OpenedPayload:
    """Open a payload of format 2 where only bound ones are accepted."""
    return open_sealed(RING, expected, payload, encoding=2, require_bound=True)


@pytest.mark.parametrize(
    "content_type",
    [
        BOUND_MEDIA_TYPE,
        "application/vnd.config-service.sealed;format=2",
        "APPLICATION/VND.Config-Service.Sealed; Format=2",
        '  application/vnd.config-service.sealed ; charset=utf-8\t; format="2" ;',
        r'application/vnd.config-service.sealed; x="a\"; format=1"; format="\2"',
        "application/vnd.config-service.sealed;;; format=2",
    ],
)
def test_the_media_type_of_bound_payloads_names_format_2(content_type: str) -> None:
    """Letter case, white space, quoting and other parameters are as RFC 9110 allows them."""
    assert encoding_of(content_type) == 2


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        SEALED_MEDIA_TYPE,
        "application/octet-stream; format=2",
        "text/html; charset=utf-8",
        "application/vnd.config-service.sealed",
        "application/vnd.config-service.sealed; format=1",
        'application/vnd.config-service.sealed; x="; format=2"',
        "application/vnd.config-service.sealed; version=2",
        "application/vnd.config-service.sealed; format=two",
        "application/vnd.config-service.sealed; format=٢",
        "application/vnd.config-service.sealed; format=",
        "application/vnd.config-service.sealed; format = 2",
        'application/vnd.config-service.sealed; format="2',
        "application/vnd.config-service.sealed; format=2; format=2",
        "application/vnd.config-service.sealed; format=2, text/html",
        "application/vnd.config-service.sealed-2; format=2",
        "x-application/vnd.config-service.sealed; format=2",
        f"application/vnd.config-service.sealed; format={'2' * 5000}",
    ],
)
def test_everything_else_is_format_1(content_type: str | None) -> None:
    """A service that does not know format 2 names no format; what is malformed is not guessed at."""
    assert encoding_of(content_type) == 1


def test_a_later_format_is_told_by_its_number() -> None:
    """A service of the future is refused by name and not taken for an old one."""
    encoding = encoding_of("application/vnd.config-service.sealed; format=3")
    with pytest.raises(InvalidResponseError, match=r"config 'orders': it came in sealed format 3.*upgrade"):
        open_sealed(RING, EXACTLY, BOUND, encoding=encoding, require_bound=False)


def test_what_was_asked_for_opens() -> None:
    """All parts agree, or were not asked for: the document comes with its authentic binding."""
    assert open_bound(EXACTLY) == OpenedPayload(DOCUMENT, BINDING)
    assert open_bound(Expected("orders")) == OpenedPayload(DOCUMENT, BINDING)


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (EXACTLY._replace(name="prices"), "name 'orders', not 'prices'"),
        (EXACTLY._replace(environment="staging"), "environment 'production', not 'staging'"),
        (EXACTLY._replace(environment=""), "environment 'production', not ''"),
        (EXACTLY._replace(label="next"), "label 'main', not 'next'"),
        (EXACTLY._replace(version=8), "version 7, not 8"),
        (EXACTLY._replace(version=0), "version 7, not 0"),
        (EXACTLY._replace(position=Position(LATER, 42)), f"epoch '{EPOCH}', not '{LATER}'"),
        (EXACTLY._replace(position=Position(EPOCH, 43)), "revision 42, not 43"),
        (EXACTLY._replace(label="next", version=1), "label 'main', not 'next', version 7, not 1"),
    ],
)
def test_a_payload_of_something_else_is_refused_by_the_parts_that_differ(expected: Expected, says: str) -> None:
    """Somebody who can alter traffic cannot answer with another config, environment, label or version."""
    with pytest.raises(DecryptionError) as caught:
        open_bound(expected)
    assert f"config {expected.name!r}: the payload is bound to {says}: " in str(caught.value)
    assert caught.value.__context__ is None
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("seen", [Position(EPOCH, 41), Position(EPOCH, 42), Position(EARLIER, 43)])
def test_what_is_not_older_than_what_was_seen_opens(seen: Position) -> None:
    """The same revision again, a newer one, and any of a later epoch."""
    assert open_bound(EXACTLY._replace(at_least=seen)).document == DOCUMENT


@pytest.mark.parametrize(
    ("seen", "says"), [(Position(EPOCH, 43), "an older revision"), (Position(LATER, 1), "an older epoch")]
)
def test_a_replay_of_something_older_is_refused(seen: Position, says: str) -> None:
    """The old payload is authentic and is the config that was asked for; its place in history gives it away."""
    with pytest.raises(DecryptionError, match=f"{says} than {seen}") as caught:
        open_bound(EXACTLY._replace(position=None, at_least=seen))
    assert f"{EPOCH}-42" in str(caught.value)


def test_a_binding_is_believed_only_when_it_authenticates() -> None:
    """A header that says what was asked for, in front of another payload, is an altered payload and not a match."""
    other = seal_bound(DOCUMENT, KEY, BINDING._replace(name="prices"))
    with pytest.raises(DecryptionError, match=r"config 'prices': payload of .* does not authenticate"):
        open_bound(Expected("prices"), other[:21] + BOUND[21:])
    with pytest.raises(DecryptionError, match=r"^config 'orders': sealed with key .*set CONFIG_SERVICE_KEY"):
        open_bound(EXACTLY, seal_bound(DOCUMENT, bytes(32), BINDING))


def test_a_refused_document_is_in_no_frame_of_the_error() -> None:
    """An error tracker that keeps the local variables of our code does not get the document that did not fit."""
    with pytest.raises(DecryptionError) as caught:
        open_bound(EXACTLY._replace(label="next"))
    frames = [entry.frame for entry in caught.traceback if Path(entry.path).name == "_payload.py"]
    assert [frame.code.name for frame in frames] == ["open_sealed"]
    assert "canary" not in repr([frame.f_locals for frame in frames])


def test_format_1_is_accepted_unless_bound_payloads_are_required() -> None:
    """It opens with no binding; where binding is required the remedy is named, and the payload is not looked at."""
    payload = seal(DOCUMENT, KEY)
    opened = open_sealed(RING, EXACTLY, payload, encoding=1, require_bound=False)
    assert opened == OpenedPayload(DOCUMENT, None)
    for any_payload in (payload, b"", BOUND):
        with pytest.raises(DecryptionError, match="upgrade the service, or turn require_bound off"):
            open_sealed(RING, EXACTLY, any_payload, encoding=1, require_bound=True)


@pytest.mark.parametrize("encoding", [0, 3, -1, 999_999_999])
@pytest.mark.parametrize("require_bound", [False, True])
def test_an_unknown_format_is_an_invalid_response(encoding: int, require_bound: bool) -> None:
    """It says what came and what is known, whatever is required."""
    with pytest.raises(InvalidResponseError, match=f"sealed format {encoding}, and this client knows 1 and 2"):
        open_sealed(RING, EXACTLY, BOUND, encoding=encoding, require_bound=require_bound)


def test_every_failure_names_the_config() -> None:
    """A log of many configs tells which one it is about."""
    for payload in (b"", b"\x02", BOUND[:-1], seal(DOCUMENT, KEY)):
        with pytest.raises(DecryptionError, match=r"^config 'orders': "):
            open_bound(EXACTLY, payload)
    with pytest.raises(DecryptionError, match=r"^config 'orders': "):
        open_payload(RING, "orders", bytes(40))
