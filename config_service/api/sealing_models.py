"""The JSON of the management API about the keys of the store and its log. Knows pydantic. Knows nothing of HTTP."""

from __future__ import annotations

import base64
import binascii
import json

from pydantic import BaseModel, ConfigDict, Field

from config_client.protocol import format_timestamp

from ..audit_operations import AuditEntry, AuditPage
from ..domain.errors import InvalidRequestError
from ..domain.keys import ConfigKey
from ..domain.records import ChangeKind, Head, KeyUse
from ..domain.sealing import SealedKind, SealedPlace
from ..findings import Anchor, Progress, Report
from ..key_operations import DEFAULT_BATCH, MAX_BATCH, KeyRing, Step
from .models import Request

_TIME = "2026-01-31T12:00:00.000000+00:00"
_LINK = "5f1c" * 16


class DataKeyRow(BaseModel):
    """A key of the store, without the key itself."""

    model_config = ConfigDict(frozen=True)

    id: int = Field(description="0 stands for the keys that come from a master key directly.", examples=[2])
    use: KeyUse = Field(description="The active one seals, retired ones open, one chains the log.", examples=["active"])
    created_at: str = Field(examples=[_TIME])
    master_key: str = Field(description="Id of the master key that wraps it; no secret.", examples=["0f1e2d3c4b5a6978"])
    values: int = Field(description="How much is sealed under it.", examples=[120])


class KeyRingRow(BaseModel):
    """Every key of the store."""

    model_config = ConfigDict(frozen=True)

    keys: list[DataKeyRow]
    master_key: str = Field(
        description="Id of the master key that the service was given, and would wrap under.",
        examples=["0f1e2d3c4b5a6978"],
    )


class MasterRotationRow(KeyRingRow):
    """Every key of the store after a rotation of the master key."""

    changed: bool = Field(description="False when all were wrapped under this master key before.", examples=[True])


class ResealRequest(Request):
    """Where to go on with sealing anew, and how far."""

    after: str | None = Field(
        default=None,
        max_length=2048,
        description="What the step before answered; null: from the first.",
        examples=[None],
    )
    limit: int = Field(
        default=DEFAULT_BATCH,
        ge=1,
        le=MAX_BATCH,
        description="How many sealed values to look at.",
        examples=[DEFAULT_BATCH],
    )


class ResealRow(BaseModel):
    """What one step of sealing anew came to."""

    model_config = ConfigDict(frozen=True)

    checked: int = Field(description="Sealed values that were looked at.", examples=[32])
    resealed: int = Field(description="How many of them are sealed under the active key now.", examples=[30])
    changed_meanwhile: int = Field(description="How many others had changed by then.", examples=[0])
    damaged: list[str] = Field(description="Those that do not open, by name.", examples=[[]])
    after: str | None = Field(
        description="What to ask for next; null: this was the last step.", examples=["WyJkb2N1bWVudCJd"]
    )
    remaining: int | None = Field(
        description="After the last step: how much is sealed under retired keys still.", examples=[None]
    )
    destroyed: list[int] = Field(
        description="Keys that were destroyed, as nothing is sealed under them.", examples=[[]]
    )


class AuditRow(BaseModel):
    """An entry of the log, and what else is known of its change. Never a value."""

    model_config = ConfigDict(frozen=True)

    revision: int = Field(examples=[17])
    kind: ChangeKind = Field(examples=["published"])
    changed_by: int = Field(description="Id of the token that made the change; 0 is the service.", examples=[1])
    timestamp: str = Field(description="RFC 3339.", examples=[_TIME])
    name: str | None = Field(description="The config, if it is about one.", examples=["orders"])
    environment: str | None = Field(examples=["default"])
    label: str | None = Field(examples=["main"])
    version: int | None = Field(examples=[3])
    schema_version: int | None = Field(description="The number of a schema, if it is about one.", examples=[None])
    token_id: int | None = Field(description="The token, if it is about one.", examples=[None])
    detail: dict[str, object] | None = Field(
        description="Name of the token, id of the request, address of the peer, and more by kind; null: older than the "
        "chain of the log, or altered.",
        examples=[{"token": "deploy", "request": "r-77", "peer": "10.0.0.7", "fingerprint": _LINK}],
    )
    link: str | None = Field(description="Ties the entry to all before it.", examples=[_LINK])


class AuditList(BaseModel):
    """Entries of the log, in the order of revisions."""

    entries: list[AuditRow]
    after: int | None = Field(description="What to ask for next; null: there are no more.", examples=[None])


class HeadRow(BaseModel):
    """Where the log ends."""

    epoch: str = Field(examples=["019a0c4b8f3e5d2c1b0a9f8e"])
    revision: int = Field(examples=[17])
    link: str | None = Field(examples=[_LINK])
    anchor: str | None = Field(description="To be kept elsewhere, and verified against.", examples=[f"17:{_LINK}"])


class FindingRow(BaseModel):
    """Something that is not as it has to be."""

    revision: int | None = Field(description="Where it shows; null: nowhere in particular.", examples=[5])
    what: str = Field(examples=["the entry is missing: it was removed"])


class ReportRow(BaseModel):
    """What a verification found: the last line of its answer."""

    sound: bool = Field(examples=[False])
    head: HeadRow
    findings: list[FindingRow]
    more: int = Field(description="Findings beyond those that are listed.", examples=[0])


def key_ring_row(ring: KeyRing) -> KeyRingRow:
    """Return the row of all keys."""
    return KeyRingRow.model_validate(_ring(ring))


def master_rotation_row(ring: KeyRing, *, changed: bool) -> MasterRotationRow:
    """Return the row of all keys after a rotation of the master key."""
    return MasterRotationRow.model_validate(_ring(ring) | {"changed": changed})


def reseal_row(step: Step) -> ResealRow:
    """Return the row of one step."""
    return ResealRow(
        checked=step.checked,
        resealed=step.resealed,
        changed_meanwhile=step.changed_meanwhile,
        damaged=list(step.damaged),
        after=None if step.after is None else written_place(step.after),
        remaining=step.remaining,
        destroyed=list(step.destroyed),
    )


def audit_list(page: AuditPage) -> AuditList:
    """Return the entries of a page."""
    return AuditList(entries=[audit_row(one) for one in page.entries], after=page.after)


def audit_row(one: AuditEntry) -> AuditRow:
    """Return the row of an entry."""
    entry, key = one.entry, one.entry.key
    return AuditRow(
        revision=entry.revision,
        kind=entry.kind,
        changed_by=entry.changed_by,
        timestamp=format_timestamp(entry.timestamp),
        name=None if key is None else key.name,
        environment=None if key is None else key.environment,
        label=None if key is None else key.label,
        version=entry.version,
        schema_version=entry.schema,
        token_id=entry.token_id,
        detail=None if one.detail is None else dict(one.detail),
        link=None if entry.link is None else entry.link.hex(),
    )


def head_row(head: Head) -> HeadRow:
    """Return the row of the end of the log."""
    link = head.link
    return HeadRow(
        epoch=head.epoch,
        revision=head.revision,
        link=None if link is None else link.hex(),
        anchor=None if link is None else str(Anchor(head.revision, link)),
    )


def verification_line(told: Progress | Report) -> bytes:
    """Return the next line of a verification's answer."""
    if isinstance(told, Progress):
        return json.dumps({"done": told.done, "total": told.total}).encode() + b"\n"
    report = ReportRow(
        sound=told.sound,
        head=head_row(told.head),
        findings=[FindingRow(revision=one.revision, what=one.what) for one in told.findings],
        more=told.more,
    )
    return json.dumps({"report": report.model_dump(mode="json")}).encode() + b"\n"


def written_place(place: SealedPlace) -> str:
    """Return ``place`` as the opaque text that ``read_place`` reads."""
    key = place.key
    told = [place.kind.value, *((key.name, key.environment, key.label) if key else ()), place.number]
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


def read_place(text: str | None) -> SealedPlace | None:
    """Return the place that ``written_place`` wrote. Raises InvalidRequestError for anything else."""
    if text is None:
        return None
    try:
        match json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))):
            case [str(kind), int(number)] if _is_number(number):
                return SealedPlace(SealedKind(kind), None, number)
            case [str(kind), str(name), str(environment), str(label), int(number)] if _is_number(number):
                return SealedPlace(SealedKind(kind), ConfigKey.of(name, environment, label), number)
    except (InvalidRequestError, ValueError, binascii.Error, RecursionError):
        pass
    raise InvalidRequestError("invalid after: give back what the step before answered, or nothing to begin")


def _is_number(value: int) -> bool:
    return 0 <= value < 10**18 and not isinstance(value, bool)


def _ring(ring: KeyRing) -> dict[str, object]:
    keys = [
        {
            "id": key.id,
            "use": key.use,
            "created_at": format_timestamp(key.created_at),
            "master_key": key.master_key,
            "values": key.values,
        }
        for key in ring.keys
    ]
    return {"keys": keys, "master_key": ring.master_key}
