"""Documents in the formats that people and programs ask for: JSON, YAML, ENV.

Knows which bytes make a document and how to render one. Knows nothing of configs, transport or target types. Every
rendering is faithful or refused: what a reader would take for something else than was published is a DocumentError
that names the path. PyYAML is imported when YAML is first asked for.
"""

from __future__ import annotations

from . import _env
from ._documents import MAX_DEPTH, STACK_EXHAUSTED, DocumentError, parse
from .errors import ConfigClientError
from .types import Format

__all__ = ["MAX_DEPTH", "DocumentError", "parse_json_object", "render"]


def parse_json_object(raw: bytes, *, strict: bool) -> dict[str, object]:
    """Return the JSON object (RFC 8259) that ``raw`` holds in UTF-8.

    ``strict`` is for what is about to be published: it also refuses what other readers take in different ways, namely
    a byte-order mark, a key given twice and a number beyond the range of a double. Otherwise the mark is skipped, the
    last of equal keys wins and such a number is infinite, because a client reads what is already there.

    Raises DocumentError for anything else than one object, for NaN and Infinity, for integers of more than 4300
    digits and for nesting deeper than ``MAX_DEPTH``. No value of the document is in the error or its chain.
    """
    return parse(raw, strict=strict)


def render(raw: bytes, fmt: Format) -> bytes:
    """Return the published document ``raw`` in ``fmt``, in UTF-8.

    JSON: ``raw`` itself. YAML: in block style, in the document's order, read the same by YAML 1.1 and 1.2. ENV: lines
    ``NAME=value``, read the same by ``set -a; . ./file`` in ``sh`` and by python-dotenv; nested keys are joined with
    ``_`` and upper-cased, a list is JSON, null is empty, and an object without members is no variable.

    Raises DocumentError when ``raw`` is not a strict document, or naming the path of what has no faithful form in
    ``fmt``; ConfigClientError when PyYAML is needed and not installed.
    """
    if fmt is Format.JSON:
        return raw
    try:
        return _rendered(raw, fmt)
    except RecursionError:
        pass  # raised below, outside of this block, so that the error carries no frames of the renderer
    raise DocumentError(STACK_EXHAUSTED)


def _rendered(raw: bytes, fmt: Format) -> bytes:
    if fmt is Format.ENV:
        return _env.dump(parse(raw, strict=True, spelled=True))
    try:
        from . import _yaml  # noqa: PLC0415 - PyYAML takes long to import, and clients rarely need it
    except ModuleNotFoundError:
        raise ConfigClientError(
            "YAML needs PyYAML, which is not installed; install 'python-config-client[server]' or 'pyyaml'"
        ) from None
    return _yaml.dump(parse(raw, strict=True))
