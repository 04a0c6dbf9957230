"""What a test hands over to be published: the key of a config and the bytes of a document, held to the service's rules.

Knows names and documents. Holds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import ConfigClientError
from ..formats import DocumentError, parse_json_object
from ..protocol import is_environment, is_label, is_name
from ._faults import MisuseError
from ._memory import ConfigKey


def config_key(name: str, environment: str, label: str) -> ConfigKey:
    """Return the key of a config. Raises MisuseError for what no service would take."""
    if not is_name(name):
        raise MisuseError(f"config name {name!r}: 1 to 128 of A-Z a-z 0-9 . _ - without '..', not reserved")
    if not is_environment(environment):
        raise MisuseError(f"environment {environment!r}: 1 to 128 of A-Z a-z 0-9 . _ - without '..'")
    if not is_label(label):
        raise MisuseError(f"label {label!r}: 1 to 128 of A-Z a-z 0-9 . _ - / without '..' or '//'")
    return ConfigKey(name, environment, label)


def content_of(document: Mapping[str, object] | bytes | str, *, check: bool) -> bytes:
    """Return the bytes of ``document``. Raises MisuseError; ``check``: also for what a real service would refuse."""
    content = document if isinstance(document, bytes) else _dump(document)
    if check:
        _check(content)
    return content


def _dump(document: Mapping[str, object] | str) -> bytes:
    if isinstance(document, str):
        return document.encode()
    if not isinstance(document, Mapping):
        raise MisuseError(f"document: a mapping, bytes or text, not {type(document).__name__}")
    try:
        return json.dumps(dict(document)).encode()
    except (TypeError, ValueError, RecursionError):
        pass
    raise MisuseError("document: a mapping of what JSON can hold; give bytes for anything else")


def _check(content: bytes) -> None:
    try:
        parse_json_object(content, strict=True)
    except DocumentError as error:
        fault: ConfigClientError = error
    else:
        return
    raise MisuseError(
        f"the service would refuse this document: {fault}; publish(…, check=False) serves it all the same"
    )
