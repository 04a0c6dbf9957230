"""The management API under ``/api/v1/manage``: configs with their history, tokens and their keys.

Knows routes, rights' order of checks and the models of its JSON. Everything it does, ``operations`` does. Bodies are
read here and not by the framework, which would neither bound them nor keep their content out of its errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import APIKeyHeader

from config_client.protocol import TOKEN_HEADER

from ..domain.documents import Document
from ..domain.keys import ConfigKey
from ..domain.records import Version
from ..domain.scopes import Right, Scope
from ..operations import Operations, Outcome
from ..security.tokens import Token
from .models import (
    ChangedRow,
    ConfigList,
    ConfigRow,
    ErrorBody,
    KeyRequest,
    NewKeyRow,
    NewTokenRow,
    RollbackRequest,
    TokenList,
    TokenRequest,
    TokenRow,
    VersionList,
    changed_row,
    config_row,
    new_key_row,
    new_token_row,
    parse_request,
    token_row,
    version_row,
)
from .requests import key_of, parse_query, precondition_of, read_body, secret_of

PREFIX: Final = "/api/v1/manage"
OPENAPI_PATH: Final = f"{PREFIX}/openapi.json"
_MAX_REQUEST_BYTES: Final = 64 * 1024
"""Bytes that a body may take which is not a document."""

_scheme = APIKeyHeader(name=TOKEN_HEADER, auto_error=False, description="The secret of a token.")

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    # Stands in for the framework's own 422, which never happens here.
    "default": {"model": ErrorBody, "description": "The request was refused; the code says why."},
    400: {"model": ErrorBody, "description": "The request is malformed, or the document cannot be published."},
    401: {"model": ErrorBody, "description": "The token is missing, unknown, expired or revoked."},
    403: {"model": ErrorBody, "description": "The token's scopes do not cover the request."},
    503: {"model": ErrorBody, "description": "The service is starting or stopping, or its store failed."},
}
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": ErrorBody, "description": "There is no such config, version or token."}
}
_CHANGES: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorBody, "description": "Other writers were faster every time."},
    412: {"model": ErrorBody, "description": "The condition does not hold; the message names both versions."},
    413: {"model": ErrorBody, "description": "The body is over the limit."},
    507: {"model": ErrorBody, "description": "The store has no space left."},
}
_NEW_KEY: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorBody, "description": "The token is revoked or expired, or holds too many keys."},
    413: _CHANGES[413],
    507: _CHANGES[507],
}
_NEW_VERSION: Final[dict[int | str, dict[str, Any]]] = {
    201: {"model": ChangedRow, "description": "A new version is running."},
    200: {"description": "These very bytes are running already."},
}
_CONDITIONS: Final = [
    {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "description": 'The version that the change was made on, such as "3"; * for any running one.',
        "schema": {"type": "string"},
    },
]
_CREATE_ONLY: Final = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "*: only while nothing is running.",
    "schema": {"type": "string", "enum": ["*"]},
}


async def operations_of(request: Request) -> Operations:
    """Return what this application runs on."""
    operations: Operations = request.app.state.operations
    return operations


async def caller_of(
    request: Request,
    operations: Annotated[Operations, Depends(operations_of)],
    _described: Annotated[str | None, Security(_scheme)],
) -> Token:
    """Return the token that the request comes with. Raises UnauthenticatedError."""
    return operations.authenticate(secret_of(request.scope["headers"]))


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

router: Final = APIRouter(prefix=PREFIX, dependencies=[Depends(forbid_storing)], responses=_REFUSALS)


@router.get("/configs", tags=["configs"])
async def list_configs(calls: Calls, caller: Caller) -> ConfigList:
    """List the newest version of every config that the token may read or write, deleted ones included."""
    return ConfigList(configs=[config_row(document) for document in calls.list_documents(caller)])


@router.get("/configs/{name}", tags=["configs"], responses=_NOT_FOUND)
async def show_config(calls: Calls, caller: Caller, key: Key, response: Response) -> ConfigRow:
    """Show the newest version of a config. Its ETag is what If-Match takes."""
    document = calls.newest(caller, key)
    _tag(response, document)
    return config_row(document)


@router.put(
    "/configs/{name}",
    tags=["configs"],
    responses=_NEW_VERSION | _CHANGES,
    openapi_extra={
        "parameters": [*_CONDITIONS, _CREATE_ONLY],
        "requestBody": {
            "required": True,
            "description": "A JSON object. It is kept and served byte for byte.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": {"db": {"host": "db1"}}}},
        },
    },
)
async def publish_config(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ChangedRow:
    """Publish a document as the next version, which is served at once."""
    # Asked again below; here so that nobody sends documents who may not write.
    caller.require(Right.WRITE, key.name, key.environment)
    condition = precondition_of(request.scope["headers"])
    raw = await read_body(request.receive, request.scope["headers"], calls.max_document_bytes)
    return _changed(response, await calls.publish(caller, key, raw, condition))


@router.delete(
    "/configs/{name}",
    tags=["configs"],
    responses=_NOT_FOUND | _CHANGES,
    openapi_extra={"parameters": _CONDITIONS},
)
async def delete_config(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ConfigRow:
    """Delete what is running. The tombstone takes the next version; older versions can be rolled back to."""
    condition = precondition_of(request.scope["headers"])
    outcome = await calls.delete(caller, key, condition)
    _tag(response, outcome.document)
    return config_row(outcome.document)


@router.post(
    "/configs/{name}/rollback",
    tags=["configs"],
    responses=_NEW_VERSION | _NOT_FOUND | _CHANGES,
    openapi_extra={
        "parameters": _CONDITIONS,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RollbackRequest.model_json_schema()}},
        },
    },
)
async def rollback_config(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ChangedRow:
    """Publish the document of an older version again, as a new version."""
    caller.require(Right.WRITE, key.name, key.environment)
    condition = precondition_of(request.scope["headers"])
    wanted = parse_request(RollbackRequest, await _read_request(request))
    return _changed(response, await calls.rollback(caller, key, wanted.version, condition))


@router.get("/configs/{name}/history", tags=["configs"], responses=_NOT_FOUND)
async def show_history(calls: Calls, caller: Caller, key: Key) -> VersionList:
    """List every version of a config, newest first."""
    return VersionList(versions=[version_row(version) for version in await calls.history(caller, key)])


@router.post(
    "/tokens",
    tags=["tokens"],
    status_code=201,
    responses={413: _CHANGES[413], 507: _CHANGES[507]},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": TokenRequest.model_json_schema()}},
        },
    },
)
async def create_token(calls: Calls, caller: Caller, request: Request) -> NewTokenRow:
    """Create a token. Its secret and its key are in this answer and never shown again."""
    caller.require_admin()
    wanted = parse_request(TokenRequest, await _read_request(request))
    scopes = [Scope.parse(scope) for scope in wanted.scopes]
    minted = await calls.tokens.create(
        caller, wanted.name, environment=wanted.environment, scopes=scopes, expires_at=wanted.expires_at
    )
    return new_token_row(minted)


@router.post(
    "/tokens/{token_id}/key",
    tags=["tokens"],
    status_code=201,
    responses=_NOT_FOUND | _NEW_KEY,
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": KeyRequest.model_json_schema()}},
        },
    },
)
async def rotate_key(calls: Calls, caller: Caller, token_id: int, request: Request) -> NewKeyRow:
    """Give a token a fresh key. It is in this answer and never shown again; the keys before it retire."""
    caller.require_admin()
    wanted = parse_request(KeyRequest, await _read_request(request) or b"{}")
    return new_key_row(await calls.tokens.rotate_key(caller, token_id, wanted.overlap_seconds))


@router.get("/tokens", tags=["tokens"])
async def list_tokens(calls: Calls, caller: Caller) -> TokenList:
    """List every token, revoked and expired ones included, without secrets and keys."""
    return TokenList(tokens=[token_row(token) for token in calls.tokens.list(caller)])


@router.delete("/tokens/{token_id}", tags=["tokens"], responses=_NOT_FOUND | {507: _CHANGES[507]})
async def revoke_token(calls: Calls, caller: Caller, token_id: int) -> TokenRow:
    """Revoke a token: it is refused, and its streams end, at once. Revoking it again changes nothing."""
    return token_row(await calls.tokens.revoke(caller, token_id))


async def _read_request(request: Request) -> bytes:
    return await read_body(request.receive, request.scope["headers"], _MAX_REQUEST_BYTES)


def _changed(response: Response, outcome: Outcome) -> ChangedRow:
    response.status_code = 201 if outcome.changed else 200
    _tag(response, outcome.document)
    return changed_row(outcome.document, changed=outcome.changed)


def _tag(response: Response, source: Document | Version) -> None:
    response.headers["ETag"] = f'"{source.version}"'
