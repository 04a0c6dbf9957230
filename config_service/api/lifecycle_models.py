"""The JSON of drafts, differences and schemas. Knows pydantic. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from config_client.protocol import DEFAULT_LABEL, format_timestamp

from ..domain.differences import Change, Difference
from ..domain.documents import Document
from ..domain.errors import Violation
from ..domain.json_values import serialise
from ..domain.keys import ConfigKey
from ..domain.preconditions import Precondition
from ..domain.records import Draft, Savepoint, SchemaInfo
from ..draft_operations import DraftDocument, Validation
from ..savepoint_operations import Named
from ..schema_operations import SchemaDocument
from .models import ChangedRow, Name, Number, Request, ViolationRow

_TIME = "2026-01-31T12:00:00.000000+00:00"


class KeyedRow(BaseModel):
    """What is kept of a config beside its versions, and who changed it when."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(examples=["orders"])
    environment: str = Field(examples=["default"])
    label: str = Field(examples=["main"])
    changed_by: int = Field(description="Id of the token that made this change.", examples=[1])
    timestamp: str = Field(description="RFC 3339.", examples=[_TIME])


class DiscardedRow(KeyedRow):
    """A draft that is no more, without its document."""

    base: int = Field(description="The version that it was made on; 0: none was published.", examples=[3])


class DraftRow(DiscardedRow):
    """A draft, without its document."""

    newest: int = Field(description="The newest version there is.", examples=[3])
    outdated: bool = Field(
        description="Another version came in between: publishing is refused, so that it is not overwritten.",
        examples=[False],
    )


class ValidationRow(DraftRow):
    """What a publish of a draft would meet."""

    valid: bool = Field(description="The draft fits the schema in force, if there is one.", examples=[True])
    schema_number: int | None = Field(description="The newest schema; null when there never was one.", examples=[2])
    violations: list[ViolationRow] = Field(examples=[[{"path": "/db/port", "keyword": "type"}]])


class SchemaRow(KeyedRow):
    """A schema, without what it says."""

    number: int = Field(description="Counts 1, 2, 3 … per name, environment and label.", examples=[2])
    revision: int = Field(description="Grows with every change of the store.", examples=[18])
    removed: bool = Field(description="From here on nothing was validated.", examples=[False])


class ChangedSchemaRow(SchemaRow):
    """What setting a schema led to."""

    changed: bool = Field(description="False when this very schema was in force already.", examples=[True])


class SchemaList(BaseModel):
    """Every schema of a config, newest first."""

    schemas: list[SchemaRow]


class DifferenceRow(BaseModel):
    """One place that differs."""

    op: Change = Field(examples=["changed"])
    path: str = Field(description="JSON Pointer (RFC 6901).", examples=["/db/host"])
    old: object = Field(default=None, description="Not there when the place was added.", examples=["db1"])
    new: object = Field(default=None, description="Not there when the place was removed.", examples=["db2"])


class DifferenceList(BaseModel):
    """What leads from one document to another, in an order in which it can be applied."""

    differences: list[DifferenceRow]


class NamedDraft(Request):
    """Which draft to publish together with others, and on which condition."""

    name: str = Field(examples=["orders"])
    environment: str | None = Field(
        default=None, description="Without it: the token's default environment.", examples=["default"]
    )
    label: str | None = Field(default=None, description="Without it: main.", examples=["main"])
    if_match: int | None = Field(
        default=None, ge=1, lt=10**18, description="Only while this version is running.", examples=[3]
    )


class PublishRequest(Request):
    """Which drafts to publish together."""

    drafts: list[NamedDraft] = Field(
        min_length=1, max_length=100, examples=[[{"name": "orders", "if_match": 3}, {"name": "billing"}]]
    )

    valid_from: AwareDatetime | None = Field(
        default=None, description="Run their versions from this moment on instead of at once.", examples=[_TIME]
    )

    def named(self, default_environment: str) -> list[tuple[ConfigKey, Precondition]]:
        """Return each config with its condition. Raises InvalidRequestError."""
        return [
            (
                ConfigKey.of(one.name, one.environment or default_environment, one.label or DEFAULT_LABEL),
                Precondition(versions=None if one.if_match is None else frozenset({one.if_match})),
            )
            for one in self.drafts
        ]


class ScheduleRow(KeyedRow):
    """A version that waits for its moment, without its document."""

    version: int = Field(description="The newest version of the config.", examples=[4])
    revision: int = Field(description="At which it was published; it runs from a later one on.", examples=[18])
    valid_from: str = Field(description="When it is to run.", examples=[_TIME])


class ScheduleList(BaseModel):
    """Every version that waits for its moment, as they come due."""

    schedules: list[ScheduleRow]


class SavepointRow(KeyedRow):
    """A name for a version."""

    savepoint: str = Field(examples=["release-1"])
    version: int = Field(description="The version that it stands for.", examples=[3])
    revision: int = Field(description="At which it was set or moved there.", examples=[19])


class ChangedSavepointRow(SavepointRow):
    """What setting a savepoint led to."""

    changed: bool = Field(description="False when it stood for this version already.", examples=[True])


class SavepointList(BaseModel):
    """The savepoints of a config, by name."""

    savepoints: list[SavepointRow]


class SavepointRequest(Request):
    """Which version a savepoint is to stand for."""

    version: Number | None = Field(default=None, description="Null is the running one.", examples=[3])
    move: bool = Field(default=False, description="Also when it stands for another one.", examples=[False])


class PublishedList(BaseModel):
    """What publishing several drafts together led to, in the order in which they were named."""

    published: list[ChangedRow]


class RevertRequest(Request):
    """Which version to begin a draft from; null is the running one."""

    version: Number | Name | None = Field(
        default=None, description="Its number, or the name of a savepoint.", examples=[2]
    )


def discarded_row(draft: Draft) -> DiscardedRow:
    """Return the row of a draft that was removed."""
    return DiscardedRow.model_validate(_draft_fields(draft))


def draft_row(found: DraftDocument) -> DraftRow:
    """Return the row of a draft."""
    return DraftRow.model_validate(_standing(found))


def validation_row(validation: Validation) -> ValidationRow:
    """Return the row of what a publish would meet."""
    return ValidationRow.model_validate(
        _standing(validation.draft)
        | {
            "valid": not validation.violations,
            "schema_number": validation.schema or None,
            "violations": violation_rows(validation.violations),
        }
    )


def violation_rows(violations: Iterable[Violation]) -> list[ViolationRow]:
    """Return the rows of violations."""
    return [ViolationRow(path=one.path, keyword=one.keyword) for one in violations]


def schedule_row(document: Document) -> ScheduleRow:
    """Return the row of a version that waits for its moment."""
    return ScheduleRow.model_validate(
        {
            **_key_fields(document),
            "version": document.version,
            "revision": document.revision,
            "valid_from": format_timestamp(document.moment),
        }
    )


def savepoint_row(savepoint: Savepoint) -> SavepointRow:
    """Return the row of a savepoint."""
    return SavepointRow.model_validate(_savepoint_fields(savepoint))


def changed_savepoint_row(named: Named) -> ChangedSavepointRow:
    """Return the row of what setting a savepoint led to."""
    return ChangedSavepointRow.model_validate(_savepoint_fields(named.savepoint) | {"changed": named.changed})


def _savepoint_fields(savepoint: Savepoint) -> dict[str, object]:
    return {
        **_key_fields(savepoint),
        "savepoint": savepoint.name,
        "version": savepoint.version,
        "revision": savepoint.revision,
    }


def schema_row(info: SchemaInfo) -> SchemaRow:
    """Return the row of a schema."""
    return SchemaRow.model_validate(_schema_fields(info))


def changed_schema_row(document: SchemaDocument) -> ChangedSchemaRow:
    """Return the row of what setting a schema led to."""
    return ChangedSchemaRow.model_validate(_schema_fields(document.stored.info) | {"changed": document.changed})


def dump_differences(differences: Iterable[Difference]) -> bytes:
    """Return the JSON of differences. Written without a model: their values are any JSON, kept as they are."""
    return serialise({"differences": [_difference_fields(one) for one in differences]})


def _difference_fields(difference: Difference) -> dict[str, object]:
    fields: dict[str, object] = {"op": difference.op.value, "path": difference.path}
    if difference.op is not Change.ADDED:
        fields["old"] = difference.old
    if difference.op is not Change.REMOVED:
        fields["new"] = difference.new
    return fields


def _standing(found: DraftDocument) -> dict[str, object]:
    return _draft_fields(found.draft) | {"newest": found.newest, "outdated": found.outdated}


def _draft_fields(draft: Draft) -> dict[str, object]:
    return {**_key_fields(draft), "base": draft.base}


def _schema_fields(info: SchemaInfo) -> dict[str, object]:
    return {**_key_fields(info), "number": info.number, "revision": info.revision, "removed": info.removed}


def _key_fields(record: Draft | SchemaInfo | Document | Savepoint) -> dict[str, object]:
    return {
        "name": record.key.name,
        "environment": record.key.environment,
        "label": record.key.label,
        "changed_by": record.changed_by,
        "timestamp": format_timestamp(record.timestamp),
    }
