"""Every error that this SDK raises.

    ConfigClientError            base of all; invalid options
    ├── UnauthorizedError        401: the token is unknown, expired or revoked
    ├── ForbiddenError           403: the token's scopes do not cover the request
    ├── NotFoundError            404: no such config or version, or it was deleted
    ├── InvalidResponseError     any other 4xx but 408 and 429, or a body that is not what the endpoint promises
    ├── ConnectionError          network failure, 5xx, 408 or 429, after all retries
    ├── DecryptionError          the payload does not open under this client's keys, or is not the one asked for
    ├── UnmarshalError           the document is not a JSON object, or does not fit the target type
    ├── RefusedError             the application's own ``pre_apply`` refused the value
    └── ClosedError              the client was closed before or during the call

No message, cause or attribute of these errors holds a token, a key or a value of a document: errors are logged and
sent to error trackers, and configuration must not follow them there.
"""

from __future__ import annotations


class ConfigClientError(Exception):
    """Base of every error of this package; raised itself for invalid options and arguments."""


class UnauthorizedError(ConfigClientError):
    """The service answered 401: the token is unknown, expired or revoked. Never retried."""


class ForbiddenError(ConfigClientError):
    """The service answered 403: the token is valid but its scopes do not cover the request. Never retried."""


class NotFoundError(ConfigClientError):
    """The service answered 404: no such config, environment, label or version, or it was deleted. Never retried."""


class InvalidResponseError(ConfigClientError):
    """The service answered with another 4xx, or with a body that is not what the endpoint promises."""


class ConnectionError(ConfigClientError):  # noqa: A001 - the published name of this error
    """The service could not be reached, or answered 5xx, 408 or 429, after every retry.

    ``__cause__`` is the last failure, without its request and response, which hold the token. ``retry_after``: the
    seconds for which a service that answered 5xx or 429 asks to be left alone, if it asks (its header ``Retry-After``).
    """

    def __init__(self, *args: object, retry_after: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after


class DecryptionError(ConfigClientError):
    """The payload is malformed, does not open under this client's keys, or is not the one that was asked for."""


class UnmarshalError(ConfigClientError):
    """The document is not JSON, is not an object, or does not fit the target type."""


class RefusedError(ConfigClientError):
    """The application's ``pre_apply`` refused a new value; the old one stays in place."""


class ClosedError(ConfigClientError):
    """The client was closed before the call, or while it was under way."""
