"""What identifies a config: name, environment and label. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from config_client.protocol import DEFAULT_ENVIRONMENT, DEFAULT_LABEL, is_environment, is_label, is_name

from .errors import InvalidRequestError


@dataclass(frozen=True, slots=True, order=True)
class ConfigKey:
    """The identity of a config. ``ConfigKey.of`` is the checked way in."""

    name: str
    environment: str = DEFAULT_ENVIRONMENT
    label: str = DEFAULT_LABEL

    def __str__(self) -> str:
        return f"{self.name} ({self.environment}, {self.label})"

    @classmethod
    def of(cls, name: str, environment: str = DEFAULT_ENVIRONMENT, label: str = DEFAULT_LABEL) -> ConfigKey:
        """Return the key, or raise InvalidRequestError, which names the part at fault and the rule, not the input."""
        if not is_name(name):
            raise InvalidRequestError(
                "invalid config name: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..', "
                "and none of the reserved api, healthz, readyz, metrics, monitor, docs"
            )
        check_environment(environment)
        if not is_label(label):
            raise InvalidRequestError(
                "invalid label: 1 to 128 of A-Z a-z 0-9 . _ - / beginning with a letter or digit, without '..' or '//'"
            )
        return cls(name, environment, label)


def check_environment(environment: str) -> str:
    """Return ``environment``, or raise InvalidRequestError when it cannot name one."""
    if not is_environment(environment):
        raise InvalidRequestError(
            "invalid environment: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..'"
        )
    return environment
