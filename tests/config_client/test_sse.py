"""The event decoder against the rules of WHATWG HTML, section 9.2 "Server-sent events", case by case and by model."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from httpx_sse import ServerSentEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client._sse import DEFAULT_MAX_EVENT_BYTES, SSEDecoder, check_event_stream
from config_client.errors import ConfigClientError, InvalidResponseError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """What an event holds, comparable."""

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


def plain(event: ServerSentEvent) -> Event:
    return Event(event.event, event.data, event.id, event.retry)


def decode(*chunks: bytes, decoder: SSEDecoder | None = None) -> list[Event]:
    decoder = decoder or SSEDecoder()
    return [plain(event) for chunk in chunks for event in decoder.feed(chunk)]


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def data_of(*chunks: bytes) -> list[str]:
    return [event.data for event in decode(*chunks)]


# ---------------------------------------------------------------------------------------------- byte-order mark


def test_a_byte_order_mark_at_the_start_is_dropped() -> None:
    """One leading mark is not part of the first field's name."""
    assert data_of(BOM + b"data: a\n\n") == ["a"]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 2), (2, 1), (3,)])
def test_a_byte_order_mark_split_over_chunks_is_dropped(sizes: tuple[int, ...]) -> None:
    """Wherever the mark is cut, it is recognised."""
    chunks, start = [], 0
    for size in sizes:
        chunks.append(BOM[start : start + size])
        start += size
    assert data_of(*chunks, b"data: a\n\n") == ["a"]


def test_only_one_byte_order_mark_is_dropped() -> None:
    """A second mark belongs to the field's name, which makes the field unknown."""
    assert data_of(BOM + BOM + b"data: a\ndata: b\n\n") == ["b"]


def test_a_byte_order_mark_later_in_the_stream_is_content() -> None:
    """A mark that begins a later line or a value stays where it is."""
    stream = b"data: a\n\n" + BOM + b"data: lost\ndata: " + BOM + b"b\n\n"
    assert data_of(stream) == ["a", "\ufeffb"]


def test_a_byte_order_mark_behind_a_blank_line_is_content() -> None:
    """The start of the stream is over with the first line, even an empty one."""
    assert data_of(b"\n" + BOM + b"data: lost\n\ndata: b\n\n") == ["b"]


def test_a_byte_order_mark_alone_on_the_first_line_leaves_a_blank_line() -> None:
    """Nothing but the mark is dropped."""
    assert data_of(BOM + b"\ndata: a\n\n") == ["a"]


@pytest.mark.parametrize("part", [b"\xef", b"\xef\xbb", b"\xef\xbb\xbe"])
def test_a_part_of_a_byte_order_mark_loses_nothing(part: bytes) -> None:
    """What begins like a mark and is none stays in its line, and the lines behind it are whole."""
    stream = part + b"data: not a field\ndata: a\n\n"
    assert data_of(*cut(stream, 1)) == ["a"]
    assert data_of(b"data" + part + b"\ndata: b\n\n") == ["b"]


# ---------------------------------------------------------------------------------------------------- line ends


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_every_line_end_works_in_every_chunk_size(end: bytes, size: int) -> None:
    """LF, CRLF and CR end a line alike, in chunks of 1 and 2 bytes too."""
    stream = end.join([b"event: a", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
    assert decode(*cut(stream, size)) == [Event("a", "1\n2"), Event(data="3")]


def test_line_ends_may_be_mixed() -> None:
    """CR LF is one line end, LF CR are two."""
    assert data_of(b"data: a\r\ndata: b\rdata: c\n\rdata: d\n\r\n") == ["a\nb\nc", "d"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_an_event_is_dispatched_as_soon_as_its_blank_line_is_complete(end: bytes) -> None:
    """The first byte of the blank line's end is enough: a CR waits for no further byte."""
    decoder = SSEDecoder()
    assert decode(b"data: a" + end, decoder=decoder) == []
    assert decode(end[:1], decoder=decoder) == [Event(data="a")]


def test_a_line_feed_behind_a_carriage_return_in_the_next_chunk_is_swallowed() -> None:
    """Otherwise the line feed of a CRLF would be a blank line, and end the event too early."""
    decoder = SSEDecoder()
    assert decode(b"data: a\r", b"\ndata: b\r", b"\n", decoder=decoder) == []
    assert decode(b"\r", b"\n", decoder=decoder) == [Event(data="a\nb")]


def test_an_empty_chunk_between_carriage_return_and_line_feed_changes_nothing() -> None:
    """The line feed is still the second half of the line end."""
    assert data_of(b"data: a\r", b"", b"\ndata: b\r\n\r\n") == ["a\nb"]


def test_only_one_line_feed_is_swallowed() -> None:
    """The line feed behind a CRLF is a blank line of its own."""
    decoder = SSEDecoder()
    assert decode(b"data: a\r", b"\n\n", decoder=decoder) == [Event(data="a")]
    assert decode(b"data: b\r", b"\n", b"\n", decoder=decoder) == [Event(data="b")]


def test_other_separators_of_unicode_end_no_line() -> None:
    """U+2028, U+0085, form feed and their like are ordinary characters of a value."""
    value = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    assert data_of(f"data: {value}\n\n".encode()) == [value]


# ------------------------------------------------------------------------------------------------------- fields


def test_the_event_type_defaults_to_message() -> None:
    """No type and an empty one mean the same."""
    assert decode(b"data: a\n\nevent:\ndata: b\n\n") == [Event("message", "a"), Event("message", "b")]


def test_the_last_event_type_counts_and_ends_with_its_event() -> None:
    """A type is replaced by a later one, and is not inherited by the next event."""
    assert decode(b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\n") == [Event("b", "1"), Event("message", "2")]


def test_data_lines_are_joined_by_line_feeds() -> None:
    """Several data fields make one value, and empty ones keep their place."""
    assert data_of(b"data: a\ndata:\ndata\ndata: b\n\n") == ["a\n\n\nb"]


def test_a_bare_data_field_is_an_event_with_empty_data() -> None:
    """With or without a colon; two of them make one line feed."""
    assert data_of(b"data:\n\ndata\n\ndata: \n\ndata\ndata\n\n") == ["", "", "", "\n"]


def test_a_block_without_data_dispatches_nothing() -> None:
    """An event type, an id or a retry alone is no event, and its type does not leak into the next block."""
    assert decode(b"event: a\nid: 1\nretry: 5\n\n\n\ndata: b\n\n") == [Event("message", "b", id="1")]


def test_one_space_behind_the_colon_is_dropped() -> None:
    """None is needed, one is dropped, more belong to the value, and a tab is no space."""
    assert data_of(b"data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\ndata:a \n\n") == ["a", "a", " a", "\ta", "a "]


def test_only_the_first_colon_separates() -> None:
    """Later colons belong to the value."""
    assert data_of(b"data: a: b:c\n\ndata::\n\n") == ["a: b:c", ":"]


def test_unknown_fields_are_ignored() -> None:
    """Names are matched whole and with case; a space in front makes another name."""
    assert decode(b"Data: a\n data: b\ndata : c\ndat\nfoo: d\nid2: e\ndata: f\n\n") == [Event(data="f")]


def test_comments_are_ignored() -> None:
    """A comment is no field, whatever it says, and interrupts no event."""
    assert data_of(b": hello\n:\n:data: a\ndata: b\n: data: c\ndata: d\n\n") == ["b\nd"]


def test_heartbeats_after_an_event_make_no_events() -> None:
    """A comment and a blank line behind an event with id and retry dispatch nothing."""
    assert len(decode(b"id: 1\nretry: 5\ndata: a\n\n" + b": ping\n\n" * 3)) == 1


def test_a_partial_event_at_the_end_is_discarded() -> None:
    """Without its blank line nothing of an event comes out, nor is its id taken."""
    decoder = SSEDecoder()
    stream = b"id: 1\ndata: a\n\nid: 2\ndata: b\n"
    assert decode(stream, decoder=decoder) == [Event(data="a", id="1")]
    assert decoder.last_event_id == "1"


def test_an_unfinished_line_at_the_end_is_discarded() -> None:
    """A line without its end is not interpreted."""
    decoder = SSEDecoder()
    assert decode(b"data: a\n\nretry: 7", decoder=decoder) == [Event(data="a")]
    assert decoder.retry is None


# ---------------------------------------------------------------------------------------------------------- ids


def test_the_id_persists_over_events() -> None:
    """An event without an id carries the last one, until another comes."""
    stream = b"data: a\n\nid: 1\ndata: b\n\ndata: c\n\nid: 2\ndata: d\n\n"
    assert [event.id for event in decode(stream)] == ["", "1", "1", "2"]


@pytest.mark.parametrize("reset", [b"id\n", b"id:\n", b"id: \n"])
def test_an_empty_id_resets_it(reset: bytes) -> None:
    """An id field without a value clears the last id, from this event on."""
    decoder = SSEDecoder()
    assert [e.id for e in decode(b"id: 1\ndata: a\n\n", reset + b"data: b\n\n", decoder=decoder)] == ["1", ""]
    assert decoder.last_event_id == ""


def test_an_id_with_nul_is_ignored() -> None:
    """The field is ignored as a whole, and an id in front of it stands."""
    stream = b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\nid: 4\nid: \x00\ndata: c\n\n"
    assert [event.id for event in decode(stream)] == ["1", "1", "4"]


def test_a_block_without_data_sets_the_last_event_id() -> None:
    """The id is committed at the blank line, before the data is looked at."""
    decoder = SSEDecoder()
    assert decode(b"id: 7\n", decoder=decoder) == []
    assert decoder.last_event_id == ""
    assert decode(b"\n", decoder=decoder) == []
    assert decoder.last_event_id == "7"


def test_the_last_event_id_outlives_a_connection() -> None:
    """A decoder that starts with the id of the one before gives it to events, until the stream brings another."""
    first = SSEDecoder()
    decode(b"id: 1\n\n", decoder=first)
    second = SSEDecoder(last_event_id=first.last_event_id)
    assert second.last_event_id == "1"
    assert [e.id for e in decode(b"data: a\n\nid: 2\ndata: b\n\n", decoder=second)] == ["1", "2"]


# -------------------------------------------------------------------------------------------------------- retry


def test_retry_is_kept_by_the_decoder_and_given_by_its_own_event() -> None:
    """The stream's wish persists; only the event of its block carries it."""
    decoder = SSEDecoder()
    assert decoder.retry is None
    assert [e.retry for e in decode(b"retry: 1500\ndata: a\n\ndata: b\n\n", decoder=decoder)] == [1500, None]
    assert decoder.retry == 1500


def test_retry_counts_at_its_line() -> None:
    """The reconnection time is set by the field, not by the blank line; so an event is not needed."""
    decoder = SSEDecoder()
    decode(b"retry: 0010\n", decoder=decoder)
    assert decoder.retry == 10
    decode(b"retry: 0\n\n", decoder=decoder)
    assert decoder.retry == 0


@pytest.mark.parametrize(
    "value",
    [b"", b" ", b"-1", b"+1", b"1.5", b"1_000", b"0x10", b" 5", b"5 ", b"5s", "٣".encode(), "²".encode(), b"9" * 5000],
)
def test_retry_takes_ascii_digits_only(value: bytes) -> None:
    """Anything else is ignored, and so is a number that is no waiting time; the earlier wish stands."""
    decoder = SSEDecoder()
    assert decode(b"retry: 3\n\n", b"retry: " + value + b"\ndata: a\n\n", decoder=decoder) == [Event(data="a")]
    assert decoder.retry == 3


def test_leading_zeros_do_not_make_a_retry_too_long() -> None:
    """The length of the number counts, not that of the field."""
    decoder = SSEDecoder()
    decode(b"retry: " + b"0" * 5000 + b"42\n", decoder=decoder)
    assert decoder.retry == 42


# -------------------------------------------------------------------------------------------------------- UTF-8


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_character_split_over_chunks_is_whole(size: int) -> None:
    """Sequences of 2, 3 and 4 bytes survive every cut, in data, type and id."""
    text = "é€😀\u2028"
    stream = f"event: {text}\nid: {text}\ndata: {text}\n\n".encode()
    assert decode(*cut(stream, size)) == [Event(text, text, text)]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\xffb", "a\ufffdb"),
        (b"a\xe2\x82", "a\ufffd"),  # cut by the line end
        (b"\xe2\x82a", "\ufffda"),  # the longest good beginning counts as one
        (b"\xf0\x80\x80\x80", "\ufffd" * 4),  # an overlong form has no good beginning
        (b"\xed\xa0\x80", "\ufffd" * 3),  # nor has a surrogate
        (b"\x80", "\ufffd"),
    ],
)
def test_invalid_sequences_become_replacement_characters(raw: bytes, text: str) -> None:
    """As the standard's UTF-8 decoder does it, and what follows stays readable."""
    stream = b"data: " + raw + b"\ndata: next\nevent: " + raw + b"\nid: " + raw + b"\n\n"
    assert decode(stream) == [Event(text, text + "\nnext", text)]


# -------------------------------------------------------------------------------------------------- size and time


@pytest.mark.parametrize("size", [1024, 64 * 1024, 16 * 1024 * 1024])
def test_a_10_mb_event_takes_linear_time(size: int) -> None:
    """On one line in small chunks: searching or copying what is kept again per chunk would take many times as long."""
    value = b"x" * 10_000_000
    chunks = cut(b"data: " + value + b"\n\n", size)
    started = time.process_time()
    (event,) = decode(*chunks)
    assert time.process_time() - started < 3
    assert event.data.encode() == value


def test_a_long_line_in_single_bytes_takes_linear_time() -> None:
    """300,000 feeds of one byte: quadratic work would be 45 gigabytes of copying."""
    value = b"x" * 300_000
    decoder = SSEDecoder()
    events: list[ServerSentEvent] = []
    for byte in cut(b"data: " + value + b"\n\n", 1):
        events.extend(decoder.feed(byte))
    assert [event.data.encode() for event in events] == [value]


def test_a_10_mb_event_of_short_lines_in_one_chunk_takes_linear_time() -> None:
    """Many lines, LF and CR, in one chunk: none is searched twice."""
    value = b"x" * 44
    stream = b"data: %b\ndata: %b\r" % (value, value) * 100_000 + b"\n\n"
    started = time.process_time()
    (event,) = decode(stream)
    assert time.process_time() - started < 10
    assert event.data == "\n".join([value.decode()] * 200_000)


def test_the_default_limit_is_64_mib() -> None:
    """The documented default, and room for the largest documents that a service takes."""
    assert DEFAULT_MAX_EVENT_BYTES == 64 * 1024 * 1024


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 100,
        b":" + b"x" * 100,
        b"x" * 100,
        b"data: " + b"x" * 100 + b"\n\n",
        b":" + b"x" * 100 + b"\n",
        b"data: 0123456789\n" * 10,
        b"data\n" * 100,
        b"event: " + b"x" * 18 + b"\nid: " + b"x" * 18 + b"\ndata: " + b"x" * 12,
    ],
    ids=["line", "comment", "no colon", "event", "ended comment", "lines", "empty lines", "type and id"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_over_the_limit_is_a_typed_error(stream: bytes, size: int) -> None:
    """Whatever kind of line grows, the error says limit and remedy, and shows nothing of the stream."""
    with pytest.raises(InvalidResponseError, match=r"limit of 50 bytes; raise max_event_bytes") as caught:
        decode(*cut(stream, size), decoder=SSEDecoder(max_event_bytes=50))
    assert "xxx" not in str(caught.value)
    assert "0123" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_the_limit_is_exact(end: bytes, size: int) -> None:
    """A line as long as the limit passes, one byte more does not; line ends do not count."""
    fits = b"data: 1234" + end + end
    assert decode(*cut(fits * 3, size), decoder=SSEDecoder(max_event_bytes=10)) == [Event(data="1234")] * 3
    with pytest.raises(InvalidResponseError):
        decode(*cut(fits, size), decoder=SSEDecoder(max_event_bytes=9))


def test_finished_comments_and_ids_count_no_more() -> None:
    """A quiet stream may send heartbeats and ids for ever, with or without blank lines."""
    decoder = SSEDecoder(max_event_bytes=20)
    for number in range(1000):
        assert decode(b": heartbeat\n", b"foo: ignored\n", f"id: {number}\n".encode(), decoder=decoder) == []
    for _ in range(1000):
        assert decode(b": heartbeat\n\n", b"event: a\n\n", decoder=decoder) == []
    assert decode(b"data: a\n\n", decoder=decoder) == [Event(data="a", id="999")]


def test_events_in_front_of_one_that_is_too_large_are_delivered() -> None:
    """Even in the same chunk: the error comes when the consumer has had what was good."""
    decoder = SSEDecoder(max_event_bytes=10)
    events = decoder.feed(b"id: 1\ndata: a\n\ndata: b\n\ndata: too large\n\ndata: c\n\n")
    assert [next(events).data, next(events).data] == ["a", "b"]
    with pytest.raises(InvalidResponseError):
        next(events)
    assert decoder.last_event_id == "1"


def test_a_decoder_that_passed_its_limit_stays_failed() -> None:
    """Its place in the stream is lost, so it must not take the rest of an event for a new one."""
    decoder = SSEDecoder(max_event_bytes=10)
    early = decoder.feed(b"")
    late = decoder.feed(b"data: too large\n\ndata: a\n\n")
    with pytest.raises(InvalidResponseError):
        next(late)
    with pytest.raises(InvalidResponseError, match="limit of 10 bytes"):
        decoder.feed(b"\n\ndata: a\n\n")
    assert [*early, *late] == []


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_byte_is_refused(limit: int) -> None:
    """Such a decoder could decode nothing; it says so at once."""
    with pytest.raises(ConfigClientError, match=f"at least 1, got {limit}"):
        SSEDecoder(max_event_bytes=limit)


# ----------------------------------------------------------------------------------------------- lazy iteration


def test_the_last_event_id_does_not_run_ahead_of_the_consumer() -> None:
    """While an event is handled, the id to resume from is that event's, not that of a later one in the same chunk."""
    decoder = SSEDecoder()
    seen = [(e.id, decoder.last_event_id) for e in decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n")]
    assert seen == [("1", "1"), ("2", "2")]
    assert decoder.last_event_id == "3"


def test_an_iterator_left_early_loses_nothing() -> None:
    """What one iterator did not deliver, the next one does, in order and once."""
    decoder = SSEDecoder()
    first = decoder.feed(b"data: a\n\ndata: b\n\ndata: c")
    assert next(first).data == "a"
    second = decoder.feed(b"c\n\ndata: d\n\n")
    assert next(second).data == "b"
    assert [event.data for event in first] == ["cc", "d"]
    assert list(second) == []


# ----------------------------------------------------------------------------------------------- the HTTP answer


@pytest.mark.parametrize(
    "content_type",
    [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "Text/Event-Stream;charset=latin-1",
        " text/event-stream ;",
    ],
)
def test_an_event_stream_passes(content_type: str) -> None:
    """Case, surrounding space and parameters of the type do not matter."""
    check_event_stream(200, content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", ";", "text/html", "text/html; x=text/event-stream", "text/event-streams", "text/plain, text/event-stream"],
)
def test_another_content_type_is_refused(content_type: str) -> None:
    """A page of a proxy is not mistaken for a stream without events."""
    with pytest.raises(InvalidResponseError, match="expected content type text/event-stream, got "):
        check_event_stream(200, content_type)


def test_the_content_type_found_is_named_when_it_is_one() -> None:
    """It tells what answered; parameters and anything that is no media type are not repeated."""
    with pytest.raises(InvalidResponseError, match=r"got text/html; check that no proxy") as caught:
        check_event_stream(200, "TEXT/HTML; boundary=canary")
    assert "canary" not in str(caught.value)
    with pytest.raises(InvalidResponseError, match="got none or a malformed one") as caught:
        check_event_stream(200, "canary canary")
    assert "canary" not in str(caught.value)


def test_204_says_that_the_service_asked_to_stop() -> None:
    """The standard's sign to stop reconnecting, whatever the type."""
    with pytest.raises(InvalidResponseError, match="asked to stop watching"):
        check_event_stream(204, "text/event-stream")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_redirect_is_refused_with_the_remedy(status: int) -> None:
    """Whoever follows redirects does it before; one that arrives here names the option to change."""
    with pytest.raises(InvalidResponseError, match=rf"redirects elsewhere \(status {status}\); set host"):
        check_event_stream(status, "text/event-stream")


@pytest.mark.parametrize("status", [100, 201, 205, 206, 400, 401, 404, 500, 503])
def test_another_status_is_refused(status: int) -> None:
    """Only 200 opens a stream, even when the type is right."""
    with pytest.raises(InvalidResponseError, match=f"expected status 200, got {status}"):
        check_event_stream(status, "text/event-stream")


# --------------------------------------------------------------------------------------------------- properties


@dataclass
class Model:
    """The standard's text, step by step, over a whole stream at once; slow, and made to be read beside it."""

    events: list[Event]
    last_event_id: str = ""
    retry: int | None = None


def interpret(stream: bytes) -> Model:
    text = stream.decode("utf-8", "replace")
    if text.startswith("\ufeff"):
        text = text[1:]
    *lines, _unfinished = re.split("\r\n|\n|\r", text)

    model = Model([])
    data = event_type = id_buffer = ""
    own_retry: int | None = None
    for line in lines:
        if line == "":
            model.last_event_id = id_buffer
            if data != "":
                model.events.append(Event(event_type or "message", data[:-1], id_buffer, own_retry))
            data = event_type = ""
            own_retry = None
            continue
        if line.startswith(":"):
            continue
        if ":" in line:
            field, value = line.split(":", 1)
            if value.startswith(" "):
                value = value[1:]
        else:
            field, value = line, ""
        if field == "event":
            event_type = value
        elif field == "data":
            data += value + "\n"
        elif field == "id":
            if "\0" not in value:
                id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            model.retry = own_retry = int(value)
    return model


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
names = st.sampled_from([b"data", b"data", b"event", b"id", b"retry", b"", b"foo", b"Data", BOM + b"data", b" id"])
separators = st.sampled_from([b":", b": ", b":  ", b"", b" "])
values = st.one_of(
    st.sampled_from(
        [b"", b"0", b"0042", b"1500", b"-1", b"a\x00b", b"\xe2\x82", b"\xff", BOM, "é€😀\u2028\x85".encode()]
    ),
    st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=4),
)
lines = st.one_of(
    st.just(b""),
    st.just(b"data: x"),
    st.builds(lambda name, separator, value: name + separator + value, names, separators, values),
)
streams = st.builds(
    lambda start, body, rest: start + b"".join(line + end for line, end in body) + rest,
    st.sampled_from([b"", b"", BOM, BOM[:1], BOM[:2], BOM + BOM]),
    st.lists(st.tuples(lines, line_ends), max_size=12),
    values,
)


@st.composite
def chunked_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream and one way to cut it, empty chunks included."""
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def outcome(chunks: Iterable[bytes], limit: int = DEFAULT_MAX_EVENT_BYTES) -> tuple[list[Event], bool, str, int | None]:
    """Every event before an error, whether one came, and what the decoder holds in the end."""
    decoder = SSEDecoder(max_event_bytes=limit)
    events: list[Event] = []
    failed = False
    try:
        for chunk in chunks:
            for event in decoder.feed(chunk):
                events.append(plain(event))  # noqa: PERF401 - what came before an error must be kept
    except InvalidResponseError:
        failed = True
    return events, failed, decoder.last_event_id, decoder.retry


@settings(max_examples=300, deadline=None)
@given(chunked_streams())
def test_any_chunking_gives_the_same_events(chunks: list[bytes]) -> None:
    """Where the network cuts a stream has no influence on events, last id or retry."""
    stream = b"".join(chunks)
    whole = outcome([stream])
    assert outcome(chunks) == whole
    assert outcome(cut(stream, 1)) == whole


@settings(max_examples=200, deadline=None)
@given(chunked_streams(), st.integers(1, 24))
def test_any_chunking_meets_the_limit_at_the_same_event(chunks: list[bytes], limit: int) -> None:
    """Whether a stream passes a limit, and what is delivered before, does not depend on the cuts either."""
    stream = b"".join(chunks)
    whole = outcome([stream], limit)
    assert outcome(chunks, limit) == whole
    assert outcome(cut(stream, 1), limit) == whole


@settings(max_examples=300, deadline=None)
@given(chunked_streams())
def test_the_decoder_agrees_with_the_standard(chunks: list[bytes]) -> None:
    """Events, last id and retry are those of a naive transcription of the standard's text."""
    model = interpret(b"".join(chunks))
    assert outcome(chunks) == (model.events, False, model.last_event_id, model.retry)


@settings(max_examples=100, deadline=None)
@given(streams)
def test_nothing_is_held_back(stream: bytes) -> None:
    """After every single byte, exactly the events of the stream up to there have come out."""
    decoder = SSEDecoder()
    events: list[Event] = []
    for end in range(1, len(stream) + 1):
        events.extend(decode(stream[end - 1 : end], decoder=decoder))
        model = interpret(stream[:end])
        assert (events, decoder.last_event_id, decoder.retry) == (model.events, model.last_event_id, model.retry)
