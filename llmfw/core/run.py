"""What hooks are given: the run's read-only config, its folder, and the services and models that plugins
share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmfw.core.costs import Spent
from llmfw.core.errors import ConflictError, PluginError, UsageError
from llmfw.core.manager import Answer
from llmfw.core.records import Policy, Row
from llmfw.core.schema import Root, seal
from llmfw.core.verifiers import BUILT_IN, NEEDED, build, checked, names


class Run:
    """One run, as plugins see it. Everything heavy is built on first use and shared between plugins."""

    def __init__(self, config: Root, folder: Path, name: str) -> None:
        seal(config)
        self.config = config
        self.dir = folder
        self.name = name
        self._services: dict[tuple[str, str], Answer] = {}
        self._built: dict[tuple[str, str], Any] = {}
        self._policies: dict[str, Policy] = {}
        self._open: Callable[[str], Policy] | None = None
        self._rows: dict[str, list[Row]] = {}
        self._held_out: Sequence[Any] = ()
        self._identities: dict[str, str] = {}
        self._spent = Spent()

    @property
    def seed(self) -> int:
        """Seed of everything random in the run."""
        return self.config.seed

    def rows(self, split: str = "train") -> list[Row]:
        """Rows of a split (train, validation) after the row transforms; known once the data is prepared."""
        if split not in self._rows:
            raise PluginError(
                "RUN-ROWS",
                f"rows of {split!r} were asked for before the data was prepared",
                mend="ask inside a record's function, not inside a hook",
            )
        return self._rows[split]

    def service(self, protocol: str, name: str | None = None) -> Any:
        """The service of a protocol; ``name`` chooses where several plugins offer one, or one of the core's
        own (``Verifier`` and ``Reward``). A verifier judges every batch together with canaries.
        """
        key = self._named(protocol, name, None)
        if key not in self._built:
            if key in self._services:
                answer = self._services[key]
                with self._spent.during(answer.plugin, f"service/{protocol}/{key[1]}"):
                    self._built[key] = checked(*key, answer.value.factory())
            else:
                self._built[key] = build(*key, self.service)
        return self._built[key]

    def expect_service(self, protocol: str, name: str | None = None, *, key: str | None = None) -> None:
        """Say inside a hook that its record will ask for this service: one that nobody offers is refused
        before anything is loaded, not hours later. ``key`` is the setting that names it, for the message.

        Raises:
            UsageError: SERVICE, no plugin of this run offers it, or what it needs itself.
            ConflictError: SERVICE, several do and ``name`` doesn't choose.
        """
        found = self._named(protocol, name, key)
        if found in NEEDED and found not in self._services:
            self._named(NEEDED[found], None, key, f"{protocol} {name!r} needs one")

    def _named(self, protocol: str, name: str | None, key: str | None, why: str = "") -> tuple[str, str]:
        """(protocol, name) of the one service that is meant."""
        offered = [(own, called) for own, called in self._services if own == protocol]
        if name is not None:
            offered = [(protocol, name)] if (protocol, name) in {*offered, *BUILT_IN} else []
        if not offered:
            raise self._missing(protocol, name, key, why)
        if len(offered) > 1:
            raise ConflictError(
                "SERVICE",
                f"{protocol} is offered under {len(offered)} names: {', '.join(one[1] for one in offered)}",
                mend="ask for one by name",
                key=key,
            )
        return offered[0]

    def _missing(self, protocol: str, name: str | None, key: str | None, why: str) -> UsageError:
        """What to say where nobody offers a service."""
        own = names(protocol)
        known = {*(one[0] for one in self._services), *(one[0] for one in BUILT_IN)}
        near = get_close_matches(protocol, sorted(known - {protocol}), n=1)
        if own:
            hint = f"ask for one of the core's by name: {', '.join(own)}"
        else:
            hint = (
                f"did you mean {near[0]}?"
                if near
                else "switch on a plugin that offers it (llmfw plugins list)"
            )
        called = f"{protocol} named {name!r}" if name else protocol
        return UsageError(
            "SERVICE",
            f"no plugin of this run offers {called}{f', and {why}' if why else ''}",
            mend=hint,
            key=key,
        )

    def policy(self, name: str) -> Policy:
        """An auxiliary model (``models.NAME`` of the config, or a round's ``keep_as``): loaded on first use,
        frozen, shared.
        """
        if name not in self._policies:
            if self._open is None:
                raise PluginError(
                    "RUN-POLICY",
                    f"model {name!r} was asked for before the run began",
                    mend="ask inside a record's function, not inside a hook",
                )
            self._policies[name] = self._open(name)
        return self._policies[name]

    def expect_policy(self, name: str, *, setting: str | None = None) -> None:
        """Say inside a hook that its record will ask for ``models.NAME``: one that the run's settings don't
        name is refused before anything is loaded. ``setting`` is the one that names it, for the message.

        Raises:
            UsageError: NO-MODEL.
        """
        if name not in self.config.models:
            raise UsageError(
                "NO-MODEL",
                f"no auxiliary model {name!r} ({', '.join(self.config.models) or 'none are named'})",
                mend=f"set models.{name}.name (or script, endpoint, fit)"
                + (f", or {setting} to another" if setting else ""),
                key=setting or f"models.{name}",
            )

    def identity(self, name: str) -> str:
        """What an auxiliary model's answers depend on (a hash, or an endpoint's URL and model): a part of
        every key under which they are cached.
        """
        if name not in self._identities:
            raise PluginError(
                "RUN-POLICY",
                f"there is no auxiliary model {name!r} yet",
                mend=f"set models.{name}, or ask once a round has kept it",
            )
        return self._identities[name]

    def unload(self, name: str) -> None:
        """Forget an auxiliary model; the next ``policy(name)`` loads it again."""
        self._policies.pop(name, None)

    # The core's side: hooks never call these.

    def _offer(self, services: Sequence[Answer]) -> None:
        for answer in services:
            if (answer.value.protocol, answer.value.name) in BUILT_IN:
                raise ConflictError(
                    "SERVICE",
                    f"plugin {answer.plugin} offers {answer.value.protocol} {answer.value.name!r}, which is "
                    "the core's own",
                    mend="give the plugin's another name",
                    key="plugins",
                )
        self._services = {(answer.value.protocol, answer.value.name): answer for answer in services}

    def _provide(
        self,
        *,
        rows: dict[str, list[Row]] | None = None,
        held_out: Sequence[Any] = (),
        open_policy: Callable[[str], Policy] | None = None,
    ) -> None:
        if rows is not None:
            self._rows, self._held_out = rows, held_out
        if open_policy is not None:
            self._open = open_policy

    def _know(self, identities: Mapping[str, str]) -> None:
        self._identities |= identities

    def _keep(self, name: str, policy: Policy, identity: str) -> None:
        self._policies[name] = policy
        self._identities[name] = identity
