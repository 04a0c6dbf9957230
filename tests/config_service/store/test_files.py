"""The directory of a store in plain files: what is in it, who may read it, what is found to be damaged or left over."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from config_service.domain.errors import StoreCorruptError, StoreError, StoreFullError, StoreLockedError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, StoredKey
from config_service.store.journal import directory
from config_service.store.journal.files import FilesJournal
from config_service.store.journal.store import JournalStore
from config_service.testing import check_laws, new_archive, new_draft, new_schema, new_token, new_version

CANARY = "canary-7f3a9c"
ORDERS = ConfigKey("orders")


def store_in(place: Path) -> JournalStore:
    return JournalStore(FilesJournal(place))


def run_on(place: Path, scenario: Callable[[JournalStore], Coroutine[object, object, object]]) -> None:
    """Run ``scenario`` on an open store in ``place``, and check the laws after it."""

    async def run() -> None:
        store = store_in(place)
        try:
            await store.open()
            await scenario(store)
            await check_laws(store)
        finally:
            await store.close()

    asyncio.run(run())


async def nothing(_store: JournalStore) -> None:
    pass


async def fill(store: JournalStore) -> None:
    """Commit one of everything: revisions 1 to 6."""
    for base in range(3):
        await store.commit_version(new_version(base=base, document=bytes([base]) * 50))
    await store.commit_schema(new_schema())
    await store.commit_token(new_token())
    await store.commit_versions([new_version(ConfigKey("a")), new_version(ConfigKey("b"))])
    await store.replace_draft(ORDERS, None, new_draft(base=3))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


def history(place: Path) -> Path:
    """Return the directory of the one history in ``place``."""
    (found,) = (one for one in place.iterdir() if len(one.name) == 24)
    return found


def records(place: Path) -> list[Path]:
    return sorted((history(place) / "log").iterdir())


# --- URLs ---


@pytest.mark.parametrize(
    "url",
    ["file:", "file://", "file:///", "file://host/place", "file:////x", "file:///x?mode=ro", "file:///a%00b", "x"],
)
def test_a_url_that_names_no_directory_is_refused_with_those_that_do(url: str) -> None:
    """The error says which URLs work."""
    with pytest.raises(StoreError, match="file:///absolute/directory or file:relative/directory"):
        FilesJournal.from_url(url)


def test_a_url_is_absolute_or_relative_and_may_be_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As RFC 8089 has it: three slashes begin an absolute path; none, one from the working directory."""
    monkeypatch.chdir(tmp_path)

    async def open_and_close(url: str) -> None:
        store = JournalStore(FilesJournal.from_url(url))
        await store.open()
        await store.close()

    asyncio.run(open_and_close("file:some/place"))
    asyncio.run(open_and_close(f"file://{tmp_path}/with%20space"))
    assert (tmp_path / "some/place/store.json").is_file()
    assert (tmp_path / "with space/store.json").is_file()


# --- what is in it ---


def test_only_the_owner_may_read_the_store(place: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask."""
    umask = os.umask(0)
    try:
        run_on(place / "new", fill)
    finally:
        os.umask(umask)
    found = [place, *place.rglob("*")]
    assert {stat.S_IMODE(one.stat().st_mode) for one in found if one.is_dir()} == {0o700}
    assert {stat.S_IMODE(one.stat().st_mode) for one in found if one.is_file()} == {0o600}


def test_a_record_can_be_read_by_people(place: Path) -> None:
    """One JSON file for every commit says what changed, by whom, when and of what; only the document is sealed."""

    async def publish(store: JournalStore) -> None:
        await store.commit_version(new_version(ConfigKey("Zoë", "prod", "release/1"), document=b"sealed"))

    run_on(place, publish)
    (path,) = records(place)
    assert path.name == "0000000001.json"
    text = path.read_text()
    assert '"name": "Zoë"' in text
    told = json.loads(text)
    assert told["changes"] == [
        {
            "revision": 1,
            "kind": "published",
            "changed_by": 7,
            "timestamp": "2026-02-03T12:00:00.123456+00:00",
            "name": "Zoë",
            "environment": "prod",
            "label": "release/1",
            "version": 1,
            "deleted": False,
        }
    ]
    assert base64.b64decode(told["documents"]["1"]) == b"sealed"


def test_drafts_of_keys_that_differ_in_case_alone_have_names_of_their_own(place: Path) -> None:
    """Also on a file system that takes upper and lower case for the same, and however long a key is."""
    keys = [ConfigKey("orders"), ConfigKey("ORDERS"), ConfigKey("x" * 128, "X" * 128, "y/" * 63 + "yy")]

    async def stage(store: JournalStore) -> None:
        for key in keys:
            await store.replace_draft(key, None, new_draft(key))

    run_on(place, stage)
    names = [path.name for path in (history(place) / "drafts").iterdir()]
    assert len({name.lower() for name in names}) == len(keys)
    assert all(len(name) < 150 for name in names)
    assert any(name.startswith("orders_default_main_") for name in names)


def test_a_commit_that_is_answered_has_been_synced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the file's content, then its name, then the directory that has the name, then the answer."""
    steps: list[str] = []
    sync, give_name = directory.sync, directory.give_name

    def noted_sync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def noted_name(grown: Path, path: Path) -> None:
        steps.append("name")
        give_name(grown, path)

    async def publish(store: JournalStore) -> None:
        monkeypatch.setattr(directory, "sync", noted_sync)
        monkeypatch.setattr(directory, "give_name", noted_name)
        await store.commit_version(new_version())
        steps.append("answer")

    run_on(place, publish)
    assert steps == ["file", "name", "directory", "answer"]


# --- damage ---


def test_a_flipped_bit_is_found_when_the_store_is_opened(place: Path) -> None:
    """Whichever file of the history it is in, the error names the file, and tells none of what it says."""
    run_on(place, fill)
    for path in [place / "store.json", *records(place)]:
        sound = path.read_bytes()
        for position in (0, len(sound) // 2, len(sound) - 1):
            path.write_bytes(sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :])
            with pytest.raises(StoreCorruptError) as found:
                run_on(place, nothing)
            assert path.name in str(found.value)
        path.write_bytes(sound)
    run_on(place, nothing)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_file_is_found_and_named(share: float, place: Path) -> None:
    """A record that was cut short, by a copy that was, say, is not taken for a shorter one."""
    run_on(place, fill)
    path = records(place)[2]
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(StoreCorruptError, match=rf"{path.name} is torn"):
        run_on(place, nothing)


def test_a_missing_record_is_found_and_named(place: Path) -> None:
    """Any but the newest, whose absence only the chain of the audit log can show."""
    run_on(place, fill)
    path = records(place)[1]
    path.unlink()
    with pytest.raises(StoreCorruptError, match=rf"{path.name} is missing"):
        run_on(place, nothing)


def test_a_foreign_file_is_found_and_named(place: Path) -> None:
    """Among the records there is nothing but records."""
    run_on(place, fill)
    for name in ("notes.txt", "0000000001.json~", "0000000000.json", "1.json"):
        path = history(place) / "log" / name
        path.write_text("{}")
        with pytest.raises(StoreCorruptError, match=f"{name} is not a file of this service"):
            run_on(place, nothing)
        path.unlink()


def test_a_record_of_another_store_is_found(place: Path, tmp_path: Path) -> None:
    """It is whole and bears the right number, and yet belongs elsewhere."""
    other = tmp_path / "other"
    run_on(place, fill)
    run_on(other, fill)
    shutil.copy(records(other)[2], records(place)[2])
    with pytest.raises(StoreCorruptError, match="revision 3 belongs to another store"):
        run_on(place, nothing)


def test_a_record_within_another_one_is_found(place: Path) -> None:
    """Two revisions of one commit stand in one file; there is none for the second."""
    run_on(place, fill)
    (history(place) / "log" / "0000000007.json").write_bytes(records(place)[0].read_bytes())
    with pytest.raises(StoreCorruptError, match=r"0000000007\.json does not belong there"):
        run_on(place, nothing)


def test_a_document_that_is_damaged_while_the_store_is_open_is_found_when_it_is_read(place: Path) -> None:
    """The checksum is looked at whenever a file is."""

    async def scenario(store: JournalStore) -> None:
        await fill(store)
        path = records(place)[0]
        sound = path.read_bytes()
        path.write_bytes(sound.replace(b"AAAA", b"AAAB", 1))
        with pytest.raises(StoreCorruptError, match=path.name):
            await store.version(ORDERS, 1)
        path.write_bytes(sound)

    run_on(place, scenario)


def test_a_directory_of_something_else_is_left_as_it_was(place: Path) -> None:
    """Neither files nor permissions of other people are ours to change."""
    place.mkdir(0o755)
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreCorruptError, match="other things"):
        run_on(place, nothing)
    assert [one.name for one in place.iterdir()] == ["thesis.tex"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_a_history_that_nothing_names_is_left_as_it_was(place: Path) -> None:
    """Where ``store.json`` is lost, or is that of another history, the store is refused and nothing is removed."""
    run_on(place, fill)
    named, files = (place / "store.json").read_bytes(), records(place)
    other = directory.spell({**directory.read_fields(place / "store.json"), "epoch": "0" * 24})
    (place / "store.json").unlink()
    with pytest.raises(StoreCorruptError, match=r"holds a history, and .*store\.json is missing"):
        run_on(place, nothing)
    (place / "store.json").write_bytes(other)
    with pytest.raises(StoreCorruptError, match=r"0{24}/log is missing"):
        run_on(place, nothing)
    assert records(place) == files
    (place / "store.json").write_bytes(named)
    run_on(place, nothing)


def test_a_backup_copied_over_another_history_does_not_remove_it(place: Path, tmp_path: Path) -> None:
    """Two histories with changes: which one is meant is not for the service to guess."""
    run_on(place, fill)
    run_on(tmp_path / "backup", fill)
    present = history(place)
    shutil.copytree(tmp_path / "backup", place, dirs_exist_ok=True)
    with pytest.raises(StoreCorruptError, match=rf"{present.name} holds a history, and .*does not name it"):
        run_on(place, nothing)
    shutil.move(present, tmp_path / "moved away")
    run_on(place, nothing)


def test_a_history_without_its_records_is_not_taken_for_a_new_one(place: Path) -> None:
    """Whether the directory of the records is gone, or all of the history: the error names what is missing."""
    run_on(place, fill)
    present = history(place)
    for lost in (present / "log", present):
        shutil.rmtree(lost)
        with pytest.raises(StoreCorruptError, match=f"{present.name}/log is missing"):
            run_on(place, nothing)


def test_a_store_of_a_newer_service_is_left_as_it_was(place: Path) -> None:
    """A format that this code does not know is not touched; the error says to upgrade."""
    run_on(place, fill)
    before = (place / "store.json").read_bytes()
    newer = directory.spell({**directory.read_fields(place / "store.json"), "format": 2})
    (place / "store.json").write_bytes(newer)
    with pytest.raises(StoreError, match="newer version of the service; upgrade"):
        run_on(place, nothing)
    assert (place / "store.json").read_bytes() == newer
    (place / "store.json").write_bytes(before)
    run_on(place, nothing)


def test_a_path_that_cannot_be_a_directory_is_refused(place: Path) -> None:
    """The error names the path and nothing hangs."""
    place.write_text("a file")
    with pytest.raises(StoreError, match="store"):
        run_on(place, nothing)


# --- what a crash leaves ---


def test_a_file_that_never_got_its_name_is_cleaned_away(place: Path) -> None:
    """A crash before the name means that nothing happened; after it, that all of it did."""
    run_on(place, fill)
    (place / "growing" / "0123456789abcdef").write_bytes(b"half a rec")
    run_on(place, nothing)
    assert list((place / "growing").iterdir()) == []


def test_a_draft_whose_removal_a_crash_prevented_is_gone_all_the_same(place: Path) -> None:
    """The record says that it was published, and the record is what counts."""
    run_on(place, fill)
    (path,) = (history(place) / "drafts").iterdir()
    left = path.read_bytes()

    async def publish(store: JournalStore) -> None:
        await store.commit_version(new_version(base=3, draft=b"sealed draft"))

    run_on(place, publish)
    path.write_bytes(left)

    async def look(store: JournalStore) -> None:
        assert await store.draft(ORDERS) is None
        assert [draft async for draft in store.drafts()] == []
        await store.replace_draft(ORDERS, None, new_draft(base=4, document=b"another"))
        assert await store.draft(ORDERS) == new_draft(base=4, document=b"another")

    run_on(place, look)


def test_what_an_interrupted_archive_has_left_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record says that it is archived; the document goes by the next archive, or when the store is opened."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, CANARY)

    async def interrupted(store: JournalStore) -> None:
        for key in (ORDERS, ConfigKey("billing")):
            for base in range(3):
                await store.commit_version(new_version(key, base, document=CANARY.encode()))
            with monkeypatch.context() as patch:
                patch.setattr("config_service.store.journal.files.replace", fail)
                with pytest.raises(StoreError):
                    await store.archive_versions(new_archive(1, 2, key=key))
            assert [bool(one.archived) for one in await store.versions(key)] == [True, True, False]
            archived = await store.version(key, 1)
            assert archived is not None
            assert (archived.document, archived.deleted) == (None, False)
        assert await store.archive_versions(new_archive(1, 2)) is None
        assert with_documents() == [3, 5, 6, 7]

    def with_documents() -> list[int]:
        return [number for number, path in enumerate(records(place), 1) if 'documents": {}' not in path.read_text()]

    run_on(place, interrupted)
    run_on(place, nothing)
    assert with_documents() == [3, 7]


def test_what_a_killed_restore_has_left_is_cleaned_away(place: Path, tmp_path: Path) -> None:
    """It stands beside the history that ``store.json`` names, in which nothing was ever changed."""
    run_on(place, nothing)
    run_on(tmp_path / "other", fill)
    shutil.copytree(history(tmp_path / "other"), place / ("f" * 24))
    run_on(place, nothing)
    assert not (place / ("f" * 24)).exists()


# --- failures ---


@pytest.mark.parametrize("step", ["sync", "give_name"])
def test_a_commit_that_fails_at_any_step_has_not_happened(
    step: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is typed and tells nothing of what was to be kept; the next commit takes the same revision."""
    secret = replace(new_token(CANARY, keys=(StoredKey(CANARY.encode()),)), secret_hash=CANARY.encode())

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, CANARY)

    async def scenario(store: JournalStore) -> None:
        await store.commit_version(new_version())
        with monkeypatch.context() as patch:
            patch.setattr(directory, step, fail)
            for change in (
                store.commit_version(new_version(base=1, document=CANARY.encode())),
                store.commit_token(secret),
            ):
                with pytest.raises(StoreError, match="Input/output error") as failure:
                    await change
                assert CANARY not in str(failure.value)
                assert failure.value.__context__ is None
            assert (await store.position()).revision == 1
        assert (await store.commit_version(new_version(base=1))).revision == 2
        assert list((place / "growing").iterdir()) == []

    run_on(place, scenario)


def test_a_directory_that_cannot_be_synced_takes_the_name_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not outlive a power cut was not acknowledged, and is not there afterwards either."""

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, str(path))

    async def scenario(store: JournalStore) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(directory, "sync_directory", fail)
            with pytest.raises(StoreError):
                await store.commit_version(new_version())
        assert records(place) == []
        assert (await store.commit_version(new_version())).revision == 1

    run_on(place, scenario)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, CANARY), StoreFullError, "inodes"),
        (OSError(errno.EDQUOT, CANARY), StoreFullError, "quota"),
        (OSError(errno.EFBIG, CANARY), StoreFullError, "file size limit"),
        (PermissionError(errno.EACCES, CANARY), StoreError, "Permission denied"),
        (PermissionError(errno.EPERM, CANARY), StoreError, "hard links"),
        (ValueError(CANARY), StoreError, "ValueError"),
    ],
)
def test_failures_are_typed_and_tell_nothing(error: Exception, kind: type[StoreError], text: str, place: Path) -> None:
    """The operating system's errors keep their meaning, the unforeseen only its type."""
    failure = FilesJournal(place).failure(error)
    assert type(failure) is kind
    assert text in str(failure)
    assert CANARY not in str(failure)


# --- exclusive use, and memory ---


def test_a_second_store_in_the_same_directory_is_refused(place: Path, tmp_path: Path) -> None:
    """By another name of the directory too; the error says what serves several processes."""
    alias = tmp_path / "alias"
    alias.symlink_to(place)

    async def scenario(store: JournalStore) -> None:
        for path in (place, alias):
            second = JournalStore(FilesJournal.from_url(f"file://{path}"))
            with pytest.raises(StoreLockedError, match=r"plain files serve one process: .* PostgreSQL"):
                await second.open()
            await second.close()

    run_on(place, scenario)


def test_the_log_is_told_beyond_what_memory_holds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older entries are read from their records, also from the middle of a commit of several."""
    monkeypatch.setattr("config_service.store.journal.state.RECENT", 3)

    async def scenario(store: JournalStore) -> None:
        await fill(store)
        for base in range(3, 8):
            await store.commit_version(new_version(base=base, kind=ChangeKind.PUBLISHED))
        for after in range(13):
            told = [entry.revision for entry in await store.log(after, 4)]
            assert told == list(range(after + 1, 13))[:4]

    run_on(place, scenario)


def test_a_cancelled_open_leaves_nothing_open(place: Path) -> None:
    """Whoever opens the store next finds it free."""

    async def scenario() -> None:
        store = store_in(place)
        task = asyncio.ensure_future(store.open())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await store.close()

    asyncio.run(scenario())
    run_on(place, nothing)
