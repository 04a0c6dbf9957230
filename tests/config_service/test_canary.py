"""A secret planted in documents, keys and tokens appears in no log line, repr, exception or error body."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from config_client.types import Format
from config_service.domain.errors import ServiceError, StoreFullError
from config_service.domain.keys import ConfigKey
from config_service.domain.preconditions import Precondition
from config_service.logs import JsonFormatter, TextFormatter
from config_service.operations import Operations

pytestmark = pytest.mark.anyio
CANARY = "canary-8e31c7"
ORDERS = ConfigKey("orders")
RAW = json.dumps({"password": CANARY, "nested": {"list": [CANARY]}}).encode()
BAD = {
    "cut": RAW[:-4],
    "list": f'["{CANARY}"]'.encode(),
    "duplicate": f'{{"a": "{CANARY}", "a": "{CANARY}"}}'.encode(),
    "nan": f'{{"a": "{CANARY}", "b": NaN}}'.encode(),
    "overflow": f'{{"a": "{CANARY}", "b": 1e999}}'.encode(),
    "deep": b'{"a": "' + CANARY.encode() + b'", "b": ' + b"[" * 200 + b"]" * 200 + b"}",
    "latin": f'{{"a": "{CANARY}'.encode() + b'\xe9"}',
    "text": f'"{CANARY}"'.encode(),
    "bare": CANARY.encode(),
    "large": b'{"a": "' + CANARY.encode() * 1000 + b'"}',
}


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield


def secrets_of(*minted: Any) -> list[str]:
    """Every spelling under which something could slip out."""
    spelled = [CANARY]
    for one in minted:
        spelled += [one.secret, one.secret[4:], one.key.hex(), repr(one.key)[2:-1], one.token.secret_hash.hex()]
    return spelled


def assert_clean(text: str, secrets: list[str]) -> None:
    assert not [secret for secret in secrets if secret in text], "a secret slipped out"


def chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
            yield one


def told(error: BaseException) -> str:
    """Everything that a logger or error tracker could tell of an exception and its chain."""
    parts = ["".join(traceback.format_exception(error))]
    for one in chain(error):
        parts += [str(one), repr(one), repr(one.args), repr(vars(one))]
    return "\n".join(parts)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Everything logged, in every form, but the test's own HTTP client, which tells whole URLs."""
    records = [record for record in caplog.records if not record.name.startswith("http")]
    lines = [form.format(record) for record in records for form in (JsonFormatter(), TextFormatter())]
    return "\n".join([*(repr(vars(record)) for record in records), *lines])


async def test_no_answer_that_refuses_and_no_log_line_holds_a_secret(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Every failing request that there is, with secrets in the body, the header, the path and the query."""
    reader = await service.mint("*@*:read")
    revoked = await service.mint()
    await service.operations.tokens.revoke(service.admin.token, revoked.token.id)
    await service.publish("orders", RAW)
    await service.publish("clash", f'{{"a": {{"b": "{CANARY}"}}, "a_b": "{CANARY}"}}'.encode())
    secrets = secrets_of(service.admin, reader, revoked)
    clients = {"admin": service.client(service.admin), "reader": service.client(reader), "nobody": service.client()}
    config, manage, tokens = "/api/v1/service/configs/orders", "/api/v1/manage/configs/orders", "/api/v1/manage/tokens"
    answers: list[httpx.Response] = []

    async def ask(who: str, method: str, url: str, **request: Any) -> None:
        answers.append(await clients[who].request(method, url, **request))

    for body in BAD.values():
        await ask("admin", "PUT", manage, content=body)
        await ask("admin", "POST", tokens, content=body)
        await ask("admin", "POST", f"{manage}/rollback", content=body)
    for secret in (CANARY, revoked.secret, reader.secret + "x", reader.key.hex()):
        for path in (config, f"{config}/formatted", f"{config}/watch", manage):
            await ask("nobody", "GET", path, headers={"X-Service-Token": secret})
    for path in (f"{config}/formatted", f"{manage}/history", tokens):
        await ask("reader", "GET", path)
    for misplaced in (reader.secret, reader.key.hex()):
        for path in (f"/{misplaced}", f"/api/v1/manage/{misplaced}", f"{config}/{misplaced}"):
            await ask("reader", "GET", path)
        for parameter in ("environment", "version", "format", "label"):
            await ask("admin", "GET", f"{config}/formatted", params={parameter: f"{misplaced}!"})
        for parameter in ("environment", "label"):
            await ask("admin", "GET", manage, params={parameter: f"{misplaced}!"})
        for header in ("If-Match", "If-None-Match"):
            await ask("admin", "PUT", manage, content=RAW, headers={header: misplaced})
        await ask("admin", "DELETE", f"{tokens}/{misplaced}")
    await ask("admin", "PUT", manage, content=RAW + b" ", headers={"If-Match": "7"})
    await ask("admin", "GET", "/api/v1/service/configs/clash/formatted?format=env")
    for failure in (StoreFullError("full"), RuntimeError(CANARY), RuntimeError(RAW)):
        service.store.fail = failure
        await ask("admin", "PUT", manage, content=RAW + b"  ")
    assert {answer.status_code for answer in answers} == {400, 401, 403, 404, 412, 413, 422, 500, 507}
    for answer in answers:
        assert_clean(answer.text + repr(answer.headers), secrets)
    assert_clean(logged(caplog), secrets)


async def test_no_error_of_the_operations_holds_a_secret(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither message, nor arguments, nor attributes, over the whole chain."""
    admin = service.admin.token
    calls: Operations = service.operations
    await service.publish("orders", RAW)
    await service.publish("clash", f'{{"a": {{"b": "{CANARY}"}}, "a_b": "{CANARY}"}}'.encode())
    outsider = (await service.mint("other@*:read")).token
    secrets = secrets_of(service.admin)
    work: list[Callable[[], Awaitable[object]]] = [
        *(lambda body=body: calls.publish(admin, ORDERS, body) for body in BAD.values()),
        lambda: calls.publish(admin, ORDERS, RAW, Precondition(absent=True)),
        lambda: calls.publish(outsider, ORDERS, RAW),
        lambda: calls.read(outsider, ORDERS),
        lambda: calls.read(admin, ORDERS, 9),
        lambda: calls.export(admin, ConfigKey("clash"), Format.ENV),
        lambda: calls.rollback(admin, ORDERS, 9),
    ]
    for attempt in work:
        with pytest.raises(ServiceError) as caught:
            await attempt()
        assert_clean(told(caught.value), secrets)
    with pytest.raises(ServiceError) as caught:
        calls.authenticate(CANARY)
    assert_clean(told(caught.value), secrets)
    assert_clean(logged(caplog), secrets)


async def test_drafts_and_schemas_are_told_to_those_who_ask_for_them_and_to_nobody_else(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Two answers hold a draft; no other one, no log line, no repr and nothing at rest does, whatever fails."""
    http = service.client(service.admin)
    draft, schema = "/api/v1/manage/configs/orders/draft", "/api/v1/manage/configs/orders/schema"
    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"Content-Type": "application/json-patch+json"}
    await service.publish("orders", b'{"nested": {}}')
    answers = [await http.put(draft, content=RAW)]
    for body in BAD.values():
        answers.append(await http.put(draft, content=body))
        answers.append(await http.patch(draft, content=body, headers=merge))
        answers.append(await http.patch(draft, content=body, headers=patch))
        answers.append(await http.put(schema, content=body))
        answers.append(await http.post(f"{draft}/revert", content=body))
    answers.append(await http.put(draft, content=RAW))
    faulty = ({"op": "test", "path": "/password", "value": [CANARY]}, {"op": CANARY}, {"path": f"/{CANARY}"})
    answers += [await http.patch(draft, json=[operation], headers=patch) for operation in faulty]
    answers.append(await http.put(schema, json={"properties": {"password": {"enum": [CANARY * 2]}}}))
    answers += [await http.post(f"{draft}/{action}") for action in ("validate", "publish")]
    service.store.fail = RuntimeError(CANARY)
    answers.append(await http.put(draft, content=RAW))
    answers += [await http.get(path) for path in (draft, schema, f"{schema}/history")]
    assert {answer.status_code for answer in answers} == {200, 201, 400, 409, 413, 422, 500}
    secrets = secrets_of(service.admin)
    for answer in answers:
        assert_clean(answer.text + repr(answer.headers), secrets)
    assert_clean(logged(caplog), secrets)
    found = await service.operations.drafts.read(service.admin.token, ORDERS)
    validation = await service.operations.drafts.validate(service.admin.token, ORDERS)
    held = service.operations.schemas._schemas.get(ORDERS)
    for one in (found, validation, held, held.compiled, *service.store.held_drafts.values()):
        assert_clean(repr(one), secrets)
    assert_clean(repr(service.store.held_schemas), secrets)


async def test_a_rotation_shows_its_key_to_its_caller_and_to_nobody_else(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One answer holds it; no other answer, no log line, no repr and no error does, and no part of the old key."""
    minted = await service.mint()
    http = service.client(service.admin)
    tokens = "/api/v1/manage/tokens"
    answers = []
    shown: list[str] = []
    for overlap in (3600, 60, 3600):
        row = (await http.post(f"{tokens}/{minted.token.id}/key", json={"overlap_seconds": overlap})).json()
        shown.append(row["key"])
    answers.append(await http.post(f"{tokens}/{minted.token.id}/key"))
    answers.append(await http.post(f"{tokens}/{minted.token.id}/key", json={"overlap_seconds": shown[0]}))
    answers.append(await http.post(f"{tokens}/{minted.token.id}/key", json={shown[0]: minted.secret}))
    answers.append(await http.get(tokens))
    service.store.fail = RuntimeError(shown[0])
    answers.append(await http.post(f"{tokens}/{minted.token.id}/key", json={"overlap_seconds": 0}))
    answers.append(await http.delete(f"{tokens}/{minted.token.id}"))
    assert [answer.status_code for answer in answers] == [409, 400, 400, 200, 500, 200]
    rotated = await service.operations.tokens.rotate_key(service.admin.token, service.admin.token.id, 60)
    keys = [bytes.fromhex(key) for key in shown] + [rotated.key]
    secrets = secrets_of(service.admin, minted)
    secrets += [spelled for key in keys for spelled in (key.hex(), repr(key)[2:-1])]
    token = service.operations.authenticate(service.admin.secret)
    for one in (rotated, token, token.key_for(None, service.clock.now), *service.store.held_tokens[0].keys):
        assert_clean(repr(one), secrets)
    for answer in answers:
        assert_clean(answer.text + repr(answer.headers), secrets)
    assert_clean(logged(caplog), secrets)


async def test_damage_at_rest_is_told_without_what_is_at_rest(service: Any, start: Any) -> None:
    """A document or key that does not open: typed, by name, and no bytes of it."""
    await service.publish("orders", RAW)
    (versions,) = service.store.held.values()
    object.__setattr__(versions[0], "document", CANARY.encode() * 3)
    with pytest.raises(ServiceError) as caught:
        await start()
    assert_clean(told(caught.value), secrets_of(service.admin))


async def test_no_repr_holds_a_secret(service: Any, settings: Any) -> None:
    """Of the whole application, down to every value that it holds."""
    await service.publish("orders", RAW)
    subscription = service.operations.streams.subscribe(service.admin.token, "orders")
    document = await service.operations.read(service.admin.token, ORDERS)
    exported = await service.operations.export(service.admin.token, ORDERS, Format.YAML)
    outcome = await service.operations.publish(service.admin.token, ORDERS, RAW)
    service.operations.seal(document, service.operations.key_for(service.admin.token, None))
    secrets = [*secrets_of(service.admin), settings.master_key.get_secret_value()]
    shown = [subscription, subscription.interest, document, exported, outcome, service.admin, service.admin.token]
    shown += [settings, list(service.app.operations._registry), *parts(service.app)]
    for one in shown:
        assert_clean(repr(one), secrets)


def parts(whole: object, depth: int = 3) -> Iterator[object]:
    """The parts of the service that ``whole`` consists of, itself first; containers are shown by their owners only."""
    yield whole
    if depth and type(whole).__module__.startswith("config_service."):
        slots = [name for kind in type(whole).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in (*slots, *getattr(whole, "__dict__", ())):
            part = getattr(whole, name, None)
            if type(part).__module__.startswith("config_service."):
                yield from parts(part, depth - 1)


async def test_records_of_the_store_show_no_key_or_hash(service: Any) -> None:
    """What is handed to a store is sealed; hashes of secrets are not shown either."""
    await service.publish("orders", RAW)
    minted = service.admin
    (stored,) = service.store.held_tokens
    (versions,) = service.store.held.values()
    for record in (stored, versions[0]):
        assert_clean(repr(record), secrets_of(minted))
    assert CANARY.encode() not in versions[0].document
