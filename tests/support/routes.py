"""Every route that the application answers, from the application itself; what generated tests go by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.routing import Route

from config_service.api import manage, service, web

Routes = frozenset[tuple[str, str]]


def all_routes() -> Routes:
    """Return method and template of every route: those of the framework's routers, and those of the wire protocol."""
    framework = {(method, route.path) for route in _framework_routes() for method in route.methods or ()}
    return frozenset(framework | {("GET", manage.OPENAPI_PATH), ("HEAD", manage.OPENAPI_PATH)} | service.ROUTES)


def _framework_routes() -> Iterator[Route]:
    routers: Any = web._ROUTERS
    for router in routers:
        yield from (route for route in router.routes if isinstance(route, Route))
