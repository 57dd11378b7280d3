"""Answers side by side, token by token: who is in the batch, what is chosen, who has ended, who comes next.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from llmfw.core.errors import NumericsError, UsageError
from llmfw.core.generation.choose import distribution, pick, uniforms
from llmfw.core.generation.sampling import Sampling
from llmfw.core.generation.stopping import finish, hits_stop
from llmfw.core.records import Completion

Watch = Callable[[int, int], None]
"""Called as ``watch(index of the answer, token)`` as soon as a token is known."""
Done = Callable[[int, Completion], None]
"""Called as ``done(index of the answer, answer)`` as soon as an answer is complete."""

_JOIN = 8
"""Waiting prompts join once this part of the rows, an eighth, has ended.

k prompts read at once save k - 1 forward passes, each worth up to a step; waiting for the k-th of B rows
costs k^2 L / 2B^2 steps where answers have L tokens. The best k / B is (2 / L)^(1/2), an eighth for L = 128.
Measured on a CPU with 8 and 16 rows and L of 48 to 128: a quarter does as well, a half takes a tenth longer.
"""


def missing(total: int, known: Mapping[int, Completion] | None) -> list[int]:
    """Indices, below ``total``, of the answers that aren't known.

    Raises:
        UsageError: a known answer has another index.
    """
    strange = sorted(index for index in known or () if not 0 <= index < total)
    if strange:
        raise UsageError(
            "GENERATE",
            f"answer {strange[0]} is said to be known, of {total} that are asked for",
            mend="resume with the prompts and samples of the first call",
        )
    return [index for index in range(total) if known is None or index not in known]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer that is asked for."""

    index: int
    ids: list[int]
    seed: int
    limit: int
    """Longest answer, tokens: max_new_tokens, or what the model's context leaves."""
    encoder: list[int] = field(default_factory=list)
    """What the encoder of an encoder-decoder reads; ``ids`` are then what its decoder begins with."""


class Backend(Protocol):
    """What answers requests instead of our own loop."""

    def run(
        self, requests: Sequence[Request], tokenizer: Any, sampling: Sampling, done: Done, watch: Watch | None
    ) -> None:
        """Answers all of them; each is handed to ``done`` as soon as it has ended."""


@dataclass
class Row:
    """One place of a batch, and the answer that is being written there."""

    request: Request
    uniform: list[float]
    """Random numbers, one a token; none of a greedy answer."""
    columns: int
    """Positions since the prompt began; they go on while a row that has ended waits to be replaced."""
    written: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    ended: bool = False


class Batch(Protocol):
    """The model's side of a batch, whatever holds its keys and values."""

    rows: list[Row]
    logits: Tensor
    """[B, V] of every row's next token."""

    def read(self, joining: Mapping[int, Row]) -> None:
        """Reads the prompts of rows that take these places."""

    def step(self, chosen: Tensor) -> None:
        """One more token a row, [B] int64 on any device; those of rows that have ended mean nothing."""

    def keep(self, places: list[int]) -> bool:
        """Lets go of all other rows; False where the cache can't."""


class Rows:
    """Writes answers over one batch; each is handed to ``done`` as soon as it has ended."""

    def __init__(
        self, batch: Batch, tokenizer: Any, sampling: Sampling, done: Done, watch: Watch | None
    ) -> None:
        self.batch, self.tokenizer, self.sampling, self.done, self.watch = (
            batch, tokenizer, sampling, done, watch,
        )  # fmt: skip

    def run(self, requests: Sequence[Request], size: int) -> None:
        """Answers all of them in their order, ``size`` at most at the same time."""
        batch, waiting = self.batch, deque(requests)
        self._join(waiting, list(range(min(size, len(waiting)))))
        while True:
            chosen = self._choose()
            ended = [place for place, row in enumerate(batch.rows) if row.ended]
            live = len(batch.rows) - len(ended)
            if not live and not waiting:
                return
            if not waiting and live <= len(ended):
                chosen = self._drop(chosen)
            if live:
                batch.step(chosen)
            if waiting and len(ended) * _JOIN >= len(batch.rows):
                self._join(waiting, ended)

    def _join(self, waiting: deque[Request], places: Sequence[int]) -> None:
        joining = {}
        for place, request in zip(places, [waiting.popleft() for _ in places[: len(waiting)]], strict=False):
            uniform = [] if self.sampling.greedy else uniforms([request.seed], request.limit)[0].tolist()
            joining[place] = Row(request, uniform, columns=len(request.ids))
        self.batch.read(joining)

    def _drop(self, chosen: Tensor) -> Tensor:
        places = [place for place, row in enumerate(self.batch.rows) if not row.ended]
        return chosen[places] if self.batch.keep(places) else chosen

    def _choose(self) -> Tensor:
        """[B] next tokens; the rows have them, and those that they end are handed over."""
        logits, sampling, rows = self.batch.logits.float(), self.sampling, self.batch.rows
        if not sampling.greedy:
            logits = logits.cpu()  # the same random numbers give the same tokens whatever the device
        best, chosen = logits.max(-1)
        sound = torch.isfinite(best)
        if not sampling.greedy:
            probabilities, ids = distribution(
                logits.nan_to_num(),
                temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            )  # fmt: skip
            drawn = [0.0 if row.ended else row.uniform[len(row.written)] for row in rows]
            chosen = pick(probabilities, ids, torch.tensor(drawn, dtype=torch.float64))
        told = [chosen, sound]
        if sampling.logps:
            told.append(torch.log_softmax(logits, -1).gather(-1, chosen[:, None])[:, 0])
        # the only wait for the device in a step; float32 holds every token below 2^24
        numbers = torch.stack([part.float() for part in told]).tolist()
        for place, row in enumerate(rows):
            if not row.ended:
                self._write(row, *(column[place] for column in numbers))
        return chosen

    def _write(self, row: Row, token: float, sound: float, logp: float | None = None) -> None:
        if not sound:
            raise NumericsError(
                "GENERATION-NAN",
                f"the model's scores for token {len(row.written) + 1} of an answer aren't finite",
                mend="look at the training's loss and gradient norms, or set model.dtype=float32",
                key="model",
            )
        row.written.append(int(token))
        if logp is not None:
            row.logps.append(logp)
        if self.watch is not None:
            self.watch(row.request.index, row.written[-1])
        row.ended = (
            len(row.written) >= row.request.limit
            or row.written[-1] in self.sampling.stop_ids
            or hits_stop(self.tokenizer, row.written, self.sampling.stop)
        )
        if row.ended:
            self.done(row.request.index, self._completion(row))

    def _completion(self, row: Row) -> Completion:
        text, ids, reason = finish(self.tokenizer, row.written, self.sampling)
        return Completion(
            text=text,
            ids=ids,
            prompt_tokens=len(row.request.encoder) or len(row.request.ids),
            finish=reason,
            logps=tuple(row.logps[: len(ids)]) if self.sampling.logps else None,
        )
