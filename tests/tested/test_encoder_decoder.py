"""Encoder-decoder models that were trained, kept, loaded again and asked; and what is refused of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw.cli import run as run_cli
from llmfw.core.assemble import assemble, settle
from llmfw.core.errors import LlmfwError
from llmfw.core.failpoints import Failpoint
from llmfw.core.open import open_policy
from llmfw.core.tracking import read_journal
from tests.tested.recorder import note, note_refusal
from tests.toys import encoder_decoder as toys
from tests.toys import installed, write_toy

QUIET = ("trainer.progress=false", "tracking.mlflow=false", "generation.max_new_tokens=12")
LEARN = ("optimizer.lr=0.02", "optimizer.warmup=0", "trainer.micro_batch=4", "trainer.max_steps=8")
PROMPTS = ["say 3", "say 12"]
FALLS = "training loss of the last step over the first's"
GREEDY = "greedy tokens that differ from transformers' generate"
RELOADED = "max |logit difference| to plain transformers on final/"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with supervised rows, pairs and documents, and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files = {
        "rows": [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(20)],
        "pairs": [
            {"prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, I think it is {i + 1}"}
            for i in range(12)
        ],
        "documents": [{"text": f"it is {i}"} for i in range(4)],
        "dialogue": [
            {"messages": [{"role": role, "content": f"say {i}"} for role in ("user", "assistant") * 2]}
            for i in range(4)
        ],
    }
    for name, rows in files.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def _model(kind: str) -> list[str]:
    """The words that name a model: a config from scratch, or a folder with its own tokenizer."""
    if kind == "t5 folder":
        return [f"model={toys.save_folder(Path('t5'), toys.T5, toys.t5_tokenizer())}"]
    if kind == "bart folder":
        return [f"model={toys.save_folder(Path('bart'), toys.BART, toys.bart_tokenizer())}"]
    config = {"t5": toys.T5, "bart": toys.BART, "mt5": toys.MT5, "pegasus": toys.PEGASUS}[kind]
    return [f"model.config={toys.written(config)}"]


def _command(kind: str, rest: str, *, plugin: str = "") -> str:
    model = "model=DIR" if "folder" in kind else f"'{_model(kind)[0]}'"
    return " ".join(part for part in ("llmfw fit", plugin, model, rest) if part)


def _opened(model: str | Path) -> Any:
    return open_policy(assemble(settle(overrides=[f"model={model}"]), "generate")).policy


def _logits(model: Any, ids: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=written).logits


def _compare(final: Path, plain: Any) -> tuple[float, int]:
    """(max |logit difference|, greedy tokens that differ) of a run's weights and a plain model."""
    policy = _opened(final)
    start = plain.config.decoder_start_token_id
    plain.generation_config.forced_eos_token_id = None  # BART's: an end at the limit, wherever the answer is
    difference, wrong = 0.0, 0
    for prompt in PROMPTS:
        (answer,) = policy.generate([prompt], max_new_tokens=12)
        from llmfw.core.generation import ids_read

        ids = torch.tensor([ids_read(policy.tokenizer, prompt, policy.sides)])
        expected = plain.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1,
            max_new_tokens=12, eos_token_id=list(policy.sampling.stop_ids),
        )[0, 1:].tolist()  # fmt: skip
        wrong += abs(len(expected) - len(answer.ids))
        wrong += sum(one != other for one, other in zip(expected, answer.ids, strict=False))
        row = torch.tensor([[start, *answer.ids]])
        gap = _logits(policy.module, ids, row) - _logits(plain, ids, row)
        difference = max(difference, float(gap.abs().max()))
    return difference, wrong


@pytest.mark.parametrize("kind", ["t5", "bart", "mt5", "pegasus", "t5 folder", "bart folder"])
def test_it_trains_is_kept_and_answers(kind: str):
    from transformers import AutoModelForSeq2SeqLM

    run = llmfw.fit(*_model(kind), *QUIET, *LEARN, "data=rows.jsonl", "run.dir=run")
    command = _command(kind, "data=FILE optimizer.lr=0.02")
    ratio = run.last["loss"] / run.first["loss"]
    note("encoder_decoder", f"{kind}, all weights", command=command, measure=FALLS, value=ratio, bound=0.8)
    apart = abs(llmfw.evaluate("model=run", *QUIET).validation["loss"] - run.validation["loss"])
    note("encoder_decoder", f"{kind}, measured again", command="llmfw validate model=RUN",
         measure="|held-out loss - that of fit|", value=apart, bound=1e-6)  # fmt: skip
    plain = AutoModelForSeq2SeqLM.from_pretrained(run.final).eval()
    difference, wrong = _compare(run.final, plain)
    note("encoder_decoder", f"{kind}, loaded again", command="llmfw generate 'say 3' model=RUN",
         measure=RELOADED, value=difference, bound=0.0)  # fmt: skip
    note("encoder_decoder", f"{kind}, greedy", command="llmfw generate 'say 3' model=RUN",
         measure=GREEDY, value=wrong, bound=0)  # fmt: skip


def test_it_learns_its_answers_by_heart():
    Path("few.jsonl").write_text("".join(Path("rows.jsonl").read_text().splitlines(keepends=True)[:4]))
    llmfw.fit(*_model("t5 folder"), *QUIET, "data=few.jsonl", "data.validation=0", "optimizer.lr=0.03",
              "optimizer.warmup=0", "trainer.micro_batch=4", "trainer.max_steps=40",
              "run.dir=run")  # fmt: skip
    answers = llmfw.generate([f"say {i}" for i in range(4)], "model=run", *QUIET).texts
    wrong = sum(answer != f"it is {i}" for i, answer in enumerate(answers))
    note("encoder_decoder", "four answers learnt by heart", command="llmfw fit model=DIR data=FILE",
         measure="answers of 4 that differ from the rows'", value=wrong, bound=0)  # fmt: skip


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_lora_trains_and_loads_in_plain_peft(kind: str):
    from peft import AutoPeftModelForSeq2SeqLM

    # PEFT has to find the base: a folder
    words = _model(f"{kind} folder")
    run = llmfw.fit(
        *words, *QUIET, *LEARN, "data=rows.jsonl", "adapter.kind=lora", "trainer.max_steps=16", "run.dir=run"
    )
    command = "llmfw fit model=DIR data=FILE adapter.kind=lora optimizer.lr=0.02"
    ratio = run.last["loss"] / run.first["loss"]
    note("encoder_decoder", f"{kind}, LoRA", command=command, measure=FALLS, value=ratio, bound=0.98)
    saved = json.loads((run.final / "adapter_config.json").read_text())
    assert saved["task_type"] == "SEQ_2_SEQ_LM"
    difference, wrong = _compare(run.final, AutoPeftModelForSeq2SeqLM.from_pretrained(run.final).eval())
    note("encoder_decoder", f"{kind}, LoRA loaded again", command="llmfw generate 'say 3' model=RUN",
         measure="max |logit difference| to plain PEFT on final/", value=difference, bound=1e-6)  # fmt: skip
    note("encoder_decoder", f"{kind}, LoRA greedy", command="llmfw generate 'say 3' model=RUN",
         measure=GREEDY, value=wrong, bound=0)  # fmt: skip


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_stopped_run_goes_on_bit_for_bit(adapter: str, monkeypatch: pytest.MonkeyPatch):
    config = {**toys.T5, "dropout_rate": 0.1}  # the dropout's numbers have to be those of the step, too
    words = (f"model.config={toys.written(config)}", *QUIET, "data=rows.jsonl", "trainer.max_steps=6",
             "checkpoint.every=3", "trainer.accumulate=2", f"adapter.kind={adapter}")  # fmt: skip
    whole = llmfw.fit(*words, "run.dir=whole")
    with monkeypatch.context() as patch:
        patch.setenv("LLMFW_FAILPOINT", "train.mid_accum:5:raise")
        patch.setattr("llmfw.core.failpoints._reached", type(_reached())())
        with pytest.raises(Failpoint):
            llmfw.fit(*words, "run.dir=cut")
    resumed = llmfw.fit(*words, "run.dir=cut", resume="must")
    (left,), (right,) = (tuple(run.final.glob("*model.safetensors")) for run in (whole, resumed))
    one, other = load_file(left), load_file(right)
    assert one.keys() == other.keys()
    wrong = sum(not one[name].equal(other[name]) for name in one)
    series = [read_journal(run.dir / "journal.jsonl").digest() for run in (whole, resumed)]
    case = f"stopped and resumed, {'LoRA' if adapter == 'lora' else 'all weights'}"
    command = f"llmfw fit --resume 'model.config={toys.written(config)}' data=FILE adapter.kind={adapter}"
    note("encoder_decoder", case, command=command, measure="tensors and values that differ in any bit",
         value=wrong + (series[0] != series[1]), bound=0)  # fmt: skip


def _reached() -> Any:
    from llmfw.core import failpoints

    return failpoints._reached


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_preference_losses_train_with_a_live_and_a_cached_reference(kind: str):
    words = (*_model(kind), *QUIET, "data=pairs.jsonl", "trainer.max_steps=6", "optimizer.lr=0.01",
             "optimizer.warmup=0")  # fmt: skip
    live = llmfw.fit(*words, "ld_dpo.answers=0", plugins=["ld_dpo"])
    command = _command(kind, "data=FILE", plugin="--plugin ld_dpo")
    assert live.first["loss"] == pytest.approx(0.6931, abs=1e-4)  # ln 2: policy and reference are one
    note("encoder_decoder", f"{kind}, ld_dpo", command=command, measure=FALLS,
         value=live.last["loss"] / live.first["loss"], bound=0.95)  # fmt: skip
    cached = llmfw.fit(*words, "ld_dpo.answers=0", "trainer.reference=cache", plugins=["ld_dpo"])
    note("encoder_decoder", f"{kind}, ld_dpo with a cached reference",
         command=f"{command} trainer.reference=cache", measure="|last loss - that of the live reference|",
         value=abs(cached.last["loss"] - live.last["loss"]), bound=1e-6)  # fmt: skip
    plain = llmfw.fit(*words, "dpo.answers=2", plugins=["dpo"])
    neutral = llmfw.fit(*words, "ld_dpo.answers=0", "ld_dpo.alpha=1.0", plugins=["ld_dpo"])
    apart = abs(plain.last["loss"] - neutral.last["loss"])
    note("encoder_decoder", f"{kind}, ld_dpo at alpha=1", command=f"{command} ld_dpo.alpha=1.0",
         measure="|last loss - that of dpo|", value=apart, bound=0.0)  # fmt: skip


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(strategy: str):
    words = [*_model("t5"), *QUIET, "data=rows.jsonl", "trainer.max_steps=3", "trainer.threads=1",
             "trainer.accelerator=cpu"]  # fmt: skip
    one = llmfw.fit(*words, "trainer.micro_batch=4", "run.dir=one")
    two = ["trainer.micro_batch=2", "trainer.devices=2", f"trainer.strategy={strategy}", "run.dir=two"]
    command = [sys.executable, "-m", "llmfw.cli", "fit", *words, *two]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    views = [read_journal(place / "journal.jsonl") for place in (one.dir, Path("two"))]
    apart = 0.0
    for name in ("loss", "grad_norm", "validation/loss"):
        left, right = (dict(view.series[name]) for view in views)
        assert left.keys() == right.keys()
        apart = max([apart, *(abs(left[step] / right[step] - 1) for step in left)])
    note("encoder_decoder", f"t5, two processes, {strategy}",
         command=_command("t5", f"data=FILE trainer.devices=2 trainer.strategy={strategy}"),
         measure="max relative |difference| of losses and gradient norms to one process",
         value=apart, bound=1e-5)  # fmt: skip


@pytest.mark.parametrize("what", ["completion", "logprob", "score"])
def test_predictions_are_the_models_own(what: str):
    """Of each row the model's own sum of log-probs, its own greedy tokens, or the difference of a pair's."""
    from transformers import AutoModelForSeq2SeqLM

    (word,) = _model("t5 folder")
    model = AutoModelForSeq2SeqLM.from_pretrained("t5").eval()
    tokenizer = toys.t5_tokenizer()
    file = "pairs.jsonl" if what == "score" else "rows.jsonl"
    words = ["predict", word, "--data", file, "--out", "out.jsonl", "--what", what, *QUIET]
    assert run_cli(words) == 0
    rows, lines = (
        [json.loads(line) for line in Path(name).read_text().splitlines()] for name in (file, "out.jsonl")
    )

    def own(row: dict[str, str], answer: str) -> float:
        ids = torch.tensor([tokenizer(row["prompt"])["input_ids"]])
        labels = torch.tensor([tokenizer(answer)["input_ids"]])
        with torch.no_grad():
            return -float(model(input_ids=ids, labels=labels).loss) * labels.numel()

    apart = 0.0
    for row, line in zip(rows, lines, strict=True):
        if what == "completion":
            ids = tokenizer(row["prompt"], return_tensors="pt")["input_ids"]
            theirs = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
            )[0]
            apart += line["completion"] != tokenizer.decode(theirs, skip_special_tokens=True)
        elif what == "logprob":
            apart = max(apart, abs(line["logprob"] - own(row, row["completion"])))
        else:
            apart = max(apart, abs(line["margin"] - own(row, row["chosen"]) + own(row, row["rejected"])))
    measure = {"completion": "answers that differ from transformers' own"}
    note("encoder_decoder", f"predict --what {what}",
         command=f"llmfw predict model=DIR --data FILE --out FILE --what {what}",
         measure=measure.get(what, "max |difference| to transformers' own log-probs, nats"), value=apart,
         bound=0 if what == "completion" else 1e-3)  # fmt: skip


T5_WORDS = f"model.config={toys.written(toys.T5)}"
SWITCH = {**toys.T5, "model_type": "switch_transformers", "output_router_logits": "true"}
NO_SDPA = {**toys.T5, "model_type": "longt5"}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("documents", (T5_WORDS, "data=documents.jsonl")),
        ("packing", (T5_WORDS, "data=rows.jsonl", "data.packing=true")),
        ("two answers in a row", (T5_WORDS, "data=dialogue.jsonl")),
        ("messages without a template", ("model=t5", "data=dialogue.jsonl")),
        ("several heads", ("model.config={model_type: prophetnet}", "data=rows.jsonl")),
        ("no decoder_start_token_id", ("model=startless", "data=rows.jsonl")),
        (
            "a router's loss",
            (f"model.config={toys.written(SWITCH)}", "model.attention=eager", "data=rows.jsonl"),
        ),
        ("no sdpa", (f"model.config={toys.written(NO_SDPA)}", "data=rows.jsonl")),
        ("chat without a template", ("model=t5",)),
    ],
)
def test_refusals(case: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, here: Path):
    toys.save_folder(Path("t5"), toys.T5, toys.t5_tokenizer())
    toys.save_folder(Path("startless"), toys.T5, toys.t5_tokenizer())
    for name in ("config", "generation_config"):
        path = Path(f"startless/{name}.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "decoder_start_token_id": None}))
    talk = case.startswith("chat")
    message = [{"role": "user", "content": "say 3"}]
    if not talk:
        monkeypatch.setattr("llmfw.core.models.build._build", _too_late)
    with pytest.raises(LlmfwError) as caught:
        llmfw.generate([message], *words, *QUIET) if talk else llmfw.fit(*words, *QUIET)
    verb = "llmfw chat" if talk else "llmfw fit"
    shown = " ".join(f"'{word}'" if "{" in word else word for word in words)
    shown = shown.replace("=t5", "=DIR").replace("=startless", "=DIR")
    line = str(caught.value).replace(str(here), "DIR")
    note_refusal("encoder_decoder", case, command=f"{verb} {shown}", line=line)


TOYS = {
    "a plugin's decoder": "llmfw_decoder(self, run, model_config):\n"
    "        return llmfw.Decoder(name='tree', generate=print)",
    "a plugin's key-value cache": "llmfw_kv_cache(self, run, model_config):\n"
    "        return llmfw.CacheFactory(name='sink', build=print)",
}


@pytest.mark.parametrize("case", list(TOYS))
def test_plugins_for_one_row_of_tokens_are_refused(case: str, here: Path, monkeypatch: pytest.MonkeyPatch):
    source = f"import llmfw\n\n\nclass Toy(llmfw.Plugin):\n    @llmfw.hookimpl\n    def {TOYS[case]}\n"
    write_toy(here / "site", "ed_toy", source)
    monkeypatch.setattr("llmfw.core.models.build._build", _too_late)
    with installed(here / "site"), pytest.raises(LlmfwError) as caught:
        llmfw.generate(["say 3"], T5_WORDS, *QUIET, plugins=["ed_toy"])
    note_refusal("encoder_decoder", case, command=f"llmfw generate 'say 3' '{T5_WORDS}' --plugin NAME",
                 line=str(caught.value).replace("ed_toy", "NAME"))  # fmt: skip


def _too_late(*_: Any) -> Any:
    raise AssertionError("weights were about to be read")
