"""The management API of schedules: which versions wait for their moment, and that one of them is not to run.

Knows routes. Everything it does, ``operations`` does. A version is published for later by the routes that publish.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends

from .calls import CHANGES, NOT_FOUND, PREFIX, REFUSALS, Caller, Calls, Key, forbid_storing
from .lifecycle_models import ScheduleList, ScheduleRow, schedule_row

_SCHEDULE: Final = "/configs/{name}/schedule"

router: Final = APIRouter(prefix=PREFIX, tags=["schedules"], dependencies=[Depends(forbid_storing)], responses=REFUSALS)


@router.get("/schedules")
async def list_schedules(calls: Calls, caller: Caller) -> ScheduleList:
    """List the versions that wait for their moment, of the configs that the token may write, as they come due."""
    return ScheduleList(schedules=[schedule_row(document) for document in calls.schedules.list(caller)])


@router.get(_SCHEDULE, responses=NOT_FOUND)
async def show_schedule(calls: Calls, caller: Caller, key: Key) -> ScheduleRow:
    """Show which version of a config waits for its moment."""
    return schedule_row(calls.schedules.read(caller, key))


@router.delete(_SCHEDULE, responses=NOT_FOUND | {409: CHANGES[409], 507: CHANGES[507]})
async def cancel_schedule(calls: Calls, caller: Caller, key: Key) -> ScheduleRow:
    """Cancel what is scheduled: that version is kept, and does not run by itself any more."""
    return schedule_row(await calls.schedules.cancel(caller, key))
