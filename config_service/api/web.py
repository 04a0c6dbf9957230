"""The FastAPI application that serves everything but the hot routes, with its errors in the service's own shape.

The framework's own error answers repeat what came in; each is replaced here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from ..domain.errors import InvalidRequestError, ServiceError
from ..operations import Operations
from ..readiness import Readiness
from . import audit, backups, drafts, exports, health, keys, manage, metrics, savepoints, schedules, schemas, watchers
from .answers import Answer
from .description import complete
from .errors import error_answer, internal_error, method_not_allowed, not_found, plain_error
from .exchange import note_error
from .service_description import Described

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig  # older versions have none, and no telemetry of their own

_SILENT: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""The framework's own telemetry tells paths, queries and the texts of exceptions, any of which may hold a secret."""
_ROUTERS: Final = (
    manage.router,
    drafts.router,
    schedules.router,
    savepoints.router,
    schemas.router,
    keys.router,
    audit.router,
    backups.router,
    exports.router,
    watchers.router,
    health.router,
    metrics.router,
)


def build_web(
    operations: Operations, readiness: Readiness, render_metrics: metrics.Render, metrics_token: SecretStr
) -> FastAPI:
    """Return the application with the management API, the health routes and the metrics.

    There is no page to try the API from: those pages load scripts from elsewhere. Its description is served without a
    token, as it says nothing of any config.
    """
    web = FastAPI(
        title="config-service",
        summary="Versioned JSON documents, sealed for each reader.",
        version="1",
        openapi_url=manage.OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_SILENT,
        exception_handlers={
            ServiceError: _refuse,
            RequestValidationError: _refuse_parameters,
            HTTPException: _refuse_routing,
            Exception: _fail,
        },
    )
    web.state.operations = operations
    web.state.readiness = readiness
    web.state.render_metrics = render_metrics
    web.state.metrics_token = metrics_token
    for router in _ROUTERS:
        web.include_router(router)
    described = web.openapi

    def describe() -> Described:
        if web.openapi_schema is None:
            web.openapi_schema = complete(described(), manage.OPENAPI_PATH)
        return web.openapi_schema

    web.openapi = describe  # type: ignore[method-assign]
    return web


def _respond(request: Request, code: str, answer: Answer) -> Response:
    note_error(request.scope, code)
    response = Response(answer.body, status_code=answer.status)
    response.raw_headers = answer.encoded_headers()
    return response


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        return await _fail(request, error)
    return _respond(request, error.code, error_answer(error))


async def _refuse_parameters(request: Request, _error: Exception) -> Response:
    refusal = InvalidRequestError("invalid path or query; see the API's description (openapi.json)")
    return _respond(request, refusal.code, error_answer(refusal))


async def _refuse_routing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return _respond(request, "not_found", not_found())
    if status == 405:
        allowed = ", ".join(sorted(_methods(request)))
        return _respond(request, "method_not_allowed", method_not_allowed(allowed))
    code = "invalid_request"
    return _respond(request, code, plain_error(status, code, "the request cannot be read"))


async def _fail(request: Request, _error: Exception) -> Response:
    return _respond(request, "internal", internal_error())


def _methods(request: Request) -> set[str]:
    """Return every method that some route of this path has; the framework names those of one route only."""
    # The framework's own is the one of the description.
    routers = (*_ROUTERS, request.app.router)
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in matching for method in route.methods or ()}
