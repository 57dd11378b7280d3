"""docs/benchmarks.md: what was measured beside others, from ``benchmarks/results/*.json`` alone."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docpages.conformance import table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PROGRAMS = {
    "dpo_step": (
        "A DPO step",
        "Against TRL's own trainer, all weights trained in float32 on the same token ids.",
    ),
    "sft_step": (
        "A step of supervised fine-tuning",
        "Against a plain torch loop, TRL's trainer and LitGPT, on the same token ids.",
    ),
    "generation": (
        "Answers",
        "Our sampling engine against transformers' `generate`, prompt by prompt and in padded batches; the "
        "sides take turns in one process, and tokens are those of the answers.",
    ),
    "startup": (
        "Waiting",
        "From the start of a process to its end, or to the end of its first optimizer step.",
    ),
    "gpu": (
        "On a GPU",
        "The shapes of larger models with random weights in bfloat16; memory is that of the tensors.",
    ),
    "trl_ld_dpo": (
        "Equality with TRL's losses",
        "DPO, IPO and LD-DPO: loss and every gradient of one batch against TRL's.",
    ),
}
"""Name of a result -> (title, one sentence), in the page's order; other results come behind them."""
PROGRAM_FOLDER = Path(__file__).parents[2] / "benchmarks"
INTRO = """\
# Benchmarks

Each table is made by one command from a file under `benchmarks/results/`, which also says the machine, the
versions, the commit, every side's settings and the spread of the repetitions. A peer runs in an environment
of its own (`benchmarks/peers/NAME.txt`), as a process of its own, on the same files: weights as safetensors,
batches as token ids. The sides take turns, every repetition is a fresh process, figures are medians, with the
smallest and the largest behind them. One step warms up (every step once where something is compiled); then a
step counts from the last one's end to its own, with the making of its batch, the optimizer and the logging.
Tokens are real ones: whole sequences with their prompts (a pair's prompt with each of its two answers), no
padding, the same number for every side. Memory is the highest resident memory of the process. A ratio is ours
over the peer's.

*Useful FLOP/s over the GEMM rate* is the roofline: the operations that a step needs at least (no padding, a
pair's prompt once, logits of the trained tokens alone; the formula stands in `benchmarks/flops.py`) over the
time that it took, as a share of what a large matrix product reached on the same machine between the same
runs.

A goal that was missed stays in its table as missed."""


def benchmarks_page(note: str, results: Path = RESULTS) -> str:
    """The page; ``note`` begins it. A result that isn't there is named as not measured."""
    parts = [note + INTRO]
    others = sorted({path.name.partition(".")[0] for path in results.glob("*.json")} - set(PROGRAMS))
    for name in (*PROGRAMS, *others):
        title, sentence = PROGRAMS.get(name) or described(name)
        parts.append(f"## {title}\n\n{sentence} `python -m benchmarks.{name}`")
        found = [*results.glob(f"{name}.json"), *sorted(results.glob(f"{name}.*.json"))]
        for path in found:
            parts += section(json.loads(path.read_text(encoding="utf-8")))
        if not found:
            parts.append("Not measured yet.")
    return "\n\n".join(parts) + "\n"


def beside_peers(results: Path = RESULTS) -> str:
    """The README's table: every row of tokens a second beside another program, also with settings that are
    better for it, and the peak memory; what was measured once only is left to the page.
    """
    found = [*sorted(results.glob("dpo_step.*.json")), *results.glob("sft_step.packed.json")]
    lines = []
    for path in found:
        result = json.loads(path.read_text(encoding="utf-8"))
        rows, versions = result["rows"], result["versions"]
        memory = {sides(row): row["ratio"] for row in rows if "peak memory" in row["case"]}
        for row in rows:
            if row["unit"] != "tokens/s" or row["peer_name"].startswith("llmfw") or row["repetitions"] < 2:
                continue
            name, comma, setting = row["peer_name"].partition(",")
            peer = " ".join(filter(None, (name, versions.get(name)))) + comma + setting
            share = memory.get(sides(row))
            speeds = number(row["ours"]), number(row["peer"]), number(row["ratio"])
            lines.append((row["case"], peer, *speeds, "" if share is None else number(share)))
    return table(("training step", "beside", "tokens/s", "theirs", "times", "memory, of theirs"), lines)


def sides(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(our side, the peer) of a row."""
    return row.get("ours_name"), row.get("peer_name")


def described(name: str) -> tuple[str, str]:
    """(title, sentence) of a program that the page doesn't know: its name, its docstring's first line."""
    text = (PROGRAM_FOLDER / f"{name}.py").read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(text)) or "").split("\n", 1)[0]
    return name.replace("_", " ").capitalize(), first


def section(result: Mapping[str, Any]) -> list[str]:
    """A result's paragraphs: where and when, the table, a line for each goal, the settings."""
    rows = result["rows"]
    parts = [where(result), rows_table(rows)]
    asked = [row for row in rows if row.get("goal") is not None]
    goals = [goal_line(row) for row in asked]
    if len(goals) > 24:  # a list of equal lines says less than their number
        met = sum(row["met"] for row in asked)
        missed = [goal_line(row) for row in asked if not row["met"]]
        goals = [f"- {met} of {len(goals)} goals met.", *missed]
    if goals:
        parts.append("\n".join(goals))
    if sides := result.get("settings", {}).get("sides"):
        parts.append("\n".join(f"- *{name}*: {settings(given)}" for name, given in sides.items()))
    return parts


def where(result: Mapping[str, Any]) -> str:
    """Machine, versions, repetitions, date and commit in one line."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    processor = machine["processor"] or machine["architecture"]
    on = f"{result['gpu']}, " if "gpu" in result else ""
    said = result.get("settings", {})
    threads = f", {said['threads']} threads" if "threads" in said else ""
    rough = " Small models, for a look at whether it runs: no measurement." if said.get("tiny") else ""
    on += f"{processor}, {machine['cores']} cores{threads}, {machine['system']}, Python {machine['python']}"
    counts = sorted({row["repetitions"] for row in result["rows"] if row.get("repetitions")})
    often = " or ".join(map(str, counts)) + (" repetition" if counts == [1] else " repetitions")
    often = f"{often}, " if counts else ""
    return f"{on}; {versions}; {often}{result['date']}, commit `{result['commit'][:10]}`.{rough}"


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows."""
    titles = ("case", "ours", "peer's", "peer", "unit", "ratio", "goal", "")
    return table(titles, [cells(row) for row in rows])


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    judged = row.get("judged", row.get("difference"))
    ratio = number(row.get("ratio"))
    if judged is not None and row["unit"] != "share":
        ratio = f"{number(judged)} apart"
    return (
        row["case"],
        number(row["ours"]) + between(row.get("ours_spread")),
        number(row.get("peer")) + between(row.get("peer_spread")),
        row.get("peer_name") or "",
        row["unit"],
        ratio,
        wanted(row),
        {True: "met", False: "**missed**", None: ""}[row.get("met")],
    )


def number(value: float | None) -> str:
    """Four digits that count."""
    return "" if value is None else f"{value:.4g}"


def between(spread: Sequence[float] | None) -> str:
    """The smallest and the largest of the repetitions, where they differ."""
    if not spread or spread[0] == spread[1]:
        return ""
    return f" ({number(spread[0])} to {number(spread[1])})"


def wanted(row: Mapping[str, Any]) -> str:
    """A row's goal in words."""
    goal = row.get("goal")
    if goal is None or isinstance(goal, str):
        return goal or ""
    return f"{row.get('goal_is') or 'at most'} {goal:g}"


def goal_line(row: Mapping[str, Any]) -> str:
    """A sentence: met or missed, by what."""
    judged = row.get("judged", row.get("difference"))
    value = row.get("ratio") if judged is None else judged
    value = row["ours"] if value is None else value
    said = "Met" if row["met"] else "**Missed**"
    what = "the ratio" if judged is None else "it"
    line = f"- {said}: {row['case']}; {what} is {number(value)}, the goal {wanted(row)}"
    if row.get("interval") and None not in row["interval"]:
        low, high = row["interval"]
        line += f", the 95% interval {number(low)} to {number(high)}"
    if row.get("flop_ratio"):
        line += f" (the peer's FLOPs over ours: {number(row['flop_ratio'])})"
    return line + "."


def settings(given: Mapping[str, Any] | Sequence[str]) -> str:
    """What a side ran with, as code."""
    if isinstance(given, Mapping):
        words = [f"{key}={value}" for key, value in given.items()]
    else:
        words = list(given)
    return ", ".join(f"`{word}`" for word in words) or "its defaults"
