"""From an answer of the service to an opened document. Knows the keyring and headers; sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ._fetched import Fetched
from ._payload import Expected, encoding_of, open_sealed
from .crypto import Keyring
from .errors import DecryptionError, InvalidResponseError
from .protocol import (
    BOUND_MEDIA_TYPE,
    DEFAULT_LABEL,
    KEY_IDS_HEADER,
    SEALED_MEDIA_TYPE,
    Metadata,
    Position,
    lowered,
    metadata_of,
    read_metadata,
)

if TYPE_CHECKING:
    from .protocol import ConfigState

ACCEPT: Final = f"{BOUND_MEDIA_TYPE}, {SEALED_MEDIA_TYPE};q=0.5"
"""What a request for a config asks for: the bound format where the service has it."""


class Opener:
    """Opens what a service seals for this client."""

    __slots__ = ("_default_environment", "_keyring", "_require_bound")

    def __init__(self, keyring: Keyring, *, require_bound: bool) -> None:
        self._keyring = keyring
        self._require_bound = require_bound
        # A token has one; the first payload that opens proves it, and no header is asked from then on.
        self._default_environment: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that tell the service what can be opened."""
        return {"Accept": ACCEPT, **self.stream_headers()}

    def stream_headers(self) -> dict[str, str]:
        """Return the headers that tell the service under which keys its events can be opened."""
        return {KEY_IDS_HEADER: ",".join(self._keyring.ids)}

    def answer(
        self,
        name: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        at_least: Position | None = None,
    ) -> Fetched:
        """Return what a GET of a config was answered with; a payload that does not open is a ``fault``.

        A bound payload from before ``at_least`` is a replay, and does not open.
        """
        told = lowered(headers)
        metadata = read_metadata(told)
        version = query.get("version")
        expected = Expected(
            name=name,
            environment=query.get("environment") or self._default_environment,
            label=query.get("label") or DEFAULT_LABEL,
            version=int(version) if version else metadata.version,
            position=metadata.position,
            at_least=at_least,
        )
        is_default = "environment" not in query
        return self._open(expected, metadata, body, encoding_of(told.get("content-type")), is_default)

    def state(self, state: ConfigState, environment: str | None, label: str | None) -> Fetched:
        """Return what a stream has stated of a config; a payload that does not open is a ``fault``.

        ``environment`` and ``label`` are what was asked for, None where the defaults were.
        """
        expected = Expected(
            name=state.name,
            environment=environment or self._default_environment,
            label=label or DEFAULT_LABEL,
            version=state.version,
            position=state.position,
        )
        return self._open(expected, metadata_of(state), state.payload, state.encoding, environment is None)

    def _open(self, expected: Expected, metadata: Metadata, payload: bytes, encoding: int, is_default: bool) -> Fetched:
        try:
            opened = open_sealed(self._keyring, expected, payload, encoding=encoding, require_bound=self._require_bound)
        except (DecryptionError, InvalidResponseError) as error:
            return Fetched(metadata, fault=error.with_traceback(None))
        bound = opened.binding
        if bound is not None and is_default:
            self._default_environment = bound.environment
        if bound is not None and metadata.position is None:
            # What the payload itself proves is better than nothing said beside it.
            metadata = metadata._replace(
                version=bound.version,
                position=Position.parse(f"{bound.epoch}-{bound.revision}"),
                environment=bound.environment,
                label=bound.label,
            )
        return Fetched(metadata, opened.document)
