"""Which layers get an adapter: names, or presets that are resolved by reading the model's modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmfw.core.errors import UsageError
from llmfw.core.models.talk import quiet

PRESETS = ("all-linear", "attention", "mlp")
_KEY = "adapter.target_modules"
_ATTENTION = ("attention", "attn")
_MLP = ("mlp", "feedforward", "feed_forward", "ffn", "expert", "moe", "densereludense", "denseact")
_ROUTERS = ("gate", "router", "shared_expert_gate")
"""Last names of a mixture's routers: they choose experts and project nothing, so no preset takes them."""
_MAMBA = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
_FUSED = ("out_proj", "conv1d")
"""Layers of state-space blocks whose weight their kernel reads by itself, past any adapter."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What an adapter is put on. ``layers`` and ``experts`` are full names in the model's order."""

    layers: tuple[str, ...]
    """Linear layers (and embeddings, where they are named)."""
    experts: tuple[str, ...]
    """Parameters with the weights of all experts of a block, [experts, in, out] or [experts, out, in]."""
    modules: tuple[str, ...]
    """The shortest endings of names that match just ``layers``, as PEFT takes them."""
    parameters: tuple[str, ...]
    """The same for ``experts``."""
    left_out: tuple[str, ...] = ()
    """Endings of linear layers of a preset that PEFT can't be told of in this architecture."""

    def __str__(self) -> str:
        named = ", ".join(dict.fromkeys((*self.modules, *self.parameters)))
        count = len(self.layers) + len(self.experts)
        text = f"{count} layer{'s' if count != 1 else ''} ({named})"
        return f"{text}, not {', '.join(self.left_out)}" if self.left_out else text


def resolve_targets(model: Any, wanted: Sequence[str]) -> Targets:
    """The layers of a transformers model that names and presets mean.

    ``attention`` and ``mlp`` are the linear layers inside attention and feed-forward blocks, experts
    included, routers not; ``all-linear`` is every linear layer but the language-model head and routers.
    A name is a layer's last name (``q_proj``), a longer ending of it, or all of it.

    Raises:
        UsageError: ADAPTER, where a name or preset matches nothing, or a name can't be told to PEFT.
    """
    if not wanted:
        raise UsageError("ADAPTER", "no layer is named", mend="name some, or set all-linear", key=_KEY)
    modules = dict(model.named_modules())
    linear = {name for name, part in modules.items() if is_linear(part)}
    adaptable = linear | {name for name, part in modules.items() if isinstance(part, nn.Embedding)}
    experts = [
        f"{name}.{own}"
        for name, part in modules.items()
        if "expert" in _words(name, part)
        for own, value in part.named_parameters(recurse=False)
        if value.dim() == 3
    ]
    kinds = {name: _kind(name, modules) for name in linear}
    head = model.get_output_embeddings()
    skipped = {name for name in linear if modules[name] is head or kinds[name] == "router"}
    if getattr(model.config, "model_type", None) in _MAMBA:
        skipped |= {name for name in linear if name.rsplit(".", 1)[-1] in _FUSED}
    renamed = _renamed(model)
    taken = {name for name in linear if renamed and name.rsplit(".", 1)[-1] in renamed}
    chosen, left = set[str](), set[str]()
    for target in wanted:
        if target in PRESETS:
            kind = {"all-linear": None}.get(target, target)
            found = {name for name in linear - skipped if kind in (None, kinds[name])}
            left |= found & taken
            found = (found - taken) | (set(experts) if kind != "attention" else set())
        else:
            found = {name for name in (*adaptable, *experts) if name == target or name.endswith(f".{target}")}
            if found and not found - taken:
                raise UsageError(
                    "ADAPTER",
                    f"PEFT takes {target!r} for another name of the experts' weights in this architecture",
                    mend="name the experts (gate_up_proj, down_proj), or other layers",
                    key=_KEY,
                )
            found -= taken
        if not found:
            raise _nothing(target, kinds, experts)
        chosen |= found
    layers = tuple(name for name in modules if name in chosen)
    parameters = tuple(name for name in experts if name in chosen)
    every = [*modules, *(name for name, _ in model.named_parameters(remove_duplicate=False))]
    return Targets(
        layers=layers,
        experts=parameters,
        modules=_endings(layers, chosen, every),
        parameters=_endings(parameters, chosen, every),
        left_out=_endings(tuple(name for name in modules if name in left), left, every),
    )


def _renamed(model: Any) -> set[str]:
    """Last names that PEFT reads as older names of experts and routers, whatever layer has them now."""
    with quiet():
        from peft.utils import transformers_weight_conversion as conversion

    kinds = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {})
    names = getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {})
    return set(names.get(kinds.get(getattr(model.config, "model_type", None)), {}))


def is_linear(part: nn.Module) -> bool:
    """Whether a module is a linear layer: torch's, or GPT-2's with its weight the other way round."""
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"


def _words(name: str, part: nn.Module) -> str:
    return f"{name.rsplit('.', 1)[-1]} {type(part).__name__}".lower()


def _kind(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """attention, mlp, router, or None: what the nearest block around a linear layer is."""
    parents = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
    if name.rsplit(".", 1)[-1] in _ROUTERS and parents and _has_experts(modules[parents[0]]):
        return "router"
    for parent in parents:
        words = _words(parent, modules[parent])
        if any(word in words for word in _ATTENTION):
            return "attention"
        if any(word in words for word in _MLP):
            return "mlp"
        if isinstance(modules[parent], nn.ModuleList):
            return None
        if _is_block(modules[parent]) and name.rsplit(".", 1)[-1] in ("fc1", "fc2", "wi", "wo"):
            return "mlp"  # OPT's and BART's two layers stand in the block itself
    return None


def _has_experts(parent: nn.Module) -> bool:
    return any("expert" in name for name, _ in parent.named_children())


def _is_block(part: nn.Module) -> bool:
    return any(word in type(part).__name__.lower() for word in ("layer", "block"))


def _endings(named: Sequence[str], wanted: set[str], every: Sequence[str]) -> tuple[str, ...]:
    """The shortest dotted endings of ``named`` that match nothing but ``wanted``, in order."""
    owners: dict[str, set[str]] = {}
    for name in every:
        for ending in _all_endings(name):
            owners.setdefault(ending, set()).add(name)
    found = [next(e for e in _all_endings(name) if owners[e] <= wanted) for name in named]
    return tuple(dict.fromkeys(found))


def _all_endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _nothing(target: str, kinds: Mapping[str, str | None], experts: Sequence[str]) -> UsageError:
    known = sorted({name.rsplit(".", 1)[-1] for name in (*kinds, *experts)})
    if target in PRESETS:
        what = f"the preset {target!r} matches no layer of this model"
    else:
        what = f"no layer of the model is named {target!r}"
    mend = f"choose of: {', '.join(known)}; or a preset: {', '.join(PRESETS)}"
    return UsageError("ADAPTER", what, mend=mend, key=_KEY)
