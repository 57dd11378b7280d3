"""Tokens a second of our sampling engine against ``model.generate`` of transformers.

    python -m benchmarks.generation          # SmolLM2-135M on the CPU; writes results/generation.json
    python -m benchmarks.generation --model tiny-llama --cases questions --prompts 8 --limit 16 --out FOLDER

Same weights, same prompts (token ids), same limit, same end-of-turn tokens, float32; answers end by
themselves or at the limit, so their lengths differ. Peers: the prompts one by one, in a loop, and in batches
of as many rows as ours, padded on the left, in the order in which they come. The sides alternate; a row holds
medians. Counted are the tokens of the answers, each up to its end-of-turn token, and not what a batch writes
behind it.

Cases:

problems   CHAMP's problems, greedy
questions  short questions that ask for answers of a word, a sentence or a page, greedy
samples    the same questions, several answers each at temperature 1; a peer writes one question's answers
           side by side (``num_return_sequences``)
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness, record, tasks

GOAL: record.Goal = ("at least", 2.0)
ASKED = (
    "What is {n} plus 5? Answer with the number alone.",
    "Name a country with more than {n} million people.",
    "Is {n} a prime number? Say yes or no.",
    "Write {n} short sentences about the sea.",
    "Explain to a child of {n} years why the sky is blue.",
    "Give the capital of Portugal.",
    "List {n} animals, separated by commas.",
    "Tell a story in which somebody counts to {n}.",
)
CASES = ("problems", "questions", "samples")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every side is asked for. ``samples`` answers a prompt; temperature 0 is greedy."""

    prompts: list[list[int]]
    limit: int
    ends: tuple[int, ...]
    pad: int
    batch_size: int
    samples: int = 1
    temperature: float = 0.0


Answers = list[list[int]]
Side = Callable[[Any, Work], Answers]


def work_of(case: str, options: argparse.Namespace, opened: Any) -> Work:
    """A case's prompts and settings."""
    from llmfw.core.generation import encode_prompt

    if case == "problems":
        texts = tasks.champ_texts(options.prompts)
        prompts = [text["ids"][: text["trained"].index(1)] for text in texts]
    else:
        asked = [ASKED[number % len(ASKED)].format(n=number + 2) for number in range(options.prompts)]
        prompts = [encode_prompt(opened.tokenizer, question) for question in asked]
    more = {"samples": options.samples, "temperature": 1.0} if case == "samples" else {}
    return Work(
        prompts=prompts, limit=options.limit, ends=opened.policy.sampling.stop_ids,
        pad=opened.tokenizer.pad_token_id or 0, batch_size=options.batch_size, **more,
    )  # fmt: skip


def ours(policy: Any, work: Work) -> Answers:
    """Our engine."""
    answers = policy.generate(
        work.prompts, max_new_tokens=work.limit, stop_ids=work.ends, batch_size=work.batch_size,
        samples=work.samples, temperature=work.temperature,
    )  # fmt: skip
    return [list(answer.ids) for answer in answers]


def one_by_one(policy: Any, work: Work) -> Answers:
    """``model.generate`` on one prompt after the other."""
    return [answer for prompt in work.prompts for answer in _theirs(policy.module, work, [prompt])]


def in_batches(policy: Any, work: Work) -> Answers:
    """``model.generate`` on padded batches of as many rows as ours."""
    size = max(1, work.batch_size // work.samples)
    batches = [work.prompts[start : start + size] for start in range(0, len(work.prompts), size)]
    return [answer for batch in batches for answer in _theirs(policy.module, work, batch)]


SIDES: dict[str, Side] = {
    "ours": ours,
    "transformers, one by one": one_by_one,
    "transformers, padded batches": in_batches,
}


def _theirs(module: Any, work: Work, prompts: Sequence[list[int]]) -> Answers:
    width = max(map(len, prompts))
    ids = torch.tensor([[work.pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    drawn = {"temperature": work.temperature, "top_k": 0, "top_p": 1.0} if work.temperature else {}
    with torch.inference_mode():
        rows = module.generate(
            ids, attention_mask=mask, max_new_tokens=work.limit, do_sample=bool(drawn),
            num_return_sequences=work.samples, eos_token_id=list(work.ends), pad_token_id=work.pad, **drawn,
        )  # fmt: skip
    return [ended(row, work.ends) for row in rows[:, width:].tolist()]


def ended(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """An answer up to its first end-of-turn token, which belongs to it."""
    last = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
    return list(row[: last + 1])


@dataclass
class Told:
    """Tokens a second of every repetition, and the last repetition's answers."""

    rates: list[float]
    answers: Answers


def measure(policy: Any, work: Work, sides: dict[str, Side], repetitions: int) -> dict[str, Told]:
    """The sides in turn, as often as asked; before that each answers its first prompts once, untimed."""
    few = Work(**{**vars(work), "prompts": work.prompts[: work.batch_size], "limit": min(4, work.limit)})
    for side in sides.values():
        side(policy, few)
    told = {name: Told([], []) for name in sides}
    for _ in range(repetitions):
        for name, side in sides.items():
            start = time.perf_counter()
            answers = side(policy, work)
            seconds = time.perf_counter() - start
            told[name].rates.append(sum(map(len, answers)) / seconds)
            told[name].answers = answers
    return told


def alive(lengths: Sequence[int], size: int) -> float:
    """Share of the steps of fixed batches in which a row still writes; 1: all answers are equally long."""
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def rows_of(case: str, work: Work, told: dict[str, Told]) -> list[dict[str, Any]]:
    """A row for each peer."""
    mine = told["ours"]
    lengths = [len(answer) for answer in mine.answers]
    rows = []
    for name, theirs in told.items():
        if name == "ours":
            continue
        same = [one == other for one, other in zip(mine.answers, theirs.answers, strict=True)]
        rows.append(
            record.row(
                f"{case}, against {name}",
                ours=statistics.median(mine.rates), peer=statistics.median(theirs.rates), peer_name=name,
                unit="tokens/s", repetitions=len(mine.rates), goal=GOAL,
                ours_spread=harness.spread(mine.rates), peer_spread=harness.spread(theirs.rates),
                prompts=len(work.prompts), samples=work.samples, limit=work.limit,
                mean_length=statistics.mean(lengths), longest=max(lengths), shortest=min(lengths),
                alive_in_fixed_batches=alive(lengths, work.batch_size),
                peer_mean_length=statistics.mean(map(len, theirs.answers)),
                equal_answers=None if work.temperature else statistics.mean(same),
            )
        )  # fmt: skip
    return rows


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--limit", type=int, default=256, help="longest answer, tokens")
    parser.add_argument("--samples", type=int, default=4, help="answers a prompt, in that case")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> Path:
    """Measure, write the result, print a line per row."""
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.open import open_policy

    options = parse(words)
    torch.set_num_threads(options.threads)
    opened = open_policy(assemble(settle(overrides=(f"model={options.model}",)), "generate"))
    rows = []
    for case in options.cases:
        work = work_of(case, options, opened)
        rows += rows_of(case, work, measure(opened.policy, work, SIDES, options.repetitions))
        record.tell(rows[-2:])
    settings = {"threads": options.threads, "model": options.model, "batch_size": options.batch_size}
    path = record.write("generation", rows, versions={}, folder=options.out, settings=settings)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main()
