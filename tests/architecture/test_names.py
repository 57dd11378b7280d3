"""The core names no method: neither its identifiers nor its texts know a plugin."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmfw.core import discovery
from tests.architecture.conftest import ROOT, modules

CORE = ("llmfw/core", "llmfw/callbacks", "llmfw/verbs")
PAPERS = (
    "agentrefine", "automathcritique", "critique_loop", "eps_moe", "firp", "gsi", "ld_dpo", "ltri_llm",
    "ltri", "mplsandbox", "pcformer", "prefixkv", "remamba", "rft", "s3c_math", "s3c", "xcoder",
)  # fmt: skip
ENGLISH = {"fire", "frames"}
"""Papers whose names are words: forbidden only where a string consists of nothing else."""


def words_of(text: str) -> str:
    """Words of an identifier or text, lower case, joined by single blanks: ``LdDpo`` and ``ld-dpo`` become
    ``ld dpo``.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return " ".join(re.findall(r"[a-z0-9]+", spaced.lower()))


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier and every string of a module, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            yield line, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield line, node.name
        elif isinstance(node, ast.alias):
            yield line, node.name
            yield line, node.asname or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield line, node.value


def named(source: str, forbidden: set[str]) -> list[str]:
    """What a module names that it shouldn't, as "line: text"."""
    found = []
    for line, text in texts(ast.parse(source)):
        words = words_of(text)
        if any(says(words, name) for name in forbidden):
            found.append(f"{line}: {text.strip()[:60]}")
    strings = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return found + [f"{node.lineno}: {node.value}" for node in strings if node.value in ENGLISH]


def says(words: str, name: str) -> bool:
    """Whether the name stands there: as a word, or a long one also inside of words run together."""
    whole = re.search(rf"\b{name}\b", words) is not None
    return whole or (len(name) > 6 and name.replace(" ", "") in words.replace(" ", ""))


def forbidden() -> set[str]:
    names = {*PAPERS, *discovery.cards()} - ENGLISH
    return {words_of(name) for name in names}


@pytest.mark.parametrize("folder", CORE)
def test_no_module_names_a_plugin_or_a_paper(folder: str):
    names = forbidden()
    found = {
        str(path.relative_to(ROOT)): lines
        for path in modules(folder)
        if (lines := named(path.read_text(encoding="utf-8"), names))
    }
    assert not found


def test_configs_of_the_core_name_no_plugin():
    """A preset is data for every method."""
    names = forbidden()
    for path in (ROOT / "llmfw" / "configs").rglob("*.yaml"):
        words = words_of(path.read_text(encoding="utf-8"))
        assert not [name for name in names if re.search(rf"\b{name}\b", words)], path


@pytest.mark.parametrize(
    "source",
    [
        "if name == 'ld_dpo': pass",
        "ld_dpo_alpha = 1",
        "class PrefixKVCache: pass",
        "x = f'see the gsi sampler'",
        "import firp",
        "stage = 'frames'",
    ],
)
def test_the_search_finds_names_in_identifiers_and_texts(source: str):
    assert named(source, forbidden())


def test_words_that_only_contain_a_name_are_fine():
    assert not named("updpo = 'arft'; frames = []; fire_at = 'the frames of a stack'", forbidden())
    assert Path(ROOT / "llmfw" / "plugins").is_dir()
