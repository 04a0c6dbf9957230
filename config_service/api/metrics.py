"""``/metrics``: what the service measures of itself, for Prometheus.

Knows who may ask: holders of a token with the right ``admin``, and whoever sends the secret of its own that
``CONFIG_SERVER_METRICS_TOKEN`` sets, the way Prometheus sends one (RFC 6750). Everybody else is refused, by default as
well: names of routes and numbers of tokens are nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from ..operations import Operations
from .callers import authenticate
from .calls import REFUSALS, Calls, Responses
from .peers import peer_of
from .requests import header

Render = Callable[[str], tuple[bytes, str]]
"""Returns all metrics in the format that an ``Accept`` prefers, and its content type."""
_BEARER: Final = "bearer "
_TOLD: Final[Responses] = {
    200: {
        "description": "The metrics, in the text format of Prometheus or as OpenMetrics, as Accept prefers.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "config_service_revision 42.0\n"}},
    }
}
router: Final = APIRouter(tags=["health"], responses=REFUSALS)


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    response_class=Response,
    responses=_TOLD,
    openapi_extra={"security": [{"APIKeyHeader": []}]},
)
async def metrics(request: Request, calls: Calls) -> Response:
    """Tell what the service measures of itself.

    Needs a token with the right admin, or `Authorization: Bearer` with the secret in CONFIG_SERVER_METRICS_TOKEN.
    """
    _require(request, calls)
    render: Render = request.app.state.render_metrics
    body, content_type = render(header(request.scope["headers"], b"accept") or "")
    return Response(body, media_type=content_type, headers={"Cache-Control": "no-store"})


def _require(request: Request, calls: Operations) -> None:
    """Return when the caller may read the metrics. Raises UnauthenticatedError, AccessDeniedError or ThrottledError."""
    wanted: SecretStr = request.app.state.metrics_token
    headers = request.scope["headers"]
    given = header(headers, b"authorization")
    if given is None or given[: len(_BEARER)].lower() != _BEARER:
        authenticate(calls, request.scope).require_admin()
        return
    secret = given[len(_BEARER) :].strip()
    if wanted and compare_digest(secret.encode(), wanted.get_secret_value().encode()):
        return
    # A token's own secret is as good in this header; a wrong one counts as a failed authentication either way.
    calls.authenticate(secret, peer_of(request.scope)).require_admin()
