"""The file of a backup: whatever is done to it later is noticed, and the page describes it to the byte."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from config_service.backup.chain import ChainWriter, DamagedFileError
from config_service.backup.files import BackupReader, End, read_records, write_lines
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, Draft, LogEntry, Record, SealCheck, Version

OPERATIONS = (Path(__file__).parents[3] / "docs" / "OPERATIONS.md").read_text()
NOON = datetime(2026, 2, 3, 12, 0, 0, tzinfo=timezone.utc)
ORDERS = ConfigKey("orders")
EPOCH = "0123456789ab0123456789ab"
RECORDS: list[Record] = [
    SealCheck(b"check"),
    Draft(ORDERS, 1, b"draft", 7, NOON),
    LogEntry(1, ChangeKind.PUBLISHED, 7, NOON, ORDERS, 1),
    Version(ORDERS, 1, 1, ChangeKind.PUBLISHED, 7, NOON, b"document"),
    LogEntry(2, ChangeKind.DELETED, 7, NOON, ORDERS, 2),
    Version(ORDERS, 2, 2, ChangeKind.DELETED, 7, NOON, None),
]


def mac(data: bytes) -> bytes:
    return hmac.digest(b"key", data, "sha256")


def verify(data: bytes, told: bytes) -> bool:
    return hmac.compare_digest(mac(data), told)


def written(records: list[Record] = RECORDS) -> list[bytes]:
    async def source() -> AsyncIterator[Record]:
        for record in records:
            yield record

    async def collect() -> list[bytes]:
        return [line async for line in write_lines(EPOCH, source(), NOON, mac)]

    return asyncio.run(collect())


def test_a_backup_is_read_back() -> None:
    """Every record in its order, and what header and end tell."""
    reader = BackupReader(verify)
    assert list(read_records(written(), reader)) == RECORDS
    assert reader.header is not None
    assert (reader.header.epoch, reader.header.created_at) == (EPOCH, "2026-02-03T12:00:00+00:00")
    end = reader.finish()
    assert (end.records, end.revision) == (6, 2)


def test_a_line_is_as_the_page_has_it() -> None:
    """Payload, tab, digest, line feed; each digest over the one before; the MAC over digest and counts."""
    lines = written()
    digest = bytes(32)
    for line in lines:
        payload, told = line.rstrip(b"\n").split(b"\t")
        before, digest = digest, hashlib.sha256(digest + payload).digest()
        assert told.decode() == digest.hex()
    end = json.loads(lines[-1].split(b"\t")[0])["end"]
    assert end["mac"] == mac(before + (6).to_bytes(8, "big") + (2).to_bytes(8, "big")).hex()
    examples = re.findall(r"^    (\{.*\}) ⇥ …$", OPERATIONS, re.MULTILINE)
    assert [json.loads(example.replace("…", "")).keys() for example in examples] == [
        json.loads(line.split(b"\t")[0]).keys() for line in (lines[0], lines[4], lines[-1])
    ]
    assert json.loads(examples[1])["version"].keys() == json.loads(lines[4].split(b"\t")[0])["version"].keys()


@pytest.mark.parametrize("place", range(8))
def test_a_line_that_is_missing_doubled_or_moved_is_noticed(place: int) -> None:
    """Each line of the file, the first and the last included; and so is a file cut within a line."""
    lines = written()
    assert len(lines) == 8
    damaged = [
        [*lines[:place], *lines[place + 1 :]],
        [*lines[: place + 1], *lines[place:]],
        lines[:place],
        [*lines[:place], lines[place][:-1]],
        [*lines[:place], lines[place][: len(lines[place]) // 2]],
    ]
    if place < 7:
        damaged.append([*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]])
    for version in damaged:
        for reader in (BackupReader(), BackupReader(verify)):
            with pytest.raises(DamagedFileError):
                list(read_records(version, reader))


def test_a_byte_that_was_changed_is_noticed() -> None:
    """Any byte of the file, without knowing any key."""
    whole = b"".join(written())
    for index in range(len(whole)):
        altered = whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :]
        with pytest.raises(DamagedFileError) as caught:
            list(read_records(altered.splitlines(keepends=True), BackupReader()))
        assert "orders" not in str(caught.value)


def test_a_file_that_somebody_made_up_is_noticed_with_the_master_key() -> None:
    """Its digests are right, since anybody can make them; the MAC is not."""
    forged = written([*RECORDS[:-2]])
    assert len(list(read_records(forged, BackupReader()))) == 4
    with pytest.raises(DamagedFileError, match="master key"):
        list(read_records(forged, BackupReader(lambda _data, _mac: False)))


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ({"format": "something else", "version": 1}, "no backup"),
        ({"format": "config-service backup", "version": 2}, "newer version"),
        ([], "no backup"),
        ({"end": {}}, "no backup"),
    ],
)
def test_another_file_is_told_apart(first: object, told: str) -> None:
    """By its first line, before anything is taken from it."""
    with pytest.raises(DamagedFileError, match=told):
        BackupReader().read(ChainWriter().line(first))


@pytest.mark.parametrize(
    "end", [{}, {"records": "1", "revision": 1, "mac": ""}, {"records": 0, "revision": 7, "mac": ""}, None]
)
def test_an_end_that_tells_something_else_is_refused(end: object) -> None:
    """Counts that do not fit what came before, or that are no counts."""
    chain = ChainWriter()
    reader = BackupReader()
    reader.read(chain.line({"format": "config-service backup", "version": 1, "epoch": EPOCH, "created_at": ""}))
    with pytest.raises(DamagedFileError, match="end of the backup"):
        reader.read(chain.line({"end": end}))


def test_a_line_that_is_no_record_is_refused() -> None:
    """With its number; JSON or not."""
    for value in ({"holiday": {}}, 5, None):
        chain, reader = ChainWriter(), BackupReader()
        reader.read(chain.line({"format": "config-service backup", "version": 1, "epoch": EPOCH, "created_at": ""}))
        with pytest.raises(DamagedFileError, match="line 2"):
            reader.read(chain.line(value))


def test_what_a_mac_is_over_differs_with_every_part() -> None:
    """Digest, count and revision have fixed lengths: no two ends are over the same bytes."""
    ends = {End(1, 2, "").signed(bytes(32)), End(2, 1, "").signed(bytes(32)), End(1, 2, "").signed(b"1" * 32)}
    assert {len(end) for end in ends} == {48}
    assert len(ends) == 3
