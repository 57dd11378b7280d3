"""``llmfw data``: look at training data before training on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.data import Finding, Prepared


@click.group("data")
def command() -> None:
    """Look at the training data: what is read, what is trained, and whether the mask is right."""


@command.command("inspect")
@run_options
@click.option(
    "-n", "--samples", default=3, show_default=True, type=click.IntRange(0), help="Samples to show."
)
@click.option("--validation", is_flag=True, help="Show held-out samples instead of training samples.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as json.")
def inspect(samples: int, validation: bool, as_json: bool, **layers: Any) -> None:
    """Show samples with what is trained, lengths, the share of trained tokens, and check every mask.

    Trained text is green, or stands between ⟦ and ⟧ where there is no colour. Exit code 3 if a mask is wrong:
    nothing trained, two BOS, an end of turn that isn't trained, or trained text that isn't the answer.

    \b
    llmfw data inspect data=my.jsonl model=tiny-llama
    llmfw data inspect data=champ-preferences -n 1
    """
    from llmfw.core.data import audit
    from llmfw.core.errors import DataError

    prepared, tokenizer = _prepare(layers)
    findings: list[Finding] = []
    for split, examples in (("train", prepared.train), ("validation", prepared.validation)):
        findings += audit(examples, tokenizer, prepared.rows[split], prepared.form, prepared.max_length)
    shown = (prepared.validation if validation else prepared.train)[:samples]
    (_print_json if as_json else _print)(prepared, tokenizer, findings, shown)
    wrong = [finding for finding in findings if finding.severity == "error"]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DataError(
            "MASK",
            f"the mask is wrong: {wrong[0]}{more}",
            file=prepared.report.source,
            mend="choose another tokenizer.template, or mend the rows",
        )


def _prepare(layers: dict[str, Any]) -> tuple[Prepared, Any]:
    """The data as ``fit`` would have it, without asking for a loss or a model."""
    from llmfw.core.assemble import build_manager, settle
    from llmfw.core.data import prepare
    from llmfw.core.models import load_tokenizer
    from llmfw.core.run import Run
    from llmfw.core.say import say

    settled = settle(**layers)
    for note in settled.notes:
        say(note)
    root = settled.resolved.root
    manager = build_manager(settled.resolved, "data")
    tokenizer = load_tokenizer(settled.source.model, root.tokenizer)
    run = Run(root, Path("."), "data")
    run._offer(manager.many("llmfw_services", run=run))
    source = manager.one("llmfw_datamodule", run=run, tokenizer=tokenizer)
    transforms = manager.many("llmfw_dataset_transforms", run=run, tokenizer=tokenizer)
    return prepare(root, tokenizer, transforms, source.value if source else None), tokenizer


def _print(prepared: Prepared, tokenizer: Any, findings: list[Finding], shown: list[Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from llmfw.core.data.show import bars, histogram, marked

    console = Console(highlight=False)
    colour = console.color_system is not None and not console.no_color
    for example in shown:
        for side in range(len(example.sequences)):
            name = ("chosen", "rejected")[side] if example.kind == "preference" else example.kind
            trained, length = example.trained_lengths[side], len(example.sequences[side])
            console.rule(Text(f"{example.id}  {name}  {length} tokens, {trained} trained"), align="left")
            console.print(marked(tokenizer, example, side, colour=colour), soft_wrap=True)
    console.rule(align="left")
    console.print(prepared.report)
    for split, examples in (("train", prepared.train), ("validation", prepared.validation)):
        lengths = [len(sequence) for example in examples for sequence in example.sequences]
        if lengths:
            console.print(Text(f"{split}: sequences by length, tokens", style="bold"))
            for line in bars(histogram(lengths)):
                console.print(Text(line))
    checked = sum(len(example.sequences) for example in [*prepared.train, *prepared.validation])
    for finding in findings[:20]:
        console.print(Text(str(finding), style="red" if finding.severity == "error" else "yellow"))
    if len(findings) > 20:
        console.print(Text(f"... and {len(findings) - 20} more findings"))
    errors = sum(finding.severity == "error" for finding in findings)
    console.print(
        Text(f"masks checked: {checked} sequences, {errors} wrong, {len(findings) - errors} warnings")
    )


def _print_json(prepared: Prepared, tokenizer: Any, findings: list[Finding], shown: list[Any]) -> None:
    from dataclasses import asdict

    from llmfw.core.data.show import histogram, pieces

    splits = (("train", prepared.train), ("validation", prepared.validation))
    click.echo(
        json.dumps(
            {
                "report": prepared.report.to_dict(),
                "fingerprint": prepared.fingerprint,
                "lengths": {
                    split: histogram(
                        [len(sequence) for example in examples for sequence in example.sequences]
                    )
                    for split, examples in splits
                },
                "findings": [asdict(finding) for finding in findings],
                "samples": [
                    {
                        "id": example.id,
                        "kind": example.kind,
                        "sequences": [
                            [
                                {"text": text, "trained": trained}
                                for text, trained in pieces(tokenizer, example, side)
                            ]
                            for side in range(len(example.sequences))
                        ],
                    }
                    for example in shown
                ],
            },
            indent=2,
            default=str,
        )
    )
