"""``llmfw generate`` below the command line: prompts of words and files, answers, streaming, output."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from llmfw.core.errors import DataError, ResourceError, UsageError
from llmfw.verbs.generate import Answered, answer, read_prompts
from llmfw.verbs.opening import check_out, split_words, whole_file


def test_words_of_the_form_key_value_are_settings_and_all_others_prompts():
    words = ["model=x", "What is 2+2 = ?", "ld_dpo.alpha=0.5", "generation.stop=[a]", "-", "2+2=4", "seed=1"]
    prompts, settings = split_words(words)
    assert prompts == ["What is 2+2 = ?", "-", "2+2=4"]
    assert settings == ["model=x", "ld_dpo.alpha=0.5", "generation.stop=[a]", "seed=1"]


def test_a_dash_reads_one_prompt_of_many_lines_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert read_prompts(["first", "-"]) == ["first", "one\ntwo"]


@pytest.mark.parametrize("words", [[], [""]])
def test_without_a_prompt_it_says_how_to_give_one(words):
    with pytest.raises(UsageError, match=r"--file prompts\.txt"):
        read_prompts(words)


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path):
    file = tmp_path / "p.txt"
    file.write_text("one\n\n  two  \n")
    assert read_prompts(["zero"], file) == ["zero", "one", "two"]


def test_a_jsonl_file_holds_strings_and_rows_of_any_form(tmp_path: Path):
    file = tmp_path / "p.jsonl"
    rows = ["one", {"prompt": "two", "answer": "2"}, {"messages": [{"role": "user", "content": "three"}]}]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert read_prompts([], file) == ["one", "two", [{"role": "user", "content": "three"}]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a"}', "asks nothing"),
        ("{nonsense", "not JSON"),
        ("7", "neither a string nor an object"),
        ('""', "neither a string nor an object"),
    ],
)
def test_a_line_that_asks_nothing_is_named_by_file_and_number(line: str, words: str, tmp_path: Path):
    file = tmp_path / "p.jsonl"
    file.write_text(f'"fine"\n{line}\n')
    with pytest.raises(DataError, match=f"p.jsonl:2.*{words}"):
        read_prompts([], file)


@pytest.mark.parametrize("name", ["p.csv", "none.txt", "none.jsonl", "empty.txt", "latin.txt"])
def test_a_file_that_holds_no_prompts_is_refused(name: str, tmp_path: Path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"\xe4\n")
    (tmp_path / "p.csv").write_text("a,b\n")
    with pytest.raises((DataError, UsageError), match=name):
        read_prompts([], tmp_path / name)


def test_answers_stand_with_their_prompts_and_samples_together(policy):
    answered = answer(policy, ["Hi", "Ho"], samples=2, temperature=1.0)
    flat = policy.generate(["Hi", "Ho"], samples=2, temperature=1.0)
    assert [one.prompt for one in answered] == ["Hi", "Ho"]
    assert [list(one.answers) for one in answered] == [flat[:2], flat[2:]]


def test_what_is_shown_while_it_is_written_is_the_answer(policy):
    pieces: list[str] = []
    (one,) = answer(policy, ["Hi"], show=pieces.append)
    assert "".join(pieces) == one.answers[0].text
    assert len(pieces) == len(one.answers[0].ids) + 1


def test_the_json_of_an_answer_has_scalars_for_one_and_lists_for_several(policy):
    (one,) = answer(policy, ["Hi"], logps=True)
    line = one.as_dict()
    completion = one.answers[0]
    assert line == {
        "id": 0,
        "prompt": "Hi",
        "answer": completion.text,
        "finish": completion.finish,
        "tokens": len(completion.ids),
        "logp": sum(completion.logps),
        "prompt_tokens": completion.prompt_tokens,
    }
    (two,) = answer(policy, ["Hi"], ids=["q"], samples=2)
    assert two.as_dict()["tokens"] == [len(each.ids) for each in two.answers]
    assert "logp" not in two.as_dict() and two.as_dict()["id"] == "q"
    assert isinstance(two, Answered) and json.loads(json.dumps(two.as_dict())) == two.as_dict()


def test_an_output_file_is_refused_before_anything_is_computed(tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    for out, words in (
        (tmp_path / "a.txt", "use .jsonl"),
        (tmp_path / "none" / "a.jsonl", "mkdir -p"),
        (source, "the input itself"),
    ):
        with pytest.raises(UsageError, match=words):
            check_out(out, (".jsonl",), source=source)
    check_out(tmp_path / "fine.jsonl", (".jsonl",), source=source)


def test_an_output_file_bears_its_name_only_when_it_is_whole(tmp_path: Path):
    out = tmp_path / "a.jsonl"
    out.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(out)
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]
    with whole_file(out) as file:
        file.write(b"new")
        assert out.read_text() == "old"
    assert out.read_text() == "new" and list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_named_with_the_file(tmp_path: Path):
    out = tmp_path / "a.jsonl"
    with pytest.raises(ResourceError, match=r"a\.jsonl.*No space left"):
        _on_a_full_disk(out)
    assert not list(tmp_path.iterdir())


def _interrupted(out: Path) -> None:
    with whole_file(out) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def _on_a_full_disk(out: Path) -> None:
    with whole_file(out) as file, open("/dev/full", "wb", buffering=0) as full:
        file.write(b"half")
        full.write(b"x")  # the kernel's own ENOSPC
