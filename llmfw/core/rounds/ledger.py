"""The account of a run's sampling: whatever a sampler has generated goes through it, is counted by purpose,
remembered answer by answer, shown, and held to a budget.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmfw.core.errors import ResourceError
from llmfw.core.evaluation.progress import Teller
from llmfw.core.failpoints import failpoint
from llmfw.core.records import Completion, Policy
from llmfw.core.rounds.memory import Memory
from llmfw.core.say import say
from llmfw.core.tracking.files import write_json

_COUNTED = ("prompts", "samples", "tokens", "seconds")


class BudgetSpent(ResourceError):
    """``generation.budget`` is used up: no round can be sampled any more."""


class Ledger:
    """What sampling cost, by purpose: prompts, samples, tokens, seconds. Written by rename after every
    change.

    A round that is sampled again counts anew, what it remembers included; so nothing is counted twice.

    Args:
        folder: of the run: ``ledger.json`` holds the sums over rounds, ``rounds/NNN/ledger.json`` each one's.
        budget: tokens that may be generated in all rounds together; None: as many as are asked for.
        show: tell on standard error how far sampling is.
    """

    def __init__(self, folder: Path, *, budget: int | None = None, show: bool = False) -> None:
        self._folder, self._budget, self._show = folder, budget, show
        self._rounds: dict[int, dict[str, dict[str, float]]] = {}
        for file in sorted(folder.glob("rounds/*/ledger.json")):
            self._rounds[int(file.parent.name)] = json.loads(file.read_text(encoding="utf-8"))
        self._index = 0
        self._memory: Memory | None = None

    @contextmanager
    def sampling(self, index: int) -> Iterator[None]:
        """The block is the sampling of a round: what is generated in it belongs to that round."""
        self._index = index
        self._rounds[index] = {}
        self._memory = Memory(place_of(self._folder, index) / "sampling.jsonl")
        try:
            yield
            if unasked := self._memory.unasked():
                say(
                    f"warning[SAMPLING-CHANGED] round {index}: {unasked} answers from before the "
                    "interruption weren't asked for again: the sampler, its settings or its data have changed"
                )
        finally:
            self._memory.close()
            self._memory = None

    def generate(
        self, policy: Policy, prompts: Sequence[Any], *, purpose: str, **sampling: Any
    ) -> list[Completion]:
        """``policy.generate``, counted and remembered: after a kill only the answers that are missing are
        generated.

        Args:
            policy: the round's, or an auxiliary model (``run.policy(NAME)``).
            purpose: what the answers are for, a word: the ledger's line.
            sampling: as of ``Policy.generate``; ``ids`` names the prompts that random numbers are drawn for.

        Raises:
            BudgetSpent: ``generation.budget`` is used up.
        """
        count = len(prompts) * int(sampling.get("samples", 1))
        if not count:
            return []
        call = self._remembered().call(_key(purpose, prompts, sampling))
        teller = Teller(f"round {self._index}, {purpose}", count, show=self._show)
        teller.add(len(call.known))
        last = time.monotonic()

        def done(index: int, answer: Completion) -> None:
            nonlocal last
            now = time.monotonic()
            call.add(index, answer, now - last)
            last = now
            teller.add(1)
            failpoint("loop.mid_generate")
            hold()

        def hold() -> None:
            running = sum(one.tokens for one in call.known.values())
            self._hold(running, more=len(call.known) < count)

        hold()
        try:
            if len(call.known) == count:
                answers = [call.known[index] for index in range(count)]
            else:
                answers = policy.generate(prompts, known=dict(call.known), done=done, **sampling)
        finally:
            teller.close()
            tokens = sum(one.tokens for one in call.known.values())
            asked = {index // max(1, count // len(prompts)) for index in call.known}
            self.count(
                purpose, prompts=len(asked), samples=len(call.known), tokens=tokens, seconds=call.seconds
            )
        failpoint("loop.after_generate_before_score")
        return answers

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made once in the round and remembered: a verdict that takes long, the end of
        a game. It must be json. ``key`` says what it depends on; asked again it's the next of that key.
        """
        memory = self._remembered()
        name, known, value = memory.value(key)
        if not known:
            # as it comes back after a kill: tuples are lists, keys are strings
            value = json.loads(json.dumps(make()))
            memory.keep(name, value)
        return value

    def count(
        self, purpose: str, *, prompts: int = 0, samples: int = 0, tokens: int = 0, seconds: float = 0.0
    ) -> None:
        """Add to a purpose's counts of this round what ``generate`` doesn't see."""
        counts = self._rounds.setdefault(self._index, {})
        row = counts.setdefault(purpose, dict.fromkeys(_COUNTED, 0))
        for name, amount in zip(_COUNTED, (prompts, samples, tokens, seconds), strict=True):
            row[name] += amount
        place = place_of(self._folder, self._index)
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / "ledger.json", counts)
        write_json(self._folder / "ledger.json", self.by_purpose())

    def of(self, purpose: str) -> dict[str, float]:
        """The counts of one purpose, all rounds together."""
        return self.by_purpose().get(purpose, dict.fromkeys(_COUNTED, 0))

    def by_purpose(self, index: int | None = None) -> dict[str, dict[str, float]]:
        """Purpose -> counts, of one round or (None) of all together."""
        found: dict[str, dict[str, float]] = {}
        for number, counts in sorted(self._rounds.items()):
            for purpose, row in counts.items() if index in (None, number) else ():
                sums = found.setdefault(purpose, dict.fromkeys(_COUNTED, 0))
                for name, amount in row.items():
                    sums[name] += amount
        return found

    def total(self, index: int | None = None) -> dict[str, float]:
        """The counts over all purposes, of one round or (None) of all."""
        rows = self.by_purpose(index).values()
        return {name: sum(row[name] for row in rows) for name in _COUNTED}

    @property
    def left(self) -> int | None:
        """Tokens that may still be generated; None: there is no budget."""
        return None if self._budget is None else max(0, self._budget - int(self.total()["tokens"]))

    @contextmanager
    def timed(self, purpose: str) -> Iterator[None]:
        """Count the block's seconds."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.count(purpose, seconds=time.monotonic() - start)

    def _remembered(self) -> Memory:
        if self._memory is None:
            raise RuntimeError("a ledger is used while a round is sampled: inside the sampler's next")
        return self._memory

    def _hold(self, running: int, *, more: bool) -> None:
        """Keep to the budget; ``running``: tokens of the present call, which aren't counted yet; ``more``:
        it isn't done with them.
        """
        left = self.left
        if left is not None and (running >= left if more else running > left):
            raise BudgetSpent(
                "BUDGET",
                f"the rounds have generated {self._budget} tokens, all that generation.budget allows",
                mend="raise it, or sample less",
                key="generation.budget",
            )


def place_of(folder: Path, index: int) -> Path:
    """A round's folder inside the run's."""
    return folder / "rounds" / f"{index:03d}"


def _key(purpose: str, prompts: Sequence[Any], sampling: Mapping[str, Any]) -> str:
    said = json.dumps([purpose, list(prompts), dict(sampling)], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]
