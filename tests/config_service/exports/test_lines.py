"""The lines of an export, in the clear and sealed: as the page has them, and nothing is changed or cut unnoticed."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config_service.backup.chain import DamagedFileError
from config_service.cli.exits import CommandError
from config_service.cli.export_files import Written, open_export
from config_service.exports.lines import (
    DraftItem,
    Header,
    Item,
    SchemaItem,
    VersionItem,
    dump_end,
    dump_item,
    read_header,
    read_items,
)

OPERATIONS = (Path(__file__).parents[3] / "docs" / "OPERATIONS.md").read_text()
KEY = bytes(range(32))
AT = "2026-11-20T10:00:00+00:00"
PLACE = ("orders", "prod", "main")
ITEMS: list[Item] = [
    VersionItem(*PLACE, 7, "published", 3, AT, '{"port":5432}'),
    SchemaItem(*PLACE, 1, 3, AT, '{"required":["port"]}'),
    DraftItem(*PLACE, 7, 3, AT, '{"port":5433}'),
]
HEADER = Header("0192f3a4b5c6d7e8f9a0b1c2", 42, AT)
PLAIN = [HEADER.line(), *map(dump_item, ITEMS), dump_end(4)]


def sealed(lines: list[bytes] = PLAIN) -> list[bytes]:
    """Return the lines of the export as the command seals them."""
    made: list[bytes] = []
    written = Written(made.append, lambda _: None, KEY)
    whole = b"".join(lines)
    for start in range(0, len(whole), 7):
        written.take(whole[start : start + 7])
    assert written.finish()["sealed"] is True
    return made


def test_the_lines_are_as_the_page_has_them() -> None:
    """Every kind of line, member by member and value by value."""
    section = OPERATIONS.split("## Export and import", 1)[1].split("\n## ", 1)[0]
    shown = [json.loads(line) for line in re.findall(r"^    (\{.*\})$", section, re.MULTILINE)]
    assert shown == [json.loads(line) for line in PLAIN]
    assert [list(line) for line in shown] == [list(json.loads(line)) for line in PLAIN]


def test_what_was_written_is_read_back() -> None:
    """In the clear and sealed; tombstones, removals and unusual characters included."""
    items = [*ITEMS, VersionItem(*PLACE, 8, "deleted", 3, AT, None), SchemaItem(*PLACE, 2, 3, AT, None)]
    items.append(VersionItem("other", "prod", "a/b", 1, "published", 3, AT, '{ "ü\u2028": "\\n\t" }\r\n'))
    lines = [HEADER.line(), *map(dump_item, items), dump_end(7)]
    assert list(open_export(iter(lines), None)) == items
    assert list(open_export(iter(sealed(lines)), KEY)) == items


def test_a_sealed_line_is_as_the_page_has_it() -> None:
    """Opened here with the library alone: key, nonce and additional data as described."""
    first, *rest = sealed()
    header = json.loads(first)
    salt = bytes.fromhex(header["salt"])
    assert (header["sealed"], len(salt)) == (True, 32)
    derived = HKDF(SHA256(), 32, salt, b"config-service export v1").derive(KEY)
    opened = [
        AESGCM(derived).decrypt(number.to_bytes(12, "big"), b64decode(line), first)
        for number, line in enumerate(rest, start=2)
    ]
    assert opened == [line.rstrip(b"\n") for line in PLAIN[1:]]
    assert sealed()[0] != first


@pytest.mark.parametrize("place", range(5))
def test_a_sealed_line_that_is_missing_doubled_moved_or_foreign_is_noticed(place: int) -> None:
    """The header and the end included; a file that was cut, too."""
    lines, other = sealed(), sealed()
    damaged = [
        [*lines[:place], *lines[place + 1 :]],
        [*lines[: place + 1], *lines[place:]],
        [*lines[:place], other[place], *lines[place + 1 :]],
        lines[:place],
        [*lines[:place], lines[place][:-1]],
    ]
    if place < 4:
        damaged.append([*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]])
    for version in damaged:
        with pytest.raises(DamagedFileError):
            list(open_export(iter(version), KEY))


def test_a_byte_of_a_sealed_file_that_was_changed_is_noticed() -> None:
    """Any byte: the header is bound into every line."""
    whole = b"".join(sealed())
    for index in range(len(whole)):
        altered = whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :]
        with pytest.raises((DamagedFileError, CommandError)):
            list(open_export(iter(altered.splitlines(keepends=True)), KEY))


def test_a_sealed_file_opens_under_its_own_key_alone() -> None:
    """Another one is told as such, and so is none."""
    with pytest.raises(DamagedFileError, match="another key"):
        list(open_export(iter(sealed()), bytes(32)))
    with pytest.raises(CommandError, match="--key-file"):
        list(open_export(iter(sealed()), None))
    assert list(open_export(iter(PLAIN), KEY)) == ITEMS


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "no export"),
        (b"{}\n", "no export"),
        (b'{"format":"config-service backup","version":1}\n', "no export"),
        (HEADER.line().replace(b'"version":1', b'"version":2'), "newer version"),
        (HEADER.line().replace(b"42", b'"42"'), "cannot be read"),
        (replace(HEADER, sealed=True, salt="ab").line(), "cannot be read"),
        (replace(HEADER, sealed=True, salt="no hex").line(), "cannot be read"),
    ],
)
def test_another_file_is_told_apart(line: bytes, told: str) -> None:
    """By its first line."""
    with pytest.raises(DamagedFileError, match=told):
        list(open_export(iter([line, *PLAIN[1:]]), KEY))


@pytest.mark.parametrize(
    "line",
    [
        b"canary\n",
        b"[]\n",
        b'{"holiday":{}}\n',
        b'{"version":{}}\n',
        dump_item(ITEMS[0]).replace(b'"version":7', b'"version":"7"'),
        dump_item(ITEMS[0]).replace(b'"version":7', b'"version":true'),
        dump_item(ITEMS[0]).replace(b'"name":"orders",', b""),
        dump_item(ITEMS[0]).replace(b'"name"', b'"canary":1,"name"'),
        dump_item(ITEMS[2]).replace(b'"{\\"port\\":5433}"', b"null"),
        b'{"end":{"lines":"2"}}\n',
        b'{"end":{"lines":1}}\n',
    ],
)
def test_a_line_that_says_something_else_is_refused(line: bytes) -> None:
    """With its number and none of its content."""
    with pytest.raises(DamagedFileError) as caught:
        list(read_items([dump_item(ITEMS[0]), line], HEADER.line()))
    assert "canary" not in str(caught.value)


def test_the_header_is_read_back() -> None:
    """Every field."""
    assert read_header(HEADER.line()) == HEADER


@pytest.mark.parametrize("cut", [1, 20, len(b"".join(PLAIN)) - 20, len(b"".join(PLAIN)) - 1])
def test_an_answer_that_was_cut_is_no_export(cut: int) -> None:
    """Whether within a line or between two."""
    written = Written(lambda _: None, lambda _: None, None)
    written.take(b"".join(PLAIN)[:cut])
    with pytest.raises(DamagedFileError):
        written.finish()
