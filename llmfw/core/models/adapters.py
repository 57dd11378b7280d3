"""Adapters through PEFT: LoRA, DoRA, rsLoRA, and modules that are trained in full beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from llmfw.core.errors import UsageError
from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.names import COPY, plain_name
from llmfw.core.models.rng import private_rng, seed_of
from llmfw.core.models.talk import quiet
from llmfw.core.models.targets import Targets, resolve_targets
from llmfw.core.schema import AdapterConfig


def add_lora(module: Any, adapter: AdapterConfig, seed: int, base: str) -> Any:
    """The module with low-rank adapters on the layers that ``target_modules`` means, all else frozen.

    LoRA (arXiv 2106.09685) adds s B A x to a layer's output, s = alpha / r, or alpha / sqrt(r) with
    ``use_rslora`` (arXiv 2312.03732). DoRA (arXiv 2402.09353, eq. 5) then scales each row of the weight to a
    trained magnitude. A is drawn from ``seed``, B is zero and magnitudes are the base's own, so the outputs
    are those of the base at first. Modules of ``modules_to_save`` are copied and the copies trained in full;
    a head tied to embeddings stays tied to their copy.

    Args:
        base: what ``adapter_config.json`` names as the base model.

    Raises:
        UsageError: ADAPTER, for targets or modules that match nothing or can't be adapted.
    """
    with quiet():
        from peft import LoraConfig, get_peft_model

    check_adapter(adapter)
    targets = resolve_targets(module, adapter.target_modules)
    if targets.experts and (adapter.use_dora or adapter.dropout):
        key = "adapter.use_dora" if adapter.use_dora else "adapter.dropout"
        raise UsageError(
            "ADAPTER",
            f"adapters on experts' weights ({', '.join(targets.parameters)}) know no {key.split('.')[1]}",
            mend=f"leave {key} out, or set adapter.target_modules=[attention]",
            key=key,
        )
    saved = resolve_saved(module, adapter.modules_to_save, targets)
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT divides it by r: any number will do
        lora_dropout=adapter.dropout,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        task_type="SEQ_2_SEQ_LM" if is_encoder_decoder(module.config) else "CAUSAL_LM",
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters) or None,
        modules_to_save=saved or None,
        ensure_weight_tying=bool(saved) and ties_saved(module, saved),
        base_model_name_or_path=base,
    )
    module.name_or_path = base
    with private_rng(seed_of(seed, "lora")), quiet():
        try:
            wrapped = get_peft_model(module, config)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(
                "ADAPTER",
                f"PEFT can't put adapters on this model: {' '.join(str(error).split())[:200]}",
                mend="name other layers",
                key="adapter.target_modules",
            ) from error
    wrapped.peft_config["default"].base_model_name_or_path = base
    _check_adapted(wrapped, targets, saved)
    return wrapped


def check_adapter(adapter: AdapterConfig) -> None:
    """Refuse settings of an adapter that can't be meant, whatever the model.

    Raises:
        UsageError: ADAPTER.
    """
    if adapter.r < 1:
        raise UsageError("ADAPTER", f"a rank of {adapter.r}", mend="use 1 or more", key="adapter.r")
    if not 0.0 <= adapter.dropout < 1.0:
        raise UsageError(
            "ADAPTER", f"a dropout of {adapter.dropout}", mend="use 0 to below 1", key="adapter.dropout"
        )


def resolve_saved(module: Any, wanted: Sequence[str], targets: Targets) -> list[str]:
    """Full names of the modules that ``modules_to_save`` means, in its order: each word is a module's last
    name or a longer ending of it.

    Raises:
        UsageError: ADAPTER, for a name that matches nothing, a module without weights or with an adapter in
            it, or one tied to others in a way that PEFT can't keep.
    """
    modules = {name: part for name, part in module.named_modules() if name}
    key, resolved = "adapter.modules_to_save", dict[str, None]()
    for name in dict.fromkeys(wanted):
        found = [full for full in modules if full == name or full.endswith(f".{name}")]
        if not found or not any(any(True for _ in modules[full].parameters()) for full in found):
            known = sorted({full.rsplit(".", 1)[-1] for full, part in modules.items() if not _inner(part)})
            what = f"no module of the model is named {name!r}" if not found else f"{name!r} has no weights"
            raise UsageError("ADAPTER", what, mend=f"choose of: {', '.join(known)}", key=key)
        own = {id(parameter) for full in found for parameter in modules[full].parameters()}
        both = next(
            (layer for layer in targets.layers if {id(p) for p in modules[layer].parameters()} & own), None
        )
        if both is not None:
            raise UsageError(
                "ADAPTER",
                f"{both} would be trained in full and get an adapter too",
                mend="name it in one of adapter.target_modules and adapter.modules_to_save",
                key=key,
            )
        if _tied_ids(module) & own and not (_ties_by_name(name) and _two(module)):
            raise UsageError(
                "ADAPTER",
                f"{name!r} is tied to another module; PEFT keeps only ties of one embed_tokens to lm_head",
                mend="leave it out, or train the model in full (adapter.kind=none)",
                key=key,
            )
        resolved |= dict.fromkeys(found)
    return list(resolved)


def ties_saved(module: Any, saved: Sequence[str]) -> bool:
    """Whether one of the modules to save shares its weight with another, which then has to share the copy."""
    return bool(_tied_ids(module)) and any(_ties_by_name(name) for name in saved)


def _ties_by_name(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ("embed_tokens", "lm_head")


def _two(module: Any) -> bool:
    """Whether no more than two modules share a weight."""
    counts = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    return max(counts.values(), default=0) <= 2


def _tied_ids(module: Any) -> set[int]:
    """Identities of the parameters that have more than one name."""
    counts = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    return {key for key, count in counts.items() if count > 1}


def _inner(part: nn.Module) -> bool:
    """Whether a module holds no weights of its own."""
    return not any(True for _ in part.parameters(recurse=False))


def _check_adapted(wrapped: Any, targets: Targets, saved: Sequence[str]) -> None:
    """Refuse an outcome that differs from what was asked for: PEFT reads some names its own way."""
    from peft.utils.other import ModulesToSaveWrapper

    names = [name for name, part in bare(wrapped).named_modules() if isinstance(part, ModulesToSaveWrapper)]
    copies = {name for name in names if not _ties_by_name(name)}
    wanted = {name for name in saved if not _ties_by_name(name)}
    for key, wrong in (
        ("target_modules", set(wrapped.targeted_module_names) ^ set(targets.layers)),
        ("modules_to_save", copies ^ wanted),
    ):
        if wrong:
            raise UsageError(
                "ADAPTER",
                f"PEFT reads the names otherwise in this architecture: {min(wrong)} differs",
                mend="use longer names",
                key=f"adapter.{key}",
            )


@torch.no_grad()
def merge_in_place(module: Any) -> Any:
    """The transformers model inside PEFT's wrapper with the adapter merged into its weights, which keep
    their dtype.

    Each layer is merged in float32 (float64 of a float64 layer) and then rounded once. Where the adapter
    changes one of two tied weights, they are untied, and the config says so.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = bare(module)
    dtype = next(p for name, p in model.named_parameters() if not is_adapter_parameter(name)).dtype
    _untie(model, [part.get_base_layer() for part in module.modules() if isinstance(part, BaseTunerLayer)])
    for part in [part for part in module.modules() if isinstance(part, BaseTunerLayer)]:
        layer = part.get_base_layer()
        dtypes = {name: value.dtype for name, value in layer.named_parameters(recurse=False)}
        for name, value in layer.named_parameters(recurse=False):
            value.data = value.data.to(torch.promote_types(dtypes[name], torch.float32))
        part.merge()
        for name, value in layer.named_parameters(recurse=False):
            value.data = value.data.to(dtypes[name])
    copies = [value for name, value in module.named_parameters() if f".{COPY}." in name]
    merged = module.unload()
    for value in copies:
        value.data = value.data.to(dtype)
    _say_untied(merged)
    return merged


def _untie(model: Any, changed: list[Any]) -> None:
    """Give each layer that is about to change a weight of its own, where it shares one."""
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for layer in changed:
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and owners.get(id(weight), 0) > 1:
            layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)


def _say_untied(model: Any) -> None:
    """Write into the config, and into what transformers keeps of ties, that head and embeddings are two."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is embedding.weight:
        return
    for config in {id(part): part for part in (model.config, model.config.get_text_config())}.values():
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
    same = dict(model.named_parameters(remove_duplicate=False))
    ties = getattr(model, "all_tied_weights_keys", None) or {}
    model.all_tied_weights_keys = {name: other for name, other in ties.items() if same[name] is same[other]}


def spelt_out(module: Any, adapter: AdapterConfig) -> AdapterConfig:
    """The adapter's settings with presets replaced by the names that they meant, to build it again by."""
    if not is_adapted(module):
        return adapter
    config = module.peft_config["default"]
    named = sorted({*config.target_modules, *(config.target_parameters or ())})
    return replace(adapter, target_modules=named, modules_to_save=sorted(set(config.modules_to_save or ())))


def is_adapted(module: Any) -> bool:
    """Whether a module is PEFT's wrapper."""
    return hasattr(module, "peft_config") and hasattr(module, "get_base_model")


def bare(module: Any) -> Any:
    """The transformers model inside PEFT's wrapper, or the module itself."""
    return module.get_base_model() if is_adapted(module) else module


def is_adapter_parameter(name: str) -> bool:
    """Whether a parameter name is an adapter's own: LoRA's and DoRA's, or a copy that is trained in full."""
    name = plain_name(name)
    return ".lora_" in name or f".{COPY}." in name
