"""One optimizer step of a run, followed without values: what memory it needs, which operators it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from llmfw.core.assemble import Assembled
from llmfw.core.batch import Batch
from llmfw.core.errors import LlmfwError
from llmfw.core.estimate.blank import KEY, Blank, build_blank, ghostly, refuse
from llmfw.core.estimate.ghost import Call, Ghost
from llmfw.core.training.ranks import clip_gradients, gradient_norm

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of tensors at the moment of a step at which there are most."""

    peak: int
    parts: Mapping[str, int]
    standing: Mapping[str, int]
    """What is there between two steps: weights, optimizer, reference."""
    gradients: int
    """Of all gradients together."""
    there: tuple[int, ...]
    """Sizes of the tensors that are there all along."""
    step: tuple[tuple[int, int], ...]
    """(tensor, bytes that it takes; below 0: it goes), in order."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The operators of one micro-batch, and those of one update."""

    micro: Mapping[Call, int]
    update: Mapping[Call, int]
    handled: int
    """Operator calls of the micro-batch, those that move no data included."""


class Tracer:
    """A run's step on batches of one's choice. The model is built once, without weights."""

    def __init__(self, assembled: Assembled, device: str = "cpu") -> None:
        self.assembled = assembled
        self.root = assembled.run.config
        self.ghost = Ghost(device)
        self.blank: Blank = build_blank(assembled, self.ghost)
        self._update = self._prime()

    def trace(self, batch: Batch, *, accumulate: int = 1) -> tuple[Memory, Work]:
        """Forward and backward pass over one micro-batch and an update, as of a step that isn't the first.

        Raises:
            UsageError: ESTIMATE, where the loss or the model looks at values.
        """
        ghost, ledger = self.ghost, self.ghost.ledger
        standing, there = self._standing(), tuple(self._alive())
        begun = len(ledger.events)
        with ghost:
            self._gradients(accumulate > 1)
        start, handled = len(ledger.events), ledger.handled
        made = len(ledger.stretches)
        with ghost.counting() as micro:
            self._micro_batch(ghostly(batch, ghost))
        handled = ledger.handled - handled
        self._mark_gradients()
        self._clip()
        if self.blank.optimizer is not None:
            with ghost:
                self.blank.optimizer.step()
        peak, parts = self._peak(start, made)
        with ghost:
            self._gradients(False)
        memory = Memory(
            peak=peak + self.blank.state,
            parts={**parts, "optimizer": parts.get("optimizer", 0) + self.blank.state},
            standing=standing,
            gradients=sum(parameter.nbytes for parameter in self.blank.trained),
            there=(*there, *([self.blank.state] if self.blank.state else [])),
            step=tuple((event.stretch, event.bytes) for event in ledger.events[begun:]),
        )
        return memory, Work(micro=dict(micro), update=self._update, handled=handled)

    # --- the step -------------------------------------------------------------------------------------------

    def _micro_batch(self, batch: Batch) -> None:
        loss = self.assembled.plan.one("llmfw_loss")

        def run() -> None:
            with self._autocast():
                output = loss.call(self.blank.policy, batch, self.blank.reference)
                objective = output.total * 0.5
                auxiliary = getattr(self.blank.policy, "auxiliary", None)
                if auxiliary is not None:
                    objective = objective + auxiliary
                with torch.autocast(self.ghost.device.type, enabled=False):
                    objective.backward()
            self.blank.policy.auxiliary = None

        with self.ghost:
            self._guarded(run)

    def _guarded(self, run: Callable[[], Any]) -> None:
        try:
            run()
        except Exception as error:  # code that looks at values meets tensors without any
            if isinstance(error, LlmfwError) and error.code != "PLUGIN-RAISED":
                raise
            said = " ".join(str(error).split())[:160]
            raise refuse(
                f"a step of this model and loss without weights ({type(error).__name__}: {said})",
                "set trainer.micro_batch by hand",
                KEY,
            ) from error

    def _autocast(self) -> Any:
        dtype = AUTOCAST.get(self.root.trainer.precision)
        return nullcontext() if dtype is None else torch.autocast(self.ghost.device.type, dtype=dtype)

    def _clip(self) -> None:
        """The gradients' norm, and the clipping, as TrainModule does before each update."""
        grads = {str(index): p.grad for index, p in enumerate(self.blank.trained) if p.grad is not None}
        with self.ghost, torch.no_grad():
            norm = gradient_norm(grads, ())
            if self.root.optimizer.clip > 0:
                clip_gradients(self.blank.trained, self.root.optimizer.clip, norm)

    def _prime(self) -> Mapping[Call, int]:
        """Make the optimizer's state, and find out which operators an update calls."""
        with self.ghost:
            self._gradients(True)
            with self.ghost.counting() as calls:
                if self.blank.optimizer is not None:
                    with self.ghost.kind("optimizer"):
                        self.blank.optimizer.step()
                self._clip()
            self._gradients(False)
        return dict(calls)

    def _gradients(self, there: bool) -> None:
        with self.ghost.kind("gradients"):
            for parameter in self.blank.trained:
                parameter.grad = torch.empty_like(parameter) if there else None

    def _mark_gradients(self) -> None:
        for parameter in self.blank.trained:
            if parameter.grad is not None:
                self.ghost.mark(parameter.grad, "gradients")

    def _standing(self) -> dict[str, int]:
        alive = self.ghost.ledger.peak(len(self.ghost.ledger.events))[1]
        return {**alive, "optimizer": alive.get("optimizer", 0) + self.blank.state}

    def _alive(self) -> list[int]:
        alive: dict[int, int] = {}
        for event in self.ghost.ledger.events:
            alive[event.stretch] = alive.get(event.stretch, 0) + event.bytes
        return [size for size in alive.values() if size]

    def _peak(self, start: int, made: int) -> tuple[int, dict[str, int]]:
        """The peak from event ``start`` on; what is as wide as the vocabulary belongs to the head."""
        ledger = self.ghost.ledger
        vocabulary = getattr(self.blank.built.config.get_text_config(), "vocab_size", None)
        for one in ledger.stretches[made:]:
            if one.kind == "activations" and vocabulary in one.shape[-2:]:
                one.kind = "head"
        return ledger.peak(start)
