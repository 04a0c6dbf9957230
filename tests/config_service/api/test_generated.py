"""Requests that schemathesis makes of the description of the API, with real tokens, against a real server.

What is claimed: no 5xx, no status that the description does not have, no answer of another kind or shape.
The same few requests in the usual run, since they are made from a seed; many more in `make long`.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from config_service.domain.keys import ConfigKey

pytestmark = [pytest.mark.e2e, pytest.mark.long]

KINDS = ("admin", "writer", "reader", "none")
NAMES = ("orders", "orders", "fresh", None)
"""Put in the place of the name that was made up, None: which is left as it is; else nearly everything were 400."""
QUERIES = (True, False, False)
"""Whether the query that was made up is sent."""
NEWER = "x-config-min-revision"
"""A request may ask for something newer than there is, and is told to come back: the only 503 there may be."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, live_service: Callable[..., Any]) -> Iterator[Any]:
    """One service with something of everything in it, and a token of each kind."""
    made = live_service(
        f"sqlite:///{tmp_path_factory.mktemp('generated') / 'config.db'}", auth_failures=0, rate_limit=0
    ).start()
    operations, admin = made.app.operations, made.admin.token
    orders = ConfigKey("orders")
    for number in range(3):
        made.publish(b'{"db": {"host": "db%d"}}' % number)
    made.call(operations.drafts.replace(admin, orders, b'{"db": {"host": "db9"}}'))
    made.call(operations.schemas.set(admin, orders, b'{"required": ["db"]}'))

    def mint(name: str, *scopes: str) -> str:
        from config_service.domain.scopes import Scope

        granted = [Scope.parse(scope) for scope in scopes]
        secret: str = made.call(operations.tokens.create(admin, name, scopes=granted)).secret
        return secret

    made.secrets = {
        "admin": made.admin.secret,
        "writer": mint("writer", "*@*:read,write"),
        "reader": mint("reader", "*@*:read,export"),
    }
    mint("to be revoked", "*@*:read")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def described(service: Any) -> Iterator[Any]:
    """The description as the service tells it, read by schemathesis."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        # Its own dependencies warn of one another.
        warnings.simplefilter("ignore")
        document = httpx.get(f"{service.url}/api/v1/manage/openapi.json", trust_env=False).json()
        yield _read(document, patch)


def _read(document: dict[str, Any], patch: pytest.MonkeyPatch) -> Any:
    # Not above: it takes seconds, which every run would pay that selects other tests.
    import made_up

    return made_up.read(document, patch)


def operations_of(described: Any) -> list[Any]:
    return [found.ok() for found in described.get_all_operations()]


class Asker:
    """Sends what was made up, by one session, and holds the answer against the description."""

    def __init__(self, service: Any) -> None:
        import requests
        from schemathesis import checks
        from schemathesis.core.failures import FailureGroup
        from schemathesis.specs.openapi import checks as conformance

        self._service = service
        self._failures = FailureGroup
        self._session = requests.Session()
        self._session.trust_env = False
        self._checks = [
            checks.not_a_server_error,
            conformance.status_code_conformance,
            conformance.content_type_conformance,
            conformance.response_headers_conformance,
            conformance.response_schema_conformance,
        ]
        self.seen: Counter[int] = Counter()
        self.faults: list[str] = []

    def ask(self, case: Any, kind: str, name: str | None, query: bool) -> None:
        """Send a case with the token of ``kind``."""
        if name is not None and "name" in case.path_parameters:
            case.path_parameters["name"] = name
        if "token_id" in case.path_parameters and name is not None:
            # Neither of those that are asking here.
            case.path_parameters["token_id"] = 5 if name == "orders" else 999
        if not query:
            case.query = {}
        told = {} if kind == "none" else {"X-Service-Token": self._service.secrets[kind]}
        case.headers = {key: value for key, value in (case.headers or {}).items() if key.lower() != "x-service-token"}
        arguments = case.as_transport_kwargs(base_url=self._service.url, headers=told)
        try:
            response = self._session.request(**arguments, stream=True, timeout=20)
        except (UnicodeError, ValueError):
            return  # no request that this client can send
        with response:
            self.seen[response.status_code] += 1
            if response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream"):
                assert "text/event-stream" in case.operation.definition.raw["responses"]["200"]["content"]
                return
            if response.status_code == 503 and self._asks_for_newer(case):
                assert response.json()["error"]["code"] == "unavailable"
                return
            response.content  # noqa: B018 - read, for the checks
            try:
                case.validate_response(response, checks=self._checks)
            except self._failures as group:
                # Noted and not raised: asked again, the service may answer something else, for it has changed.
                told = "; ".join(str(each) for each in group.exceptions)
                self.faults.append(f"{case.method} {case.operation.path}, {kind}: {told}")

    @staticmethod
    def _asks_for_newer(case: Any) -> bool:
        headers = {key.lower() for key in case.headers or {}}
        return NEWER in headers or (case.path.endswith("/watch") and "revision" in json.dumps(case.body))

    def close(self) -> None:
        self._session.close()


def generate(service: Any, described: Any, *, examples: int, number: int, kinds: tuple[str, ...] = KINDS) -> Asker:
    """Ask ``examples`` requests of every operation with every one of ``kinds`` of token."""
    asker = Asker(service)
    hush = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    usual = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=hush,
        verbosity=Verbosity.quiet,
    )
    # Whatever revokes or deletes comes last, so that the others meet something.
    order = sorted(operations_of(described), key=lambda one: (one.method == "delete", one.path, one.method))
    for operation, kind in itertools.product(order, kinds):
        seed(number)(usual(_asking(asker, operation, kind)))()
    asker.close()
    assert not asker.faults, "\n\n".join(asker.faults)
    return asker


def _asking(asker: Asker, operation: Any, kind: str) -> Callable[[], None]:
    @given(operation.as_strategy(), st.sampled_from(NAMES), st.sampled_from(QUERIES))
    def ask(case: Any, name: str | None, query: bool) -> None:
        asker.ask(case, kind, name, query)

    return ask


def test_made_up_requests_are_answered_as_described(service: Any, described: Any) -> None:
    """A few of every operation with every kind of token; among them are some that succeed and some that are refused."""
    seen = generate(service, described, examples=2, number=20261120).seen
    assert {200, 201, 400, 401, 403, 404} <= seen.keys(), seen
    assert not [status for status in seen if status >= 500 and status != 503], seen


def test_what_is_not_described_is_noticed(service: Any, described: Any) -> None:
    """A description without 401 does not pass, nor one in which an answer has another shape."""
    document = deepcopy(described.raw_schema)
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("401", None)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match="401"):
        generate(service, _read(document, patch), examples=1, number=1, kinds=("none",))
    document = deepcopy(described.raw_schema)
    document["components"]["schemas"]["ConfigRow"]["properties"]["version"]["type"] = "string"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match="version"):
        generate(service, _read(document, patch), examples=1, number=1, kinds=("admin",))


@pytest.mark.parametrize("number", range(2))
def test_many_made_up_requests_are_answered_as_described(service: Any, described: Any, number: int) -> None:
    """Other ones for each seed."""
    seen = generate(service, described, examples=6, number=number).seen
    assert {200, 201, 400, 401, 403, 404} <= seen.keys(), seen
