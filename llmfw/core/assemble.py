"""From a command line to a plan: config, plugins, tokenizer, every hook's answer. No weight is read."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Literal

from llmfw.core import discovery
from llmfw.core.config import Resolved, load_config
from llmfw.core.defaults import Defaults
from llmfw.core.discovery import Card
from llmfw.core.errors import CheckpointError, ConflictError, UsageError
from llmfw.core.guard import owner_named, watch
from llmfw.core.manager import DEFAULTS, PluginManager
from llmfw.core.plan import Plan, make_plan
from llmfw.core.records import DatasetTransform
from llmfw.core.run import Run
from llmfw.core.saved import settings_of_run
from llmfw.core.say import say
from llmfw.core.schema import ModelConfig, Root
from llmfw.core.settings.strict_yaml import load_file

Verb = Literal["fit", "validate", "evaluate", "predict", "generate", "chat", "plan", "data"]
_CALLBACKS = "lightning.pytorch.callbacks_factory"
"""Installed packages may add callbacks to every Lightning trainer; the plan lists them."""
_MODEL = ("model", "model.name")
_said: set[str] = set()
"""Warnings that this process has given: runs inside a run don't repeat them."""
_PACKAGES = ("llmfw", "torch", "lightning", "transformers", "tokenizers", "peft", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A configuration in which every need is filled; ``notes`` say what was switched on for that."""

    resolved: Resolved
    notes: tuple[str, ...]
    source: Any
    """What ``model.name`` means (``llmfw.core.models.ModelSource``)."""


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """Everything that is decided before weights are read."""

    settled: Settled
    manager: PluginManager
    run: Run
    tokenizer: Any
    model_config: Any
    plan: Plan

    @property
    def resolved(self) -> Resolved:
        """The merged configuration."""
        return self.settled.resolved

    @property
    def named_data(self) -> bool:
        """Whether rows are to be read: not where tasks of lm-eval alone are asked for, without any data."""
        plugins = self.plan.owner("llmfw_datamodule") not in (None, DEFAULTS)
        return plugins or _names_data(self.resolved, self.plan.verb)

    @property
    def transforms(self) -> list[tuple[str, DatasetTransform]]:
        """(plugin, transform) in the user's order."""
        found = self.plan.answers["llmfw_dataset_transforms"]
        return [(answer.plugin, answer.value) for answer in found]

    @property
    def sides(self) -> Any:
        """How an encoder-decoder's rows are laid out (``llmfw.core.models.Sides``); None: decoder-only."""
        from llmfw.core.models import sides_of

        return sides_of(self.model_config)


def settle(*, plugins: Sequence[str] = (), measuring: bool = False, **layers: Any) -> Settled:
    """Merge the configuration and switch on what it lacks: owners of needs, plugins of a saved model.

    ``layers`` are those of ``load_config``. A plugin that fills a need is switched on where it's the only one
    installed. With ``measuring`` a saved run's weights are measured on the run's own data, with its plugins.
    """
    from llmfw.core.models import resolve_model

    notes: list[str] = []
    named = _named_model(layers.get("overrides", ()), layers.get("files", ()))
    saved = resolve_model(named) if named else None
    added: list[str] = []
    if saved is not None and saved.settings is not None and layers.get("base") is None:
        _refuse_missing(named, saved)
        base = dict(saved.settings)
        if measuring and (found := settings_of_run(saved.folder)):
            run, base, untrusted = found
            notes.append(f"data and plugins are those of run {run}; --config and KEY=VALUE change them")
            if untrusted:
                keys = ", ".join(untrusted)
                notes.append(
                    f"not taken over from the run, as it runs code or asks servers: {keys} (set it again)"
                )
        added = [name for name in saved.plugins if name not in (*plugins, *base.get("plugins", ()))]
        for name in set(saved.plugins) & set(layers.get("no_plugins", ())):
            raise ConflictError(
                "MODEL-NEEDS",
                f"model {named!r} was made with plugin {name!r}",
                mend=f"leave out --no-plugin {name}",
                key="model.name",
            )
        if added:
            notes.append(f"model {named} was made with {', '.join(added)}: switched on")
        trained_with = (saved.manifest or {}).get("model", {}).get("attention")
        if trained_with not in (None, ModelConfig().attention):
            base["model"] = {**base.get("model", {}), "attention": trained_with}
        if saved.held != "none":
            base["model"] = {**base.get("model", {}), "quantization": saved.held}
        layers["base"] = base
    while True:
        resolved = load_config(plugins=[*plugins, *added], **layers)
        filled = _unfilled(resolved.plugin_names)
        if not filled:
            if (broken := discovery.unusable_line(resolved.plugin_names)) is not None and broken not in _said:
                _said.add(broken)
                say(broken)
            source = resolve_model(resolved.root.model, uri=resolved.root.tracking.uri)
            if source.held != "none":
                now = resolved.root.model.quantization
                held = "unquantised, so outputs differ a little" if now == "none" else f"in {now}"
                same = f"the base is held in {now}, as when the adapter was trained"
                other = f"the adapter was trained over a base in {source.held}; here the base is {held}"
                notes.append(same if now == source.held else other)
            return Settled(resolved=resolved, notes=tuple(notes), source=source)
        added += [name for name, _ in filled]
        notes += [note for _, note in filled]


def _refuse_missing(named: str | None, saved: Any) -> None:
    """Stop where a plugin without which a saved model's weights can't be used isn't installed.

    Raises:
        CheckpointError: MODEL-PLUGIN, with the command that installs it.
    """
    origins = (saved.manifest or {}).get("distributions", {})
    for name in saved.plugins:
        if name in discovery.cards() or name in discovery.broken_cards():
            continue
        distribution, _, number = str(origins.get(name, "")).partition(" ")
        known = f" ({distribution} {number})" if distribution else ""
        mend = f"pip install {distribution}=={number}" if distribution else "install the package that has it"
        raise CheckpointError(
            "MODEL-PLUGIN",
            f"model {named} was made with plugin {name!r}{known}, which isn't installed",
            mend=mend,
            key="model.name",
        )


def _named_model(overrides: Sequence[str], files: Sequence[Path]) -> str | None:
    """What ``model=`` names, read first: a saved model decides which plugins' keys are known. None where the
    model is made from a config, whatever its name.
    """
    if any(word.partition("=")[0].strip().startswith("model.config") for word in overrides):
        return None
    named = [
        value.strip()
        for key, _, value in (word.partition("=") for word in overrides)
        if key.strip() in _MODEL
    ]
    for file in reversed(files):
        told = load_file(file).data.get("model")
        told = told if isinstance(told, dict) else {"name": told}
        named.insert(0, "" if told.get("config") else str(told.get("name") or ""))
    return named[-1] or None if named else None


def _unfilled(names: Sequence[str]) -> list[tuple[str, str]]:
    """For each need that no listed plugin offers: the one installed plugin that does, and a note."""
    cards = discovery.cards()
    chosen = [discovery.card(name) for name in names]
    offered = {protocol for card in chosen for protocol in card.offers}
    filled: dict[str, str] = {}
    for card in chosen:
        for need in card.needs:
            if need in offered:
                continue
            able = [other.name for other in cards.values() if need in other.offers]
            if len(able) != 1:
                which = f"{', '.join(able)} do" if able else "none installed does"
                mend = (
                    f"choose one with --plugin {able[0]}"
                    if able
                    else "install a plugin that does (llmfw plugins list)"
                )
                raise UsageError(
                    "NEED",
                    f"plugin {card.name!r} needs a plugin that offers {need}: {which}",
                    mend=mend,
                    key="plugins",
                )
            filled[able[0]] = (
                f"{card.name} needs {need}: switched on {able[0]}, the one installed plugin that offers it"
            )
            offered.add(need)
    return list(filled.items())


def _check_cards(cards: Sequence[Card], verb: Verb) -> None:
    names = {card.name for card in cards}
    for card in cards:
        enemies = sorted(names & set(card.conflicts_with))
        if enemies:
            raise ConflictError(
                "PLUGINS-CONFLICT",
                f"plugin {card.name!r} ({card.origin}) can't be together with {enemies[0]!r}",
                mend=f"switch one of them off (--no-plugin {enemies[0]})",
                key="plugins",
            )
        if verb == "fit" and "fit" not in card.verbs:
            other = (
                f"llmfw {card.verbs[0]} --plugin {card.name}"
                if card.verbs
                else f"llmfw plugins show {card.name}"
            )
            raise UsageError(
                "NOTHING-TO-FIT", f"plugin {card.name!r} trains nothing", mend=f"run: {other}", key="plugins"
            )


def build_manager(resolved: Resolved, verb: Verb) -> PluginManager:
    """Import the named plugins and register them, each built with its own settings."""
    cards = [discovery.card(name) for name in resolved.plugin_names]
    _check_cards(cards, verb)
    instances: list[tuple[str, object]] = []
    for card in cards:
        plugin_class = discovery.load_class(card)
        with watch(owner_named(card.name), "its __init__", plugin_class.__init__):
            instances.append((card.name, plugin_class(resolved.plugin_settings[card.name])))
    return PluginManager(instances, Defaults(None), {card.name: card.origin for card in cards})


def row_maker(manager: PluginManager) -> str | None:
    """The plugin that answers for the rows, None where they are the core's."""
    names = [one.plugin_name for one in manager.hook.llmfw_datamodule.get_hookimpls()]
    return next((name for name in names if name != DEFAULTS), None)


def versions() -> dict[str, str]:
    """Versions that decide numbers: Python, the libraries, the processor's name."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def bits_version(root: Root) -> dict[str, str]:
    """bitsandbytes' version where its layers or optimizers decide numbers."""
    used = root.model.quantization != "none" or root.optimizer.name != "adamw"
    return {"bitsandbytes": version("bitsandbytes")} if used else {}


def _names_data(resolved: Resolved, verb: str) -> bool:
    """Whether rows are to be read: not where tasks of lm-eval alone are asked for and no data is named."""
    settings = resolved.root.evaluation
    tasks_alone = verb == "evaluate" and bool(settings.lm_eval) and not settings.metrics
    return not tasks_alone or resolved.origin["data.name"].layer != "defaults" or bool(resolved.root.data.mix)


def _peek_plugins(datamodule: Any) -> str | None:
    """The form of a plugin's rows; that of the data which nobody named isn't looked at."""
    return getattr(datamodule, "kind", None)


def _run_name(verb: str, resolved: Resolved) -> str:
    plugins = "-".join(resolved.plugin_names)
    if verb == "evaluate":
        return f"evaluate-{Path(resolved.root.model.name).name}" + (f"-{plugins}" if plugins else "")
    return plugins or verb


def assemble(settled: Settled, verb: Verb, *, folder: Path | None = None, resume: str = "never") -> Assembled:
    """Ask every hook and check the answers; nothing heavy is read or written.

    Where the settings leave a micro-batch to be found, it's found first, and ``resume`` says whether a run
    that was begun with these settings decides it.
    """
    trainer = settled.resolved.root.trainer
    if trainer.batch is None and str(trainer.micro_batch) != "auto":
        return _assemble(settled, verb, folder)
    from llmfw.core.estimate.auto import decide

    settled = decide(settled, verb, resume, lambda found: _assemble(found, verb, folder))
    return _assemble(settled, verb, folder)


def _assemble(settled: Settled, verb: Verb, folder: Path | None) -> Assembled:
    from llmfw.core.auxiliary import facts_of
    from llmfw.core.data import open_tokenizer, peek_kind
    from llmfw.core.models import check_vocabulary, load_model_config, source_facts, source_notes, with_ids
    from llmfw.core.training.combinations import check_combinations

    resolved = settled.resolved
    root = resolved.root
    check_combinations(root, training=verb in ("fit", "plan"))
    manager = build_manager(resolved, verb)
    opened = open_tokenizer(root, settled.source, row_maker(manager))
    tokenizer, source = opened.tokenizer, with_ids(opened.source, opened.tokenizer)
    notes = (*settled.notes, *source_notes(source), *opened.notes)
    settled = replace(settled, source=source, notes=notes)
    model_config = load_model_config(source)
    check_vocabulary(tokenizer, model_config)
    name = root.run.name or _run_name(verb, resolved)
    run = Run(root, folder or Path("."), name)
    trains = verb in ("fit", "plan")
    facts = source_facts(
        source, root.adapter if trains else None, recompute=root.trainer.recompute if trains else "none"
    )
    notes = (*notes, *([facts["adapter"]] if "adapter" in facts else []))
    models = facts_of(root)
    run._know({name: str(facts["identity"]) for name, facts in models.items()})
    plan = make_plan(
        manager,
        run,
        tokenizer,
        model_config,
        verb=verb,
        settings=resolved.flat(),
        data_kind=peek_kind if _names_data(resolved, verb) else _peek_plugins,
        notes=notes,
        facts={
            "versions": versions() | bits_version(root),
            "model": facts,
            **({"tokenizer": dict(opened.facts)} if opened.facts else {}),
            "models": models,
            "lightning_callbacks": [
                f"{entry.name} = {entry.value}" for entry in entry_points(group=_CALLBACKS)
            ],
        },
    )
    return Assembled(
        settled=settled, manager=manager, run=run, tokenizer=tokenizer, model_config=model_config, plan=plan
    )
