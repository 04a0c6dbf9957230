"""The settings of the service, read from variables whose names start with ``CONFIG_SERVER_``.

Knows names, defaults and limits. Opens nothing and listens nowhere.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from config_client.crypto import parse_encryption_key
from config_client.errors import ConfigClientError

from .domain.errors import ServiceError
from .logs import LogFormat
from .tls import TlsFiles

PREFIX: Final = "CONFIG_SERVER_"
_MASTER_KEY_RULE: Final = "64 hex characters; make one with `config-service keygen` and keep it outside the store"

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_RULES: Final = {
    "host": "the address to listen on, such as 127.0.0.1",
    "port": "a port number from 0 to 65535; 0 takes a free one",
    "store_url": "where the store is, such as sqlite:///config.db or postgresql://user:password@host:5432/database",
    "master_key": _MASTER_KEY_RULE,
    "previous_master_keys": "master keys of 64 hex characters each, comma-separated, that were in use before",
    "max_document_bytes": "a number of bytes from 2 to 1073741824",
    "heartbeat_interval": "seconds between two heartbeats of a stream, above 0 and at most 60",
    "watch_heartbeat_interval": "seconds between two heartbeats of a state-first stream, above 0 and at most 60",
    "queue_frames": "how many changes may wait for one slow stream, from 1 to 1000000",
    "rate_limit": "requests a second that a token may send, from 0.01 to 1000000, or 0 for no limit",
    "rate_burst": "how many requests a token may send at once, from 1 to 10000000",
    "auth_failures": "how many failed authentications of an address are free, from 1 to 1000000, or 0 for no limit",
    "trusted_proxies": "addresses and networks, comma-separated, such as 10.0.0.5,192.168.0.0/16",
    "max_target_bytes": "bytes that the path and query of a request may take, from 1024 to 65536",
    "max_header_bytes": "bytes that the headers of a request may take, from 1024 to 1048576",
    "max_headers": "how many headers a request may have, from 10 to 10000",
    "head_timeout": "seconds in which the head of a request has to come, above 0 and at most 3600",
    "body_timeout": "seconds in which the body of a request has to come, above 0 and at most 86400",
    "max_connections": "how many connections a process takes, from 1 to 10000000, or 0 for what its open files allow",
    "tls_cert": "the path of a PEM file with the certificate of the service; CONFIG_SERVER_TLS_KEY goes with it",
    "tls_key": "the path of a PEM file with the key of CONFIG_SERVER_TLS_CERT, without a password",
    "tls_client_ca": "the path of a PEM file with who signs clients' certificates; it goes with CONFIG_SERVER_TLS_CERT",
    "allow_plain_http": "true or false",
    "metrics_token": "at least 16 characters that nobody can guess",
    "workers": "how many processes serve, from 1 to 64; more than one needs a store that several may use",
    "poll_interval": "seconds between two looks at the log of a store that others write to, above 0 and at most 60",
    "log_level": "one of debug, info, warning, error, critical",
    "log_format": "text or json",
}


Network = IPv4Network | IPv6Network


class SettingsError(ServiceError):
    """A setting is missing or invalid. Names the variable, the rule and the remedy, never the value."""

    code = "invalid_settings"


class Settings(BaseSettings):
    """Everything an operator can set. ``Settings.load`` is the way in: pydantic's own errors repeat their input."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on; loopback unless told otherwise."""
    port: int = Field(default=8080, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    store_url: str = Field(default="sqlite:///config.db", min_length=1, repr=False)
    """Where the store of record is. Not in the repr, because the URL of a database may hold a password."""
    master_key: SecretStr
    """64 hex characters: the key over everything at rest."""
    previous_master_keys: SecretStr = SecretStr("")
    """Master keys that were in use before, comma-separated: what is wrapped under one of them is opened, too."""
    max_document_bytes: int = Field(default=1_048_576, ge=2, le=1_073_741_824)
    """Bytes that a published document may take."""
    heartbeat_interval: float = Field(default=5.0, gt=0, le=60, allow_inf_nan=False)
    """Seconds between two heartbeats of a stream. Clients written for 5 give up after 10 s of silence."""
    watch_heartbeat_interval: float = Field(default=15.0, gt=0, le=60, allow_inf_nan=False)
    """Seconds between two heartbeats of a state-first stream, whose clients are told and take three for a cut."""
    queue_frames: int = Field(default=256, ge=1, le=1_000_000)
    """Changes that may wait for one subscriber; a slower reader is cut."""
    rate_limit: float = Field(default=1000.0, ge=0, le=1_000_000, allow_inf_nan=False)
    """Requests a second that a token may send to this process in the long run; 0: no limit. A stream is one request."""
    rate_burst: int = Field(default=10_000, ge=1, le=10_000_000)
    """Requests that a token may send at once, after a time in which it sent less."""
    auth_failures: int = Field(default=20, ge=0, le=1_000_000)
    """Failed authentications of an address before it is told to wait, longer each time; 0: no limit."""
    trusted_proxies: str = ""
    """Addresses and networks of proxies whose X-Forwarded-For is believed; none unless told otherwise."""
    max_target_bytes: int = Field(default=8192, ge=1024, le=65_536)
    """Bytes that the path and query of a request may take."""
    max_header_bytes: int = Field(default=32_768, ge=1024, le=1_048_576)
    """Bytes that the headers of a request may take."""
    max_headers: int = Field(default=100, ge=10, le=10_000)
    """Headers that a request may have."""
    head_timeout: float = Field(default=10.0, gt=0, le=3600, allow_inf_nan=False)
    """Seconds in which the head of a request has to come, and the first one of a connection to begin."""
    body_timeout: float = Field(default=60.0, gt=0, le=86_400, allow_inf_nan=False)
    """Seconds in which the body of a request has to come, and in which a reader has to take something of an answer."""
    max_connections: int = Field(default=0, ge=0, le=10_000_000)
    """Connections that a process takes, streams included; 0: as many as its limit of open files allows."""
    tls_cert: str = ""
    """The file of the certificate, PEM, its intermediates behind it; with it the service speaks TLS only."""
    tls_key: str = ""
    """The file of the certificate's key, PEM, without a password."""
    tls_client_ca: str = ""
    """The file of those who sign clients' certificates, PEM; with it every client needs one (mutual TLS)."""
    allow_plain_http: bool = False
    """Whether the service may be served without TLS on an address that is not loopback."""
    metrics_token: SecretStr = SecretStr("")
    """The secret that may read /metrics and nothing else; without it only holders of an admin token may."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the same address, each a replica of its own; more than 1 needs PostgreSQL or MongoDB."""
    poll_interval: float = Field(default=0.2, gt=0, le=60, allow_inf_nan=False)
    """Seconds between two looks at the log of a store that other processes write to, where nothing is heard earlier."""
    log_level: LogLevel = "info"
    """The least severe messages to log."""
    log_format: LogFormat = "text"
    """Lines of text for people, or one JSON object a line for programs."""

    @field_validator("master_key")
    @classmethod
    def _check_master_key(cls, value: SecretStr) -> SecretStr:
        try:
            parse_encryption_key(value.get_secret_value())
        except ConfigClientError:
            raise ValueError(_MASTER_KEY_RULE) from None
        return value

    @field_validator("previous_master_keys")
    @classmethod
    def _check_previous_master_keys(cls, value: SecretStr) -> SecretStr:
        try:
            _keys(value)
        except ConfigClientError:
            raise ValueError(_RULES["previous_master_keys"]) from None
        return value

    @field_validator("metrics_token")
    @classmethod
    def _check_metrics_token(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value) < 16:
            raise ValueError(_RULES["metrics_token"])
        return value

    @field_validator("rate_limit")
    @classmethod
    def _check_rate(cls, value: float) -> float:
        if 0 < value < 0.01:
            raise ValueError(_RULES["rate_limit"])
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        _networks(value)
        return value

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Return the settings of this process's environment; ``overrides`` (by field name) win over variables.

        Raises SettingsError.
        """
        given: dict[str, Any] = dict(overrides)
        try:
            return cls(**given)
        except ValidationError as error:
            details = error.errors(include_input=False, include_context=False, include_url=False)
            faults = [_describe(str(detail["loc"][0]), missing=detail["type"] == "missing") for detail in details]
        # Raised outside the handler: a ValidationError keeps the values that it refused.
        raise SettingsError("; ".join(faults))

    def trusted_networks(self) -> tuple[Network, ...]:
        """Return the networks of ``trusted_proxies``."""
        return _networks(self.trusted_proxies)

    def tls_files(self) -> TlsFiles | None:
        """Return the files of TLS, or None for plain HTTP. Raises SettingsError when one is missing."""
        if bool(self.tls_cert) != bool(self.tls_key):
            raise SettingsError(_describe("tls_key" if self.tls_cert else "tls_cert", missing=True))
        if not self.tls_cert:
            if self.tls_client_ca:
                raise SettingsError(_describe("tls_cert", missing=True))
            return None
        client_ca = Path(self.tls_client_ca) if self.tls_client_ca else None
        return TlsFiles(Path(self.tls_cert), Path(self.tls_key), client_ca)

    def master_key_bytes(self) -> bytes:
        """Return the 32 bytes of the master key."""
        return parse_encryption_key(self.master_key.get_secret_value())

    def all_master_keys(self) -> tuple[bytes, ...]:
        """Return the master key and those in use before it, of 32 bytes each."""
        return (self.master_key_bytes(), *_keys(self.previous_master_keys))


def _keys(text: SecretStr) -> tuple[bytes, ...]:
    spelled = (one.strip() for one in text.get_secret_value().split(","))
    return tuple(parse_encryption_key(one) for one in spelled if one)


def _describe(field: str, *, missing: bool) -> str:
    if field not in _RULES:
        # The name may be anything, a secret in the wrong place included.
        return f"there is no such setting; the settings are {', '.join(_RULES)}"
    return f"{variable(field)} is {'missing' if missing else 'invalid'}: it must be {_RULES[field]}"


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def variable(field: str) -> str:
    """Return the name of the environment variable of a field."""
    return PREFIX + field.upper()
