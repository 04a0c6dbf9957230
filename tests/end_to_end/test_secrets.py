"""Canaries in documents, keys and tokens; then every failure path; then a look at everything that was said.

What is looked at: exceptions with their whole chain and attributes, reprs, records of every logger of the client at
DEBUG, the bodies of every refusal, the output of the command line, and the service's own log.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel

from config_client import ConfigClient, ConfigClientError, Format, GetOptions, NotFoundError, Options, UnmarshalError
from config_service.process import Credentials, Operator, ProcessError, ServiceProcess

CANARY = "cAnArY-7f3a91"
CANARY_NUMBER = 829_117_734_551
DOCUMENT: dict[str, object] = {
    "password": CANARY,
    "pin": CANARY_NUMBER,
    "nested": {"list": [CANARY, {"deep": CANARY}]},
    "port": CANARY,
}


@dataclass
class WantsInt:
    port: int


class WantsIntModel(BaseModel):
    port: int


@pytest.fixture
def service(tmp_path: Path, new_store: ServiceProcess) -> Iterator[ServiceProcess]:
    """Run a service that logs everything it can, with all fields."""
    with ServiceProcess(tmp_path, {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}, copy_of=new_store) as process:
        yield process


class Evidence:
    """Everything that was said, and the search through it."""

    def __init__(self, *secrets: str) -> None:
        self._secrets = [CANARY, str(CANARY_NUMBER), *secrets]
        self._said: list[tuple[str, str]] = []

    def add(self, where: str, *texts: str) -> None:
        """Keep ``texts`` for the search."""
        self._said.extend((where, text) for text in texts)

    def add_error(self, where: str, error: BaseException) -> None:
        """Keep an error: its texts, attributes and notes, and those of everything chained to it."""
        for link in chain(error):
            attributes = {name: attribute(link, name) for name in dir(link) if not name.startswith("__")}
            self.add(where, str(link), repr(link), repr(link.args), repr(vars(link)), repr(attributes))
            for value in attributes.values():
                headers = getattr(value, "headers", None)
                self.add(where, repr(headers.raw) if isinstance(headers, httpx.Headers) else "")

    def check(self) -> None:
        """Fail when a secret was said anywhere, telling where but not which text."""
        assert len(self._said) > 50
        leaks = {where for where, text in self._said for secret in self._secrets if secret in text}
        assert leaks == set()


def attribute(error: BaseException, name: str) -> object:
    """Return an attribute; None for one that httpx says was never set."""
    try:
        return getattr(error, name)
    except RuntimeError:
        return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything that its cause and context lead to."""
    seen: list[BaseException] = [error]
    for link in seen:
        yield link
        seen.extend(next_ for next_ in (link.__cause__, link.__context__) if next_ is not None and next_ not in seen)


def refusal(evidence: Evidence, where: str, call: Callable[[], object]) -> ConfigClientError:
    """Run ``call``, which must raise an error of the SDK, and keep it as evidence."""
    try:
        call()
    except ConfigClientError as error:
        evidence.add_error(where, error)
        return error
    raise AssertionError(f"{where}: nothing was raised")


def test_no_secret_is_said_on_any_failure_path(
    tmp_path: Path, connect: Callable[..., ConfigClient], service: ServiceProcess, operator: Operator,
    access: Credentials, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Every way to fail, from a wrong key to a killed service, says nothing of a document, a key or a token."""
    caplog.set_level(logging.DEBUG)
    narrow = operator.mint("narrow", scopes=("orders@default:read",))
    wrong_key = "5ec2e7" + "0" * 58
    secrets = [
        access.token,
        access.key,
        narrow.token,
        narrow.key,
        wrong_key,
        service.environment["CONFIG_SERVER_MASTER_KEY"],
    ]
    evidence = Evidence(*secrets)

    _sdk_refusals(evidence, operator, connect, narrow, wrong_key)
    _watch_refusals(evidence, operator, connect)
    _service_refusals(evidence, service, access, operator)
    _command_line_refusals(evidence, service, tmp_path)
    _broken_stores(evidence, service, connect)

    evidence.add("client log", *(_rendered(record) for record in caplog.records))
    evidence.add("service log", *service.log.splitlines())
    evidence.check()


def test_the_search_finds_what_is_said() -> None:
    """The evidence is no check that cannot fail: a canary in any place is found."""
    for leak in (
        ValueError(CANARY),
        httpx.ConnectError("x", request=httpx.Request("GET", "http://x", headers={"t": CANARY})),
    ):
        evidence = Evidence()
        evidence.add("filler", *["-"] * 60)
        outer = ConfigClientError("clean")
        outer.__cause__ = leak
        evidence.add_error("error", outer)
        with pytest.raises(AssertionError, match="error"):
            evidence.check()


def _sdk_refusals(
    evidence: Evidence, operator: Operator, connect: Callable[..., ConfigClient], narrow: Credentials, wrong_key: str
) -> None:
    operator.publish("orders", DOCUMENT)
    operator.publish("clash", {"a": {"b": CANARY}, "a_b": CANARY})
    client = connect()
    assert client.get_raw("orders") == DOCUMENT
    evidence.add("repr", repr(client), repr(client._options), repr(client._transport), repr(client._keyring))
    for where, call in {
        "dataclass": lambda: client.get("orders", WantsInt),
        "pydantic": lambda: client.get("orders", WantsIntModel),
        "unsupported": lambda: client.get("orders", int),
        "404": lambda: client.get_raw("nothing"),
        "version": lambda: client.get_raw("orders", GetOptions(version=99)),
        "422": lambda: client.get_formatted("clash", Format.ENV),
        "403": lambda: connect(narrow).get_formatted("orders", Format.JSON),
        "401": lambda: connect(service_token=CANARY).get_raw("orders"),
        "wrong key": lambda: connect(encryption_key=wrong_key).get_raw("orders"),
        "name": lambda: client.get_raw(f"../{CANARY}"),
        "options token": lambda: connect(service_token=f"{CANARY}\n"),
        "options key": lambda: connect(encryption_key=CANARY),
        "options host": lambda: connect(host=f"http://user:{CANARY}@localhost"),
        "no such host": lambda: connect(host="http://localhost:1", retry_count=1).get_raw("orders"),
    }.items():
        refusal(evidence, where, call)


def _watch_refusals(evidence: Evidence, operator: Operator, connect: Callable[..., ConfigClient]) -> None:
    from config_client import Snapshot

    errors: list[Exception] = []
    unfit, gone = threading.Event(), threading.Event()

    def on_error(error: Exception) -> None:
        errors.append(error)
        (
            unfit
            if isinstance(error, UnmarshalError)
            else gone
            if isinstance(error, NotFoundError)
            else threading.Event()
        ).set()
        raise ValueError(CANARY)

    snapshot: Snapshot[WantsInt] = Snapshot()
    operator.publish("watched", {"port": 1})
    snapshot.on_change(lambda change: [][int(bool(change))])
    client = connect(on_error=on_error)
    threading.Thread(target=client.watch_and_decode, args=("watched", WantsInt, snapshot), daemon=True).start()
    assert snapshot.wait_for(timeout=60)
    operator.publish("watched", {"port": CANARY})
    assert unfit.wait(60)
    operator.delete("watched")
    assert gone.wait(60)
    client.close()
    evidence.add("repr", repr(snapshot))
    for error in errors:
        evidence.add_error("watch", error)


def _service_refusals(evidence: Evidence, service: ServiceProcess, access: Credentials, operator: Operator) -> None:
    admin = operator.mint("canary-admin", scopes=("*@*:read,export,write,admin",))
    bodies: dict[str, bytes] = {
        "not json": f'{{"a": "{CANARY}"'.encode(),
        "array": json.dumps([CANARY]).encode(),
        "duplicate": f'{{"a": "{CANARY}", "a": "{CANARY}"}}'.encode(),
        "nan": f'{{"a": NaN, "b": "{CANARY}"}}'.encode(),
        "latin-1": f'{{"a": "{CANARY}\xe9"}}'.encode("latin-1"),
        "too large": json.dumps({"a": CANARY * 200_000}).encode(),
        "deep": b'{"a":' * 5000 + f'"{CANARY}"'.encode() + b"}" * 5000,
        "overflow": f'{{"a": 1e999, "b": "{CANARY}"}}'.encode(),
    }
    manage = f"{service.url}/api/v1/manage"
    with httpx.Client(headers={"X-Service-Token": admin.token}) as http:
        answers = [http.put(f"{manage}/configs/orders", content=body) for body in bodies.values()]
        answers += [
            http.put(f"{manage}/configs/orders", content=b"{}", headers={"If-Match": '"77"'}),
            http.put(f"{manage}/configs/orders", content=b"{}", headers={"If-Match": CANARY}),
            http.put(f"{manage}/configs/a%2f..", content=json.dumps(DOCUMENT).encode()),
            http.post(f"{manage}/configs/orders/rollback", json={"version": CANARY}),
            http.post(f"{manage}/tokens", json={"name": "x", "scopes": [CANARY], "secret": CANARY}),
            http.post(f"{manage}/tokens", content=f'{{"name": "{CANARY}'.encode()),
            http.delete(f"{manage}/tokens/999"),
            http.get(f"{service.url}/api/v1/service/configs/clash/formatted", params={"format": "env"}),
            http.get(f"{service.url}/api/v1/service/configs/orders", headers={"X-Service-Token": CANARY}),
            http.put(f"{manage}/configs/orders", content=b"{}", headers={"X-Service-Token": access.token}),
        ]
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.status_code for answer in answers]
    for answer in answers:
        evidence.add(f"body {answer.status_code}", answer.text)
        evidence.add(f"headers {answer.status_code}", repr(answer.headers.raw))
        assert answer.json()["error"]["code"]
    # By a client that does not log its own URLs.
    for path in (CANARY, access.token, access.token[4:], access.key, f"api/v1/manage/configs/{access.token[4:]}"):
        asked = urllib.request.Request(f"{service.url}/{path}?{path}", headers={"X-Request-Id": access.token[4:]})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        with refused.value as answer:
            evidence.add("pasted", answer.read().decode(), repr(answer.headers.items()))
    for path in ("/metrics", "/readyz", "/api/v1/manage/watchers"):
        told = httpx.get(f"{service.url}{path}", headers={"X-Service-Token": admin.token})
        assert told.status_code == 200
        evidence.add(path, told.text)
    evidence.add("tokens", httpx.get(f"{manage}/tokens", headers={"X-Service-Token": admin.token}).text)


def _command_line_refusals(evidence: Evidence, service: ServiceProcess, tmp_path: Path) -> None:
    document = tmp_path / "bad.json"
    document.write_text(f'{{"a": "{CANARY}", "a": "{CANARY}"}}')
    for arguments in (
        ["--help"],
        ["publish", "orders", str(document), "--url", service.url, "--token", CANARY],
        ["show", "orders", "--url", "http://localhost:1", "--token", CANARY],
        ["serve", "--store-url", f"postgresql://user:{CANARY}@localhost/x"],
        ["serve", "--port", "0"],  # the store is held by the running service
    ):
        done = service.run_cli(*arguments)
        evidence.add(f"command line {arguments[0]}", done.stdout, done.stderr)


def _broken_stores(evidence: Evidence, service: ServiceProcess, connect: Callable[..., ConfigClient]) -> None:
    client = connect(retry_count=1)
    service.kill()
    refusal(evidence, "killed service", lambda: client.get_raw("orders"))
    own_key = service._environment["CONFIG_SERVER_MASTER_KEY"]
    service._environment["CONFIG_SERVER_MASTER_KEY"] = "0" * 64
    with pytest.raises(ProcessError) as wrong_key:
        service.start()
    evidence.add_error("wrong master key", wrong_key.value)
    service._environment["CONFIG_SERVER_MASTER_KEY"] = own_key
    database = service.directory / "config.db"
    content = database.read_bytes()
    for log in service.directory.glob("config.db-*"):
        log.unlink()
    database.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with pytest.raises(ProcessError) as corrupt:
        service.start()
    evidence.add_error("corrupt store", corrupt.value)
    database.write_bytes(content)


def _rendered(record: logging.LogRecord) -> str:
    return " ".join([record.getMessage(), repr(record.args), str(record.exc_info), str(record.exc_text)])


def test_options_show_neither_token_nor_key() -> None:
    """The repr of options is safe to log."""
    shown = repr(Options(host="http://localhost", service_token=CANARY, encryption_key="ab" * 32))
    assert CANARY not in shown
    assert "abab" not in shown
