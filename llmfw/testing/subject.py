"""The plugin under check, and small real runs of it: what laws work with."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from llmfw.core import discovery
from llmfw.core.discovery import Card
from llmfw.core.errors import ConflictError
from llmfw.testing.laws import NotApplicable, Violation
from llmfw.testing.rounds import asked

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled, Verb
    from llmfw.core.fit import FitResult
    from llmfw.core.plan import Plan
    from llmfw.core.plugin import Plugin

T = TypeVar("T")
SMALL: Mapping[str, str] = {
    "model": "tiny-llama",
    "adapter.kind": "none",
    "trainer.max_steps": "3",
    "trainer.micro_batch": "2",
    "trainer.accumulate": "1",
    "trainer.progress": "false",
    "trainer.threads": "1",
    "optimizer.lr": "0.01",
    "generation.max_new_tokens": "8",
    "generation.temperature": "0.0",
    "tracking.mlflow": "false",
}
"""Settings of the kit's runs; the card's ``[conformance.settings]`` stand above them."""
FORMS = ("completion", "preference", "text")
ANY_DATA = ("data.max_length", "data.too_long", "data.packing", "data.group_by_length")
"""Settings of the data path that mean the same whatever the data."""


def tiny_rows(form: str, count: int = 12) -> list[dict[str, str]]:
    """Sums as rows of a form; the two answers of a pair differ in length."""
    draw, rows = random.Random(0), []
    for n in range(count):
        right, wrong = " indeed" * draw.randint(0, 3), " perhaps" * draw.randint(0, 3)
        told: dict[str, dict[str, str]] = {
            "completion": {"prompt": f"{n} + 1?", "completion": f"{n + 1}{right}"},
            "preference": {"prompt": f"{n} + 1?", "chosen": f"{n + 1}{right}", "rejected": f"{n + 2}{wrong}"},
            "text": {"text": f"{n} + 1 is {n + 1}{right}"},
        }
        rows.append({"id": f"row-{n}", **told[form]})
    return rows


@dataclass
class Subject:
    """A plugin by name, with a folder of its own to run it in. Runs with equal arguments are made once."""

    name: str
    folder: Path
    _runs: dict[str, FitResult] = field(default_factory=dict)
    _failed: dict[str, Exception] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)
    traces: list[tuple[str, str]] = field(default_factory=list)
    """(law, what it left changed in the process), kept by the frame."""

    @cached_property
    def card(self) -> Card:
        """Its card."""
        return discovery.card(self.name)

    @cached_property
    def plugin_class(self) -> type[Plugin]:
        """Its class, imported."""
        return discovery.load_class(self.card)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The card's kinds, or those of the hooks that it answers."""
        return self.card.kinds or kinds_of_hooks(self.plugin_class)

    def module(self, name: str) -> ModuleType | None:
        """A module of its package (functional, reference, reproduce ...); None: it has none."""
        package = _package(self.card)
        if not package or importlib.util.find_spec(f"{package}.{name}") is None:
            return None
        return plugin_module(self.name, name)

    def has_method(self, file: str) -> bool:
        """Whether a source file holds the plugin's method: in its package any but the wiring, plugin.py."""
        module = sys.modules[self.plugin_class.__module__]
        home = Path(module.__file__ or "")
        if self.card.folder is None or len(list(self.card.folder.glob("*.py"))) <= 2:
            return Path(file) == home
        return Path(file).is_relative_to(self.card.folder) and Path(file) != home

    # --- the settings of its runs ---------------------------------------------------------------------------

    def data(self, form: str) -> Path:
        """A file of rows of a form."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{form}.jsonl"
        if not file.exists():
            file.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows(form)), encoding="utf-8")
        return file

    @cached_property
    def settings(self) -> dict[str, str]:
        """Settings of the kit's runs of this plugin: small ones, data that it takes, the card's own."""
        own = {key: _word(value) for key, value in self.card.conformance.items()}
        if "model.name" in own:  # the same key, written out
            own["model"] = own.pop("model.name")
        told = {**SMALL, **own}
        data = [key for key in own if key == "data" or key.startswith("data.")]
        if not set(data) <= set(ANY_DATA) or "datamodule" in self.kinds:
            return told
        for form in FORMS:
            settings = {**told, "data": str(self.data(form))}
            try:
                self._plan(settings, [self.name])
            except ConflictError as error:
                if error.code == "LOSS-DATA":
                    continue
                raise
            return settings
        return told

    @property
    def neutral(self) -> dict[str, str] | None:
        """Settings, as ``NAME.key``, at which it equals its baseline; None: it states none."""
        told = self.card.neutral.get("settings")
        if told is None and self.plugin_class.neutral is not None:
            told = self.plugin_class.neutral
        return None if told is None else {f"{self.name}.{key}": _word(value) for key, value in told.items()}

    @property
    def baseline(self) -> list[str]:
        """The plugins of the baseline: the one that the card names, if that is a plugin, else none."""
        named = self.card.neutral.get("baseline", "")
        return [named] if named in discovery.cards() else []

    # --- runs -----------------------------------------------------------------------------------------------

    def words(
        self, changed: Mapping[str, str] | None = None, *, plugins: Sequence[str] | None = None
    ) -> list[str]:
        """The kit's settings and ``changed`` as on the command line, for these plugins (None: this one)."""
        chosen = [self.name] if plugins is None else plugins
        return self._words(self.settings | dict(changed or {}), chosen)

    def _words(self, settings: Mapping[str, str], plugins: Sequence[str]) -> list[str]:
        """Overrides; keys of plugins that are off are left out."""
        installed = set(discovery.cards())
        return [
            f"{key}={value}"
            for key, value in settings.items()
            if key.partition(".")[0] not in installed or key.partition(".")[0] in plugins
        ]

    def _plan(self, settings: Mapping[str, str], plugins: Sequence[str]) -> Plan:
        import llmfw

        return llmfw.plan(*self._words(settings, plugins), plugins=plugins)

    def plan(self, changed: Mapping[str, str] | None = None, *, plugins: Sequence[str] | None = None) -> Plan:
        """The plan of a run of the plugin (or of ``plugins``) with the kit's settings and ``changed``."""
        return self._plan(self.settings | dict(changed or {}), [self.name] if plugins is None else plugins)

    def fit(
        self,
        changed: Mapping[str, str] | None = None,
        *,
        plugins: Sequence[str] | None = None,
        again: int = 0,
        stopped_at: str = "",
    ) -> FitResult:
        """A run of the plugin (or of ``plugins``) with the kit's settings and ``changed``; a run with equal
        arguments is the same one, ``again`` tells repetitions apart.

        ``stopped_at``: a failpoint and its count, ``NAME:COUNT``; the run crashes there and is resumed.

        Raises:
            NotApplicable: as of ``trained_well``.
        """
        self.trained_well()
        return self._fit(dict(changed or {}), [self.name] if plugins is None else plugins, again, stopped_at)

    def trained_well(self) -> None:
        """Raise NotApplicable where the plugin doesn't train, or a run with the kit's settings fails."""
        if "fit" not in self.card.verbs:
            raise NotApplicable("`fit` isn't among the verbs of its card")
        if self.failure is not None:
            raise NotApplicable("a small run of it doesn't end well (law `runs`)")

    @cached_property
    def failure(self) -> Exception | None:
        """What goes wrong in a run of the plugin with the kit's settings; None: it ends well."""
        try:
            if "sampler" in self.kinds and not asked(self).ended:
                return Violation("its sampler doesn't end")
            self._fit({}, [self.name])
        except Exception as error:
            return error
        return None

    def _fit(
        self, changed: Mapping[str, str], plugins: Sequence[str], again: int = 0, stopped_at: str = ""
    ) -> FitResult:
        import llmfw
        from llmfw.core.failpoints import Failpoint, armed

        words, chosen = self._words(self.settings | dict(changed), plugins), list(plugins)
        key = hashlib.sha256(json.dumps([words, chosen, again, stopped_at]).encode()).hexdigest()[:16]
        words.append(f"run.dir={self.folder / 'runs' / key}")
        if key in self._runs:
            return self._runs[key]
        if key in self._failed:  # its folder holds what is left of it: a second try would only say that
            raise self._failed[key]
        try:
            if stopped_at:
                with suppress(Failpoint), armed(f"{stopped_at}:raise"):
                    llmfw.fit(*words, plugins=chosen)
                    raise AssertionError(f"the run never came to {stopped_at}")
            self._runs[key] = llmfw.fit(*words, plugins=chosen, resume="auto" if stopped_at else "never")
        except Exception as error:
            self._failed[key] = error
            raise
        return self._runs[key]

    def assembled(
        self,
        changed: Mapping[str, str] | None = None,
        *,
        plugins: Sequence[str] | None = None,
        verb: Verb = "fit",
    ) -> Assembled:
        """Everything that is decided before weights are read, for laws that look inside a run."""
        from llmfw.core.assemble import assemble, settle

        chosen = [self.name] if plugins is None else list(plugins)
        words = self._words(self.settings | dict(changed or {}), chosen)
        return assemble(settle(plugins=tuple(chosen), overrides=tuple(words)), verb)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returns, made at the first call with this name: several laws look at one thing."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def generate(
        self,
        prompts: Sequence[Any],
        changed: Mapping[str, str] | None = None,
        *,
        plugins: Sequence[str] | None = None,
        **sampling: Any,
    ) -> Any:
        """``llmfw.generate`` with the plugin (or ``plugins``) and the kit's settings."""
        import llmfw

        chosen = [self.name] if plugins is None else list(plugins)
        words = self._words(self.settings | dict(changed or {}), chosen)
        return llmfw.generate(prompts, *words, plugins=chosen, **sampling)


_HOOKS = {
    "loss": "llmfw_loss",
    "sampler": "llmfw_sampler",
    "datamodule": "llmfw_datamodule",
    "transform": "llmfw_dataset_transforms",
    "surgery": "llmfw_surgeries",
    "kv_cache": "llmfw_kv_cache",
    "decoder": "llmfw_decoder",
    "service": "llmfw_services",
}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def kinds_of_hooks(plugin_class: type[Plugin]) -> tuple[str, ...]:
    """The kinds whose hooks a plugin answers."""
    return tuple(kind for kind, hook in _HOOKS.items() if hasattr(plugin_class, hook))


def plugin_module(name: str, module: str) -> ModuleType:
    """A module of an installed plugin's package, e.g. ``plugin_module("mine", "functional")``.

    It's found through the entry point: a test stays right when the plugin moves to another distribution.

    Raises:
        ModuleNotFoundError: it has no such module.
    """
    package = _package(discovery.card(name))
    if not package:
        raise ModuleNotFoundError(f"plugin {name!r} is one file, and has no module {module!r} beside it")
    return importlib.import_module(f"{package}.{module}")


def _package(card: Card) -> str:
    """The package that holds the plugin's module; empty: a one-file plugin."""
    return card.value.partition(":")[0].rpartition(".")[0]
