"""Rows, tasks of one's own, and a policy over the tiny model, as ``evaluate`` builds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"id": f"r{n}", "prompt": f"say {n}", "completion": f"it is {n}"} for n in range(20)]
TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{question}} "
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "written": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["\\n", "1"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
""",
    "cloze": """
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{question[-1]}}"
metric_list: [{metric: perplexity, aggregation: perplexity}, {metric: acc}]
""",
    "texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[0]}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
}
"""Bodies of tasks over ``documents.jsonl``; each has a kind of request of its own."""


def write_tasks(folder: Path) -> Path:
    """``own_NAME`` for each of ``TASKS``, with 12 documents of 3 choices."""
    folder.mkdir()
    rows = [
        {"question": f"say {n}", "choices": [f"it is {n}", f"no {n + 1}", "never"], "gold": n % 3}
        for n in range(12)
    ]
    (folder / "documents.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, body in TASKS.items():
        files = "{data_files: {test: documents.jsonl}}"
        head = f"task: own_{name}\ndataset_path: json\ndataset_kwargs: {files}\n"
        (folder / f"{name}.yaml").write_text(f"{head}test_split: test\n{body}metadata: {{version: 1.0}}\n")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with supervised rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return tmp_path


@pytest.fixture
def tasks(here: Path) -> Path:
    """A folder with tasks of one's own."""
    return write_tasks(here / "tasks")


@pytest.fixture
def opened() -> Callable[..., Any]:
    """``opened(*overrides, plugins=())``: the tiny model, ready to be measured."""

    def open_(*overrides: str, plugins: tuple[str, ...] = ()) -> Any:
        from llmfw.core.assemble import assemble, settle
        from llmfw.core.open import open_policy

        layers = ["model=tiny-llama", "data=rows.jsonl", *overrides]
        return open_policy(assemble(settle(plugins=plugins, overrides=layers), "evaluate"))

    return open_
