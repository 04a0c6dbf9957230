"""The vectors of both sealed formats: made by another language, one file per outcome, and every one of them used."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client._payload import Expected, OpenedPayload, open_sealed
from config_client.crypto import Binding, Keyring, parse_encryption_key, seal_bound
from config_client.errors import ConfigClientError, DecryptionError, InvalidResponseError
from config_client.protocol import Position

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted(path.name for path in VECTORS.glob("v*.json"))
ERRORS: dict[str, type[ConfigClientError]] = {
    "DecryptionError": DecryptionError,
    "InvalidResponseError": InvalidResponseError,
}
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js 18 or later (Debian: apt-get install nodejs)")


def read(name: str) -> dict[str, object]:
    """Return one vector, and see that it holds what a vector holds and nothing that no test looks at."""
    vector: dict[str, object] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    given = {"description", "format", "keys", "payload", "expected", "require_bound"}
    opened = {"plaintext", "binding"} if vector["format"] == 2 else {"plaintext"}
    assert set(vector) in (given | opened, given | {"error", "says"})
    return vector


def position(fields: Mapping[str, str]) -> Position | None:
    """Return the position that a vector spells, or None."""
    return Position(fields["epoch"], int(fields["revision"])) if "epoch" in fields else None


def expectation(fields: Mapping[str, object]) -> Expected:
    """Return what a vector's payload was asked for, or told beside it."""
    known = {"name", "environment", "label", "version", "epoch", "revision", "at_least"}
    assert set(fields) <= known
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    seen = fields.get("at_least")
    return Expected(
        texts["name"],
        texts.get("environment"),
        texts.get("label"),
        int(texts["version"]) if "version" in texts else None,
        position(texts),
        position(seen) if isinstance(seen, dict) else None,
    )


def open_vector(vector: Mapping[str, object]) -> OpenedPayload:
    """Open a vector as a client would."""
    keys, payload, expected, encoding = (vector[name] for name in ("keys", "payload", "expected", "format"))
    assert isinstance(keys, list)
    assert isinstance(payload, str)
    assert isinstance(expected, dict)
    assert isinstance(encoding, int)
    ring = Keyring([parse_encryption_key(key) for key in keys])
    return open_sealed(
        ring,
        expectation(expected),
        bytes.fromhex(payload),
        encoding=encoding,
        require_bound=vector["require_bound"] is True,
    )


def test_there_are_110_vectors_of_every_kind() -> None:
    """None was lost, none lies there unread, and both formats have outcomes of both sorts."""
    assert len(FILES) == 110
    everything = {path.name for path in VECTORS.iterdir()}
    assert everything == {*FILES, "sealed_v1.json", "make.mjs", "open.mjs"}
    kinds = Counter((vector["format"], vector.get("error", "opens")) for vector in map(read, FILES))
    assert kinds == {
        (1, "opens"): 6,
        (1, "DecryptionError"): 15,
        (2, "opens"): 16,
        (2, "DecryptionError"): 71,
        (0, "InvalidResponseError"): 1,
        (3, "InvalidResponseError"): 1,
    }
    assert len({str(read(name)["description"]) for name in FILES}) > 100


@pytest.mark.parametrize("name", FILES)
def test_a_vector_has_the_outcome_that_it_names(name: str) -> None:
    """What opens gives these bytes and this binding; what does not gives this error, whose text holds no secret."""
    vector = read(name)
    if "plaintext" in vector:
        opened = open_vector(vector)
        assert opened.document.hex() == vector["plaintext"]
        if opened.binding is None:
            assert vector["format"] == 1
        else:
            binding = vector["binding"]
            assert isinstance(binding, dict)
            numbers = {part: int(binding[part]) for part in ("version", "revision")}
            assert opened.binding == Binding(**{**binding, **numbers})
        return
    error, says = vector["error"], vector["says"]
    assert isinstance(error, str)
    assert isinstance(says, str)
    with pytest.raises(ConfigClientError) as caught:
        open_vector(vector)
    assert type(caught.value) is ERRORS[error]
    assert says in str(caught.value)
    assert caught.value.__context__ is None
    assert "db1.example.com" not in str(caught.value)
    keys = vector["keys"]
    assert isinstance(keys, list)
    assert not [key for key in keys if key in str(caught.value) or repr(bytes.fromhex(key)) in str(caught.value)]


@pytest.mark.integration
@needs_node
def test_the_generator_makes_these_very_files(tmp_path: Path) -> None:
    """The files are what ``make.mjs`` writes: nobody edited one, and nobody edited the generator alone."""
    subprocess.run([str(NODE), str(VECTORS / "make.mjs"), str(tmp_path)], check=True, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (VECTORS / name).read_bytes(), name


def ask_node(questions: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return what Node's standard library makes of payloads of format 2."""
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run(
        [str(NODE), str(VECTORS / "open.mjs")],
        input=lines,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    answers: list[dict[str, object]] = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert len(answers) == len(questions)
    return answers


@pytest.mark.integration
@needs_node
def test_node_and_this_client_agree_on_every_vector_of_format_2() -> None:
    """A second reader, written from the specification, opens and refuses the same payloads."""
    vectors = [(name, read(name)) for name in FILES if read(name)["format"] == 2]
    answers = ask_node([{"keys": vector["keys"], "payload": vector["payload"]} for _, vector in vectors])
    for (name, vector), answer in zip(vectors, answers, strict=True):
        if "plaintext" in vector:
            assert answer == {"plaintext": vector["plaintext"], "binding": vector["binding"]}, name
        elif "the payload is bound to" not in failure(vector):
            assert "refused" in answer, name
        else:
            assert "plaintext" in answer, f"{name} authenticates, and is only not what was asked for"


def failure(vector: Mapping[str, object]) -> str:
    """Return the text of the error that a vector ends in."""
    with pytest.raises(ConfigClientError) as caught:
        open_vector(vector)
    return str(caught.value)


TEXTS = st.text(max_size=40) | st.text(alphabet="€", min_size=341, max_size=341)
NUMBERS = st.integers(0, 2**63 - 1)
BINDINGS = st.builds(Binding, TEXTS, TEXTS, TEXTS, TEXTS, NUMBERS, NUMBERS)


@pytest.mark.integration
@needs_node
@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(BINDINGS, st.binary(max_size=300), st.binary(min_size=32, max_size=32)), min_size=1, max_size=30)
)
def test_node_opens_what_this_package_seals(sealed: list[tuple[Binding, bytes, bytes]]) -> None:
    """The other direction: any document under any binding, sealed here, opens with another language's library."""
    questions: list[dict[str, object]] = [
        {"keys": [key.hex()], "payload": seal_bound(plaintext, key, binding).hex()}
        for binding, plaintext, key in sealed
    ]
    for (binding, plaintext, _), answer in zip(sealed, ask_node(questions), strict=True):
        told = {**binding._asdict(), "version": str(binding.version), "revision": str(binding.revision)}
        assert answer == {"plaintext": plaintext.hex(), "binding": told}
