"""A journal in a database that speaks MongoDB's protocol, shared by any number of processes.

    log     one document for every record:  _id "EPOCH/0000000000000000001", by its first revision
    cells   the check value, the first keys and the drafts:  _id "EPOCH/drafts/orders_prod_main_…"
            and which EPOCH there was first:  _id "store"

A commit is one insert, which the unique index on ``_id`` lets only one writer make; every write is acknowledged by a
majority and its journal, every read is of what a majority has. Neither transactions nor change streams are asked for,
so that FerretDB will do: it finds a document fast by a string ``_id`` alone, hence the names. A restored store is
another EPOCH; it takes the place of the first when record 1 of the first says so, which only an empty one has room for.

The synchronous driver, on the threads of the store: a commit is one hand-over to a thread, whatever it takes, and what
a thread has begun it finishes, though the request be cancelled.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Final, TypeAlias

import bson
from pymongo import ASCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from ...domain.epochs import later_epoch
from ...domain.errors import (
    DocumentTooLargeError,
    HistoryReplacedError,
    OutcomeUnknownError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreMissingError,
)
from .fields import Fields
from .protocol import Cell, Growing
from .record import DOCUMENTS, MALFORMED, Record, damaged, read_record, record_fields

URL_FORM: Final = "mongodb://user:password@host:27017/database"

_Document: TypeAlias = dict[str, Any]

_FORMAT: Final = 1
_STORE: Final = "store"
_CONTINUED: Final = "continued_in"
"""The field of a record 1 that is none: the store was restored, and goes on in that epoch."""
_AUTHOR: Final = "by"
"""The field by which a writer knows its own record again."""
_EDITION: Final = "edition"
"""The field that counts how often a record was amended."""
_TIMEOUTS: Final = {"serverSelectionTimeoutMS": 5_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 20_000}
"""Where the URL does not say otherwise. A publish waits no longer than this for a server that does not answer."""
_ROOM: Final = 16 * 2**20 - 2**14
"""Bytes that a record may have: MongoDB's limit for a document, less what it may add."""
_LOOKS: Final = 8
"""Records that are looked up one by one before the rest is asked for at once."""
_REFUSED: Final = {13: "the user may not do this", 18: "user or password are wrong", 8000: "user or password are wrong"}
_FULL: Final = frozenset({14031, 12501, 8001})
_UNCERTAIN: Final = (AutoReconnect, NetworkTimeout, WriteConcernError)
"""What leaves open whether a write was made, or whether a majority keeps it."""


class MongoJournal:
    """The journal in the database that ``url`` names.

    Raises StoreError when it names none; the message does not repeat the URL, which may hold a password.
    """

    shared: Final = True

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._url = url
        self._create = create
        self._client: MongoClient[_Document] | None = None
        self._place: _Place | None = None
        self._where = "the MongoDB database"
        faulty = not url.startswith(("mongodb://", "mongodb+srv://")) or "\0" in url
        if not faulty and not url.startswith("mongodb+srv://"):
            try:
                parsed = parse_uri(url)
            except (InvalidURI, ConfigurationError, ValueError):
                faulty = True
            else:
                hosts = ",".join(f"{host}:{port}" if port else host for host, port in parsed["nodelist"])
                self._where = f"the MongoDB database {parsed['database']} at {hosts}"
                # A password that was not percent-encoded may end up in the place of the database.
                faulty = not parsed["database"] or "@" in parsed["database"]
        if faulty:
            raise StoreError(f"unsupported URL of a store in MongoDB; use {URL_FORM}")

    def open(self) -> str:
        """Connect, and return the epoch of the store in the database, which is made when there is none.

        Raises StoreMissingError when there is none, and none is to be made; StoreCorruptError for a database of
        something else; StoreError.
        """
        # At DEBUG it tells every command, with all that is written.
        logging.getLogger("pymongo.command").setLevel(logging.INFO)
        given = self._url.partition("?")[2].lower()
        timeouts: Any = {name: value for name, value in _TIMEOUTS.items() if f"{name.lower()}=" not in given}
        client: MongoClient[_Document] = MongoClient(self._url, connect=False, **timeouts)
        self._client = client
        first = _Place(client, self._where, "")
        self._place = first.at(first.current(create=self._create))
        return self._place.epoch

    def close(self) -> None:
        """Close the connections. Closing twice, or before opening, is allowed."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def scan(self, after: int, *, documents: bool = False) -> Iterator[Record]:
        """Yield the records that begin above revision ``after``, in order; see ``Journal``."""
        return self._open_place().scan(after, documents=documents)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Return the records of these numbers. Raises StoreCorruptError when one is missing."""
        return self._open_place().read(numbers)

    def append(self, record: Record) -> bool:
        """Make ``record`` durable; see ``Growing``. Raises DocumentTooLargeError for one that MongoDB cannot keep."""
        return self._open_place().append(record)

    def amend(self, record: Record) -> bool:
        """Put ``record`` in the place of the one of its number; see ``Journal``."""
        return self._open_place().amend(record)

    def cell(self, name: str) -> Cell | None:
        """Return the cell of this name, or None."""
        return self._open_place().cell(name)

    def cells(self, prefix: str) -> Iterator[Cell]:
        """Yield the cells whose names begin with ``prefix``."""
        return self._open_place().cells(prefix)

    def swap(self, name: str, before: bytes | None, after: Cell | None) -> bool:
        """Change a cell durably; see ``Growing``."""
        return self._open_place().swap(name, before, after)

    def restore(self, epoch: str, fill: Callable[[Growing], None]) -> bool:
        """Become the journal that ``fill`` makes of an empty one of ``epoch``; see ``Journal``."""
        place = self._open_place()
        restored = place.at(epoch)
        adopted = False
        try:
            fill(restored)
            adopted = place.continue_in(epoch)
        finally:
            if not adopted:
                with suppress(PyMongoError):
                    restored.clear()
        if adopted:
            self._place = restored
        return adopted

    def failure(self, error: Exception) -> StoreError:
        """Return what ``error`` means to an operator, without its text."""
        name = type(error).__name__
        if isinstance(error, ServerSelectionTimeoutError):
            return StoreError(f"{self._where} cannot be reached; check that it runs, its address and its certificate")
        if isinstance(error, OperationFailure):
            if error.code in _REFUSED:
                return StoreError(f"{self._where}: {_REFUSED[error.code]} ({error.code})")
            if error.code in _FULL:
                return StoreFullError(f"{self._where}: no room to write ({error.code}): free some, or raise the quota")
            return StoreError(f"{self._where}: MongoDB refused the operation ({name}, {error.code})")
        if isinstance(error, ConfigurationError | InvalidURI):
            return StoreError(f"unsupported URL of a store in MongoDB ({name}); use {URL_FORM}")
        if isinstance(error, PyMongoError):
            return StoreError(
                f"{self._where} failed ({name}); whether the change was made shows once it is reached again"
            )
        return StoreError(f"{self._where}: unexpected {name} in the store")

    def _open_place(self) -> _Place:
        if self._place is None:
            raise StoreError("the store is not open")
        return self._place


class _Place:
    """The records and cells of one epoch."""

    def __init__(self, client: MongoClient[_Document], where: str, epoch: str) -> None:
        self._client = client
        self._where = where
        self.epoch = epoch
        database = client.get_default_database(
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )
        self._log: Collection[_Document] = database["log"]
        self._cells: Collection[_Document] = database["cells"]

    def at(self, epoch: str) -> _Place:
        """Return the place of another epoch in the same database."""
        return _Place(self._client, self._where, epoch)

    def current(self, *, create: bool) -> str:
        """Return the present epoch of the database; with ``create`` one that begins now where there is no store."""
        store = self._cells.find_one({"_id": _STORE})
        if store is None:
            if self._log.find_one({}) is not None:
                raise StoreCorruptError(
                    f"{self._where} holds a collection log of another program; nothing was changed: give the service a "
                    "database of its own"
                )
            if not create:
                raise StoreMissingError(f"{self._where}: there is no store; nothing was made")
            store = {"_id": _STORE, "format": _FORMAT, "epoch": later_epoch(datetime.now(timezone.utc))}
            try:
                self._cells.insert_one(store)
            except DuplicateKeyError:
                store = self._cells.find_one({"_id": _STORE})
        try:
            fields = Fields(store)
            epoch, version = fields.text("epoch"), fields.number("format")
            if version != _FORMAT:
                raise StoreError(f"{self._where} was written by a newer version of the service; upgrade this one")
            while (first := self.at(epoch).first()) is not None and _CONTINUED in first:
                epoch = Fields(first).text(_CONTINUED)
        except MALFORMED:
            raise damaged(self._where) from None
        return epoch

    def first(self) -> Mapping[str, object] | None:
        """Return the document that stands for record 1, or None."""
        return self._log.find_one({"_id": self._id(1)}, {DOCUMENTS: 0})

    def scan(self, after: int, *, documents: bool) -> Iterator[Record]:
        number = after + 1
        for _ in range(_LOOKS if after else 0):
            found = self._find(number, documents=documents)
            if found is None:
                return
            yield found
            number = found.last + 1
        rest = {"_id": {"$gte": self._id(number), "$lt": f"{self.epoch}/:"}}
        with self._log.find(rest, None if documents else {DOCUMENTS: 0}).sort("_id", ASCENDING) as cursor:
            for document in cursor:
                while document["_id"] != self._id(number):
                    # None is inserted before the one before it: it came while the cursor was on its way, or is lost.
                    missed = self._find(number, documents=documents)
                    if missed is None or missed.number > number:
                        raise StoreCorruptError(
                            f"{self._where} has no record of revision {number}, but later ones; restore a backup"
                        )
                    yield missed
                    number = missed.last + 1
                record = self._read(document, number)
                yield record
                number = record.last + 1

    def read(self, numbers: Sequence[int]) -> list[Record]:
        if len(numbers) == 1:
            found = {numbers[0]: self._find(numbers[0], documents=True)}
        else:
            wanted = {self._id(number): number for number in numbers}
            cursor = self._log.find({"_id": {"$in": list(wanted)}})
            found = {wanted[one["_id"]]: self._read(one, wanted[one["_id"]]) for one in cursor}
        records = []
        for number in numbers:
            record = found.get(number)
            if record is None:
                raise StoreCorruptError(f"{self._where} has no record of revision {number} any more; restore a backup")
            records.append(record)
        return records

    def append(self, record: Record) -> bool:
        document = self._spell(record)
        if sum(map(len, record.documents.values())) > _ROOM // 2 and (size := len(bson.encode(document))) > _ROOM:
            raise DocumentTooLargeError(
                f"MongoDB keeps at most 16 MiB in one commit, and this one has {size} bytes; publish less at a time, "
                "or keep the store elsewhere"
            )
        return self._insert(document)

    def continue_in(self, epoch: str) -> bool:
        """Say that this store, as long as it has no record, goes on in another epoch."""
        return self._insert({"_id": self._id(1), _CONTINUED: epoch, _AUTHOR: secrets.token_hex(8)})

    def amend(self, record: Record) -> bool:
        read = {"_id": self._id(record.number), _EDITION: record.edition}
        amended = {**self._spell(record), _EDITION: record.edition + 1}
        return self._log.replace_one(read, amended).matched_count == 1

    def cell(self, name: str) -> Cell | None:
        document = self._cells.find_one({"_id": f"{self.epoch}/{name}"})
        return None if document is None else _read_cell(document)

    def cells(self, prefix: str) -> Iterator[Cell]:
        begin = f"{self.epoch}/{prefix}"
        yield from map(_read_cell, self._cells.find({"_id": {"$gte": begin, "$lt": f"{begin}\x7f"}}))

    def swap(self, name: str, before: bytes | None, after: Cell | None) -> bool:
        identity = f"{self.epoch}/{name}"
        document = None if after is None else {"_id": identity, "value": after.value, "fields": dict(after.fields)}
        if before is None:
            if document is None:
                return self._cells.find_one({"_id": identity}) is None
            try:
                self._cells.insert_one(document)
            except DuplicateKeyError:
                return False
            return True
        there = {"_id": identity, "value": before}
        if document is None:
            return self._cells.delete_one(there).deleted_count == 1
        return self._cells.replace_one(there, document).matched_count == 1

    def clear(self) -> None:
        """Remove everything of this epoch, which never became the present one."""
        mine = {"_id": {"$gte": f"{self.epoch}/", "$lt": f"{self.epoch}0"}}
        for collection in (self._log, self._cells):
            collection.delete_many(mine)

    def _insert(self, document: _Document) -> bool:
        """Insert ``document`` unless there is another of its name (False). Raises OutcomeUnknownError."""
        sent = False
        for _ in range(2):
            try:
                self._log.insert_one(document)
            except DuplicateKeyError:
                there = self._log.find_one({"_id": document["_id"]}, {DOCUMENTS: 0})
                if there is not None or not sent:
                    return there is not None and there.get(_AUTHOR) == document[_AUTHOR]
                # Ours perhaps, and not with the majority yet.
                break
            except ServerSelectionTimeoutError:
                if not sent:
                    raise
            except _UNCERTAIN:
                # It was made, or is under way, or lost: whoever inserts the same again gets to know.
                sent = True
            else:
                return True
        raise OutcomeUnknownError(
            f"{self._where} did not say whether the change was made; look what is there before trying again"
        )

    def _find(self, number: int, *, documents: bool) -> Record | None:
        document = self._log.find_one({"_id": self._id(number)}, None if documents else {DOCUMENTS: 0})
        return None if document is None else self._read(document, number)

    def _read(self, document: Mapping[str, object], number: int) -> Record:
        if _CONTINUED in document:
            raise HistoryReplacedError(
                f"{self._where} was restored meanwhile and goes on in another epoch; start the service again"
            )
        edition = document.get(_EDITION)
        return replace(read_record(document, number), edition=edition if isinstance(edition, int) else 0)

    def _spell(self, record: Record) -> _Document:
        author = secrets.token_hex(8)
        return {"_id": self._id(record.number), **record_fields(record), _AUTHOR: author, _EDITION: 0}

    def _id(self, number: int) -> str:
        return f"{self.epoch}/{number:019}"


def _read_cell(document: Mapping[str, object]) -> Cell:
    try:
        fields = Fields(document)
        described = document["fields"]
        if isinstance(described, Mapping):
            return Cell(fields.binary("value"), described)
    except MALFORMED:
        pass
    raise damaged("a cell of the store")
