"""schemathesis, made to go with the versions of its own dependencies that are installed beside it.

It, and hypothesis-jsonschema, which it makes bodies with, reach into what hypothesis and jsonschema-rs have inside. The
service needs a jsonschema-rs that is newer than any of its versions knows. Each piece that is missing is put in its
place here, and only while it is missing; without that, nothing at all could be made up.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hypothesis_jsonschema._from_schema as bodies
import jsonschema_rs
import pytest
import schemathesis
from hypothesis.internal.conjecture import utils
from schemathesis.specs.openapi import _hypothesis as parameters


class Many:
    """hypothesis' collections as they were: asked for ``more()``, instead of gone through within a context."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._elements: Any = utils.many(*arguments, **options)
        self._elements.__enter__()
        self._steps = iter(self._elements)

    def more(self) -> bool:
        """Tell whether there is one more element to be made."""
        for _ in self._steps:
            return True
        self._elements.__exit__(None, None, None)
        return False

    def reject(self, why: str | None = None) -> None:
        """Take the element back."""
        self._elements.reject(why)


def read(document: dict[str, Any], patch: pytest.MonkeyPatch) -> Any:
    """Return an OpenAPI document as schemathesis sees it; what is put in place ends with ``patch``."""
    if not hasattr(jsonschema_rs.CanonicalSchema, "is_satisfiable"):
        # None sends every schema the other way, by hypothesis-jsonschema.
        patch.setattr(parameters, "_canonical_strategy_or_none", lambda *_: None)
    if not hasattr(utils.many, "more"):
        patch.setattr(bodies, "cu", SimpleNamespace(many=Many))
    return schemathesis.openapi.from_dict(document)
