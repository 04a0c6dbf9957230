"""``GET /manage/backup`` over a real application: who may, what comes, and how it ends when it does not come whole."""

from __future__ import annotations

from typing import Any

import pytest

from config_service.backup.chain import DamagedFileError
from config_service.backup.files import MEDIA_TYPE, BackupReader, read_records
from config_service.domain.errors import StoreError
from config_service.domain.records import StoredToken, Version
from config_service.security.at_rest import Vault

pytestmark = pytest.mark.anyio
PATH = "/api/v1/manage/backup"
MASTER_KEY = bytes.fromhex("5a" * 32)


async def test_the_backup_holds_everything_sealed(service: Any) -> None:
    """Under the master key of the service it is known for whole; no document or secret is in it in the clear."""
    await service.publish("orders", b'{"password": "canary-document"}')
    response = await service.client(service.admin).get(PATH)
    assert (response.status_code, response.headers["content-type"]) == (200, MEDIA_TYPE)
    assert response.headers["cache-control"] == "no-store"
    assert b"canary" not in response.content
    assert service.admin.secret.encode() not in response.content
    reader = BackupReader(Vault(MASTER_KEY).verify_backup)
    records = list(read_records(response.content.splitlines(keepends=True), reader))
    assert [record.id for record in records if isinstance(record, StoredToken)] == [1]
    (version,) = (record for record in records if isinstance(record, Version))
    assert version == service.store.held[version.key][0]
    other = BackupReader(Vault(bytes(32)).verify_backup)
    with pytest.raises(DamagedFileError, match="master key"):
        list(read_records(response.content.splitlines(keepends=True), other))


async def test_a_store_that_fails_on_the_way_gives_no_end(service: Any) -> None:
    """The connection is cut, or what came lacks its end: nobody takes it for a backup."""
    for number in range(300):
        await service.publish("orders", b'{"number": "%d"}' % number + b" " * 1000)
    read, version = 0, service.store.version

    async def failing(*args: Any) -> Any:
        nonlocal read
        read += 1
        if read > 200:
            raise StoreError("canary: the disk is gone")
        return await version(*args)

    service.store.version = failing
    token = (b"x-service-token", service.admin.secret.encode())
    answer = await service.raw(method="GET", raw_path=PATH.encode(), headers=(token,), keep=True)
    received = answer.body
    assert answer.status == 200
    assert b"config-service backup" in received
    assert b"canary" not in received
    with pytest.raises(DamagedFileError):
        list(read_records(received.splitlines(keepends=True), BackupReader()))


async def test_a_token_that_is_revoked_on_the_way_gets_no_end(service: Any) -> None:
    """What it has got by then is no backup."""
    for number in range(300):
        await service.publish("orders", b'{"number": "%d"}' % number + b" " * 1000)
    minted = await service.mint("*@*:admin")
    chunks = service.operations.backups.backup(minted.token)
    first = await anext(chunks)
    await service.operations.tokens.revoke(service.admin.token, minted.token.id)
    with pytest.raises(Exception, match="token"):
        [chunk async for chunk in chunks]
    with pytest.raises(DamagedFileError):
        list(read_records(first.splitlines(keepends=True), BackupReader()))
