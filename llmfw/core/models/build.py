"""From settings and surgeries to a model that is ready to train or to answer, phase by phase."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from llmfw.core.errors import PluginError, UsageError
from llmfw.core.models.adapters import (
    add_lora,
    bare,
    is_adapted,
    is_adapter_parameter,
    merge_in_place,
    spelt_out,
)
from llmfw.core.models.configs import base_model, load_model_config
from llmfw.core.models.encoder_decoder import auto_class
from llmfw.core.models.fetch import pinned
from llmfw.core.models.names import COPY, matches
from llmfw.core.models.quantize import check_frozen, quantise
from llmfw.core.models.rng import private_rng
from llmfw.core.models.source import ModelSource, resolve_model
from llmfw.core.models.surgery import Done, Named, Theatre, all_parameters, chosen, state_names, wake
from llmfw.core.models.tokenizer import check_vocabulary
from llmfw.core.models.weights import cast, hash_files, hash_module, load_module, source_files
from llmfw.core.records import Surgery
from llmfw.core.say import say
from llmfw.core.schema import AdapterConfig, ModelConfig


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """A model with everything that was done to it."""

    module: Any
    """The transformers model, or PEFT's wrapper around it."""
    companions: Mapping[str, nn.Module]
    reports: tuple[Done, ...]
    """One per surgery, in the order of application."""
    base_hash: str
    """SHA-256 of the weights before surgeries and adapters."""
    base_config: Mapping[str, Any]
    """The transformers config before surgeries."""
    model: ModelConfig
    """Settings that load those weights again."""
    adapter: AdapterConfig
    seed: int
    kind: Literal["adapter", "full"]
    """What is saved: ``adapter`` where the base's own weights are frozen, else ``full``."""
    tokenizer: Any = None
    trainable: tuple[str, ...] = ()
    """Plain names of the parameters that surgeries train."""
    frozen: tuple[str, ...] = ()
    """Plain names of the parameters that surgeries froze."""
    no_weight_decay: tuple[str, ...] = ()
    rank_local: tuple[str, ...] = ()
    batch_keys: tuple[str, ...] = ()

    @property
    def config(self) -> Any:
        """The transformers config, surgeries included."""
        return bare(self.module).config

    @property
    def own(self) -> tuple[str, ...]:
        """Plain names of the model's state that the surgeries answer for: what they added, and what they
        train.
        """
        names = {name for one in self.reports for name in one.added}
        names |= {name for name in self.trainable if not name.startswith("companions.")}
        return tuple(sorted(name for name in names if not is_adapter_parameter(name)))


Load = Callable[[ModelSource, Any], Any]
"""(source, config) -> the transformers model, in place of reading its files."""


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What is to be built. ``seeds`` of surgeries by name; ``filled``: a checkpoint follows, so tensors
    may be absent till then. With ``load`` no file of weights is read or hashed.
    """

    adapter: AdapterConfig
    surgeries: Sequence[Named]
    seed: int
    seeds: Mapping[str, int] = field(default_factory=dict)
    filled: bool = False
    load: Load | None = None


def build_model(
    model: ModelConfig | ModelSource,
    adapter: AdapterConfig | None = None,
    surgeries: Sequence[tuple[str, Surgery]] = (),
    seed: int = 42,
    *,
    train: bool = True,
    tokenizer: Any = None,
    load: Load | None = None,
) -> BuiltModel:
    """Load a model and operate on it: before_load on the config, load, after_load, adapters, after_adapters.

    The global random generators are as before afterwards: random weights, adapters and surgeries draw
    from generators of
    their own, seeded from ``seed``. The model is on the CPU, in evaluation mode.

    Args:
        model: settings or what ``resolve_model`` made of them.
        adapter: what is to be trained. A saved adapter is merged into its base first.
        surgeries: (plugin, surgery) in the user's order.
        train: False: nothing is to be trained. All is frozen, ``adapter`` isn't looked at, and a
            saved adapter is kept as it is.
        tokenizer: saved beside the weights; its ids are checked against the model's vocabulary.
        load: makes the module instead, for an estimate that needs shapes and no values.

    Raises:
        UsageError, CheckpointError: a model that can't be found, loaded or adapted.
        PluginError: a surgery that broke a rule (``Theatre.operate``, ``wake``).
    """
    source = model if isinstance(model, ModelSource) else resolve_model(model)
    if train and source.model.quantization != "none":
        check_frozen(source.model, adapter or AdapterConfig())
    wish = _Wish(
        adapter=adapter if train and adapter else AdapterConfig(), surgeries=surgeries, seed=seed, load=load
    )
    built = (
        _build(source, wish) if train or source.kind not in ("adapter", "full") else _restore(source, wish)
    )
    if tokenizer is not None:
        check_vocabulary(tokenizer, built.config)
        built = replace(built, tokenizer=tokenizer)
    if not train:
        for part in (built.module, *built.companions.values()):
            part.requires_grad_(False)
    return built


def _build(source: ModelSource, wish: _Wish) -> BuiltModel:
    if source.kind in ("adapter", "full"):
        return _continue(_restore(unquantised(source), wish), source, wish)
    source = pinned(source)
    theatre = Theatre(seed=wish.seed, seeds=wish.seeds, surgeries=wish.surgeries)
    config = load_model_config(source)
    base_config = config.to_dict()
    plain = _state_names_of(config) if theatre.has("before_load") else None
    theatre.operate("before_load", config)
    must = () if wish.filled else plain
    module = wish.load(source, config) if wish.load else load_module(source, config, wish.seed, must=must)
    if plain is not None:
        theatre.note_added_before_load(sorted(state_names(module) - plain), module)
    base_hash = "" if wish.load else _base_hash(source, module)
    if source.kind == "scratch":
        cast(module, getattr(torch, source.model.dtype))
    theatre.operate("after_load", module)
    return _finish(module, theatre, source, wish, base_hash=base_hash, base_config=base_config)


def _finish(
    module: Any,
    theatre: Theatre,
    source: ModelSource,
    wish: _Wish,
    *,
    base_hash: str,
    base_config: Mapping[str, Any],
) -> BuiltModel:
    """Quantisation, adapters, the last phase, and what has to train in the end."""
    before = all_parameters(module, {}, tied=True)
    frozen = tuple(name for name, parameter in before.items() if not parameter.requires_grad)
    if source.model.quantization != "none":
        _quantise(module, source, theatre.done)
        before = all_parameters(module, {}, tied=True)
    if wish.adapter.kind == "lora":
        name_of_base = source.model.name if wish.load else _base_name(source)
        module = add_lora(module, wish.adapter, wish.seed, name_of_base)
    theatre.operate("after_adapters", module)
    done = tuple(theatre.done)
    parameters = all_parameters(module, theatre.companions, tied=True)
    trainable = wake(done, parameters)
    ours = {*trainable, *(name for one in done for name in one.added)}
    owned = {id(parameter) for name, parameter in parameters.items() if name in ours}
    base = {id(parameter) for parameter in before.values()} - owned
    awake = [
        name for name, parameter in parameters.items() if parameter.requires_grad and id(parameter) in base
    ]
    if awake and wish.adapter.kind != "none":
        raise PluginError(
            "SURGERY-AWAKE",
            f"a surgery made {awake[0]} trainable without naming it",
            mend="name it in Surgery.trainable",
        )
    names = list(parameters)
    _check_copies(names, ours)
    return BuiltModel(
        module=module.eval(),
        companions=dict(theatre.companions),
        reports=done,
        base_hash=base_hash,
        base_config=base_config,
        model=source.model,
        adapter=spelt_out(module, wish.adapter),
        seed=wish.seed,
        kind="full" if awake else "adapter",
        trainable=trainable,
        frozen=frozen,
        no_weight_decay=chosen(done, "no_weight_decay", names),
        rank_local=chosen(done, "rank_local", names),
        batch_keys=tuple(dict.fromkeys(key for one in done for key in one.surgery.batch_keys)),
    )


def _restore(source: ModelSource, wish: _Wish) -> BuiltModel:
    """What llmfw saved, as it was: its base, surgeries and adapter, then the saved tensors over all."""
    from llmfw.core.models.store import check_surgeries, load_weights

    assert source.folder is not None and source.manifest is not None
    manifest = source.manifest
    check_surgeries(manifest, [surgery for _, surgery in wish.surgeries], source.folder)
    seeds = {surgery.name: wish.seed for _, surgery in wish.surgeries} | dict(wish.seeds)
    seeds |= {saved["name"]: int(saved["seed"]) for saved in manifest.get("surgeries", ())}
    made = replace(
        wish,
        adapter=source.adapter or AdapterConfig(),
        seed=int(manifest.get("seed", wish.seed)),
        seeds=seeds,
    )
    if source.kind == "adapter":
        built = _build(resolve_model(base_model(source)), made)
    else:
        built = _build(replace(unquantised(source), kind="folder"), replace(made, filled=True))
    if wish.load is None:
        load_weights(built, source.folder)
    if source.kind == "full" and source.model.quantization != "none":
        _quantise(built.module, source, built.reports)
        built = replace(built, model=source.model)
    return built


def _continue(saved: BuiltModel, source: ModelSource, wish: _Wish) -> BuiltModel:
    """Make a restored model the base of further training: its adapter merged, a new one put on."""
    assert source.folder is not None
    module = saved.module
    if is_adapted(module):
        check_mergeable(saved, source)
        module = merge_in_place(module)
        asleep = set(saved.frozen)
        for name, parameter in all_parameters(module, {}, tied=True).items():
            parameter.requires_grad_(name not in asleep)
    theatre = Theatre(
        seed=wish.seed, surgeries=wish.surgeries, done=list(saved.reports), companions=dict(saved.companions)
    )
    own = "" if wish.load else hash_files(source_files(source))
    base_hash = (
        own if source.kind == "full" else hashlib.sha256(f"{saved.base_hash}+{own}".encode()).hexdigest()
    )
    return _finish(module, theatre, source, wish, base_hash=base_hash, base_config=saved.base_config)


def unquantised(source: ModelSource) -> ModelSource:
    """The same source in the dtype of its settings."""
    return replace(source, model=replace(source.model, quantization="none"))


def _quantise(module: Any, source: ModelSource, done: Sequence[Done]) -> None:
    """Quantise what no surgery added or trains; what surgeries did stands as they left it."""
    patterns = [pattern for one in done for pattern in one.surgery.trainable]
    keep = {name for one in done for name in one.added}
    keep |= {name for name in all_parameters(module, {}, tied=True) if matches(name, patterns)}
    say(str(quantise(module, source.model.quantization, keep)))


def _check_copies(names: Sequence[str], ours: Collection[str]) -> None:
    """Refuse to train a copy of what a surgery answers for: there would be two of it."""
    for name in names:
        if f".{COPY}." in name and name.replace(f".{COPY}.", ".") in ours:
            raise UsageError(
                "ADAPTER",
                f"{name.partition(f'.{COPY}.')[0]!r} holds weights that a surgery added or trains",
                mend="leave it out",
                key="adapter.modules_to_save",
            )


def check_mergeable(built: BuiltModel, source: ModelSource) -> None:
    """Refuse to merge an adapter over which a surgery was done.

    Raises:
        UsageError: MODEL-MERGE, naming the surgery.
    """
    late = [one for one in built.reports if one.surgery.phase == "after_adapters"]
    if late:
        raise UsageError(
            "MODEL-MERGE",
            f"surgery {late[0].surgery.name!r} stands over the saved adapter, so it can't be merged",
            mend="start from the base model",
            file=source.folder,
        )


def _state_names_of(config: Any) -> set[str]:
    """State names of the architecture that a config describes; nothing is allocated."""
    with private_rng(0), torch.device("meta"):
        return state_names(auto_class(config).from_config(config))


def _base_hash(source: ModelSource, module: nn.Module) -> str:
    return hash_module(module) if source.kind == "scratch" else hash_files(source_files(source))


def _base_name(source: ModelSource) -> str:
    """What ``adapter_config.json`` names as the base: a hub id, or the folder that plain PEFT can load it
    from.
    """
    from llmfw.core.models.fetch import local_folder

    return source.model.name if source.kind in ("hub", "scratch") else str(local_folder(source))
