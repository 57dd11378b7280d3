"""``llmfw export``: weights for transformers, PEFT, vLLM or llama.cpp, checked before they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmfw.core.export import ExportResult


@click.command("export")
@click.argument("model", metavar="MODEL")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write; it appears whole, at the end.",
)
@click.option(
    "--format",
    type=click.Choice(["hf", "adapter", "gguf"]),
    help="hf: a folder that transformers and vLLM load. adapter: a folder that PEFT loads. gguf: one file "
    "for llama.cpp. Default: adapter where one was trained (unless --merge), else hf.",
)
@click.option(
    "--merge", is_flag=True, help="Merge the adapter into its base; a quantised base is reloaded in 16 bit."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of an hf folder's weights. Default: the run's (bfloat16 where the base was quantised).",
)
@click.option(
    "--gguf-type",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    help="Of a GGUF file's matrices. Default: f16.",
)
@click.option("--max-shard-size", metavar="SIZE", help="Largest file of weights, e.g. 2GB. Default: 5GB.")
@click.option(
    "--step", type=click.IntRange(min=0), metavar="N", help="Of a run: its checkpoint after N steps."
)
@click.option(
    "--base",
    metavar="NAME",
    help="Of an adapter: the base that its config names, instead of one written along.",
)
@click.option("--license", "licence", metavar="ID", help="Licence in the model card, e.g. apache-2.0.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export in --out.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Run code from the model's folder, if you trust its author."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(model: str, out: Path, as_json: bool, **options: Any) -> None:
    """Write the weights of MODEL for plain transformers, PEFT, vLLM or llama.cpp.

    MODEL is a run's folder (its final weights, else its newest good checkpoint), a checkpoint, an MLflow run
    id, or any other name of a model. The export is loaded again without llmfw and compared with the model:
    logits and greedy tokens on held-out rows of the run. One that doesn't agree isn't kept.

        llmfw export runs/NAME --out DIR
    """
    from llmfw.core.export import ExportOptions, export

    result = export(model, out, ExportOptions(**options))
    if as_json:
        click.echo(as_text(result))
        return
    _print(result)


def as_text(result: ExportResult) -> str:
    """The result as json."""
    import json
    from dataclasses import asdict

    return json.dumps(asdict(result), indent=2, default=str)


def _print(result: ExportResult) -> None:
    bound = "exact" if result.bound == 0 else f"bound {result.bound:.3g}"
    merged = ", adapter merged" if result.merged else ""
    size = f"{result.bytes / 1e6:,.1f} MB in {len(result.files)} files"
    tokens = "equal" if result.tokens_equal else "not all equal"
    click.echo(f"export   {result.folder}")
    click.echo(f"format   {result.format}, {result.dtype}{merged}, {size}")
    click.echo(
        f"check    max |logit difference| {result.difference:.3g} ({bound}), greedy tokens {tokens}; "
        f"{result.prompts} prompts: {result.asked}"
    )
    if result.quantized_difference is not None:
        click.echo(
            f"base     in {result.quantization} while it was trained, here in {result.dtype}: "
            f"max |logit difference| to the model in training {result.quantized_difference:.3g}"
        )
        if result.merged:
            click.echo(
                "warning: the adapter was fitted to the quantised base; over another it may have lost what "
                f"it learnt: llmfw evaluate model={result.folder} data=FILE",
                err=True,
            )
    click.echo(f"licence  {result.licence}")
    click.echo("next:")
    for line in result.next:
        click.echo(f"  {line}")
