"""Publishing what an export says, item by item, such that doing it again changes nothing.

Knows the management API. A config's versions in the file are held against those of the service, from the first one on:
as long as they are the same nothing is done; where the service has no more, the rest is published; where the two differ
the config is left as it is, unless it is to be replaced. Schemas go by the same rule.
"""

from __future__ import annotations

from ..domain.keys import ConfigKey
from ..exports.lines import DraftItem, Item, SchemaItem, VersionItem
from .held import Outcome, Place, Schemas, Sequence, Versions
from .manage import ManageApi


class Import:
    """One import under way. The items of one config come together: versions, schemas, draft."""

    def __init__(self, service: ManageApi, *, dry_run: bool, replace: bool) -> None:
        self._service = service
        self._replace = replace
        self._outcome = Outcome(dry_run)
        self._config: _Config | None = None

    def take(self, item: Item) -> None:
        """Publish ``item`` where it is missing.

        Raises CommandError, which names the config, or InvalidRequestError for what is no name; nothing is undone.
        """
        key = ConfigKey.of(item.name, item.environment, item.label)
        if self._config is None or self._config.key != key:
            self._end_config()
            self._config = _Config(self._service, key, self._outcome)
        self._config.take(item)

    def finish(self) -> Outcome:
        """End the last config, and return what was done. Raises CommandError."""
        self._end_config()
        return self._outcome

    def _end_config(self) -> None:
        config, self._config = self._config, None
        if config is None:
            return
        if self._replace:
            config.replace()
        if config.draft_differs or (config.differs and not self._replace):
            self._outcome.left_alone.append(str(config.key))


class _Config:
    """One config of the file, and what the service has of it."""

    def __init__(self, service: ManageApi, key: ConfigKey, outcome: Outcome) -> None:
        outcome.counts["configs"] += 1
        self.key = key
        self._place = Place(service, key, outcome)
        self._versions: Sequence[VersionItem] | None = None
        self._schemas: Sequence[SchemaItem] | None = None
        self.draft_differs = False
        """Whether the service has another draft, which somebody may be at work on: it is never replaced."""

    @property
    def differs(self) -> bool:
        """Whether the service has other versions or schemas than the file."""
        return any(sequence is not None and sequence.differs for sequence in (self._versions, self._schemas))

    def take(self, item: Item) -> None:
        """Publish ``item`` where it is missing. Raises CommandError."""
        match item:
            case VersionItem():
                self._versions = self._versions or Versions(self._place)
                self._versions.take(item)
            case SchemaItem():
                self._schemas = self._schemas or Schemas(self._place)
                self._schemas.take(item)
            case DraftItem():
                self._take_draft(item)

    def replace(self) -> None:
        """Publish the newest of the file over what is here. Raises CommandError."""
        for sequence in (self._versions, self._schemas):
            if sequence is not None and sequence.differs:
                sequence.replace()

    def _take_draft(self, item: DraftItem) -> None:
        here = self._place.fetch("draft/document")
        if here is not None:
            self.draft_differs = here != item.document
            self._place.outcome.counts["drafts unchanged"] += not self.draft_differs
            return
        base = 0 if self._versions is None else self._versions.here(item.base)
        query = {} if base is None else {"base": str(base)}
        self._place.change("PUT", "draft", body=item.document, query=query)
        self._place.outcome.counts["drafts set"] += 1
