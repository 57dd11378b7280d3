"""An export from its name to the checked folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llmfw.core.assemble import Assembled, assemble, settle
from llmfw.core.checkpoint.durable import staged
from llmfw.core.errors import LlmfwError, UsageError
from llmfw.core.export.describe import describe, note_in_journal
from llmfw.core.export.options import ExportOptions, ExportResult, check_options, dtype_of, form_of
from llmfw.core.export.place import check_target, disk, settle_files
from llmfw.core.export.prompts import prompts_of
from llmfw.core.export.writers import Work, write_adapter_folder, write_gguf_file, write_hf_folder
from llmfw.core.models.saved_weights import SavedWeights, find_weights
from llmfw.core.models.source import ModelSource, as_model, resolve_model
from llmfw.core.models.usage import Format
from llmfw.core.policies import surgeries_of
from llmfw.core.say import say
from llmfw.core.schema import ModelConfig


def export(model: str, out: str | Path, options: ExportOptions | None = None) -> ExportResult:
    """Write the weights that ``model`` names into the folder ``out``, load them again without llmfw, compare
    logits and greedy tokens, and write a model card. The folder appears whole, or not at all.

    Args:
        model: a run's folder, ``final``, a checkpoint, an MLflow run id, or what else ``model.name`` takes.

    Raises:
        UsageError: what the formats can't express, or options that have no effect.
        CheckpointError: damaged weights, or an export that doesn't agree with the model (EXPORT-CHECK).
        ResourceError: no space.
    """
    asked = options or ExportOptions()
    target = Path(out).expanduser().absolute()
    check_options(asked)
    found = find_weights(model, asked.step)
    source = _as_run(resolve_model(found.name), trusted=asked.trust_remote_code)
    form, merge = form_of(asked, source)
    _check_surgeries(source, form, merge)
    check_target(target, asked.overwrite, found)
    notes = [found.note] if found.note else []
    if merge and not asked.merge:
        notes.append(
            f"{'an HF folder' if form == 'hf' else 'GGUF'} holds whole weights: the adapter is merged"
        )
    assembled, held_out = _assemble(found, source, notes)
    if form == "gguf":
        from llmfw.core.models.gguf import check_gguf

        check_gguf(assembled.model_config, source.folder or Path(source.model.name))
    prompts, words = prompts_of(assembled, held_out, notes)
    work = Work(
        options=asked,
        found=found,
        source=source,
        format=form,
        merge=merge,
        dtype=dtype_of(asked, source, merge),
        out=target,
        assembled=assembled,
        surgeries=surgeries_of(assembled),
        prompts=prompts,
        asked=words,
        notes=notes,
        quantization=source.model.quantization,
    )
    for note in notes:
        say(f"note: {note}")
    with disk(target):
        result = _carry_out(work)
    note_in_journal(found.run, result)
    return result


def _as_run(source: ModelSource, *, trusted: bool) -> ModelSource:
    """The source under the settings in which its run has it: dtype, attention, quantisation. Whom to trust is
    said by whoever exports, not by the folder.
    """
    from llmfw.core.models.export import stored_dtype
    from llmfw.core.models.fetch import local_folder
    from llmfw.core.models.merge import base_dtype

    saved = ModelConfig() if source.manifest is None else as_model(source.manifest["model"])
    dtype: str | None = source.model.dtype
    if source.kind == "adapter":
        told = (source.manifest or {}).get("model", {})
        dtype = saved.dtype if "dtype" in told else base_dtype(source)
    elif source.kind != "scratch":
        dtype = stored_dtype(local_folder(source))
    return replace(
        source,
        model=replace(
            source.model,
            dtype=dtype or "float32",
            attention=_attention(source, saved),
            quantization=saved.quantization if source.kind == "adapter" else "none",
            trust_remote_code=trusted,
        ),
    )


def _attention(source: ModelSource, saved: ModelConfig) -> str:
    """The run's attention; of a model that wasn't trained here the one that its architecture has."""
    from llmfw.core.models.configs import load_model_config
    from llmfw.core.models.weights import skeleton

    if source.manifest is not None:
        return saved.attention
    try:
        skeleton(source, load_model_config(source))
    except UsageError as error:
        if error.code != "ATTENTION":
            raise
        return "eager"
    return source.model.attention


def _check_surgeries(source: ModelSource, form: Format, merge: bool) -> None:
    """Refuse what plain libraries would load as another model, before any weight is read."""
    from llmfw.core.models.export import refuse_trained_base

    for saved in (source.manifest or {}).get("surgeries", ()):
        if saved["required_on_load"]:
            raise UsageError(
                "EXPORT-SURGERY",
                f"plugin {saved['plugin']!r} changed the model (surgery {saved['name']!r}): without it these "
                "weights are another model, and plain libraries don't have it",
                mend="use the run with llmfw (llmfw generate model=...)",
                file=source.folder,
            )
        if form == "gguf" and saved["companions"]:
            raise UsageError(
                "EXPORT-SURGERY",
                f"GGUF has no place for the companions of plugin {saved['plugin']!r}",
                mend="use --format hf, which puts them beside the weights",
                file=source.folder,
            )
    if form == "adapter":
        refuse_trained_base(source)


def _assemble(found: SavedWeights, source: ModelSource, notes: list[str]) -> tuple[Assembled, bool]:
    """(plugins, tokenizer and data of the run, whether its data are known); nothing heavy is read."""
    # the folder's own tokenizer, with the template that the run gave it
    overrides = [
        f"model.name={found.name}",
        f"model.attention={source.model.attention}",
        "tokenizer.name=null",
        "tokenizer.template=null",
        "tokenizer.train=null",
    ]
    overrides += ["model.trust_remote_code=true"] if source.model.trust_remote_code else []
    if found.run is not None:
        try:
            settled = settle(overrides=tuple(overrides), measuring=True)
            return assemble(settled, "evaluate"), True
        except LlmfwError as error:
            notes.append(
                f"the run's data and plugins can't be set up ({error.code}: {error.what}): "
                "fixed texts are compared"
            )
    return assemble(settle(overrides=tuple(overrides)), "generate"), False


def _carry_out(work: Work) -> ExportResult:
    from llmfw.core.models import build_model
    from llmfw.core.models.plain import ask

    if work.quantization != "none":
        work = _beside_quantized(work)
    say(f"export: loading {_shown(work.found, work.source)}")
    held = [build_model(work.source, surgeries=work.surgeries, train=False)]
    answers = ask(held[0].module, work.prompts)
    with staged(work.out.resolve()) as place:
        write = {"hf": write_hf_folder, "adapter": write_adapter_folder, "gguf": write_gguf_file}[work.format]
        written = write(work, held, answers, place)
        settle_files(place)
        return describe(work, written, place)


def _beside_quantized(work: Work) -> Work:
    """Ask the model over its quantised base, then go on with the base as it's stored."""
    from llmfw.core.models import build_model
    from llmfw.core.models.plain import ask

    say(f"export: loading {_shown(work.found, work.source)}")
    built = build_model(work.source, surgeries=work.surgeries, train=False)
    answers = ask(built.module, work.prompts)
    dtype = work.dtype if work.format != "gguf" else "bfloat16"
    settings = replace(work.source.model, quantization="none", dtype=dtype)
    return replace(work, source=replace(work.source, model=settings), quantized=answers)


def _shown(found: SavedWeights, source: ModelSource) -> str:
    settings = source.model
    at = f", step {found.step}" if found.step is not None else ""
    held = "" if settings.quantization == "none" else f", {settings.quantization}"
    return f"{found.name}{at} ({settings.dtype}{held})"
