"""A sandbox for programs in many languages (MPLSandbox, arXiv 2410.23074): wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Command, Plugin, Service, hookimpl


class MplSandbox(Plugin):
    """Offers a ``CodeExecutor``, a ``Reward`` and the whole ``Sandbox``, and the verb ``llmfw sandbox``."""

    @dataclass
    class Config:
        """Settings ``mplsandbox.*``; ``sandbox.level`` is the core's."""

        jobs: int = field(
            default=0, metadata={"help": "programs at once; 0: the processors less one", "minimum": 0}
        )
        binds: list[str] = field(
            default_factory=list,
            metadata={"help": "folders of this machine that programs may read, besides /usr"},
        )
        unsafe: str = field(
            default="",
            metadata={"help": "the phrase that lets sandbox.level=unsafe run programs unconfined"},
        )
        reward: str = field(
            default="levels",
            metadata={
                "help": "reward of a program: its worst test's level, pass or fail, or by the share passed",
                "choices": ("levels", "binary", "interpolated"),
            },
        )

    config: Config

    @hookimpl
    def llmfw_services(self, run: Any) -> Sequence[Service]:
        """The executor that verifiers ask for, rewards of rows with tests, and the sandbox under both."""
        level, config = run.config.sandbox.level, self.config

        def sandbox() -> Any:
            from .executor import Sandbox

            return Sandbox(level, jobs=config.jobs or None, binds=config.binds, phrase=config.unsafe)

        def executor() -> Any:
            from .executor import Executor

            return Executor(sandbox())

        def rewards() -> Any:
            from .row_rewards import RowRewards

            return RowRewards(sandbox(), config.reward)  # type: ignore[arg-type]  # one of the choices

        return [
            Service(protocol="CodeExecutor", name="mplsandbox", factory=executor),
            Service(protocol="Reward", name="mplsandbox", factory=rewards),
            Service(protocol="Sandbox", name="mplsandbox", factory=sandbox),
        ]

    @hookimpl
    def llmfw_commands(self) -> Sequence[Command]:
        """``llmfw sandbox ...``"""

        def factory() -> Any:
            from .commands import group

            return group

        text = "Run, check and analyse untrusted programs in many languages."
        return [Command(name="sandbox", help=text, factory=factory)]
