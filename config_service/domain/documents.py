"""What a config holds: a JSON object, kept and served byte for byte. Pure.

Knows which bytes may be published and how a published document is rendered. Knows nothing of keys, stores or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from config_client.formats import DocumentError, parse_json_object, render
from config_client.types import Format

from .errors import DocumentTooLargeError, InvalidDocumentError, NotRenderableError
from .keys import ConfigKey
from .records import ChangeKind, Version


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Document:
    """One version of a config with its document in the clear; ``content`` None is a tombstone.

    ``revision`` and ``timestamp`` are those from which on it is served: of a version that was published for later
    (``valid_from``) those of its activation. Not ``served``: it waits for that, and they are those of its publication.

    Its repr never shows the content. Versions never change, so two of them are compared by identity.
    """

    key: ConfigKey
    version: int
    revision: int
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    content: bytes | None
    source_version: int | None = None
    valid_from: datetime | None = None
    served: bool = True

    def __repr__(self) -> str:
        return f"Document({self.key}, version={self.version}, revision={self.revision}, deleted={self.deleted})"

    @property
    def deleted(self) -> bool:
        """Whether this version is a tombstone."""
        return self.content is None

    @property
    def moment(self) -> datetime:
        """From when on this version is, or was to be, served."""
        return self.valid_from or self.timestamp

    @classmethod
    def of(cls, version: Version, content: bytes | None) -> Document:
        """Return ``version`` with its opened ``content``."""
        return cls(
            key=version.key,
            version=version.version,
            revision=version.revision if version.activation is None else version.activation.revision,
            kind=version.kind,
            changed_by=version.changed_by,
            timestamp=version.timestamp if version.activation is None else version.activation.timestamp,
            content=content,
            source_version=version.source_version,
            valid_from=version.valid_from,
            served=version.served,
        )


def check_document(raw: bytes, limit: int) -> None:
    """Return when ``raw`` may be published: one strict JSON object of at most ``limit`` bytes.

    Raises DocumentTooLargeError or InvalidDocumentError, which point into the document and never repeat a value.
    """
    if len(raw) > limit:
        raise DocumentTooLargeError(f"the document has {len(raw)} bytes, over the limit of {limit}; split the config")
    try:
        parse_json_object(raw, strict=True)
    except DocumentError as error:
        message, path = str(error), error.path
    else:
        return
    raise InvalidDocumentError(message, path)


def render_document(raw: bytes, fmt: Format) -> bytes:
    """Return the published document ``raw`` as plaintext in ``fmt``.

    Raises NotRenderableError, naming the path of what has no faithful form in ``fmt``.
    """
    try:
        return render(raw, fmt)
    except DocumentError as error:
        message, path = str(error), error.path
    raise NotRenderableError(message, path)
