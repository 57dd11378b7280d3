"""Strategies and launchers that were run: two processes against one, other world sizes on resume, torchrun,
two nodes, submitit, and what is refused.

The trainings are tiny (a Llama of 0.1 million parameters, 6 steps, global batch 4); the figure is the largest
relative difference of loss, gradient norm and held-out loss to one process, over all steps. The samples of
every step are compared, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.core.errors import LlmfwError
from llmfw.core.tracking import read_record
from tests.tested.recorder import note, note_refusal
from tests.toys import write_toy
from tests.toys.strategies import PAIRS, QUIET, ROWS, STEPS, case, difference, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MEASURE = (
    f"max relative difference of loss, gradient norm and held-out loss to one process over {STEPS} steps"
)
COMMON = (f"trainer.max_steps={STEPS}", "trainer.validate_every=3", "optimizer.lr=1e-3")
ANSWERS = (
    "ld_dpo.answers=1",
    "generation.max_new_tokens=8",
    "trainer.sample_every=3",
    "trainer.sample_prompts=1",
)
PLAIN = ("data=rows.jsonl", *COMMON)
LD_DPO = ("data=pairs.jsonl", *COMMON, *ANSWERS)
LORA = ("adapter.kind=lora", "adapter.r=4")
ONE = ("trainer.micro_batch=2", "trainer.accumulate=2")
TWO = ("trainer.micro_batch=1", "trainer.accumulate=2", "trainer.devices=2")
T5 = (
    "model.config={model_type: t5, vocab_size: 261, d_model: 32, d_kv: 8, d_ff: 64, num_layers: 2, "
    "num_heads: 4, decoder_start_token_id: 256, pad_token_id: 256, eos_token_id: 258, dropout_rate: 0.0}"
)
MIXTRAL = (
    "model.config={model_type: mixtral, vocab_size: 261, hidden_size: 32, intermediate_size: 64, "
    "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, num_local_experts: 4, "
    "output_router_logits: true, pad_token_id: 256, bos_token_id: 257, eos_token_id: 258}"
)
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], float]] = {
    "plain": (PLAIN, (), 1e-5),
    "untied": ((*PLAIN, "model.config.tie_word_embeddings=false"), (), 1e-5),
    "lora": ((*PLAIN, *LORA, "trainer.recompute=layers"), (), 1e-5),
    "bf16": ((*PLAIN, "trainer.precision=bf16-mixed"), (), 1e-3),
    "packed": ((*PLAIN, "data.packing=true", "data.max_length=128"), (), 1e-5),
    "encoder-decoder": ((*PLAIN, T5), (), 1e-5),
    "mixture of experts": ((*PLAIN, MIXTRAL), (), 1e-5),
    "ld_dpo": ((*LD_DPO, "trainer.reference=copy"), ("ld_dpo",), 1e-5),
    "ld_dpo-cache": ((*LD_DPO, "trainer.reference=cache"), ("ld_dpo",), 1e-5),
    "ld_dpo-lora": ((*LD_DPO, *LORA, "trainer.reference=adapter_off"), ("ld_dpo",), 1e-5),
}
SAID = {
    "packed": " data.packing=true", "encoder-decoder": " 'model.config={model_type: t5, ...}'",
    "mixture of experts": " 'model.config={model_type: mixtral, output_router_logits: true, ...}'",
    "plain": "", "untied": " model.config.tie_word_embeddings=false",
    "lora": " adapter.kind=lora trainer.recompute=layers", "bf16": " trainer.precision=bf16-mixed",
    "ld_dpo": " --plugin ld_dpo trainer.reference=copy",
    "ld_dpo-cache": " --plugin ld_dpo trainer.reference=cache",
    "ld_dpo-lora": " --plugin ld_dpo adapter.kind=lora trainer.reference=adapter_off",
}  # fmt: skip


def torchrun(*words: str, nodes: int = 1, node: int = 0, port: int = 0, **env: str) -> subprocess.Popen[str]:
    """Two processes of a module, or one of two nodes of one process each."""
    where = ["--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port or free_port()}"]
    if nodes > 1:
        where[0] = "--nproc_per_node=1"
        where += [f"--nnodes={nodes}", f"--node_rank={node}"]
    command = [str(Path(sys.executable).with_name("torchrun")), *where, *words]
    return start(command, **env)


def start(command: list[str], **env: str) -> subprocess.Popen[str]:
    """A process with its streams kept."""
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str], seconds: float = 150) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"still running after {seconds} s: {err[-2000:]}")
    return process.returncode, out, err


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def prepare(folder: Path) -> None:
    """Data files for all cases."""
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "pairs.jsonl").write_text(PAIRS)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder in which one process, and then two under torchrun, ran every kind; in it the tests stand."""
    folder = tmp_path_factory.mktemp("strategies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LLMFW_CACHE", str(folder / "cache"))
        prepare(folder)
        for kind, (settings, plugins, _) in KINDS.items():
            run(case(kind, *settings, *ONE, plugins=plugins))
        every = "checkpoint.every=2"
        run(case("cut", *PLAIN, *ONE, every, stop=5))
        for strategy in ("ddp", "fsdp2"):
            shutil.copytree("cut", f"cut-{strategy}")
        cases = []
        for strategy in ("ddp", "fsdp2"):
            two = (*TWO, f"trainer.strategy={strategy}")
            for kind, (settings, plugins, _) in KINDS.items():
                cases.append(case(f"{kind}-{strategy}", *settings, *two, plugins=plugins))
            cases.append(case(f"cut-{strategy}", *PLAIN, *two, every, resume="must"))
            cases.append(case(f"back-{strategy}", *PLAIN, *two, every, stop=5))
        (folder / "cases.json").write_text(json.dumps(cases))
        code, _, err = finished(torchrun("-m", "tests.toys.strategies", "cases.json"), 240)
        assert code == 0, err[-3000:]
        for strategy in ("ddp", "fsdp2"):
            run(case(f"back-{strategy}", *PLAIN, *ONE, every, resume="must"))
        yield folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with data, in which the test stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path)
    return tmp_path


def outcome(name: str, rank: int = 0) -> Any:
    """What a process wrote of a case."""
    return json.loads(Path(f"{name}-{rank}.json").read_text())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one_does(ran: Path, kind: str, strategy: str):
    assert [outcome(f"{kind}-{strategy}", rank) for rank in (0, 1)] == [{"error": None, "steps": STEPS}] * 2
    command = f"llmfw fit data=FILE trainer.devices=2 trainer.strategy={strategy}{SAID[kind]}"
    value = difference(kind, f"{kind}-{strategy}")
    note(
        "strategies",
        f"{strategy}: {kind}",
        command=command,
        measure=MEASURE,
        value=value,
        bound=KINDS[kind][2],
    )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_run_goes_on_in_another_number_of_processes(ran: Path, strategy: str):
    assert outcome(f"cut-{strategy}", 1) == {"error": None, "steps": STEPS}
    command = f"llmfw fit data=FILE run.dir=RUN --resume=must trainer.devices=2 trainer.strategy={strategy}"
    value = difference("plain", f"cut-{strategy}")
    note(
        "strategies", f"resume 1 -> 2 ({strategy})", command=command, measure=MEASURE, value=value, bound=1e-5
    )
    assert outcome(f"back-{strategy}", 0) == {"error": None, "steps": STEPS}
    command = "llmfw fit data=FILE run.dir=RUN --resume=must"
    value = difference("plain", f"back-{strategy}")
    note(
        "strategies", f"resume 2 ({strategy}) -> 1", command=command, measure=MEASURE, value=value, bound=1e-5
    )


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_the_weights_of_two_processes_are_a_model_as_any_other(ran: Path, kind: str):
    from safetensors.torch import load_file

    found = [
        load_file(next(Path(name, "final").glob("*model.safetensors"))) for name in (kind, f"{kind}-fsdp2")
    ]
    assert found[0].keys() == found[1].keys()
    value = max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0])
    note("strategies", f"fsdp2: saved weights ({kind})", command="llmfw generate TEXT model=RUN",
         measure="max |weight difference| to one process after 6 steps", value=value, bound=1e-4)  # fmt: skip
    config = json.loads(Path(f"{kind}-fsdp2/final", "config.json").read_text()) if kind == "plain" else {}
    assert config.get("architectures", ["LlamaForCausalLM"]) == ["LlamaForCausalLM"]


def test_torchrun_on_two_nodes_speaks_with_one_voice(ran: Path):
    words = (
        "-m",
        "llmfw",
        "fit",
        *QUIET,
        *PLAIN,
        "trainer.micro_batch=2",
        "trainer.nodes=2",
        "run.dir=nodes",
    )
    port = free_port()
    nodes = [torchrun(*words, nodes=2, node=node, port=port) for node in (0, 1)]
    ends = [finished(node) for node in nodes]
    assert [code for code, _, _ in ends] == [0, 0], ends[0][2][-2000:] + ends[1][2][-2000:]
    assert "training loss" in ends[0][1] and "run nodes" in ends[0][2].replace(str(ran) + "/", "")
    assert "training" not in ends[1][1] and "nodes" not in ends[1][1] and "rows read" not in ends[1][2]
    command = "torchrun --nnodes=2 --nproc_per_node=1 -m llmfw fit data=FILE trainer.nodes=2"
    value = difference("plain", "nodes")
    note("strategies", "two nodes under torchrun", command=command, measure=MEASURE, value=value, bound=1e-5)


def test_the_example_for_submitit_runs(ran: Path):
    page = (ROOT / "docs/scaling.md").read_text()
    (example,) = re.findall(r"```python\n(# submit\.py.*?)```", page, re.DOTALL)
    example = example.replace('cluster="slurm"', 'cluster="local"')
    (ran / "submit.py").write_text(example)
    words = [*QUIET, *PLAIN, "trainer.micro_batch=2", "trainer.devices=2", "run.dir=submitted"]
    code, out, err = finished(start([sys.executable, "submit.py", *words]))
    logs = "".join(path.read_text()[-1500:] for path in sorted(Path("jobs").rglob("*.err")))
    assert code == 0, err[-2000:] + logs
    assert float(out.strip().splitlines()[-1]) > 0
    value = difference("plain", "submitted")
    command = "python submit.py data=FILE trainer.devices=2"
    note(
        "strategies",
        "submitit (its local executor)",
        command=command,
        measure=MEASURE,
        value=value,
        bound=1e-5,
    )


BAD = """
import os
import subprocess
from llmfw import Plugin, hookimpl
from llmfw.core.errors import DataError

class Toy(Plugin):
    @hookimpl
    def llmfw_callbacks(self, run):
        import lightning.pytorch as L

        class Bad(L.Callback):
            def on_train_batch_start(self, trainer, module, batch, index):
                if trainer.global_rank == 1 and trainer.global_step == 1:
                    if os.environ["HOW"] == "kill":
                        subprocess.run(["kill", "-9", str(os.getpid())])  # no plugin can do it itself
                    raise DataError("BAD-ROW", "row 7 is bad", mend="mend it")
        return [Bad()]
"""


@pytest.mark.parametrize(("how", "code", "line"), [
    ("raise", 3, "error[BAD-ROW] row 7 is bad; mend it"),
    ("kill", 6, "error[RANK-LOST] process 1 of the run was killed by SIGKILL; "
                "look at the machine's log: the memory may have run out"),
], ids=["raise", "kill"])  # fmt: skip
def test_a_process_that_fails_takes_the_others_with_it_in_one_line(
    here: Path, how: str, code: int, line: str
):
    site = here / "site"
    write_toy(site, "bad", BAD)
    words = [*QUIET, *PLAIN, *TWO, f"run.dir=bad-{how}", "--plugin", "bad"]
    begun = time.monotonic()
    process = start([sys.executable, "-m", "llmfw", "fit", *words], HOW=how, PYTHONPATH=f"{site}:{ROOT}")
    found, _, err = finished(process)
    assert found == code and re.findall(r"^error\[.*", err, re.MULTILINE) == [line], err[-3000:]
    assert time.monotonic() - begun < 120 and read_record(Path(f"bad-{how}")).status == "FAILED"
    command = "llmfw fit data=FILE trainer.devices=2"
    case = "a row that one process can't use" if how == "raise" else "a process that is killed"
    note_refusal("strategies", case, command=command, line=line)


def test_under_torchrun_a_failure_is_one_line_too(here: Path):
    site = here / "site"
    write_toy(site, "bad", BAD)
    words = (*QUIET, *PLAIN, *TWO, "run.dir=bad-torchrun", "--plugin", "bad")
    code, _, err = finished(torchrun("-m", "llmfw", "fit", *words, HOW="raise", PYTHONPATH=f"{site}:{ROOT}"))
    lines = re.findall(r"^error\[.*", err, re.MULTILINE)
    assert code != 0 and lines == ["error[BAD-ROW] row 7 is bad; mend it"], err[-3000:]
    assert read_record(Path("bad-torchrun")).status == "FAILED"
    code, _, err = finished(torchrun("-m", "llmfw", "fit", *words, HOW="raise", PYTHONPATH=f"{site}:{ROOT}"))
    (line,) = re.findall(r"^error\[.*", err, re.MULTILINE)
    assert line.startswith("error[RUN-EXISTS]"), "the others hear from rank 0 why there's no run"


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "FSDP2 with a quantised base": (("trainer.strategy=fsdp2", "trainer.devices=2", "model.quantization=nf4",
                                     "adapter.kind=lora"), {}),
    "FSDP2 with an 8-bit optimizer": (("trainer.strategy=fsdp2", "trainer.devices=2",
                                       "optimizer.name=adamw8bit"), {}),
    "FSDP2 in float16": (("trainer.strategy=fsdp2", "trainer.devices=2", "trainer.precision=16-mixed"), {}),
    "FSDP2 on one CPU process": (("trainer.strategy=fsdp2",), {}),
    "two machines without a launcher": (("trainer.nodes=2",), {}),
    "torchrun with another number of processes": ((), {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
                                                       "TORCHELASTIC_RUN_ID": "x"}),
    "srun with another number of processes": (("trainer.devices=2",),
                                              {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}),
    "DeepSpeed on a CPU": (("trainer.strategy=deepspeed", "trainer.devices=2"), {}),
    "a key of DeepSpeed that is ours": (("trainer.strategy=deepspeed", "trainer.devices=2",
                                         "trainer.deepspeed={gradient_clipping: 1.0}"), {}),
    "DeepSpeed's keys without DeepSpeed": (("trainer.deepspeed={zero_optimization: {stage: 3}}",), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_right_is_refused_before_a_weight_is_read(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
):
    settings, env = REFUSED[name]
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(LlmfwError) as caught:
        llmfw.fit(*QUIET, "data=rows.jsonl", "trainer.max_steps=1", *settings)
    assert not Path("runs").exists()
    prefix = "torchrun -m " if "RANK" in env else "srun " if env else ""
    command = f"{prefix}llmfw fit data=FILE " + " ".join(settings)
    note_refusal(
        "strategies", name, command=command.strip(), line=str(caught.value).replace(str(here), "DIR")
    )


def test_a_sweep_of_several_processes_is_refused(here: Path):
    from llmfw.core.sweep.run import sweep

    with pytest.raises(LlmfwError) as caught:
        sweep([*QUIET, "data=rows.jsonl", "trainer.devices=2", "optimizer.lr=1e-3,1e-4"])
    command = "llmfw sweep data=FILE trainer.devices=2 optimizer.lr=1e-3,1e-4"
    note_refusal("strategies", "a sweep over several processes", command=command, line=str(caught.value))


def test_a_surgery_with_parameters_of_each_process_is_refused_under_fsdp2(here: Path):
    from tests.toys import installed
    from tests.toys.sources import SURGERY

    source = SURGERY.replace("trainable=(", 'rank_local=("model.norm.toy_shift",), trainable=(')
    write_toy(here / "site", "local", source)
    with installed(here / "site"), pytest.raises(LlmfwError) as caught:
        llmfw.fit(*QUIET, *PLAIN, *TWO, "trainer.strategy=fsdp2", plugins=["local"])
    note_refusal("strategies", "FSDP2 with parameters that differ between processes",
                 command="llmfw fit --plugin NAME data=FILE trainer.devices=2 trainer.strategy=fsdp2",
                 line=str(caught.value))  # fmt: skip
