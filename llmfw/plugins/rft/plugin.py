"""Rejection-sampling fine-tuning and learning from rewards: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmfw import Evaluation, Loss, Plugin, RolloutSampler, hookimpl
from llmfw.callbacks.problems import solved
from llmfw.core.generation import SelfTrainingConfig


class Rft(Plugin):
    """Rounds: sample answers to problems, keep the right ones (or weigh all of them), train."""

    @dataclass
    class Config(SelfTrainingConfig):
        """Settings ``rft.*``."""

        objective: str = field(
            default="sft",
            metadata={
                "help": "sft: train the right answers; reinforce: all, by reward less the mean; "
                "group_relative: all, by reward less their problem's mean, over its deviation",
                "choices": ("sft", "reinforce", "group_relative"),
            },
        )
        reward: str = field(
            default="",
            metadata={"help": "service of protocol Reward; empty: 1 and 0 from the verifier. Not for sft"},
        )
        clip: float = field(
            default=0.2,
            metadata={"help": "bound of the ratio to the sampling policy. Not for sft", "minimum": 1e-6},
        )
        kl: float = field(
            default=0.0, metadata={"help": "pull to the reference model. Not for sft", "minimum": 0.0}
        )

    config: Config

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """Rounds until ``rft.rounds`` of them are trained."""
        from .sampler import rejection_sampling

        c = self.config
        if c.objective != "sft" and c.reward:
            run.expect_service("Reward", c.reward, key="rft.reward")
        kind: Literal["text", "scored"] = "text" if c.objective == "sft" else "scored"
        return RolloutSampler(name="rft", next=rejection_sampling(c, run), batch_kind=kind)

    @hookimpl
    def llmfw_loss(self, run: Any, tokenizer: Any, model_config: Any) -> Loss | None:
        """Cross entropy for sft; otherwise the clipped policy gradient."""
        c = self.config
        if c.objective == "sft":
            return None
        from llmfw.losses.policy_gradient import policy_gradient_loss

        return Loss(
            name=f"rft.{c.objective}",
            call=policy_gradient_loss(clip=c.clip, beta=c.kl),
            batch_kind="scored",
            unit="tokens",
            needs_reference=c.kl > 0,
        )

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Held-out problems solved, by level."""
        return solved(self.config, run)
