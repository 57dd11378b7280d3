"""DPO steps on a GPU against TRL: larger shapes with random weights, bfloat16.

    python -m benchmarks.gpu                               # needs a GPU; results/gpu.json
    python -m benchmarks.gpu --dry-run --out FOLDER        # tiny shapes on the CPU: whether everything runs

TRL runs in an environment of its own with PEFT and Liger's kernels (``peers/liger.txt``). Its LM head is the
one in Triton that it takes on GPUs; *liger* is TRL with Liger's kernels in the layers as well. Weights and
optimizer are in bfloat16 on both sides, attention is torch's SDPA there and what ``auto`` takes here; a step
ends when the GPU has done it, memory is the most that tensors took on the GPU.

Cases:

llama-1b       the shape of Llama 3.2 1B, all weights: 2 pairs a step, prompts of 512 tokens, answers of 256
llama-8b-lora  the shape of Llama 3.1 8B, LoRA of rank 16 on all linear layers, 1 pair a step, as long
gemma-3-1b     the shape of Gemma 3 1B, 1 pair of 8,192 tokens (prompt 4,096), activations recomputed in the
               backward pass: its memory, also against the 12.0 GiB that TRL has published for this case (its
               settings there aren't known here)

The share of the GEMM rate counts causal attention in every layer, also in those with a sliding window.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness, record, tasks
from benchmarks.dpo_step import layouts
from benchmarks.harness import Measured, Side, Task

QUIET = ("dpo.answers=0", "checkpoint.every=0", "tracking.mlflow=false", "trainer.progress=false")
RANK = 16
PUBLISHED = 12.0
"""GiB that TRL has published for one pair of 8,192 tokens on the shape of Gemma 3 1B."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A shape, its pairs (prompt, chosen, rejected tokens), and what is asked of it."""

    shape: Mapping[str, Any]
    pairs: Sequence[tuple[int, int, int]]
    size: int
    lora: bool = False
    checkpointing: bool = False
    speed: record.Goal | None = None
    memory: record.Goal | None = None
    published: float | None = None


def _llama(width: int, mlp: int, layers: int, heads: int, keys: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama", "hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": keys, "vocab_size": 128_256,
        "max_position_embeddings": 131_072, "tie_word_embeddings": tied, "rope_theta": 500_000.0,
        "rms_norm_eps": 1e-5,
    }  # fmt: skip


CASES = {
    "llama-1b": Case(
        shape=_llama(2048, 8192, 16, 32, 8, True), pairs=[(512, 256, 256)] * 8, size=2,
        speed=("at least", 1.3),
    ),
    "llama-8b-lora": Case(
        shape=_llama(4096, 14_336, 32, 32, 8, False), pairs=[(512, 256, 256)] * 4, size=1, lora=True,
        speed=("at least", 1.3),
    ),
    "gemma-3-1b": Case(
        shape={
            "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912,
            "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
            "vocab_size": 262_144, "max_position_embeddings": 32_768, "sliding_window": 512,
        },
        pairs=[(4096, 4096, 4096)] * 2, size=1, checkpointing=True, memory=("at most", 1.0),
        published=PUBLISHED,
    ),
}  # fmt: skip
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 512, "max_position_embeddings": 1024,
}  # fmt: skip
"""What a dry run puts in place of a shape's sizes; its pairs are 64 times shorter."""
SHORTER = 64


def ours(name: str, case: Case, device: str, reference: str) -> Side:
    """Our side in bfloat16."""
    adapter = ("adapter.kind=lora", f"adapter.r={RANK}", f"adapter.alpha={2 * RANK}")
    return Side(
        name=name, program="ours", plugins=("dpo",),
        settings=(
            *QUIET, *(adapter if case.lora else ("adapter.kind=none",)), "model.dtype=bfloat16",
            "trainer.precision=bf16-true", f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
            f"trainer.recompute={'layers' if case.checkpointing else 'none'}",
            f"trainer.reference={reference}",
        ),
    )  # fmt: skip


def trl(name: str, case: Case, environment: str, **further: Any) -> Side:
    """TRL's side in bfloat16."""
    lora = {"lora": RANK} if case.lora else {}
    settings = {"gradient_checkpointing": case.checkpointing, **lora, **further}
    return Side(name=name, program="trl_step", environment=environment, settings=settings)


def sides_of(case: Case, device: str, dry: bool) -> list[Side]:
    """All sides; a dry run takes TRL's other environment if it's there: no PEFT, no Liger."""
    live = "adapter_off" if case.lora else "copy"
    found = [ours("llmfw", case, device, live), ours("llmfw, cached reference", case, device, "cache")]
    if not dry:
        found += [trl("trl", case, "liger"), trl("trl, liger", case, "liger", use_liger_kernel=True)]
    elif case.lora:
        print("dry run: TRL with LoRA is left out: its environment for the CPU has no PEFT")
    elif record.environment("trl") is None:
        print("dry run: TRL is left out: its environment isn't made (python -m benchmarks.trl_ld_dpo)")
    else:
        found.append(trl("trl", case, "trl"))
    return found


def task_of(name: str, case: Case, folder: Path, *, device: str, threads: int, dry: bool) -> Task:
    """Random weights of the case's shape, and its pairs."""
    shape = {**case.shape, **SMALL} if dry else dict(case.shape)
    lengths = [tuple(length // SHORTER for length in pair) for pair in case.pairs] if dry else case.pairs
    model = tasks.made(folder / name, shape, dtype="bfloat16")
    pairs = tasks.made_pairs(lengths, shape["vocab_size"])  # type: ignore[arg-type]
    return Task(
        name=name, kind="dpo", model=model, batches=tasks.in_steps(pairs, case.size, warmup=2),
        micro_batch=case.size, warmup=2, threads=threads, device=device, dtype="bfloat16",
    )  # fmt: skip


def rows_of(
    name: str, case: Case, task: Task, found: Mapping[str, Measured], rates: Sequence[float]
) -> list[dict[str, Any]]:
    """A case's rows."""
    live, cached = found["llmfw"], found["llmfw, cached reference"]
    peers = [one for side, one in found.items() if side.startswith("trl")]
    rows: list[dict[str, Any]] = []
    for peer in peers:
        goal = case.speed if peer.side.name == "trl" else None
        against = f"{name}: against {peer.side.name}"
        rows += [
            harness.speed_row(
                f"{against}, live reference", live, peer, goal=goal, layouts=layouts(live),
            ),
            harness.speed_row(f"{against}, our reference cached", cached, peer),
            harness.memory_row(
                f"{against}, peak memory, live reference", live, peer,
                goal=case.memory if peer.side.name == "trl" else None,
            ),
            harness.memory_row(f"{against}, peak memory, our reference cached", cached, peer),
        ]  # fmt: skip
    if case.published is not None:
        rows.append(
            record.row(
                f"{name}: peak memory against TRL's published figure",
                ours=cached.median(cached.memory),
                peer=case.published,
                peer_name="trl, published",
                unit="GiB",
                goal=case.memory,
                repetitions=len(cached.runs),
                ours_name=cached.side.name,
            )
        )
    useful = harness.useful(task, reference=True)
    return [*rows, harness.roofline_row(name, live, rates, useful, peers[0] if peers else None)]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; no measurement")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> Path:
    """Measure, write the result, print a line per row."""
    options = parse(words)
    if not options.dry_run and not torch.cuda.is_available():
        print(
            "error[NO-GPU] torch sees no CUDA device here; run it where there's one, or give --dry-run",
            file=sys.stderr,
        )
        sys.exit(2)
    if options.dry_run and options.out == record.RESULTS:
        print("error[DRY-RUN] a dry run measures nothing; name a folder with --out", file=sys.stderr)
        sys.exit(2)
    device = "cpu" if options.dry_run else "cuda"
    rows: list[dict[str, Any]] = []
    stated: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for name in options.cases:
        case = CASES[name]
        sides = sides_of(case, device, options.dry_run)
        for side in sides:
            if side.environment is not None and not versions:
                packages = ("torch", "transformers", *(() if options.dry_run else ("peft", "liger-kernel")))
                versions = {
                    "trl" if package == f"{side.environment}'s trl" else package: version
                    for package, version in record.peer_versions(side.environment, "trl", *packages).items()
                }
        with tempfile.TemporaryDirectory() as folder:
            task = task_of(
                name, case, Path(folder), device=device, threads=options.threads, dry=options.dry_run
            )
            size = 256 if options.dry_run else 8192
            found, rates = harness.interleave(task, sides, options.repetitions, gemm_size=size)
            rows += rows_of(name, case, task, found, rates)
        stated |= {f"{name}, {key}": value for key, value in harness.stated(sides).items()}
    settings = {
        "threads": options.threads, "tiny": options.dry_run, "dtype": "bfloat16", "lr": Task.lr,
        "warm-up steps": 2, "sides": stated,
    }  # fmt: skip
    card = "no GPU: a dry run" if options.dry_run else torch.cuda.get_device_name()
    path = record.write("gpu", rows, versions=versions, folder=options.out, gpu=card, settings=settings)
    record.tell(rows)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main()
