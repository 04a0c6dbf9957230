"""The route of the management API that reads all configs at once. Everything it does, ``operations`` does."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from ..exports.lines import MEDIA_TYPE
from .calls import PREFIX, REFUSALS, Caller, Calls, Responses, forbid_storing

_EXPORT: Final[Responses] = {
    200: {
        "description": "Every version and schema, in the clear, one JSON object a line. The last line says it is all.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}

router: Final = APIRouter(prefix=PREFIX, dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get("/export", tags=["store"], responses=_EXPORT, response_class=StreamingResponse)
async def export(
    calls: Calls,
    caller: Caller,
    drafts: Annotated[Literal["true", "false"], Query(description="Whether drafts are wanted, too.")] = "false",
) -> StreamingResponse:
    """Stream what all configs say and said, as of this revision, for `config-service import`."""
    chunks = await calls.exports.export(caller, drafts=drafts == "true")
    return StreamingResponse(chunks, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
