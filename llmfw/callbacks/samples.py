"""What the model answers while it's being trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from llmfw.callbacks.signals import SignalWatch, StopWork

Show = Callable[[int, Sequence[tuple[str, str]]], None]


class Samples(Callback):
    """Calls ``ask(pl_module, prompts) -> answers`` every ``every`` optimizer steps (0: never) and hands
    (step, pairs of prompt and answer) to ``show``; rank 0 alone does.

    Sampling can't change the training: each step sets its random generators itself. A stop signal ends it.
    """

    def __init__(
        self,
        ask: Callable[[Any, Sequence[str]], Sequence[str]],
        prompts: Sequence[str],
        every: int,
        show: Show | None = None,
        watch: SignalWatch | None = None,
    ) -> None:
        self.ask, self.prompts, self.every = ask, tuple(prompts), every
        self.show, self.watch = show or print_samples, watch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sample where the step is a multiple of ``every``."""
        step = trainer.global_step
        if not self.prompts or self.every <= 0 or step % self.every:
            return
        with getattr(pl_module, "whole", nullcontext)():  # every rank has a share of a sharded model
            if trainer.is_global_zero:
                self._sample(pl_module, step)

    def _sample(self, pl_module: LightningModule, step: int) -> None:
        try:
            with self.watch.interruptible() if self.watch else nullcontext():
                answers = self.ask(pl_module, self.prompts)
        except StopWork:
            return
        self.show(step, list(zip(self.prompts, answers, strict=True)))


def print_samples(step: int, pairs: Sequence[tuple[str, str]]) -> None:
    """Print prompts and answers on standard error; what isn't printable is written out, so no answer drives
    the terminal."""
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.text import Text

    console = Console(stderr=True)
    for prompt, answer in pairs:
        body = Group(Text(printable(_shortened(prompt)), style="dim"), Text(printable(answer)))
        console.print(Panel(body, title=f"step {step}", title_align="left"))


def printable(text: str) -> str:
    """The text with control characters (but line ends and tabs) written as ``\\\\xNN``."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _shortened(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
