"""One output line for each input row, in order, whatever the rows are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import Encoder
from llmfw.core.errors import DataError
from llmfw.core.generation import GeneratingPolicy, score_examples
from llmfw.verbs.predict import COLUMNS, predict

ASKED = [
    {"id": "a", "prompt": "Name a river, and say where it is."},
    {"prompt": [{"role": "user", "content": "Hi"}]},
    {"id": 7, "messages": [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]},
    {"id": "d", "prompt": "Sing!", "chosen": "la", "rejected": "no"},
    {"id": "e", "prompt": "1+1?", "answer": "2"},
]
PAIRS = [
    {"id": f"p{n}", "prompt": "Hi " * n, "chosen": "good " * n + "day", "rejected": "no"} for n in (3, 1, 2)
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_gets_its_completion_in_the_order_of_rows(policy: GeneratingPolicy, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    done = predict(policy, write(tmp_path / "in.jsonl", ASKED), out)
    lines = read(out)
    assert (done.rows, done.bad) == (5, 0)
    assert [line["id"] for line in lines][::2] == ["a", "7", "e"] and len({line["id"] for line in lines}) == 5
    prompts = [ASKED[0]["prompt"], "Hi", "2+2", "Sing!", "1+1?"]
    for line, answer in zip(lines, policy.generate(prompts), strict=True):
        assert line["completion"] == answer.text and line["tokens"] == len(answer.ids)
        assert set(line) == set(COLUMNS["completion"]) - {"error"}


def test_a_sampled_completion_depends_on_the_rows_id_not_on_its_place(policy, tmp_path: Path):
    policy.sampling = policy.sampling.but(temperature=1.0)
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    predict(policy, write(tmp_path / "in.jsonl", ASKED), one)
    predict(policy, write(tmp_path / "turned.jsonl", ASKED[::-1]), other)
    assert read(one) == read(other)[::-1]


def test_log_probs_are_those_of_the_rows_own_answers(policy, tmp_path: Path):
    rows = [
        {"id": "a", "prompt": "Hi", "completion": "Ho, and a long answer"},
        {"id": "b", "prompt": "2+2", "completion": "4"},
        {"id": "c", "prompt": "?", "completion": "no"},
    ]
    out = tmp_path / "out.jsonl"
    predict(policy, write(tmp_path / "in.jsonl", rows), out, "logprob")
    encoder = Encoder(policy.tokenizer, 500)
    wanted = score_examples(policy, [encoder.encode("completion", row) for row in rows])
    for line, (score,), row in zip(read(out), wanted, rows, strict=True):
        assert line == {
            "id": row["id"],
            "logprob": pytest.approx(score.logp, abs=1e-4),
            "mean": pytest.approx(score.mean, abs=1e-4),
            "tokens": len(row["completion"]) + 1,
        }


def test_the_margin_of_a_pair_is_chosen_minus_rejected(policy, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    predict(policy, write(tmp_path / "in.jsonl", PAIRS), out, "score")
    lines = read(out)
    assert [line["id"] for line in lines] == ["p3", "p1", "p2"]
    for line in lines:
        assert line["margin"] == pytest.approx(line["chosen"] - line["rejected"])
        assert (
            line["chosen"] < line["rejected"] < 0
        )  # a random model finds every token unlikely: longer is less
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS]
    predict(policy, write(tmp_path / "turned.jsonl", turned), tmp_path / "turned.out.jsonl", "score")
    for line, other in zip(lines, read(tmp_path / "turned.out.jsonl"), strict=True):
        assert line["margin"] == pytest.approx(-other["margin"], abs=1e-4)


BAD = [
    '{"prompt": "fine"}',
    "{half",
    '{"prompt": ""}',
    "[1]",
    '{"prompt": "<|end|>"}',
    '{"prompt": "fine too"}',
]


def test_the_first_bad_row_ends_it_with_its_line_and_leaves_no_file(policy, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"in.jsonl:2: not JSON.*on_bad_row=skip"):
        predict(policy, write(tmp_path / "in.jsonl", BAD), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_skipped_rows_become_lines_with_an_error_so_that_lines_match_rows(policy, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    done = predict(policy, write(tmp_path / "in.jsonl", BAD), out, skip_bad=True)
    lines = read(out)
    assert (done.rows, done.bad) == (6, 4) and "in.jsonl:2" in done.first_error
    assert ["error" in line for line in lines] == [False, True, True, True, True, False]
    for number, words in ((2, "not JSON"), (3, "asks nothing"), (4, "not an object"), (5, "control token")):
        assert f"in.jsonl:{number}:" in lines[number - 1]["error"] and words in lines[number - 1]["error"]
    assert lines[5]["completion"] == policy.generate(["fine too"])[0].text


def test_more_bad_rows_than_allowed_end_it(policy, tmp_path: Path):
    with pytest.raises(DataError, match="more than 3 rows"):
        predict(policy, write(tmp_path / "in.jsonl", BAD), tmp_path / "out.jsonl", skip_bad=True, max_bad=3)


@pytest.mark.parametrize(
    ("what", "row", "words"),
    [
        ("score", {"prompt": "a", "completion": "b"}, "needs chosen and rejected"),
        ("logprob", {"prompt": "a", "chosen": "b", "rejected": "c"}, "use --what score"),
        ("logprob", {"prompt": "a"}, "unknown form"),
        ("completion", {"text": "a"}, "asks nothing"),
        ("completion", {"prompt": "x" * 600}, "the model's context 512"),
        ("logprob", {"prompt": "x", "completion": "y" * 600}, "more than allowed"),
    ],
)
def test_a_row_of_the_wrong_kind_is_named(what, row, words, policy, tmp_path: Path):
    with pytest.raises(DataError, match=words) as caught:
        predict(policy, write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl", what)
    assert "in.jsonl:1" in str(caught.value)


def test_an_empty_file_is_refused_and_leaves_no_output(policy, tmp_path: Path):
    with pytest.raises(DataError, match="no rows"):
        predict(policy, write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_limit_takes_the_first_rows_only(policy, tmp_path: Path):
    done = predict(policy, write(tmp_path / "in.jsonl", ASKED), tmp_path / "out.jsonl", limit=2)
    assert done.rows == 2 == len(read(tmp_path / "out.jsonl"))


def test_more_rows_than_a_window_holds_stay_in_order(policy, tmp_path: Path):
    policy.sampling = policy.sampling.but(max_new_tokens=1)
    rows = [{"id": str(number), "prompt": f"{'x' * (number % 7)}{number}"} for number in range(70)]
    predict(policy, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert [line["id"] for line in read(tmp_path / "out.jsonl")] == [str(number) for number in range(70)]


@pytest.mark.parametrize("what", ["completion", "score"])
def test_parquet_has_the_same_lines_with_nulls(what, policy, tmp_path: Path):
    from pyarrow import parquet

    source = write(tmp_path / "in.jsonl", [*PAIRS, "{half"])
    predict(policy, source, tmp_path / "out.jsonl", what, skip_bad=True)
    predict(policy, source, tmp_path / "out.parquet", what, skip_bad=True)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == list(COLUMNS[what])
    lines = [{key: value for key, value in row.items() if value is not None} for row in table.to_pylist()]
    wanted = [
        {key: value for key, value in line.items() if value is not None}
        for line in read(tmp_path / "out.jsonl")
    ]
    assert lines == wanted and len(lines) == 4


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_rows_of_any_format_are_answered_alike(suffix: str, policy: GeneratingPolicy, tmp_path: Path):
    rows = [{"id": name, "prompt": f"Sing, {name}!"} for name in "abc"]
    file = tmp_path / f"in{suffix}"
    if suffix == ".csv":
        file.write_text('id,prompt\n"a","Sing, a!"\nb,"Sing, b!"\nc,"Sing, c!"\n')
    elif suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    out, same = tmp_path / "out.jsonl", tmp_path / "same.jsonl"
    assert predict(policy, file, out).rows == 3
    predict(policy, write(tmp_path / "in.jsonl", rows), same)
    assert read(out) == read(same)


def test_a_folder_of_several_files_is_refused(policy: GeneratingPolicy, tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", ASKED)
    with pytest.raises(DataError, match="PREDICT-SEVERAL"):
        predict(policy, tmp_path, tmp_path / "out" / "out.jsonl")
