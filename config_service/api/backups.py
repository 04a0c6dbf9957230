"""The route of the management API that copies the whole store. Everything it does, ``operations`` does."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from ..backup.files import MEDIA_TYPE
from .calls import PREFIX, REFUSALS, Caller, Calls, Responses, forbid_storing

_BACKUP: Final[Responses] = {
    200: {
        "description": "Everything, sealed as it is at rest, whole at one revision. The last line says that it is all.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}

router: Final = APIRouter(prefix=PREFIX, dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get("/backup", tags=["store"], responses=_BACKUP, response_class=StreamingResponse)
async def backup(calls: Calls, caller: Caller) -> StreamingResponse:
    """Stream a backup of the whole store, tokens included, for `config-service restore`."""
    return StreamingResponse(calls.backups.backup(caller), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
