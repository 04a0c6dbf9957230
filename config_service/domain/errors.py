"""Every way in which the service refuses a request. Pure.

    ServiceError
    ├── InvalidRequestError      a malformed name, query, header or body
    │   ├── InvalidDocumentError the document is not one that can be published; ``path`` points into it
    │   ├── InvalidPatchError    not a patch of the kind that it claims to be
    │   ├── InvalidSchemaError   not a JSON Schema that can be used; ``path`` points into it
    │   ├── TargetTooLongError   path and query are over the limit
    │   └── HeadersTooLargeError the headers are too many or too long
    ├── RequestTimeoutError      a request that did not come to its end in time
    ├── UnsupportedMediaTypeError the body is of a kind that the request does not take
    ├── DocumentTooLargeError    over the configured limit
    ├── UnauthenticatedError     unknown, expired or revoked token
    ├── ThrottledError           not now: ``retry_after`` says when
    │   ├── RateLimitedError     the token sends more requests than it may
    │   └── TooManyFailuresError authentication failed too often from one address
    ├── AccessDeniedError        a valid token whose scopes do not cover the request
    ├── NotFoundError            no such config, version, draft, schema or token
    │   └── ArchivedError        the version is there, its document was archived
    ├── PreconditionFailedError  ``If-Match`` / ``If-None-Match`` did not hold; names both versions
    ├── ConflictError            lost every round of compare-and-set against other writers
    ├── DraftOutdatedError       the draft was made on a version that is not the newest; names both
    ├── PatchConflictError       the patch does not apply to the document as it is
    ├── SchemaViolationError     the document does not fit its schema; ``violations`` says where and by which keyword
    ├── InvalidScheduleError     a version can only be published for a moment to come
    ├── NotRenderableError       the document has no faithful form in the requested format
    ├── UnavailableError         the service is starting or stopping
    │   ├── NotReadyError        requests should go elsewhere; ``reasons`` says why
    │   └── TooManyConnectionsError  as many clients are connected as the service takes
    └── StoreError               the store of record failed; nothing was changed, unless said otherwise
        ├── StoreFullError       no space left
        ├── StoreLockedError     another process holds the store
        ├── OutcomeUnknownError  the store did not say whether the change was made
        ├── HistoryReplacedError another history took the place of the one that is served
        ├── StoreCorruptError    the file is damaged or not ours
        └── WrongMasterKeyError  the master key is not the one that sealed this store

Messages name the fault and the remedy. They never hold a token, a key or a value of a document. ``code`` is what a
program may match on; it stands in the body of the HTTP answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar


class ServiceError(Exception):
    """Base of every refusal."""

    code: ClassVar[str] = "error"


class InvalidRequestError(ServiceError):
    """A malformed name, query, header or body."""

    code = "invalid_request"


class InvalidDocumentError(InvalidRequestError):
    """The document is not one that can be published. ``path`` is a JSON Pointer (RFC 6901) into it, or empty."""

    code = "invalid_document"

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class InvalidPatchError(InvalidRequestError):
    """The body is not a JSON Merge Patch (RFC 7396) or not a JSON Patch (RFC 6902)."""

    code = "invalid_patch"


class InvalidSchemaError(InvalidRequestError):
    """The body is not a JSON Schema 2020-12 that stands alone. ``path`` is a JSON Pointer into it, or empty."""

    code = "invalid_schema"

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class TargetTooLongError(InvalidRequestError):
    """The path and query of the request are over the limit."""

    code = "target_too_long"


class HeadersTooLargeError(InvalidRequestError):
    """The headers of the request are too many or too long."""

    code = "headers_too_large"


class RequestTimeoutError(ServiceError):
    """The request did not come to its end in time."""

    code = "request_timeout"


class UnsupportedMediaTypeError(ServiceError):
    """The body is of a kind that this request does not take; the message names those that it does."""

    code = "unsupported_media_type"


class DocumentTooLargeError(ServiceError):
    """The document is over the configured limit."""

    code = "document_too_large"


class UnauthenticatedError(ServiceError):
    """The token is missing, unknown, expired or revoked."""

    code = "unauthenticated"


class ThrottledError(ServiceError):
    """The request is refused for now. ``retry_after``: the seconds after which it may be sent again."""

    code = "throttled"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(ThrottledError):
    """The token sends more requests than the service allows."""

    code = "rate_limited"


class TooManyFailuresError(ThrottledError):
    """Authentication failed too often from one address."""

    code = "too_many_failures"


class AccessDeniedError(ServiceError):
    """The token is valid but its scopes do not cover the request."""

    code = "access_denied"


class NotFoundError(ServiceError):
    """No such config, version, draft, schema or token."""

    code = "not_found"


class ArchivedError(NotFoundError):
    """The version is told by the history, but its document was archived and is not kept here any more."""

    code = "archived"


class PreconditionFailedError(ServiceError):
    """The running version is not the one the request was conditional on."""

    code = "precondition_failed"


class ConflictError(ServiceError):
    """Other writers were faster every time, or a token can be given no other key."""

    code = "conflict"


class DraftOutdatedError(ServiceError):
    """The draft was made on a version that is not the newest any more; nothing was overwritten."""

    code = "draft_outdated"


class PatchConflictError(ServiceError):
    """The patch does not apply to the document as it is: a path leads nowhere, or a test does not hold."""

    code = "patch_conflict"


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a document does not fit its schema: a JSON Pointer (RFC 6901), and the keyword that failed there.

    ``config`` names the config where several are published together, and is empty otherwise.
    """

    path: str
    keyword: str
    config: str = ""

    def __str__(self) -> str:
        return f"{self.path or 'the document'}: {self.keyword}"


class SchemaViolationError(ServiceError):
    """The document does not fit its schema. ``violations`` tells keys of the document and never a value."""

    code = "schema_violation"

    def __init__(self, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations

    def about(self, config: str) -> SchemaViolationError:
        """Return this error with violations that name ``config``: one of several published together."""
        return SchemaViolationError(str(self), tuple(replace(one, config=config) for one in self.violations))


class InvalidScheduleError(ServiceError):
    """A version can only be published for a moment to come, and that moment needs an offset."""

    code = "invalid_schedule"


class NotRenderableError(ServiceError):
    """The document has no faithful form in the requested format. ``path`` points to the offending value."""

    code = "not_renderable"

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class UnavailableError(ServiceError):
    """The service is starting or stopping; nothing was changed."""

    code = "unavailable"


class NotReadyError(UnavailableError):
    """Requests should go elsewhere for now. ``reasons``: why, by the name of the check."""

    code = "not_ready"

    def __init__(self, message: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class TooManyConnectionsError(UnavailableError):
    """As many clients are connected as the service takes."""

    code = "too_many_connections"


class StoreError(ServiceError):
    """The store of record failed; nothing was changed."""

    code = "store_unavailable"


class StoreMissingError(StoreError):
    """There is no store where one was to be opened, and none was made."""

    code = "store_missing"


class StoreFullError(StoreError):
    """No space is left for the store."""

    code = "store_full"


class StoreLockedError(StoreError):
    """Another process holds the store."""

    code = "store_locked"


class OutcomeUnknownError(StoreError):
    """The store was lost at the very moment of a commit: the change was made wholly or not at all, nobody knows which.

    Whoever asked for it looks what is there before asking again.
    """

    code = "outcome_unknown"


class HistoryReplacedError(StoreError):
    """Another history took the place of the one that this process serves, as a restored backup does."""

    code = "history_replaced"


class StoreCorruptError(StoreError):
    """The file of the store is damaged, or is not a store of this service."""

    code = "store_corrupt"


class WrongMasterKeyError(StoreError):
    """The master key is not the one that sealed this store."""

    code = "wrong_master_key"
