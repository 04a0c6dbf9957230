"""One exchange with the service, from first host to final answer: hosts in order, redirects, pauses. Sends nothing.

Knows what to send next and what an outcome means; a transport performs the steps, with threads or with tasks. The
token is among the variables of these frames, so whoever performs them raises their errors without a traceback.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

import httpx

from ._answers import fault_of
from ._hosts import Hosts, origin_of
from ._retrying import Pause, is_answer, retried
from .backoff import RetryPolicy
from .errors import (
    ConnectionError,  # noqa: A004 - this package's
    InvalidResponseError,
)
from .protocol import TOKEN_HEADER

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD: Final = frozenset({307, 308})


class Call(NamedTuple):
    """What to ask of whichever host: a path below it, and what goes along."""

    path: str
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    method: str = "GET"
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"Call({self.method} {self.path})"


class Send(NamedTuple):
    """A step: send this request to the host of this index; the outcome is the response or what httpx raised."""

    host: int
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None

    def __repr__(self) -> str:
        # The headers hold the token.
        return f"Send({self.method} {self.url})"


Outcome = httpx.Response | Exception
Steps = Generator[Send | Pause, Outcome | None, httpx.Response]
_Attempt = Generator[Send, Outcome | None, httpx.Response | ConnectionError]


class Exchanges:
    """The exchanges with one service as one token."""

    def __init__(self, hosts: Hosts, token: str, policy: RetryPolicy) -> None:
        self._hosts = hosts
        self._token = token
        self._policy = policy

    def __repr__(self) -> str:
        return f"Exchanges({str(self._hosts)!r})"

    def patient(self, call: Call) -> Steps:
        """Ask the hosts in order, again and again as the policy has it.

        Raises ConnectionError, and InvalidResponseError for redirects that must not be followed. The last answer is
        returned, also when it is a 5xx, 408 or 429.
        """
        outcome = yield from retried(lambda: self._each(call, self._hosts.order()), self._policy)
        return _answer(outcome)

    def single(self, call: Call, host: int | None = None) -> Steps:
        """Ask every host once, in order, or only the one that is named. Raises as ``patient`` does."""
        outcome = yield from self._each(call, self._hosts.order() if host is None else (host,))
        return _answer(outcome)

    def _each(self, call: Call, order: tuple[int, ...]) -> _Attempt:
        """One attempt: after a network error, a 5xx, 408 or 429 the next host at once; anything else is an answer."""
        for index in order[:-1]:
            outcome = yield from self._at(call, index)
            if is_answer(outcome):
                return outcome
        return (yield from self._at(call, order[-1]))

    def _at(self, call: Call, index: int) -> _Attempt:
        outcome = yield from self._follow(call, index)
        if is_answer(outcome):
            self._hosts.answered(index)
        else:
            self._hosts.failed(index)
        return outcome

    def _follow(self, call: Call, index: int) -> _Attempt:
        """Send, following redirects within the same origin: any other would carry the token away."""
        base = self._hosts.urls[index]
        url = f"{self._hosts.texts[index]}{call.path}"
        if call.params:
            url = f"{url}?{urlencode(call.params)}"
        headers = {**(call.headers or {}), TOKEN_HEADER: self._token}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        for _ in range(MAX_REDIRECTS + 1):
            outcome = yield Send(index, call.method, url, dict(headers), call.body)
            if not isinstance(outcome, httpx.Response):
                return self._failed(outcome, base)
            if outcome.status_code not in REDIRECTS:
                return outcome
            target = _join(url, outcome.headers.get("Location", ""))
            if isinstance(target, Exception):
                return self._failed(target, base)
            if origin_of(target) != origin_of(base):
                raise InvalidResponseError(
                    f"{call.path}: the service redirects to another origin, which must not see the token; "
                    "if the service has moved, set host to its new URL"
                )
            if call.method != "GET" and outcome.status_code not in _SAME_METHOD:
                raise InvalidResponseError(
                    f"{call.path}: the service answered a {call.method} with the redirect {outcome.status_code}, "
                    "which does not keep the method; only 307 and 308 do"
                )
            url = str(target)
        raise InvalidResponseError(f"{call.path}: more than {MAX_REDIRECTS} redirects")

    def _failed(self, outcome: Exception | None, base: httpx.URL) -> ConnectionError:
        """Return the network error that ``outcome`` is; raise what another attempt would only meet again."""
        assert outcome is not None  # noqa: S101 - a request ends in a response or an error
        fault = fault_of(outcome, base, self._token)
        if isinstance(outcome, httpx.TransportError) and isinstance(fault, ConnectionError):
            return fault
        raise fault


def _join(url: str, location: str) -> httpx.URL | Exception:
    try:
        target = httpx.URL(url).join(location)
        # The host is decoded as late as here.
        origin_of(target)
        return target
    except (httpx.InvalidURL, UnicodeError) as error:
        return error.with_traceback(None)


def _answer(outcome: httpx.Response | ConnectionError) -> httpx.Response:
    if isinstance(outcome, httpx.Response):
        return outcome
    raise outcome
