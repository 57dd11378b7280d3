"""Measures what plugins' parts cost on a few steps of a training; on the others nothing of it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.costs.clock import Clock, Key, saved_bytes
from llmfw.core.costs.spent import ONCE, swapped

MOST_SAMPLES = 12
_FACADE = ("logps", "logps_and_best", "hidden_states", "generate", "embed")
"""A policy's methods: the model's work, or the reference's."""


def sampled_steps(max_steps: int, log_every: int) -> frozenset[int]:
    """The steps that are measured: early ones, then some whose values are logged, at most ``MOST_SAMPLES``.

    Step 1 is left out where there's another: it makes what later steps find.
    """
    early = {step for step in (2, 3) if step <= max_steps}
    logged = [step for step in range(log_every, max_steps + 1, log_every) if step > 3]
    room = MOST_SAMPLES - len(early)
    if len(logged) > room:
        logged = [logged[(2 * index + 1) * len(logged) // (2 * room)] for index in range(room)]
    return frozenset(early | set(logged)) or frozenset({max_steps} if max_steps > 0 else ())


@dataclass(frozen=True, kw_only=True)
class Surgical:
    """What a surgery left in a model."""

    plugin: str
    name: str
    made: Sequence[nn.Module] = ()
    changed: Sequence[nn.Module] = ()
    """Modules of the base that do something else now, or something more."""
    tensors: Sequence[Tensor] = ()
    """Parameters and buffers that it added."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What belongs to whom in a training."""

    loss: str | None = None
    """The plugin whose loss it is; None: the core's."""
    reference: str = ""
    """How the loss comes by its reference's log-probs, for the note beside its cost."""
    callbacks: Sequence[tuple[str, Any]] = ()
    """(plugin, callback)."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """A training metric's name -> its plugin."""
    metrics_often: float = 1.0
    """Share of the steps on which training metrics are asked."""
    surgeries: Callable[[Any], Sequence[Surgical]] = lambda built: ()
    """(built model) -> what surgeries left in it."""


class Meter:
    """Costs of parts on the steps ``steps``. It changes no number: it times what is called, and reads what
    autograd keeps.

    Args:
        tell: called with each measured step: ``step``, ``ms`` (of the step), ``parts`` (as ``Part``'s fields,
            ``often``: the share of the steps on which it's done at all).
    """

    def __init__(
        self, steps: frozenset[int], watched: Watched, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.steps = steps
        self._watched, self._tell = watched, tell
        self._clock: Clock | None = None
        self._undo = ExitStack()
        self._parts: dict[Key, dict[str, Any]] = {}
        self._ms = 0.0

    def begin(self, device: torch.device) -> None:
        """The next step is measured: time its callbacks from here on."""
        closed = [(plugin, _name("callback", callback)) for plugin, callback in self._watched.callbacks]
        closed += [(plugin, f"metric/{name}") for name, plugin in self._watched.metrics.items()]
        if self._watched.loss is not None:
            closed.append((self._watched.loss, "reference"))
        self._clock, self._parts, self._ms = Clock(device, closed), {}, 0.0
        for plugin, callback in self._watched.callbacks:
            key = (plugin, _name("callback", callback))
            self._parts.setdefault(key, {})
            for name in dir(callback):
                if name.startswith("on_") and name not in ONCE and callable(getattr(callback, name)):
                    self._replace(self._undo, callback, name, key)

    @contextmanager
    def over(self, module: Any, *, logs: bool) -> Iterator[None]:
        """Around a ``TrainModule``'s step: times loss, reference, surgeries, and metrics if it ``logs``."""
        clock = self._clock
        assert clock is not None
        with ExitStack() as undo:
            undo.enter_context(swapped(module, "loss_call", self._loss(module.loss_call)))
            self._watch_models(undo, module)
            if logs and self._watched.metrics:
                undo.enter_context(swapped(module, "own_metrics", self._metrics(undo, module.own_metrics)))
            start = clock.now()
            yield
            self._ms = (clock.now() - start) * 1000

    def end(self, step: int) -> None:
        """The step is over, its callbacks included: tell what it cost."""
        clock = self._clock
        self.stop()
        if clock is None or not self._ms:
            return
        parts = [
            {"plugin": plugin, "name": name, "ms": clock.seconds[plugin, name] * 1000, **told}
            for (plugin, name), told in self._parts.items()
        ]
        self._tell({"step": step, "ms": self._ms, "parts": parts})

    def stop(self) -> None:
        """Leave nothing behind, also where a step failed."""
        self._undo.close()
        self._clock = None

    # --- what is timed --------------------------------------------------------------------------------------

    def _loss(self, call: Callable[..., Any]) -> Callable[..., Any]:
        clock, owner = self._clock, self._watched.loss
        assert clock is not None
        key = None if owner is None else (owner, "loss")
        if key is not None:
            self._parts[key] = {"gib": 0.0}

        def timed(policy: Any, batch: Any, reference: Any) -> Any:
            output = clock.forward(key, call, policy, batch, reference)
            made = list(clock.made_here(output.total))
            for part, node in made:
                clock.time_backward(part, node)
            if key is not None:
                own = [node for part, node in made if part == key]
                gib = saved_bytes(own, _tensors(batch)) / 2**30
                self._parts[key]["gib"] = max(self._parts[key]["gib"], gib)
            return output

        return timed

    def _watch_models(self, undo: ExitStack, module: Any) -> None:
        policy, reference, owner = module.policy, module.reference, self._watched.loss
        surgeries = self._watched.surgeries(module.built)
        keys: dict[int, Key | None] = {}
        if owner is not None or surgeries:  # what a part calls of the base is the base's work
            keys |= {id(part): None for part in policy.module.modules()}
            self._replace(undo, policy, _FACADE, None)
        if owner is not None and reference is not None:
            key = (owner, "reference")
            self._replace(undo, reference, _FACADE, key)
            self._parts[key] = {"gib": _apart(reference, policy) / 2**30, "note": self._watched.reference}
        for one in surgeries:
            key = (one.plugin, f"surgery/{one.name}")
            keys |= {id(part): key for part in (*one.changed, *one.made)}
            size = sum({id(value): value.nbytes for value in one.tensors}.values())
            self._parts[key] = {"gib": size / 2**30, "note": one.note}
            if not one.changed and not one.made:
                self._parts[key]["ms"] = None
        head = getattr(policy.module, "get_output_embeddings", lambda: None)()
        if type(head) is nn.Linear:  # a hook on it would turn log-probs from the weight itself to its calls
            keys.pop(id(head), None)
        modules = [policy.module, *policy.companions.values()]
        for part in {id(part): part for whole in modules for part in whole.modules()}.values():
            if id(part) in keys:
                self._hook(undo, part, keys[id(part)])

    def _hook(self, undo: ExitStack, module: nn.Module, key: Key | None) -> None:
        clock = self._clock
        assert clock is not None
        before = module.register_forward_pre_hook(lambda *_: clock.enter(key), prepend=True)
        after = module.register_forward_hook(lambda *_: clock.leave(), always_call=True)
        undo.callback(before.remove)
        undo.callback(after.remove)

    def _metrics(self, undo: ExitStack, own: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        clock, found = self._clock, list[tuple[Any, Any]]()
        assert clock is not None
        for metric, state in own:
            plugin = self._watched.metrics.get(metric.name)
            if plugin is None:
                found.append((metric, state))
                continue
            key = (plugin, f"metric/{metric.name}")
            self._replace(undo, state, "compute", key)
            self._parts[key] = {"gib": _state_bytes(state) / 2**30, "often": self._watched.metrics_often}
            found.append((replace(metric, update=partial(clock.call, key, metric.update)), state))
        return found

    def _replace(self, undo: ExitStack, owner: Any, names: str | Sequence[str], key: Key | None) -> None:
        """Let methods of an object count as a part's work, until ``undo``."""
        clock = self._clock
        assert clock is not None
        for name in (names,) if isinstance(names, str) else names:
            method = getattr(owner, name, None)
            if callable(method):
                undo.enter_context(swapped(owner, name, partial(clock.call, key, method)))


def _name(kind: str, thing: Any) -> str:
    return f"{kind}/{type(thing).__name__}"


def _tensors(batch: Any) -> list[Tensor]:
    values = [getattr(batch, item.name) for item in fields(batch)] if is_dataclass(batch) else []
    nested = [part for value in values if isinstance(value, Mapping) for part in value.values()]
    return [value for value in (*values, *nested) if isinstance(value, Tensor)]


def _apart(reference: Any, policy: Any) -> int:
    """Bytes of the reference's weights and buffers that aren't the policy's own."""
    ours = {id(value) for value in _held(policy)}
    return sum({id(value): value.nbytes for value in _held(reference) if id(value) not in ours}.values())


def _held(policy: Any) -> Iterator[Tensor]:
    for module in (policy.module, *policy.companions.values()):
        if module is not None:  # a reference whose log-probs are on disk holds no model
            yield from module.parameters()
            yield from module.buffers()


def _state_bytes(metric: Any) -> int:
    """Bytes of a torchmetrics metric's states."""
    states = [getattr(metric, name) for name in getattr(metric, "_defaults", ())]
    flat = [value for state in states for value in (state if isinstance(state, list) else [state])]
    return sum(value.nbytes for value in flat if isinstance(value, Tensor))
