"""The management API under ``/api/v1/manage``: configs with their history, tokens and their keys.

Knows routes, rights' order of checks and the models of its JSON. Everything it does, ``operations`` does. Bodies are
read here and not by the framework, which would neither bound them nor keep their content out of its errors.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from ..domain.records import version_states
from ..domain.scopes import Right, Scope
from .calls import (
    CHANGES,
    CONDITIONS,
    NEW_VERSION,
    NOT_FOUND,
    PREFIX,
    REFUSALS,
    VALID_FROM,
    Caller,
    Calls,
    Key,
    Responses,
    changed,
    forbid_storing,
    read_request,
    tag,
)
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
    config_row,
    new_key_row,
    new_token_row,
    parse_request,
    token_row,
    version_row,
)
from .requests import parse_query, precondition_of, read_body, valid_from_of

OPENAPI_PATH: Final = f"{PREFIX}/openapi.json"
_NEW_KEY: Final[Responses] = {
    409: {"model": ErrorBody, "description": "The token is revoked or expired, or holds too many keys."},
    413: CHANGES[413],
    507: CHANGES[507],
}
_CREATE_ONLY: Final = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "*: only while nothing is running.",
    "schema": {"type": "string", "enum": ["*"]},
}


router: Final = APIRouter(prefix=PREFIX, dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get("/configs", tags=["configs"])
async def list_configs(calls: Calls, caller: Caller) -> ConfigList:
    """List the newest version of every config that the token may read or write, deleted ones included."""
    return ConfigList(configs=[config_row(document) for document in calls.list_documents(caller)])


@router.get("/configs/{name}", tags=["configs"], responses=NOT_FOUND)
async def show_config(calls: Calls, caller: Caller, key: Key, response: Response) -> ConfigRow:
    """Show the newest version of a config. Its ETag is what If-Match takes."""
    document = calls.newest(caller, key)
    tag(response, document)
    return config_row(document)


@router.put(
    "/configs/{name}",
    tags=["configs"],
    responses=NEW_VERSION | CHANGES,
    openapi_extra={
        "parameters": [*CONDITIONS, _CREATE_ONLY, VALID_FROM],
        "requestBody": {
            "required": True,
            "description": "A JSON object. It is kept and served byte for byte.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": {"db": {"host": "db1"}}}},
        },
    },
)
async def publish_config(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ChangedRow:
    """Publish a document as the next version, which is served at once, or from ``valid_from`` on."""
    # Asked again below; here so that nobody sends documents who may not write.
    caller.require(Right.WRITE, key.name, key.environment)
    condition = precondition_of(request.scope["headers"])
    valid_from = valid_from_of(parse_query(request.scope["query_string"]))
    raw = await read_body(request.receive, request.scope["headers"], calls.max_document_bytes)
    return changed(response, await calls.publish(caller, key, raw, condition, valid_from))


@router.delete(
    "/configs/{name}",
    tags=["configs"],
    responses=NOT_FOUND | CHANGES,
    openapi_extra={"parameters": CONDITIONS},
)
async def delete_config(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ConfigRow:
    """Delete what is running. The tombstone takes the next version; older versions can be rolled back to."""
    condition = precondition_of(request.scope["headers"])
    outcome = await calls.delete(caller, key, condition)
    tag(response, outcome.document)
    return config_row(outcome.document)


@router.post(
    "/configs/{name}/rollback",
    tags=["configs"],
    responses=NEW_VERSION | NOT_FOUND | CHANGES,
    openapi_extra={
        "parameters": CONDITIONS,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RollbackRequest.model_json_schema()}},
        },
    },
)
async def rollback_config(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ChangedRow:
    """Publish the document of another version again, as a new version."""
    caller.require(Right.WRITE, key.name, key.environment)
    condition = precondition_of(request.scope["headers"])
    wanted = parse_request(RollbackRequest, await read_request(request))
    return changed(response, await calls.rollback(caller, key, wanted.version, condition, wanted.valid_from))


@router.get("/configs/{name}/history", tags=["configs"], responses=NOT_FOUND)
async def show_history(calls: Calls, caller: Caller, key: Key) -> VersionList:
    """List every version of a config, newest first."""
    history = await calls.history(caller, key)
    states = version_states(history[::-1])
    savepoints = await calls.savepoints.list(caller, key)
    return VersionList(versions=[version_row(version, states[version.version], savepoints) for version in history])


@router.post(
    "/tokens",
    tags=["tokens"],
    status_code=201,
    responses={413: CHANGES[413], 507: CHANGES[507]},
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
    wanted = parse_request(TokenRequest, await read_request(request))
    scopes = [Scope.parse(scope) for scope in wanted.scopes]
    minted = await calls.tokens.create(
        caller, wanted.name, environment=wanted.environment, scopes=scopes, expires_at=wanted.expires_at
    )
    return new_token_row(minted)


@router.post(
    "/tokens/{token_id}/key",
    tags=["tokens"],
    status_code=201,
    responses=NOT_FOUND | _NEW_KEY,
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
    wanted = parse_request(KeyRequest, await read_request(request) or b"{}")
    return new_key_row(await calls.tokens.rotate_key(caller, token_id, wanted.overlap_seconds))


@router.get("/tokens", tags=["tokens"])
async def list_tokens(calls: Calls, caller: Caller) -> TokenList:
    """List every token, revoked and expired ones included, without secrets and keys."""
    return TokenList(tokens=[token_row(token) for token in calls.tokens.list(caller)])


@router.delete("/tokens/{token_id}", tags=["tokens"], responses=NOT_FOUND | {507: CHANGES[507]})
async def revoke_token(calls: Calls, caller: Caller, token_id: int) -> TokenRow:
    """Revoke a token: it is refused, and its streams end, at once. Revoking it again changes nothing."""
    return token_row(await calls.tokens.revoke(caller, token_id))
