"""The description of the whole API (OpenAPI 3.1): what the framework tells of its routes, completed.

Dictionaries in, dictionaries out. Completed means: the routes that the framework does not know, every status that an
operation can answer, and an example for everything that goes in or out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from fastapi.security import APIKeyHeader

from ..domain.errors import SchemaViolationError, ServiceError, ThrottledError
from .errors import STATUS
from .service_description import SERVICE_PATHS, Described

_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch", "head", "options", "trace"})
_ALWAYS: Final = (400, 408, 414, 431, 500)
"""What any request can be answered by the edge of the service, or where it fails."""
_WITH_TOKEN: Final = (401, 403, 429, 503)
_INVENTED: Final = frozenset({"HTTPValidationError", "ValidationError"})
"""Of the framework's own 422, which repeats what came in and never happens here."""
_INTERNAL: Final = {500: ("internal", "the service failed; its log says where")}
_RETRY_AFTER: Final[Described] = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}, "example": 1}
}
_TITLES: Final[Mapping[int, str]] = {
    400: "The request is malformed.",
    401: "The token is missing, unknown, expired or revoked.",
    403: "The token's scopes do not cover the request.",
    404: "There is no such thing.",
    408: "The request did not come to its end in time.",
    413: "The body is over the limit.",
    414: "Path and query are over the limit.",
    422: "The document does not fit.",
    429: "Too many requests of this token, or too many failures of this address.",
    431: "The headers are over the limit.",
    500: "The service failed.",
    503: "The service cannot answer now.",
}


def complete(document: Described, openapi_path: str) -> Described:
    """Return the framework's ``document``, which is changed, with everything that it lacks."""
    document["paths"] |= deepcopy(dict(SERVICE_PATHS)) | _itself(openapi_path)
    schemas = document["components"]["schemas"]
    for name in _INVENTED:
        schemas.pop(name, None)
    scheme = {APIKeyHeader.__name__: list[str]()}
    for path, operation in _operations(document):
        if path in SERVICE_PATHS:
            operation["security"] = [scheme]
        _complete_answers(operation)
        for media_type in _media_types(operation):
            if "example" not in media_type and "examples" not in media_type:
                media_type["example"] = example_of(media_type.get("schema", {}), schemas)
    return document


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> object:
    """Return an example of what fits ``schema``, made of the examples of its parts; ``schemas``: what it refers to."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for given in ("example", "const", "default"):
        if given in schema and (given != "default" or "examples" not in schema):
            return schema[given]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return example_of(schema[choice][0], schemas)
    return _example_by_type(schema, schemas)


def _example_by_type(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> object:
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: example_of(field, schemas) for name, field in schema.get("properties", {}).items()}
    if kind == "array":
        return [example_of(schema["items"], schemas)] if "items" in schema else []
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    return {"boolean": False, "null": None}.get(kind, "text")


def _itself(path: str) -> Described:
    """Return the path of the document that this is part of; the framework leaves it out."""
    schema = {"type": "object", "required": ["openapi", "paths"]}
    told = {"application/json": {"schema": schema, "example": {"openapi": "3.1.0", "paths": {}}}}
    operation = {
        "tags": ["health"],
        "summary": "Describe",
        "description": "Return this description.",
        "operationId": "describe",
        "responses": {"200": {"description": "An OpenAPI document.", "content": told}},
    }
    return {path: {"get": operation}}


def _operations(document: Described) -> Iterator[tuple[str, Described]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in _METHODS:
                yield path, operation


def _media_types(operation: Described) -> Iterator[Described]:
    for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from holder.get("content", {}).values()


def _complete_answers(operation: Described) -> None:
    answers: Described = operation["responses"]
    answers.pop("default", None)
    if any(name in str(answers.get("422")) for name in _INVENTED):
        del answers["422"]
    for status in (*_ALWAYS, *(_WITH_TOKEN if operation.get("security") else ())):
        answers.setdefault(str(status), {})
    for status, answer in answers.items():
        if int(status) >= 400:
            _complete_refusal(int(status), answer)
    operation["responses"] = dict(sorted(answers.items()))


def _complete_refusal(status: int, answer: Described) -> None:
    answer.setdefault("description", _TITLES.get(status, "The request was refused."))
    content = answer.setdefault("content", {}).setdefault("application/json", {})
    content.setdefault("schema", {"$ref": "#/components/schemas/ErrorBody"})
    content["examples"] = {code: {"value": {"error": told}} for code, told in _refusals(status).items()}
    if status in {429, 503}:
        answer["headers"] = _RETRY_AFTER


def _refusals(status: int) -> dict[str, Described]:
    """Return the bodies of all errors of a status, by code."""
    kinds = [
        kind for kind, of_kind in STATUS.items() if of_kind == status and kind not in {ServiceError, ThrottledError}
    ]
    told: dict[str, Described] = {kind.code: {"code": kind.code, "message": _message(kind)} for kind in kinds}
    if SchemaViolationError in kinds:
        told[SchemaViolationError.code]["violations"] = [{"path": "/db/port", "keyword": "type"}]
    if status in _INTERNAL:
        code, message = _INTERNAL[status]
        told[code] = {"code": code, "message": message}
    return told


def _message(kind: type[ServiceError]) -> str:
    return (kind.__doc__ or "").split(". ")[0].rstrip(".")
