"""The store in MongoDB beside its contract: several processes, what a database of something else is, and failures."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pymongo import MongoClient
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from config_service.domain.errors import (
    DocumentTooLargeError,
    HistoryReplacedError,
    OutcomeUnknownError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreMissingError,
)
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, KeyUse, StoredKey, WrappedKey
from config_service.domain.sealing import NewKeys, Resealed, SealedKind, SealedPlace
from config_service.store.journal.mongo import MongoJournal
from config_service.store.journal.record import Record
from config_service.store.journal.store import JournalStore
from config_service.store.protocol import KeyConflictError, KeysConflictError, SealingKeyError, VersionConflictError
from config_service.testing import check_laws, new_archive, new_draft, new_rotation, new_token, new_version
from config_service.testing.store_contract.suite import NOON, sealed_under

pytestmark = pytest.mark.integration

ORDERS = ConfigKey("orders")
CANARY = "hunter2"


@asynccontextmanager
async def stores(url: str, number: int = 3) -> AsyncIterator[list[JournalStore]]:
    """Open ``number`` stores on one database, as several processes do, at the end of which the laws are checked."""
    opened = [JournalStore(MongoJournal(url)) for _ in range(number)]
    await asyncio.gather(*(store.open() for store in opened))
    try:
        yield opened
        for store in opened:
            await check_laws(store)
    finally:
        await asyncio.gather(*(store.close() for store in opened))


def test_stores_that_start_at_once_make_one_history(mongodb_url: str) -> None:
    """Whoever of them makes it, all are in the same epoch, and what one commits the others tell at once."""

    async def scenario() -> None:
        async with stores(mongodb_url) as replicas:
            assert len({await store.position() for store in replicas}) == 1
            for base, store in enumerate(replicas):
                await store.commit_version(new_version(base=base))
            for store in replicas:
                assert (await store.position()).revision == len(replicas)
                assert [entry.revision for entry in await store.log(0, 10)] == [1, 2, 3]
                assert [one.version for one in await store.versions(ORDERS)] == [1, 2, 3]

    asyncio.run(scenario())


def test_writers_of_several_processes_make_one_line_of_revisions(mongodb_url: str) -> None:
    """Commits that race take revisions without gaps; whoever was overtaken decides anew on what is there by then."""

    async def write(store: JournalStore, key: ConfigKey) -> list[int]:
        taken: list[int] = []
        base = 0
        while len(taken) < 6:
            try:
                made = await store.commit_version(new_version(key, base))
            except VersionConflictError as conflict:
                base = conflict.newest
            else:
                base = made.version
                taken.append(made.revision)
        return taken

    async def scenario() -> None:
        async with stores(mongodb_url) as replicas:
            keys = (ORDERS, ConfigKey("billing"))
            taken = await asyncio.gather(*(write(store, key) for store in replicas for key in keys))
            assert sorted(revision for some in taken for revision in some) == list(range(1, 6 * 6 + 1))

    asyncio.run(scenario())


def test_a_process_hears_of_keys_drafts_and_tokens_of_another(mongodb_url: str) -> None:
    """Nothing is decided on a state of yesterday."""

    async def scenario() -> None:
        async with stores(mongodb_url, 2) as (first, second):
            assert await second.keys() == ()
            keys = (WrappedKey(2, KeyUse.ACTIVE, b"wrapped", NOON),)
            await first.commit_keys(NewKeys((), keys, None, 7, NOON))
            assert await second.keys() == keys
            with pytest.raises(SealingKeyError):
                await second.commit_version(new_version(document=sealed_under(1)))
            await first.replace_draft(ORDERS, None, new_draft())
            await second.commit_version(new_version(draft=b"sealed draft"))
            assert await first.draft(ORDERS) is None
            token, _ = await first.commit_token(new_token())
            assert await second.token(token.id) == token
            assert await second.revoke_token(token.id, 7, NOON) is not None
            assert await first.revoke_token(token.id, 7, NOON) is None

    asyncio.run(scenario())


def test_a_rotation_of_one_process_does_not_undo_the_new_seals_of_another(mongodb_url: str) -> None:
    """A new seal takes no revision: whoever goes by the old one is told, and no key goes that a token still needs."""

    async def scenario() -> None:
        async with stores(mongodb_url, 2) as (first, second):
            old = WrappedKey(2, KeyUse.ACTIVE, b"wrapped", NOON)
            await first.commit_keys(NewKeys((), (old,), None, 7, NOON))
            token, _ = await second.commit_token(new_token(keys=(StoredKey(sealed_under(2, b"a")),)))
            await first.tokens()
            keys = (replace(old, use=KeyUse.RETIRED), WrappedKey(3, KeyUse.ACTIVE, b"newer", NOON))
            await first.commit_keys(NewKeys((old,), keys, ChangeKind.DATA_KEY_CREATED, 7, NOON))
            destroying = NewKeys(keys, keys[1:], ChangeKind.DATA_KEYS_DESTROYED, 7, NOON)
            with pytest.raises(KeysConflictError):
                await second.commit_keys(destroying)
            place = SealedPlace(SealedKind.TOKEN_KEY, None, token.id)
            anew = Resealed(place, sealed_under(2, b"a"), sealed_under(3, b"a"))
            assert await first.reseal([anew]) == 1
            assert await second.sealed_counts() == {3: 1}
            with pytest.raises(KeyConflictError):
                await second.rotate_token_keys(new_rotation(token, sealed_under(3, b"b")))
            fresh = await second.token(token.id)
            assert fresh is not None
            assert await second.rotate_token_keys(new_rotation(fresh, sealed_under(3, b"b"))) is not None
            await first.commit_keys(destroying)

    asyncio.run(scenario())


class Overtaken(MongoJournal):
    """Lets another process amend the record that this one has read and is about to amend."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.other = MongoJournal(url)
        self.revisions = [1, 1, 1]

    def amend(self, record: Record) -> bool:
        if self.revisions:
            self.other.open()
            (there,) = self.other.read([record.number])
            assert self.other.amend(replace(there, documents={**there.documents, self.revisions.pop(): b"of another"}))
            self.other.close()
        return super().amend(record)


def test_a_record_that_was_amended_meanwhile_is_read_again(mongodb_url: str) -> None:
    """What another process has sealed anew or archived is not put back by who has read the record before."""

    async def scenario() -> None:
        store = JournalStore(Overtaken(mongodb_url))
        await store.open()
        keys = [ConfigKey(name) for name in "abc"]
        for base in range(2):
            await store.commit_versions([new_version(key, base, document=b"old") for key in keys])
        place = SealedPlace(SealedKind.DOCUMENT, keys[1], 1)
        assert await store.reseal([Resealed(place, b"old", b"new")]) == 1
        assert await store.archive_versions(new_archive(1, key=keys[2])) is not None
        documents = [version.document for key in keys if (version := await store.version(key, 1))]
        assert documents == [b"of another", b"new", None]
        await check_laws(store)
        await store.close()

    asyncio.run(scenario())


def test_no_store_is_made_where_one_was_to_be_opened(mongodb_url: str) -> None:
    """No collection is made; and a store that is there is opened."""

    async def scenario(*, create: bool) -> None:
        store = JournalStore(MongoJournal(mongodb_url, create=create))
        try:
            await store.open()
        finally:
            await store.close()

    with pytest.raises(StoreMissingError, match="there is no store; nothing was made"):
        asyncio.run(scenario(create=False))
    with MongoClient[dict[str, object]](mongodb_url) as client:
        assert client.get_default_database().list_collection_names() == []
    asyncio.run(scenario(create=True))
    asyncio.run(scenario(create=False))


def test_a_database_of_another_program_is_left_as_it_was(mongodb_url: str) -> None:
    """A collection of the same name that is not ours means that the URL is wrong."""
    with MongoClient[dict[str, object]](mongodb_url) as client:
        client.get_default_database()["log"].insert_one({"line": "theirs"})

        async def scenario() -> None:
            store = JournalStore(MongoJournal(mongodb_url))
            with pytest.raises(StoreCorruptError, match="another program"):
                await store.open()
            await store.close()

        asyncio.run(scenario())
        assert client.get_default_database().list_collection_names() == ["log"]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ({"$set": {"revision": 7}}, "record of revision 2 cannot be read"),
        ({"$set": {"epoch": "0" * 24}}, "revision 2 belongs to another store"),
        ({"$set": {"changes": []}}, "record of revision 2 cannot be read"),
        (None, "no record of revision 2, but later ones"),
    ],
)
def test_a_damaged_record_is_found_when_the_store_is_opened(
    damage: dict[str, object] | None, text: str, mongodb_url: str
) -> None:
    """Whatever field is not what it must be, and a record that is missing."""

    async def fill() -> None:
        async with stores(mongodb_url, 1) as (store,):
            for base in range(3):
                await store.commit_version(new_version(base=base))

    async def find() -> None:
        store = JournalStore(MongoJournal(mongodb_url))
        with pytest.raises(StoreCorruptError, match=text):
            await store.open()
        await store.close()

    asyncio.run(fill())
    with MongoClient[dict[str, object]](mongodb_url) as client:
        log = client.get_default_database()["log"]
        second = sorted(str(one["_id"]) for one in log.find({}))[1]
        if damage is None:
            log.delete_one({"_id": second})
        else:
            log.update_one({"_id": second}, damage)
    asyncio.run(find())


def test_a_process_that_runs_while_another_restores_is_told(mongodb_url: str) -> None:
    """It can neither write into the old epoch nor serve it any longer."""

    async def no_records() -> AsyncIterator[object]:
        return
        yield

    async def scenario() -> None:
        first, second = (JournalStore(MongoJournal(mongodb_url)) for _ in range(2))
        await first.open()
        await second.open()
        await first.restore(no_records(), "f" * 24)  # type: ignore[arg-type]
        assert (await first.position()).epoch == "f" * 24
        for call in (second.commit_version(new_version()), second.position()):
            with pytest.raises(HistoryReplacedError, match="start the service again"):
                await call
        await second.close()
        await second.open()
        assert (await second.position()).epoch == "f" * 24
        assert (await second.commit_version(new_version())).revision == 1
        assert (await first.position()).revision == 1
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_more_than_mongodb_keeps_in_one_document_is_refused(mongodb_url: str) -> None:
    """The error tells the limit; the next commit is not affected."""

    async def scenario() -> None:
        async with stores(mongodb_url, 1) as (store,):
            with pytest.raises(DocumentTooLargeError, match="16 MiB"):
                await store.commit_version(new_version(document=bytes(17 * 2**20)))
            assert (await store.commit_version(new_version())).revision == 1

    asyncio.run(scenario())


def test_the_driver_logs_nothing_of_what_is_written(mongodb_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It would tell every command at its most verbose, documents, names and hashes included."""
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with stores(mongodb_url, 1) as (store,):
            await store.commit_token(new_token(CANARY))
            await store.commit_version(new_version(ConfigKey(CANARY), document=CANARY.encode()))
            await store.replace_draft(ORDERS, None, new_draft(document=CANARY.encode()))

    asyncio.run(scenario())
    assert CANARY not in caplog.text
    assert b64encode(CANARY.encode()).decode() not in caplog.text


class LosesTheAnswer:
    """A collection whose next inserts fail ``before`` or after they were made."""

    def __init__(self, collection: object, failures: list[tuple[PyMongoError, bool]]) -> None:
        self._collection = collection
        self._failures = failures

    def __getattr__(self, name: str) -> object:
        return getattr(self._collection, name)

    def insert_one(self, document: object) -> None:
        failure, made = self._failures.pop(0) if self._failures else (None, True)
        if made:
            self._collection.insert_one(document)  # type: ignore[attr-defined]
        if failure is not None:
            raise failure


@pytest.mark.parametrize(
    ("failure", "made"),
    [
        (AutoReconnect(CANARY), True),
        (AutoReconnect(CANARY), False),
        (WTimeoutError(CANARY, 64), True),
        (WriteConcernError(CANARY, 100), True),  # UnsatisfiableWriteConcern: made, and not by as many as was asked for
    ],
)
def test_a_commit_whose_answer_is_lost_is_looked_up(failure: PyMongoError, made: bool, mongodb_url: str) -> None:
    """Whether the insert was made or not before the connection went, or with too few: there is one version afterwards,
    acknowledged once a majority has it.
    """

    async def scenario() -> None:
        async with stores(mongodb_url, 1) as (store,):
            place = store._journal._place  # type: ignore[attr-defined]
            place._log = LosesTheAnswer(place._log, [(failure, made)])
            version = await store.commit_version(new_version())
            assert (version.version, version.revision) == (1, 1)
            assert (await store.commit_version(new_version(base=1))).revision == 2

    asyncio.run(scenario())


def test_a_commit_whose_answer_stays_lost_says_so(mongodb_url: str) -> None:
    """Twice without an answer: nobody can tell, and the store shows what came of it when it is asked again."""

    async def scenario() -> None:
        async with stores(mongodb_url, 1) as (store,):
            place = store._journal._place  # type: ignore[attr-defined]
            lost = [(NetworkTimeout(CANARY), False), (NetworkTimeout(CANARY), True)]
            place._log = LosesTheAnswer(place._log, lost)
            with pytest.raises(OutcomeUnknownError) as failure:
                await store.commit_version(new_version())
            assert CANARY not in str(failure.value)
            assert failure.value.__context__ is None
            assert (await store.position()).revision == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://",
        "mongodb://db.example",
        "mongodb://db.example/",
        f"mongodb://user:{CANARY}@",
        f"mongodb://us:er:{CANARY}@db.example/x",
        f"mongodb://user:{CANARY}@db.example:port/x",
        f"mongodb://user:27017/{CANARY}@db.example",
        f"mongodb://user:27017/{CANARY}@db.example/x",
        f"mongodb://user:{CANARY}@x@db.example/x",
        f"mongodb://user:{CANARY}/x@db.example/x",
        "http://db.example/x",
    ],
)
def test_a_url_without_a_database_is_refused(url: str) -> None:
    """The error says what it has to look like, and does not repeat the one given."""
    with pytest.raises(StoreError, match="mongodb://user:password@host:27017/database") as refusal:
        MongoJournal(url)
    assert CANARY not in str(refusal.value)


def test_a_server_that_is_not_there_is_a_typed_error() -> None:
    """Soon, and without the password."""

    async def scenario() -> None:
        url = f"mongodb://user:{CANARY}@127.0.0.1:1/config?serverSelectionTimeoutMS=50"
        store = JournalStore(MongoJournal(url))
        with pytest.raises(StoreError, match=r"config at 127\.0\.0\.1:1 cannot be reached") as failure:
            await store.open()
        assert CANARY not in str(failure.value)
        assert failure.value.__context__ is None
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ServerSelectionTimeoutError(CANARY), StoreError, "cannot be reached"),
        (OperationFailure(CANARY, 18), StoreError, "user or password are wrong"),
        (OperationFailure(CANARY, 13), StoreError, "may not do this"),
        (OperationFailure(CANARY, 14031), StoreFullError, "no room"),
        (OperationFailure(CANARY, 9), StoreError, "refused the operation"),
        (DuplicateKeyError(CANARY), StoreError, "refused the operation"),
        (AutoReconnect(CANARY), StoreError, "AutoReconnect"),
        (ValueError(CANARY), StoreError, "unexpected ValueError"),
    ],
)
def test_failures_are_typed_and_tell_nothing(error: Exception, kind: type[StoreError], text: str) -> None:
    """What an operator can act on keeps its meaning; a server's own text may repeat what was to be kept."""
    make: Callable[[Exception], StoreError] = MongoJournal(f"mongodb://user:{CANARY}@db.example/config").failure
    failure = make(error)
    assert type(failure) is kind
    assert "database config at db.example:27017" in str(failure)
    assert text in str(failure)
    assert CANARY not in str(failure)
