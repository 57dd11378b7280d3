"""Mixtures, streaming and packing that were trained on, against what they must equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw.core import failpoints
from llmfw.core.config import load_config
from llmfw.core.data import StepLoader, StreamLoader, collate_with, pack, prepare
from llmfw.core.errors import LlmfwError
from llmfw.core.models import resolve_model
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.tracking import read_journal
from tests.tested.recorder import note, note_refusal

BYTE = byte_tokenizer()
QUIET = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false")
LOSS = "final loss"
STEPS = 3
MAMBA = "{model_type: mamba, hidden_size: 16, num_hidden_layers: 1, state_size: 4, vocab_size: 261}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder and a cache of its own, with rows of several forms."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    _file("a.jsonl", [{"id": f"a{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(40)])
    _file("b.jsonl", [{"id": f"b{i}", "text": f"text {i} " * (1 + i % 5)} for i in range(30)])
    talks = [
        [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"it is {i}"}]
        for i in range(20)
    ]
    _file("c.jsonl", [{"id": f"c{i}", "messages": talk} for i, talk in enumerate(talks)])
    for name, more in (("p.jsonl", "no"), ("q.jsonl", "never")):
        rows = [
            {"prompt": f"{name} {i}", "chosen": f"it is {i}", "rejected": f"{more} {i}"} for i in range(12)
        ]
        _file(name, rows)
    return tmp_path


def _file(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _fit(*overrides: str, **more: Any) -> llmfw.FitResult:
    steps = (
        ()
        if any(word.startswith("trainer.epochs") for word in overrides)
        else (f"trainer.max_steps={STEPS}",)
    )
    return llmfw.fit(*QUIET, *steps, *overrides, **more)


def _command(*overrides: str, plugin: str = "") -> str:
    words = " ".join(f'"{word}"' if " " in word else word for word in overrides)
    return f"llmfw fit {plugin}model=tiny-llama {words}"


def _consumed(result: llmfw.FitResult) -> list[list[str]]:
    return [event.fields["sample_ids"] for event in read_journal(result.dir / "journal.jsonl").of("consumed")]


def _share_error(drawn: list[str], weights: dict[str, float]) -> float:
    """The largest distance, in samples, of any source's count from its share, after any number of samples."""
    given: Counter[str] = Counter()
    worst = 0.0
    for done, name in enumerate(drawn, start=1):
        given[name] += 1
        for source, weight in weights.items():
            share = Fraction(weight) / sum(map(Fraction, weights.values()))
            worst = max(worst, abs(float(given[source] - share * done)))
    return worst


def test_a_mixture_keeps_its_weights_after_every_step() -> None:
    words = ("data.mix={a.jsonl: 2, b.jsonl: 1, c.jsonl: 0.5}", "trainer.max_steps=12", "data.validation=0.1")
    result = _fit(*words, "trainer.micro_batch=4", "data.group_by_length=false")
    drawn = [name.split("/")[-1][0] for step in _consumed(result) for name in step]
    assert len(drawn) == 48
    note(
        "data", "mixture of completions, texts and messages, weights 2 : 1 : 0.5", command=_command(*words),
        measure="largest error of a source's share after any number of samples, samples",
        value=_share_error(drawn, {"a": 2, "b": 1, "c": 0.5}), bound=1,
    )  # fmt: skip
    assert {"loss/a.jsonl", "loss/b.jsonl", "loss/c.jsonl"} <= result.validation.keys()
    journal = read_journal(result.dir / "journal.jsonl")
    assert len(journal.series["validation/loss/b.jsonl"]) == 1


def test_an_epoch_of_a_mixture_may_last_until_all_was_seen() -> None:
    words = ("data.mix={a.jsonl: 1, b.jsonl: 3}", "data.mix_until=all", "trainer.epochs=1")
    result = _fit(*words, "trainer.micro_batch=16", "data.validation=null")
    seen = {name for step in _consumed(result) for name in step}
    assert result.steps == 10  # a: 40 samples at a share of 1/4 are 160 draws, 16 a step
    note(
        "data", "mixture, an epoch until all was seen", command=_command(*words),
        measure="samples that were never trained on", value=70 - len(seen), bound=0,
    )  # fmt: skip


def test_a_mixture_of_pairs_trains_a_preference_loss() -> None:
    words = ("data.mix={p.jsonl: 1, q.jsonl: 1}",)
    result = _fit(*words, "trainer.reference=auto", "dpo.answers=0", "adapter.r=2", plugins=["dpo"])
    note("data", "mixture of preference pairs", command=_command(*words, plugin="--plugin dpo "),
         measure=LOSS, value=result.last["loss"])  # fmt: skip
    assert {"loss/p.jsonl", "loss/q.jsonl"} <= result.validation.keys()


def test_a_preset_may_be_a_source() -> None:
    words = ("data.mix={champ-problems: 1, a.jsonl: 1}", "data.max_length=100")
    result = _fit(*words)
    note("data", "mixture of a preset and a file", command=_command(*words), measure=LOSS,
         value=result.last["loss"])  # fmt: skip


def _same_rows(kind: str) -> str:
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), "rows.parquet", row_group_size=7)
        return "rows.parquet"
    if kind == "csv":
        lines = ["id,prompt,completion", *(f"{r['id']},{r['prompt']},{r['completion']}" for r in rows)]
        Path("rows.csv").write_text("\n".join(lines) + "\n")
        return "rows.csv"
    if kind == "folder":
        Path("rows").mkdir()
        for part in range(2):
            _file(f"rows/part{part}.jsonl", rows[part::2])
        return "rows"
    return "a.jsonl"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "folder"])
def test_a_stream_gives_every_row_once_a_pass(kind: str) -> None:
    name = _same_rows(kind)
    words = ("data.streaming=true", "data.validation=null", "data.shuffle_buffer=10")
    result = _fit(f"data={name}", *words, "trainer.micro_batch=5", "trainer.max_steps=8")
    seen = Counter(name for step in _consumed(result) for name in step)
    wrong = sum(abs(seen[f"a{i}"] - 1) for i in range(40))
    shown = "FOLDER" if kind == "folder" else f"FILE.{kind}"
    note(
        "data", f"streaming: {kind}", command=_command(f"data={shown}", *words, "trainer.max_steps=8"),
        measure="rows not trained on exactly once in the first pass", value=wrong, bound=0,
    )  # fmt: skip


def _weights(result: llmfw.FitResult) -> dict[str, torch.Tensor]:
    (file,) = result.final.glob("*model.safetensors")
    return load_file(file)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("a mixture", ("data.mix={a.jsonl: 2, b.jsonl: 1}",)),
        ("a stream", ("data=a.jsonl", "data.streaming=true", "data.shuffle_buffer=8")),
        (
            "a streamed mixture, packed, two workers",
            ("data.mix={a.jsonl: 2, b.jsonl: 1}", "data.streaming=true", "data.packing=true",
             "data.max_length=30", "data.workers=2"),
        ),
    ],
)  # fmt: skip
def test_a_stopped_run_goes_on_with_the_same_samples_to_the_same_weights(
    case: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*words, "trainer.max_steps=6", "checkpoint.every=3")
    all_words = (*words, "trainer.accumulate=2", "data.validation=null")
    whole = _fit(*all_words, "run.dir=whole")
    monkeypatch.setattr(failpoints, "_reached", Counter())
    monkeypatch.setenv("LLMFW_FAILPOINT", "train.mid_accum:5:raise")
    with pytest.raises(failpoints.Failpoint):
        _fit(*all_words, "run.dir=cut")
    monkeypatch.delenv("LLMFW_FAILPOINT")
    resumed = _fit(*all_words, "run.dir=cut", resume="must")
    ones, others = _consumed(whole), _consumed(resumed)
    assert len(ones) == len(others) == 6
    command = _command(*words, "run.dir=DIR", "--resume")
    different = sum(one != other for one, other in zip(ones, others, strict=True))
    note(
        "data", f"resume of {case}: samples", command=command,
        measure="steps whose samples differ from the uninterrupted run's", value=different, bound=0,
    )  # fmt: skip
    left, right = _weights(whole), _weights(resumed)
    furthest = max(float((left[name] - right[name]).abs().max()) for name in left)
    note("data", f"resume of {case}: weights", command=command,
         measure="max |weight difference| to the uninterrupted run", value=furthest, bound=0)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("one file", ["data=a.jsonl"]),
        ("a mixture", ["data.mix={a.jsonl: 2, b.jsonl: 1}"]),
        ("a stream", ["data=a.jsonl", "data.streaming=true", "trainer.max_steps=9"]),
        (
            "a streamed mixture",
            ["data.mix={a.jsonl: 2, b.jsonl: 1}", "data.streaming=true", "trainer.max_steps=9"],
        ),
    ],
)
def test_the_samples_of_a_step_do_not_depend_on_the_number_of_processes(case: str, words: list[str]) -> None:
    """A global batch of 8 as 1 process x 4 x 2, 2 x 2 x 2, 4 x 2 x 1 and 4 x 1 x 2 (processes, micro_batch,
    accumulate); the loaders of all ranks are walked side by side.
    """
    root = load_config(overrides=[*words, "data.shuffle_buffer=8"] if "true" in str(words) else words).root
    told: list[list[list[str]]] = []
    for world, micro_batch, accumulate in ((1, 4, 2), (2, 2, 2), (4, 2, 1), (4, 1, 2)):
        ranks = []
        for rank in range(world):
            prepared = prepare(root, BYTE)
            alike: dict[str, Any] = {"micro_batch": micro_batch, "accumulate": accumulate, "seed": root.seed,
                                     "max_steps": 9, "rank": rank, "world": world}  # fmt: skip
            if prepared.stream is not None:
                ranks.append(StreamLoader(prepared.stream, collate_with(0), **alike))
            else:
                ranks.append(StepLoader(prepared.train, collate_with(0), mix=prepared.mix, **alike))
        told.append(
            [
                sorted(name for batches in step for batch in batches for name in batch.sample_ids)
                for step in zip(*ranks, strict=True)
            ]
        )
    assert len(told[0]) == 9
    different = sum(one != other for each in told[1:] for one, other in zip(told[0], each, strict=True))
    note(
        "data", f"order over processes: {case}",
        command=_command(*words, "trainer.devices=4", "trainer.micro_batch=2", "trainer.accumulate=1"),
        measure="steps whose samples differ between 1, 2 and 4 processes at one global batch",
        value=different, bound=0,
    )  # fmt: skip


def test_two_processes_train_a_streamed_mixture_as_one_does() -> None:
    words = ("data.mix={a.jsonl: 2, b.jsonl: 1}", "data.streaming=true", "trainer.devices=2")
    alike = (*QUIET, *words[:2], "data.shuffle_buffer=8", "trainer.max_steps=4", "trainer.micro_batch=2")
    one = llmfw.fit(*alike, "trainer.accumulate=2", "run.dir=one")
    command = [sys.executable, "-m", "llmfw.cli", "fit", *alike, words[2], "data.workers=1", "run.dir=two"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    left, right = (read_journal(Path(folder) / "journal.jsonl") for folder in ("one", "two"))
    assert _consumed(one) == [event.fields["sample_ids"] for event in right.of("consumed")]
    gaps = [abs(x[1] - y[1]) for x, y in zip(left.series["loss"], right.series["loss"], strict=True)]
    assert len(gaps) == 4
    note(
        "data", "a streamed mixture on two processes", command=_command(*words, "trainer.max_steps=4"),
        measure="max |loss difference| to one process at the same global batch", value=max(gaps), bound=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["b.jsonl", "a.jsonl", "c.jsonl"])
def test_packed_rows_have_the_log_probs_that_they_have_alone(name: str) -> None:
    from llmfw.core.models import build_model
    from llmfw.core.schema import AdapterConfig

    root = load_config(overrides=["model=tiny-llama", f"data={name}", "data.validation=null"]).root
    module = (
        build_model(resolve_model(root.model), AdapterConfig(), (), 0, tokenizer=BYTE).module.double().eval()
    )
    policy, collate = LocalPolicy(module), collate_with(BYTE.pad_token_id)
    examples = prepare(root, BYTE).train
    alone = {}
    furthest = 0.0
    with torch.no_grad():
        for example in examples:
            alone[example.id] = policy.logps(collate([example]))
        for unit in pack(examples, 200):
            batch = collate([unit])
            together = policy.logps(batch)
            for segment, sample in enumerate(batch.sample_ids):
                gap = (together[batch.segment == segment] - alone[sample]).abs().max()
                furthest = max(furthest, float(gap))
    form = {"b": "texts", "a": "completions", "c": "messages"}[name[0]]
    note(
        "data", f"packing: {form}", command=_command("data=FILE.jsonl", "data.packing=true"),
        measure="max |log-prob difference| packed and alone, float64", value=furthest, bound=1e-9,
    )  # fmt: skip


def test_packing_fills_rows_and_trains() -> None:
    texts = [{"id": f"t{i}", "text": "word " * (1 + (7 * i) % 40)} for i in range(120)]
    _file("t.jsonl", texts)
    words = ("data=t.jsonl", "data.packing=true", "data.max_length=64")
    result = _fit(*words)
    (told,) = read_journal(result.dir / "journal.jsonl").of("data")
    note("data", "packing: room that is left", command=_command("data=FILE.jsonl", *words[1:]),
         measure="share of the packed rows' positions without a token",
         value=1 - told.fields["report"]["splits"]["train"]["efficiency"], bound=0.03)  # fmt: skip
    note("data", "packing: training", command=_command("data=FILE.jsonl", *words[1:]), measure=LOSS,
         value=result.last["loss"])  # fmt: skip


def test_a_long_text_is_trained_on_in_pieces() -> None:
    """Of a text of n tokens in pieces of 256, ceil(n / 256) begin a piece; the others are trained once."""
    _file("long.jsonl", [{"id": f"t{i}", "text": f"sentence {i}. " * 60} for i in range(6)])
    words = ("data=long.jsonl", "data.too_long=split", "data.max_length=64", "data.validation=null")
    prepared = prepare(load_config(overrides=list(words)).root, BYTE)
    whole = prepare(load_config(overrides=["data=long.jsonl", "data.max_length=4096", words[-1]]).root, BYTE)
    wrong = 0
    for example in whole.train:
        pieces = [piece for piece in prepared.train if piece.id.startswith(f"{example.id}#")]
        ids = [token for piece in pieces for token in piece.sequences[0].ids]
        trained = sum(sum(piece.trained_lengths) for piece in pieces)
        wrong += ids != list(example.sequences[0].ids)
        wrong += abs(trained - (len(ids) - len(pieces)))
    note(
        "data", "long texts in pieces", command=_command("data=FILE.jsonl", *words[1:3]),
        measure="tokens not trained exactly once, but for a piece's first", value=wrong, bound=0,
    )  # fmt: skip
    result = _fit(*words, "data.packing=true", "data.streaming=true")
    note("data", "long texts in pieces, packed, streamed",
         command=_command("data=FILE.jsonl", *words[1:3], "data.packing=true", "data.streaming=true"),
         measure=LOSS, value=result.last["loss"])  # fmt: skip


def test_many_short_rows_are_prepared_quickly() -> None:
    _file("many.jsonl", [{"text": f"a short text, number {i}, of some words"} for i in range(50_000)])
    root = load_config(overrides=["data=many.jsonl"]).root
    start = time.monotonic()
    assert len(prepare(root, BYTE).train) == 45_000
    note(
        "data", "50,000 short texts", command="llmfw data inspect data=FILE.jsonl model=tiny-llama",
        measure="seconds to read, split and tokenise", value=time.monotonic() - start, bound=120,
    )  # fmt: skip


_MEMORY = """
import resource, time
from llmfw.core.data import StreamLoader, collate_with, prepare
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.schema import Root
root = Root()
root.data.name, root.data.streaming, root.data.validation = "big.jsonl", True, "0.01"
stream = prepare(root, byte_tokenizer()).stream
peaks = []
for start, stop in ((0, 30), (30, 160), (3000, 3010)):
    if start == 3000:  # 192,000 samples later
        stream.restore(start, {"": {**stream.position(160)[""], "block": 195, "given": 0}})
    begun = time.monotonic()
    loader = StreamLoader(stream, collate_with(0), micro_batch=64, accumulate=1, seed=0, max_steps=stop,
                          start_step=start)
    steps = [step for step, _ in loader.examples()]
    assert steps == list(range(start, stop))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(max(peaks[1:]) - peaks[0], time.monotonic() - begun)
"""


def test_a_long_file_streams_with_flat_memory() -> None:
    """Between step 30 and 160 some 8,000 samples go by, then 190,000 rows up to a later position: kept, the
    samples alone would need 7 MB (0.9 kB each), the rows 40 MB and more.
    """
    with Path("big.jsonl").open("w") as file:
        file.writelines(f'{{"prompt": "{i}?", "completion": "answer {i}"}}\n' for i in range(200_000))
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, seconds = done.stdout.split()
    note(
        "data", "streaming: 200,000 rows", command=_command("data=FILE.jsonl", "data.streaming=true"),
        measure="growth of the largest memory after step 30, MiB", value=int(grown) / 1024, bound=4,
    )  # fmt: skip
    note(
        "data", "streaming: resume at row 195,000",
        command=_command("data=FILE.jsonl", "data.streaming=true", "run.dir=DIR", "--resume"),
        measure="seconds until ten steps of 64 samples are built", value=float(seconds), bound=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("case", "plugin", "words"),
    [
        ("a name beside a mixture", "", ("data.mix={a.jsonl: 1}", "data=b.jsonl")),
        ("one source under two names", "", ("data.mix={a.jsonl: 1, ./a.jsonl: 2}",)),
        ("pairs mixed with texts", "", ("data.mix={b.jsonl: 1, p.jsonl: 1}",)),
        ("an epoch's end without a mixture", "", ("data=a.jsonl", "data.mix_until=all")),
        ("a stream without max_steps", "", ("data=a.jsonl", "data.streaming=true", "trainer.epochs=1")),
        ("a stream without duplicates", "", ("data=a.jsonl", "data.streaming=true", "data.deduplicate=true")),
        (
            "a stream with a cached reference",
            "dpo",
            ("data=p.jsonl", "data.streaming=true", "trainer.reference=cache"),
        ),
        ("a shuffle buffer without a stream", "", ("data=a.jsonl", "data.shuffle_buffer=10")),
        ("packed preference pairs", "dpo", ("data=p.jsonl", "data.packing=true")),
        ("packing for a state-space model", "",
         ("data=b.jsonl", "data.packing=true", f"model.config={MAMBA}", "model.attention=eager")),
        ("answers in pieces", "", ("data=a.jsonl", "data.too_long=split")),
    ],
)  # fmt: skip
def test_what_can_not_be_right_is_refused_before_weights_are_read(
    case: str, plugin: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmfw.core.training.train.build_model", lambda *_, **__: pytest.fail("weights"))
    with pytest.raises(LlmfwError) as caught:
        _fit(*words, plugins=[plugin] if plugin else [])
    assert caught.value.exit_code in (2, 3)
    named = f"--plugin {plugin} " if plugin else ""
    note_refusal("data", case, command=_command(*words, plugin=named), line=str(caught.value))
