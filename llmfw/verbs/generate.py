"""``llmfw generate``: answers to prompts, streamed or as a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.core.errors import DataError, UsageError
from llmfw.verbs.opening import check_out, open_model, split_words, tell, whole_file
from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.generation.prompts import Prompt
    from llmfw.core.records import Completion


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One prompt and its answers."""

    id: str | int
    prompt: Prompt
    answers: tuple[Completion, ...]

    def as_dict(self) -> dict[str, Any]:
        """The line that ``--json`` prints."""
        line: dict[str, Any] = {"id": self.id, "prompt": self.prompt}
        first = self.answers[0]
        line |= (
            {"answer": first.text} if len(self.answers) == 1 else {"answers": [a.text for a in self.answers]}
        )
        for name, values in (
            ("finish", [answer.finish for answer in self.answers]),
            ("tokens", [answer.tokens for answer in self.answers]),
            ("logp", [None if answer.logps is None else sum(answer.logps) for answer in self.answers]),
        ):
            if values[0] is not None:
                line[name] = values[0] if len(values) == 1 else values
        return {**line, "prompt_tokens": first.prompt_tokens}


@click.command("generate")
@run_options
@click.option(
    "-p",
    "--prompt",
    "given",
    multiple=True,
    metavar="TEXT",
    help="A prompt, whatever it looks like; repeatable.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Prompts: .txt (one a line) or .jsonl (strings, or rows of data).",
)
@click.option(
    "--prefix", default="", metavar="TEXT", help="Beginning of every answer; read by the model, not printed."
)
@click.option("-n", "--samples", default=1, show_default=True, metavar="N", help="Answers per prompt.")
@click.option("--logps", is_flag=True, help="With --json: add each answer's log-probability, in nats.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a prompt.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the JSON lines into this .jsonl file instead."
)
def command(
    given: tuple[str, ...],
    file: Path | None,
    prefix: str,
    samples: int,
    logps: bool,
    as_json: bool,
    out: Path | None,
    **layers: Any,
) -> None:
    """Answer prompts: llmfw generate "What is 2+2?" model=runs/... generation.temperature=0.7

    Words of the form KEY=VALUE are settings, all others prompts; - reads one prompt from standard input.
    model= takes a preset, a hub id, a folder, a run's folder, a checkpoint or an MLflow run id. A single
    answer appears while it is written.
    """
    words, layers["overrides"] = split_words(layers["overrides"])
    prompts = read_prompts([*words, *given], file)
    if out is not None:
        check_out(out, (".jsonl",))
    opened = open_model("generate", layers)
    streams = len(prompts) == 1 and samples == 1 and not as_json and out is None
    start = time.monotonic()
    answered = answer(
        opened.policy, prompts, prefix=prefix, samples=samples, logps=logps, show=tell if streams else None
    )
    seconds = time.monotonic() - start
    if out is not None:
        with whole_file(out) as lines:
            for one in answered:
                lines.write(f"{json.dumps(one.as_dict(), ensure_ascii=False)}\n".encode())
    elif as_json:
        for one in answered:
            click.echo(json.dumps(one.as_dict(), ensure_ascii=False))
    elif streams:
        click.echo()
    else:
        for one in answered:
            tell(f"{_as_text(one)}\n")
    tokens = sum(one.tokens for each in answered for one in each.answers)
    cut = sum(one.finish == "length" for each in answered for one in each.answers)
    note = f"{tokens} tokens, {tokens / max(seconds, 1e-9):.1f} a second"
    if cut:
        note += f"; {cut} of {len(prompts) * samples} answers cut at the limit (generation.max_new_tokens)"
    click.echo(note + (f"; written to {out}" if out else ""), err=True)


next(one for one in command.params if one.name == "overrides").metavar = "[PROMPT | KEY=VALUE]..."


def answer(
    policy: Any,
    prompts: Sequence[Prompt],
    *,
    ids: Sequence[str | int] | None = None,
    prefix: str | Sequence[str] = "",
    samples: int = 1,
    logps: bool = False,
    show: Callable[[str], None] | None = None,
    **sampling: Any,
) -> list[Answered]:
    """A policy's answers, in the order of the prompts.

    Args:
        show: receives the text of the first prompt's first answer while it's written.
        sampling: settings of ``Sampling`` that replace the run's.
    """
    changes = {**sampling, "samples": samples, "logps": logps}
    names = list(range(len(prompts))) if ids is None else list(ids)
    if show is None:
        answers = policy.generate(list(prompts), ids=names, prefix=prefix, **changes)
    else:
        from llmfw.core.generation import TextStream

        stream = TextStream(policy.tokenizer, policy.sampling.but(**changes))
        answers = policy.generate(
            list(prompts),
            ids=names,
            prefix=prefix,
            watch=lambda index, token: show(stream.push(token)) if index == 0 else None,
            **changes,
        )
        show(stream.close())
    return [
        Answered(id=name, prompt=prompt, answers=tuple(answers[at * samples : (at + 1) * samples]))
        for at, (name, prompt) in enumerate(zip(names, prompts, strict=True))
    ]


def read_prompts(words: Sequence[str], file: Path | None = None) -> list[Prompt]:
    """Prompts of the command line (``-`` stands for all of standard input) and of a file, in this order.

    Raises:
        UsageError: there is none.
        DataError: a file that can't be read, or a line in it that asks nothing.
    """
    prompts: list[Prompt] = [sys.stdin.read().strip() if word == "-" else word for word in words]
    if file is not None:
        prompts += _prompts_of_file(file)
    if not prompts or "" in prompts:
        raise UsageError(
            "NO-PROMPT",
            "the prompt is empty" if prompts else "there is no prompt",
            mend='write one: llmfw generate "What is 2+2?", or --file prompts.txt, or - for standard input',
        )
    return prompts


def _prompts_of_file(file: Path) -> list[Prompt]:
    from llmfw.core.data.formats import RowError
    from llmfw.core.data.reader import BadRows, ReadCounts, located
    from llmfw.core.generation import prompt_of

    if file.suffix not in (".txt", ".jsonl"):
        raise UsageError(
            "PROMPTS",
            f"prompts can't be read from {file.suffix or 'a file without suffix'}",
            file=file,
            key="--file",
            mend="use .txt with one prompt a line, or .jsonl",
        )
    prompts: list[Prompt] = []
    if file.suffix == ".txt":
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                "PROMPTS", f"it can't be read ({error})", mend="check its path and encoding", file=file
            ) from error
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    else:
        bad = BadRows()
        for place, row in located([file], bad, ReadCounts()):
            if isinstance(row, str) and row.strip():
                prompts.append(row)
                continue
            try:
                if not isinstance(row, dict):
                    raise DataError("PROMPTS", "it is neither a string nor an object", mend="write a prompt")
                prompts.append(prompt_of(row))
            except DataError as error:
                bad.refuse(place, RowError(error.what, mend=error.mend))
    if not prompts:
        raise DataError("PROMPTS", "it holds no prompt", mend="write one prompt a line", file=file)
    return prompts


def _as_text(one: Answered) -> str:
    prompt = one.prompt if isinstance(one.prompt, str) else json.dumps(one.prompt, ensure_ascii=False)
    return "\n".join([f"> {prompt}", *(answer.text for answer in one.answers), ""])
