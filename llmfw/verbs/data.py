"""``llmfw data``: look at training data before training on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.data import Finding, Prepared


@click.group("data")
def command() -> None:
    """Look at training data (what is read and trained, whether masks are right), or convert it."""


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
    for part in prepared.parts:
        for split, examples in part.examples.items():
            findings += audit(examples, tokenizer, part.rows[split], part.form, prepared.max_length)
    shown = prepared.validation[:samples] if validation else prepared.head(samples)
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


@command.command("convert")
@run_options
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write (.jsonl or .parquet); with --split a folder.",
)
@click.option("--split", is_flag=True, help="Hold rows out as fit would: OUT/train and OUT/validation.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["jsonl", "parquet"]),
    help="With --split: what the files of the folder are (jsonl unless said).",
)
@click.option("--force", is_flag=True, help="Replace what is there.")
def convert(out: Path, split: bool, suffix: str | None, force: bool, **layers: Any) -> None:
    """Write rows in our own form, whatever form, dialect, preset or mixture they come in.

    Rows are checked, renamed, translated and, if asked for, deduplicated as fit would; reading the file again
    gives the same samples. Nothing is tokenised, so nothing is dropped as too long.

    \b
    llmfw data convert data=sharegpt.json --out rows.jsonl
    llmfw data convert data=rows.csv data.columns='{prompt: question, completion: reply}' --out rows.parquet
    llmfw data convert data=champ-preferences --split --out pairs
    """
    from llmfw.core.data.convert import write_rows, writer_of
    from llmfw.core.errors import UsageError

    if suffix is not None and not split:
        raise UsageError(
            "CONVERT-FORMAT",
            "--format is for the files of --split",
            key="--format",
            mend=f"end the name of --out in .{suffix}",
        )
    files = (
        {name: out / f"{name}.{suffix or 'jsonl'}" for name in ("train", "validation")}
        if split
        else {"": out}
    )
    for file in files.values():
        writer_of(file)
        if file.exists() and not force:
            raise UsageError(
                "CONVERT-EXISTS", "it exists", file=file, key="--out", mend="give another, or add --force"
            )
    report, rows = _rows(layers, split)
    for name, file in files.items():
        if not rows[name]:
            file.unlink(missing_ok=True)  # an older one would be read as this one's held-out rows
            continue
        write_rows(rows[name], file)
        click.echo(f"{file}: {len(rows[name])} {report.form} rows")
    for what, count in report.dialects.items():
        click.echo(f"recognised: {what} ({count} rows)")
    dropped = (
        (report.rows_skipped, "skipped"),
        (report.duplicates, "dropped: their content was seen before"),
    )
    for count, what in dropped:
        if count:
            click.echo(f"{count} rows {what}")
    for text in [*report.notes, *report.warnings]:
        click.echo(text)


def _rows(layers: dict[str, Any], split: bool) -> tuple[Any, dict[str, list[Any]]]:
    """The report and the checked rows of what the settings name: of each split, or all under one name."""
    from dataclasses import replace

    from llmfw.core.data.convert import read_all
    from llmfw.core.data.module import held_out_share
    from llmfw.core.data.presets import SOURCES
    from llmfw.core.models import load_tokenizer

    settled, manager = _settled(layers)
    root = settled.resolved.root
    data = root.data
    if not split and data.validation is not None and held_out_share(data.validation):
        data = replace(data, validation=None)
    made = bool(settled.resolved.plugin_names) or any(name in SOURCES for name in (data.name, *data.mix))
    tokenizer = load_tokenizer(settled.source.model, root.tokenizer) if made else None
    transforms, source = _offered(root, manager, tokenizer)
    report, rows = read_all(replace(root, data=data), tokenizer, transforms, source)
    return report, rows if split else {"": [*rows["train"], *rows["validation"]]}


def _settled(layers: dict[str, Any]) -> tuple[Any, Any]:
    """The settings and the plugins' manager; what was switched on is said."""
    from llmfw.core.assemble import build_manager, settle
    from llmfw.core.say import say

    settled = settle(**layers)
    for note in settled.notes:
        say(note)
    return settled, build_manager(settled.resolved, "data")


def _offered(root: Any, manager: Any, tokenizer: Any) -> tuple[Any, Any]:
    """The plugins' transforms and their source of rows."""
    from llmfw.core.run import Run

    run = Run(root, Path("."), "data")
    run._offer(manager.many("llmfw_services", run=run))
    source = manager.one("llmfw_datamodule", run=run, tokenizer=tokenizer)
    transforms = manager.many("llmfw_dataset_transforms", run=run, tokenizer=tokenizer)
    return transforms, source.value if source else None


def _prepare(layers: dict[str, Any]) -> tuple[Prepared, Any]:
    """The data as ``fit`` would have it, without asking for a loss or a model."""
    from llmfw.core.assemble import row_maker
    from llmfw.core.data import open_tokenizer, prepare
    from llmfw.core.say import say

    settled, manager = _settled(layers)
    root = settled.resolved.root
    opened = open_tokenizer(root, settled.source, row_maker(manager))
    for note in opened.notes:
        say(note)
    tokenizer = opened.tokenizer
    transforms, source = _offered(root, manager, tokenizer)
    return prepare(root, tokenizer, transforms, source, _sides(opened.source, tokenizer)), tokenizer


def _sides(source: Any, tokenizer: Any) -> Any:
    """How the model's rows are laid out; no preset that a package carries is an encoder-decoder."""
    from llmfw.core.models import load_model_config, sides_of, with_ids

    return None if source.kind == "package" else sides_of(load_model_config(with_ids(source, tokenizer)))


def _print(prepared: Prepared, tokenizer: Any, findings: list[Finding], shown: list[Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from llmfw.core.data.show import bars, histogram, marked, read

    console = Console(highlight=False)
    colour = console.color_system is not None and not console.no_color
    for example in shown:
        for side in range(len(example.sequences)):
            name = ("chosen", "rejected")[side] if example.kind == "preference" else example.kind
            trained, sequence = example.trained_lengths[side], example.sequences[side]
            length = f"{len(sequence)} tokens"
            if sequence.encoder:
                length = f"encoder {len(sequence.encoder)} tokens, decoder {length}"
            console.rule(Text(f"{example.id}  {name}  {length}, {trained} trained"), align="left")
            if sequence.encoder:
                console.print(read(tokenizer, example, side, colour=colour), soft_wrap=True)
            console.print(marked(tokenizer, example, side, colour=colour), soft_wrap=True)
    console.rule(align="left")
    console.print(prepared.report)
    for split, examples in (("train", prepared.head(sys.maxsize)), ("validation", prepared.validation)):
        lengths = [sequence.tokens for example in examples for sequence in example.sequences]
        if lengths:
            console.print(Text(f"{split}: sequences by length, tokens", style="bold"))
            for line in bars(histogram(lengths)):
                console.print(Text(line))
    checked = sum(len(example.sequences) for example in [*prepared.head(sys.maxsize), *prepared.validation])
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

    splits = (("train", prepared.head(sys.maxsize)), ("validation", prepared.validation))
    click.echo(
        json.dumps(
            {
                "report": prepared.report.to_dict(),
                "fingerprint": prepared.fingerprint,
                "lengths": {
                    split: histogram(
                        [sequence.tokens for example in examples for sequence in example.sequences]
                    )
                    for split, examples in splits
                },
                "findings": [asdict(finding) for finding in findings],
                "samples": [
                    {
                        "id": example.id,
                        "kind": example.kind,
                        **_encoders(tokenizer, example),
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


def _encoders(tokenizer: Any, example: Any) -> dict[str, list[str]]:
    """What the encoder reads for each sequence; nothing for a decoder-only model."""
    from llmfw.core.data import TextTokenizer

    text = TextTokenizer(tokenizer)
    read = [text.decode(sequence.encoder) for sequence in example.sequences if sequence.encoder]
    return {"encoder": read} if read else {}
