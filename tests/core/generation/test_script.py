"""A function of the user's own as a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.generation import load_script, script_hash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "oracle.py"
    path.write_text("def answer(prompts):\n    return [prompt[::-1] for prompt in prompts]\n\nnumber = 3\n")
    return path


def test_the_function_answers(file):
    assert load_script(f"{file}:answer")(["ab", "cd"]) == ["ba", "dc"]


def test_the_hash_is_of_the_text_and_the_function(file):
    first = script_hash(f"{file}:answer")
    assert script_hash(f"{file}:answer") == first
    assert script_hash(f"{file}:other") != first
    file.write_text(file.read_text() + "# changed\n")
    assert script_hash(f"{file}:answer") != first


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("{file}", "names no function"),
        ("{file}:", "names no function"),
        ("{file}:answers", "name one of: answer"),
        ("{file}:number", "no function 'number'"),
        ("nowhere.py:answer", "no such file"),
        ("oracle.txt:answer", "names no function"),
    ],
)
def test_a_script_that_is_not_there_is_refused(file, script, says):
    with pytest.raises(UsageError, match=says):
        load_script(script.format(file=file))


def test_errors_of_the_script_name_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("\n\nraise ValueError('no')\n")
    with pytest.raises(UsageError, match=r"bad.py:3: running it raised ValueError: no"):
        load_script(f"{path}:answer")
    path.write_text("def answer(prompts)\n    pass\n")
    with pytest.raises(UsageError, match=r"bad.py:1: running it raised SyntaxError"):
        load_script(f"{path}:answer")
    path.write_text("def answer(prompts):\n    return 1 / 0\n")
    with pytest.raises(UsageError, match=r"bad.py:2: answer\(\) raised ZeroDivisionError"):
        load_script(f"{path}:answer")(["a"])
    path.write_text("def answer(prompts):\n    return 'text'\n")
    with pytest.raises(UsageError, match="list of texts"):
        load_script(f"{path}:answer")(["a"])


def test_a_script_cannot_end_the_program(tmp_path):
    path = tmp_path / "quits.py"
    path.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UsageError, match="SystemExit"):
        load_script(f"{path}:answer")
