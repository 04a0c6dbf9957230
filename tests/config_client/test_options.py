"""What options accept, what they refuse and how, and that no repr tells a secret."""

from __future__ import annotations

import dataclasses
import inspect
import math
import traceback

import httpx
import pytest

from config_client.errors import ConfigClientError, ForbiddenError, NotFoundError, UnauthorizedError
from config_client.options import DEFAULT_FINAL_ERRORS, MAX_SECONDS, GetOptions, Options

HOST = "http://localhost:8080"
TOKEN = "t0k3n-canary"
KEY = "0123456789abcdefABCDEF".ljust(64, "5")
OTHER_KEY = "f" * 64


def refused(match: str, **changes: object) -> str:
    """Return the whole traceback text of the refusal of options with ``changes``."""
    given: dict[str, object] = {"host": HOST, "service_token": TOKEN, "encryption_key": KEY, **changes}
    with pytest.raises(ConfigClientError, match=match) as caught:
        Options(**given)  # type: ignore[arg-type]
    assert type(caught.value) is ConfigClientError
    assert caught.value.__cause__ is caught.value.__context__ is None
    return "".join(traceback.format_exception_only(type(caught.value), caught.value))


def test_three_values_are_enough_and_the_rest_has_the_documented_defaults() -> None:
    """Names, order and defaults are those that existing applications use."""
    options = Options(HOST, TOKEN, KEY)
    assert (options.http_client, options.request_timeout, options.retry_count, options.retry_delay) == (
        None,
        10.0,
        3,
        1.0,
    )
    assert (options.on_error, options.on_change) == (None, None)
    assert list(inspect.signature(Options).parameters)[:9] == [
        "host",
        "service_token",
        "encryption_key",
        "http_client",
        "request_timeout",
        "retry_count",
        "retry_delay",
        "on_error",
        "on_change",
    ]
    assert dataclasses.is_dataclass(options)


def test_what_came_later_has_the_documented_defaults_and_stands_last() -> None:
    """Values are kept on disk, and polled for every half minute where no stream gets through; nothing else is on."""
    parameters = inspect.signature(Options).parameters
    assert {name: parameters[name].default for name in list(parameters)[9:]} == {
        "max_retry_delay": 30.0,
        "heartbeat_interval": 5.0,
        "final_errors": DEFAULT_FINAL_ERRORS,
        "poll_interval": 30.0,
        "reload_keys": None,
        "require_bound": False,
        "cache": True,
        "cache_directory": None,
        "cache_max_age": 7 * 86_400.0,
        "metrics": None,
    }


def test_several_hosts_are_one_text_with_commas() -> None:
    """In the order in which they are tried; each has to be a URL."""
    assert Options(HOST, TOKEN, KEY).hosts == (HOST,)
    assert Options(f"{HOST} , https://other.test/base", TOKEN, KEY).hosts == (HOST, "https://other.test/base")
    for host in (f"{HOST},", f",{HOST}", f"{HOST},canary", f"{HOST},,{HOST}"):
        assert "canary" not in refused("host must be a URL", host=host)


def test_the_errors_that_end_a_watch_are_an_option() -> None:
    """By default those that waiting cannot mend."""
    assert Options(HOST, TOKEN, KEY).final_errors == DEFAULT_FINAL_ERRORS
    assert set(DEFAULT_FINAL_ERRORS) == {UnauthorizedError, ForbiddenError, NotFoundError}
    assert Options(HOST, TOKEN, KEY, final_errors=()).final_errors == ()


@pytest.mark.parametrize(
    "host", [HOST, f"{HOST}/", "https://config.example.com/a/b", "HTTP://H", "http://[::1]:8080", "http://10.0.0.1"]
)
def test_a_url_is_a_host(host: str) -> None:
    """http and https, a port, a path prefix, an IPv6 address."""
    assert Options(host, TOKEN, KEY).host == host


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "ftp://h",
        "http://",
        "http://u:p4ss-canary@h",
        "http://h?q",
        "http://h#f",
        "http://h:99999",
        " http://h",
    ],
)
def test_a_host_that_is_no_url_is_refused_without_repeating_it(host: str) -> None:
    """It may hold a password, so the message says what a host looks like instead."""
    assert "canary" not in refused("host must be a URL", host=host)


@pytest.mark.parametrize(("field", "match"), [("host", "host is empty"), ("service_token", "service_token is empty")])
def test_an_empty_host_or_token_is_refused_by_name(field: str, match: str) -> None:
    """The message names the option and what belongs there."""
    refused(match, **{field: ""})


@pytest.mark.parametrize("field", ["host", "service_token", "encryption_key"])
def test_what_is_not_text_is_refused_by_type(field: str) -> None:
    """Bytes are a common mistake; the message shows the type and not the value."""
    assert "canary" not in refused(f"{field} must be text .* not bytes", **{field: b"canary"})


@pytest.mark.parametrize("field", ["host", "service_token", "encryption_key"])
def test_what_is_missing_is_refused_as_any_other(field: str) -> None:
    """``os.environ.get`` gives None for an unset variable."""
    refused(f"{field} must be text .* not NoneType", **{field: None})


@pytest.mark.parametrize("token", ["canary\n", "canary\r\nX-Other: 1", "can ary", "cänary", "canary\x00", "\tcanary"])
def test_a_token_that_no_header_can_carry_is_refused_without_repeating_it(token: str) -> None:
    """It would otherwise appear in the error of an HTTP library."""
    assert "nary" not in refused("service_token holds a character", service_token=token)


@pytest.mark.parametrize("key", ["", "ab", "a" * 63, "a" * 65, f"{KEY},", f",{KEY}", f"{KEY},abcd", "a" * 128])
def test_a_key_of_another_length_is_refused(key: str) -> None:
    """Applications match on ``64 hex``; each of several keys is checked."""
    assert "abcd" not in refused("64 hex", encryption_key=key)


@pytest.mark.parametrize(
    "key", ["g" * 64, "canary".ljust(64, "0"), f"{KEY},{'z' * 64}", "é" * 64, "0x" + "a" * 62, "٣" * 64]
)
def test_a_key_of_other_characters_is_refused_without_repeating_it(key: str) -> None:
    """Applications match on ``hexadecimal``."""
    text = refused("hexadecimal", encryption_key=key)
    assert "canary" not in text
    assert KEY not in text


@pytest.mark.parametrize("key", [KEY, KEY.upper(), f" {KEY}\n", f"{KEY},{OTHER_KEY}", f"{KEY} , {OTHER_KEY}"])
def test_one_key_or_several_are_accepted(key: str) -> None:
    """Comma-separated while a rotation is under way, white space around them allowed."""
    assert Options(HOST, TOKEN, key).encryption_key == key


@pytest.mark.parametrize(
    "field", ["request_timeout", "max_retry_delay", "heartbeat_interval", "poll_interval", "cache_max_age"]
)
@pytest.mark.parametrize(
    "value", [0, 0.0, -1, math.inf, -math.inf, math.nan, MAX_SECONDS * 1.01, 1e300, "1", None, True]
)
def test_times_are_positive_finite_numbers_of_seconds(field: str, value: object) -> None:
    """Anything else would overflow a timer, or never or always expire."""
    refused(f"{field} must be a number of seconds above 0", **{field: value})


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, 1e300, "1", None, False])
def test_the_base_of_the_backoff_may_be_zero_but_not_less(value: object) -> None:
    """0 means to retry at once."""
    refused("retry_delay must be a number of seconds of 0 or more", retry_delay=value)
    assert Options(HOST, TOKEN, KEY, retry_delay=0).retry_delay == 0


@pytest.mark.parametrize("value", [-1, 1.5, "3", None, True])
def test_the_count_of_retries_is_a_whole_number(value: object) -> None:
    """0 means a single attempt."""
    refused("retry_count must be a whole number", retry_count=value)
    assert Options(HOST, TOKEN, KEY, retry_count=0).retry_count == 0


def test_whole_numbers_are_times_too() -> None:
    """Seconds need not be floats, and the smallest as well as a year are accepted."""
    options = Options(HOST, TOKEN, KEY, request_timeout=5, max_retry_delay=MAX_SECONDS, heartbeat_interval=1e-3)
    assert options.request_timeout == 5


def test_no_repr_tells_token_or_key() -> None:
    """Options end up in logs; the host and the numbers may."""
    with httpx.Client(headers={"X-Other": TOKEN}) as client:
        options = Options(HOST, TOKEN, f"{KEY},{OTHER_KEY}", client, on_error=print, on_change=print)
        shown = [repr(options), str(options), f"{options}", repr({"o": options}), repr([options])]
    for text in shown:
        assert TOKEN not in text
        assert KEY not in text
        assert OTHER_KEY not in text
        assert HOST in text


def test_a_copy_with_changes_is_validated_again() -> None:
    """``dataclasses.replace`` runs the same checks."""
    options = Options(HOST, TOKEN, KEY)
    assert dataclasses.replace(options, retry_count=0).service_token == TOKEN
    with pytest.raises(ConfigClientError, match="64 hex"):
        dataclasses.replace(options, encryption_key="short")


# -------------------------------------------------------------------------------------------------- which config


def test_what_is_empty_or_zero_is_left_out_of_the_query() -> None:
    """Then the service's own defaults apply."""
    assert GetOptions() == GetOptions(environment="", version=0, label="")
    assert GetOptions().query() == {}
    assert GetOptions(version=3).query() == {"version": "3"}
    assert GetOptions("staging", 2, "feature/x").query() == {
        "environment": "staging",
        "version": "2",
        "label": "feature/x",
    }
    assert list(inspect.signature(GetOptions).parameters) == ["environment", "version", "label"]


@pytest.mark.parametrize("environment", ["../x", "a b", "a/b", "a\n", "é", "a" * 129])
def test_an_environment_that_cannot_exist_is_refused(environment: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigClientError, match="environment must be"):
        GetOptions(environment=environment)


@pytest.mark.parametrize("label", ["a//b", "/a", "a/", "a/../b", "a b", "a\x00"])
def test_a_label_that_cannot_exist_is_refused(label: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigClientError, match="label must be"):
        GetOptions(label=label)


@pytest.mark.parametrize("version", [-1, 1.0, "1", True, None])
def test_a_version_that_cannot_exist_is_refused(version: object) -> None:
    """Versions count 1, 2, 3 …; 0 is the running one."""
    with pytest.raises(ConfigClientError, match="version must be a whole number"):
        GetOptions(version=version)  # type: ignore[arg-type]


def test_what_was_asked_for_cannot_be_changed_later() -> None:
    """A watch holds on to its options."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        GetOptions().version = 2  # type: ignore[misc]
