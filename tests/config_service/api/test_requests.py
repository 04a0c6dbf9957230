"""Reading requests: every ambiguity is refused, and no error repeats its input."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.protocol import BOUND_MEDIA_TYPE, Held, Position, dump_watch_request
from config_service.api.requests import (
    accepts_bound,
    environment_of,
    header,
    key_ids_of,
    matches_etag,
    min_revision_of,
    parse_query,
    precondition_of,
    read_body,
    secret_of,
    version_of,
    watched_of,
)
from config_service.domain.errors import (
    DocumentTooLargeError,
    InvalidRequestError,
    ServiceError,
    UnauthenticatedError,
)
from config_service.domain.preconditions import Precondition

CANARY = "canary-b3d2"


def test_a_header_is_found_once_or_not_at_all() -> None:
    """Twice is ambiguous: a proxy might read the other one."""
    headers = [(b"x-a", b" one "), (b"x-b", b"1"), (b"x-b", b"2")]
    assert header(headers, b"x-a") == "one"
    assert header(headers, b"x-c") is None
    with pytest.raises(InvalidRequestError, match="x-b was sent more than once"):
        header(headers, b"x-b")


def test_a_missing_token_is_unauthenticated_and_two_are_invalid() -> None:
    """401 asks for a token; 400 says that the request makes no sense."""
    assert secret_of([(b"x-service-token", b"cst_x")]) == "cst_x"
    for headers in ([], [(b"x-service-token", b"")], [(b"x-service-token", b"  ")]):
        with pytest.raises(UnauthenticatedError):
            secret_of(headers)
    with pytest.raises(InvalidRequestError):
        secret_of([(b"x-service-token", b"a"), (b"x-service-token", b"a")])


@pytest.mark.parametrize(
    ("raw", "parameters"),
    [
        (b"", {}),
        (
            b"environment=prod&label=team%2Fnext&version=3",
            {"environment": "prod", "label": "team/next", "version": "3"},
        ),
        (b"environment=&label=", {}),
        (b"unknown=1&unknown=2&format=env", {"format": "env"}),
        (b"label=a+b", {"label": "a b"}),
        (b"environment", {}),
    ],
)
def test_known_parameters_with_a_value_count(raw: bytes, parameters: dict[str, str]) -> None:
    """Empty is absent, unknown is ignored, also when it comes twice."""
    assert parse_query(raw) == parameters


@pytest.mark.parametrize(
    "raw",
    [
        b"environment=a&environment=b",
        b"environment=a&environment=",
        b"label=%ff",
        "label=é".encode(),
        b"&".join([b"a=1"] * 101),
        CANARY.encode() + b"=%ff",
    ],
)
def test_an_ambiguous_query_is_refused(raw: bytes) -> None:
    """A parameter given twice, or what is not UTF-8, means different things to different readers."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_query(raw)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "+1", "01", "1 ", "x", "¹", "１", "9" * 19, CANARY])
def test_a_version_is_a_number_from_one(text: str) -> None:
    """In plain digits, and of a size that any store can hold."""
    with pytest.raises(InvalidRequestError) as caught:
        version_of({"version": text})
    assert CANARY not in str(caught.value)


def test_versions_and_environments_may_be_absent() -> None:
    """Then the running version and the token's environments are meant."""
    assert version_of({}) is None
    assert version_of({"version": "12"}) == 12
    assert environment_of({}) is None
    assert environment_of({"environment": "prod"}) == "prod"
    with pytest.raises(InvalidRequestError):
        environment_of({"environment": "../prod"})


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        (None, False),
        ('"a"', True),
        ('W/"a"', True),
        ('"x", "a"', True),
        ('"x",W/"a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
        ("", False),
        ('"a', False),
    ],
)
def test_if_none_match_is_compared_weakly(condition: str | None, matches: bool) -> None:
    """Lists, weak tags and the star (RFC 9110)."""
    assert matches_etag(condition, '"a"') is matches


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({}, Precondition()),
        ({b"if-match": b'"3"'}, Precondition(versions=frozenset({3}))),
        ({b"if-match": b"3"}, Precondition(versions=frozenset({3}))),
        ({b"if-match": b'"3", 4'}, Precondition(versions=frozenset({3, 4}))),
        ({b"if-match": b"*"}, Precondition(running=True)),
        ({b"if-none-match": b"*"}, Precondition(absent=True)),
        ({b"if-match": b"*", b"if-none-match": b"*"}, Precondition(running=True, absent=True)),
    ],
)
def test_conditions_name_versions(headers: dict[bytes, bytes], condition: Precondition) -> None:
    """Quoted as HTTP has it, or plain as people type it."""
    assert precondition_of(headers.items()) == condition


@pytest.mark.parametrize(
    "headers",
    [
        {b"if-match": b'W/"3"'},
        {b"if-match": b"three"},
        {b"if-match": b'"0"'},
        {b"if-match": b'"3'},
        {b"if-match": b""},
        {b"if-match": b"3,"},
        {b"if-match": b",".join([b"3"] * 101)},
        {b"if-none-match": b'"3"'},
        {b"if-match": CANARY.encode()},
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(headers: dict[bytes, bytes]) -> None:
    """Ignoring it would overwrite what the author wanted to protect."""
    with pytest.raises(InvalidRequestError) as caught:
        precondition_of(headers.items())
    assert CANARY not in str(caught.value)


class Body:
    """The messages of a request, and how many of them were taken."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.taken = 0

    async def __call__(self) -> dict[str, Any]:
        self.taken += 1
        return self.messages[self.taken - 1]


def part(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_a_body_is_read_whole_or_refused_by_its_size(parts: list[bytes], limit: int) -> None:
    """However it is cut; never more than the limit and one part is taken in."""
    body = Body(*(part(data) for data in parts), part(b"", more=False))
    whole = b"".join(parts)
    if len(whole) <= limit:
        assert asyncio.run(read_body(body, [], limit)) == whole
        return
    with pytest.raises(DocumentTooLargeError):
        asyncio.run(read_body(body, [], limit))
    assert sum(len(data) for data in parts[: body.taken]) <= limit + 30


@pytest.mark.anyio
@pytest.mark.parametrize("announced", [b"101", b"9" * 18, b"9" * 400])
async def test_an_announced_size_over_the_limit_is_refused_unread(announced: bytes) -> None:
    """Nothing of the body is taken in."""
    body = Body()
    with pytest.raises(DocumentTooLargeError):
        await read_body(body, [(b"content-length", announced)], 100)
    assert body.taken == 0


@pytest.mark.anyio
async def test_an_announced_size_that_lies_does_not_help() -> None:
    """What comes in counts."""
    body = Body(part(b"x" * 60), part(b"x" * 60), part(b"", more=False))
    with pytest.raises(DocumentTooLargeError):
        await read_body(body, [(b"content-length", b"10")], 100)
    assert body.taken == 2


@pytest.mark.anyio
async def test_a_body_that_ends_early_is_no_body() -> None:
    """Half a document must not be published, even when it is valid by itself."""
    with pytest.raises(InvalidRequestError, match="ended early"):
        await read_body(Body(part(b"{}"), {"type": "http.disconnect"}), [], 100)


def test_every_error_of_a_request_is_a_service_error() -> None:
    """So that each has its answer."""
    assert issubclass(InvalidRequestError, ServiceError)


@pytest.mark.parametrize(
    "accept",
    [
        BOUND_MEDIA_TYPE,
        "application/vnd.config-service.sealed;format=2",
        "Application/VND.Config-Service.Sealed ; Format=2",
        'application/vnd.config-service.sealed; format="2"',
        'application/vnd.config-service.sealed; format="\\2"; q=0.001',
        "application/vnd.config-service.sealed;;format=2;q=1.000",
        "*/*;q=0.1, application/octet-stream, application/vnd.config-service.sealed; format=2; q=0.5",
        'text/plain; note="a, b; c", application/vnd.config-service.sealed; format=2',
    ],
)
def test_sealed_format_2_is_accepted_when_it_is_named(accept: str) -> None:
    """As RFC 9110 spells media ranges: any case, white space, quoted values, a weight above 0."""
    assert accepts_bound([(b"accept", accept.encode())])


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/octet-stream",
        "application/vnd.config-service.sealed",
        "application/vnd.config-service.sealed; format=1",
        "application/vnd.config-service.sealed; format=20",
        "application/vnd.config-service.sealed; format=2; q=0",
        "application/vnd.config-service.sealed; format=2; q=0.000",
        "application/vnd.config-service.sealed; format=2; q=2",
        "application/vnd.config-service.sealed; format=2; q=nan",
        "application/vnd.config-service.sealed; format=2; other=1",
        "application/vnd.config-service.sealed; format =2",
        "application/vnd.config-service.sealed2; format=2",
        'text/plain; note="application/vnd.config-service.sealed; format=2"',
        'text/plain; note=", application/vnd.config-service.sealed; format=2',
        "application/vnd.config-service.sealed" + "; " * 5000 + "!",
        "application/vnd.config-service.sealed" + ";a=b" * 5000 + " =",
    ],
)
def test_anything_else_is_format_1(accept: str) -> None:
    """Wildcards, other formats, a weight of 0, and what cannot be read, however it is made."""
    assert not accepts_bound([(b"accept", accept.encode())])


def test_several_accept_headers_are_one_list() -> None:
    """As for every header that is a list (RFC 9110 §5.3)."""
    assert not accepts_bound([])
    assert accepts_bound([(b"accept", b"text/plain"), (b"x", b"y"), (b"accept", BOUND_MEDIA_TYPE.encode())])


def test_the_keys_that_a_client_holds() -> None:
    """Ids of 16 hex characters; none said is not the same as none held."""
    assert key_ids_of([]) is None
    assert key_ids_of([(b"x-config-key-ids", b" ")]) is None
    ids = b"0123456789abcdef , fedcba9876543210"
    assert key_ids_of([(b"x-config-key-ids", ids)]) == {"0123456789abcdef", "fedcba9876543210"}
    for wrong in (CANARY.encode(), b"0123456789ABCDEF", b"0123456789abcdef,", b",".join([b"0" * 16] * 33)):
        with pytest.raises(InvalidRequestError, match="X-Config-Key-Ids") as caught:
            key_ids_of([(b"x-config-key-ids", wrong)])
        assert CANARY not in str(caught.value)


def test_the_position_that_an_answer_must_not_be_older_than() -> None:
    """As an event's id spells it."""
    assert min_revision_of([]) is None
    position = Position("0" * 24, 17)
    assert min_revision_of([(b"x-config-min-revision", str(position).encode())]) == position
    for wrong in (b"", b"17", CANARY.encode(), b"0" * 24 + b"-", b"0" * 24 + b"-1-1"):
        with pytest.raises(InvalidRequestError, match="X-Config-Min-Revision") as caught:
            min_revision_of([(b"x-config-min-revision", wrong)])
        assert CANARY not in str(caught.value)


@pytest.mark.anyio
async def test_what_a_state_first_watch_asks_for() -> None:
    """Short bodies and long ones, which are read beside the event loop, alike."""
    for count in (1, 10_000):
        rows = [Held(f"config-{number}", None, "main", Position("0" * 24, number)) for number in range(count)]
        assert await watched_of(dump_watch_request(rows)) == rows


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'[{"name": "a/b"}]', b"[" * 70_000, b'["' + b"x" * 70_000])
async def test_a_malformed_watch_is_refused_and_not_repeated(body: bytes) -> None:
    """With the rule; neither the message nor its chain has anything of the body."""
    with pytest.raises(InvalidRequestError, match="invalid watch") as caught:
        await watched_of(body)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
