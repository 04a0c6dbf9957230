"""Streams of the in-memory service: who hears of which version, and in which words.

Knows versions, tokens and events. Knows nothing of HTTP or sockets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..crypto import Binding, key_id, seal, seal_bound
from ..protocol import (
    CHANGED_EVENT,
    RESET_EVENT,
    STATE_EVENT,
    SYNCED_EVENT,
    ConfigState,
    Held,
    Position,
    Standing,
    dump_change_event,
    dump_config_state,
    dump_position,
)
from ..types import ConfigChangeEvent
from ._accounts import Account
from ._memory import ConfigKey, Memory, Version

HEARTBEAT: Final = b":\n"
_KEPT: Final = 1024
"""Payloads that are kept, so that each is sealed once per key."""


class Frame(NamedTuple):
    """Bytes for one stream, and the version that they hand over, if any."""

    data: bytes
    version: Version | None = None


class Sealed:
    """Payloads, each sealed once per key, format and version."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, Position], bytes] = OrderedDict()

    def payload(self, version: Version, key: bytes, encoding: int) -> bytes:
        """Return the content of ``version`` in sealed format ``encoding`` under ``key``."""
        wanted = (key_id(key), encoding, version.position)
        payload = self._kept.get(wanted)
        if payload is None:
            content = version.content or b""
            payload = seal(content, key) if encoding == 1 else seal_bound(content, key, _binding(version))
            self._kept[wanted] = payload
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return payload


@dataclass(frozen=True, slots=True, eq=False)
class BaseStream:
    """A base stream: changes of one name and label, in one environment or in all that the token may read."""

    account: Account
    name: str
    label: str
    environment: str | None

    def covers(self, key: ConfigKey) -> bool:
        """Tell whether this stream tells of changes of ``key``."""
        return (
            key.name == self.name
            and key.label == self.label
            and self.environment in {None, key.environment}
            and self.account.may("read", key.name, key.environment)
        )

    def replay(self, memory: Memory, last_event_id: str) -> list[Frame] | None:
        """Return what was missed since that event; None when it cannot be known exactly."""
        seen = Position.parse(last_event_id)
        missed = memory.since(seen.revision, self.name) if seen and seen.epoch == memory.epoch else None
        return None if missed is None else [change_frame(version) for version in missed if self.covers(version.key)]


def change_frame(version: Version) -> Frame:
    """Return the event that tells of ``version`` on base streams."""
    event = ConfigChangeEvent(
        config_name=version.key.name,
        version=version.number,
        changed_by=version.changed_by,
        timestamp=version.timestamp,
        environment=version.key.environment,
        label=version.key.label,
        epoch=version.position.epoch,
        revision=version.position.revision,
        deleted=version.deleted,
    )
    data = _dump_event(CHANGED_EVENT, dump_change_event(event), version.position)
    # Only a deletion is told whole here; the content of a version comes by the fetch that follows.
    return Frame(data, version if version.deleted else None)


def reset_frame(position: Position) -> Frame:
    """Return the event that says that what was missed cannot be replayed."""
    return Frame(_dump_event(RESET_EVENT, "{}", position))


@dataclass(frozen=True, slots=True, eq=False)
class StateStream:
    """A state-first stream: the configs it watches, and the ids of the keys that its client holds."""

    account: Account
    held: Sequence[Held]
    key_ids: frozenset[str] | None
    keys: dict[ConfigKey, list[Position | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.held:
            key = ConfigKey(one.name, one.environment or self.account.environment, one.label or "main")
            self.keys.setdefault(key, []).append(one.position)

    def covers(self, key: ConfigKey) -> bool:
        """Tell whether this stream tells of changes of ``key``."""
        return key in self.keys and self.account.may("read", key.name, key.environment)

    def opening(self, memory: Memory, sealed: Sealed) -> list[Frame]:
        """Return the events that state what differs from what the client holds, and ``synced``."""
        frames, sealing = [], self.key(memory)
        for key, positions in self.keys.items():
            newest = memory.newest(key)
            if not self.account.may("read", key.name, key.environment):
                frames.append(_stating(STATE_EVENT, ConfigState(*key, standing=Standing.REFUSED)))
            elif newest is None:
                frames.append(_stating(STATE_EVENT, ConfigState(*key, standing=Standing.MISSING)))
            elif any(position != newest.position for position in positions):
                frames.append(state_frame(newest, sealing, sealed, STATE_EVENT))
        frames.append(Frame(_dump_event(SYNCED_EVENT, dump_position(memory.position))))
        return frames

    def key(self, memory: Memory) -> bytes:
        """Return the key to seal under for this stream: one that its client holds and that is valid now."""
        return memory.account(self.account.id).key_for(self.key_ids)


def state_frame(version: Version, key: bytes, sealed: Sealed, event: str = CHANGED_EVENT) -> Frame:
    """Return the event that states ``version``, sealed under ``key``."""
    state = ConfigState(
        *version.key,
        standing=Standing.DELETED if version.deleted else Standing.RUNNING,
        position=version.position,
        version=version.number,
        changed_by=version.changed_by,
        timestamp=version.timestamp,
        payload=b"" if version.deleted else sealed.payload(version, key, 2),
    )
    return _stating(event, state, version)


Stream = BaseStream | StateStream


def _binding(version: Version) -> Binding:
    epoch, revision = version.position
    return Binding(epoch, *version.key, version.number, revision)


def _stating(event: str, state: ConfigState, version: Version | None = None) -> Frame:
    return Frame(_dump_event(event, dump_config_state(state)), version)


def _dump_event(event: str, data: str, position: Position | None = None) -> bytes:
    lines = [f"id: {position}"] if position else []
    return "\n".join([*lines, f"event: {event}", f"data: {data}", "", ""]).encode()
