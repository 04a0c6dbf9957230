"""What the routes of the management API share: who calls, about which config, what may be refused, how changes answer.

Knows FastAPI's dependencies and the description that it makes of them. Knows no route.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request, Response, Security
from fastapi.security import APIKeyHeader

from config_client.protocol import TOKEN_HEADER

from ..changes import Outcome
from ..domain.documents import Document
from ..domain.keys import ConfigKey
from ..domain.records import Version
from ..operations import Operations
from ..security.tokens import Token
from .callers import authenticate
from .models import ChangedRow, ErrorBody, changed_row
from .requests import key_of, parse_query, read_body

Responses = dict[int | str, dict[str, Any]]
"""Answers by status, as FastAPI describes them."""

PREFIX: Final = "/api/v1/manage"
MAX_REQUEST_BYTES: Final = 64 * 1024
"""Bytes that a body may take which is not a document."""

_scheme = APIKeyHeader(name=TOKEN_HEADER, auto_error=False, description="The secret of a token.")

REFUSALS: Final[Responses] = {
    # Stands in for the framework's own 422, which never happens here.
    "default": {"model": ErrorBody, "description": "The request was refused; the code says why."},
    400: {"model": ErrorBody, "description": "The request is malformed, or the document cannot be published."},
    401: {"model": ErrorBody, "description": "The token is missing, unknown, expired or revoked."},
    403: {"model": ErrorBody, "description": "The token's scopes do not cover the request."},
    503: {"model": ErrorBody, "description": "The service is starting or stopping, or its store failed."},
    504: {"model": ErrorBody, "description": "The store did not say whether the change was made."},
}
NOT_FOUND: Final[Responses] = {
    404: {"model": ErrorBody, "description": "There is no such config, version, draft, schema or token."}
}
CHANGES: Final[Responses] = {
    409: {"model": ErrorBody, "description": "Other writers were faster every time."},
    412: {"model": ErrorBody, "description": "The condition does not hold; the message names both versions."},
    413: {"model": ErrorBody, "description": "The body is over the limit."},
    422: {"model": ErrorBody, "description": "The document does not fit its schema."},
    507: {"model": ErrorBody, "description": "The store has no space left."},
}
NEW_VERSION: Final[Responses] = {
    201: {"model": ChangedRow, "description": "A new version is running."},
    200: {"description": "These very bytes are running already."},
}
VALID_FROM: Final = {
    "name": "valid_from",
    "in": "query",
    "required": False,
    "description": "Run the version from this moment on (RFC 3339, to come) instead of at once.",
    "schema": {"type": "string", "format": "date-time"},
    "example": "2030-01-31T12:00:00Z",
}
CONDITIONS: Final = [
    {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "description": 'The version that the change was made on, such as "3"; * for any running one.',
        "schema": {"type": "string"},
    },
]


async def operations_of(request: Request) -> Operations:
    """Return what this application runs on."""
    operations: Operations = request.app.state.operations
    return operations


async def caller_of(
    request: Request,
    operations: Annotated[Operations, Depends(operations_of)],
    _described: Annotated[str | None, Security(_scheme)],
) -> Token:
    """Return the token that the request comes with. Raises UnauthenticatedError or ThrottledError."""
    return authenticate(operations, request.scope)


async def config_of(
    request: Request,
    token: Annotated[Token, Depends(caller_of)],
    name: str,
    _environment: Annotated[
        str | None, Query(alias="environment", description="Without it: the token's default environment.")
    ] = None,
    _label: Annotated[str | None, Query(alias="label", description="Without it: main.")] = None,
) -> ConfigKey:
    """Return the key that path and query name. Raises InvalidRequestError."""
    # Read from the query itself: the framework would take the last of two values.
    return key_of(name, parse_query(request.scope["query_string"]), token)


async def forbid_storing(response: Response) -> None:
    """Mark the answer as one that no cache may keep."""
    response.headers["Cache-Control"] = "no-store"


Calls = Annotated[Operations, Depends(operations_of)]
Caller = Annotated[Token, Depends(caller_of)]
Key = Annotated[ConfigKey, Depends(config_of)]


async def read_request(request: Request) -> bytes:
    """Return a body that is not a document. Raises DocumentTooLargeError or InvalidRequestError."""
    return await read_body(request.receive, request.scope["headers"], MAX_REQUEST_BYTES)


def changed(response: Response, outcome: Outcome) -> ChangedRow:
    """Return the row of what a change led to: 201 for a new version, 200 for the one that runs already."""
    response.status_code = 201 if outcome.changed else 200
    if outcome.document.served:
        tag(response, outcome.document)
    return changed_row(outcome.document, changed=outcome.changed)


def tag(response: Response, source: Document | Version) -> None:
    """Name the version in the answer's ``ETag``, for ``If-Match``."""
    response.headers["ETag"] = f'"{source.version}"'
