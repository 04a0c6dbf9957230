"""The settings of the service: defaults, variables, and errors that name the remedy and never the value."""

from __future__ import annotations

import traceback

import pytest

from config_service.settings import Settings, SettingsError, variable

KEY = "c0ffee" + "1b" * 29
CANARY = "canary-5f1c"


def fault(**overrides: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        Settings.load(**overrides)
    return caught.value


def test_only_the_master_key_has_no_default() -> None:
    """A service needs nothing but its master key; it listens on loopback unless told otherwise."""
    settings = Settings.load(master_key=KEY)
    assert (settings.host, settings.port, settings.store_url) == ("127.0.0.1", 8080, "sqlite:///config.db")
    assert (settings.max_document_bytes, settings.heartbeat_interval, settings.queue_frames) == (1_048_576, 5.0, 256)
    assert settings.watch_heartbeat_interval == 15.0
    assert (settings.rate_limit, settings.rate_burst, settings.auth_failures) == (1000.0, 10_000, 20)
    assert settings.trusted_networks() == ()
    assert (settings.log_level, settings.log_format) == ("info", "text")
    assert settings.master_key_bytes() == bytes.fromhex(KEY)


def test_variables_set_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field is read from CONFIG_SERVER_ and its name in capitals."""
    values = {
        "host": "0.0.0.0",
        "port": "0",
        "store_url": "sqlite:////srv/x.db",
        "master_key": KEY,
        "previous_master_keys": f"{KEY}, {'5a' * 32}",
        "max_document_bytes": "4096",
        "heartbeat_interval": "0.25",
        "watch_heartbeat_interval": "0.5",
        "queue_frames": "8",
        "rate_limit": "2.5",
        "rate_burst": "5",
        "auth_failures": "0",
        "trusted_proxies": "10.0.0.5, 192.168.0.0/16",
        "max_target_bytes": "1024",
        "max_header_bytes": "1024",
        "max_headers": "10",
        "head_timeout": "0.5",
        "body_timeout": "1.5",
        "max_connections": "7",
        "tls_cert": "/srv/tls.crt",
        "tls_key": "/srv/tls.key",
        "tls_client_ca": "/srv/ca.crt",
        "allow_plain_http": "True",
        "metrics_token": "0123456789abcdef",
        "workers": "2",
        "poll_interval": "0.1",
        "log_level": "debug",
        "log_format": "json",
    }
    assert values.keys() == Settings.model_fields.keys()
    for name, value in values.items():
        monkeypatch.setenv(variable(name), value)
    settings = Settings.load()
    told = [name for name in values if "master_key" not in name and name != "metrics_token"]
    assert {name: str(getattr(settings, name)) for name in told} == {
        name: value for name, value in values.items() if name in told
    }
    assert settings.all_master_keys() == (bytes.fromhex(KEY), bytes.fromhex(KEY), b"Z" * 32)


def test_an_argument_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command line gives replaces what the environment says."""
    monkeypatch.setenv("CONFIG_SERVER_PORT", "9000")
    assert Settings.load(master_key=KEY, port=9001).port == 9001


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass variables on that nobody set, as empty ones."""
    monkeypatch.setenv("CONFIG_SERVER_PORT", "")
    monkeypatch.setenv("CONFIG_SERVER_MASTER_KEY", "")
    assert "CONFIG_SERVER_MASTER_KEY is missing" in str(fault())
    assert Settings.load(master_key=KEY).port == 8080


def test_a_missing_master_key_is_named_with_its_remedy() -> None:
    """Without a master key the operator learns which variable to set and how to make one."""
    text = str(fault())
    assert "CONFIG_SERVER_MASTER_KEY is missing" in text
    assert "config-service keygen" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("master_key", CANARY),
        ("master_key", KEY[:-1] + "g"),
        ("previous_master_keys", f"{KEY},{CANARY}"),
        ("port", CANARY),
        ("port", 65536),
        ("host", ""),
        ("store_url", ""),
        ("max_document_bytes", 0),
        ("max_document_bytes", CANARY),
        ("heartbeat_interval", "nan"),
        ("heartbeat_interval", 0),
        ("watch_heartbeat_interval", 0),
        ("watch_heartbeat_interval", 61),
        ("watch_heartbeat_interval", "inf"),
        ("queue_frames", 0),
        ("rate_limit", 0.001),
        ("rate_limit", "nan"),
        ("rate_burst", 0),
        ("auth_failures", -1),
        ("trusted_proxies", CANARY),
        ("trusted_proxies", "10.0.0.1/8"),
        ("max_target_bytes", 1),
        ("max_header_bytes", 1),
        ("max_headers", 1),
        ("head_timeout", 0),
        ("body_timeout", "inf"),
        ("max_connections", -1),
        ("allow_plain_http", CANARY),
        ("log_level", CANARY),
    ],
)
def test_an_invalid_value_is_named_by_its_variable_and_never_repeated(field: str, value: object) -> None:
    """The message names variable and rule; neither it nor its chain holds the value."""
    error = fault(**({"master_key": KEY} | {field: value}))
    assert f"{variable(field)} is invalid" in str(error)
    told = "".join(traceback.format_exception(error))
    assert CANARY not in told
    assert KEY[:-1] not in told
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_certificate_goes_with_its_key() -> None:
    """One without the other is refused, and so is a CA of clients without either."""
    whole = Settings.load(master_key=KEY, tls_cert="a.crt", tls_key="a.key").tls_files()
    assert whole is not None
    assert (whole.certificate.name, whole.key.name, whole.client_ca) == ("a.crt", "a.key", None)
    assert Settings.load(master_key=KEY).tls_files() is None
    for given, missing in (({"tls_cert": "x"}, "KEY"), ({"tls_key": "x"}, "CERT"), ({"tls_client_ca": "x"}, "CERT")):
        with pytest.raises(SettingsError, match=f"CONFIG_SERVER_TLS_{missing} is missing"):
            Settings.load(master_key=KEY, **given).tls_files()


def test_several_faults_are_told_at_once() -> None:
    """An operator repairs everything in one go."""
    text = str(fault(port=-1))
    assert "CONFIG_SERVER_PORT is invalid" in text
    assert "CONFIG_SERVER_MASTER_KEY is missing" in text


def test_an_unknown_argument_is_refused_without_being_repeated() -> None:
    """A secret in the wrong place does not end up in the message."""
    text = str(fault(**{"master_key": KEY, CANARY: "x"}))
    assert "no such setting" in text
    assert CANARY not in text


def test_the_repr_shows_neither_the_key_nor_the_url() -> None:
    """Settings may be logged: the URL of a database can hold a password."""
    shown = repr(Settings.load(master_key=KEY, store_url=f"sqlite:///{CANARY}.db"))
    assert KEY not in shown
    assert CANARY not in shown
