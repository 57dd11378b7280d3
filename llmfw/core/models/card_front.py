"""The head of an export's model card, in the fields that the hub knows, and what a card is about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.models.export import Base
from llmfw.core.models.lineage import Licence, Origin, public_name
from llmfw.core.models.plain import Agreement
from llmfw.core.models.usage import Usage
from llmfw.core.tracking.history import History, Result

_UNNAMED = "unnamed data"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about."""

    title: str
    usage: Usage
    model_type: str
    parameters: int
    chain: Sequence[Origin]
    licence: Licence
    agreement: Agreement
    asked: str
    """What the check's prompts were."""
    history: History | None = None
    base: Base | None = None
    merged: bool = False
    quantization: str = "none"
    """How the base was held in training."""
    quantized_difference: float | None = None
    """max |logit difference| to the model over that quantised base."""
    sidecars: Sequence[str] = ()
    surgery_plugins: Sequence[str] = ()
    """Plugins whose sidecars plain transformers doesn't read."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Default values of the settings by dotted key."""


def front_matter(subject: Subject) -> dict[str, Any]:
    """The fields of the hub's model cards, as far as they are known."""
    usage, history = subject.usage, subject.history
    library = {"hf": "transformers", "adapter": "peft", "gguf": "gguf"}[usage.format]
    tags = ["llmfw"]
    if history is not None:
        tags += [paper.plugin for paper in history.papers]
        tags += [f"arxiv:{paper.arxiv}" for paper in history.papers if paper.arxiv]
    if usage.format == "adapter":
        tags.append("lora")
    found: dict[str, Any] = {"license": subject.licence.id}
    if subject.licence.id == "other":
        found["license_name"] = subject.licence.name
    found["library_name"] = library
    found["pipeline_tag"] = "text2text-generation" if usage.encoder_decoder else "text-generation"
    hub = next((origin.hub for origin in subject.chain if origin.hub), None)
    if hub is not None:
        found["base_model"] = [hub]
        found["base_model_relation"] = _relation(subject)
    data = _hub_data(history)
    if data is not None:
        found["datasets"] = [data]
    found["tags"] = list(dict.fromkeys(tags))
    metrics = _metrics(subject)
    if metrics:
        name = data_name(history)
        found["model-index"] = [
            {
                "name": subject.title,
                "results": [
                    {
                        "task": {"type": found["pipeline_tag"]},
                        "dataset": {"name": name, "type": data or name},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return found


def _relation(subject: Subject) -> str:
    if subject.usage.format == "gguf":
        return "quantized"
    return "adapter" if subject.usage.format == "adapter" else "finetune"


def _metrics(subject: Subject) -> list[dict[str, Any]]:
    history = subject.history
    if history is None:
        return []
    every = [("held-out ", result) for result in told(history.held_out)]
    every += [("", result) for result in history.evaluations]
    return [
        {"type": result.name, "name": f"{where}{result.name}", "value": result.value}
        for where, result in every
        if math.isfinite(result.value)
    ]


def told(results: Sequence[Result]) -> list[Result]:
    """The loss, and what has an interval."""
    return [result for result in results if result.name == "loss" or result.low is not None]


def _hub_data(history: History | None) -> str | None:
    """The hub id of the training data, where that's what the settings name."""
    if history is None:
        return None
    name = str(history.settings.get("data.name") or "")
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).suffix
    return name if is_id and history.data.get("source") == name and not history.data.get("files") else None


def data_name(history: History | None) -> str:
    """The training data as a reader may call them."""
    if history is None:
        return _UNNAMED
    mix = [key.removeprefix("data.mix.") for key in history.settings if key.startswith("data.mix.")]
    given = history.settings.get("data.mix")
    mix = mix or (list(given) if isinstance(given, dict) else [])
    if mix:
        return " + ".join(public_name(name) for name in mix)
    return public_name(str(history.data.get("source") or history.settings.get("data.name") or _UNNAMED))
