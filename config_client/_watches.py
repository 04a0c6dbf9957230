"""The blocking watch of events, put together: rules, driver and callbacks."""

from __future__ import annotations

from collections.abc import Callable

from ._desk import EventDesk
from ._driver import ThreadDriver
from ._opening import Opener
from ._session import policy_of
from .options import Options
from .transport import Transport
from .types import ConfigChangeEvent
from .watching import EventWatch


def tell_changes(
    options: Options,
    transport: Transport,
    opener: Opener,
    config_name: str,
    query: dict[str, str],
    callback: Callable[[ConfigChangeEvent], object],
) -> None:
    """Block, and call ``callback`` for every change of the config, until the transport is closed."""
    watch = EventWatch(policy_of(options), config_name, everywhere="environment" not in query)
    desk = EventDesk(options, config_name, query, callback)
    ThreadDriver(transport, opener, desk, options.heartbeat_interval).run(watch.run())
