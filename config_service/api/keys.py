"""The management API of the keys of the store. Knows routes; everything it does, operations do."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request

from .calls import CHANGES, PREFIX, REFUSALS, Caller, Calls, Responses, forbid_storing, read_request
from .models import parse_request
from .sealing_models import (
    KeyRingRow,
    MasterRotationRow,
    ResealRequest,
    ResealRow,
    key_ring_row,
    master_rotation_row,
    read_place,
    reseal_row,
)

_CHANGES: Final[Responses] = {status: CHANGES[status] for status in (409, 507)}

router: Final = APIRouter(prefix=PREFIX, tags=["keys"], dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get("/keys")
async def list_keys(calls: Calls, caller: Caller) -> KeyRingRow:
    """List the keys of the store, none of them itself, and how much is sealed under each."""
    return key_ring_row(await calls.keys.list(caller))


@router.post("/keys/rotate", responses=_CHANGES)
async def rotate_data_key(calls: Calls, caller: Caller) -> KeyRingRow:
    """Seal everything new under a fresh data key from now on; what is there is sealed anew by `reseal`."""
    return key_ring_row(await calls.keys.rotate(caller))


@router.post("/keys/rotate-master", responses=_CHANGES)
async def rotate_master_key(calls: Calls, caller: Caller) -> MasterRotationRow:
    """Wrap every key of the store under the master key that the service was given."""
    ring, changed = await calls.keys.rotate_master(caller)
    return master_rotation_row(ring, changed=changed)


@router.post(
    "/keys/reseal",
    responses=_CHANGES | {413: CHANGES[413]},
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": ResealRequest.model_json_schema()}},
        },
    },
)
async def reseal(calls: Calls, caller: Caller, request: Request) -> ResealRow:
    """Seal the next values anew under the active data key. Repeat with `after` until it is null.

    The last step destroys retired keys under which nothing is sealed any more.
    """
    caller.require_admin()
    wanted = parse_request(ResealRequest, await read_request(request) or b"{}")
    return reseal_row(await calls.keys.reseal(caller, read_place(wanted.after), wanted.limit))
