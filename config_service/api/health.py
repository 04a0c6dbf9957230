"""``/healthz``: this process lives. ``/readyz``: it should be sent requests, or why not.

Both need no token, and tell nothing else: the reasons name no secret, host or file.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from ..domain.errors import NotReadyError
from ..readiness import Readiness
from .models import ErrorBody

router: Final = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


async def reasons_of(request: Request) -> dict[str, str]:
    """Return why this application should be sent no requests now; empty when it should."""
    readiness: Readiness = request.app.state.readiness
    return await readiness.look()


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Health:
    """Answer while the process lives, also before it is ready."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses={503: {"model": ErrorBody, "description": "Requests should go elsewhere; `reasons` says why."}},
)
async def readyz(reasons: Annotated[dict[str, str], Depends(reasons_of)]) -> Health:
    """Answer 200 while requests should be sent here, else 503 with the reasons."""
    if reasons:
        raise NotReadyError("the service is not ready: " + "; ".join(reasons.values()), reasons)
    return Health()
