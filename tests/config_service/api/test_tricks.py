"""Tricks with paths and headers as raw bytes on a real socket, on every route that the application answers.

What is claimed of every one: never a 5xx, never a document of another config, one answer to one request, the status
that is expected, in the shape of every error. The routes come from the application, so a new one is tried as well.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from routes import all_routes

from config_client.protocol import CONFIGS_PATH
from config_service.api.guard import check_request
from config_service.domain.errors import InvalidRequestError
from config_service.domain.keys import ConfigKey

pytestmark = pytest.mark.e2e

SECRET = b"c4nary-0f-another-config"
"""In the document of a config that the trick's token may not read, and in one that it was not asked for."""
ROUTES = sorted(all_routes())
WITH_NAME = sorted({path for _, path in ROUTES if "{name}" in path})

# Each is put in the place of a config's name, or of a token's id.
AMBIGUOUS: dict[str, bytes] = {
    "encoded slash": b"orders%2Fformatted",
    "encoded slash, lower case": b"orders%2fformatted",
    "encoded slash before": b"%2Forders",
    "encoded backslash": b"orders%5Cformatted",
    "encoded backslash, lower case": b"..%5c..%5cother",
    "backslash": b"..\\other",
    "NUL": b"orders%00",
    "NUL and an extension": b"orders%00.json",
    "line end": b"orders%0d%0aX-Injected:%20yes",
    "tab": b"orders%09",
    "delete": b"orders%7f",
    "dot segment": b"../other",
    "dot segments": b"../../../manage/tokens",
    "one dot": b"./orders",
    "encoded dots": b"%2e%2e/other",
    "half encoded dots": b".%2e/other",
    "half encoded dots, other half": b"%2E./other",
    "encoded dot": b"%2e/orders",
    "encoded dots and slash": b"%2e%2e%2fother",
    "twice encoded slash": b"orders%252fformatted",
    "twice encoded dots": b"%252e%252e/other",
    "twice encoded NUL": b"orders%2500",
    "empty segment": b"/orders",
    "several empty segments": b"orders///",
    "raw UTF-8": "ördérs".encode(),
    "raw control character": b"orders\x01",
    "raw high byte": b"orders\xff",
    "incomplete escape": b"orders%",
    "half an escape": b"orders%2",
    "no escape": b"orders%zz",
    "escape of another kind": b"orders%u002f",
    "percent": b"orders%25",
}
"""What has to be refused before routing: somebody else could read another path."""
ODD: dict[str, bytes] = {
    "overlong slash": b"orders%c0%af..%c0%afother",
    "overlong dots": b"%c0%ae%c0%ae/other",
    "overlong NUL": b"orders%c0%80",
    "overlong letter": b"%c1%af%c1%b2ders",
    "surrogate": b"orders%ed%a0%80",
    "beyond Unicode": b"orders%f4%90%80%80",
    "cut short UTF-8": b"orders%e2%82",
    "full width letters": b"%ef%bd%8f%ef%bd%92%ef%bd%84%ef%bd%85%ef%bd%92%ef%bd%93",
    "Cyrillic look-alike": b"%d0%berders",
    "full width dots": b"%ef%bc%8e%ef%bc%8e/other",
    "full width slash": b"orders%ef%bc%8fformatted",
    "division slash": b"orders%e2%88%95formatted",
    "zero width space": b"orders%e2%80%8b",
    "right to left": b"%e2%80%aeorders",
    "byte order mark": b"%ef%bb%bforders",
    "combining mark": b"orders%cc%81",
    "parameter": b"orders;v=1",
    "parameter that hides dots": b"..;/other",
    "fragment": b"orders#/../other",
    "wildcard": b"*",
    "home": b"~root",
    "template": b"{name}",
    "long": b"o" * 129,
    "very long": b"o" * 7000,
    "reserved": b"healthz",
    "two dots inside": b"orders..other",
    "a dot before": b".orders",
    "negative": b"-1",
    "huge": b"9" * 300,
}
"""What means one thing to everybody, and is no name of a config that there is."""


@dataclass(frozen=True)
class Answered:
    """One answer, and whatever came behind it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    rest: bytes

    @property
    def code(self) -> str:
        """The code of the error body, or nothing."""
        try:
            told: str = json.loads(self.body)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return ""
        return told


def exchange(service: Any, request: bytes) -> list[Answered]:
    """Send bytes and return every answer."""
    received = b""
    with closing(socket.create_connection(service.address, timeout=20)) as connection:
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                received += part
                if b"text/event-stream" in received and b"\r\n\r\n:" in received:
                    break
        except ConnectionError:
            pass
    return list(parsed(received))


def parsed(received: bytes) -> Iterator[Answered]:
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, received
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 "), lines[0]
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
        told = dict(headers)
        if b"content-length" in told:
            length = int(told[b"content-length"])
        elif told.get(b"transfer-encoding") == b"chunked":
            length = rest.index(b"0\r\n\r\n") + 5
        else:
            length = 0 if lines[0][9:12] in {b"304", b"204"} else len(rest)
        body, received = rest[:length], rest[length:]
        yield Answered(int(lines[0][9:12]), headers, body, received)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, live_service: Callable[..., Any]) -> Iterator[Any]:
    """One service for all tricks, so that what one of them leaves behind meets the next ones."""
    made = live_service(
        f"sqlite:///{tmp_path_factory.mktemp('tricks') / 'config.db'}",
        head_timeout=1.0,
        body_timeout=1.0,
        auth_failures=0,
        rate_limit=0,
    ).start()
    made.publish(b'{"n": 1}')
    made.publish(b'{"secret": "' + SECRET + b'"}', ConfigKey("other"))
    made.publish(b'{"secret": "' + SECRET + b'"}', ConfigKey("orders", "prod"))
    yield made
    made.stop()


def head_of(method: str, path: bytes, *lines: bytes, secret: str | None = None) -> bytes:
    told = [] if secret is None else [b"X-Service-Token: " + secret.encode()]
    return b"\r\n".join([method.encode() + b" " + path + b" HTTP/1.1", b"Host: x", *told, *lines, b"", b""])


def harmless(answers: list[Answered], what: object, *, everything: bool = False) -> Answered:
    """Hold what is claimed of every trick, and return the one answer; ``everything``: it tells all configs anyway."""
    assert len(answers) == 1, (what, answers)
    (answer,) = answers
    assert answer.status < 500, (what, answer.status, answer.body)
    assert everything or SECRET not in answer.body, what
    assert not [name for name, _ in answer.headers if name == b"x-injected"], what
    if answer.status >= 400 and answer.body:
        assert answer.code, (what, answer.body)
    return answer


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_trick_with_a_name_reaches_another_route_or_config(service: Any, method: str, path: str) -> None:
    """Each in the place of the name, or of the id; on a path without either, behind it."""
    template = path if "{" in path else f"{path}/{{name}}"
    for what, name in (AMBIGUOUS | ODD | {"too long": b"o" * 9000}).items():
        if what == "fragment" and method not in {"GET", "HEAD"}:
            # No client sends one. What stands before it is asked for, and would be changed.
            continue
        target = re.sub(rb"\{\w+\}", lambda _, name=name: name, template.encode())  # type: ignore[misc]
        request = head_of(method, target, b"Connection: close", b"Content-Length: 2", secret=service.admin.secret)
        answers = exchange(service, request + b"{}")
        answer = harmless(answers, (what, target))
        if len(target) > 8192:
            assert answer.status == 414
        elif what in AMBIGUOUS:
            assert answer.status == 400, (what, answer)
            assert method == "HEAD" or answer.code == "invalid_request"
        else:
            found = {200} if what == "fragment" else set()
            if template.count("{") > 1:
                # Twice what just fits does not.
                found |= {414}
            assert answer.status in {400, 404, 405} | found, (what, answer.status, answer.body)


@pytest.mark.parametrize("path", WITH_NAME)
def test_the_check_itself_refuses_what_means_two_things(path: str) -> None:
    """On the raw bytes, before any routing, and whatever the rule for names would make of it."""
    for what, name in AMBIGUOUS.items():
        scope: dict[str, Any] = {"raw_path": path.encode().replace(b"{name}", name), "query_string": b"", "headers": []}
        try:
            check_request(scope)
        except InvalidRequestError as error:
            assert "invalid path" in str(error), what  # noqa: PT017 - one of many
        else:
            pytest.fail(f"{what} is not refused")


# Lines that are added to an ordinary request, and the statuses that are right for it.
HEADERS: dict[str, tuple[list[bytes], set[int]]] = {
    "token twice": ([b"X-Service-Token: cst_other"], {400}),
    "token twice, other letters": ([b"x-SERVICE-token: cst_other"], {400}),
    "token with a space before the colon": ([b"X-Service-Token : cst_other"], {400}),
    "host twice": ([b"Host: y"], {400}),
    "host twice, alike": ([b"Host: x"], {400}),
    "length twice, alike": ([b"Content-Length: 0", b"Content-Length: 0"], {200, 400}),
    "length twice, unlike": ([b"Content-Length: 0", b"Content-Length: 5"], {400}),
    "length as a list": ([b"Content-Length: 0, 0"], {400}),
    "length with a sign": ([b"Content-Length: +0"], {400}),
    "negative length": ([b"Content-Length: -1"], {400}),
    "length that overflows": ([b"Content-Length: 99999999999999999999999"], {400}),
    "length in hex": ([b"Content-Length: 0x0"], {400}),
    "length and chunks": ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], {400}),
    "chunks and length": ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], {400}),
    "chunks with a tab": ([b"Transfer-Encoding:\tchunked", b"Content-Length: 5"], {400}),
    "chunks of another kind": ([b"Transfer-Encoding: xchunked"], {400}),
    "chunks behind something": ([b"Transfer-Encoding: chunked, identity"], {400}),
    "chunks with a vertical tab": ([b"Transfer-Encoding: \x0bchunked"], {400}),
    "folded": ([b"X-Long: a", b" b"], {200, 400}),
    "folded token": ([b"X-Other: a", b"\tX-Service-Token: cst_other"], {200, 400}),
    "bare line feed": ([b"X-Other: a\nX-Service-Token: cst_other"], {400}),
    "bare carriage return": ([b"X-Other: a\rX-Service-Token: cst_other"], {400}),
    "NUL in a value": ([b"X-Other: a\x00b"], {400}),
    "NUL in a name": ([b"X-Oth\x00er: a"], {400}),
    "space in a name": ([b"X Other: a"], {400}),
    "no name": ([b": a"], {400}),
    "no colon": ([b"X-Other"], {400}),
    "high bytes": ([b"X-Other: \xff\xfe"], {200, 400}),
    "one too large": ([b"X-Other: " + b"a" * 33_000], {431}),
    "too many": ([b"X-%d: a" % number for number in range(120)], {431}),
    "another method": ([b"X-HTTP-Method-Override: DELETE"], {200}),
    "another path": ([b"X-Original-URL: /api/v1/manage/tokens", b"X-Rewrite-URL: /api/v1/manage/tokens"], {200}),
    "another address": ([b"X-Forwarded-For: 127.0.0.1", b"Forwarded: for=127.0.0.1", b"X-Real-IP: 127.0.0.1"], {200}),
    "another host": ([b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https", b"X-Forwarded-Prefix: /x"], {200}),
    "range": ([b"Range: bytes=0-0"], {200}),
    "condition of bytes": ([b"If-Match: \xff"], {200, 400, 412}),
    "expectation": ([b"Expect: 200-ok"], {200, 400, 417}),
    "upgrade": ([b"Connection: Upgrade, close", b"Upgrade: h2c"], {200}),
    "hop by hop": ([b"Connection: close, X-Service-Token"], {200}),
    "accept of everything": ([b"Accept: " + b",".join([b"*/*;q=0.1"] * 500)], {200}),
    "encoding": ([b"Accept-Encoding: gzip, br, \x7f"], {200, 400}),
    "position": ([b"X-Config-Min-Revision: " + b"f" * 24 + b"-1"], {200, 400, 503}),
    "ids of keys": ([b"X-Config-Key-Ids: ../../x"], {200, 400}),
    "injected id": ([b"X-Request-Id: a\x0b\x0cb"], {200, 400}),
}
SAFE = [(method, path) for method, path in ROUTES if method in {"GET", "HEAD"}]


@pytest.mark.parametrize(("method", "path"), SAFE)
def test_no_trick_with_headers_is_more_than_refused(service: Any, method: str, path: str) -> None:
    """On every route that only reads; whatever is not refused is answered as if the trick were not there."""
    target = path.replace("{name}", "orders").encode()
    plain = head_of(method, target, b"Connection: close", secret=service.admin.secret)
    usual = exchange(service, plain)[0].status
    assert usual in {200, 404}, target
    for what, (lines, statuses) in HEADERS.items():
        closing_line = [] if any(line.startswith(b"Connection") for line in lines) else [b"Connection: close"]
        request = head_of(method, target, *lines, *closing_line, secret=service.admin.secret)
        answers = exchange(service, request)
        if not answers and 400 in statuses:
            continue  # closed without a word
        if method == "HEAD":
            answers = answers[:1]
        first = answers[0]
        if first.status == 503 and 503 in statuses:
            continue  # a position that this service has not reached
        answer = harmless(answers, (what, target), everything=path.endswith("/export"))
        expected = {usual if status == 200 else status for status in statuses}
        if path.startswith(("/healthz", "/readyz")) or path.endswith("openapi.json"):
            # Nobody asks who is asking, or for what.
            expected |= {usual}
        assert answer.status in expected, (what, target, answer.status, answer.body[:200])


METHODS = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PROPFIND",
    b"SEARCH",
]


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_a_method_that_a_route_does_not_have_is_405_and_says_which_it_has(service: Any, path: str) -> None:
    """What the route table says, no more; and none that HTTP does not know gets further than the parser."""
    target = path.replace("{name}", "orders").replace("{token_id}", "999").encode()
    allowed = {method for method, template in ROUTES if template == path}
    for method in METHODS:
        if method.decode() in allowed:
            continue
        request = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        answer = harmless(exchange(service, request), (method, target))
        assert answer.status in {400, 405}, (method, target, answer.status)
        if answer.status == 405:
            told = set(dict(answer.headers)[b"allow"].decode().split(", "))
            assert method.decode() not in told
            assert told - {"HEAD"} == allowed - {"HEAD"}, (method, target)
    for method in (b"G\xc3\x89T", b"get", b"GET\t", b"BREW", b"\x00GET", b""):
        request = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answers = exchange(service, request)
        if answers:
            assert harmless(answers, (method, target)).status in {400, 405}


TARGETS: dict[str, tuple[bytes, set[int]]] = {
    "absolute": (b"http://x" + CONFIGS_PATH.encode() + b"/orders", {200, 400}),
    "absolute, another host": (b"http://evil" + CONFIGS_PATH.encode() + b"/orders", {200, 400}),
    "absolute with a user": (b"http://a:b@x" + CONFIGS_PATH.encode() + b"/orders", {200, 400}),
    "absolute with dots": (b"http://x" + CONFIGS_PATH.encode() + b"/../configs/other", {400}),
    "a file": (b"file:///etc/passwd", {400, 404}),
    "no slash": (b"api/v1/service/configs", {400}),
    "two slashes": (b"//evil" + CONFIGS_PATH.encode(), {400}),
    "three slashes": (b"///evil", {400}),
    "a backslash": (b"/\\evil", {400}),
    "an asterisk": (b"*", {400}),
    "a question mark": (b"?", {400}),
    "a port": (b"x:80", {400}),
    "white space": (CONFIGS_PATH.encode() + b"/orders ?", {400}),
    "two versions": (CONFIGS_PATH.encode() + b"/orders HTTP/1.0", {400}),
    "a query in the query": (CONFIGS_PATH.encode() + b"/orders??environment=prod", {200}),
    "a parameter twice": (CONFIGS_PATH.encode() + b"/orders?label=main&label=x", {400}),
    "an encoded parameter twice": (CONFIGS_PATH.encode() + b"/orders?label=main&l%61bel=x", {400}),
    "a parameter of bytes": (CONFIGS_PATH.encode() + b"/orders?label=%ff", {400}),
    "an overlong parameter": (CONFIGS_PATH.encode() + b"/orders?label=%c0%af", {400}),
    "NUL in a parameter": (CONFIGS_PATH.encode() + b"/orders?environment=default%00", {400}),
    "dots in a label": (CONFIGS_PATH.encode() + b"/orders?label=../../x", {400}),
    "many parameters": (CONFIGS_PATH.encode() + b"/orders?" + b"&".join([b"a=b"] * 500), {400}),
    "a huge version": (CONFIGS_PATH.encode() + b"/orders?version=" + b"9" * 400, {400}),
    "a version of other digits": (CONFIGS_PATH.encode() + b"/orders?version=%d9%a1", {400}),
}


@pytest.mark.parametrize("what", TARGETS)
def test_no_trick_with_the_target_reaches_another_config(service: Any, what: str) -> None:
    """What is not refused is the config that was asked for."""
    target, statuses = TARGETS[what]
    answers = exchange(service, head_of("GET", target, b"Connection: close", secret=service.admin.secret))
    answer = harmless(answers, what)
    assert answer.status in statuses, (answer.status, answer.body)
    if answer.status == 200:
        assert dict(answer.headers)[b"x-config-environment"] == b"default"


SMUGGLED = b"GET /api/v1/manage/tokens HTTP/1.1\r\nHost: x\r\nX-Smuggled: yes\r\n\r\n"
SMUGGLING: dict[str, bytes] = {
    "length before chunks": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (len(SMUGGLED) + 5),
    "chunks before length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "chunks that nobody knows": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded name": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length in a chunk that overflows": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff0\r\n\r\n",
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{0\r\n\r\n",
    "a line feed behind a chunk": b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
}


@pytest.mark.parametrize("what", SMUGGLING)
def test_no_second_request_is_smuggled_in(service: Any, what: str) -> None:
    """Where two programs could disagree on the end of a request, nothing behind it is answered."""
    begin = b"PUT /api/v1/manage/configs/smuggled HTTP/1.1\r\nHost: x\r\nX-Service-Token: "
    request = begin + service.admin.secret.encode() + b"\r\n" + SMUGGLING[what] + SMUGGLED
    answers = exchange(service, request)
    assert len(answers) <= 1
    assert [answer.status for answer in answers] in ([], [400], [408], [413])


def test_two_requests_on_one_connection_are_two(service: Any) -> None:
    """What is no trick is answered, in order: so the tests above would see a second answer."""
    first = head_of("GET", CONFIGS_PATH.encode() + b"/orders", secret=service.admin.secret)
    second = head_of("GET", b"/healthz", b"Connection: close")
    answers = exchange(service, first + second)
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[1].body == b'{"status":"ok"}'


def test_the_service_is_none_the_worse_for_it(service: Any) -> None:
    """The config is what it was, and nothing was published by any of the above."""
    for environment, name in (("default", "orders"), ("default", "other"), ("prod", "orders")):
        document = service.app.operations.newest(service.admin.token, ConfigKey(name, environment))
        assert (document.version, document.deleted) == (1, False)
    listed = {document.key.name for document in service.app.operations.list_documents(service.admin.token)}
    assert listed == {"orders", "other"}
