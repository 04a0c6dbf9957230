"""What a client remembers of the newest states it has seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from config_client import _horizon as horizon_module
from config_client._horizon import Horizon
from config_client.protocol import Metadata, Position

EPOCHS = ("0192f3a4b5c6d7e8f9a0b1c2", "0192f3a4b5c700000000000a")


def told(revision: int, environment: str | None = "default", epoch: str = EPOCHS[0]) -> Metadata:
    return Metadata(position=Position(epoch, revision), environment=environment)


def test_what_was_not_named_is_known_once_an_answer_has_told_it() -> None:
    """A request without an environment means the token's own, and is the same config as when it is named."""
    horizon = Horizon()
    assert horizon.of("orders", None, None) is None
    horizon.note("orders", None, None, told(3, "staging"))
    for environment in (None, "staging"):
        for label in (None, "main"):
            assert horizon.of("orders", environment, label) == Position(EPOCHS[0], 3)
    assert horizon.of("orders", "prod", None) is None
    assert horizon.of("orders", None, "blue") is None
    assert horizon.of("billing", None, None) is None


def test_what_an_answer_does_not_tell_is_not_made_up() -> None:
    """A foreign service tells neither environment nor position."""
    horizon = Horizon()
    horizon.note("orders", None, None, Metadata())
    horizon.note("orders", None, None, told(3, None))
    horizon.note("orders", "prod", None, Metadata(environment="prod"))
    assert horizon.of("orders", None, None) is None
    assert horizon.of("orders", "prod", None) is None


@given(st.lists(st.tuples(st.sampled_from(EPOCHS), st.integers(0, 20)), min_size=1))
def test_the_newest_of_all_is_remembered_in_whatever_order_they_come(seen: list[tuple[str, int]]) -> None:
    """Late answers of other threads do not move it back."""
    horizon = Horizon()
    for epoch, revision in seen:
        horizon.note("orders", "prod", None, told(revision, "prod", epoch))
    assert horizon.of("orders", "prod", None) == max(Position(*each) for each in seen)


def test_memory_is_bounded() -> None:
    """A program that asks for ever other names does not grow: the first to be noted are forgotten first."""
    horizon = Horizon()
    for number in range(horizon_module.CAPACITY + 5):
        horizon.note(f"config-{number}", "prod", None, told(1, "prod"))
    assert horizon.of("config-4", "prod", None) is None
    assert horizon.of("config-5", "prod", None) == Position(EPOCHS[0], 1)
