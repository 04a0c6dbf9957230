"""The route of the management API that tells who is watching what, and at which version.

Knows routes and the JSON of the rows. Everything it does, ``operations`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from config_client.protocol import DEFAULT_LABEL, format_timestamp

from ..delivery.subscription import Beat
from ..delivery.watchers import WatchedConfig, Watcher
from ..domain.keys import ConfigKey
from .calls import PREFIX, REFUSALS, Caller, Calls, forbid_storing
from .requests import parse_query

_KIND: Final[Mapping[Beat, Literal["base", "state"]]] = {Beat.BASE: "base", Beat.STATE: "state"}
router: Final = APIRouter(prefix=PREFIX, tags=["watchers"], dependencies=[Depends(forbid_storing)], responses=REFUSALS)


class WatchedRow(BaseModel):
    """One config that a stream is about."""

    name: str = Field(examples=["orders"])
    environment: str = Field(examples=["default"])
    label: str = Field(examples=["main"])
    running_version: int | None = Field(examples=[7], description="null: nothing was ever published.")
    running_revision: int | None = Field(examples=[41])
    deleted: bool = Field(examples=[False], description="Whether the newest version is a tombstone.")
    sent_version: int | None = Field(
        examples=[7],
        description="The newest version that the stream holds or was sent. null: none, or it is on its way; on a base "
        "stream, which carries changes only, also until the first change.",
    )
    sent_revision: int | None = Field(examples=[41])
    behind: bool = Field(examples=[False], description="Whether a newer one waits to be sent.")


class WatcherRow(BaseModel):
    """One open stream."""

    token_id: int = Field(examples=[2])
    token_name: str = Field(examples=["orders-app"])
    address: str = Field(examples=["10.0.0.7"], description="Of the client, as far as it is known.")
    since: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    kind: Literal["base", "state"] = Field(examples=["state"], description="A base stream, or a state-first one.")
    behind: bool = Field(examples=[False], description="Whether anything waits to be sent.")
    queued_frames: int = Field(examples=[0])
    configs: list[WatchedRow]


class WatcherList(BaseModel):
    """Streams of the process that answers, by token."""

    watchers: list[WatcherRow]
    truncated: bool = Field(examples=[False], description="Whether there are more than an answer tells; name a config.")


@router.get("/watchers")
async def list_watchers(
    request: Request,
    calls: Calls,
    caller: Caller,
    _config: Annotated[
        str | None, Query(alias="config", description="Only streams about configs of this name.")
    ] = None,
    _environment: Annotated[
        str | None, Query(alias="environment", description="Only streams about configs in this environment.")
    ] = None,
) -> WatcherList:
    """List who is watching what through this process, and at which version. Needs the right admin."""
    query = parse_query(request.scope["query_string"])
    name, environment = query.get("config"), query.get("environment")
    ConfigKey.of(name or "any", environment or "any", DEFAULT_LABEL)
    told = calls.streams.watchers(caller, name, environment)
    rows = [watcher_row(watcher, calls.streams.name_of(watcher.token_id)) for watcher in told.watchers]
    return WatcherList(watchers=rows, truncated=not told.whole)


def watcher_row(watcher: Watcher, token_name: str) -> WatcherRow:
    """Return the row of a stream."""
    return WatcherRow(
        token_id=watcher.token_id,
        token_name=token_name,
        address=watcher.address,
        since=format_timestamp(watcher.since),
        kind=_KIND[watcher.kind],
        behind=watcher.behind,
        queued_frames=watcher.queued,
        configs=[_watched_row(config) for config in watcher.configs],
    )


def _watched_row(config: WatchedConfig) -> WatchedRow:
    running, sent = config.running, config.sent
    return WatchedRow(
        name=config.key.name,
        environment=config.key.environment,
        label=config.key.label,
        running_version=None if running is None else running.version,
        running_revision=None if running is None else running.revision,
        deleted=running is not None and running.deleted,
        sent_version=None if sent is None else sent.version,
        sent_revision=None if sent is None else sent.revision,
        behind=config.behind,
    )
