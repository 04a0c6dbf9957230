"""``ConfigClient``: the composition of transport, keyring, decoding and watching. Thin; no rule stands here."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from typing import TypeVar

from ._payload import open_payload
from .crypto import Keyring, parse_encryption_keys
from .errors import ConfigClientError, InvalidResponseError
from .options import GetOptions, Options
from .protocol import CONFIGS_PATH, config_path, formatted_path, is_name, parse_config_list
from .snapshot import Snapshot
from .transport import Transport
from .types import ConfigChangeEvent, ConfigInfo, Format

__all__ = ["ConfigChangeEvent", "ConfigClient", "ConfigInfo", "Format", "GetOptions", "Options", "Snapshot"]

T = TypeVar("T")

_ENVIRONMENT = ("CONFIG_SERVICE_HOST", "CONFIG_SERVICE_TOKEN", "CONFIG_SERVICE_KEY")


class ConfigClient:
    """A client of one service as one token. Safe to share between threads.

        with ConfigClient.from_env() as client:
            config = client.get("orders", OrdersConfig)

    Every method raises ClosedError after ``close``, except the watches, which return. All of them may raise
    UnauthorizedError, ForbiddenError, NotFoundError, InvalidResponseError and ConnectionError.
    """

    def __init__(self, opts: Options) -> None:
        self._options = opts
        self._keyring = Keyring(parse_encryption_keys(opts.encryption_key))
        self._transport = Transport(
            opts.host, opts.service_token, opts.request_timeout, opts.retry_count, opts.retry_delay, opts.http_client
        )

    @classmethod
    def from_env(
        cls,
        *,
        on_error: Callable[[Exception], object] | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> ConfigClient:
        """Return a client for ``CONFIG_SERVICE_HOST``, ``CONFIG_SERVICE_TOKEN`` and ``CONFIG_SERVICE_KEY``.

        The callbacks are those of ``Options``. Raises ConfigClientError, which names what is missing.
        """
        missing = [name for name in _ENVIRONMENT if not os.environ.get(name)]
        if missing:
            raise ConfigClientError(f"set {' and '.join(missing)} in the environment")
        host, token, key = (os.environ[name] for name in _ENVIRONMENT)
        return cls(Options(host, token, key, on_error=on_error, on_change=on_change))

    def __repr__(self) -> str:
        return f"ConfigClient({self._options.host!r})"

    def __enter__(self) -> ConfigClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every watch and request, within 100 ms, and close what this client owns. Idempotent."""
        self._transport.close()

    def get(self, config_name: str, target_type: type[T], opts: GetOptions | None = None) -> T:
        """Return the config decoded into ``target_type``: ``dict``, a dataclass or a pydantic model.

        Raises DecryptionError, and UnmarshalError when the document does not fit or the type is not supported.
        """
        from .decode import decoder  # noqa: PLC0415 - loaded by those who decode

        read = decoder(target_type)
        return read(self.get_bytes(config_name, opts))

    def get_raw(self, config_name: str, opts: GetOptions | None = None) -> dict[str, object]:
        """Return the config as the dict that its JSON object spells. Raises DecryptionError and UnmarshalError."""
        return self.get(config_name, dict, opts)

    def get_bytes(self, config_name: str, opts: GetOptions | None = None) -> bytes:
        """Return the JSON bytes exactly as they were published, not parsed. Raises DecryptionError."""
        _check_name(config_name)
        response = self._transport.fetch(config_path(config_name), opts.query() if opts else None)
        return open_payload(self._keyring, config_name, response.content)

    def get_formatted(self, config_name: str, fmt: Format, opts: GetOptions | None = None) -> bytes:
        """Return the config in plaintext, rendered by the service; the token needs the right ``export``.

        Raises InvalidResponseError when the document has no faithful form in ``fmt``.
        """
        _check_name(config_name)
        query = {"format": _format(fmt), **(opts.query() if opts else {})}
        response = self._transport.fetch(formatted_path(config_name), query)
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            # Nothing else would notice a login page: this is plaintext, and may go straight into a file.
            raise InvalidResponseError(f"config {config_name!r}: a web page came instead; is host the service?")
        return response.content

    def list(self) -> builtins.list[ConfigInfo]:
        """Return a row for every config that the token may read."""
        return parse_config_list(self._transport.fetch(CONFIGS_PATH).content)

    def watch(
        self,
        config_name: str,
        callback: Callable[[ConfigChangeEvent], object],
        opts: GetOptions | None = None,
    ) -> None:
        """Block, and call ``callback`` for every change of the config; return after ``close``.

        Without an environment in ``opts`` the changes of every environment count that the token may read. Changes
        that happen while the connection is down are told of after it is up again. A callback that raises is logged by
        type, and the watch goes on. Raises the error that is final (``Options.final_errors``).
        """
        query = _watchable(config_name, opts)
        from ._watches import tell_changes  # noqa: PLC0415 - loaded by those who watch

        tell_changes(self._options, self._transport, self._keyring, config_name, query, callback)

    def watch_and_decode(
        self, config_name: str, target_type: type[T], snapshot: Snapshot[T], opts: GetOptions | None = None
    ) -> None:
        """Block, and keep ``snapshot`` current: filled at once, then swapped at every change; return after ``close``.

        A document that cannot be opened or decoded leaves the value in place and goes to ``on_error``; so does a
        deletion. Raises the error that is final (``Options.final_errors``), and UnmarshalError at once when the type
        is not supported.
        """
        query = _watchable(config_name, opts)
        from ._watches import keep_current  # noqa: PLC0415 - loaded by those who watch

        keep_current(self._options, self._transport, self._keyring, config_name, query, target_type, snapshot)


def _check_name(config_name: str) -> None:
    if not is_name(config_name):
        raise ConfigClientError(
            "config name: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..', not reserved"
        )


def _format(fmt: Format) -> str:
    if fmt in tuple(Format):
        return Format(fmt).value
    raise ConfigClientError(f"fmt must be one of {', '.join(Format)}")


def _watchable(config_name: str, opts: GetOptions | None) -> dict[str, str]:
    _check_name(config_name)
    if opts is not None and opts.version:
        raise ConfigClientError("a published version never changes: watch without a version, or get() this one once")
    return opts.query() if opts else {}
