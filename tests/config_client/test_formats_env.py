"""Documents as environment files: read back exactly by real shells and by python-dotenv, or refused by path."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config_client.formats import DocumentError, render
from config_client.types import Format


def _shells() -> dict[str, list[str]]:
    """Return how to start the shells of this machine that can stand for ``sh``: dash, bash, bash as ``sh``, …"""
    found: dict[str, list[str]] = {}
    for name in ("sh", "dash", "bash"):
        path = shutil.which(name)
        if path and all(os.path.realpath(path) != os.path.realpath(known) for known, *_ in found.values()):
            found[name] = [path]
    if "bash" in found:
        found["bash --posix"] = [*found["bash"], "--posix"]
    return found


SHELLS = _shells()

# The reader runs outside of any site packages, PYTHON* variables and PATH that a document may set.
READER = "import os,sys; sys.stdout.buffer.write(b''.join(k+b'='+v+b'\\0' for k,v in os.environb.items()))"

NASTY = "'\"\\$`{}:-! \n\t#=~*?[]()<>|&;%a1é\x01\x7f\x81\x88\u2028😀"
texts = st.text(alphabet=NASTY, max_size=12) | st.text(max_size=8) | st.text(alphabet="${}:-\\'\"", max_size=10)
numbers = st.sampled_from(["0", "-0", "1e3", "1E+3", "1.10", "9007199254740993", "-1.5e-7", "1" * 60])
scalars = st.none() | st.booleans() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=10
)


def to_env(document: object) -> bytes:
    """Return ``document`` as the environment file that its JSON is rendered to."""
    return render(json.dumps(document).encode(), Format.ENV)


def refusal(raw: bytes) -> DocumentError:
    """Return the error that rendering ``raw`` raises."""
    with pytest.raises(DocumentError) as caught:
        render(raw, Format.ENV)
    return caught.value


def read_by_shell(shell: str, file: Path, locale: str = "C.UTF-8") -> dict[str, str]:
    """Return the environment of a program that ``shell`` starts after sourcing ``file``."""
    script = 'set -a; . "$1"; exec "$2" -I -S -c "$3"'
    done = subprocess.run(
        [*SHELLS[shell], "-c", script, "sh", str(file), sys.executable, READER],
        env={"LC_ALL": locale, "PATH": os.defpath},
        capture_output=True,
        check=True,
        timeout=120,
    )
    return dict(item.split("=", 1) for item in done.stdout.decode("utf-8", "surrogateescape").split("\0") if item)


def assert_read_back(file: Path, rendered: bytes, expected: dict[str, str], locale: str = "C.UTF-8") -> None:
    """python-dotenv finds exactly ``expected`` in the file, and a program behind every shell finds it too."""
    file.write_bytes(rendered)
    assert dotenv_values(file, interpolate=True) == expected
    for shell in SHELLS:
        seen = read_by_shell(shell, file, locale)
        assert {name: seen.get(name) for name in expected} == expected, shell


def has_form(value: object) -> bool:
    """Return whether ``value`` can be rendered under a usable name."""
    try:
        to_env({"k": value})
    except DocumentError:
        return False
    return True


@pytest.mark.integration
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(strings=st.lists(texts, max_size=25), locale=st.sampled_from(["C", "C.UTF-8"]))
def test_whatever_is_rendered_is_read_back_by_shells_and_by_dotenv(
    strings: list[str], locale: str, tmp_path: Path
) -> None:
    """Every string of a document comes out of both readers exactly as it was published."""
    document = {f"k{index}": text for index, text in enumerate(strings) if has_form(text)}
    assert_read_back(
        tmp_path / "file.env", to_env(document), {name.upper(): text for name, text in document.items()}, locale
    )


@pytest.mark.integration
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(lists=st.lists(st.lists(values, max_size=4), min_size=1, max_size=8))
def test_every_list_is_read_back_as_its_json(lists: list[list[object]], tmp_path: Path) -> None:
    """No list is refused, whatever its strings hold, and both readers get JSON that means the same."""
    document = {f"k{index}": items for index, items in enumerate(lists)}
    file = tmp_path / "file.env"
    file.write_bytes(to_env(document))
    by_dotenv = dotenv_values(file)
    assert {name.upper() for name in document} == by_dotenv.keys()
    for name, items in document.items():
        assert json.dumps(json.loads(by_dotenv[name.upper()] or "")) == json.dumps(items)
    for shell in SHELLS:
        assert by_dotenv.items() <= read_by_shell(shell, file).items(), shell


@pytest.mark.integration
def test_every_short_text_has_a_form_or_none_is_possible(tmp_path: Path) -> None:
    """All texts of up to three awkward characters: what is accepted is read back, and what is refused has no form:
    none of the ways to quote it is read exactly by both."""
    alphabet = "'\"\\$`{} \n#n"
    accepted: list[str] = []
    refused: list[str] = []
    for length in range(4):
        for text in map("".join, itertools.product(alphabet, repeat=length)):
            (accepted if has_form(text) else refused).append(text)
    names = {f"K{index}": text for index, text in enumerate(accepted)}
    assert_read_back(tmp_path / "file.env", to_env(names), names)

    candidates: list[tuple[str, Path]] = []
    for index, text in enumerate(refused):
        backslashed = text.replace("\\", "\\\\")
        single, double = backslashed.replace("'", "\\'"), backslashed.replace('"', '\\"')
        dollars = double.replace("$", "\\$").replace("`", "\\`")
        forms = {text, f"'{text}'", f'"{text}"', f"'{single}'", f'"{double}"', f'"{dollars}"', single, dollars}
        for number, form in enumerate(sorted(forms)):
            file = tmp_path / f"{index}-{number}.env"
            file.write_bytes(f"K={form}\n".encode())
            if dotenv_values(file) == {"K": text}:
                candidates.append((text, file))
    assert refused
    assert candidates
    # One shell tries them all, each in a subshell, because most are syntax errors to it.
    script = 'for file do (K=; . "$file"; printf "%s" "$K") 2>/dev/null; printf "\\0"; done'
    # An unspecified "$" that stands for itself is a habit of shells and not a promise of POSIX.
    done = subprocess.run(
        [*SHELLS["sh"], "-c", script, "sh", *(str(file) for _, file in candidates)],
        env={},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=120,
    )
    readings = done.stdout.decode().split("\0")[:-1]
    assert len(readings) == len(candidates)
    faithful = {text for (text, _), reading in zip(candidates, readings, strict=True) if text == reading}
    assert {text for text in faithful if not re.search(r"\$(?![A-Za-z0-9_@*#?$!({-])", text)} == set()


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="${}:-a", max_size=12))
def test_only_what_dotenv_would_expand_is_refused_as_a_reference(text: str, tmp_path: Path) -> None:
    """The search for ``${…}`` agrees with python-dotenv's own, so that unfinished references are still exported."""
    file = tmp_path / "file.env"
    file.write_text(f"K='{text}'\n")
    # Whether or not a name is set, an expansion never gives its own text again.
    assert has_form(text) == (dotenv_values(file) == {"K": text})


def test_a_megabyte_of_unfinished_references_takes_linear_time() -> None:
    """The search for ``${…}`` does not start over at every dollar."""
    for text in ("${" * 500_000, "}" + "${:-" * 250_000, "${" * 300_000 + ":}", "${$" * 300_000 + ":x}"):
        assert to_env({"k": text}) == f"K='{text}'\n".encode()
    assert refusal(json.dumps({"k": "${" * 500_000 + "}"}).encode()).path == "/k"


def test_the_layout_follows_the_document() -> None:
    """Nested keys are joined and upper-cased in order; null is empty, lists are compact JSON, words need no quotes."""
    raw = rb"""{"db": {"host": "10.0.0.1", "Port": 5432, "options": {"ssl": true, "ca": null, "retry": false}},
        "hosts": ["a", {"b": [1.10, null]}], "empty": [], "name": "two words", "text": "", "_x": {"": {"y": "~"}}}"""
    assert render(raw, Format.ENV).decode() == (
        "DB_HOST=10.0.0.1\nDB_PORT=5432\nDB_OPTIONS_SSL=true\nDB_OPTIONS_CA=\nDB_OPTIONS_RETRY=false\n"
        """HOSTS='["a",{"b":[1.10,null]}]'\nEMPTY='[]'\nNAME='two words'\nTEXT=\n_X__Y='~'\n"""
    )


@pytest.mark.parametrize("document", [{}, {"a": {}}, {"a": {"b": {}, "c": {"d": {}}}}])
def test_objects_without_members_are_no_variables(document: object) -> None:
    """An object is only the beginning of names, so one without members adds none, at the top as below."""
    assert to_env(document) == b""


@pytest.mark.integration
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spellings=st.lists(numbers, min_size=1, max_size=10))
def test_numbers_keep_the_spelling_that_was_published(spellings: list[str], tmp_path: Path) -> None:
    """Trailing zeros, exponents and digits beyond a double's precision come through, also inside lists."""
    pairs = [f'"k{index}":{spelling},"l{index}":[{spelling}]' for index, spelling in enumerate(spellings)]
    expected = {f"K{index}": spelling for index, spelling in enumerate(spellings)}
    expected |= {f"L{index}": f"[{spelling}]" for index, spelling in enumerate(spellings)}
    assert_read_back(tmp_path / "file.env", render(f"{{{','.join(pairs)}}}".encode(), Format.ENV), expected)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a\0b", "a NUL character"),
        ("a\rb", "a carriage return"),
        ("a\r\nb", "a carriage return"),
        ("\ud800", "half of a surrogate pair"),
        ("x ${HOME} y", "python-dotenv expands"),
        ("${a:-b}", "python-dotenv expands"),
        ("it's $5", "$ or `"),
        ("it's `x`", "$ or `"),
        ("\\\\server\\$share", "$ or `"),
        ("$\\", "$ or `"),
    ],
)
def test_a_value_without_a_form_is_refused_by_path_and_reason(text: str, fragment: str) -> None:
    """The error names the path and what stands in the way, and repeats nothing of the value."""
    error = refusal(json.dumps({"a": {"b": f"canary{text}"}}).encode())
    assert error.path == "/a/b"
    assert str(error).startswith("/a/b: no form")
    assert fragment in str(error)
    assert "canary" not in f"{error!r} {vars(error)!r}"
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"a-b": 1}, "/a-b"),
        ({"a": {"b.c": 1}}, "/a/b.c"),
        ({"1a": 1}, "/1a"),
        ({"": 1}, "/"),
        ({"a b": 1}, "/a b"),
        ({"a\n": 1}, "/a\n"),
        ({"größe": 1}, "/größe"),
        ({"ſ": 1}, "/ſ"),
        ({"straße": 1}, "/straße"),
        ({"a=b": 1}, "/a=b"),
        ({"": {"1": [], "é": 1}}, "//é"),
    ],
)
def test_a_key_that_gives_no_variable_name_is_refused_by_path(document: object, path: str) -> None:
    """Also letters that upper-casing would turn into ASCII ones: nobody would look for them under that name."""
    error = refusal(json.dumps(document).encode())
    assert error.path == path
    assert "gives no variable name" in str(error)


@pytest.mark.parametrize(
    ("document", "first", "second"),
    [
        ({"a_b": 1, "a": {"b": 2}}, "/a_b", "/a/b"),
        ({"key": 1, "KEY": 2}, "/key", "/KEY"),
        ({"a": {"b_c": None}, "a_b": {"c": []}}, "/a/b_c", "/a_b/c"),
        ({"": {"a": 1}, "_a": 2}, "//a", "/_a"),
    ],
)
def test_two_paths_of_one_name_are_refused_naming_both(document: object, first: str, second: str) -> None:
    """Neither of two values that collide wins in silence."""
    error = refusal(json.dumps(document).encode())
    assert error.path == second
    assert first in str(error)
    assert second in str(error)


@pytest.mark.parametrize(
    "name",
    ["_", "uid", "EUID", "ppid", "random", "Seconds", "lineno", "shellopts", "optind", "groups", "shlvl", "bash_env"],
)
def test_names_that_shells_keep_for_themselves_are_refused(name: str) -> None:
    """dash or bash would compute, change or protect the value, or abort over it, instead of reading it back."""
    error = refusal(json.dumps({name: "x"}).encode())
    assert error.path == f"/{name}"
    assert "shells keep for themselves" in str(error)
    assert to_env({"app": {name: 1}}) == f"APP_{name.upper()}=1\n".encode()


@pytest.mark.integration
@pytest.mark.parametrize("text", ["", "7", "x y", "/nonexistent", "é:-1"])
def test_every_other_name_that_the_shells_know_is_read_back(text: str, tmp_path: Path) -> None:
    """PATH, IFS, LC_ALL and whatever else is spelled like a variable in a shell's program may be set."""
    names = {"PATH", "HOME", "IFS", "ENV", "PS4", "PWD", "OLDPWD", "LANG", "LC_ALL", "TERM", "TZ", "EXPORT", "IF"}
    for path, *_ in SHELLS.values():
        program = Path(path).read_bytes()
        names |= {match.decode() for match in re.findall(rb"(?<=\0)[A-Z_][A-Z0-9_]+(?=\0)", program)}
    expected = {}
    for name in sorted(names):
        try:
            to_env({name: text})
        except DocumentError:
            continue
        # The loader obeys LD_…, and the Python that reads the environment may set LC_CTYPE for itself (PEP 538).
        if not name.startswith("LD_") and name != "LC_CTYPE":
            expected[name] = text
    assert {"PATH", "IFS"} <= expected.keys()
    assert_read_back(tmp_path / "file.env", to_env(expected), expected)


@pytest.mark.integration
def test_values_larger_than_a_program_may_inherit_are_still_read_by_the_shell(tmp_path: Path) -> None:
    """The file has no limit of its own: half a megabyte of text with quotes and lines is read back exactly."""
    text = 'it\'s "one" line \\\\ of é\n' * 20_000
    file = tmp_path / "file.env"
    file.write_bytes(to_env({"big": text}))
    assert dotenv_values(file) == {"BIG": text}
    for shell in SHELLS:
        script = 'set -a; . "$1"; printf %s "$BIG"'
        done = subprocess.run(
            [*SHELLS[shell], "-c", script, "sh", str(file)], env={}, capture_output=True, check=True, timeout=30
        )
        assert done.stdout.decode() == text, shell
