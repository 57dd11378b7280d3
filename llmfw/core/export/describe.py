"""What an export says of itself: its card, its record, and what the caller is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmfw.core.checkpoint.manifest import file_digest
from llmfw.core.errors import LlmfwError
from llmfw.core.export.options import ExportResult
from llmfw.core.export.place import RECORD
from llmfw.core.export.writers import Work, Written
from llmfw.core.models.card import card
from llmfw.core.models.card_front import Subject
from llmfw.core.models.lineage import Licence, licence_of, origins
from llmfw.core.models.usage import Usage, next_lines
from llmfw.core.say import say
from llmfw.core.schema import Root
from llmfw.core.tracking import Journal
from llmfw.core.tracking.files import try_lock, unlock
from llmfw.core.tracking.history import History, read_history


def describe(work: Work, written: Written, place: Path) -> ExportResult:
    """Write the card and the record into the folder; say what was done without being asked for."""
    chain = origins(work.source)
    licence = licence_of(chain, work.options.licence)
    run = work.found.run
    history = read_history(run, work.found.step) if run is not None else None
    usage = _usage(work, written, work.out.name)
    owners = sorted({saved["plugin"] for saved in (work.source.manifest or {}).get("surgeries", ())})
    subject = Subject(
        title=work.out.name,
        usage=usage,
        model_type=written.model_type,
        parameters=written.parameters,
        chain=chain,
        licence=licence,
        agreement=written.agreement,
        asked=work.asked,
        history=history,
        base=written.base,
        merged=work.merge,
        quantization=work.quantization,
        quantized_difference=written.quantized_difference,
        sidecars=written.sidecars,
        surgery_plugins=owners,
        defaults=_defaults(),
    )
    (place / "README.md").write_text(card(subject), encoding="utf-8")
    files = {
        path.relative_to(place).as_posix(): file_digest(path)
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
    _write_record(work, written, history, files, place)
    notes = list(_notes(written, licence, owners))
    for note in notes:
        say(note)
    return ExportResult(
        folder=work.out,
        format=work.format,
        dtype=usage.dtype,
        source=work.found.name,
        step=work.found.step,
        merged=work.merge,
        bytes=sum(size for _, size in files.values()),
        files=(*files, RECORD),
        difference=written.agreement.difference,
        bound=written.agreement.bound,
        tokens_equal=written.agreement.tokens_equal,
        prompts=written.agreement.prompts,
        asked=work.asked,
        licence=licence.name,
        quantization=work.quantization,
        quantized_difference=written.quantized_difference,
        base=written.base.name if written.base is not None else None,
        notes=(*(f"note: {note}" for note in work.notes), *notes),
        next=tuple(next_lines(_usage(work, written, _called(work.out), here=True))),
    )


def _usage(work: Work, written: Written, folder: str, *, here: bool = False) -> Usage:
    """How the export is loaded; ``here``: on this machine, whose folders may be named."""
    base = written.base
    name = None
    if base is not None:
        name = f"{folder}/{base.name}" if base.written else (base.place if here else None) or base.name
    return Usage(
        format=work.format,
        folder=folder,
        dtype={"gguf": work.gguf_type, "adapter": work.source.model.dtype}.get(work.format, work.dtype),
        base=name,
        revision=base.revision if base is not None else None,
        encoder_decoder=written.encoder_decoder,
        chat=bool(work.assembled.tokenizer.chat_template),
        file=written.file,
        adapter=written.adapter,
    )


def _called(out: Path) -> str:
    """How a user who stands here calls the folder."""
    here = Path.cwd()
    return str(out.relative_to(here)) if out.is_relative_to(here) else str(out)


def _notes(written: Written, licence: Licence, owners: list[str]) -> Iterator[str]:
    if written.base is not None and written.base.written:
        yield f"note: the base is written into {written.base.name}/: {written.base.why}"
    if written.sidecars:
        files, who = ", ".join(written.sidecars), " and ".join(owners)
        yield f"warning: plain libraries don't read {files} of plugin {who}, which lie beside the weights"
    if not licence.known:
        yield f"note: the licence is unknown ({licence.why}); --license states it"


def _write_record(
    work: Work, written: Written, history: History | None, files: dict[str, tuple[str, int]], place: Path
) -> None:
    from llmfw import __version__

    run = None
    if history is not None:
        run = {"id": history.id, "name": history.name, "step": history.step, "plan": history.plan}
    record = {
        "llmfw": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "format": work.format,
        "dtype": work.gguf_type if work.format == "gguf" else work.dtype,
        "merged": work.merge,
        "run": run,
        "check": {**asdict(written.agreement), "quantized_difference": written.quantized_difference},
        "files": {name: {"sha256": digest, "bytes": size} for name, (digest, size) in files.items()},
    }
    (place / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _defaults() -> dict[str, Any]:
    """Default values of the core's settings by dotted key."""

    def flat(tree: dict[str, Any], parent: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            key = f"{parent}{name}"
            if isinstance(value, dict) and value:
                yield from flat(value, f"{key}.")
            else:
                yield key, value

    return dict(flat(asdict(Root()), ""))


def note_in_journal(run: Path | None, result: ExportResult) -> None:
    """Write down in a run that has ended that it was exported; a run that goes on isn't touched."""
    if run is None or not os.access(run, os.W_OK):
        return
    lock = try_lock(run / ".lock")
    if lock is None:
        return
    try:
        with Journal(run / "journal.jsonl") as journal:
            journal.event(
                "exported", at_step=result.step, folder=result.folder.name, format=result.format,
                dtype=result.dtype, merged=result.merged, difference=result.difference,
                tokens_equal=result.tokens_equal,
            )  # fmt: skip
    except LlmfwError as error:
        say(f"note: the run's journal can't be written ({error.what})")
    finally:
        unlock(lock)
