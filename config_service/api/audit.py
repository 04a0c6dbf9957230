"""The management API of the log: who changed what, and whether it is still what it was. Everything, operations do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from config_client.protocol import parse_timestamp

from ..audit_operations import MAX_ENTRIES, Wanted
from ..domain.errors import InvalidRequestError, ServiceError
from ..domain.records import ChangeKind
from ..findings import Anchor, Progress, Report
from .calls import PREFIX, REFUSALS, Caller, Calls, Responses, forbid_storing
from .sealing_models import AuditList, HeadRow, audit_list, head_row, verification_line

LINES: Final = "application/x-ndjson"
_MANY: Final = 10**18
_TIME: Final = "2026-01-31T12:00:00+00:00"
_ANCHOR: Final = f"17:{'5f1c' * 16}"
_VERIFICATION: Final[Responses] = {
    200: {
        "description": "One JSON object a line: how far it is, `{done, total}`, and at last `{report}`; a failure in "
        "between is a line `{error}`.",
        "content": {LINES: {"schema": {"type": "string"}, "example": '{"done": 0, "total": 17}\n'}},
    }
}

router: Final = APIRouter(prefix=PREFIX, tags=["audit"], dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get("/audit")
async def list_entries(
    calls: Calls,
    caller: Caller,
    name: Annotated[str | None, Query(max_length=128, description="About this config.", examples=["orders"])] = None,
    token: Annotated[int | None, Query(ge=0, lt=_MANY, description="By or about the token of this id.")] = None,
    since: Annotated[str | None, Query(description="At this time (RFC 3339) or later.", examples=[_TIME])] = None,
    kind: Annotated[ChangeKind | None, Query(description="Of this kind.")] = None,
    after: Annotated[int, Query(ge=0, lt=_MANY, description="Behind this revision.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES, description="At most so many.")] = MAX_ENTRIES,
) -> AuditList:
    """List entries of the log with what is known of their changes, in the order of revisions."""
    wanted = Wanted(name=name, token=token, since=None if since is None else _time(since), kind=kind)
    return audit_list(await calls.audit.list(caller, wanted, after, limit))


@router.get("/audit/head")
async def show_head(calls: Calls, caller: Caller) -> HeadRow:
    """Show where the log ends. Keep the anchor elsewhere: verifying against it finds a store that was rolled back."""
    return head_row(await calls.audit.head(caller))


@router.get("/audit/verify", responses=_VERIFICATION, response_class=StreamingResponse)
async def verify(
    calls: Calls,
    caller: Caller,
    anchor: Annotated[
        str | None, Query(max_length=100, description="From an earlier head.", examples=[_ANCHOR])
    ] = None,
) -> StreamingResponse:
    """Verify that the log is whole, in order and unaltered, and that the store holds what it tells; changes nothing."""
    told = calls.audit.verify(caller, None if anchor is None else Anchor.parse(anchor))
    return StreamingResponse(_lines(told), media_type=LINES, headers={"Cache-Control": "no-store"})


async def _lines(told: AsyncIterator[Progress | Report]) -> AsyncIterator[bytes]:
    """Yield a line for everything that is ``told``; the status has been sent, so that a failure is a line as well."""
    try:
        async for one in told:
            yield verification_line(one)
    except ServiceError as error:
        yield json.dumps({"error": {"code": error.code, "message": str(error)}}).encode() + b"\n"


def _time(text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError:
        pass
    raise InvalidRequestError("invalid since: a time as in RFC 3339, such as 2026-01-31T12:00:00+00:00")
