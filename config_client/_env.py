r"""Documents as environment files, for ``sh`` and for python-dotenv.

Knows how both readers take a line ``NAME=value`` and writes only what they take for the same. Knows nothing of
configs. The rules of ``sh`` are POSIX.1-2017, Shell Command Language, §2.2 (quoting) and §2.5 (parameters), with
what dash and bash do beside them; those of python-dotenv are its parser's, with interpolation on:

=============  ======================================  ========================================
form           ``sh``                                  python-dotenv
=============  ======================================  ========================================
bare           blanks, quotes, ``$ \ ~`` … act         runs to the end of the line, or to ``#``
single-quoted  everything stands for itself            ``\\`` and ``\'`` are escapes
double-quoted  ``\`` escapes ``$``, a backtick, ``"``  ``\`` escapes ``"``, ``'``, ``\`` and
               and ``\``; the first two act otherwise  ``abfnrtv``
any            --                                      ``${…}`` is expanded afterwards
=============  ======================================  ========================================

python-dotenv opens a file with universal line ends, so that a carriage return never survives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from ._documents import DocumentError, Spelled, child, shown

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN: Final = frozenset(
    {
        "_",
        "BASHOPTS",
        "BASHPID",
        "COMP_WORDBREAKS",
        "DIRSTACK",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "EUID",
        "FUNCNAME",
        "GROUPS",
        "HISTCMD",
        "LINENO",
        "OPTIND",
        "PIPESTATUS",
        "PPID",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "SHLVL",
        "SRANDOM",
        "UID",
    }
)
"""Names whose value the shell computes, changes or protects in dash or bash, so that another one is not read back."""
_TAKEN_PREFIX: Final = "BASH_"

_BARE: Final = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# A reference of python-dotenv is "${", then no "}" and no ":", then "}" or ":-" with a "}" somewhere behind it.
# Stopping at the next "${" keeps the search linear and finds the same: what follows decides for both.
_REFERENCE: Final = re.compile(r"\$\{[^}:$]*(?:\$(?!\{)[^}:$]*)*(?:\}|:-)")


def dump(document: dict[str, object]) -> bytes:
    """Return ``document``, parsed with its numbers ``Spelled``, as lines ``NAME=value`` in UTF-8.

    Values are as long as they are: a system may refuse to start a program with a variable of 128 KiB or more.

    Raises DocumentError naming the path of a value without a form that both readers read back exactly, of a key that
    gives no usable name, or both paths when two give the same name.
    """
    paths: dict[str, str] = {}
    lines: list[str] = []
    for path, joined, value in _leaves(document, "", ""):
        name = _name(joined, path)
        if name in paths:
            raise DocumentError(f"becomes {name}, and so does {shown(paths[name])}; rename one of the keys", path)
        paths[name] = path
        lines.append(f"{name}={_form(value, path)}\n")
    return "".join(lines).encode()


def _leaves(value: object, path: str, joined: str) -> Iterator[tuple[str, str, object]]:
    """Yield path, joined keys and value of everything below ``value`` that is not an object.

    An object is not a value of its own here but the common beginning of names, so one without members yields nothing,
    as an empty document does. Any line for it would claim an empty string that was never published.
    """
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _leaves(member, child(path, key), f"{joined}_{key}" if path else key)
    else:
        yield path, joined, value


def _name(joined: str, path: str) -> str:
    # Checked ahead of upper-casing, which turns some letters outside ASCII into ASCII ones.
    if not _NAME.fullmatch(joined):
        raise DocumentError(
            "gives no variable name: keys take ASCII letters, digits and _, and the first one starts with no digit; "
            "rename the key, or export JSON or YAML",
            path,
        )
    name = joined.upper()
    if name in _TAKEN or name.startswith(_TAKEN_PREFIX):
        raise DocumentError(f"becomes {name}, which shells keep for themselves; rename the key", path)
    return name


def _form(value: object, path: str) -> str:
    if isinstance(value, list):
        text = _json(value)
        form = _quoted(text)
        return f"'{_guarded(text)}'" if form is None else form
    text = _scalar(value)
    form = _quoted(text)
    if form is None:
        raise DocumentError(
            f"no form is read back exactly by both sh and python-dotenv: it holds {_obstacle(text)}; "
            "change the value, or export JSON or YAML",
            path,
        )
    return form


def _scalar(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _quoted(text: str) -> str | None:
    """Return the plainest form of ``text`` that both readers read back exactly, or None when there is none."""
    if _BARE.fullmatch(text):
        return text
    if "\0" in text or "\r" in text or _SURROGATE.search(text) or _has_reference(text):
        return None
    if "'" not in text and "\\\\" not in text and not text.endswith("\\"):
        return f"'{text}'"
    if "$" not in text and "`" not in text:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return None


def _has_reference(text: str) -> bool:
    # Up to the last "}", so that one follows every ":-" that is found.
    return _REFERENCE.search(text, 0, text.rfind("}") + 1) is not None


def _obstacle(text: str) -> str:
    if "\0" in text:
        return "a NUL character"
    if "\r" in text:
        return "a carriage return"
    if _SURROGATE.search(text):
        return "half of a surrogate pair"
    if _has_reference(text):
        return "${…}, which python-dotenv expands inside any quotes"
    return "$ or ` together with a single quote, a double backslash or a backslash at its end"


def _json(value: object) -> str:
    """Return ``value`` as compact JSON, its numbers as they were published."""
    if isinstance(value, Spelled):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_json(key)}:{_json(member)}' for key, member in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _guarded(text: str) -> str:
    """Return JSON that reads as ``text`` does and is faithful in single quotes, whatever its strings hold.

    JSON can spell each character that stands in the way as an escape, so that a list always has a form.
    """
    text = text.replace("\\\\", "\\u005c").replace("'", "\\u0027").replace("${", "\\u0024{")
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
