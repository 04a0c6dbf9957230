"""The management API as the commands use it: one request, one JSON answer, or one typed failure.

Knows HTTP and nothing of terminals. The operator's token goes into one header and nowhere else: failures are raised
outside the handlers of httpx's exceptions, whose requests carry that header.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final

from config_client.protocol import TOKEN_HEADER

from .exits import CommandError, ExitCode, code_of_status
from .trust import tls_context

if TYPE_CHECKING:
    import httpx  # where it is used: the help of a command, and most completions, need no HTTP

_PATIENCE: Final = 30.0
_CONNECTING: Final = 5.0
_RATE_LIMITED: Final = "rate_limited"
_LONGEST_WAIT: Final = 120.0
"""Seconds for which a command waits, in all, while its token has used up its rate."""
_HINTS: Final[Mapping[int, str]] = {
    401: "CONFIG_SERVER_TOKEN (or --token) must be a token of this service that has not expired or been revoked; when "
    "all admin tokens are lost, `config-service init --recover` makes one where the store is",
    403: "use a token with that right; an admin makes one by `config-service token create NAME --scope "
    "CONFIGS@ENVIRONMENTS:RIGHTS`",
}
"""What to do about a refusal that the service cannot know the remedy of, by status."""


class ManageApi:
    """A connection to a service as an operator. Use it in a ``with`` block."""

    def __init__(self, url: str, token: str, *, patience: float = _PATIENCE) -> None:
        """Check ``url`` and ``token``; connect on the first request.

        ``patience``: seconds that every step of a request may take. Raises CommandError.
        """
        import httpx  # noqa: PLC0415 - see above

        self._url = _checked_url(url)
        # A request to this very machine must not reach a proxy: it could not connect back, and would see the token.
        self._http = httpx.Client(
            base_url=self._url,
            headers={TOKEN_HEADER: _checked_token(token), "Accept": "application/json"},
            timeout=httpx.Timeout(patience, connect=min(patience, _CONNECTING)),
            follow_redirects=False,
            trust_env=not _is_loopback(self._url.host),
            verify=(tls_context() if self._url.scheme == "https" else None) or True,
        )

    def __enter__(self) -> ManageApi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> dict[str, object]:
        """Send a request and return the JSON object of the answer. Raises CommandError."""
        answer = _parsed(self.fetch(method, path, query=query, headers=headers, body=body))
        if answer is None:
            raise _not_the_service(self._url, "an answer that is not a JSON object")
        return answer

    def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """Send a request and return the body of the answer. Query values of None are left out. Raises CommandError."""
        import httpx  # noqa: PLC0415

        params = {name: value for name, value in (query or {}).items() if value is not None}
        sent = {"Content-Type": "application/json"} if body is not None else {}
        waited = 0.0
        while True:
            try:
                answer = self._http.request(
                    method, path.lstrip("/"), params=params, headers={**sent, **(headers or {})}, content=body
                )
            except httpx.HTTPError as error:
                failure = type(error).__name__
                break
            if answer.is_success:
                return answer.content
            refusal = _refusal(self._url, answer.status_code, answer.content)
            pause = _pause(answer.status_code, answer.content, answer.headers.get("Retry-After"))
            waited += pause or 0
            if pause is None or waited > _LONGEST_WAIT:
                raise refusal
            time.sleep(pause)
        raise CommandError(
            f"no answer from {self._url} ({failure}); is the service running, and is this its address? "
            f"CONFIG_SERVER_URL (or --url) sets it{self._about_certificates()}",
            ExitCode.UNAVAILABLE,
        )

    def _about_certificates(self) -> str:
        """Return what else to look at over TLS: a certificate that one side refused looks like no answer."""
        if self._url.scheme != "https":
            return ""
        return (
            "; does CONFIG_SERVER_CA name the authority of its certificate, and CONFIG_SERVER_CLIENT_CERT one that it "
            "accepts, if it asks for one?"
        )

    @contextmanager
    def stream(self, path: str, *, query: Mapping[str, str | None] | None = None) -> Iterator[Iterator[bytes]]:
        """Give the chunks of an answer that may be larger than memory, for a block. Raises CommandError.

        Raises it as well when the answer is cut; what it is that came before, its own last line has to tell.
        """
        import httpx  # noqa: PLC0415

        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            with self._http.stream("GET", path.lstrip("/"), params=params) as answer:
                if not answer.is_success:
                    raise _refusal(self._url, answer.status_code, answer.read())
                yield answer.iter_bytes()
                return
        except httpx.HTTPError as error:
            failure = type(error).__name__
        raise CommandError(
            f"no whole answer from {self._url} ({failure}); is the service running? Try again"
            f"{self._about_certificates()}",
            ExitCode.UNAVAILABLE,
        )


def _pause(status: int, body: bytes, retry_after: str | None) -> float | None:
    """Return the seconds after which the same request is let in; None when waiting does not help."""
    error = (_parsed(body) or {}).get("error")
    if status != 429 or not isinstance(error, dict) or error.get("code") != _RATE_LIMITED:
        return None
    return float(retry_after) if retry_after and retry_after.isdecimal() else 1.0


def _refusal(url: httpx.URL, status: int, body: bytes) -> CommandError:
    error = (_parsed(body) or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    if isinstance(message, str):
        hint = _HINTS.get(status)
        return CommandError(f"{message}; {hint}" if hint else message, code_of_status(status))
    # Whatever answered is not the service but a proxy or a stranger; its 404 says nothing about a config.
    return _not_the_service(url, f"status {status} without a message")


def _not_the_service(url: httpx.URL, what: str) -> CommandError:
    return CommandError(
        f"{url} gave {what}; is CONFIG_SERVER_URL (or --url) the address of the service?", ExitCode.UNAVAILABLE
    )


def _parsed(body: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _checked_url(text: str) -> httpx.URL:
    import httpx  # noqa: PLC0415

    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    # The text is not repeated: the refused part may be a password before the host.
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise CommandError(
            "CONFIG_SERVER_URL (or --url) must be http:// or https:// and a host, such as http://127.0.0.1:8080",
            ExitCode.USAGE,
        )
    return url


def _checked_token(text: str) -> str:
    token = text.strip()
    if not token:
        raise CommandError(
            "no operator token: set CONFIG_SERVER_TOKEN to the token that `config-service init` printed",
            ExitCode.USAGE,
        )
    # An HTTP library would refuse such a header too, but with the token in its message.
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError(
            "CONFIG_SERVER_TOKEN holds characters that no token has; copy it again, without quotes or line breaks",
            ExitCode.USAGE,
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
