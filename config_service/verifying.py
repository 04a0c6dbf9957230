"""Verifying a store: that its log is whole, in order and unaltered, and that the store holds what the log tells.

Knows the store, the vault and the chain. Changes nothing. Works on a store that is being written to: it looks at
everything up to the revision at which the log ended when it began.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from config_client.protocol import format_timestamp

from .beforehand import Before, fingerprint_of, made_by, makes_schema, makes_version, opened_keys, sealed_of
from .domain.errors import StoreCorruptError, WrongMasterKeyError
from .domain.keys import ConfigKey
from .domain.records import (
    Activation,
    BesideLog,
    ChangeKind,
    Head,
    KeyUse,
    LogEntry,
    Savepoint,
    StoredSchema,
    StoredToken,
    Version,
)
from .findings import Anchor, Finding, Progress, Report
from .security import fingerprints
from .security.at_rest import Vault
from .security.chain import Detail, same
from .store.protocol import ConfigStore

_PAGE: Final = 256
"""Log entries read at a time."""
_MOST: Final = 1000
"""Findings after which the rest is only counted: a store that was replaced is wrong everywhere."""
_SCHEDULES: Final = frozenset({ChangeKind.ACTIVATED, ChangeKind.SCHEDULE_CANCELLED})
_FIRST_KEYS: Final = [{"id": 1, "use": KeyUse.CHAIN.value}, {"id": 2, "use": KeyUse.ACTIVE.value}]
"""What a new store has, of which no entry tells."""
_ABOUT_KEYS: Final = frozenset(
    {
        ChangeKind.DATA_KEY_CREATED,
        ChangeKind.DATA_KEYS_DESTROYED,
        ChangeKind.MASTER_KEY_ROTATED,
        ChangeKind.AUDIT_STARTED,
    }
)


@dataclass
class _TokenState:
    """What the log has told of a token so far; a fingerprint is None where the log is too old to have one."""

    created: str | None = None
    keys: str | None = None
    revision: int = 0
    keys_revision: int = 0
    revoked: LogEntry | None = None


@dataclass
class _Seen:
    """What the log has told so far."""

    versions: dict[ConfigKey, int] = field(default_factory=dict)
    schemas: dict[ConfigKey, int] = field(default_factory=dict)
    tokens: dict[int, _TokenState] = field(default_factory=dict)
    marks: dict[tuple[ConfigKey, int], Version] = field(default_factory=dict)
    """Versions that say of themselves that they were activated or cancelled, until an entry says so."""
    gone: dict[tuple[ConfigKey, int], int] = field(default_factory=dict)
    """Versions that say of themselves that their document was archived, until an entry says so."""
    savepoints: dict[ConfigKey, dict[str, Savepoint]] = field(default_factory=dict)
    data_keys: object = field(default_factory=lambda: _FIRST_KEYS)
    data_keys_revision: int | None = None
    epoch: object = None


class Verification:
    """One verification of a store. ``run`` it once, then read ``report``."""

    def __init__(
        self,
        store: ConfigStore,
        vault: Vault,
        hold: Callable[..., Awaitable[None]],
        anchor: Anchor | None = None,
    ) -> None:
        """Verify ``store``; ``hold`` has the vault hold the keys of the sealed values that it is given."""
        self._store = store
        self._vault = vault
        self._hold = hold
        self._anchor = anchor
        self._findings: list[Finding] = []
        self._more = 0
        self._head = Head("", 0, None)
        self._seen = _Seen()
        self._beside: BesideLog | None = None
        """What the store had beside its log once the log was followed; None when it cannot be read."""

    @property
    def report(self) -> Report:
        """What was found so far; all of it once ``run`` has ended."""
        return Report(self._head, tuple(self._findings), self._more)

    async def run(self) -> AsyncIterator[Progress]:
        """Verify, and yield how far it is from time to time. Raises StoreError when the store cannot be read."""
        try:
            self._head = await self._store.head()
        except StoreCorruptError as error:
            self._find(None, f"{error}. Where the log ends is not known, and the rest was not verified")
            yield Progress(0, 0)
            return
        yield Progress(0, self._head.revision)
        async for progress in self._walk():
            yield progress
        await self._check_end()
        await self._read_beside()
        checks = (
            self._check_marks,
            self._check_gone,
            self._check_keys,
            self._check_extra_versions,
            self._check_extra_schemas,
            self._check_tokens,
            self._check_drafts,
            self._check_savepoints,
            self._check_last_token,
            self._check_master_key,
        )
        for check in checks:
            try:
                await check()
            except StoreCorruptError as error:
                self._find(None, str(error))
        yield Progress(self._head.revision, self._head.revision)

    def _find(self, revision: int | None, what: str) -> None:
        if len(self._findings) < _MOST:
            self._findings.append(Finding(revision, what))
        else:
            self._more += 1

    # Along the log

    async def _walk(self) -> AsyncIterator[Progress]:
        """Follow the log from the first revision to the head."""
        before: Before | None = Before(self._vault)
        previous: bytes | None = None
        revision, last = self._head.revision and 1, self._head.revision
        whole = True
        while 0 < revision <= last:
            page = await self._page(revision, last)
            if page is None:
                self._find(revision, "the entry cannot be read: it was altered")
                revision, whole = revision + 1, False
                continue
            for entry in page:
                if entry.revision > revision:
                    self._find_missing(revision, entry.revision - 1)
                    whole = False
                revision = entry.revision + 1
                made = await self._made(entry)
                if entry.link is None and before is not None:
                    self._check_unlinked(entry, made, before)
                else:
                    self._check_linked(entry, made, previous, before, whole=whole)
                    before = None
                previous, whole = entry.link or previous, True
                if self._anchor is not None and self._anchor.revision == entry.revision:
                    self._check_anchor(entry, self._anchor)
            if not page:
                self._find_missing(revision, last)
                revision = last + 1
            yield Progress(min(revision - 1, last), last)
        if before is not None and last:
            self._find(last, "no entry of the log is linked: the links were taken out")
        if not same(previous, self._head.link):
            self._find(last, "the newest link is not that of the newest entry: the end of the log was cut or altered")

    async def _page(self, revision: int, last: int) -> list[LogEntry] | None:
        """Return the next entries from ``revision`` to ``last``; None when the very next one cannot be read."""
        limit = _PAGE
        while True:
            try:
                page = await self._store.log(revision - 1, min(limit, last - revision + 1))
            except StoreCorruptError:
                if limit == 1:
                    return None
                limit //= 2
            else:
                return [entry for entry in page if entry.revision <= last]

    async def _made(self, entry: LogEntry) -> Version | StoredSchema | None:
        try:
            made = await made_by(self._store, entry)
        except StoreCorruptError as error:
            self._find(entry.revision, str(error))
            return None
        await self._hold(sealed_of(made))
        return made

    def _find_missing(self, first: int, last: int) -> None:
        if first == last:
            self._find(first, "the entry is missing: it was removed")
        else:
            self._find(first, f"the entries from here to revision {last} are missing: they were removed")

    def _check_unlinked(self, entry: LogEntry, made: Version | StoredSchema | None, before: Before) -> None:
        """Look at an entry from before the chain; the first linked one tells whether all of them are as they were."""
        self._follow(entry, made, {})
        try:
            before.add(entry, made)
        except StoreCorruptError as error:
            self._find(entry.revision, str(error))

    def _check_linked(
        self,
        entry: LogEntry,
        made: Version | StoredSchema | None,
        previous: bytes | None,
        before: Before | None,
        *,
        whole: bool,
    ) -> None:
        """Look at an entry of the chain. Without the ``whole`` of what is before it, its link cannot be told."""
        chain = self._vault.chain
        if entry.link is None:
            self._find(entry.revision, "the entry has no link: it was inserted, or its link was taken out")
        elif whole and not same(chain.link(entry, previous), entry.link):
            self._find(
                entry.revision, "the entry does not follow from the one before it: it was altered, inserted or moved"
            )
        detail = chain.detail(entry)
        if detail is None:
            self._find(entry.revision, "the detail of the entry does not open: it was altered, moved or taken out")
        elif entry.kind is ChangeKind.AUDIT_STARTED:
            self._check_started(entry, detail, before)
        elif before is not None and entry.revision > 1:
            self._find(entry.revision, "the entries before this one have no links: they were inserted or altered")
        self._follow(entry, made, detail or {})
        self._seen.epoch = (detail or {}).get("epoch", self._seen.epoch)

    def _check_started(self, entry: LogEntry, detail: Detail, before: Before | None) -> None:
        if before is None or detail.get("before") != entry.revision - 1 or detail.get("digest") != before.hexdigest():
            self._find(
                entry.revision,
                "what was there before the log was chained is not what it was: an entry before this one, or what it "
                "made, was altered, removed or inserted",
            )
        tokens = detail.get("tokens")
        for token_id, told in tokens.items() if isinstance(tokens, dict) else ():
            state = self._seen.tokens.setdefault(int(token_id), _TokenState())
            state.created, state.keys, state.keys_revision = told["fingerprint"], told["keys"], entry.revision

    def _check_anchor(self, entry: LogEntry, anchor: Anchor) -> None:
        if not same(entry.link, anchor.link):
            self._find(entry.revision, "the entry is not the one of the anchor: history was rewritten since")

    # What the log tells, and what the store has

    def _follow(self, entry: LogEntry, made: Version | StoredSchema | None, detail: Detail) -> None:
        """Hold what the store has against what ``entry`` tells."""
        if makes_version(entry) or makes_schema(entry):
            self._follow_made(entry, made, detail)
        elif entry.token_id is not None:
            self._follow_token(entry, entry.token_id, detail)
        elif entry.kind is ChangeKind.ARCHIVED and entry.key is not None:
            self._follow_archive(entry, entry.key)
        elif entry.kind in {ChangeKind.SAVEPOINT_SET, ChangeKind.SAVEPOINT_REMOVED} and entry.key is not None:
            self._follow_savepoint(entry, entry.key)
        elif entry.kind in _SCHEDULES and entry.key is not None and entry.version is not None:
            self._follow_schedule(entry, entry.key, entry.version)
        if "data_keys" in detail:
            self._seen.data_keys, self._seen.data_keys_revision = detail["data_keys"], entry.revision

    def _follow_made(self, entry: LogEntry, made: Version | StoredSchema | None, detail: Detail) -> None:
        if entry.key is None:
            return
        number, counts, what = (
            (entry.version, self._seen.versions, f"{entry.key} version {entry.version}")
            if entry.schema is None
            else (entry.schema, self._seen.schemas, f"schema {entry.schema} of {entry.key}")
        )
        counts[entry.key] = counts.get(entry.key, 0) + 1
        if number != counts[entry.key]:
            self._find(entry.revision, f"{what} is out of order: {counts[entry.key]} was to come")
        if made is None:
            self._find(entry.revision, f"{what} is not in the store: it was removed")
            return
        gone = isinstance(made, Version) and made.archived is not None
        try:
            # Of what is archived nothing is left that could be altered but what the entry tells, which is looked at.
            fingerprint = None if gone else fingerprint_of(self._vault, made)
        except StoreCorruptError as error:
            self._find(entry.revision, str(error))
            return
        if isinstance(made, Version) and made.archived is not None:
            self._seen.gone[made.key, made.version] = made.archived
        if isinstance(made, Version) and (made.activation is not None or made.cancelled is not None):
            self._seen.marks[made.key, made.version] = made
        told = (made.revision, made.changed_by, made.timestamp)
        if told != (entry.revision, entry.changed_by, entry.timestamp) or (
            isinstance(made, Version) and made.kind is not entry.kind
        ):
            self._find(entry.revision, f"{what} is not as the log tells it: it was altered")
        elif not gone and entry.link is not None and detail and not same(_text(detail.get("fingerprint")), fingerprint):
            self._find(entry.revision, f"{what} is not what was committed: it was altered")

    def _follow_schedule(self, entry: LogEntry, key: ConfigKey, number: int) -> None:
        version = self._seen.marks.get((key, number))
        activated = entry.kind is ChangeKind.ACTIVATED
        told = (Activation(entry.revision, entry.timestamp), None) if activated else (None, entry.revision)
        if version is None or (version.activation, version.cancelled) != told:
            what = "activated" if activated else "cancelled"
            self._find(
                entry.revision, f"{key} version {number} was {what} by the log, and is not in the store: altered"
            )
        self._seen.marks.pop((key, number), None)

    def _follow_archive(self, entry: LogEntry, key: ConfigKey) -> None:
        for number in entry.archived or ():
            if self._seen.gone.pop((key, number), None) != entry.revision:
                self._find(
                    entry.revision,
                    f"{key} version {number} was archived by the log, and is not so in the store: altered",
                )

    def _follow_savepoint(self, entry: LogEntry, key: ConfigKey) -> None:
        named = self._seen.savepoints.setdefault(key, {})
        named.pop(entry.savepoint or "", None)
        if entry.kind is ChangeKind.SAVEPOINT_SET and entry.savepoint is not None and entry.version is not None:
            savepoint = Savepoint.of(entry)
            named[savepoint.name] = savepoint

    def _follow_token(self, entry: LogEntry, token_id: int, detail: Detail) -> None:
        state = self._seen.tokens.setdefault(token_id, _TokenState())
        if entry.kind is ChangeKind.TOKEN_REVOKED:
            state.revoked = entry
            return
        if entry.kind is ChangeKind.TOKEN_CREATED:
            state.created, state.revision = _text(detail.get("fingerprint")), entry.revision
        state.keys, state.keys_revision = _text(detail.get("keys")), entry.revision

    # At the end

    async def _check_end(self) -> None:
        """Nothing stands behind the head, and the head is not before the anchor."""
        head = self._head
        if self._anchor is not None and self._anchor.revision > head.revision:
            self._find(
                head.revision,
                f"the store ends here, before revision {self._anchor.revision} of the anchor: it was rolled back, or "
                "its end was cut",
            )
        try:
            behind = [entry.revision for entry in await self._store.log(head.revision, _PAGE)]
            newest = await self._store.head()
        except StoreCorruptError as error:
            self._find(head.revision, f"what stands behind the end of the log cannot be read: {error}")
            return
        for revision in behind:
            if revision > newest.revision:
                self._find(
                    revision, "the entry stands behind the end of the log: it was inserted, or the end was moved"
                )
        if self._seen.epoch is not None and head.epoch != self._seen.epoch:
            self._find(head.revision, "the epoch of the store is not the one of its newest entry: it was altered")

    async def _read_beside(self) -> None:
        try:
            self._beside = await self._store.beside_log()
        except StoreCorruptError as error:
            self._find(None, str(error))

    async def _check_marks(self) -> None:
        """No version says that it was activated or cancelled where the log does not."""
        later = {(one.key, one.version, one.revision) for one in await self._since(lambda one: one.kind in _SCHEDULES)}
        for (key, number), version in self._seen.marks.items():
            at = version.cancelled or (version.activation.revision if version.activation else 0)
            if (key, number, at) not in later:
                self._find(
                    version.revision,
                    f"{key} version {number} was activated or cancelled by no entry of the log: altered",
                )

    async def _check_gone(self) -> None:
        """No document is missing that the log does not tell of as archived."""
        later = {
            (one.key, number, one.revision)
            for one in await self._since(lambda one: one.kind is ChangeKind.ARCHIVED)
            for number in one.archived or ()
        }
        for (key, number), revision in self._seen.gone.items():
            if (key, number, revision) not in later:
                at = min(revision, self._head.revision)
                self._find(at, f"{key} version {number} was archived by no entry of the log: it was removed")

    async def _check_savepoints(self) -> None:
        """The savepoints are those that the log leads to, of whichever config."""
        named = frozenset() if self._beside is None else self._beside.named
        differing: list[tuple[ConfigKey, str]] = []
        for key in sorted(self._seen.versions.keys() | named):
            what = f"the savepoints of {key} are not those that the log tells of: altered"
            try:
                held = {one.name: one for one in await self._store.savepoints(key)}
            except StoreCorruptError as error:
                differing.append((key, f"{what} ({error})"))
                continue
            if held != self._seen.savepoints.get(key, {}):
                differing.append((key, what))
        # Asked for last, so that whatever was set meanwhile is among them.
        changed = {entry.key for entry in await self._since(lambda entry: entry.savepoint is not None)}
        for key, what in differing:
            if key not in changed:
                self._find(None, what)

    async def _check_last_token(self) -> None:
        """The highest id of a token is that of the log: from a lower one an id would be given twice."""
        if self._beside is None:
            return
        last = self._beside.last_token_id
        created = await self._since(lambda entry: entry.kind is ChangeKind.TOKEN_CREATED)
        told = max(self._seen.tokens, default=0)
        if last not in {told, *(entry.token_id for entry in created)}:
            self._find(
                None, f"the last token id of the store (history.last_token_id) is {last}, by the log {told}: altered"
            )

    async def _check_master_key(self) -> None:
        """The check value is there, and opens under the master key."""
        if self._beside is None or await self._since(lambda entry: entry.kind in _ABOUT_KEYS):
            return
        check = self._beside.seal_check
        if check is None:
            self._find(None, "the check value of the master key (history.seal_check) is missing: it was removed")
            return
        try:
            self._vault.verify_check(check)
        except WrongMasterKeyError:
            self._find(
                None, "the check value of the store (history.seal_check) does not open under the master key: altered"
            )

    async def _check_keys(self) -> None:
        """The keys of the store are those that the log told of last."""
        keys = await self._store.keys()
        if await self._since(lambda entry: entry.kind in _ABOUT_KEYS):
            return
        if [{"id": key.id, "use": key.use.value} for key in keys] != self._seen.data_keys:
            self._find(self._seen.data_keys_revision, "the data keys are not those that the log told of: altered")
        for key in keys:
            try:
                self._vault.master_keys.unwrap(key)
            except StoreCorruptError as error:
                self._find(self._seen.data_keys_revision, str(error))

    async def _check_extra_versions(self) -> None:
        """No version is there that the log does not tell of."""
        async for newest in self._store.newest_versions():
            known = self._seen.versions.get(newest.key, 0)
            if newest.version != known:
                for info in await self._store.versions(newest.key):
                    if info.version > known:
                        await self._check_untold(info.revision, f"{info.key} version {info.version}")

    async def _check_extra_schemas(self) -> None:
        """No schema is there that the log does not tell of."""
        async for newest in self._store.newest_schemas():
            known = self._seen.schemas.get(newest.key, 0)
            if newest.number != known:
                for info in await self._store.schemas(newest.key):
                    if info.number > known:
                        await self._check_untold(info.revision, f"schema {info.number} of {info.key}")

    async def _check_untold(self, revision: int, what: str) -> None:
        """Find ``what``, unless it was committed while this verification went on."""
        if revision <= self._head.revision or revision > (await self._store.head()).revision:
            self._find(revision, f"{what} is told by no entry of the log: it was inserted")

    async def _check_tokens(self) -> None:
        """Every token is as it was created, with the keys that it was given last, and there is no other one."""
        try:
            tokens = {token.id: token for token in await self._store.tokens()}
        except StoreCorruptError as error:
            self._find(None, str(error))
            return
        changed = {entry.token_id for entry in await self._since(lambda entry: entry.token_id is not None)}
        await self._hold(*(key.sealed for token in tokens.values() for key in token.keys))
        for token_id, state in self._seen.tokens.items():
            token = tokens.pop(token_id, None)
            if token is None:
                self._find(state.revision or None, f"token {token_id} is not in the store: it was removed")
            elif token_id not in changed:
                self._check_token(token, state)
        for token_id in tokens.keys() - changed:
            self._find(None, f"token {token_id} is told by no entry of the log: it was inserted")

    def _check_token(self, token: StoredToken, state: _TokenState) -> None:
        chain = self._vault.chain
        if state.created is not None and not same(state.created, fingerprints.of_token(chain, token)):
            self._find(state.revision or None, f"token {token.id} is not what was created: it was altered")
        revoked_at = None if state.revoked is None else state.revoked.timestamp
        if token.revoked_at != revoked_at:
            when = "not revoked" if revoked_at is None else f"revoked at {format_timestamp(revoked_at)}"
            at = state.revision if state.revoked is None else state.revoked.revision
            self._find(at or None, f"token {token.id} is {when} by the log, and otherwise in the store: it was altered")
        try:
            keys = opened_keys(self._vault, token)
        except StoreCorruptError as error:
            self._find(state.keys_revision or None, str(error))
            return
        if state.keys is not None and not same(state.keys, fingerprints.of_keys(chain, keys)):
            self._find(state.keys_revision or None, f"the keys of token {token.id} are not those that it was given")

    async def _check_drafts(self) -> None:
        """Every draft opens. The log does not tell of drafts, so one that was removed is not missed."""
        async for draft in self._store.drafts():
            try:
                await self._hold(draft.document)
                self._vault.open_draft(draft.document, draft.key, draft.base)
            except StoreCorruptError as error:
                self._find(None, str(error))

    async def _since(self, wanted: Callable[[LogEntry], bool]) -> list[LogEntry]:
        """Return the entries of changes made since this verification began that are ``wanted``."""
        found: list[LogEntry] = []
        after = self._head.revision
        while page := await self._store.log(after, _PAGE):
            found += filter(wanted, page)
            after = page[-1].revision
        return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
