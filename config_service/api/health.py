"""``/healthz``: this process lives. ``/readyz``: it serves configs. Both need no token and tell nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from ..domain.errors import UnavailableError
from .models import ErrorBody

PATHS: Final = frozenset({"/healthz", "/readyz"})
router: Final = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


async def readiness_of(request: Request) -> bool:
    """Tell whether this application serves configs now."""
    is_ready: Callable[[], bool] = request.app.state.is_ready
    return is_ready()


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Health:
    """Answer while the process lives, also before it is ready."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses={503: {"model": ErrorBody, "description": "The service is starting or stopping."}},
)
async def readyz(ready: Annotated[bool, Depends(readiness_of)]) -> Health:
    """Answer 200 while configs are served, 503 while the service starts or stops."""
    if not ready:
        raise UnavailableError("the service is starting or stopping")
    return Health()
