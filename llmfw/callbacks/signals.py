"""Signals: finish the optimizer step, save, leave with the signal's exit code; a second one leaves at once.

The periodic checkpoint is the guarantee; what is saved on a signal is a courtesy.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from llmfw.core.errors import Interrupted

_STOP = (signal.SIGTERM, signal.SIGINT)
_GO_ON = "go on with the same command and --resume"


class StopWork(BaseException):
    """Leaves work between two steps (a validation, samples) that a stop signal has made pointless."""


class SignalWatch:
    """Handlers for the length of a ``with`` block: SIGTERM and SIGINT ask to stop, SIGUSR1 to save and go on,
    SIGHUP (the terminal has gone) is ignored. The handlers before are put back afterwards.

    Outside a training loop a stop signal raises Interrupted where the program stands; inside it is noted, and
    the loop stops at the step's end. In any thread but the main one nothing is installed, as Python can't.
    """

    def __init__(self, *, usr1_stops: bool = False, mend: str = _GO_ON) -> None:
        self.usr1_stops = usr1_stops
        """Whether SIGUSR1 means that the time is nearly up, as SLURM can be told to say: it stops then."""
        self.mend = mend
        """What Interrupted tells the user to do next."""
        self.stop: int | None = None
        """The first stop signal, if one came."""
        self.saves_asked = 0
        self.training = False
        """Set while a training loop looks at ``stop`` at every step's end."""
        self._between_steps = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalWatch:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def install(self) -> None:
        """Put the handlers in place, also where Lightning has put its own in front."""
        if threading.current_thread() is not threading.main_thread():
            return
        handlers: dict[int, Any] = {**dict.fromkeys(_STOP, self._on_stop), signal.SIGUSR1: self._on_usr1}
        handlers[signal.SIGHUP] = signal.SIG_IGN
        for number, handler in handlers.items():
            before = signal.signal(number, handler)
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Put the handlers back that were there before the first ``install``."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work between two steps that a stop signal ends by StopWork."""
        if self.stop is not None:
            raise StopWork
        self._between_steps = True
        try:
            yield
        finally:
            self._between_steps = False

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.stop is not None:
            self.restore()  # a third one kills
            raise Interrupted(number, f"a second signal ({name}); stopped without saving", mend=self.mend)
        self.stop = number
        if not self.training:
            raise Interrupted(number, f"stopped by {name}", mend=self.mend)
        if self._between_steps:
            self._between_steps = False
            raise StopWork

    def _on_usr1(self, number: int, frame: FrameType | None) -> None:
        if self.usr1_stops:
            self._on_stop(signal.SIGTERM, frame)
        else:
            self.saves_asked += 1


class Signals(Callback):
    """Obeys a SignalWatch at the ends of optimizer steps; every rank stops at the same one.

    Put it after callbacks whose ``on_train_end`` should still run: here it raises Interrupted (exit code 128
    + signal), once the checkpoint of the step is durable.
    """

    def __init__(self, watch: SignalWatch | None = None) -> None:
        self.watch = watch or SignalWatch()
        self._owned = watch is None
        self._seen = self._answered = 0
        self._stopped: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let every step ask on every rank."""
        polls: Any = pl_module.polls
        for number in _STOP:
            polls[signal.Signals(number).name] = lambda number=number: self.watch.stop == number
        polls["save"] = lambda: self.watch.saves_asked > self._answered

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on signals wait for the step's end."""
        self.watch.install()
        self.watch.training = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What was asked before the last step's end has been saved."""
        self._answered = self._seen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after this step, if any rank was told to."""
        module: Any = pl_module
        self._seen = self.watch.saves_asked
        for number in _STOP:
            if module.agreed(signal.Signals(number).name):
                self._stopped, module.stopped_by = number, signal.Signals(number).name
                trainer.should_stop = True  # the checkpoint callback runs later, and saves because of this

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave, with the signal's exit code."""
        self._leave()
        if self._stopped is not None:
            saved = getattr(trainer.checkpoint_callback, "newest", None)
            where = f"saved as {saved}" if saved else "nothing is saved, as the run has no checkpoints"
            name = signal.Signals(self._stopped).name
            raise Interrupted(
                self._stopped,
                f"stopped by {name} after step {trainer.global_step}, {where}",
                mend=self.watch.mend,
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Nobody looks at step ends any more."""
        self._leave()

    def _leave(self) -> None:
        self.watch.training = False
        if self._owned:
            self.watch.restore()
