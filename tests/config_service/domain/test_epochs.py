"""A new epoch begins later than every one before it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from config_service.domain.epochs import later_epoch
from config_service.domain.errors import InvalidRequestError

NOON = datetime(2026, 2, 3, 12, 0, 0, 123456, tzinfo=timezone.utc)


def test_an_epoch_begins_now() -> None:
    """Twelve hex digits of milliseconds, then twelve random ones."""
    first, second = later_epoch(NOON), later_epoch(NOON)
    assert len(first) == 24
    assert first != second
    began = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=int(first[:12], 16))
    assert began == NOON.replace(microsecond=123000)


def test_an_epoch_is_later_than_all_that_are_known() -> None:
    """Also than one from the future, and than one that ends in the highest digits of the same millisecond."""
    ahead = later_epoch(NOON + timedelta(days=9))[:12] + "f" * 12
    assert later_epoch(NOON, later_epoch(NOON), ahead) > ahead
    same = later_epoch(NOON)[:12] + "f" * 12
    assert later_epoch(NOON, same) > same


@pytest.mark.parametrize("known", ["", "0123", "0123456789ab0123456789aX", "f" * 24, "0123456789AB0123456789AB"])
def test_what_is_no_epoch_is_refused(known: str) -> None:
    """So is the last one that there can be: nothing is later."""
    with pytest.raises(InvalidRequestError):
        later_epoch(NOON, known)
