"""The error tree: what errors.py draws is what it defines."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import config_client
from config_client import errors

CLASSES = {
    name: member
    for name, member in vars(errors).items()
    if inspect.isclass(member) and issubclass(member, BaseException) and member.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, str | None]:
    """Return each class that the docstring draws, with the class above it."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r"( {4}(?:[│ ] {3})*)(?:[├└]── )?([A-Z]\w+) {2,}\S", line)
        if match:
            depth = len(match[1]) // 4 - 1 + ("── " in line)
            del above[depth:]
            parents[match[2]] = above[-1] if above else None
            above.append(match[2])
    return parents


def test_the_drawn_tree_is_the_defined_tree() -> None:
    """Every class is drawn under its base, and nothing is drawn that does not exist."""
    defined = {
        name: base.__name__ if (base := member.__bases__[0]).__module__ == errors.__name__ else None
        for name, member in CLASSES.items()
    }
    assert drawn_tree() == defined
    assert [name for name, above in defined.items() if above is None] == ["ConfigClientError"]


def test_the_tree_holds_the_published_names() -> None:
    """The names that applications catch exist."""
    published = "ConfigClient Unauthorized Forbidden NotFound InvalidResponse Connection Decryption Unmarshal"
    added = "Refused Closed"
    assert set(CLASSES) == {f"{name}Error" for name in f"{published} {added}".split()}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_is_public(name: str) -> None:
    """Each class is exported by the package, documented, and caught by ConfigClientError."""
    assert not name.startswith("_")
    assert getattr(config_client, name) is CLASSES[name]
    assert name in config_client.__all__
    assert CLASSES[name].__doc__
    assert issubclass(CLASSES[name], errors.ConfigClientError)
    assert issubclass(CLASSES[name], Exception)


def test_our_connection_error_is_not_the_built_in_one() -> None:
    """Catching OSError does not swallow a failure of the service."""
    assert not issubclass(errors.ConnectionError, OSError)


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(name: str, protocol: int) -> None:
    """An error crosses a process boundary with its type and text."""
    original = CLASSES[name]("orders: what happened; what to do")
    restored = pickle.loads(pickle.dumps(original, protocol))
    assert type(restored) is CLASSES[name]
    assert restored.args == original.args
    assert str(restored) == "orders: what happened; what to do"


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_every_error_can_be_copied(name: str, duplicate: object) -> None:
    """A copy has the type and text of the original."""
    assert callable(duplicate)
    copied = duplicate(CLASSES[name]("text"))
    assert type(copied) is CLASSES[name]
    assert str(copied) == "text"
