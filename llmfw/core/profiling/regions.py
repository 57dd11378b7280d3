"""Where a step's phases begin and end: the places of a training that are watched, and only for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from lightning.pytorch import Callback
from torch import nn

from llmfw.core.costs.spent import ONCE, swapped
from llmfw.core.models.adapters import bare
from llmfw.core.models.policy import decoder_of
from llmfw.core.profiling.parts import compiled, parts_of
from llmfw.core.profiling.phases import FORWARD, REFERENCE, Phase, Phases

_FACADE = ("logps", "logps_and_best", "hidden_states", "generate", "embed")
DATA: Phase = ("data wait", "")


class Watched:
    """A training whose phases can be watched from one step's end to another's. ``phases``: who watches now.

    ``loader`` is put around the training's own, so that waiting for data is a phase too.
    """

    def __init__(self) -> None:
        self.phases: Phases | None = None

    def loader(self, loader: Callable[..., Iterable[Any]]) -> Callable[..., Iterable[Any]]:
        """The factory of the loader; what its iterations take is told where somebody watches."""
        return lambda *args: self._served(loader(*args))

    def _served(self, steps: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(steps)
        while True:
            phases = self.phases
            if phases is not None:
                phases.enter(DATA)
            try:
                step = next(iterator)
            except StopIteration:
                return
            finally:
                if phases is not None:
                    phases.leave()
            yield step

    @contextmanager
    def over(self, phases: Phases, module: Any) -> Iterator[None]:
        """Watch a ``TrainModule`` in training while the block lasts; afterwards nothing is left of it."""
        with ExitStack() as undo:
            self._step(undo, phases, module)
            self._loss(undo, phases, module)
            self.phases = phases
            try:
                yield
            finally:
                self.phases = None

    def _step(self, undo: ExitStack, phases: Phases, module: Any) -> None:
        trainer = module.trainer

        def around(owner: Any, name: str, phase: Phase) -> None:
            undo.enter_context(swapped(owner, name, phases.around(phase, getattr(owner, name))))

        around(module, "transfer_batch_to_device", ("to the device", ""))
        around(module, "on_before_optimizer_step", ("clip and checks", ""))
        backward = partial(_backward, phases, module.manual_backward)
        undo.enter_context(swapped(module, "manual_backward", backward))
        around(module.optimizers(), "zero_grad", ("optimizer", ""))
        for optimizer in trainer.optimizers:
            before = optimizer.register_step_pre_hook(lambda *_: phases.enter(("optimizer", "")))
            after = optimizer.register_step_post_hook(lambda *_: phases.leave())
            undo.callback(before.remove)
            undo.callback(after.remove)
        for logger in trainer.loggers:
            around(logger, "log_metrics", ("logging", ""))
        for callback in trainer.callbacks:
            for name in _acts(callback):
                around(callback, name, ("callbacks", type(callback).__name__))

    def _loss(self, undo: ExitStack, phases: Phases, module: Any) -> None:
        loss = phases.around((FORWARD, "loss"), module.loss_call)
        undo.enter_context(swapped(module, "loss_call", loss))
        watched: set[int] = set()
        for policy, group in ((module.policy, FORWARD), (module.reference, REFERENCE)):
            if policy is None:
                continue
            for name in _FACADE:
                if callable(method := getattr(policy, name, None)):
                    undo.enter_context(swapped(policy, name, phases.around((group, "other"), method)))
            if isinstance(whole := getattr(policy, "module", None), nn.Module) and id(whole) not in watched:
                watched.add(id(whole))
                _model(undo, phases, whole)


def _backward(phases: Phases, function: Callable[..., Any], objective: Any, *args: Any, **kwargs: Any) -> Any:
    return phases.backward(objective, function, *args, **kwargs)


def _model(undo: ExitStack, phases: Phases, whole: nn.Module) -> None:
    """Watch a model's decoder and its parts. Its head is no module's call: it's what follows the decoder."""
    try:
        decoder = decoder_of(bare(whole))
    except AttributeError:  # no transformers model: its pass is told as a whole
        return

    def before(*_: Any) -> None:
        phases.part("layers, the rest")

    def after(*_: Any) -> None:
        phases.leave()
        group, part = phases.now
        if part == "other":
            phases.turn((group, "head"))

    hooks = [
        decoder.register_forward_pre_hook(before),
        decoder.register_forward_hook(after, always_call=True),
    ]
    for module, part in parts_of(decoder):
        if compiled(module) and "_compiled_call_impl" in vars(module):
            inner = _part(phases, part, vars(module)["_compiled_call_impl"])
            undo.enter_context(swapped(module, "_compiled_call_impl", inner))
            continue
        hooks.append(module.register_forward_pre_hook(lambda *_, part=part: phases.part(part)))
        # also where a recomputation stops half-way, once it has what the backward pass needs
        hooks.append(module.register_forward_hook(lambda *_: phases.leave(), always_call=True))
    for hook in hooks:
        undo.callback(hook.remove)


def _part(phases: Phases, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        phases.part(part)
        try:
            return function(*args, **kwargs)
        finally:
            phases.leave()

    return called


def _acts(callback: Callback) -> Iterator[str]:
    """Names of the hooks that a callback answers in a step."""
    for name in dir(callback):
        own = getattr(type(callback), name, None)
        if name.startswith("on_") and name not in ONCE and own is not getattr(Callback, name, None):
            yield name
