"""Registration and calling of plugins: user order, one owner per seam, errors that name the plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pluggy

from llmfw.core import hookspecs
from llmfw.core.errors import ConflictError, LlmfwError, PluginError
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
        for name, plugin in reversed([(DEFAULTS, defaults), *plugins]):
            try:
                self.register(plugin, name)
            except (ValueError, pluggy.PluginValidationError) as error:
                raise PluginError(
                    "PLUGIN-HOOK",
                    f"{self.title(name)} can't be registered: {error}",
                    mend="mend its hooks (docs/hooks.md)",
                ) from error
        self._reject_private_ordering()
        self._reject_misspelt_hooks()
        for name, plugin in plugins:
            if not self.get_hookcallers(plugin):
                raise PluginError(
                    "PLUGIN-SILENT",
                    f"{self.title(name)} answers no hook",
                    mend="mark a method with @llmfw.hookimpl",
                )

    def title(self, name: str) -> str:
        """A plugin as messages name it."""
        origin = self.origins.get(name)
        return f"plugin {name!r} ({origin})" if origin else f"plugin {name!r}"

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
                raise PluginError(
                    "PLUGIN-ORDER",
                    f"{self.title(implementation.plugin_name)} sets {used[0]} on {hook}",
                    mend="the order belongs to the user's plugin list: remove it",
                )

    def _reject_misspelt_hooks(self) -> None:
        from difflib import get_close_matches

        for hook, implementation in self._implementations():
            if hook not in CARDINALITY:
                near = get_close_matches(hook, CARDINALITY, n=1)
                hint = f"did you mean {near[0]}?" if near else "docs/hooks.md lists them"
                raise PluginError(
                    "PLUGIN-HOOK",
                    f"{self.title(implementation.plugin_name)} answers {hook}, which isn't a hook",
                    mend=hint,
                )

    def answers(self, hook_name: str, **arguments: Any) -> Iterator[Answer]:
        """Each plugin's answer, in the order in which the user listed the plugins; defaults come first."""
        for implementation in reversed(getattr(self.hook, hook_name).get_hookimpls()):
            name = implementation.plugin_name
            try:
                value = implementation.function(
                    *(arguments[argument] for argument in implementation.argnames)
                )
            except LlmfwError as error:
                error.add_note(f"raised by {self.title(name)} in {hook_name}")
                raise
            except (Exception, SystemExit) as error:
                from llmfw.core.discovery import place_of

                file, line = place_of(error)
                raise PluginError(
                    "PLUGIN-RAISED",
                    f"{self.title(name)} failed in {hook_name}: {type(error).__name__}: {error}",
                    mend="mend the plugin, or leave it out",
                    file=file,
                    line=line,
                ) from error
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
                raise PluginError(
                    "PLUGIN-RECORD",
                    f"{self.title(answer.plugin)} returned {type(answer.value).__name__} from {hook_name}",
                    mend="return a list of records",
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
