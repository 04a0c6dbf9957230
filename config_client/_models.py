"""Validation by pydantic, with everything scrubbed from its errors but places and kinds.

The only module of the SDK that imports pydantic, and only once somebody has a pydantic class: a class that derives
from BaseModel proves that pydantic is loaded, so asking about a class costs no import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, get_origin

from ._misfit import MisfitError, Problem


def is_model(hint: object) -> bool:
    """Tell whether ``hint`` is a pydantic model or a pydantic dataclass."""
    plain = get_origin(hint) or hint
    if not isinstance(plain, type):
        return False
    if "pydantic.main" in sys.modules:
        from pydantic import BaseModel  # noqa: PLC0415 - see above

        if issubclass(plain, BaseModel):
            return True
    if "pydantic.dataclasses" in sys.modules:
        from pydantic.dataclasses import is_pydantic_dataclass  # noqa: PLC0415 - see above

        return is_pydantic_dataclass(plain)
    return False


def validator(model: Any) -> Callable[[bytes], object]:
    """Return the function that turns JSON into an instance of ``model``, or raises MisfitError.

    JSON and not parsed objects, because a strict model takes a time or a set only from JSON.
    """
    from pydantic import BaseModel, TypeAdapter, ValidationError  # noqa: PLC0415 - see above

    is_base_model = isinstance(model, type) and issubclass(model, BaseModel)
    validate: Callable[[bytes], object] = (
        model.model_validate_json if is_base_model else TypeAdapter(model).validate_json
    )

    def check(raw: bytes) -> object:
        try:
            return validate(raw)
        except ValidationError as error:
            # Of each fault only where and what kind: its message, input and context repeat the document.
            problems = [Problem(fault["loc"], fault["type"]) for fault in error.errors(include_url=False)]
        except Exception as error:  # a validator may raise anything, and its text may hold anything
            problems = [Problem((), f"{type(error).__name__} while validating")]
        raise MisfitError(problems)

    return check
