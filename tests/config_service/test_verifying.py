"""Verifying a store: an untouched one is sound, and whatever is done to its file behind the service's back is found."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from config_service.app import Application, create_app
from config_service.domain.keys import ConfigKey
from config_service.domain.scopes import SERVICE_SCOPES
from config_service.settings import Settings
from config_service.verifying import Anchor, Report, Verification

MASTER_KEY = "5a" * 32
ORDERS, PAYMENTS = ConfigKey("orders"), ConfigKey("payments", "prod", "next/1")
CANARY = "canary-7c1e"


def settings(path: Path, **options: Any) -> Settings:
    return Settings.load(master_key=MASTER_KEY, store_url=f"sqlite:///{path}", **options)


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
    ],
)
def test_whatever_is_altered_is_found_and_named(path: Path, statement: str, revision: int, what: str) -> None:
    """One statement on the file, and the verification names the revision at which it shows, and no value."""

    async def offline(_: None = None) -> Report:
        app = create_app(settings(path))
        await app._store.open()
        try:
            await app._keys.unlock()
            return await verify(app)
        finally:
            await app._store.close()

    alter(path, statement)
    report = asyncio.run(offline())
    assert not report.sound
    assert revision in found(report), report.findings
    assert any(finding.revision == revision and what in finding.what for finding in report.findings), report.findings
    assert CANARY not in str(report)
