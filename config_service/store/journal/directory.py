"""Small files that outlive a power cut: each is written whole, synced, and only then given its name.

Knows bytes, names and permissions; nothing of what the files say. A checksum stands inside each, so that one that was
torn or edited is found.
"""

from __future__ import annotations

import json
import os
import secrets
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from ...domain.errors import StoreCorruptError

_MARK: Final = b',\n  "sha256": "'
"""What stands between that which the checksum covers, and the checksum."""
_END: Final = b'"\n}\n'


def spell(fields: Mapping[str, object]) -> bytes:
    """Return ``fields``, of which there is at least one, as JSON for human readers, with their checksum at its end."""
    text = json.dumps(fields, indent=2, ensure_ascii=False, default=lambda value: b64encode(value).decode("ascii"))
    content = text.encode().removesuffix(b"\n}")
    return content + _MARK + sha256(content).hexdigest().encode() + _END


def read_fields(path: Path) -> Mapping[str, object]:
    """Return the fields that the file spells. Raises StoreCorruptError, which names the file, or OSError."""
    data = path.read_bytes()
    content, mark, rest = data.rpartition(_MARK)
    if mark and rest == sha256(content).hexdigest().encode() + _END:
        with suppress(ValueError):
            fields = json.loads(data)
            if isinstance(fields, Mapping):
                return fields
    raise StoreCorruptError(
        f"{path} is torn, was edited, or is not a file of this service; put the original back, or restore a backup"
    )


def make_directory(path: Path) -> None:
    """Make ``path`` and the directories above it, as far as they are missing, for their owner alone."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        sync_directory(place.parent)


def write_new(path: Path, data: bytes, drafts: Path) -> bool:
    """Give ``data`` the name ``path`` unless it is taken (False). ``drafts`` is where the file grows.

    When this raises, there is no file of that name, unless removing it failed as well.
    """
    grown = _grow(data, drafts)
    try:
        give_name(grown, path)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            grown.unlink()
    try:
        sync_directory(path.parent)
    except OSError:
        path.unlink()
        raise
    return True


def give_name(grown: Path, path: Path) -> None:
    """Give a file its name, at once and for good. Raises FileExistsError when the name is taken."""
    os.link(grown, path)


def replace(path: Path, data: bytes, drafts: Path) -> None:
    """Put ``data`` where the file ``path`` is: after a crash there is either the one or the other."""
    grown = _grow(data, drafts)
    try:
        os.replace(grown, path)
    except OSError:
        with suppress(OSError):
            grown.unlink()
        raise
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove the file ``path``."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` outlive a power cut. (Windows opens no directories, and needs no such care.)"""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def _grow(data: bytes, drafts: Path) -> Path:
    path = drafts / secrets.token_hex(8)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            sync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    return path


def sync(descriptor: int) -> None:
    """Return once what was written to an open file or directory is on the medium. Raises OSError."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined,unused-ignore]
    except (ImportError, AttributeError, OSError):
        # Elsewhere than on macOS fsync itself reaches the medium.
        os.fsync(descriptor)
