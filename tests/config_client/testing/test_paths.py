"""Paths, queries and headers of requests: what could be read in two ways is refused."""

from __future__ import annotations

import pytest

from config_client.protocol import Position
from config_client.testing._faults import Refusal
from config_client.testing._paths import (
    accepts,
    check_path,
    key_ids_of,
    matches_etag,
    minimum_of,
    parse_query,
    version_of,
)


@pytest.mark.parametrize("path", [b"/", b"/a", b"/a/", b"/a/b.c-d_e~f", b"/a%20b", b"/%c3%a9"])
def test_unambiguous_paths_pass(path: bytes) -> None:
    """Whatever every program on the way decodes alike, even if there is no such route."""
    check_path(path, b"")


@pytest.mark.parametrize(
    "path",
    [
        *[b"a", b"*", b"/a//b", b"//", b"/a/../b", b"/./a", b"/a/%2e%2E", b"/a%2fb", b"/a%5cb", b"/a%00b", b"/a%7f"],
        *[b"/a%25", b"/a%2", b"/a%zz", b"/a\\b", b"/a b", b"/a\tb", b"/\xc3\xa9", b"/" + b"a" * 9000],
    ],
)
def test_ambiguous_paths_are_refused(path: bytes) -> None:
    """A proxy, a cache or a framework could make another path of them."""
    with pytest.raises(Refusal) as raised:
        check_path(path, b"")
    assert raised.value.status == (414 if len(path) > 8192 else 400)


def test_queries_keep_what_is_known_and_has_a_value() -> None:
    """Unknown and empty parameters are ignored."""
    assert parse_query(b"environment=prod&label=a%2Fb&version=&colour=red&colour=blue") == {
        "environment": "prod",
        "label": "a/b",
    }
    assert parse_query(b"") == {}


@pytest.mark.parametrize("query", [b"version=1&version=1", b"label=%ff", b"label=\xff", b"a=1&" * 101])
def test_queries_that_are_none_are_refused(query: bytes) -> None:
    """A known parameter twice, what is not UTF-8, and too many."""
    with pytest.raises(Refusal):
        parse_query(query)


def test_versions_are_numbers_from_1() -> None:
    """None asks for the running one."""
    assert version_of({}) is None
    assert version_of({"version": "12"}) == 12
    for text in ("0", "-1", "01", "1.0", "x", "1" * 19):
        with pytest.raises(Refusal):
            version_of({"version": text})


def test_entity_tags_are_compared_weakly() -> None:
    """Alone, in a list, weak, or as a star; never without quotes."""
    for header in ('"a"', 'W/"a"', '"b", "a"', "*"):
        assert matches_etag(header, '"a"')
    for header in (None, "", "a", '"b"', '"a*"'):
        assert not matches_etag(header, '"a"')


def test_accept_is_matched_with_its_parameters() -> None:
    """A media range counts whole, whatever its case; a weight of 0 or a malformed one excludes it."""
    wanted = "application/x; format=2"
    assert accepts('text/html, Application/X;FORMAT="2";q=0.1', wanted)
    for other in ("", "*/*", "application/x", f"{wanted}; v=1", f"{wanted}; q=0", f"{wanted}; q=.5", f"{wanted}; q=x"):
        assert not accepts(other, wanted)


def test_key_ids_and_positions_are_read_strictly() -> None:
    """Absent means that nothing is asked for; malformed is refused."""
    assert key_ids_of(None) is key_ids_of("") is minimum_of(None) is None
    assert key_ids_of("0123456789abcdef, fedcba9876543210") == {"0123456789abcdef", "fedcba9876543210"}
    assert minimum_of("0" * 24 + "-7") == Position("0" * 24, 7)
    for text in ("x", "0123456789ABCDEF", "0123456789abcdef,", ",".join(["0" * 16] * 33)):
        with pytest.raises(Refusal):
            key_ids_of(text)
    for text in ("", "7", "0-7", "0" * 24):
        with pytest.raises(Refusal):
            minimum_of(text)
