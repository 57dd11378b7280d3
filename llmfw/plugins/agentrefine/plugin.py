"""Refinement tuning of agents (arXiv 2501.01702): wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Command, Evaluation, Plugin, RolloutSampler, hookimpl


class AgentRefine(Plugin):
    """Trajectories with errors and their repairs, trained without the errors; episodes show the effect."""

    @dataclass
    class Config:
        """Settings ``agentrefine.*``."""

        arm: str = field(
            default="full",
            metadata={
                "help": "what is trained: full: all but error turns; no_refinement_loss: nor the turn after "
                "an error; no_refinement_data: errors are taken out of the text; erroneous_loss: every turn",
                "choices": ("full", "no_refinement_loss", "no_refinement_data", "erroneous_loss"),
            },
        )
        generator: str = field(
            default="",
            metadata={"help": "model (models.NAME) that writes trajectories; empty: the data's own"},
        )
        personas: str = field(
            default="",
            metadata={
                "help": "file of personas, a line each, for which the generator writes scripts; empty: the "
                "data's scripts"
            },
        )
        attempts: int = field(
            default=5, metadata={"help": "tries of the generator at a script or trajectory", "minimum": 1}
        )
        least_errors: int = field(
            default=2, metadata={"help": "repaired errors that a written trajectory needs", "minimum": 0}
        )
        environments: str = field(
            default="held_in,held_out,perturbed,forced",
            metadata={
                "help": "what is played after training, by comma: held_in, held_out, perturbed, forced, "
                "scienceworld:TASK, babyai:LEVEL; empty: nothing"
            },
        )
        episodes: int = field(default=16, metadata={"help": "episodes of each of them", "minimum": 1})
        max_turns: int = field(default=15, metadata={"help": "actions of an episode at most", "minimum": 1})
        max_retries: int = field(
            default=2, metadata={"help": "replies without an action that an episode survives", "minimum": 0}
        )

    config: Config

    @hookimpl
    def llmfw_datamodule(self, run: Any, tokenizer: Any) -> Any | None:
        """The planner's trajectories where ``data.name`` is scripted-world; other data are the core's."""
        from .rows import NAME, ScriptedWorld, options_of

        data = run.config.data
        return ScriptedWorld(options_of(data.options)) if data.name == NAME else None

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """One round, whose records have the arm's labels."""
        from .sampler import refinement

        return RolloutSampler(name="agentrefine", next=refinement(self.config, run))

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Episodes that the trained policy plays."""
        from .evaluations import episodes

        return episodes(self.config, run)

    @hookimpl
    def llmfw_commands(self) -> Sequence[Command]:
        """``llmfw trajectories ...``"""

        def factory() -> Any:
            from .commands import group

            return group

        return [Command(name="trajectories", help="Build, check and convert trajectories.", factory=factory)]
