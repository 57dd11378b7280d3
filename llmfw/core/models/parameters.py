"""What of a model trains, how it is grouped for the optimizer, and how large it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llmfw.core.models.adapters import add_lora, is_adapter_parameter
from llmfw.core.models.build import BuiltModel
from llmfw.core.models.checkpointing import check_layers
from llmfw.core.models.configs import load_model_config
from llmfw.core.models.fetch import local_folder
from llmfw.core.models.names import COMPANIONS, plain_name
from llmfw.core.models.rng import private_rng
from llmfw.core.models.source import ModelSource
from llmfw.core.models.surgery import all_parameters
from llmfw.core.models.targets import resolve_targets
from llmfw.core.models.weights import hash_files, skeleton, source_files
from llmfw.core.schema import AdapterConfig


def trainable_parameters(built: BuiltModel) -> dict[str, nn.Parameter]:
    """Parameters that require gradients by plain name, companions' under ``companions.NAME.``; in a fixed
    order.
    """
    found = all_parameters(built.module, built.companions)
    return {name: parameter for name, parameter in found.items() if parameter.requires_grad}


def parameter_groups(built: BuiltModel, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: ``decay``, ``no_decay`` and, where surgeries ask for one,
    ``surgery_no_decay``.

    Norms, biases and embeddings (a head tied to one, too) aren't decayed, nor is any other parameter with
    fewer than
    two dimensions. Each group has ``params``, ``weight_decay``, ``name`` and ``names``; empty groups are
    left out.
    """
    undecayed = _norms_and_embeddings(built)
    asked = set(built.no_weight_decay)
    tied: dict[int, set[str]] = {}
    for name, parameter in all_parameters(built.module, built.companions, tied=True).items():
        tied.setdefault(id(parameter), set()).add(name)
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"decay": [], "no_decay": [], "surgery_no_decay": []}
    for name, parameter in trainable_parameters(built).items():
        if tied[id(parameter)] & asked:
            group = "surgery_no_decay"
        elif parameter.dim() < 2 or id(parameter) in undecayed or name.endswith(".bias"):
            group = "no_decay"
        else:
            group = "decay"
        groups[group].append((name, parameter))
    return [
        {
            "params": [parameter for _, parameter in members],
            "weight_decay": weight_decay if group == "decay" else 0.0,
            "name": group,
            "names": [name for name, _ in members],
        }
        for group, members in groups.items()
        if members
    ]


def _norms_and_embeddings(built: BuiltModel) -> set[int]:
    found: set[int] = set()
    for root in (built.module, *built.companions.values()):
        for part in root.modules():
            if isinstance(part, nn.Embedding) or "norm" in type(part).__name__.lower():
                found |= {id(parameter) for parameter in part.parameters(recurse=False)}
    return found


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the plan and the run's record say of a model: counts of parameters, and the hash of its base."""

    model_type: str
    parameters: int
    trainable: int
    adapter: int
    surgeries: int
    base_hash: str
    revision: str | None

    @property
    def share(self) -> float:
        """Trainable parameters as a share of all, 0 to 1."""
        return self.trainable / self.parameters if self.parameters else 0.0


def model_facts(built: BuiltModel) -> ModelFacts:
    """Facts of a built model; tied parameters count once, companions' count too."""
    every = all_parameters(built.module, built.companions)
    own = {*built.own, *(name for name in built.trainable if name.startswith("companions."))}
    return ModelFacts(
        model_type=built.config.model_type,
        parameters=sum(parameter.numel() for parameter in every.values()),
        trainable=sum(parameter.numel() for parameter in every.values() if parameter.requires_grad),
        adapter=sum(parameter.numel() for name, parameter in every.items() if is_adapter_parameter(name)),
        surgeries=sum(parameter.numel() for name, parameter in every.items() if name in own),
        base_hash=built.base_hash,
        revision=built.model.revision,
    )


def source_facts(
    source: ModelSource, adapter: AdapterConfig | None = None, *, recompute: str = "none"
) -> dict[str, Any]:
    """What can be said of a model before its weights are read: sizes, and what pins its weights. For the
    plan.

    ``weights`` is the hash of the files' tensors, ``hub:COMMIT`` for a repository, or ``config:HASH`` for
    random weights,
    which the seed and the versions of the libraries complete. Surgeries aren't counted: they haven't
    happened yet.
    """
    config = load_model_config(source)
    module = skeleton(source, config)
    told: dict[str, Any] = {}
    if recompute == "layers":
        check_layers(module)
    with private_rng(0), torch.device("meta"):
        total = sum(parameter.numel() for parameter in module.parameters())
        trainable = total
        if adapter is not None and adapter.kind == "lora":
            targets = resolve_targets(module, adapter.target_modules)
            wrapped = add_lora(module, adapter, 0, source.model.name)
            trainable = sum(
                parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad
            )
            told["adapter"] = _adapter_note(adapter, str(targets), trainable, total)
            total += trainable
    return {
        **told,
        "kind": source.kind,
        "model_type": config.model_type,
        "parameters": total,
        "trainable": trainable,
        "weights": _pin(source),
    }


def _adapter_note(adapter: AdapterConfig, targets: str, trainable: int, total: int) -> str:
    name = ("DoRA" if adapter.use_dora else "LoRA") + (" with rsLoRA's scale" if adapter.use_rslora else "")
    saved = f", in full {', '.join(adapter.modules_to_save)}" if adapter.modules_to_save else ""
    share = f"trains {trainable:,} parameters, {trainable / total:.1%} of the model's"
    return f"{name} on {targets}{saved}: {share}"


def _pin(source: ModelSource) -> str:
    if source.kind == "scratch":
        text = json.dumps([source.model.config, source.model.dtype], sort_keys=True, default=str)
        return f"config:{hashlib.sha256(text.encode()).hexdigest()}"
    if source.kind == "hub":
        return f"hub:{local_folder(source, weights=False).name}"
    return hash_files(source_files(source))


def rank_local_names(built: BuiltModel, prefix: str = "model.") -> list[str]:
    """Names of the rank-local parameters as a training module has them: ``prefix`` before the model's own
    (PEFT's
    prefixes included), ``companions.NAME.`` before a companion's.
    """
    wanted = set(built.rank_local)
    inside = [
        name
        for name, _ in built.module.named_parameters(remove_duplicate=False)
        if plain_name(name) in wanted
    ]
    beside = sorted(name for name in wanted if name.startswith(COMPANIONS))
    return [*(f"{prefix}{name}" for name in inside), *beside]
