"""Verifying a store: an untouched one is sound, and whatever is done to its file behind the service's back is found."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from vaults import NOON

from config_client.protocol import format_timestamp
from config_service import origin
from config_service.app import Application, create_app, utc_now
from config_service.audit_operations import Wanted
from config_service.domain.errors import InvalidRequestError, StoreCorruptError, StoreError, StoreFullError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, LogEntry
from config_service.domain.scopes import SERVICE_SCOPES
from config_service.domain.sealing import SealedKind
from config_service.findings import Anchor, Report
from config_service.security.at_rest import _ciphers, _encrypt, _of
from config_service.security.keyring import lengthy
from config_service.settings import Settings
from config_service.verifying import Verification

MASTER_KEY = "5a" * 32
ORDERS, PAYMENTS = ConfigKey("orders"), ConfigKey("payments", "prod", "next/1")
CANARY = "canary-7c1e"
_FIELDS = "kind, changed_by, timestamp, name, environment, label, version, token_id, audit, link"
_COPY = f"INSERT INTO log (revision, {_FIELDS}) SELECT 5, {_FIELDS} FROM log WHERE revision = 6"
_BEHIND = (
    "INSERT INTO log (revision, kind, changed_by, timestamp) VALUES (15, 'published', 1, '2026-01-01T00:00:00+00:00')"
)
_TOKEN = (
    "INSERT INTO tokens (id, name, secret_hash, keys, default_environment, scopes, created_by, created_at, expires_at, "
    "revoked_at) SELECT 9, name, zeroblob(32), keys, default_environment, scopes, created_by, created_at, "
    "expires_at, revoked_at FROM tokens WHERE id = 1"
)
_SAVEPOINT = (
    "INSERT INTO savepoints (name, environment, label, savepoint, version, revision, changed_by, timestamp) SELECT "
    "'{name}', 'default', 'main', 'inserted', {version}, revision, changed_by, timestamp FROM log WHERE revision = 3"
)
_END = "UPDATE history SET revision = 12"
_VERSION = (
    "INSERT INTO versions (name, environment, label, version, revision, kind, changed_by, timestamp, document) SELECT "
    "name, environment, label, {version}, {revision}, kind, changed_by, timestamp, document FROM versions "
    "WHERE revision = 5"
)


def settings(path: Path, **options: Any) -> Settings:
    return Settings.load(**({"master_key": MASTER_KEY, "store_url": f"sqlite:///{path}"} | options))


def run(path: Path, work: Callable[[Application], Awaitable[Any]], **options: Any) -> Any:
    """Return what ``work`` returns that is done with the service on the store of ``path``, started and stopped."""

    async def scenario() -> Any:
        app = create_app(settings(path, **options))
        await app.start()
        try:
            return await work(app)
        finally:
            await app.stop()

    return asyncio.run(scenario())


async def fill(app: Application) -> None:
    """Make every kind of change; 14 revisions."""
    operations = app.operations
    admin = (await operations.tokens.bootstrap("admin")).token  # 1
    reader = (await operations.tokens.bootstrap("reader", SERVICE_SCOPES)).token  # 2
    for number in range(3):
        await operations.publish(admin, ORDERS, b'{"value": "%s-%d"}' % (CANARY.encode(), number))  # 3 4 5
    await operations.schemas.set(admin, ORDERS, b'{"required": ["value"]}')  # 6
    await operations.publish(admin, PAYMENTS, b"{}")  # 7
    await operations.delete(admin, PAYMENTS)  # 8
    await operations.rollback(admin, ORDERS, 1)  # 9
    await operations.tokens.rotate_key(admin, reader.id, 3600)  # 10
    third = (await operations.tokens.create(admin, "third")).token  # 11
    await operations.tokens.revoke(admin, third.id)  # 12
    await operations.schemas.set(admin, PAYMENTS, b"{}")  # 13
    await operations.schemas.remove(admin, PAYMENTS)  # 14
    await operations.drafts.replace(admin, ORDERS, b'{"value": "draft"}')


async def verify(app: Application, anchor: Anchor | None = None) -> Report:
    verification = Verification(app._store, app._vault, app._keys.hold, anchor)
    done = [progress async for progress in verification.run()]
    assert (done[0].done, done[-1].done) == (0, done[-1].total)
    return verification.report


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "store.db"
    run(path, fill)
    return path


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "store.db"))


def alter(path: Path, *statements: str) -> None:
    """Do to the file what somebody does who can write to it and has no key."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
    finally:
        connection.close()


async def head(app: Application) -> tuple[str, int, bytes]:
    told = await app._store.head()
    assert told.link is not None
    return told.epoch, told.revision, told.link


def verify_offline(path: Path, anchor: Anchor | None = None) -> Report:
    """Verify a store on which no service would start any more."""

    async def scenario() -> Report:
        app = create_app(settings(path))
        await app._store.open()
        try:
            await app._keys.unlock()
            return await verify(app, anchor)
        finally:
            await app._store.close()

    return asyncio.run(scenario())


def found(report: Report) -> dict[int | None, str]:
    return {finding.revision: finding.what for finding in report.findings}


def test_an_untouched_store_is_sound(path: Path) -> None:
    """Every kind of change was made on it; its head is that of its last entry."""
    report = run(path, verify)
    assert report.findings == ()
    assert report.sound
    assert report.head.revision == 14
    anchor = Anchor(report.head.revision, report.head.link)
    assert run(path, lambda app: verify(app, Anchor.parse(str(anchor)))).sound


@pytest.mark.parametrize(
    ("statement", "revision", "what"),
    [
        # An entry altered, whichever of its fields.
        ("UPDATE log SET changed_by = 2 WHERE revision = 5", 5, "does not follow"),
        ("UPDATE log SET timestamp = '2020-01-01T00:00:00+00:00' WHERE revision = 12", 12, "does not follow"),
        ("UPDATE log SET kind = 'rolled_back' WHERE revision = 4", 4, "does not follow"),
        ("UPDATE log SET version = 1 WHERE revision = 4", 4, "does not follow"),
        ("UPDATE log SET name = 'payments' WHERE revision = 4", 4, "does not follow"),
        ("UPDATE log SET token_id = 1 WHERE revision = 12", 12, "does not follow"),
        ("UPDATE log SET kind = 'no such kind' WHERE revision = 5", 5, "cannot be read"),
        ("UPDATE log SET version = 'x' WHERE revision = 4", 4, "cannot be read"),
        ("UPDATE log SET version = 'x' WHERE revision = 6", 6, "cannot be read"),
        # What an entry of its kind does not hold, and so no link covers.
        ("UPDATE log SET about = 'more' WHERE revision = 4", 4, "cannot be read"),
        ("UPDATE log SET environment = 'prod' WHERE revision = 12", 12, "cannot be read"),
        ("UPDATE log SET timestamp = timestamp || ' ' WHERE revision = 12", 12, "cannot be read"),
        ("UPDATE log SET audit = x'00' WHERE revision = 5", 5, "does not follow"),
        ("UPDATE log SET audit = (SELECT audit FROM log WHERE revision = 4) WHERE revision = 5", 5, "does not open"),
        ("UPDATE log SET link = x'00' WHERE revision = 5", 5, "does not follow"),
        ("UPDATE log SET link = NULL, audit = NULL WHERE revision = 5", 5, "has no link"),
        # Removed.
        ("DELETE FROM log WHERE revision = 5", 5, "is missing: it was removed"),
        ("DELETE FROM log WHERE revision BETWEEN 3 AND 7", 3, "from here to revision 7 are missing"),
        ("DELETE FROM log WHERE revision = 1", 1, "is missing"),
        ("DELETE FROM log WHERE revision = 14", 14, "is missing"),
        # What an entry made: altered, removed.
        ("UPDATE versions SET changed_by = 2 WHERE revision = 4", 4, "not as the log tells it"),
        ("UPDATE versions SET timestamp = '2020-01-01T00:00:00+00:00' WHERE revision = 4", 4, "not as the log tells"),
        ("UPDATE versions SET source_version = 2 WHERE revision = 9", 9, "not what was committed"),
        ("UPDATE versions SET source_version = NULL WHERE revision = 9", 9, "not what was committed"),
        ("UPDATE versions SET document = zeroblob(length(document)) WHERE revision = 4", 4, "does not open"),
        ("UPDATE versions SET document = NULL WHERE revision = 4", 4, "not what was committed"),
        (
            "UPDATE versions SET document = (SELECT document FROM versions WHERE revision = 3) WHERE revision = 4",
            4,
            "does not open",
        ),
        ("DELETE FROM versions WHERE revision = 4", 4, "is not in the store: it was removed"),
        ("DELETE FROM versions WHERE revision = 9", 9, "is not in the store: it was removed"),
        ("UPDATE versions SET activated = 5, activated_at = timestamp WHERE revision = 4", 4, "by no entry"),
        ("UPDATE versions SET cancelled = 5 WHERE revision = 4", 4, "by no entry"),
        # Of a change that is still to come, as if it had been made while the verification went on.
        ("UPDATE versions SET activated = 99, activated_at = timestamp WHERE revision = 4", 4, "by no entry"),
        ("UPDATE versions SET cancelled = 99 WHERE revision = 4", 4, "by no entry"),
        ("UPDATE versions SET cancelled = 'x' WHERE revision = 4", 4, "cannot be read"),
        ("UPDATE versions SET activated_at = timestamp WHERE revision = 4", 4, "cannot be read"),
        ("UPDATE versions SET document = NULL, archived = 99 WHERE revision = 3", 14, "by no entry of the log"),
        ("UPDATE versions SET valid_from = timestamp WHERE revision = 4", 4, "not what was committed"),
        ("UPDATE schemas SET schema = x'00' WHERE revision = 6", 6, "does not open"),
        ("UPDATE schemas SET schema = NULL WHERE revision = 6", 6, "not what was committed"),
        ("DELETE FROM schemas WHERE revision = 6", 6, "is not in the store: it was removed"),
        ("UPDATE tokens SET scopes = '[\"*@*:admin\"]' WHERE id = 2", 2, "not what was created"),
        ("UPDATE tokens SET secret_hash = zeroblob(32) WHERE id = 1", 1, "not what was created"),
        ("UPDATE tokens SET expires_at = '2099-01-01T00:00:00+00:00' WHERE id = 2", 2, "not what was created"),
        ("UPDATE tokens SET revoked_at = NULL WHERE id = 3", 12, "revoked at"),
        ("UPDATE tokens SET revoked_at = '2026-01-01T00:00:00+00:00' WHERE id = 2", 2, "not revoked by the log"),
        ("UPDATE tokens SET keys = json_remove(keys, '$[1]') WHERE id = 2", 10, "not those that it was given"),
        ("UPDATE tokens SET keys = json_set(keys, '$[1].retires_at', NULL) WHERE id = 2", 10, "not those that it was"),
        ("UPDATE tokens SET keys = json_set(keys, '$[0].sealed', '00') WHERE id = 2", 10, "does not open"),
        ("DELETE FROM tokens WHERE id = 3", 11, "is not in the store: it was removed"),
        # The end.
        ("UPDATE history SET link = x'00'", 14, "the end of the log was cut or altered"),
        ("UPDATE history SET epoch = '0123456789ab0123456789ab'", 14, "the epoch of the store"),
        ("UPDATE drafts SET document = x'00'", None, "the draft of orders"),
        ("UPDATE drafts SET document = 'text'", None, "a draft cannot be read"),
        ("UPDATE drafts SET base = 'text'", None, "a draft cannot be read"),
        ("UPDATE history SET last_token_id = 2", None, "history.last_token_id) is 2, by the log 3"),
        ("UPDATE history SET last_token_id = 4", None, "history.last_token_id) is 4, by the log 3"),
        ("UPDATE history SET seal_check = NULL", None, "history.seal_check) is missing"),
        ("UPDATE history SET seal_check = zeroblob(length(seal_check))", None, "history.seal_check) does not open"),
        # A savepoint of a config, and of a version, that the log does not know.
        (_SAVEPOINT.format(name="nowhere", version=1), None, "the savepoints of nowhere"),
        (_SAVEPOINT.format(name="orders", version=99), None, "the savepoints of orders"),
        (_SAVEPOINT.replace("'{name}'", "x'00'").format(version=1), None, "the config of a savepoint cannot be read"),
        # SQLite keeps what it is given, whatever the column was made for.
        ("UPDATE tokens SET secret_hash = 'text' WHERE id = 2", None, "tokens.secret_hash of token 2 holds no bytes"),
        ("UPDATE tokens SET name = x'00' WHERE id = 2", None, "token 2 cannot be read"),
        ("UPDATE versions SET changed_by = 2.5 WHERE revision = 4", 4, "cannot be read"),
        ("UPDATE versions SET source_version = 2.5 WHERE revision = 9", 9, "cannot be read"),
        ("UPDATE schemas SET changed_by = 2.5 WHERE revision = 6", 6, "cannot be read"),
        ("UPDATE drafts SET label = x'00'", None, "a draft cannot be read"),
        ("UPDATE drafts SET changed_by = 'text'", None, "a draft cannot be read"),
        ("UPDATE history SET revision = 'text'", None, "history.revision holds no number"),
        ("UPDATE history SET link = 'text'", None, "history.link holds no bytes"),
        ("UPDATE history SET epoch = x'00'", None, "history.epoch holds no text"),
        ("UPDATE history SET last_token_id = 'text'", None, "history.last_token_id holds no number"),
        ("UPDATE history SET seal_check = 'text'", None, "history.seal_check holds no bytes"),
    ],
)
def test_whatever_is_altered_is_found_and_named(path: Path, statement: str, revision: int, what: str) -> None:
    """One statement on the file, and the verification names the revision at which it shows, and no value."""
    alter(path, statement)
    report = verify_offline(path)
    assert not report.sound
    assert any(finding.revision == revision and what in finding.what for finding in report.findings), report.findings
    assert CANARY not in str(report)


@pytest.mark.parametrize(
    ("statements", "revisions"),
    [
        # Two entries in each other's place.
        (
            (
                "UPDATE log SET revision = 100 WHERE revision = 4",
                "UPDATE log SET revision = 4 WHERE revision = 5",
                "UPDATE log SET revision = 5 WHERE revision = 100",
            ),
            {4, 5},
        ),
        # One entry taken out, and all behind it moved up: no gap is left.
        (
            (
                "DELETE FROM log WHERE revision = 5",
                *(f"UPDATE log SET revision = {number - 1} WHERE revision = {number}" for number in range(6, 15)),
                "UPDATE history SET revision = 13",
            ),
            set(range(5, 14)),
        ),
        # An entry put in, as a copy of one that is there, and all behind it moved down.
        (
            (
                *(f"UPDATE log SET revision = {number + 1} WHERE revision = {number}" for number in range(14, 4, -1)),
                _COPY,
                "UPDATE history SET revision = 15",
            ),
            {6, 7},
        ),
        # The end cut off, with what it made, and the row that tells the end put right but for the link, or with it.
        (("DELETE FROM schemas WHERE revision > 12", "DELETE FROM log WHERE revision > 12", _END), {12}),
        # An entry behind the end, with or without what it tells of.
        (
            (_BEHIND,),
            {15},
        ),
        # A version, a schema, a token that no entry tells of.
        ((_VERSION.format(version=5, revision=99),), {99}),
        ((_VERSION.format(version=5, revision=2),), {2}),
        (
            ("INSERT INTO schemas VALUES ('other', 'default', 'main', 1, 77, 1, '2026-01-01T00:00:00+00:00', NULL)",),
            {77},
        ),
        (
            (_TOKEN,),
            {None},
        ),
        # Every link taken out, with the details.
        (("UPDATE log SET link = NULL, audit = NULL", "UPDATE history SET link = NULL"), {14}),
        (("UPDATE log SET link = NULL, audit = NULL WHERE revision < 6",), {6}),
        # A document of the same config, version and key from another revision: a replay within the store.
        (
            ("UPDATE versions SET document = (SELECT document FROM versions WHERE revision = 3) WHERE revision = 5",),
            {5},
        ),
    ],
)
def test_moving_inserting_and_cutting_is_found(
    path: Path, statements: tuple[str, ...], revisions: set[int | None]
) -> None:
    """Every revision at which something was done is named, also where no gap and no loose end is left."""
    alter(path, *statements)
    report = verify_offline(path)
    assert revisions <= found(report).keys(), report.findings


def test_a_tail_that_is_cut_without_a_trace_is_found_by_the_anchor_alone(path: Path) -> None:
    """An earlier file of the same store is sound in itself: only what was kept elsewhere tells that there was more."""
    earlier = Path(shutil.copy(path, path.with_name("earlier.db")))
    anchor = Anchor(*run(path, head)[1:])

    async def go_on(app: Application) -> None:
        admin = app.operations._registry.get(1)
        assert admin is not None
        await app.operations.publish(admin, ORDERS, b'{"value": 9}')

    run(path, go_on)
    newer = Anchor(*run(path, head)[1:])
    assert verify_offline(path, newer).sound
    assert verify_offline(path, anchor).sound
    assert verify_offline(earlier).sound
    assert found(verify_offline(earlier, newer)) == {
        14: "the store ends here, before revision 15 of the anchor: it was rolled back, or its end was cut"
    }
    # Rolled back, and gone on with something else.
    run(earlier, go_on)
    assert "history was rewritten" in found(verify_offline(earlier, newer))[15]
    assert verify_offline(earlier, anchor).sound


@pytest.mark.parametrize(
    "text", ["", "5", "5:", "5:zz", f"x:{'0' * 64}", f"5:{'0' * 63}", f"5:{'0' * 64}:", f"-1:{'0' * 64}"]
)
def test_what_is_no_anchor_is_refused(text: str) -> None:
    """With the command that prints one."""
    with pytest.raises(InvalidRequestError, match="audit head"):
        Anchor.parse(text)


# While the store is written to, and when it cannot be


def test_a_store_that_is_written_to_is_verified_up_to_where_its_log_ended(path: Path) -> None:
    """Publishes, tokens, edits and rotations between any two steps make no finding; the next one sees them."""

    async def scenario(app: Application) -> None:
        operations = app.operations
        admin = operations._registry.get(1)
        assert admin is not None
        verification = Verification(app._store, app._vault, app._keys.hold)
        number = 0
        seen = 0
        store = app._store
        log = store.log

        async def log_late(after: int, limit: int) -> list[LogEntry]:
            nonlocal number
            entries = await log(after, min(limit, 3))
            if number < 12 and store.log is log_late:
                number += 1
                store.log = log  # type: ignore[method-assign]
                await operations.publish(admin, ORDERS, b'{"value": %d}' % number)
                await operations.publish(admin, ConfigKey(f"new-{number}"), b"{}")
                await operations.tokens.rotate_key(admin, 2, 0)
                created = await operations.tokens.create(admin, f"t{number}")
                await operations.tokens.revoke(admin, created.token.id)
                await operations.schemas.set(admin, ConfigKey(f"new-{number}"), b"{}")
                await operations.drafts.replace(admin, ORDERS, b'{"value": "edited"}')
                if number % 4 == 0:
                    await operations.keys.rotate(admin)
                store.log = log_late  # type: ignore[method-assign]
            return entries

        store.log = log_late  # type: ignore[method-assign]
        async for progress in verification.run():
            seen = max(seen, progress.done)
        store.log = log  # type: ignore[method-assign]
        assert verification.report.findings == ()
        assert seen == verification.report.head.revision == 14
        assert number == 12
        assert (await verify(app)).sound
        assert (await verify(app)).head.revision > 14 + 12 * 5

    run(path, scenario)


@pytest.mark.parametrize("step", ["json", "cipher", "mac"])
def test_a_change_whose_audit_entry_cannot_be_made_is_refused(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step of it fails, nothing has happened, in the store or in memory; the next change goes through."""

    async def scenario(app: Application) -> None:
        operations = app.operations
        admin = operations._registry.get(1)
        assert admin is not None

        def fail(*_: object, **__: object) -> bytes:
            raise OSError("no entropy, no memory, no luck")

        before = [str(operations.position), len(operations.tokens.list(admin)), operations.newest(admin, ORDERS)]
        draft = (await operations.drafts.read(admin, ORDERS)).content
        with monkeypatch.context() as patch:
            patch.setattr(f"config_service.security.chain.{_STEPS[step]}", fail)
            for change in (
                lambda: operations.publish(admin, ORDERS, b'{"value": "refused"}'),
                lambda: operations.drafts.publish(admin, ORDERS),
                lambda: operations.delete(admin, ORDERS),
                lambda: operations.schemas.remove(admin, ORDERS),
                lambda: operations.tokens.create(admin, "refused"),
                lambda: operations.tokens.rotate_key(admin, 2, 0),
                lambda: operations.tokens.revoke(admin, 2),
                lambda: operations.keys.rotate(admin),
            ):
                with pytest.raises((StoreError, OSError)):
                    await change()
        after = [str(operations.position), len(operations.tokens.list(admin)), operations.newest(admin, ORDERS)]
        assert after == before
        assert (await operations.drafts.read(admin, ORDERS)).content == draft
        assert (await app._store.position()).revision == 14
        await operations.publish(admin, ORDERS, b'{"value": "goes through"}')
        assert (await verify(app)).sound

    run(path, scenario)


def test_a_change_that_has_no_room_for_its_audit_entry_is_refused(path: Path) -> None:
    """A full disk refuses the change with its entry; what was there is served on, and with room again it goes on."""

    def limit(connection: Connection, pages: int | None = None) -> None:
        """Let the file not grow beyond ``pages``; None: beyond what it has, all of which is used."""
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or used}")

    async def scenario(app: Application) -> None:
        operations = app.operations
        admin = operations._registry.get(1)
        assert admin is not None
        before = await app._store.head()
        await app._store._write(limit)  # type: ignore[attr-defined]
        refused = 0
        for number in range(200):
            try:
                await operations.publish(admin, ORDERS, b'{"value": %d}' % number)
            except StoreFullError:
                refused += 1
        assert refused
        kept = operations.newest(admin, ORDERS)
        assert (await app._store.head()).revision == before.revision + 200 - refused
        assert (await verify(app)).sound
        await app._store._write(limit, 1_000_000)  # type: ignore[attr-defined]
        outcome = await operations.publish(admin, ORDERS, b'{"value": "room"}')
        assert outcome.document.version == kept.version + 1
        assert (await verify(app)).sound

    run(path, scenario)


_STEPS = {"json": "json.dumps", "cipher": "os.urandom", "mac": "hmac.digest"}


# What is said of a change


def test_an_entry_says_who_and_from_where_and_never_a_value(path: Path) -> None:
    """Token, request, peer and a fingerprint; of a new token its name and scopes. All of it sealed in the file."""

    async def scenario(app: Application) -> list[dict[str, object]]:
        admin = app.operations._registry.get(1)
        assert admin is not None
        entered = origin.enter(origin.Origin("r-77", "10.1.2.3"))
        try:
            await app.operations.publish(admin, ORDERS, b'{"value": "%s"}' % CANARY.encode())
        finally:
            origin.leave(entered)
        page = await app.operations.audit.list(admin, Wanted(), 0, 100)
        return [dict(one.detail or {}) for one in page.entries]

    details = run(path, scenario)
    assert details[-1] == {
        "epoch": details[0]["epoch"],
        "token": "admin",
        "request": "r-77",
        "peer": "10.1.2.3",
        "fingerprint": details[-1]["fingerprint"],
    }
    assert details[1]["name"] == "reader"
    assert details[1]["scopes"] == [str(scope) for scope in SERVICE_SCOPES]
    assert details[11] == {"epoch": details[0]["epoch"], "token": "admin", "name": "third"}
    raw = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for secret in (CANARY.encode(), b"r-77", b"10.1.2.3"):
        assert secret not in raw
    assert CANARY not in str(details)


def test_entries_are_filtered_and_paged(path: Path) -> None:
    """By config, token, time and kind, together; a page says where the next one begins."""

    async def scenario(app: Application) -> None:
        admin, audit = app.operations._registry.get(1), app.operations.audit
        assert admin is not None

        async def revisions(wanted: Wanted, limit: int = 100) -> list[int]:
            told: list[int] = []
            after: int | None = 0
            while after is not None:
                page = await audit.list(admin, wanted, after, limit)
                assert len(page.entries) <= limit
                told += [one.entry.revision for one in page.entries]
                after = page.after
            return told

        assert await revisions(Wanted(), 4) == list(range(1, 15))
        assert await revisions(Wanted(name="payments")) == [7, 8, 13, 14]
        assert await revisions(Wanted(token=2)) == [2, 10]
        assert await revisions(Wanted(token=0)) == [1, 2]
        assert await revisions(Wanted(kind=ChangeKind.PUBLISHED), 1) == [3, 4, 5, 7]
        assert await revisions(Wanted(name="orders", kind=ChangeKind.ROLLED_BACK, token=1)) == [9]
        since = (await app._store.log(11, 1))[0].timestamp
        assert (await revisions(Wanted(since=since)))[-3:] == [12, 13, 14]
        assert await revisions(Wanted(since=since + timedelta(days=1))) == []

    run(path, scenario)


# Verifications that overlook something


@pytest.mark.parametrize(
    ("overlooked", "statement"),
    [
        ("_find_missing", "DELETE FROM log WHERE revision = 2"),
        ("_check_linked", "UPDATE log SET changed_by = 2 WHERE revision = 12"),
        ("_follow_made", "UPDATE versions SET source_version = 2 WHERE revision = 9"),
        ("_follow_made", "DELETE FROM versions WHERE revision = 4"),
        ("_follow_made", "UPDATE schemas SET schema = NULL WHERE revision = 6"),
        ("_check_token", "UPDATE tokens SET scopes = '[\"*@*:admin\"]' WHERE id = 2"),
        ("_check_token", "UPDATE tokens SET revoked_at = NULL WHERE id = 3"),
        ("_check_tokens", _TOKEN),
        ("_check_extra_versions", _VERSION.format(version=5, revision=99)),
        ("_check_extra_schemas", "INSERT INTO schemas VALUES ('new', 'default', 'main', 1, 77, 1, '2026-01-01', NULL)"),
        ("_check_end", _BEHIND),
        ("_check_end", "UPDATE history SET epoch = '0123456789ab0123456789ab'"),
        ("_check_marks", "UPDATE versions SET cancelled = 5 WHERE revision = 4"),
        ("_check_drafts", "UPDATE drafts SET document = x'00'"),
        ("_check_last_token", "UPDATE history SET last_token_id = 9"),
        ("_check_master_key", "UPDATE history SET seal_check = NULL"),
        ("_check_savepoints", _SAVEPOINT.format(name="nowhere", version=1)),
    ],
)
def test_every_check_is_needed(path: Path, overlooked: str, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification without it takes for sound what it would have found: the cases above would notice its absence."""
    alter(path, statement)
    assert not verify_offline(path).sound

    async def nothing_async(*_: object, **__: object) -> None:
        return None

    def nothing(*_: object, **__: object) -> None:
        return None

    is_async = asyncio.iscoroutinefunction(getattr(Verification, overlooked))
    monkeypatch.setattr(Verification, overlooked, nothing_async if is_async else nothing)
    left = {finding.what for finding in verify_offline(path).findings}
    monkeypatch.undo()
    assert {finding.what for finding in verify_offline(path).findings} - left


# Stores from before the chain


def as_before(path: Path) -> None:
    """Make of a store what one of the third schema was: no keys, no chain, everything sealed in format 1."""

    async def scenario() -> None:
        app = create_app(settings(path))
        await app._store.open()
        old = app._vault
        old.hold(await app._store.keys())
        (keys,) = [key for key in old.master_keys.first(NOON, bytes.fromhex(MASTER_KEY), before=True) if key.id == 0]
        ciphers = _ciphers(0, old.master_keys.unwrap(keys))
        await app._store.seal_check(old.new_check())
        changes: list[tuple[str, tuple[object, ...]]] = []
        for value in await app._store.sealed_values(None, 1000):
            key, number = value.place.key, value.place.number
            if key is None:
                continue
            opened = {
                SealedKind.DOCUMENT: old.open_document,
                SealedKind.DRAFT: old.open_draft,
                SealedKind.SCHEMA: old.open_schema,
            }[value.place.kind](value.sealed, key, number)
            table, column, purpose, counted = {
                SealedKind.DOCUMENT: ("versions", "document", b"documents", "version"),
                SealedKind.DRAFT: ("drafts", "document", b"drafts", "base"),
                SealedKind.SCHEMA: ("schemas", "schema", b"schemas", "number"),
            }[value.place.kind]
            sealed = b"\1" + _encrypt(ciphers[purpose], opened, b"\1" + _of(key, number))
            changes.append(
                (
                    f"UPDATE {table} SET {column} = ? WHERE name = ? AND environment = ? AND {counted} = ?",
                    (sealed, key.name, key.environment, number),
                )
            )
        for token in await app._store.tokens():
            told = [
                {
                    "sealed": (
                        b"\1"
                        + _encrypt(
                            ciphers[b"token keys"],
                            old.open_token_key(one.sealed, token.secret_hash, token.id),
                            b"\1" + lengthy(token.secret_hash),
                        )
                    ).hex(),
                    "retires_at": None if one.retires_at is None else format_timestamp(one.retires_at),
                }
                for one in token.keys
            ]
            changes.append(("UPDATE tokens SET keys = ? WHERE id = ?", (json.dumps(told), token.id)))
        await app._store.close()
        connection = sqlite3.connect(path, isolation_level=None)
        for statement, values in changes:
            assert connection.execute(statement, values).rowcount == 1, statement
        for statement in (
            "DELETE FROM data_keys",
            "UPDATE log SET link = NULL, audit = NULL",
            "UPDATE history SET link = NULL",
        ):
            connection.execute(statement)
        connection.close()

    asyncio.run(scenario())


def test_an_old_store_is_chained_and_covered_when_it_is_opened(path: Path) -> None:
    """Its first linked entry covers what was there; it goes on, is sound, and resealing brings it to format 2."""
    as_before(path)

    async def scenario(app: Application) -> None:
        operations = app.operations
        admin = operations._registry.get(1)
        assert admin is not None
        assert operations.newest(admin, ORDERS).content == b'{"value": "%s-0"}' % CANARY.encode()
        assert (await operations.drafts.read(admin, ORDERS)).content == b'{"value": "draft"}'
        (started,) = await app._store.log(14, 10)
        assert (started.kind, started.changed_by) == (ChangeKind.AUDIT_STARTED, 0)
        assert (await verify(app)).findings == ()
        held = {key.id: key.values for key in (await operations.keys.list(admin)).keys}
        assert (held[0], held[1], held[2]) == (sum(held.values()), 0, 0)
        step = await operations.keys.reseal(admin, None, 1000)
        last = await operations.keys.reseal(admin, step.after, 1000)
        assert (last.destroyed, last.remaining) == ((0,), 0)
        await operations.publish(admin, ORDERS, b'{"value": 10}')
        assert (await verify(app)).findings == ()

    run(path, scenario)
    assert run(path, verify).sound


def test_an_old_store_survives_a_rotation_of_the_master_key_before_it_is_sealed_anew(path: Path) -> None:
    """The keys that came from the old master key are kept like any other key, under the new one."""
    as_before(path)
    new = "7b" * 32

    async def rotate(app: Application) -> None:
        admin = app.operations._registry.get(1)
        assert admin is not None
        assert (await app.operations.keys.rotate_master(admin))[1]

    async def read(app: Application) -> None:
        admin = app.operations._registry.get(1)
        assert admin is not None
        assert (await app.operations._finder.find(ORDERS, 2)).content == b'{"value": "%s-1"}' % CANARY.encode()
        assert (await verify(app)).findings == ()

    run(path, rotate, master_key=new, previous_master_keys=MASTER_KEY)
    run(path, read, master_key=new)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET changed_by = 2 WHERE revision = 5",
        "UPDATE log SET timestamp = '2020-01-01T00:00:00+00:00' WHERE revision = 12",
        "DELETE FROM log WHERE revision = 12",
        "UPDATE versions SET source_version = 3 WHERE revision = 9",
        "DELETE FROM versions WHERE revision = 4",
        "UPDATE schemas SET schema = NULL WHERE revision = 6",
        "UPDATE tokens SET scopes = '[\"*@*:admin\"]' WHERE id = 2",
        "UPDATE tokens SET keys = json_remove(keys, '$[1]') WHERE id = 2",
        "DELETE FROM tokens WHERE id = 3",
        "UPDATE history SET link = NULL",
    ],
)
def test_what_is_done_to_the_old_part_of_a_log_is_found(path: Path, statement: str) -> None:
    """The digest of the first linked entry tells, whatever it was."""
    as_before(path)
    run(path, verify)
    alter(path, statement)
    assert not verify_offline(path).sound


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("UPDATE tokens SET secret_hash = 'text' WHERE id = 2", "tokens.secret_hash of token 2 holds no bytes"),
        ("UPDATE history SET revision = 'text'", "history.revision holds no number"),
        ("UPDATE history SET link = 'text'", "history.link holds no bytes"),
    ],
)
def test_a_service_does_not_start_on_a_column_of_another_kind(path: Path, statement: str, column: str) -> None:
    """The failure names table and column, and is one of a damaged store."""
    alter(path, statement)
    with pytest.raises(StoreCorruptError, match=column):
        run(path, verify)


async def name_and_archive(app: Application) -> None:
    """Name one version and archive another; 17 revisions."""
    (admin, *_) = app.operations.tokens.list((await app.operations.tokens.bootstrap("late")).token)  # 15
    await app.operations.savepoints.set(admin, ORDERS, "keep", 1)  # 16
    (gone,) = await app.operations.archive.archive(admin, utc_now(), [(ORDERS, [1, 2, 3, 4])])  # 17
    assert gone.versions == (2, 3)  # 1 has a name, and 4 runs
    page = await app.operations.archive.candidates(admin, utc_now())
    assert [one.info.version for one in page.candidates if one.info.key == ORDERS] == []


@pytest.mark.parametrize(
    ("statement", "revision", "what"),
    [
        ("UPDATE history SET revision = revision", None, None),
        ("UPDATE versions SET archived = NULL WHERE archived IS NOT NULL", 4, "not what was committed"),
        ("UPDATE versions SET archived = 12 WHERE archived IS NOT NULL", 17, "not so in the store"),
        ("UPDATE versions SET document = NULL, archived = 17 WHERE revision = 3", 17, "by no entry of the log"),
        ("UPDATE log SET about = '2' WHERE revision = 17", 17, "does not follow"),
        ("UPDATE log SET about = NULL WHERE revision = 16", 16, "does not follow"),
        ("UPDATE log SET version = NULL WHERE revision = 16", 16, "does not follow"),
        ("UPDATE savepoints SET version = 4", None, "savepoints of orders"),
        ("DELETE FROM savepoints", None, "savepoints of orders"),
    ],
)
def test_names_and_archives_are_verified(path: Path, statement: str, revision: int | None, what: str | None) -> None:
    """An archive is no damage; what is missing without one, a name that was moved behind the log's back, is found."""
    run(path, name_and_archive)
    alter(path, statement)
    report = verify_offline(path)
    if what is None:
        assert report.findings == ()
    else:
        assert any(one.revision == revision and what in one.what for one in report.findings), report.findings
