"""For the unit tests of applications: a config service in memory, on a real loopback socket.

    def test_the_application_takes_a_new_host(config_server):
        config_server.publish("orders", {"db": {"host": "db1"}})
        with ConfigClient(config_server.options()) as client:
            ...

Needs neither the service's package nor its extra. The fixtures ``config_server`` and ``config_environment`` are there
wherever pytest and this package are installed (``config_client.testing.plugin``); without pytest use
``with InMemoryService() as service``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._accounts import Credentials
    from ._faults import MisuseError
    from ._journal import RecordedRequest
    from ._memory import Backup
    from .service import InMemoryService

__all__ = ["Backup", "Credentials", "InMemoryService", "MisuseError", "RecordedRequest"]

_HOMES = {
    "Backup": "_memory",
    "Credentials": "_accounts",
    "InMemoryService": "service",
    "MisuseError": "_faults",
    "RecordedRequest": "_journal",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: pytest imports this package with the plugin, in every run."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
