"""The JSON of the management API: what its requests and answers hold. Knows pydantic. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from config_client.protocol import DEFAULT_ENVIRONMENT, format_timestamp

from ..domain.documents import Document
from ..domain.errors import InvalidRequestError
from ..domain.names import SAVEPOINT_PATTERN
from ..domain.records import ChangeKind, Savepoint, Version, VersionInfo, VersionState
from ..domain.scopes import SERVICE_SCOPES
from ..security.tokens import MintedKey, MintedToken, Token
from ..token_operations import DEFAULT_OVERLAP, MAX_OVERLAP

_TIME = "2026-01-31T12:00:00.000000+00:00"
_SCOPES = ["*@*:read,export"]


class ConfigRow(BaseModel):
    """The newest version of a config."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(examples=["orders"])
    environment: str = Field(examples=["default"])
    label: str = Field(examples=["main"])
    version: int = Field(description="Counts 1, 2, 3 … per name, environment and label.", examples=[3])
    revision: int = Field(description="Grows with every change of the store.", examples=[17])
    deleted: bool = Field(description="This version is a tombstone: nothing is served.", examples=[False])
    changed_by: int = Field(description="Id of the token that made this version; 0 is the service.", examples=[1])
    timestamp: str = Field(description="RFC 3339.", examples=[_TIME])
    valid_from: str | None = Field(
        default=None, description="Published for this moment; null: it ran at once.", examples=[None]
    )


class ChangedRow(ConfigRow):
    """What a publish or rollback led to: the running version or, with ``scheduled``, the one that is to run."""

    scheduled: bool = Field(default=False, description="It does not run before ``valid_from``.", examples=[False])
    changed: bool = Field(description="False when these very bytes were running already.", examples=[True])


class VersionRow(ConfigRow):
    """One version in the history of a config."""

    kind: ChangeKind = Field(description="How this version came to be.", examples=["published"])
    source_version: int | None = Field(description="The version that a rollback published again.", examples=[None])
    state: VersionState = Field(
        description="running; saved: it was; scheduled: it is to run; cancelled: it never did and is not to.",
        examples=["running"],
    )
    activated_revision: int | None = Field(
        default=None, description="Where it was published for later: the revision at which it ran.", examples=[None]
    )
    activated_at: str | None = Field(default=None, description="When that was.", examples=[None])
    savepoints: list[str] = Field(default=[], description="Names that stand for it.", examples=[["release-1"]])
    archived: bool = Field(default=False, description="Its document is not kept any more.", examples=[False])


class ConfigList(BaseModel):
    """Every config that the token may read or write."""

    configs: list[ConfigRow]


class VersionList(BaseModel):
    """Every version of a config, newest first."""

    versions: list[VersionRow]


class KeyRow(BaseModel):
    """A key of a token, without the key itself."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Not a secret.", examples=["0f1e2d3c4b5a6978"])
    retires_at: str | None = Field(
        description="From then on nothing is sealed with it; null: until the next rotation.", examples=[_TIME]
    )


class TokenRow(BaseModel):
    """A token, without its secret and its keys."""

    model_config = ConfigDict(frozen=True)

    id: int = Field(examples=[2])
    name: str = Field(examples=["orders in production"])
    environment: str = Field(description="What its requests mean when they name none.", examples=["default"])
    scopes: list[str] = Field(examples=[_SCOPES])
    key_ids: list[str] = Field(
        description="Which keys it holds, the newest first; not a secret.", examples=[["0f1e2d3c4b5a6978"]]
    )
    keys: list[KeyRow] = Field(
        description="The same keys, and until when each is used.",
        examples=[[{"id": "0f1e2d3c4b5a6978", "retires_at": _TIME}]],
    )
    created_by: int = Field(examples=[1])
    created_at: str = Field(examples=[_TIME])
    expires_at: str | None = Field(examples=[None])
    revoked_at: str | None = Field(examples=[None])


class NewTokenRow(TokenRow):
    """A token at its creation, the only time at which its secret and its key are shown."""

    secret: str = Field(description="For the header X-Service-Token.", examples=["cst_…"])
    key: str = Field(description="64 hex characters: opens what this token fetches.", examples=["…"])
    key_id: str = Field(examples=["0f1e2d3c4b5a6978"])


class NewKeyRow(TokenRow):
    """A token at the rotation of its key, the only time at which the new key is shown."""

    key: str = Field(description="64 hex characters: the newest key from now on.", examples=["…"])
    key_id: str = Field(examples=["0f1e2d3c4b5a6978"])


class TokenList(BaseModel):
    """Every token, by id."""

    tokens: list[TokenRow]


class Request(BaseModel):
    """Base of the bodies that come in. Unknown fields are refused: a misspelt limit must not mean no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)


Number = Annotated[int, Field(ge=1, lt=10**18)]
Name = Annotated[str, Field(pattern=SAVEPOINT_PATTERN)]


class RollbackRequest(Request):
    """Which version to publish again."""

    version: Number | Name = Field(description="Its number, or the name of a savepoint.", examples=[2])
    valid_from: AwareDatetime | None = Field(
        default=None, description="Run it from this moment on instead of at once.", examples=[_TIME]
    )


class TokenRequest(Request):
    """Which token to create."""

    name: str = Field(min_length=1, max_length=128, examples=["orders in production"])
    environment: str = Field(default=DEFAULT_ENVIRONMENT, examples=["default"])
    scopes: list[str] = Field(default=[str(scope) for scope in SERVICE_SCOPES], max_length=64, examples=[_SCOPES])
    expires_at: AwareDatetime | None = Field(default=None, examples=[_TIME])


class KeyRequest(Request):
    """How to rotate the key of a token."""

    overlap_seconds: int = Field(
        default=DEFAULT_OVERLAP,
        description="For how long the keys before stay valid; 0 ends them at once.",
        examples=[DEFAULT_OVERLAP],
        # Described here and checked by the operations, whose refusal tells the bounds.
        json_schema_extra={"minimum": 0, "maximum": MAX_OVERLAP},
    )


class ViolationRow(BaseModel):
    """Where a document does not fit its schema."""

    path: str = Field(description="JSON Pointer into the document; empty for all of it.", examples=["/db/port"])
    keyword: str = Field(description="The keyword of the schema that failed there.", examples=["type"])
    config: str | None = Field(
        default=None,
        description="Only where several configs are published together: which one.",
        examples=["orders (default, main)"],
    )


class ErrorDetail(BaseModel):
    """Why a request was refused."""

    code: str = Field(examples=["not_found"])
    message: str
    path: str | None = Field(default=None, description="JSON Pointer to the offending part of a document.")
    violations: list[ViolationRow] | None = Field(
        default=None, description="Every place at which a document does not fit its schema."
    )


class ErrorBody(BaseModel):
    """The body of every answer that refuses."""

    error: ErrorDetail


R = TypeVar("R", bound=Request)


def body_schema(model: type[Request]) -> dict[str, object]:
    """Return the JSON Schema of ``model`` that stands alone within a description of the API: nothing refers to it."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolved(value: object) -> object:
        if isinstance(value, list):
            return [resolved(one) for one in value]
        if not isinstance(value, dict):
            return value
        part = str(value.get("$ref", "")).rpartition("/")[2]
        return resolved(parts[part]) if part else {name: resolved(one) for name, one in value.items()}

    return {name: resolved(value) for name, value in schema.items()}


def parse_request(model: type[R], body: bytes) -> R:
    """Return ``body`` as ``model``. Raises InvalidRequestError, which names the fields at fault and no value."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        details = error.errors(include_input=False, include_context=False, include_url=False)
        faults = sorted({str(detail["loc"][0]) if detail["loc"] else "" for detail in details})
    # A field that is not ours may have any name, a secret in the wrong place included.
    known = [fault for fault in faults if fault in model.model_fields]
    wanted = ", ".join(model.model_fields)
    what = f"invalid {', '.join(known)}" if known else f"expected a JSON object with the fields {wanted}"
    raise InvalidRequestError(f"invalid body: {what}; the API's description (openapi.json) shows an example")


def config_row(source: Document | Version) -> ConfigRow:
    """Return the row of a version."""
    return ConfigRow.model_validate(_fields(source))


def changed_row(document: Document, *, changed: bool) -> ChangedRow:
    """Return the row of what a change led to."""
    return ChangedRow.model_validate(_fields(document) | {"changed": changed, "scheduled": not document.served})


def version_row(version: VersionInfo, state: VersionState, savepoints: Iterable[Savepoint] = ()) -> VersionRow:
    """Return the row of a version in its history."""
    activation = version.activation
    return VersionRow.model_validate(
        _fields(version)
        | {
            "kind": version.kind,
            "source_version": version.source_version,
            "state": state,
            "activated_revision": None if activation is None else activation.revision,
            "activated_at": None if activation is None else format_timestamp(activation.timestamp),
            "savepoints": [one.name for one in savepoints if one.version == version.version],
            "archived": version.archived is not None,
        }
    )


def token_row(token: Token) -> TokenRow:
    """Return the row of a token."""
    return TokenRow.model_validate(_token_fields(token))


def new_token_row(minted: MintedToken) -> NewTokenRow:
    """Return the row of a new token, with its secret and key."""
    secrets = {"secret": minted.secret, "key": minted.key.hex(), "key_id": minted.token.key_ids[0]}
    return NewTokenRow.model_validate(_token_fields(minted.token) | secrets)


def new_key_row(minted: MintedKey) -> NewKeyRow:
    """Return the row of a token whose key was rotated, with the new key."""
    secrets = {"key": minted.key.hex(), "key_id": minted.token.key_ids[0]}
    return NewKeyRow.model_validate(_token_fields(minted.token) | secrets)


def _fields(source: Document | Version | VersionInfo) -> dict[str, object]:
    return {
        "name": source.key.name,
        "environment": source.key.environment,
        "label": source.key.label,
        "version": source.version,
        "revision": source.revision,
        "deleted": source.deleted,
        "changed_by": source.changed_by,
        "timestamp": format_timestamp(source.timestamp),
        "valid_from": _time_or_none(source.valid_from),
    }


def _token_fields(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "environment": token.default_environment,
        "scopes": [str(scope) for scope in token.scopes],
        "key_ids": list(token.key_ids),
        "keys": [{"id": key_id, "retires_at": _time_or_none(end)} for key_id, end in token.key_ends()],
        "created_by": token.created_by,
        "created_at": format_timestamp(token.created_at),
        "expires_at": _time_or_none(token.expires_at),
        "revoked_at": _time_or_none(token.revoked_at),
    }


def _time_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else format_timestamp(moment)
