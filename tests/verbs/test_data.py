"""``llmfw data inspect``: what is trained, seen before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.cli import run

ROWS = [
    {"prompt": "What is 2+2?", "completion": "It is 4."},
    {"prompt": "What is 2+3?", "completion": "\u001b[31mIt is 5."},
    {"prompt": "What is 2+4?", "completion": "It is 6."},
]
TINY = ["model=tiny-llama", "data.validation=null"]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return f"data={path}"


def test_trained_text_stands_between_marks_without_colour(
    rows: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(["data", "inspect", "-n", "2", rows, *TINY]) == 0
    shown = capsys.readouterr().out
    assert "⟦It is 4.<|im_end|>⟧" in shown and "⟦\\x1b[31mIt is 5.<|im_end|>⟧" in shown
    assert "It is 6." not in shown and "\x1b" not in shown
    assert "3 sequences, 0 wrong, 0 warnings" in shown and "completion rows" in shown


def test_trained_text_is_coloured_where_there_is_colour(
    rows: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert run(["data", "inspect", "-n", "1", rows, *TINY]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[1;32mIt is 4.<|im_end|>\x1b[0m" in shown and "⟦" not in shown


def test_json_holds_report_lengths_findings_and_samples(
    rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "inspect", "--json", "-n", "1", rows, *TINY]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"]["splits"]["train"]["samples"] == 3 and said["findings"] == []
    assert said["samples"][0]["sequences"][0][1] == {"text": "It is 4.<|im_end|>", "trained": True}
    assert sum(count for *_, count in said["lengths"]["train"]) == 3


def test_a_wrong_mask_ends_with_exit_code_3(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The template writes BOS twice, once by its name and once spelt out."""
    template = tmp_path / "twice.jinja"
    template.write_text(
        "{{ bos_token }}<bos>{% for m in messages %}"
        "{{ m['role'] + ':' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    assert run(["data", "inspect", rows, *TINY, f"tokenizer.template={template}"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the mask is wrong: error[DOUBLE-BOS]" in error and "(and 2 more)" in error


def test_a_broken_line_is_named_and_ends_with_exit_code_3(
    rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("my.jsonl").open("a") as handle:
        handle.write('{"prompt": "a"\n')
    assert run(["data", "inspect", rows, *TINY]) == 3
    assert "my.jsonl:4: not JSON" in capsys.readouterr().err


def test_a_dialect_is_said_where_it_was_recognised(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
    (tmp_path / "talk.json").write_text(json.dumps([{"conversations": turns}]))
    assert run(["data", "inspect", "data=talk.json", *TINY]) == 0
    assert "recognised" in (shown := capsys.readouterr().out)
    assert "ShareGPT (conversations with from and value)" in " ".join(shown.split())
    assert run(["data", "inspect", "--json", "data=talk.json", *TINY]) == 0
    dialects = json.loads(capsys.readouterr().out)["report"]["dialects"]
    assert dialects == {"ShareGPT (conversations with from and value) as messages": 1}


def test_convert_writes_one_file_and_says_what_became_of_the_rows(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("my.jsonl").open("a") as handle:
        handle.write(json.dumps({**ROWS[0], "note": "again"}) + "\nnot json\n")
    words = [
        "data",
        "convert",
        rows,
        "data.deduplicate=true",
        "data.on_bad_row=skip",
        "--out",
        "deep/out.jsonl",
    ]
    assert run(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "deep/out.jsonl: 3 completion rows",
        "1 rows skipped",
        "1 rows dropped: their content was seen before",
    ]
    written = [json.loads(line) for line in Path("deep/out.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["completion"]) for row in written] == [
        (row["prompt"], row["completion"]) for row in ROWS
    ]
    assert run(words) == 2
    assert capsys.readouterr().err.startswith("error[CONVERT-EXISTS] deep/out.jsonl:--out: it exists")
    assert run([*words, "--force"]) == 0


def test_convert_with_split_writes_what_fit_would_hold_out(
    rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "convert", rows, "data.validation=0.4", "--out", "both", "--split"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "both/train.jsonl: 2 completion rows",
        "both/validation.jsonl: 1 completion rows",
    ]


def test_convert_makes_one_file_of_a_mixture_of_one_form(
    rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("b.csv").write_text("prompt,completion\nx,y\n")
    Path("c.csv").write_text("text\nx\n")
    assert run(["data", "convert", "data.mix={my.jsonl: 1, b.csv: 2}", "--out", "out.parquet"]) == 0
    assert "out.parquet: 4 completion rows" in (said := capsys.readouterr().out)
    assert "a file has no weights" in said
    assert run(["data", "convert", "data.mix={my.jsonl: 1, c.csv: 2}", "--out", "other.jsonl"]) == 2
    assert "error[MIX-FORMS]" in capsys.readouterr().err and not Path("other.jsonl").exists()


def test_convert_refuses_a_kind_of_file_that_it_cannot_write(
    rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "convert", rows, "--out", "out.jsonl", "--format", "parquet"]) == 2
    assert "error[CONVERT-FORMAT] --format" in capsys.readouterr().err
    assert run(["data", "convert", rows, "--out", "out.csv"]) == 2
    assert (
        "rows can't be written as .csv; end the name in one of: .jsonl, .parquet" in capsys.readouterr().err
    )
