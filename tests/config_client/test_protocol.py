"""The wire protocol as data: times, names, paths, and the round trips of everything that travels as JSON or headers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client import protocol
from config_client.errors import InvalidResponseError
from config_client.protocol import (
    Metadata,
    Position,
    config_path,
    dump_change_event,
    dump_config_list,
    error_body,
    etag,
    format_timestamp,
    formatted_path,
    is_environment,
    is_host,
    is_label,
    is_name,
    is_token,
    metadata_headers,
    parse_change_event,
    parse_config_list,
    parse_metadata,
    parse_timestamp,
    watch_path,
)
from config_client.types import ConfigChangeEvent, ConfigInfo

EPOCH = "0190aabbccddeeff00112233"
CANARY = "s3cr3t-canary"
NOON = datetime(2024, 5, 17, 12, 0, 0, tzinfo=timezone.utc)

modest = settings(max_examples=80, deadline=None)
texts = st.text(max_size=20)
moments = st.datetimes(
    min_value=datetime(1, 1, 3),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(9999, 12, 28),  # noqa: DTZ001
    timezones=st.builds(timezone, st.integers(-1439, 1439).map(lambda minutes: timedelta(minutes=minutes))),
)
epochs = st.text("0123456789abcdef", min_size=24, max_size=24)
revisions = st.integers(0, 10**18 - 1)
positions = st.builds(Position, epochs, revisions)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and whatever it refers to as its cause or context."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or current in seen:
            continue
        seen.append(current)
        waiting += [current.__cause__, current.__context__]
        yield current


# ------------------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-17T12:00:00Z", NOON),
        ("2024-05-17t12:00:00z", NOON),
        ("2024-05-17 12:00:00Z", NOON),
        ("  2024-05-17T12:00:00Z\n", NOON),
        ("2024-05-17T12:00:00", NOON),
        ("2024-05-17T12:00Z", NOON),
        ("2024-05-17", NOON.replace(hour=0)),
        ("2024-05-17T12:00:00+00:00", NOON),
        ("2024-05-17T12:00:00-00:00", NOON),
        ("2024-05-17T14:00:00+02:00", NOON),
        ("2024-05-17T14:00:00+0200", NOON),
        ("2024-05-17T14:00:00+02", NOON),
        ("2024-05-17T06:30:00-05:30", NOON),
        ("2024-05-18T02:00:00+14:00", NOON),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=timezone.utc)),
        ("9999-12-31T23:59:59.999999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)),
    ],
)
def test_every_form_of_a_time_is_read_as_utc(text: str, expected: datetime) -> None:
    """Z, offsets with and without a colon, and naive times (which mean UTC) give the same aware datetime."""
    moment = parse_timestamp(text)
    assert moment == expected
    assert moment.utcoffset() == timedelta(0)


@pytest.mark.parametrize("zone", ["Z", "+00:00", "", "-07:00"])
@pytest.mark.parametrize("digits", range(1, 13))
def test_any_number_of_fraction_digits_is_read(digits: int, zone: str) -> None:
    """1 to 12 digits are read; those past the microsecond are cut, not rounded into the next second."""
    moment = parse_timestamp(f"2024-05-17T12:00:00.{'9' * digits}{zone}")
    assert moment.microsecond == int(("9" * digits)[:6].ljust(6, "0"))
    assert moment.second == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Z",
        "yesterday",
        "2024-05-17T",
        "2024-05-17T12",
        "2024-05-17T12:00:00.",
        "2024-05-17T12:00:00.Z",
        "2024-05-17T12:00:00+",
        "2024-05-17T12:00:00+2",
        "2024-05-17T12:00:00+25:00",
        "2024-05-17T25:00:00Z",
        "2024-02-30T12:00:00Z",
        "2024-13-01T12:00:00Z",
        "2024-05-17T12:00:00ZZ",
        "2024-05-17T12:00:00Z\x00",
        "٢٠٢٤-05-17T12:00:00Z",
        "2024-05-17T12:00:00.٣Z",
        "20240517T120000Z",
        "1715947200",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    """Malformed times, and times that leave the calendar on their way to UTC, raise ValueError and nothing else."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_timestamp(text)
    assert type(caught.value) is ValueError


@modest
@given(moments)
def test_a_formatted_time_is_read_back_exactly(moment: datetime) -> None:
    """What is written is RFC 3339 in UTC with +00:00 and 0 or 6 fraction digits, and means the same moment."""
    text = format_timestamp(moment)
    assert text.endswith("+00:00")
    assert len(text) in {len("2024-05-17T12:00:00+00:00"), len("2024-05-17T12:00:00.000000+00:00")}
    assert parse_timestamp(text) == moment


def test_a_naive_time_counts_as_utc_when_written_as_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone of the machine has no say in either direction."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    script = (
        "from datetime import datetime\n"
        "from config_client.protocol import format_timestamp, parse_timestamp\n"
        "print(format_timestamp(datetime(2024, 5, 17, 12)), parse_timestamp('2024-05-17T12:00:00').isoformat())\n"
    )
    written = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert written.split() == ["2024-05-17T12:00:00+00:00"] * 2


@modest
@given(st.text(alphabet="0123456789TZ:+-. ", max_size=32))
def test_no_text_makes_the_reading_of_times_fail_otherwise(text: str) -> None:
    """Whatever a service sends for a time, the answer is an aware datetime or a ValueError."""
    try:
        moment = parse_timestamp(text)
    except ValueError:
        return
    assert moment.utcoffset() == timedelta(0)


# -------------------------------------------------------------------------------------------------- positions


@modest
@given(positions)
def test_a_position_is_read_back_from_its_event_id(position: Position) -> None:
    """``epoch-revision`` is the id of an event, and nothing is lost in it."""
    assert Position.parse(str(position)) == position


@modest
@given(positions, positions)
def test_positions_order_by_epoch_and_then_by_revision(one: Position, other: Position) -> None:
    """A later epoch wins over any revision; within an epoch revisions compare as numbers."""

    def number(position: Position) -> int:
        return int(position.epoch, 16) * 10**18 + position.revision

    assert (one < other) == (number(one) < number(other))
    assert (one == other) == (number(one) == number(other))


def test_revisions_compare_as_numbers_and_not_as_text() -> None:
    """9 comes before 10, and a restore's epoch comes after every revision of the one before."""
    assert Position(EPOCH, 9) < Position(EPOCH, 10) < Position("0190aabbccddff0000000000", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        f"{EPOCH}",
        f"{EPOCH}-",
        f"{EPOCH}-x",
        f"{EPOCH}--1",
        f"{EPOCH}-1\n",
        f"{EPOCH}-٣",
        f"{EPOCH}-{'9' * 19}",
        f"{EPOCH[:-1]}-1",
        f"{EPOCH}0-1",
        f"{EPOCH.upper()}-1",
        f" {EPOCH}-1",
    ],
)
def test_any_other_event_id_is_no_position(text: str) -> None:
    """Ids of foreign services are not mistaken for places in a history."""
    assert Position.parse(text) is None


def test_an_entity_tag_names_a_place_and_never_the_content() -> None:
    """The tag is quoted and made of position, key id and encoding."""
    assert etag(Position(EPOCH, 7), "0011223344556677", "1") == f'"{EPOCH}-7-0011223344556677-1"'


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["orders", "a", "0", "A.b_c-9", "a" * 128, "orders.v2", "a.", "a-", "apis", "my.docs"])
def test_a_slug_names_a_config(name: str) -> None:
    """Letters, digits and ``. _ -`` after a letter or digit, up to 128 characters."""
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "../a",
        "-a",
        "_a",
        ".a",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "a\x00",
        "a%2Fb",
        "ä",
        "a" * 129,
        "a" * 10_000,
        "api",
        "API",
        "healthz",
        "readyz",
        "metrics",
        "monitor",
        "Docs",
    ],
)
def test_what_is_no_slug_or_is_reserved_names_no_config(name: str) -> None:
    """Path tricks, control characters, over-long and reserved names are refused."""
    assert not is_name(name)


def test_environments_are_slugs_without_reserved_words() -> None:
    """``api`` may be an environment; path tricks may not."""
    assert is_environment("api")
    assert is_environment("default")
    assert not any(map(is_environment, ["", "a..b", "a/b", "-a", "a\n", "a" * 129]))


def test_labels_are_slugs_with_single_inner_slashes() -> None:
    """``feature/x`` is a label; empty segments, a slash at either end and ``..`` are not."""
    assert all(map(is_label, ["main", "feature/x", "a/b/c", "v1.2", "a" * 128]))
    assert not any(map(is_label, ["", "/a", "a/", "a//b", "a/../b", "..", "a\n", "-a", "a b", "a" * 129]))


@pytest.mark.parametrize(
    "host",
    [
        "http://localhost",
        "http://localhost:8080",
        "https://config.example.com/",
        "https://config.example.com/prefix/deeper",
        "HTTPS://Config.Example.Com",
        "http://[::1]:8080",
        "http://127.0.0.1:65535",
        "http://h:",
    ],
)
def test_a_url_of_scheme_host_port_and_path_may_be_a_host(host: str) -> None:
    """http and https, names and addresses of both families, a port, a path prefix."""
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:8080",
        "ftp://h",
        "http://",
        "http:///x",
        "http://user:pw@h",
        "http://h?x=1",
        "http://h/#f",
        "http://h x",
        "http://h\n",
        "http://h\x00",
        "http://h\\x",
        "http://h:port",
        "http://h:0",
        "http://h:65536",
        "http://h:99999",
        "http://[::1",
    ],
)
def test_any_other_url_is_no_host(host: str) -> None:
    """User names, queries, fragments and ports that a resolver would fold into another one are refused."""
    assert not is_host(host)


def test_a_token_is_what_a_header_can_carry() -> None:
    """Printable ASCII without spaces; line breaks and non-ASCII would end up in an HTTP library's error."""
    assert is_token("cs_live-0123456789!~")
    assert not any(map(is_token, ["", " ", "a b", "a\n", "a\r\nX: y", "a\x00", "tökén", "a\x7f"]))


# ------------------------------------------------------------------------------------------------------ paths


def test_the_routes_are_those_of_the_wire_protocol() -> None:
    """Existing clients of other languages use these paths."""
    assert protocol.CONFIGS_PATH == "/api/v1/service/configs"
    assert config_path("orders") == "/api/v1/service/configs/orders"
    assert formatted_path("orders") == "/api/v1/service/configs/orders/formatted"
    assert watch_path("orders") == "/api/v1/service/configs/orders/watch"
    assert protocol.TOKEN_HEADER == "X-Service-Token"


@modest
@given(texts)
def test_no_name_reaches_another_route(name: str) -> None:
    """Whatever the name, it is one segment of the path."""
    assert config_path(name).count("/") == protocol.CONFIGS_PATH.count("/") + 1
    assert not set(config_path(name)) & set("?#\\ \n\x00")


# --------------------------------------------------------------------------------------------------- metadata


@modest
@given(
    st.builds(
        Metadata,
        version=st.none() | revisions,
        position=st.none() | positions,
        environment=st.none() | st.just("staging"),
        label=st.none() | st.just("feature/x"),
        changed_by=st.none() | revisions,
        timestamp=st.none() | moments,
        etag=st.none() | st.just(etag(Position(EPOCH, 7), "0011223344556677", "1")),
    )
)
def test_metadata_is_read_back_from_its_headers(metadata: Metadata) -> None:
    """Headers carry metadata exactly, through any HTTP library's case of their names."""
    headers = metadata_headers(metadata)
    assert parse_metadata(httpx.Headers(headers)) == metadata
    assert parse_metadata(httpx.Headers({name.lower(): value for name, value in headers.items()})) == metadata


def test_a_foreign_service_sends_no_metadata() -> None:
    """Without the headers everything is unknown, and nothing is sent for what is unknown."""
    assert parse_metadata({}) == Metadata()
    assert metadata_headers(Metadata()) == {}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Config-Version", "-1"),
        ("X-Config-Version", "1.0"),
        ("X-Config-Version", "x"),
        ("X-Config-Version", ""),
        ("X-Config-Version", "٣"),
        ("X-Config-Version", "9" * 5000),
        ("X-Config-Changed-By", "nobody"),
        ("X-Config-Timestamp", "yesterday"),
        ("X-Config-Timestamp", "0001-01-01T00:00:00+01:00"),
        ("ETag", ""),
        ("ETag", '"é"'),
        ("ETag", '"a\r\nb"'),
        ("ETag", '"' + "x" * 10_000 + '"'),
    ],
)
def test_a_malformed_header_counts_as_not_sent(header: str, value: str) -> None:
    """Neither an error nor a value that the next request could not carry."""
    assert parse_metadata({header: value}) == Metadata()


@pytest.mark.parametrize("headers", [{"X-Config-Epoch": EPOCH}, {"X-Config-Revision": "7"}])
def test_half_a_position_is_none(headers: dict[str, str]) -> None:
    """An epoch without revision, or the reverse, tells no place in a history."""
    assert parse_metadata(headers).position is None
    assert parse_metadata({"X-Config-Epoch": "e", "X-Config-Revision": "7"}).position is None


@pytest.mark.parametrize("tag", ['"abc"', 'W/"abc"', "abc"])
def test_entity_tags_of_foreign_services_are_kept_as_sent(tag: str) -> None:
    """Strong, weak and unquoted ones come back in If-None-Match unchanged."""
    assert parse_metadata({"ETag": tag}).etag == tag


# ------------------------------------------------------------------------------------------------ change events

events = st.builds(
    ConfigChangeEvent,
    config_name=texts,
    version=revisions,
    changed_by=revisions,
    timestamp=moments,
    environment=st.none() | texts,
    label=st.none() | texts,
    epoch=st.none() | epochs,
    revision=st.none() | revisions,
    deleted=st.booleans(),
)


@modest
@given(events)
def test_a_change_event_is_read_back_exactly_from_one_line(event: ConfigChangeEvent) -> None:
    """The data of an event is JSON on one line, whatever the texts in it."""
    data = dump_change_event(event)
    assert data.splitlines() == [data]
    assert parse_change_event(data) == event


def change(**fields: object) -> str:
    """Return the data of a change event as an old service sends it, with ``fields`` replaced or added."""
    return json.dumps(
        {
            "config_name": "orders",
            "version": 3,
            "changed_by": 7,
            "timestamp": "2024-05-17T12:00:00.123456789Z",
            **fields,
        }
    )


def test_the_four_fields_of_old_services_are_enough() -> None:
    """What they do not tell is None, or False."""
    event = parse_change_event(change())
    assert event == ConfigChangeEvent("orders", 3, 7, NOON.replace(microsecond=123456))
    assert (event.environment, event.label, event.epoch, event.revision, event.deleted) == (None,) * 4 + (False,)


def test_unknown_fields_of_an_event_are_ignored() -> None:
    """A newer service may tell more; known fields of an unexpected type count as not told."""
    event = parse_change_event(
        change(paths=["/db/host"], nested={"a": 1}, environment=5, label=[], epoch=1, revision="9", deleted="yes")
    )
    assert event == ConfigChangeEvent("orders", 3, 7, NOON.replace(microsecond=123456))


def test_an_event_of_our_service_has_the_fields_that_old_clients_read() -> None:
    """Names and types as in the wire protocol; what is not known is left out, not null."""
    fields = json.loads(dump_change_event(ConfigChangeEvent("orders", 3, 7, NOON)))
    assert fields == {"config_name": "orders", "version": 3, "changed_by": 7, "timestamp": "2024-05-17T12:00:00+00:00"}


@pytest.mark.parametrize(
    "data",
    [
        "",
        CANARY,
        "\ufeff{}",
        "[" * 100_000,
        "9" * 10_000,
        f'["{CANARY}"]',
        "null",
        "{}",
        change(config_name=None, leak=CANARY),
        change(config_name=5, leak=CANARY),
        change(version=CANARY),
        change(version="3"),
        change(version=3.0),
        change(version=True),
        change(version=None),
        change(changed_by=CANARY),
        change(changed_by=True),
        change(timestamp=CANARY),
        change(timestamp=1715947200),
        change(timestamp=None),
        change(timestamp="0001-01-01T00:00:00+01:00"),
    ],
)
def test_a_malformed_event_is_refused_without_repeating_it(data: str) -> None:
    """InvalidResponseError names the fault; neither it nor anything behind it holds the content."""
    with pytest.raises(InvalidResponseError, match="change event") as caught:
        parse_change_event(data)
    for error in chain(caught.value):
        assert CANARY not in repr(error) + str(vars(error))
    assert caught.value.__cause__ is caught.value.__context__ is None


# ------------------------------------------------------------------------------------------------------- lists


@modest
@given(
    st.lists(
        st.builds(ConfigInfo, name=texts, is_valid=st.booleans(), valid_from=moments, updated_at=moments), max_size=5
    )
)
def test_a_list_of_configs_is_read_back_exactly(infos: list[ConfigInfo]) -> None:
    """Every row of ``GET /configs`` survives the round trip, times as moments."""
    assert parse_config_list(dump_config_list(iter(infos))) == infos


def row(**fields: object) -> dict[str, object]:
    """Return a row of the list as an old service sends it, with ``fields`` replaced or added."""
    return {
        "name": "orders",
        "is_valid": True,
        "valid_from": "2024-05-17T12:00:00Z",
        "updated_at": "2024-05-17T14:00:00.5+02:00",
        **fields,
    }


def test_unknown_fields_of_a_row_are_ignored() -> None:
    """Times come as aware UTC datetimes whatever their form on the wire."""
    infos = parse_config_list(json.dumps([row(owner="team", tags=[1])]).encode())
    assert infos == [ConfigInfo("orders", True, NOON, NOON.replace(microsecond=500_000))]
    assert infos[0].updated_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\xff",
        b"\xff" + CANARY.encode(),
        CANARY.encode(),
        b"[" * 100_000,
        b"{}",
        b'"text"',
        b"[null]",
        json.dumps({"error": CANARY}).encode(),
        json.dumps([row(), CANARY]).encode(),
        json.dumps([row(name=None, leak=CANARY)]).encode(),
        json.dumps([row(is_valid=CANARY)]).encode(),
        json.dumps([row(is_valid=1)]).encode(),
        json.dumps([row(valid_from=CANARY)]).encode(),
        json.dumps([row(updated_at=None)]).encode(),
        f"<html>{CANARY}</html>".encode(),
    ],
)
def test_a_malformed_list_is_refused_without_repeating_it(body: bytes) -> None:
    """One bad row spoils the list: a list that leaves rows out would pass for complete."""
    with pytest.raises(InvalidResponseError, match="list of configs") as caught:
        parse_config_list(body)
    for error in chain(caught.value):
        assert CANARY not in repr(error) + str(vars(error))
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_error_body_has_code_and_message() -> None:
    """The form of every error answer."""
    assert json.loads(error_body("not_found", 'no "x"')) == {"error": {"code": "not_found", "message": 'no "x"'}}
