"""From every refusal to its HTTP answer: one table.

Bodies are ``{"error": {"code", "message"}}``, with ``path`` (a JSON Pointer) where the error points into a document,
and ``violations`` where a document does not fit its schema.
Messages of the store of record stay inside: they name files of this machine. They are logged instead.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from math import ceil
from typing import Final

from ..domain.errors import (
    AccessDeniedError,
    ArchivedError,
    ConflictError,
    DocumentTooLargeError,
    DraftOutdatedError,
    HeadersTooLargeError,
    HistoryReplacedError,
    InvalidDocumentError,
    InvalidPatchError,
    InvalidRequestError,
    InvalidScheduleError,
    InvalidSchemaError,
    NotFoundError,
    NotReadyError,
    NotRenderableError,
    OutcomeUnknownError,
    PatchConflictError,
    PreconditionFailedError,
    RateLimitedError,
    RequestTimeoutError,
    SchemaViolationError,
    ServiceError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreMissingError,
    TargetTooLongError,
    ThrottledError,
    TooManyConnectionsError,
    TooManyFailuresError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedMediaTypeError,
    WrongMasterKeyError,
)
from ..domain.patches import PatchKind
from ..logs import log_event
from .answers import JSON, NO_SNIFF, NO_STORE, Answer, Headers

STATUS: Final[Mapping[type[ServiceError], int]] = {
    InvalidRequestError: 400,
    InvalidDocumentError: 400,
    InvalidPatchError: 400,
    InvalidSchemaError: 400,
    UnauthenticatedError: 401,
    AccessDeniedError: 403,
    NotFoundError: 404,
    ArchivedError: 404,
    RequestTimeoutError: 408,
    ConflictError: 409,
    DraftOutdatedError: 409,
    PatchConflictError: 409,
    PreconditionFailedError: 412,
    DocumentTooLargeError: 413,
    TargetTooLongError: 414,
    UnsupportedMediaTypeError: 415,
    InvalidScheduleError: 422,
    NotRenderableError: 422,
    SchemaViolationError: 422,
    ThrottledError: 429,
    RateLimitedError: 429,
    TooManyFailuresError: 429,
    HeadersTooLargeError: 431,
    ServiceError: 500,
    UnavailableError: 503,
    NotReadyError: 503,
    TooManyConnectionsError: 503,
    StoreError: 503,
    StoreLockedError: 503,
    StoreMissingError: 503,
    StoreCorruptError: 503,
    WrongMasterKeyError: 503,
    HistoryReplacedError: 503,
    OutcomeUnknownError: 504,
    StoreFullError: 507,
}

_RETRY_AFTER: Final = b"1"
_STORE_FAILED: Final = "the store of record failed; nothing was changed; the service's log says more"
_STORE_FULL: Final = "the store of record has no space left; nothing was changed; an operator must make room"
_STORE_UNKNOWN: Final = (
    "the store of record was lost at the very commit, and does not say whether the change was made; look before you "
    "try again"
)
_STORE_MESSAGES: Final[Mapping[type[ServiceError], str]] = {
    StoreFullError: _STORE_FULL,
    OutcomeUnknownError: _STORE_UNKNOWN,
}
_logger = logging.getLogger("config_service")


def error_answer(error: ServiceError) -> Answer:
    """Return the answer that tells ``error``."""
    status = STATUS[type(error)]
    headers: Headers = []
    message = str(error)
    if isinstance(error, StoreError):
        log_event(_logger, logging.ERROR, "store_failure", "%s: %s", error.code, message, error=error.code)
        message = _STORE_MESSAGES.get(type(error), _STORE_FAILED)
    if status == 401:
        headers.append((b"www-authenticate", b'X-Service-Token realm="config-service"'))
    if status == 503:
        headers.append((b"retry-after", _RETRY_AFTER))
    if isinstance(error, ThrottledError):
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after))))
    if status == 415:
        headers.append((b"accept-patch", ", ".join(kind.value for kind in PatchKind).encode()))
    told: dict[str, object] = {}
    if isinstance(error, InvalidDocumentError | InvalidSchemaError | NotRenderableError) and error.path:
        told["path"] = error.path
    if isinstance(error, NotReadyError) and error.reasons:
        told["reasons"] = [{"check": name, "message": reason} for name, reason in error.reasons.items()]
    if isinstance(error, SchemaViolationError) and error.violations:
        told["violations"] = [
            {"path": one.path, "keyword": one.keyword} | ({"config": one.config} if one.config else {})
            for one in error.violations
        ]
    return plain_error(status, error.code, message, headers, told)


def plain_error(
    status: int, code: str, message: str, headers: Headers | None = None, told: Mapping[str, object] | None = None
) -> Answer:
    """Return an error answer that stands for no ServiceError, such as a route that does not exist."""
    fields = {"code": code, "message": message, **(told or {})}
    return Answer(status, [JSON, NO_STORE, NO_SNIFF, *(headers or [])], json.dumps({"error": fields}).encode())


def not_found() -> Answer:
    """Return the answer to a path that is no route."""
    return plain_error(404, "not_found", "there is no such route")


def method_not_allowed(allowed: str) -> Answer:
    """Return the answer to a method that the route does not have; ``allowed`` lists those that it has."""
    message = f"this route knows the methods {allowed}"
    return plain_error(405, "method_not_allowed", message, [(b"allow", allowed.encode())])


def internal_error() -> Answer:
    """Return the answer to a failure that nobody foresaw. It tells nothing."""
    return plain_error(500, "internal", "the service failed; its log says where")
