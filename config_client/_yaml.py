"""Documents as YAML.

Knows how to write JSON values so that readers of YAML 1.1 (https://yaml.org/type/) and of the YAML 1.2 core schema
(§10.3) read the same. Knows nothing of configs. The only module of the SDK that imports ``yaml``.
"""

from __future__ import annotations

import re
import sys
from typing import Final

import yaml

from ._documents import DocumentError, walk

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# U+0085, U+2028 and U+2029 end a line in YAML 1.1 and not in 1.2; a byte-order mark may be dropped.
_ONE_LINE: Final = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What some reader takes for a boolean or null, in any case."""


def dump(document: dict[str, object]) -> bytes:
    """Return ``document`` as YAML in block style and UTF-8, keys in their order, no line folded.

    Raises DocumentError naming the path of a string or key that holds a lone surrogate: YAML readers refuse it.
    """
    for path, value in walk(document):
        if _SURROGATE.search(path) or (isinstance(value, str) and _SURROGATE.search(value)):
            raise DocumentError("half of a surrogate pair has no form in YAML; export JSON, or correct it", path)
    rendered: bytes = yaml.dump(
        document,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=sys.maxsize,
        encoding="utf-8",
    )
    return rendered


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper with a narrower idea of which strings need no quotes."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    """Return the style to ask PyYAML for; None: plain where its characters allow that, otherwise single quotes.

    Numbers, dates, ``.inf``, ``~``, ``=`` and ``<<`` all start with something else than a letter, in every version of
    YAML and in every dialect, so only words that start with a letter, ``_`` or ``/`` may go without quotes.
    """
    if _ONE_LINE.fullmatch(text):
        plain = (text[:1].isalpha() or text[:1] in ("_", "/")) and text.lower() not in _WORDS
        return None if plain else "'"
    return "|" if _is_simple_block(text) else '"'


def _is_simple_block(text: str) -> bool:
    """Return whether ``text`` is lines that a literal block holds without the help of indicators.

    Emitters and readers disagree about a leading space or empty line and about several line ends at the end. (PyYAML
    itself turns to double quotes when a line ends in a space.)
    """
    lines = text.removesuffix("\n").split("\n")
    return text[:1] not in (" ", "\n") and lines[-1] != "" and all(map(_ONE_LINE.fullmatch, lines))


_Dumper.add_representer(str, _represent_text)
