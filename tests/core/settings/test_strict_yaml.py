from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmfw.core.errors import UsageError
from llmfw.core.settings.strict_yaml import MAX_BYTES, MAX_DEPTH, dump, load, load_file, parse_value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(
        ["yes", "on", "010", "1e-5", "12:30:00", "<<", "=", "~", "null", "2024-01-01", "1_0", "0o7"]
    )
)
KEYS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def refusal(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(text, file="a.yaml")
    return caught.value


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
@example({"a": "x\n", "b": " \n", "c": "\u2028", "d": "\x85", "e": "\ufeff", "f": "a\n b\n\n", "g": "\t"})
def test_what_is_dumped_is_read_back_with_the_same_types(value: dict[str, object]) -> None:
    assert repr(load(dump(value)).data if value else {}) == repr(value)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="ab:[]{}&*!|>'\"#%@-? \n\t,<=~.0123", max_size=40))
def test_any_text_is_a_document_or_a_refusal_in_one_line(text: str) -> None:
    refused: list[str] = []
    for read in (lambda: load(text, file="a.yaml"), lambda: parse_value(text, key="a.b")):
        try:
            read()
        except UsageError as error:
            refused.append(str(error))
    assert all(line.startswith("error[CONFIG-") and "\n" not in line for line in refused)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-0", 0), ("+3", 3), ("0x1F", 31),
        ("0o17", 15), (".inf", math.inf), ("-.inf", -math.inf), ("~", None), ("null", None), ("", None),
        ("true", True), ("FALSE", False),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = load(f"k: {text}").data["k"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "no", "on", "off", "y", "010", "-01", "007.5", "12:30:00", "1_000", "2024-01-01"),
        *("nan", "inf", "=", "0b1", "1e999"),
    ],
)
def test_what_yaml_1_1_would_reinterpret_stays_text(text: str) -> None:
    assert load(f"k: {text}").data["k"] == text
    assert parse_value(text, key="k").data == text


def test_nan_is_a_float() -> None:
    assert math.isnan(load("k: .nan").data["k"])


def test_every_key_and_item_knows_its_line_and_its_text() -> None:
    document = load("# c\na:\n  b: 1e-5\n  c:\n  - x\n  - 'y'\n")
    assert {key: document.lines[key] for key in ("a", "a.b", "a.c", "a.c[1]")} == {
        "a": 2,
        "a.b": 3,
        "a.c": 4,
        "a.c[1]": 6,
    }
    assert document.texts == {"a.b": "1e-5", "a.c[0]": "x"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "stands twice (first on line 1)"),
        ("a:\n  x: 1\n  x: 2", 3, "stands twice"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", 2, "tag"),
        ("a: !!str 1", 1, "tag"),
        ("a: ! x", 1, "tag"),
        ("x: &x {a: 1}\ny:\n  <<: *x", 3, "merge keys"),
        ("1: a", 1, "isn't text"),
        ("a: 1\ntrue: b", 2, "isn't text"),
        ("? [a]\n: b", 1, "a key must be text"),
        ("a: {{ b }}", 1, "a key must be text"),
        ("a: 1\n\tb: 2", 2, "tab"),
        ("a: &a [*a]", 1, "contains itself"),
        ("a: *b", 1, "no anchor"),
        ("a: &x 1\nb: &x 2", 2, "defined twice"),
        ("%YAML 1.1\n---\na: 1", 1, "directives"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: b: c", 1, "mapping values"),
        ("a: [1\n", 2, "expected ',' or ']'"),
        ("a: 1\nb: \x07", 2, "U+0007"),
        ("a: " + "[" * (MAX_DEPTH + 1), 1, "levels deep"),
        ('"": 1', 1, "empty"),
    ],
)  # fmt: skip
def test_what_the_strict_kind_lacks_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    error = refusal(text)
    assert (error.exit_code, error.file, error.line) == (2, "a.yaml", line)
    assert words in error.what


def test_a_duplicate_deep_inside_is_named_by_its_dotted_key() -> None:
    assert refusal("a:\n  b:\n    c: 1\n    c: 2").key == "a.b.c"


def test_a_thousand_million_laughs_are_refused_without_laughing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "aliases" in refusal("\n".join(lines)).what


def test_aliases_that_pile_up_depth_are_refused() -> None:
    deep = "[" * 30 + "x" + "]" * 30
    assert "levels deep" in refusal(f"a: &a {deep}\nb: {'[' * 30}*a{']' * 30}").what


def test_aliases_give_independent_copies() -> None:
    data = load("a: &a [1]\nb: *a").data
    data["a"].append(2)
    assert data["b"] == [1]


def test_a_hash_or_a_colon_is_text_on_the_command_line() -> None:
    for text in ("fit #3", "a: b.jsonl", "- x", "C:\\data"):
        assert parse_value(text, key="k").data == text


def test_lists_maps_and_quotes_are_yaml_on_the_command_line() -> None:
    listed = parse_value("[a, 1e-5, {b: yes}]", key="k")
    assert listed.data == ["a", 1e-5, {"b": "yes"}]
    assert listed.texts == {"k[0]": "a", "k[1]": "1e-5", "k[2].b": "yes"}
    assert (parse_value('"true"', key="k").data, parse_value('"true"', key="k").texts) == ("true", {})


def test_an_empty_value_is_an_error_that_says_how_to_write_null_and_empty() -> None:
    with pytest.raises(UsageError, match=r"run.name: .*run.name=null or run.name='\"\"'"):
        parse_value("  ", key="run.name")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a: 1\nb: caf\xe9\n", 2),
        (b"\xff\xfea\x00", 1),
        (b"PK\x03\x04", 1),
        (b"- a\n- b\n", 1),
        (b"just text", 1),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_named_with_its_line(
    tmp_path: Path, content: bytes, line: int
) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_file(path)
    assert (caught.value.file, caught.value.line) in [(path, line), (str(path), line)]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert load_file(path).data == {"a": 1, "b": "x"}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# only a comment\n")
    assert load_file(path).data == {}


def test_a_pipe_can_be_read_more_than_once():
    import os

    reading, writing = os.pipe()
    os.write(writing, b"a: 1\n")
    os.close(writing)
    path = Path(f"/dev/fd/{reading}")
    assert load_file(path).data == load_file(path).data == {"a": 1}
    os.close(reading)


def test_folders_missing_files_and_endless_ones_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    for path in (tmp_path, tmp_path / "none.yaml", large, Path("/dev/zero")):
        with pytest.raises(UsageError) as caught:
            load_file(path)
        assert caught.value.code == "CONFIG-FILE"
