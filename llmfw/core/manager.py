"""Registration and calling of plugins: user order, one owner per seam, errors that name the plugin."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NamedTuple

import pluggy

from llmfw.core import hookspecs
from llmfw.core.errors import ConflictError, PluginError
from llmfw.core.guard import Owner, Place, owner_named, place_of_function, place_of_module, watch
from llmfw.core.hookspecs import CARDINALITY, PROJECT

DEFAULTS = "defaults"


class Answer(NamedTuple):
    """One plugin's answer to a hook (a single record of a plural one)."""

    plugin: str
    value: Any


class PluginManager(pluggy.PluginManager):
    """One run's plugins. ``origins`` maps a plugin's name to "distribution version" for messages."""

    def __init__(
        self,
        plugins: Sequence[tuple[str, object]],
        defaults: object,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(PROJECT)
        self.origins = dict(origins or {})
        self.add_hookspecs(hookspecs)
        for name, plugin in plugins:
            with watch(self.owner(name), "its hooks", place=place_of_module(type(plugin).__module__)):
                self._reject_misspelt_hooks(name, plugin)
        for name, plugin in reversed([(DEFAULTS, defaults), *plugins]):
            with watch(self.owner(name), "its registration", place=place_of_module(type(plugin).__module__)):
                self._register(plugin, name)
        self._reject_private_ordering()
        for name, plugin in plugins:
            if not self.get_hookcallers(plugin):
                file, line = place_of_module(type(plugin).__module__)
                raise PluginError(
                    "PLUGIN-SILENT",
                    f"{self.title(name)} answers no hook",
                    mend="mark a method with @llmfw.hookimpl",
                    file=file,
                    line=line,
                )

    def owner(self, name: str) -> Owner:
        """A plugin with its files, as far as they're known."""
        return replace(owner_named(name), origin=self.origins.get(name, ""))

    def title(self, name: str) -> str:
        """A plugin as messages name it."""
        return self.owner(name).title

    def place(self, name: str, hook: str) -> Place:
        """File and line of a plugin's answer to a hook."""
        found = [one for one in getattr(self.hook, hook).get_hookimpls() if one.plugin_name == name]
        return place_of_function(found[0].function) if found else (None, None)

    def _register(self, plugin: object, name: str) -> None:
        try:
            self.register(plugin, name)
        except pluggy.PluginValidationError as error:
            raise PluginError(
                "PLUGIN-HOOK",
                f"{self.title(name)} can't be registered: {error}",
                mend="mend its hooks (docs/hooks.md)",
            ) from error

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        # pluggy reads every attribute, properties included; only hook names are ours to touch
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(PROJECT + "_") else None

    def _implementations(self) -> Iterator[tuple[str, Any]]:
        for name, caller in vars(self.hook).items():
            if isinstance(caller, pluggy.HookCaller):
                for implementation in caller.get_hookimpls():
                    yield name, implementation

    def _reject_private_ordering(self) -> None:
        for hook, implementation in self._implementations():
            used = [
                word
                for word in ("tryfirst", "trylast", "wrapper", "hookwrapper")
                if getattr(implementation, word)
            ]
            if used:
                file, line = place_of_function(implementation.function)
                raise PluginError(
                    "PLUGIN-ORDER",
                    f"{self.title(implementation.plugin_name)} sets {used[0]} on {hook}",
                    mend="the order belongs to the user's plugin list: remove it",
                    file=file,
                    line=line,
                )

    def _reject_misspelt_hooks(self, name: str, plugin: object) -> None:
        """Hooks of other names or with other arguments, and methods that nobody would call."""
        for hook, method in _methods(type(plugin)).items():
            marked = hasattr(method, f"{PROJECT}_impl")
            if not marked and not hook.startswith(f"{PROJECT}_"):
                continue
            what, mend = None, ""
            if hook not in CARDINALITY:
                near = get_close_matches(hook, CARDINALITY, n=1)
                what = f"answers {hook}, which isn't a hook"
                mend = f"did you mean {near[0]}?" if near else "docs/hooks.md lists them"
            elif not marked:
                what = f"has {hook} without a mark: it would never be called"
                mend = "mark it with @llmfw.hookimpl"
            elif unknown := _unknown_argument(hook, method):
                known = _arguments(getattr(hookspecs, hook))
                near = get_close_matches(unknown, known, n=1)
                what = f"answers {hook} with an argument {unknown!r}, which the hook doesn't have"
                hint = f"did you mean {near[0]}? " if near else ""
                mend = f"{hint}it has {', '.join(known) or 'none'}"
            if what is not None:
                file, line = place_of_function(method)
                raise PluginError(
                    "PLUGIN-HOOK", f"{self.title(name)} {what}", mend=mend, file=file, line=line
                )

    def answers(self, hook_name: str, **arguments: Any) -> Iterator[Answer]:
        """Each plugin's answer, in the order in which the user listed the plugins; defaults come first."""
        for implementation in reversed(getattr(self.hook, hook_name).get_hookimpls()):
            name = implementation.plugin_name
            function = implementation.function
            with nullcontext() if name == DEFAULTS else watch(self.owner(name), hook_name, function):
                value = function(*(arguments[argument] for argument in implementation.argnames))
            if value is not None:
                yield Answer(name, value)

    def one(self, hook_name: str, **arguments: Any) -> Answer | None:
        """The single answer of a singular hook, the default's only where no plugin answers; two owners are a
        conflict.
        """
        assert CARDINALITY[hook_name] == "one"
        answers = list(self.answers(hook_name, **arguments))
        chosen = [answer for answer in answers if answer.plugin != DEFAULTS] or answers
        if len(chosen) > 1:
            owners = " and ".join(self.title(answer.plugin) for answer in chosen)
            raise ConflictError(
                "TWO-OWNERS",
                f"{hook_name} has {len(chosen)} owners: {owners}",
                mend="switch one of them off (--no-plugin NAME)",
                key="plugins",
            )
        return chosen[0] if chosen else None

    def many(self, hook_name: str, **arguments: Any) -> list[Answer]:
        """All records of a plural hook, flattened, in user order; two records of one name are a conflict."""
        assert CARDINALITY[hook_name] == "many"
        found: list[Answer] = []
        for answer in self.answers(hook_name, **arguments):
            if isinstance(answer.value, (str, bytes)) or not isinstance(answer.value, Sequence):
                file, line = self.place(answer.plugin, hook_name)
                raise PluginError(
                    "PLUGIN-RECORD",
                    f"{self.title(answer.plugin)} returned {type(answer.value).__name__} from {hook_name}",
                    mend="return a list of records",
                    file=file,
                    line=line,
                )
            found.extend(Answer(answer.plugin, record) for record in answer.value)
        owner: dict[Any, str] = {}
        for name, record in found:
            key = (getattr(record, "protocol", None), getattr(record, "name", None))
            if key[1] is None:
                continue
            if key in owner:
                raise ConflictError(
                    "TWO-RECORDS",
                    f"{hook_name}: {self.title(owner[key])} and {self.title(name)} both bring a record "
                    f"named {key[1]!r}",
                    mend="switch one of them off (--no-plugin NAME)",
                    key="plugins",
                )
            owner[key] = name
        return found


def _methods(kind: type) -> dict[str, Any]:
    """Functions of a class and its parents by name, the nearest first; no property is evaluated."""
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        for name, value in vars(parent).items():
            method = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if name not in found and inspect.isfunction(method):
                found[name] = method
    return found


def _arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def _unknown_argument(hook: str, method: Any) -> str | None:
    """The first argument without a default that the hook doesn't give."""
    known = _arguments(getattr(hookspecs, hook))
    for name, parameter in list(inspect.signature(method).parameters.items()):
        plain = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        needed = parameter.default is parameter.empty and (plain or parameter.kind is parameter.KEYWORD_ONLY)
        if needed and name not in ("self", "cls", *known):
            return name
    return None
