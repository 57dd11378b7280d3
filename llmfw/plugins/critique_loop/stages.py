"""Which rounds stand before the loop, and whose problems are whose."""

from __future__ import annotations

from llmfw import Row
from llmfw.core.data import stable_hash

from .critics import NONE, TRAINED
from .settings import CritiqueLoopConfig

GOLD, ACTOR, CRITIC = "gold", "actor", "critic"


def before(config: CritiqueLoopConfig) -> list[str]:
    """The rounds before the loop, in order."""
    found = [GOLD] if config.gold else []
    if config.critic != NONE and config.feedback:
        found.append(ACTOR)
    return [*found, CRITIC] if config.critic == TRAINED else found


def parted(config: CritiqueLoopConfig) -> bool:
    """Whether critic and loop have problems of their own."""
    return config.critic == TRAINED and config.critic_share > 0


def for_critic(config: CritiqueLoopConfig, row: Row) -> bool:
    """Whether a problem is the critic's alone: with ``critic_share`` it's drawn by the hash of its id."""
    if not parted(config):
        return False
    return stable_hash("critic's problem", str(row["id"])) % 10_000 < config.critic_share * 10_000
