"""Requests as bytes: whole ones come out however they are cut, and what is no request is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_client.testing._faults import Refusal
from config_client.testing._http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Answer,
    Request,
    RequestReader,
    dump_stream_head,
    error_answer,
)

GET = b"GET /a/b?x=1&y=2 HTTP/1.1\r\nHost: h\r\nX-Two:  padded \t\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
)
BARE_CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"


def read(*pieces: bytes) -> list[Request]:
    """Return every request that comes out of ``pieces``."""
    reader, requests = RequestReader(), []
    for piece in pieces:
        reader.feed(piece)
        while request := reader.next():
            requests.append(request)
    return requests


@given(st.lists(st.integers(0, len(GET + POST + CHUNKED + BARE_CHUNKED + GET)), max_size=12))
def test_requests_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    """Pipelined requests with every kind of body are read the same in any pieces."""
    data = GET + POST + CHUNKED + BARE_CHUNKED + GET
    bounds = [0, *sorted(cuts), len(data)]
    requests = read(*(data[start:end] for start, end in pairwise(bounds)))
    assert [(request.method, request.path, request.body) for request in requests] == [
        ("GET", b"/a/b", b""),
        ("POST", b"/p", b"hello"),
        ("POST", b"/c", b"hello world"),
        ("POST", b"/c", b"0123456789"),
        ("GET", b"/a/b", b""),
    ]
    assert requests[0].query == b"x=1&y=2"
    assert requests[0].header("x-two") == "padded"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"G3T / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname : value\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: value\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * MAX_HEAD_BYTES, 431),
    ],
)
def test_what_is_no_request_or_too_large_is_refused(data: bytes, status: int) -> None:
    """Nothing is read past a fault, and nothing is kept without bound."""
    with pytest.raises(Refusal) as raised:
        read(data)
    assert raised.value.status == status


def test_a_header_given_twice_is_refused_when_it_is_asked_for() -> None:
    """Two readers could each take another of the two."""
    (request,) = read(b"GET / HTTP/1.1\r\na: 1\r\nA: 2\r\nb: 3\r\n\r\n")
    assert request.header("b") == "3"
    assert request.header("c") is None
    assert request.joined("a") == "1,2"
    with pytest.raises(Refusal):
        request.header("a")


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
    ],
)
def test_connections_are_kept_as_http_says(head: bytes, keeps: bool) -> None:
    """Kept in 1.1 unless the client says otherwise, closed in 1.0."""
    (request,) = read(head)
    assert request.keep_alive is keeps


def test_a_client_that_waits_for_100_continue_is_told_once() -> None:
    """The reader says once that a body is expected, and not any more when it has come."""
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.next() is None
    assert [reader.wants_more(), reader.wants_more()] == [True, False]
    reader.feed(b"ok")
    request = reader.next()
    assert request is not None
    assert request.body == b"ok"


def test_answers_have_lengths_except_where_there_is_no_body() -> None:
    """304 has neither body nor length, a HEAD request gets the length only, a stream ends with its connection."""
    assert Answer(200, (("A", "b"),), b"xyz").dump().endswith(b"\r\nA: b\r\nContent-Length: 3\r\n\r\nxyz")
    assert Answer(200, (), b"xyz").dump(head=True).endswith(b"\r\nContent-Length: 3\r\n\r\n")
    assert b"Content-Length" not in Answer(304).dump()
    assert Answer(599).dump(keep_alive=False).startswith(b"HTTP/1.1 599 \r\n")
    assert dump_stream_head([("A", "b")]).endswith(b"\r\nA: b\r\nConnection: close\r\n\r\n")


def test_refusals_are_answered_in_the_shape_of_the_protocol() -> None:
    """Code and message, the place in a document if there is one, and the headers of the status."""
    answer = error_answer(Refusal(422, "no form", pointer="/a"))
    assert answer.body == b'{"error": {"code": "not_renderable", "message": "no form", "path": "/a"}}'
    assert dict(error_answer(Refusal(503, "later")).headers)["Retry-After"] == "1"
    assert dict(error_answer(Refusal(503, "later", headers={"Retry-After": "7"})).headers)["Retry-After"] == "7"
    assert b'"code": "error"' in error_answer(Refusal(418, "teapot")).body


def test_bodies_and_headers_stay_out_of_reprs() -> None:
    """They hold documents and tokens."""
    (request,) = read(b"POST / HTTP/1.1\r\nX-Service-Token: cst_canary\r\nContent-Length: 6\r\n\r\ncanary")
    assert "canary" not in repr(request)
    assert "canary" not in repr(Answer(200, (("a", "canary"),), b"canary"))
