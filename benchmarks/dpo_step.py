"""A DPO step against TRL's own trainer: real tokens a second, peak memory, loss and gradient.

    python -m benchmarks.dpo_step                          # all cases, results/dpo_step.CASE.json
    python -m benchmarks.dpo_step --cases ragged --repetitions 3
    python -m benchmarks.dpo_step --tiny --out FOLDER      # whether everything runs, in minutes

Both sides train all weights of the same model on the same token ids in float32, with AdamW (fused), a
constant learning rate and gradients clipped to 1. Ours is ``llmfw.fit`` with the plugin dpo; theirs is
``DPOTrainer.train()`` in its own environment, with what was found to be fastest for it here: no gradient
checkpointing (its default has it), float32 (its default is bfloat16, slower on processors without matrix
units for it), no evaluation, its fused LM head and AdamW. Its ``padding_free`` does nothing in this version
(it warns, and pads), and Liger's kernels need a GPU.

Cases:

ragged   SmolLM2-135M, the first 8 pairs of CHAMP as they come, each side cut at 384 tokens, 2 pairs a step
prompt   SmolLM2-135M, made pairs: prompts of 512 tokens, answers of 128, 2 pairs a step
wide     a Llama of 4 layers of width 256 with a vocabulary of 262,144 (random weights): prompts of 64 tokens,
         answers of 448, 4 pairs a step
ragged_compiled, prompt_compiled
         the same pairs: reference log-probs cached before step 1 on both sides, our layers and TRL's whole
         model compiled; every step comes once before the clock starts, so that each shape was seen

Rows: *as installed*: the plugin's defaults (reference log-probs cached before step 1, their filling told
apart, the layout that it chooses) against a live reference, TRL's default; *equal terms*: a live reference on
both sides, no cache, no compilation; *cached*: reference log-probs computed before step 1 on both sides;
*recomputed* (of the ragged pairs): layers made again in the backward pass, ours with a cached reference,
TRL's with a live one, its default (gradient checkpointing).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness, record, tasks
from benchmarks.harness import Measured, Side, Task

QUIET = (
    "adapter.kind=none", "dpo.answers=0", "checkpoint.every=0", "tracking.mlflow=false",
    "trainer.progress=false",
)  # fmt: skip
"""What isn't a step's: answers, checkpoints, tracking; and all weights are trained."""
WIDE = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 262_144,
    "max_position_embeddings": 1024, "tie_word_embeddings": True, "rope_theta": 10000.0,
}  # fmt: skip
LOSS_BOUND, GRADIENT_BOUND = 1e-4, 1e-3


def ours(name: str, *settings: str) -> Side:
    """Our side with settings beside the plugin's own."""
    return Side(name=name, program="ours", plugins=("dpo",), settings=(*QUIET, *settings))


def trl(name: str, **settings: Any) -> Side:
    """TRL's side."""
    return Side(name=name, program="trl_step", environment="trl", settings=settings)


INSTALLED = ours("llmfw, as installed", "trainer.reference=cache")
LIVE = ours("llmfw, live reference", "trainer.reference=copy")
RECOMPUTED = ours("llmfw, recomputed", "trainer.reference=cache", "trainer.recompute=layers")
COMPILED = ours("llmfw, cached and compiled", "trainer.reference=cache", "trainer.compile=layers")
TRL_LIVE = trl("trl")
TRL_CACHED = trl("trl, cached reference", precompute_ref_log_probs=True)
TRL_CHECKPOINTED = trl("trl, checkpointing", gradient_checkpointing=True)
TRL_COMPILED = trl("trl, cached and compiled", precompute_ref_log_probs=True, torch_compile=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case's goals; ``sides`` are measured in turn."""

    title: str
    pairs: str
    """``ragged``, ``prompt`` or ``wide``."""
    sides: Sequence[Side] = (INSTALLED, LIVE, TRL_LIVE, TRL_CACHED)
    installed: record.Goal | None = None
    of_flops: float | None = None
    """Equal terms: least share of the FLOP ratio that the speed's ratio must reach."""
    memory: record.Goal | None = None

    @property
    def compiled(self) -> bool:
        """Whether its sides compile: then every step warms up."""
        return COMPILED in self.sides


CASES = {
    "ragged": Case(
        title="CHAMP pairs, ragged", pairs="ragged", installed=("at least", 2.0), memory=("at most", 0.5),
        sides=(INSTALLED, LIVE, RECOMPUTED, TRL_LIVE, TRL_CACHED, TRL_CHECKPOINTED),
    ),
    "prompt": Case(
        title="prompt 512, answers 128", pairs="prompt", installed=("at least", 2.0), of_flops=0.9,
    ),
    "wide": Case(title="vocabulary 262,144", pairs="wide", memory=("at most", 0.25)),
    "ragged_compiled": Case(
        title="CHAMP pairs, ragged", pairs="ragged", sides=(COMPILED, TRL_COMPILED, TRL_LIVE),
    ),
    "prompt_compiled": Case(
        title="prompt 512, answers 128", pairs="prompt", sides=(COMPILED, TRL_COMPILED, TRL_LIVE),
    ),
}  # fmt: skip


def task_of(case: Case, folder: Path, *, threads: int, tiny: bool = False) -> Task:
    """Weights and batches of a case; ``tiny``: a small model and short pairs of the same kind."""
    size, name = 2, case.pairs
    if tiny:
        model = tasks.made(folder / "tiny", tasks.TINY)
        lengths = {
            "ragged": [(9, 5, 18), (4, 17, 3), (6, 6, 2), (12, 3, 9)],
            "prompt": [(64, 16, 16)] * 4,
            "wide": [(8, 56, 56)] * 4,
        }[name]
        samples = tasks.made_pairs(lengths, tasks.TINY["vocab_size"])
    elif name == "wide":
        size = 4
        model = tasks.made(folder / "wide", WIDE)
        samples = tasks.made_pairs([(64, 448, 448)] * 8, WIDE["vocab_size"])
    else:
        model = tasks.smollm2()
        samples = (
            tasks.champ_pairs(8) if name == "ragged" else tasks.made_pairs([(512, 128, 128)] * 4, 49_152)
        )
    batches = tasks.in_steps(samples, size, warmup=None if case.compiled else 1)
    return Task(
        name=name, kind="dpo", model=model, batches=batches, micro_batch=size,
        warmup=len(batches) // 2 if case.compiled else 1, threads=threads,
    )  # fmt: skip


def measure(case: Case, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A case's rows."""
    task = task_of(case, folder, threads=options.threads, tiny=options.tiny)
    size = 256 if options.tiny else 2048
    found, rates = harness.interleave(task, case.sides, options.repetitions, gemm_size=size)
    return compiled_rows(case, found) if case.compiled else rows_of(case, task, found, rates)


def compiled_rows(case: Case, found: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """The rows of a case that compiles."""
    mine, theirs, plain = (found[side.name] for side in (COMPILED, TRL_COMPILED, TRL_LIVE))
    return [
        harness.speed_row(f"{case.title}: compiled, cached reference on both", mine, theirs),
        harness.speed_row(f"{case.title}: compiled and cached, against TRL as installed", mine, plain),
        harness.memory_row(f"{case.title}: peak memory, compiled, cached reference on both", mine, theirs),
    ]


def rows_of(
    case: Case, task: Task, found: Mapping[str, Measured], rates: Sequence[float]
) -> list[dict[str, Any]]:
    """The rows of what was measured without compilation."""
    installed, live = (found[side.name] for side in (INSTALLED, LIVE))
    plain, cached = (found[side.name] for side in (TRL_LIVE, TRL_CACHED))
    title = case.title
    ratio = flop_ratio(task, live)
    speed = statistics.median(live.rates) / statistics.median(plain.rates)
    equal = record.row(
        f"{title}: equal terms, share of the FLOP ratio reached", ours=speed / ratio, unit="share",
        repetitions=len(live.runs), goal=None if case.of_flops is None else ("at least", case.of_flops),
        judged=speed / ratio, flop_ratio=ratio, speed_ratio=speed,
    )  # fmt: skip
    return [
        harness.speed_row(
            f"{title}: as installed", installed, plain, goal=case.installed,
            ours_reference_seconds=installed.median("reference_seconds"),
        ),
        harness.speed_row(
            f"{title}: equal terms, live reference", live, plain, flop_ratio=ratio, layouts=layouts(live),
        ),
        equal,
        harness.speed_row(
            f"{title}: cached reference on both", installed, cached,
            ours_reference_seconds=installed.median("reference_seconds"),
            peer_reference_seconds=cached.median("reference_seconds"),
        ),
        harness.memory_row(f"{title}: peak memory, as installed", installed, plain, goal=case.memory),
        harness.memory_row(f"{title}: peak memory, live reference on both", live, plain),
        harness.memory_row(f"{title}: peak memory, cached reference on both", installed, cached),
        *recomputed(title, found),
        above_loaded(f"{title}: memory beyond what was loaded before step 1", installed, plain),
        *harness.difference_rows(
            f"{title}: equal terms", live, plain, loss=LOSS_BOUND, gradient=GRADIENT_BOUND
        ),
        harness.roofline_row(
            f"{title}: equal terms", live, rates, harness.useful(task, reference=True), plain
        ),
    ]  # fmt: skip


def recomputed(title: str, found: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """The rows of sides that make layers again, where a case has them."""
    if RECOMPUTED.name not in found:
        return []
    again, plain, small = (found[side.name] for side in (RECOMPUTED, TRL_LIVE, TRL_CHECKPOINTED))
    return [
        harness.speed_row(f"{title}: layers recomputed here alone", again, plain),
        harness.memory_row(f"{title}: peak memory, layers recomputed here alone", again, plain),
        harness.speed_row(f"{title}: layers recomputed on both", again, small),
        harness.memory_row(f"{title}: peak memory, layers recomputed on both", again, small),
    ]


def flop_ratio(task: Task, live: Measured) -> float:
    """What TRL computes (padded rows, prompts on both sides, logits of every position) over what we do."""
    theirs = harness.spent_padded(task, reference=True, all_logits=True, logits_again=True)
    return theirs / harness.spent(live, reference=True)


def layouts(measured: Measured) -> list[str]:
    """The layouts that our side chose, each once."""
    steps = measured.runs[0]["steps"][measured.task.warmup :]
    return sorted({layout for step in steps for layout in step["layouts"]})


def above_loaded(case: str, ours: Measured, peer: Measured) -> dict[str, Any]:
    """The peak less what the process held before its first step: a step's work, the optimizer's state."""

    def median(one: Measured) -> float:
        return statistics.median(run["peak_gib"] - run["loaded_gib"] for run in one.runs)

    return record.row(
        case, ours=median(ours), peer=median(peer), peer_name=peer.side.name, unit="GiB",
        repetitions=len(ours.runs), ours_name=ours.side.name,
    )  # fmt: skip


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tiny", action="store_true", help="small models: whether everything runs")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure case by case: write its result, print a line per row."""
    options = parse(words)
    versions = record.peer_versions("trl", "trl", "torch", "transformers")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            case = CASES[name]
            rows = measure(case, Path(folder), options)
            settings = {
                "threads": options.threads, "tiny": options.tiny, "dtype": "float32", "lr": Task.lr,
                "warm-up": "every step once" if case.compiled else "1 step",
                "sides": harness.stated(case.sides),
            }  # fmt: skip
            record.write(
                "dpo_step", rows, part=name, versions=versions, folder=options.out, settings=settings
            )
            record.tell(rows)


if __name__ == "__main__":
    main()
