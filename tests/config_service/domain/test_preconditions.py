"""What a change may be conditional on, against every state that a config can be in."""

from __future__ import annotations

import pytest

from config_service.domain.errors import PreconditionFailedError
from config_service.domain.keys import ConfigKey
from config_service.domain.preconditions import UNCONDITIONAL, Precondition

KEY = ConfigKey("orders", "prod", "main")
NEVER, RUNNING, DELETED = (0, False), (3, True), (3, False)


def holds(condition: Precondition, state: tuple[int, bool]) -> bool:
    newest, running = state
    try:
        condition.check(KEY, newest, running=running)
    except PreconditionFailedError:
        return False
    return True


@pytest.mark.parametrize(
    ("condition", "never", "running", "deleted"),
    [
        (UNCONDITIONAL, True, True, True),
        (Precondition(versions=frozenset({3})), False, True, True),
        (Precondition(versions=frozenset({1, 3})), False, True, True),
        (Precondition(versions=frozenset({2})), False, False, False),
        (Precondition(running=True), False, True, False),
        (Precondition(absent=True), True, False, True),
        (Precondition(running=True, absent=True), False, False, False),
        (Precondition(versions=frozenset({3}), absent=True), False, False, True),
    ],
)
def test_a_condition_holds_in_exactly_these_states(
    condition: Precondition, never: bool, running: bool, deleted: bool
) -> None:
    """The newest version counts, a tombstone included; absent means that nothing is served."""
    assert [holds(condition, state) for state in (NEVER, RUNNING, DELETED)] == [never, running, deleted]


def test_a_mismatch_names_both_versions() -> None:
    """An author sees on which version the change was made, and which one is there."""
    with pytest.raises(PreconditionFailedError) as caught:
        Precondition(versions=frozenset({2})).check(KEY, 5, running=True)
    assert "version 2" in str(caught.value)
    assert "version 5" in str(caught.value)


def test_a_mismatch_tells_of_a_deletion_and_of_nothing_at_all() -> None:
    """Deleted and never published are different news."""
    with pytest.raises(PreconditionFailedError, match="version 3 is deleted"):
        Precondition(running=True).check(KEY, 3, running=False)
    with pytest.raises(PreconditionFailedError, match="nothing was published yet"):
        Precondition(versions=frozenset({1})).check(KEY, 0, running=False)
