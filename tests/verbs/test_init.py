"""``llmfw init``: from one's own rows to a configuration that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.core.config import Resolved, load_config
from llmfw.verbs.starter import tokens_of

ROWS = {
    "preference": {"prompt": "p{}", "chosen": "yes", "rejected": "no"},
    "completion": {"prompt": "p{}", "completion": "c"},
    "messages": {"messages": [{"role": "user", "content": "q{}"}, {"role": "assistant", "content": "a"}]},
    "text": {"text": "some text {}"},
    "problems": {"prompt": "p{}", "answer": "4"},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(path: str, form: str, count: int = 10) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(ROWS[form]).replace("{}", str(index)) for index in range(count)]
    Path(path).write_text("\n".join(lines) + "\n")


def settings() -> Resolved:
    return load_config(files=[Path("llmfw.yaml")])


@pytest.mark.parametrize("form", ROWS)
def test_each_form_of_rows_gives_settings_that_load_and_say_all_they_set(form: str, capsys):
    rows("mine.jsonl", form)
    assert run(["init"]) == 0
    told = capsys.readouterr().out
    assert f"10 {form} rows in mine.jsonl" in told and "llmfw fit" in told
    resolved = settings()
    assert resolved.root.data.name == "mine.jsonl"
    assert resolved.plugin_names == (["dpo"] if form == "preference" else [])
    assert (resolved.root.trainer.epochs, resolved.root.trainer.max_steps) == (3.0, None)
    text = Path("llmfw.yaml").read_text()
    bare = [line for line in text.splitlines() if ": " in line and "#" not in line]
    assert bare == [] and max(map(len, text.splitlines())) <= 110
    assert "llmfw compare" in Path("README.md").read_text()


def test_data_elsewhere_and_another_folder_are_named_relative_to_each_other(capsys):
    rows("data/prefs.jsonl", "preference", 300)
    assert run(["init", "project", "--data", "data/prefs.jsonl", "--model", "tiny-llama"]) == 0
    assert "cd project" in capsys.readouterr().out
    root = load_config(files=[Path("project/llmfw.yaml")]).root
    assert (root.data.name, root.model.name) == ("../data/prefs.jsonl", "tiny-llama")
    assert root.trainer.accumulate > 1 and root.data.validation == "0.1"


def test_files_called_train_and_validation_are_taken_for_what_they_are():
    rows("train.jsonl", "completion")
    rows("validation.jsonl", "completion", 4)
    assert run(["init"]) == 0
    data = settings().root.data
    assert (data.name, data.validation) == ("train.jsonl", "validation.jsonl")


def test_rows_of_one_prompt_hold_nothing_out():
    Path("a.jsonl").write_text(
        "".join(f'{{"prompt": "p", "chosen": "c{n}", "rejected": "r{n}"}}\n' for n in range(4))
    )
    assert run(["init"]) == 0
    assert settings().root.data.validation is None


def test_bad_rows_are_warned_of_by_line_and_written_into_the_readme(capsys):
    rows("a.jsonl", "text", 5)
    with Path("a.jsonl").open("a") as file:
        file.write('{"text": 3}\nnot json\n')
    assert run(["init"]) == 0
    told = capsys.readouterr()
    assert "5 text rows" in told.out
    assert "a.jsonl:6" in told.err and "a.jsonl:7" in told.err
    assert "a.jsonl:7" in Path("README.md").read_text()


def test_nothing_that_is_there_is_overwritten(capsys):
    rows("a.jsonl", "text")
    Path("README.md").write_text("mine")
    assert run(["init"]) == 0
    assert Path("README.md").read_text() == "mine" and Path("README-llmfw.md").exists()
    Path("llmfw.yaml").write_text("seed: 1\n")
    assert run(["init"]) == 2
    assert capsys.readouterr().err.startswith("error[INIT-EXISTS] llmfw.yaml: ")
    assert Path("llmfw.yaml").read_text() == "seed: 1\n"


@pytest.mark.parametrize(
    ("prepare", "words", "code", "line"),
    [
        (lambda: None, [], 3, "error[NO-DATA]"),
        (lambda: None, ["--data", "none.jsonl"], 3, "error[NO-DATA] none.jsonl"),
        (lambda: Path("a.jsonl").write_text("{}\n"), [], 3, "error[NO-ROWS] a.jsonl"),
        (lambda: Path("a.xls").write_text("x"), ["--data", "a.xls"], 3, "error[DATA-SUFFIX] a.xls"),
        (lambda: (rows("a.jsonl", "text"), rows("b.jsonl", "text")), [], 3, "error[INIT-SEVERAL]"),
        (lambda: rows("a.jsonl", "text"), ["--plugin", "nowhere"], 2, "error[PLUGIN-UNKNOWN]"),
        (lambda: rows("folder", "text"), ["folder"], 2, "error[USAGE]"),
    ],
)
def test_what_cant_be_begun_with_is_one_line_and_leaves_nothing(capsys, prepare, words, code, line):
    prepare()
    assert run(["init", *words]) == code
    assert capsys.readouterr().err.startswith(line)
    assert not Path("llmfw.yaml").exists() and not Path("README.md").exists()


def test_lengths_are_of_the_longer_answer_with_its_prompt():
    row = {"prompt": "p" * 30, "chosen": "c" * 30, "rejected": [{"role": "assistant", "content": "r" * 48}]}
    # 30 characters of prompt and 48 + 12 of the longer answer with its marks, 3 characters a token
    assert tokens_of(row) == 30
