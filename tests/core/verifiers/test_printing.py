"""Programs that print a text: run by what is here, and by nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from llmfw.core.verifiers.printing import printing

TEXT = 'it\'s "so" \\ $x @y #{z} %d {a}\nand so'
RUN = {
    "python": ["python3", "{file}"],
    "javascript": ["node", "{file}"],
    "bash": ["bash", "{file}"],
    "perl": ["perl", "{file}"],
    "ruby": ["ruby", "{file}"],
    "php": ["php", "{file}"],
    "c": ["sh", "-c", "gcc -x c {file} -o {file}.out && {file}.out"],
    "cpp": ["sh", "-c", "g++ -x c++ {file} -o {file}.out && {file}.out"],
}


@pytest.mark.parametrize("language", RUN)
def test_the_program_prints_the_text(tmp_path: Path, language: str):
    command = RUN[language]
    tool = command[2].split()[0] if command[0] == "sh" else command[0]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} isn't installed")
    file = tmp_path / "main"
    file.write_text(printing(TEXT, language) or "")
    told = subprocess.run(
        [part.format(file=file) for part in command], capture_output=True, text=True, check=False
    )
    assert told.stdout == f"{TEXT}\n", told.stderr


@pytest.mark.parametrize("language", ["go", "rust", "java", "typescript"])
def test_texts_stand_in_double_quotes(language: str):
    assert r'"a \"b\" \\ \n{c}"' in (printing('a "b" \\ \n{c}', language) or "")


def test_what_nobody_here_can_write_has_no_program():
    assert printing("8", "apl") is None
    assert printing("é", "go") is None and printing("\x00", "c") is None
    assert printing("é", "python") == "print('é')"
    assert printing("8", "C++") == printing("8", "cpp")
