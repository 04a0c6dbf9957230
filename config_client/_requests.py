"""What both clients check and build before anything is sent, and how they read what comes back. No I/O."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ._horizon import Horizon
from ._opening import Opener
from .crypto import Keyring, parse_encryption_keys
from .errors import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    InvalidResponseError,
)
from .options import GetOptions, Options
from .protocol import MIN_REVISION_HEADER, Position, is_name

if TYPE_CHECKING:
    from .types import ConfigChangeEvent, Format

_ENVIRONMENT: Final = ("CONFIG_SERVICE_HOST", "CONFIG_SERVICE_TOKEN", "CONFIG_SERVICE_KEY")
_OFF: Final = frozenset({"0", "off", "no", "false"})
_ON: Final = frozenset({"", "1", "on", "yes", "true"})


def options_from_env(
    on_error: Callable[[Exception], object] | None, on_change: Callable[[str], object] | None
) -> Options:
    """Return the options that the environment spells. Raises ConfigClientError, which names what is missing."""
    missing = [name for name in _ENVIRONMENT if not os.environ.get(name)]
    if missing:
        raise ConfigClientError(f"set {' and '.join(missing)} in the environment")
    host, token, key = (os.environ[name] for name in _ENVIRONMENT)
    switch = os.environ.get("CONFIG_SERVICE_CACHE", "").strip().lower()
    if switch not in _OFF | _ON:
        raise ConfigClientError("CONFIG_SERVICE_CACHE must be on or off")
    return Options(
        host,
        token,
        key,
        on_error=on_error,
        on_change=on_change,
        cache=switch not in _OFF,
        cache_directory=os.environ.get("CONFIG_SERVICE_CACHE_DIR") or None,
    )


def keyring_of(options: Options) -> Keyring:
    """Return the keys of a client, and how it comes by newer ones."""
    reload_keys = options.reload_keys
    reload: Callable[[], Sequence[bytes]] | None = None
    if reload_keys is not None:
        asked = reload_keys

        def reload() -> Sequence[bytes]:
            return parse_encryption_keys(asked())

    return Keyring(parse_encryption_keys(options.encryption_key), reload=reload)


def check_name(config_name: str) -> None:
    """Return when a config may have this name, else raise ConfigClientError."""
    if not is_name(config_name):
        raise ConfigClientError(
            "config name: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..', not reserved"
        )


def watchable(config_name: str, opts: GetOptions | None) -> dict[str, str]:
    """Return the query of a watch. Raises ConfigClientError for a name that cannot be, or a pinned version."""
    check_name(config_name)
    if opts is not None and opts.version:
        raise ConfigClientError("a published version never changes: watch without a version, or get() this one once")
    return opts.query() if opts else {}


def check_timeout(timeout: float) -> None:
    """Return when somebody can wait for so many seconds, else raise ConfigClientError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise ConfigClientError("timeout must be a number of seconds, 0 or more (0: do not wait)")


def check_callback(callback: Callable[[ConfigChangeEvent], object]) -> None:
    """Raise ConfigClientError for a callback that nobody would await."""
    if inspect.iscoroutinefunction(callback):
        raise ConfigClientError("callback is asynchronous and would never run: give a plain function")


def format_query(fmt: Format, opts: GetOptions | None) -> dict[str, str]:
    """Return the query of an export. Raises ConfigClientError for a format that is none."""
    from .types import Format  # noqa: PLC0415 - loaded by those who export

    if fmt not in tuple(Format):
        raise ConfigClientError(f"fmt must be one of {', '.join(Format)}")
    return {"format": Format(fmt).value, **(opts.query() if opts else {})}


def check_export(config_name: str, content_type: str) -> None:
    """Raise InvalidResponseError for a web page: nothing else would notice it, and it may go straight into a file."""
    if content_type.lower().startswith("text/html"):
        raise InvalidResponseError(f"config {config_name!r}: a web page came instead; is host the service?")


class Reading:
    """One GET of a config: what is sent, and what may come back."""

    __slots__ = ("_at_least", "_horizon", "_name", "_opener", "headers", "query")

    def __init__(self, opener: Opener, horizon: Horizon, config_name: str, opts: GetOptions | None) -> None:
        check_name(config_name)
        self._opener = opener
        self._horizon = horizon
        self._name = config_name
        self.query: Final = opts.query() if opts else {}
        self.headers: Final = opener.headers()
        self._at_least: Position | None = None
        if "version" not in self.query:
            # Whoever has seen an event must not read what was before it, from whichever replica.
            self._at_least = horizon.of(config_name, self.query.get("environment"), self.query.get("label"))
        if self._at_least is not None:
            self.headers[MIN_REVISION_HEADER] = str(self._at_least)

    def document(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return the document of an answer. Raises DecryptionError, InvalidResponseError or ConnectionError."""
        fetched = self._opener.answer(self._name, self.query, headers, body, self._at_least)
        if fetched.fault is not None:
            raise fetched.fault
        position = fetched.metadata.position
        if self._at_least is not None and position is not None and position < self._at_least:
            raise ConnectionError(
                f"config {self._name!r}: the service answered with an older state than this client has seen "
                "(a replica behind, or a backup?)"
            )
        if "version" not in self.query:
            environment, label = self.query.get("environment"), self.query.get("label")
            self._horizon.note(self._name, environment, label, fetched.metadata)
        return fetched.document
