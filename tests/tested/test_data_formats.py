"""Formats, dialects, templates and tools that were read and trained on, against the same rows as jsonl."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import llmfw
from llmfw.cli import run
from llmfw.core.data import Prepared
from llmfw.core.errors import LlmfwError
from llmfw.verbs.data import _prepare
from tests.tested.recorder import note, note_refusal

TINY = ("model=tiny-llama",)
QUIET = (
    *TINY,
    "trainer.progress=false",
    "tracking.mlflow=false",
    "trainer.max_steps=2",
    "data.validation=0.2",
)
FIT = "model=tiny-llama trainer.max_steps=2"
SAME = "tokens and masks that differ from the same rows as jsonl"
LOSS = "final loss"
Rows = list[dict[str, Any]]
ROWS: Rows = [{"prompt": f'say "{i}", then\nstop', "completion": f"it, is {i}"} for i in range(10)]
TEXTS: Rows = [{"text": f"Paragraph {i}\nhas two lines."} for i in range(10)]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _jsonl(name: str, rows: Rows) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def _parquet(name: str, rows: Rows) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), name, row_group_size=3)
    return name


def _csv(name: str, rows: Rows, mark: str = ",") -> str:
    import csv

    with Path(name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(rows)
    return name


def _text(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def _prepared(*settings: str) -> Prepared:
    return _prepare({"overrides": [*TINY, *settings]})[0]


def _differing(one: Prepared, other: Prepared) -> int:
    """Tokens and flags that differ, position by position, over both splits."""
    count = 0
    for split in ("train", "validation"):
        for left, right in zip_longest(getattr(one, split), getattr(other, split)):
            if left is None or right is None:
                count += max(left.length if left else 0, right.length if right else 0)
                continue
            for mine, its in zip_longest(left.sequences, right.sequences):
                pairs = [zip_longest(mine.ids, its.ids), zip_longest(mine.trained, its.trained)]
                count += sum(a != b for pair in pairs for a, b in pair)
    return count


def _check(case: str, name: str, baseline: Rows, *settings: str, command: str, said: str = "") -> None:
    """The data gives the samples that ``baseline`` gives as jsonl; the report says ``said``."""
    expected = _prepared(f"data={_jsonl('baseline.jsonl', baseline)}")
    found = _prepared(f"data={name}", *settings)
    assert len(expected.train) + len(expected.validation) == len(baseline)
    assert found.fingerprint == expected.fingerprint
    assert said in " ".join(found.report.dialects)
    note("data", case, command=command, measure=SAME, value=_differing(expected, found), bound=0)


def _arrow(name: str, rows: Rows) -> str:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return name


def _shards(rows: Rows) -> str:
    for number, part in enumerate((rows[:4], rows[4:])):
        _parquet(f"DIR/data/train-{number:05d}-of-00002.parquet", part)
    Path("DIR/README.md").write_text("# A clone of a repository on the hub\n")
    return "DIR"


def _saved(rows: Rows) -> str:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk("DIR")
    return "DIR"


FORMATS: dict[str, tuple[Callable[[], str], str]] = {
    "json: an array": (lambda: _text("FILE.json", json.dumps(ROWS, indent=1)), "FILE.json"),
    "json: an object with one array": (lambda: _text("FILE.json", json.dumps({"data": ROWS})), "FILE.json"),
    "json: one object a line": (lambda: _jsonl("FILE.json", ROWS), "FILE.json"),
    "parquet": (lambda: _parquet("FILE.parquet", ROWS), "FILE.parquet"),
    "arrow": (lambda: _arrow("FILE.arrow", ROWS), "FILE.arrow"),
    "csv": (lambda: _csv("FILE.csv", ROWS), "FILE.csv"),
    "tsv": (lambda: _csv("FILE.tsv", ROWS, "\t"), "FILE.tsv"),
    "jsonl, packed (gz)": (
        lambda: _text("FILE.jsonl.gz", gzip.compress(Path(_jsonl("x", ROWS)).read_bytes())),
        "FILE.jsonl.gz",
    ),
    "jsonl, packed (zst)": (
        lambda: _text(
            "FILE.jsonl.zst", pa.compress(Path(_jsonl("x", ROWS)).read_bytes(), codec="zstd", asbytes=True)
        ),
        "FILE.jsonl.zst",
    ),
    "a clone of a hub repository: sharded parquet": (lambda: _shards(ROWS), "DIR"),
    "a folder that datasets saved": (lambda: _saved(ROWS), "DIR"),
}


@pytest.mark.parametrize("case", FORMATS)
def test_a_format_gives_the_samples_of_the_same_rows_as_jsonl(case: str) -> None:
    make, shown = FORMATS[case]
    _check(case, make(), ROWS, command=f"llmfw data inspect data={shown} model=tiny-llama")


def test_a_pattern_of_files_is_one_source() -> None:
    for number, part in enumerate((ROWS[:5], ROWS[5:])):
        _parquet(f"DIR/part{number}.parquet", part)
    command = "llmfw data inspect 'data=DIR/*.parquet' model=tiny-llama"
    _check("a pattern: DIR/*.parquet", "DIR/*.parquet", ROWS, command=command)


@pytest.mark.parametrize("unit", ["paragraphs", "lines", "file"])
def test_plain_text_gives_the_samples_of_the_same_documents(unit: str) -> None:
    whole = "\n\n".join(row["text"] for row in TEXTS)
    documents = {
        "paragraphs": TEXTS,
        "lines": [{"text": line} for line in dict.fromkeys(whole.splitlines()) if line],
        "file": [{"text": whole}],
    }[unit]
    name = _text("FILE.txt", whole)
    options = [] if unit == "paragraphs" else [f"data.options.text={unit}"]
    options += ["data.deduplicate=true"] if unit == "lines" else []
    _check(
        f"txt: {unit}", name, documents, *options,
        command=" ".join(["llmfw data inspect data=FILE.txt", *options, "model=tiny-llama"]),
    )  # fmt: skip


ASKED = [{"role": "user", "content": "2+2?"}]


def _talk(i: int) -> Rows:
    return [{"role": "user", "content": f"{i}+1?"}, {"role": "assistant", "content": str(i + 1)}]


def _turns(i: int) -> Rows:
    return [{"from": "human", "value": f"{i}+1?"}, {"from": "gpt", "value": str(i + 1)}]


DIALECTS: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[int], dict[str, Any]], str]] = {
    "ShareGPT": (lambda i: {"conversations": _turns(i)}, lambda i: {"messages": _talk(i)}, "ShareGPT"),
    "Alpaca": (
        lambda i: {"instruction": "Add.", "input": f"{i}+1", "output": str(i + 1)},
        lambda i: {"prompt": f"Add.\n\n{i}+1", "completion": str(i + 1)},
        "Alpaca",
    ),
    "prompt and response": (
        lambda i: {"prompt": f"{i}+1?", "response": str(i + 1)},
        lambda i: {"prompt": f"{i}+1?", "completion": str(i + 1)},
        "prompt and response",
    ),
    "question and answer": (
        lambda i: {"question": f"{i}+1?", "answer": str(i + 1)},
        lambda i: {"prompt": f"{i}+1?", "answer": str(i + 1)},
        "question and answer",
    ),
    "ShareGPT pairs": (
        lambda i: {
            "conversations": _turns(i)[:1],
            "chosen": _turns(i)[1],
            "rejected": {"from": "gpt", "value": "0"},
        },
        lambda i: {
            "prompt": _talk(i)[:1],
            "chosen": _talk(i)[1:],
            "rejected": [{"role": "assistant", "content": "0"}],
        },
        "ShareGPT pairs",
    ),
    "UltraFeedback": (
        lambda i: {
            "instruction": f"{i}+1?",
            "completions": [
                {"response": str(i + 1), "overall_score": 9.0},
                {"response": "0", "overall_score": 1.5},
            ],
        },
        lambda i: {"prompt": f"{i}+1?", "chosen": str(i + 1), "rejected": "0"},
        "UltraFeedback",
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_recognised_said_and_gives_the_samples_of_our_own_form(name: str) -> None:
    theirs, ours, said = DIALECTS[name]
    file = _text("FILE.json", json.dumps([theirs(i) for i in range(1, 9)]))
    _check(
        f"dialect: {name}", file, [ours(i) for i in range(1, 9)], said=said,
        command="llmfw data inspect data=FILE.json model=tiny-llama",
    )  # fmt: skip


def test_keys_are_renamed_and_repeated_rows_dropped() -> None:
    rows = [{"q": row["prompt"], "a": {"text": row["completion"]}} for row in [*ROWS, *ROWS[:3]]]
    file = _jsonl("FILE.jsonl", rows)
    renamed = ["data.columns={prompt: q, completion: a.text}", "data.deduplicate=true"]
    expected = _prepared(f"data={_jsonl('baseline.jsonl', ROWS)}")
    found = _prepared(f"data={file}", *renamed)
    assert found.report.duplicates == 3
    note(
        "data", "renamed keys, repeated rows dropped", measure=SAME, bound=0,
        value=_differing(expected, found),
        command="llmfw data inspect data=FILE.jsonl data.columns='{prompt: q, completion: a.text}' "
        "data.deduplicate=true model=tiny-llama",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_split_goes_by_a_key_in_every_format(kind: str) -> None:
    """Rows of one group stay on one side; the nested key is of parquet, tables have flat ones."""
    rows = [{**row, "group": f"g{i // 2}"} for i, row in enumerate(ROWS)]
    key = "group"
    if kind == "csv":
        file = _csv("FILE.csv", rows)
    else:
        key = "meta.group"
        file = _parquet(
            "FILE.parquet", [{**ROWS[i], "meta": {"group": row["group"]}} for i, row in enumerate(rows)]
        )
    found = _prepared(f"data={file}", f"data.split_key={key}", "data.validation=0.4")
    group_of = {row["prompt"]: row["group"] for row in rows}
    sides = [{group_of[row["prompt"]] for row in found.rows[split]} for split in ("train", "validation")]
    assert len(sides[1]) == 2 and len(found.rows["validation"]) == 4
    note(
        "data", f"{kind}: split by the key {key}", measure="groups on both sides of the split",
        value=len(sides[0] & sides[1]), bound=0,
        command=f"llmfw data inspect data=FILE.{kind} data.split_key={key} data.validation=0.4 "
        "model=tiny-llama",
    )  # fmt: skip


def _loss(case: str, *settings: str, command: str) -> llmfw.FitResult:
    result = llmfw.fit(*QUIET, *settings)
    assert result.steps == 2
    note("data", case, command=command, measure=LOSS, value=result.last["loss"])
    return result


FITS: dict[str, tuple[Callable[[], str], str]] = {
    "parquet": (lambda: _parquet("FILE.parquet", ROWS), "FILE.parquet"),
    "csv": (lambda: _csv("FILE.csv", ROWS), "FILE.csv"),
    "txt": (lambda: _text("FILE.txt", "\n\n".join(row["text"] for row in TEXTS)), "FILE.txt"),
    "a folder that datasets saved": (lambda: _saved(ROWS), "DIR"),
    "ShareGPT": (
        lambda: _text("FILE.json", json.dumps([{"conversations": _turns(i)} for i in range(8)])),
        "FILE.json",
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_a_format_is_trained_on(name: str) -> None:
    make, shown = FITS[name]
    _loss(f"trained on {name}", f"data={make()}", command=f"llmfw fit data={shown} {FIT}")


def test_held_out_rows_may_be_of_another_format() -> None:
    _jsonl("FILE.jsonl", ROWS[:8])
    _csv("HELD_OUT.csv", ROWS[8:])
    result = _loss(
        "trained on jsonl, held-out rows of csv", "data=FILE.jsonl", "data.validation=HELD_OUT.csv",
        command=f"llmfw fit data=FILE.jsonl data.validation=FILE.csv {FIT}",
    )  # fmt: skip
    assert "loss" in {name.rpartition("/")[2] for name in result.validation}


@pytest.mark.parametrize(
    "name", ["alpaca", "chatml", "llama2", "mistral", "qwen2", "tulu", "vicuna", "zephyr"]
)
def test_a_named_template_is_trained_with(name: str) -> None:
    talks = [{"messages": [*_talk(i), *_talk(i + 1)]} for i in range(8)]
    _loss(
        f"template: {name}", f"data={_jsonl('FILE.jsonl', talks)}", f"tokenizer.template={name}",
        command=f"llmfw fit data=FILE.jsonl tokenizer.template={name} {FIT}",
    )  # fmt: skip


def _calling(i: int) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "add", "arguments": json.dumps({"a": i, "b": 1})}}
    asked, answer = _talk(i)
    result = {"role": "tool", "content": str(i + 1)}
    calls = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"messages": [asked, calls, result, answer], "tools": [TOOL]}


def test_calls_of_functions_are_trained() -> None:
    """Trained is the call as the template writes it and the answer, each with its end: worked out by hand."""
    rows = [_calling(i) for i in range(8)]
    file = _jsonl("FILE.jsonl", rows)
    found = _prepared(f"data={file}", "tokenizer.template=chatml-tools", "data.validation=null")
    wrong = 0
    for i, example in enumerate(found.train):
        call = f'<tool_call>\n{{"name": "add", "arguments": {{"a": {i}, "b": 1}}}}\n</tool_call>'
        wanted = len(call.encode()) + len(str(i + 1)) + 2  # the bytes of both, and two ends of turns
        wrong += abs(example.trained_lengths[0] - wanted)
    note(
        "data", "calls of functions: what is trained", value=wrong, bound=0,
        measure="trained tokens more or less than call, answer and their ends",
        command="llmfw data inspect data=FILE.jsonl tokenizer.template=chatml-tools model=tiny-llama",
    )  # fmt: skip
    _loss(
        "calls of functions: trained", f"data={file}", "tokenizer.template=chatml-tools",
        command=f"llmfw fit data=FILE.jsonl tokenizer.template=chatml-tools {FIT}",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_converted_rows_give_the_same_samples(suffix: str) -> None:
    rows = [_calling(i) for i in range(4)] + [{"messages": _talk(i)} for i in range(20, 24)]
    file = _text("FILE.json", json.dumps(rows))
    template = "tokenizer.template=chatml-tools"
    expected = _prepared(f"data={file}", template)
    assert run(["data", "convert", f"data={file}", "--out", f"OUT.{suffix}"]) == 0
    found = _prepared(f"data=OUT.{suffix}", template)
    assert found.fingerprint == expected.fingerprint
    note(
        "data", f"converted to {suffix}", measure=SAME.replace("as jsonl", "before"), bound=0,
        value=_differing(expected, found), command=f"llmfw data convert data=FILE.json --out FILE.{suffix}",
    )  # fmt: skip


def test_a_converted_split_is_the_split_of_fit() -> None:
    file = _csv("FILE.csv", ROWS)
    expected = _prepared(f"data={file}")
    assert run(["data", "convert", f"data={file}", "--out", "DIR", "--split", "--format", "parquet"]) == 0
    found = _prepared("data=DIR")
    assert found.fingerprint == expected.fingerprint and found.validation
    note(
        "data", "converted with its split", measure=SAME.replace("as jsonl", "before"), bound=0,
        value=_differing(expected, found),
        command="llmfw data convert data=FILE.csv --out DIR --split --format parquet",
    )  # fmt: skip


def _refused(case: str, command: str, *settings: str) -> None:
    with pytest.raises(LlmfwError) as caught:
        _prepared(*settings)
    note_refusal("data", case, command=command, line=str(caught.value))


REFUSED: dict[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "a record with a field too many": (lambda: _text("FILE.csv", "prompt,completion\na,b\nc,d,e\n"), ()),
    "parquet that is cut off": (
        lambda: _text("FILE.parquet", Path(_parquet("x.parquet", ROWS)).read_bytes()[:300]),
        (),
    ),
    "json that is cut off": (lambda: _text("FILE.json", '[{"text": "a"},\n{"text": '), ()),
    "a shard that is missing": (lambda: _parquet("FILE/train-00001-of-00002.parquet", ROWS)[:4], ()),
    "rows that say the same": (lambda: _jsonl("FILE.jsonl", [*ROWS, ROWS[0]]), ()),
    "a column that isn't there": (
        lambda: _csv("FILE.csv", [{"question": "a", "reply": "b"}]),
        ("data.columns={prompt: qestion, completion: reply}",),
    ),
    "a column that is called so already": (
        lambda: _csv("FILE.csv", ROWS),
        ("data.columns={prompt: prompt}",),
    ),
    "an option without effect": (lambda: _csv("FILE.csv", ROWS), ("data.options.text=lines",)),
    "an unknown speaker of ShareGPT": (
        lambda: _jsonl("FILE.jsonl", [{"conversations": [{"from": "alien", "value": "a"}]}]),
        (),
    ),
    "a template whose tokens are missing": (
        lambda: _jsonl("FILE.jsonl", ROWS),
        ("tokenizer.template=llama3",),
    ),
    "tools that the template leaves out": (lambda: _jsonl("FILE.jsonl", [_calling(1)]), ()),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(case: str) -> None:
    make, settings = REFUSED[case]
    name = make()
    shown = [f"'{word}'" if " " in word else word for word in settings]
    command = " ".join(["llmfw data inspect", f"data={name}", *shown, "model=tiny-llama"])
    _refused(case, command, f"data={name}", *settings)


def test_a_hub_data_set_without_a_network_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    _refused("a hub data set without a network", "llmfw data inspect data=OWNER/NAME", "data=OWNER/NAME")
