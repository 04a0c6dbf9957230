"""The management API of drafts: what is staged for a config, and what it differs in.

Knows routes and rights' order of checks. Everything it does, ``operations`` does. No answer but the two that are asked
for a document or a difference holds any part of one.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from ..comparisons import Side
from ..domain.patches import PatchKind
from ..domain.scopes import Right
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
)
from .lifecycle_models import (
    DifferenceList,
    DiscardedRow,
    DraftRow,
    PublishedList,
    PublishRequest,
    RevertRequest,
    ValidationRow,
    discarded_row,
    draft_row,
    dump_differences,
    validation_row,
)
from .models import ChangedRow, ErrorBody, body_schema, changed_row, parse_request
from .requests import base_of, parse_query, patch_kind_of, precondition_of, read_body, valid_from_of

_EDITS: Final[Responses] = {status: CHANGES[status] for status in (409, 413, 507)}
_DRAFT: Final = "/configs/{name}/draft"
_DOCUMENT: Final[Responses] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
_SIDE: Final = "staged, running, the number of a version, or running@ENVIRONMENT."
_STAGED: Final = "staged"
_RUNNING: Final = "running"

router: Final = APIRouter(prefix=PREFIX, tags=["drafts"], dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get(_DRAFT, responses=NOT_FOUND)
async def show_draft(calls: Calls, caller: Caller, key: Key) -> DraftRow:
    """Show what is known of the draft of a config: the version it was made on, and whether that is the newest."""
    return draft_row(await calls.drafts.read(caller, key))


@router.get(f"{_DRAFT}/document", responses=NOT_FOUND | _DOCUMENT, response_class=Response)
async def show_draft_document(calls: Calls, caller: Caller, key: Key) -> Response:
    """Return the document of the draft, byte for byte as it was set."""
    return document_answer((await calls.drafts.read(caller, key)).content)


@router.put(
    _DRAFT,
    responses=_EDITS,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A JSON object. It is kept byte for byte.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": {"db": {"host": "db1"}}}},
        },
    },
)
async def set_draft(
    calls: Calls,
    caller: Caller,
    key: Key,
    request: Request,
    _base: Annotated[
        str | None,
        Query(
            alias="base",
            description="The version that it was made on. Without it: what the draft before it was made on, or else "
            "the newest.",
        ),
    ] = None,
) -> DraftRow:
    """Replace the draft as a whole. Nobody is served it before it is published."""
    caller.require(Right.WRITE, key.name, key.environment)
    base = base_of(parse_query(request.scope["query_string"]))
    raw = await read_body(request.receive, request.scope["headers"], calls.max_document_bytes)
    return draft_row(await calls.drafts.replace(caller, key, raw, base))


@router.patch(
    _DRAFT,
    responses=NOT_FOUND | _EDITS | {415: {"model": ErrorBody, "description": "Neither kind of patch."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A JSON Merge Patch (RFC 7396) or a JSON Patch (RFC 6902); all of it applies or nothing.",
            "content": {
                PatchKind.MERGE.value: {"schema": {"type": "object"}, "example": {"db": {"host": "db2"}}},
                PatchKind.OPERATIONS.value: {
                    "schema": {"type": "array", "items": {"type": "object"}},
                    "example": [{"op": "replace", "path": "/db/host", "value": "db2"}],
                },
            },
        },
    },
)
async def patch_draft(calls: Calls, caller: Caller, key: Key, request: Request) -> DraftRow:
    """Change the draft by a patch; without a draft, one begins from what is running."""
    caller.require(Right.WRITE, key.name, key.environment)
    kind = patch_kind_of(request.scope["headers"])
    patch = await read_body(request.receive, request.scope["headers"], calls.max_document_bytes)
    return draft_row(await calls.drafts.patch(caller, key, patch, kind))


@router.delete(_DRAFT, responses=NOT_FOUND | {409: CHANGES[409], 507: CHANGES[507]})
async def discard_draft(calls: Calls, caller: Caller, key: Key) -> DiscardedRow:
    """Discard the draft. It is not kept anywhere."""
    return discarded_row(await calls.drafts.discard(caller, key))


@router.post(f"{_DRAFT}/validate", responses=NOT_FOUND)
async def validate_draft(calls: Calls, caller: Caller, key: Key) -> ValidationRow:
    """Tell what publishing the draft would meet, without publishing it."""
    return validation_row(await calls.drafts.validate(caller, key))


@router.post(
    f"{_DRAFT}/publish",
    responses=NEW_VERSION | NOT_FOUND | CHANGES,
    openapi_extra={"parameters": [*CONDITIONS, VALID_FROM]},
)
async def publish_draft(calls: Calls, caller: Caller, key: Key, request: Request, response: Response) -> ChangedRow:
    """Publish the draft as the next version, which is served at once or from ``valid_from`` on; it is a draft no more.

    Refused when another version came in between since the draft was made: nothing is overwritten.
    """
    condition = precondition_of(request.scope["headers"])
    valid_from = valid_from_of(parse_query(request.scope["query_string"]))
    return changed(response, await calls.drafts.publish(caller, key, condition, valid_from))


@router.post(
    "/drafts/publish",
    status_code=201,
    responses=NOT_FOUND
    | CHANGES
    | {
        201: {"model": PublishedList, "description": "At least one new version is running."},
        200: {"description": "What the drafts say is running already."},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body_schema(PublishRequest)}},
        },
    },
)
async def publish_drafts(calls: Calls, caller: Caller, request: Request, response: Response) -> PublishedList:
    """Publish the drafts of several configs together, all of them or none, each under its own condition.

    They become durable at once and take consecutive revisions in the order of the request.
    """
    wanted = parse_request(PublishRequest, await read_request(request))
    named = wanted.named(caller.default_environment)
    outcomes = await calls.drafts.publish_together(caller, named, wanted.valid_from)
    response.status_code = 201 if any(outcome.changed for outcome in outcomes) else 200
    return PublishedList(published=[changed_row(one.document, changed=one.changed) for one in outcomes])


@router.post(
    f"{_DRAFT}/revert",
    responses=NOT_FOUND | _EDITS,
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": RevertRequest.model_json_schema()}},
        },
    },
)
async def revert_draft(calls: Calls, caller: Caller, key: Key, request: Request) -> DraftRow:
    """Make what is running, or an older version, the draft; what the draft held is lost."""
    caller.require(Right.WRITE, key.name, key.environment)
    wanted = parse_request(RevertRequest, await read_request(request) or b"{}")
    return draft_row(await calls.drafts.revert(caller, key, wanted.version))


@router.get("/configs/{name}/diff", responses=NOT_FOUND | {200: {"model": DifferenceList}}, response_class=Response)
async def show_difference(
    calls: Calls,
    caller: Caller,
    key: Key,
    request: Request,
    _from: Annotated[str, Query(alias="from", description=_SIDE)] = _RUNNING,
    _to: Annotated[str, Query(alias="to", description=_SIDE)] = _STAGED,
) -> Response:
    """Tell what leads from one document of a config to another, values included."""
    query = parse_query(request.scope["query_string"])
    old, new = Side.parse(query.get("from", _RUNNING)), Side.parse(query.get("to", _STAGED))
    return document_answer(dump_differences(await calls.comparisons.compare(caller, key, old, new)))


def document_answer(content: bytes, media_type: str = "application/json") -> Response:
    """Return an answer that holds values, which no cache keeps and no browser takes for something else."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=media_type, headers=headers)
