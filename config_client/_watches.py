"""The two watches of a client: rules, driver, decoding and callbacks put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ._driver import Target, ThreadDriver
from ._rounds import Policy, limited
from .backoff import Backoff
from .crypto import Keyring
from .decode import decoder
from .options import Options
from .protocol import Metadata
from .snapshot import Snapshot
from .transport import Transport
from .types import ConfigChangeEvent
from .watching import EventWatch, ValueWatch

T = TypeVar("T")


def tell_changes(
    options: Options,
    transport: Transport,
    keyring: Keyring,
    config_name: str,
    query: dict[str, str],
    callback: Callable[[ConfigChangeEvent], object],
) -> None:
    """Block, and call ``callback`` for every change of the config, until the transport is closed."""
    watch = EventWatch(_policy(options), config_name, everywhere="environment" not in query)
    target = Target(config_name, query, _ignore, callback, options.on_error, options.on_change)
    ThreadDriver(transport, keyring, target, options.heartbeat_interval).run(watch.run())


def keep_current(
    options: Options,
    transport: Transport,
    keyring: Keyring,
    config_name: str,
    query: dict[str, str],
    target_type: type[T],
    snapshot: Snapshot[T],
) -> None:
    """Block, and keep ``snapshot`` at the newest value that decodes, until the transport is closed.

    Raises UnmarshalError at once when ``target_type`` is not supported: no document could ever mend that.
    """

    read = decoder(target_type)

    def apply(document: bytes, metadata: Metadata) -> None:
        snapshot.store(read(document), version=metadata.version, updated_at=metadata.timestamp)

    watch = ValueWatch(_policy(options))
    target = Target(config_name, query, apply, _ignore, options.on_error, options.on_change)
    ThreadDriver(transport, keyring, target, options.heartbeat_interval).run(watch.run())


def _policy(options: Options) -> Policy:
    backoff = Backoff(options.retry_delay, cap=options.max_retry_delay)
    return Policy(limited(backoff), options.final_errors)


def _ignore(*_: object) -> None:
    """Stand in for the side of a target that a watch never uses."""
