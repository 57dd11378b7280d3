"""The head's log-probs: tiles against the matrix products alone, and against whole logits.

    python -m benchmarks.lm_head                   # CPU, float32: SmolLM2's head and a 262k vocabulary's
    python -m benchmarks.lm_head --shrink 8        # an eighth of the tokens
    python -m benchmarks.lm_head --device cuda     # bf16 and float32, with the Triton kernels; another file

Rows, each of forward and backward together (medians of interleaved repetitions):

- ``tiles``: ours against the four products that recomputing needs (a step's three, and the logits once more),
  tile by tile with nothing between; goal: ratio at most 1.15.
- ``whole logits``: ours against ``log_softmax(logits).gather``: three products, [N, V] memory twice over.
- ``frozen``: the same with a weight that wants no gradient: two products on both sides; goal: at most 1.
- ``tile size``: the cost model's choice against the fastest of a sweep; goal: at most 1.1 of its time.
- ``memory``: what forward and backward add to the process at their peak, in MiB, a process of its own each;
  goal: at most the weight's gradient, three copies of the states, three tiles and 16 MiB.
- on a GPU: whether both kernels agree, which is faster, and which is smaller. Who finds the Triton kernels
  equal and faster may let ``llmfw.losses.logps_kernel`` choose them.

On a CPU one thread is timed by its own clock (``time.process_time``), which other processes disturb less than
a wall clock; ``--threads`` N for more threads by the wall clock.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import record
from llmfw.losses.logps import token_logps
from llmfw.losses.logps_tiles import Tile, overhead, tile_of

SHAPES = {"SmolLM2": (1024, 49152, 576), "262k": (256, 262144, 640)}
"""Tokens, vocabulary, width."""
SWEEP = [(64, 1024), (256, 256), (256, 1024), (1024, 1024), (1024, 4096), (256, 1_000_000)]
"""(tokens, words) of a tile; the last is a chunk of whole rows."""
BOUNDS = {"float32": 2e-5, "bfloat16": 2e-2}
"""Largest difference between two kernels, relative to the largest entry."""


def inputs(shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    tokens, vocabulary, width = shape
    draw = torch.Generator().manual_seed(0)
    found = {
        "hidden": torch.randn(tokens, width, generator=draw).to(dtype),
        "weight": torch.randn(vocabulary, width, generator=draw).mul_(width**-0.5).to(dtype),
        "target": torch.randint(vocabulary, (tokens,), generator=draw),
        "signal": torch.randn(tokens, generator=draw),
    }
    return {name: value.to(device) for name, value in found.items()}


def whole(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The usual way."""
    return torch.log_softmax((hidden @ weight.t()).float(), -1).gather(1, target[:, None])[:, 0]


def step(found: dict[str, Tensor], logps: Callable[..., Tensor], *, frozen: bool = False) -> list[Tensor]:
    """Log-probs and gradients."""
    hidden = found["hidden"].detach().requires_grad_()
    weight = found["weight"].detach().requires_grad_(not frozen)
    out = logps(hidden, weight, found["target"])
    return [
        out.detach(),
        *torch.autograd.grad(out, [hidden] if frozen else [hidden, weight], found["signal"]),
    ]


def floor(found: dict[str, Tensor], tile: Tile) -> None:
    """The four products of a step in full precision, and nothing else."""
    hidden, weight = found["hidden"], found["weight"]
    tokens, vocabulary = hidden.shape[0], weight.shape[0]
    buffer = torch.empty(tile.rows * tile.words, dtype=hidden.dtype, device=hidden.device)
    to_hidden, to_weight = torch.zeros_like(hidden), torch.empty_like(weight)
    for backward in (False, True):
        for first in range(0, vocabulary, tile.words):
            words = slice(first, min(first + tile.words, vocabulary))
            for start in range(0, tokens, tile.rows):
                part = slice(start, min(start + tile.rows, tokens))
                shape = (part.stop - part.start, words.stop - words.start)
                logits = buffer[: shape[0] * shape[1]].view(shape)
                torch.mm(hidden[part], weight[words].t(), out=logits)
                if not backward:
                    continue
                to_hidden[part].addmm_(logits, weight[words])
                if start == 0:
                    torch.mm(logits.t(), hidden[part], out=to_weight[words])
                else:
                    to_weight[words].addmm_(logits.t(), hidden[part])


def timed(
    ways: dict[str, Callable[[], Any]], repetitions: int, device: str, threads: int
) -> dict[str, float]:
    """Median seconds of each way, all of them in turn in every repetition; the first round is not counted."""
    clock = time.process_time if device == "cpu" and threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions + 1):
        for name, way in ways.items():
            gc.collect()
            if device == "cuda":
                torch.cuda.synchronize()
            began = clock()
            way()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(clock() - began)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def row(
    case: str, ours: float, peer: float, name: str, repetitions: int, goal: float | None, unit: str = "s"
) -> dict[str, Any]:
    ratio = ours / peer
    return {
        "case": case, "ours": round(ours, 4), "peer": round(peer, 4), "peer_name": name, "unit": unit,
        "ratio": round(ratio, 3), "repetitions": repetitions, "goal": goal,
        "met": None if goal is None else ratio <= goal,
    }  # fmt: skip


def on_cpu(name: str, shape: tuple[int, int, int], repetitions: int, threads: int) -> list[dict[str, Any]]:
    found = inputs(shape, "cpu", torch.float32)
    tokens, vocabulary, width = shape
    chosen = tile_of(tokens, vocabulary, width)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: step(found, token_logps),
        "floor": lambda: floor(found, chosen),
        "whole": lambda: step(found, whole),
        "ours frozen": lambda: step(found, token_logps, frozen=True),
        "whole frozen": lambda: step(found, whole, frozen=True),
    }
    took = timed(ways, repetitions, "cpu", threads)
    what = f"{name}: {tokens} tokens, {vocabulary} words, {width} wide, {threads} thread(s)"
    rate = 8 * tokens * vocabulary * width / took["floor"] / 1e9
    print(f"{what}; tile {chosen.rows} x {chosen.words}; floor {rate:.0f} GFLOP/s")
    rows = [
        row(f"tiles, {what}", took["ours"], took["floor"], "four products alone", repetitions, 1.15),
        row(f"whole logits, {what}", took["ours"], took["whole"], "log_softmax and gather", repetitions,
        None), row(
            f"frozen, {what}", took["ours frozen"], took["whole frozen"], "log_softmax and gather, frozen",
            repetitions, 1.0,
        ),
    ]  # fmt: skip
    sweep: dict[str, Callable[[], Any]] = {}
    for rows_, words in SWEEP:
        sides = (min(rows_, tokens), min(words, vocabulary))
        logps = partial(token_logps, chunk=sides[0], block=sides[1])
        sweep["x".join(map(str, sides))] = partial(step, found, logps)
    sweep["chosen"] = lambda: step(found, token_logps)
    took = timed(sweep, max(1, repetitions // 2), "cpu", threads)
    ours = took.pop("chosen")
    for size, seconds in took.items():
        sides = [int(side) for side in size.split("x")]
        said = overhead(Tile(rows=sides[0], words=sides[1]), width)
        print(f"  tile {size}: {seconds:.3f} s; the model says overhead {said:.2f}", flush=True)
    best = min(took, key=lambda size: took[size])
    rows.append(
        row(
            f"tile size, {what}",
            ours,
            took[best],
            f"fastest of a sweep: {best}",
            max(1, repetitions // 2),
            1.1,
        )
    )
    return rows


def memory(name: str, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Growth of the process at its peak, ours and the usual way's, each in a process of its own."""
    grown = {}
    for way in ("ours", "whole"):
        command = [sys.executable, "-m", "benchmarks.lm_head", "--grow", way, "--shape", *map(str, shape)]
        done = subprocess.run(command, cwd=record.ROOT, capture_output=True, text=True, check=True)
        grown[way] = json.loads(done.stdout.splitlines()[-1])
    tokens, vocabulary, width = shape
    tile = tile_of(*shape)
    allowed = 4 * (vocabulary * width + 3 * tokens * width + 3 * tile.rows * tile.words) / 2**20 + 16
    what = f"{name}: {tokens} tokens, {vocabulary} words, {width} wide"
    return [
        row(f"memory, {what}", grown["ours"], allowed, "gradient, states, 3 tiles, 16 MiB", 1, 1.0, "MiB"),
        row(f"memory, {what}", grown["ours"], grown["whole"], "log_softmax and gather", 1, None, "MiB"),
    ]


def grow(way: str, shape: tuple[int, int, int]) -> None:
    """Print by how many MiB a step raises the process's peak over what the inputs took."""
    torch.set_num_threads(1)
    found = inputs(shape, "cpu", torch.float32)
    small = inputs((8, 256, 64), "cpu", torch.float32)
    logps = token_logps if way == "ours" else whole
    step(small, logps)  # what libraries allocate once
    gc.collect()
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew: making the inputs took more than they are
    step(found, logps)
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    print(json.dumps((peak - before) / 2**20))


def on_cuda(name: str, shape: tuple[int, int, int], repetitions: int) -> list[dict[str, Any]]:
    """The Triton kernels against torch's operations: that they agree, and which is faster."""
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        found = inputs(shape, "cuda", dtype)
        kind = str(dtype).removeprefix("torch.")
        ways: dict[str, Callable[[], Any]] = {
            kernel: partial(step, found, partial(token_logps, kernel=kernel))
            for kernel in ("tiles", "triton")
        }
        worst = 0.0
        for mine, right in zip(ways["triton"](), ways["tiles"](), strict=True):
            worst = max(worst, float((mine.float() - right.float()).abs().max() / right.abs().max().float()))
        ways["whole"] = partial(step, found, whole)
        took = timed(ways, repetitions, "cuda", 1)
        peaks = {}
        for way, call in ways.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            peaks[way] = (torch.cuda.max_memory_allocated() - before) / 2**20
        what = f"{name}: {shape[0]} tokens, {shape[1]} words, {shape[2]} wide, {kind}"
        rows += [
            {
                "case": f"equality of triton and tiles, {what}", "ours": worst, "peer": 0.0, "peer_name":
                "tiles", "unit": "relative", "ratio": None, "repetitions": 1, "goal": BOUNDS[kind],
                "met": worst <= BOUNDS[kind],
            },
            row(f"triton, {what}", took["triton"], took["tiles"], "tiles", repetitions, 1.0),
            row(f"tiles, {what}", took["tiles"], took["whole"], "log_softmax and gather", repetitions, 1.0),
            row(f"memory of triton, {what}", peaks["triton"], peaks["tiles"], "tiles", 1, 1.0, "MiB"),
            row(f"memory of tiles, {what}", peaks["tiles"], peaks["whole"], "whole logits", 1, 1.0, "MiB"),
        ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lm_head")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--shrink", type=int, default=1, help="divide the numbers of tokens")
    parser.add_argument("--grow", choices=["ours", "whole"], help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.grow:
        grow(args.grow, tuple(args.shape))
        return
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for name, (tokens, vocabulary, width) in SHAPES.items():
        if args.device == "cuda":
            rows += on_cuda(name, (8 * tokens // args.shrink, vocabulary, width), args.repetitions)
            continue
        shape = (tokens // args.shrink, vocabulary, width)
        rows += memory(name, shape)
        rows += on_cpu(name, shape, args.repetitions, args.threads)
    for found in rows:
        print(f"{found['ratio']!s:>7} {found['met']!s:>6}  {found['case']}  against {found['peer_name']}")
    versions = {"triton": record.version("triton")} if args.device == "cuda" else {}
    where = "lm_head" if args.device == "cpu" else "lm_head_cuda"
    print(record.write(where, rows, versions=versions))


if __name__ == "__main__":
    main()
