"""Rounds of a sampler: ask for records, train on them, evaluate.

``run_rounds`` carries them out, ``Ledger`` counts and remembers what was generated, ``spread`` says how the
records lie over problems and levels, ``summarise`` and ``summaries`` what each round cost and brought.
"""

from __future__ import annotations

from llmfw.core.rounds.carry_out import ROUND as ROUND
from llmfw.core.rounds.carry_out import RoundState as RoundState
from llmfw.core.rounds.carry_out import run_rounds as run_rounds
from llmfw.core.rounds.ledger import Ledger as Ledger
from llmfw.core.rounds.summary import summaries as summaries
from llmfw.core.rounds.summary import summarise as summarise

__all__ = ["ROUND", "Ledger", "RoundState", "run_rounds", "spread", "summaries", "summarise"]
