"""The management API of schemas: what a config has to look like. Knows routes; everything it does, operations do."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from ..domain.scopes import Right
from .calls import CHANGES, NOT_FOUND, PREFIX, REFUSALS, Caller, Calls, Key, Responses, forbid_storing
from .drafts import document_answer
from .lifecycle_models import ChangedSchemaRow, SchemaList, SchemaRow, changed_schema_row, schema_row
from .requests import parse_query, read_body, version_of

_SCHEMA: Final = "/configs/{name}/schema"
_EDITS: Final[Responses] = {status: CHANGES[status] for status in (409, 413, 507)}
_DOCUMENT: Final[Responses] = {200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}}}

Number = Annotated[str | None, Query(alias="version", description="An older schema. Without it: the one in force.")]

router: Final = APIRouter(prefix=PREFIX, tags=["schemas"], dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get(_SCHEMA, responses=NOT_FOUND)
async def show_schema(calls: Calls, caller: Caller, key: Key, request: Request, _version: Number = None) -> SchemaRow:
    """Show what is known of the schema in force, or of an older one."""
    number = version_of(parse_query(request.scope["query_string"]))
    return schema_row((await calls.schemas.read(caller, key, number)).stored.info)


@router.get(f"{_SCHEMA}/document", responses=NOT_FOUND | _DOCUMENT, response_class=Response)
async def show_schema_document(
    calls: Calls, caller: Caller, key: Key, request: Request, _version: Number = None
) -> Response:
    """Return the schema in force, or an older one, byte for byte as it was set."""
    number = version_of(parse_query(request.scope["query_string"]))
    return document_answer((await calls.schemas.read(caller, key, number)).raw, "application/schema+json")


@router.get(f"{_SCHEMA}/history", responses=NOT_FOUND)
async def show_schema_history(calls: Calls, caller: Caller, key: Key) -> SchemaList:
    """List every schema of a config, newest first."""
    return SchemaList(schemas=[schema_row(info) for info in await calls.schemas.history(caller, key)])


@router.put(
    _SCHEMA,
    responses=_EDITS
    | {
        201: {"model": ChangedSchemaRow, "description": "A new schema is in force."},
        200: {"description": "This very schema is in force already."},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A JSON Schema 2020-12 that refers to nothing outside of itself.",
            "content": {"application/schema+json": {"schema": {"type": "object"}, "example": {"required": ["db"]}}},
        },
    },
)
async def set_schema(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ChangedSchemaRow:
    """Validate every publish by this schema from now on. What is running stays, whether it fits or not."""
    caller.require(Right.WRITE, key.name, key.environment)
    raw = await read_body(request.receive, request.scope["headers"], calls.max_document_bytes)
    document = await calls.schemas.set(caller, key, raw)
    response.status_code = 201 if document.changed else 200
    return changed_schema_row(document)


@router.delete(_SCHEMA, responses=NOT_FOUND | {409: CHANGES[409], 507: CHANGES[507]})
async def remove_schema(calls: Calls, caller: Caller, key: Key) -> SchemaRow:
    """Validate nothing from now on. The schemas are kept in the history."""
    return schema_row((await calls.schemas.remove(caller, key)).info)
