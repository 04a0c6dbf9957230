"""The management API of savepoints and of the archive. Knows routes; everything it does, ``operations`` does."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from ..domain.scopes import Right
from .archive_models import (
    ArchivedList,
    ArchiveRequest,
    CandidatePage,
    CandidatesRequest,
    archived_row,
    candidate_page,
)
from .calls import CHANGES, NOT_FOUND, PREFIX, REFUSALS, Caller, Calls, Key, Responses, forbid_storing, read_request
from .lifecycle_models import (
    ChangedSavepointRow,
    SavepointList,
    SavepointRequest,
    SavepointRow,
    changed_savepoint_row,
    savepoint_row,
)
from .models import body_schema, parse_request

_SAVEPOINTS: Final = "/configs/{name}/savepoints"
_SAVEPOINT: Final = f"{_SAVEPOINTS}/{{savepoint}}"
_EDITS: Final[Responses] = {status: CHANGES[status] for status in (409, 413, 507)}

router: Final = APIRouter(prefix=PREFIX, dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get(_SAVEPOINTS, tags=["savepoints"])
async def list_savepoints(calls: Calls, caller: Caller, key: Key) -> SavepointList:
    """List the savepoints of a config, by name."""
    return SavepointList(savepoints=[savepoint_row(one) for one in await calls.savepoints.list(caller, key)])


@router.put(
    _SAVEPOINT,
    tags=["savepoints"],
    responses=NOT_FOUND | _EDITS | {201: {"model": ChangedSavepointRow, "description": "It stands for this version."}},
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": body_schema(SavepointRequest)}},
        },
    },
)
async def set_savepoint(
    calls: Calls, caller: Caller, key: Key, savepoint: str, request: Request, response: Response
) -> ChangedSavepointRow:
    """Give a version a name, which stands for it wherever a number is asked for; such a version is never archived."""
    caller.require(Right.WRITE, key.name, key.environment)
    wanted = parse_request(SavepointRequest, await read_request(request) or b"{}")
    named = await calls.savepoints.set(caller, key, savepoint, wanted.version, move=wanted.move)
    response.status_code = 201 if named.changed else 200
    return changed_savepoint_row(named)


@router.delete(_SAVEPOINT, tags=["savepoints"], responses=NOT_FOUND | {409: CHANGES[409], 507: CHANGES[507]})
async def remove_savepoint(calls: Calls, caller: Caller, key: Key, savepoint: str) -> SavepointRow:
    """Remove a savepoint; the version that it stood for is kept."""
    return savepoint_row(await calls.savepoints.remove(caller, key, savepoint))


@router.post(
    "/archive/candidates",
    tags=["archive"],
    responses={413: CHANGES[413]},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body_schema(CandidatesRequest)}},
        },
    },
)
async def list_candidates(calls: Calls, caller: Caller, request: Request) -> CandidatePage:
    """List the versions whose documents an archive with this cut-off would remove, page by page. Changes nothing."""
    caller.require_admin()
    wanted = parse_request(CandidatesRequest, await read_request(request))
    after = None if wanted.after is None else wanted.after.place
    page = await calls.archive.candidates(
        caller, wanted.before, wanted.name, after, limit=wanted.limit, documents=wanted.documents
    )
    return candidate_page(page)


@router.post(
    "/archive",
    tags=["archive"],
    responses={409: CHANGES[409], 413: CHANGES[413], 507: CHANGES[507]},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body_schema(ArchiveRequest)}},
        },
    },
)
async def archive(calls: Calls, caller: Caller, request: Request) -> ArchivedList:
    """Remove the documents of old versions for good. Versions and their history stay; a log entry tells what went.

    Never of one that is the newest, runs, is scheduled or has a savepoint, nor of the one that a draft was made on.
    """
    caller.require_admin()
    wanted = parse_request(ArchiveRequest, await read_request(request))
    configs = [(one.key, one.versions) for one in wanted.configs]
    return ArchivedList(
        archived=[archived_row(one) for one in await calls.archive.archive(caller, wanted.before, configs)]
    )
