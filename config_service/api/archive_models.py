"""The JSON of the archive: what may go, what is to go, and what went. Knows pydantic. Knows nothing of HTTP."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, Field

from config_client.protocol import format_timestamp

from ..archive_operations import Archived, Page, Place
from ..domain.keys import ConfigKey
from ..domain.records import ChangeKind
from .models import Number, Request

_TIME = "2026-01-31T12:00:00.000000+00:00"


class ArchiveKey(Request):
    """A config."""

    name: str = Field(examples=["orders"])
    environment: str = Field(examples=["default"])
    label: str = Field(examples=["main"])

    @property
    def key(self) -> ConfigKey:
        """The config as a key. Raises InvalidRequestError."""
        return ConfigKey.of(self.name, self.environment, self.label)


class ArchivePlace(ArchiveKey):
    """A version of a config."""

    version: int = Field(ge=0, lt=2**63, examples=[2])

    @property
    def place(self) -> Place:
        """The version. Raises InvalidRequestError."""
        return Place(self.key, self.version)


class CandidatesRequest(Request):
    """Which versions to look for."""

    before: AwareDatetime = Field(description="The cut-off: only what was published earlier.", examples=[_TIME])
    name: str = Field(default="*", max_length=128, description="A glob of names.", examples=["orders-*"])
    after: ArchivePlace | None = Field(
        default=None,
        description="Begin after this version: ``after`` of the page before.",
        examples=[{"name": "orders", "environment": "default", "label": "main", "version": 2}],
    )
    limit: int = Field(default=100, ge=1, le=500, description="At most so many versions.", examples=[100])
    documents: bool = Field(default=False, description="Each with its document, in the clear.", examples=[False])


class CandidateRow(BaseModel):
    """A version whose document may be archived."""

    name: str = Field(examples=["orders"])
    environment: str = Field(examples=["default"])
    label: str = Field(examples=["main"])
    version: int = Field(examples=[2])
    revision: int = Field(examples=[11])
    kind: ChangeKind = Field(examples=["published"])
    changed_by: int = Field(examples=[1])
    timestamp: str = Field(examples=[_TIME])
    document: str | None = Field(default=None, description="Where it was asked for.", examples=[None])


class ConfigKeyRow(BaseModel):
    """A config."""

    name: str = Field(examples=["orders"])
    environment: str = Field(examples=["default"])
    label: str = Field(examples=["main"])


class PlaceRow(ConfigKeyRow):
    """A version of a config."""

    version: int = Field(examples=[2])


class CandidatePage(BaseModel):
    """Some versions whose documents may be archived, by config."""

    candidates: list[CandidateRow]
    after: PlaceRow | None = Field(description="Where the next page begins; null: it is the last.", examples=[None])


class ArchiveConfig(ArchiveKey):
    """Versions of a config to archive."""

    versions: list[Number] = Field(min_length=1, max_length=10_000, examples=[[1, 2]])


class ArchiveRequest(Request):
    """Which versions to archive; those that may not be, at this moment, are left alone."""

    before: AwareDatetime = Field(description="The cut-off.", examples=[_TIME])
    configs: list[ArchiveConfig] = Field(
        min_length=1,
        max_length=500,
        examples=[[{"name": "orders", "environment": "default", "label": "main", "versions": [1, 2]}]],
    )


class ArchivedRow(ConfigKeyRow):
    """What was archived of a config."""

    versions: list[int] = Field(examples=[[1, 2]])
    revision: int = Field(description="Of the log entry that says so.", examples=[20])


class ArchivedList(BaseModel):
    """What was archived, by config; what is not here was archived before, or may not be."""

    archived: list[ArchivedRow]


def candidate_page(page: Page) -> CandidatePage:
    """Return the page of what may be archived."""
    return CandidatePage(
        candidates=[
            CandidateRow.model_validate(
                {
                    **_key_row(one.info.key).model_dump(),
                    "changed_by": one.info.changed_by,
                    "timestamp": format_timestamp(one.info.timestamp),
                    "version": one.info.version,
                    "revision": one.info.revision,
                    "kind": one.info.kind,
                    "document": None if one.content is None else one.content.decode(),
                }
            )
            for one in page.candidates
        ],
        after=None
        if page.after is None
        else PlaceRow(**_key_row(page.after.key).model_dump(), version=page.after.version),
    )


def archived_row(archived: Archived) -> ArchivedRow:
    """Return the row of what was archived of a config."""
    return ArchivedRow(
        **_key_row(archived.key).model_dump(), versions=list(archived.versions), revision=archived.revision
    )


def _key_row(key: ConfigKey) -> ConfigKeyRow:
    return ConfigKeyRow(name=key.name, environment=key.environment, label=key.label)
