"""Laws of plugins that train: their runs end, repeat, resume and accumulate; at the neutral setting they are
the baseline's, otherwise they aren't.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmfw.core.errors import ConflictError, LlmfwError
from llmfw.testing.calls import Calls, calls_into, left_early
from llmfw.testing.laws import NotApplicable, Violation, broken, law
from llmfw.testing.observed import (
    MAIN,
    Training,
    difference,
    forward_calls,
    output_difference,
    same_outputs,
    seen,
    series_difference,
    trainings,
    weights_difference,
)
from llmfw.testing.subject import ANY_DATA

if TYPE_CHECKING:
    from pathlib import Path

    from llmfw.core.assemble import Assembled
    from llmfw.core.records import Completion
    from llmfw.testing.subject import Subject

TRAINED = ("loss", "sampler", "datamodule", "transform", "surgery")
"""Kinds that change a training."""
ANSWERING = ("surgery", "kv_cache", "decoder")
"""Kinds that change how a model answers."""
PROMPTS = ("Hello there", "2 + 2 is", "The river runs to the sea. " * 12)


# --- what the laws look at ----------------------------------------------------------------------------------


def training(subject: Subject, changed: Mapping[str, str] | None = None, **how: Any) -> Training:
    """The last training of a run; arguments as of ``Subject.fit``."""
    return seen(trainings(subject.fit(changed, **how).dir)[-1])


def around(subject: Subject, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Settings of the core under which the plugin runs and its baseline otherwise would not: those of the
    plugin's overlay, and those ``given``.
    """
    from llmfw.core import discovery

    told, own = dict(given or {}), {"plugins", *discovery.cards()}
    renamed = "data.name" in told
    theirs = subject.assembled(told, plugins=subject.baseline, verb="plan").plan.settings
    apart = {
        key: json.dumps(value)
        for key, value in subject.plan().settings.items()
        if key.partition(".")[0] not in own
        and not (renamed and key.startswith("data.") and key not in ANY_DATA)
        and (key not in theirs or theirs[key] != value)
    }
    return apart | told


def opened(subject: Subject, changed: Mapping[str, str], plugins: Sequence[str] | None = None) -> Any:
    """The policy of the base model with the plugin (or ``plugins``), one prompt at a time: padding changes
    roundings. A baseline reads prompts in the chunks in which the plugin's cache does.
    """
    from llmfw.core.generation import FULL_CACHE
    from llmfw.core.policies import open_policy_of

    alone = {**changed, "generation.batch_size": "1"}
    policy = open_policy_of(subject.assembled(alone, plugins=plugins, verb="generate"), None)
    own = subject.assembled(verb="generate").plan.one("llmfw_kv_cache")
    if plugins is not None and policy.cache is None and own is not None:
        policy.cache = replace(FULL_CACHE, prefill_chunk=own.prefill_chunk)
    return policy


def answers(
    subject: Subject, changed: Mapping[str, str], plugins: Sequence[str] | None = None
) -> list[Completion]:
    """Greedy answers to ``PROMPTS``, with the log-probs of their tokens where there's no decoder."""
    policy = opened(subject, changed, plugins)
    found: list[Completion] = policy.generate(PROMPTS, logps="decoder" not in subject.kinds)
    return found


def is_a(subject: Subject, kinds: Sequence[str]) -> bool:
    """Whether the plugin is of one of these kinds."""
    return bool(set(kinds) & set(subject.kinds))


def trains(subject: Subject) -> bool:
    """Whether the plugin changes a training, and ``fit`` is among its verbs."""
    return is_a(subject, TRAINED) and "fit" in subject.card.verbs


@dataclass(frozen=True, kw_only=True)
class Inside:
    """A run seen from inside: what it was assembled of, and which of the plugin's own functions ran in it."""

    assembled: Assembled
    calls: Calls
    folder: Path

    @property
    def training(self) -> Training:
        """Its last training."""
        return seen(trainings(self.folder)[-1])


def inside(subject: Subject, changed: Mapping[str, str]) -> Inside:
    """A run of the plugin with ``changed`` settings, once more than ``Subject.fit`` makes it."""

    def make() -> Inside:
        from llmfw.core.fit import fit

        subject.trained_well()
        folder = subject.folder / "inside" / hashlib.sha256(name.encode()).hexdigest()[:16]
        assembled = subject.assembled({**changed, "run.dir": str(folder)})
        with calls_into(subject.has_method) as calls:
            result = fit(assembled)
        return Inside(assembled=assembled, calls=calls, folder=result.dir)

    name = "-".join(["inside", *(f"{key}={value}" for key, value in changed.items())])
    return subject.once(name, make)


def repeated(subject: Subject) -> str | None:
    """Where two runs of equal settings part; None: nowhere."""
    return difference(training(subject), inside(subject, {}).training)


def expect_repeatable(subject: Subject) -> None:
    """Raise NotApplicable where comparing two runs says nothing, as they never agree."""
    if repeated(subject):
        raise NotApplicable("two runs of equal settings differ already, as another law says")


# --- laws ---------------------------------------------------------------------------------------------------


@law("runs", *TRAINED)
def runs(subject: Subject) -> None:
    """A run of a few steps on a tiny model ends well."""
    if not trains(subject):
        raise NotApplicable("`fit` isn't among the verbs of its card")
    error = subject.failure
    if isinstance(error, Violation) or (isinstance(error, LlmfwError) and error.code == "STATE-TYPE"):
        raise NotApplicable(f"another law says why it doesn't: {error}")
    if error is not None:
        raise broken(
            f"a run of a few steps fails: {type(error).__name__}: {error}",
            mend="mend it, or set what it needs under [conformance.settings] of its card",
        )


@law("deterministic", "loss", "datamodule", "transform", "surgery")
def deterministic(subject: Subject) -> None:
    """Two runs of equal settings consume the same samples and give the same numbers and weights, bit for
    bit.
    """
    found = repeated(subject)
    if found:
        raise broken(
            f"two runs of equal settings differ: {found}",
            mend="draw random numbers from torch's global generator, which is seeded at every step, or from "
            "one of your own that is made from run.seed; iterate over no set",
        )


@law("neutral", *TRAINED, "kv_cache", "decoder")
def neutral(subject: Subject) -> None:
    """At the neutral setting of its card the plugin equals its baseline: samples, loss, gradient norm and
    weights of a run, tokens and log-probs of answers; bit for bit where the card says ``exact``, else within
    ``tolerance`` (1e-6).
    """
    if subject.neutral is None:
        raise NotApplicable("its card states no neutral setting")
    told = subject.card.neutral
    tolerance = 0.0 if told.get("exact") else float(told.get("tolerance", 1e-6))
    mend = (
        f"let {', '.join(f'{key}={value}' for key, value in subject.neutral.items())} take the baseline's "
        "operations in the baseline's order, or state another setting or no exactness"
    )
    if trains(subject):
        expect_repeatable(subject)
        one = inside(subject, _at_neutral(subject)).training
        try:
            other = _baseline(subject)
        except ConflictError as error:  # e.g. the baseline is a plugin that isn't installed
            raise NotApplicable(
                f"its baseline, {told.get('baseline')!r}, can't be run here: {error}"
            ) from error
        found = difference(one, other, tolerance=tolerance, names=MAIN)
        if found:
            raise broken(f"at the neutral setting (here) it isn't its baseline (there): {found}", mend=mend)
    if is_a(subject, ANSWERING):
        plain = answers(subject, around(subject), subject.baseline)
        same_outputs(answers(subject, subject.neutral), plain, tolerance=tolerance, mend=mend)


def _at_neutral(subject: Subject) -> dict[str, str]:
    return {**_plain(subject), **(subject.neutral or {})}


def _plain(subject: Subject) -> dict[str, str]:
    """Settings under which a model takes the same operations in the same order with a surgery and without:
    fused modules differ from plain ones in the last bits of a gradient, and what a surgery made isn't fused.
    """
    return {"trainer.fused": "off"} if "surgery" in subject.kinds else {}


def _baseline(subject: Subject) -> Training:
    """The baseline's training on the same data: the plugin's own rows where it is their source."""
    own = "datamodule" in subject.kinds and not any(key.startswith("data") for key in subject.settings)
    settings = around(subject, {**_plain(subject), **(_own_rows(subject) if own else {})})
    return training(subject, settings, plugins=subject.baseline)


def _own_rows(subject: Subject) -> dict[str, str]:
    """Settings that name files of the plugin's rows at the neutral setting."""
    from llmfw.core.data import PLACE

    module = subject.assembled(subject.neutral).plan.one("llmfw_datamodule")
    found = {"data.split_key": module.split_key} if module.split_key else {}
    for split, key in (("train", "data.name"), ("validation", "data.validation")):
        rows = module.rows(split)
        if rows is not None:
            lines = [json.dumps({k: value for k, value in row.items() if k != PLACE}) for row in rows]
            file = subject.folder / f"own-{split}.jsonl"
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            found[key] = str(file)
    return found


@law("neutral-runs-the-method", *TRAINED, "kv_cache", "decoder")
def neutral_runs_the_method(subject: Subject) -> None:
    """At the neutral setting the method's own functions run, to their end: nothing is switched off or left
    early.
    """
    if subject.neutral is None:
        raise NotApplicable("its card states no neutral setting")
    usual, present = _work(subject, {}), _work(subject, _at_neutral(subject))
    if not usual:
        raise NotApplicable("no function of its own runs while it works at its defaults")
    mend = "let the neutral setting go through the same code: an early return proves nothing"
    if not usual.keys() & present.keys():
        names = ", ".join(name for _, name in sorted(usual))
        raise broken(f"at the neutral setting none of its functions runs ({names})", mend=mend)
    early = left_early(usual, present)
    if early:
        file, name = early[0]
        lines = ", ".join(map(str, sorted(present[early[0]])))
        raise broken(
            f"at the neutral setting {name} returns from {file}:{lines}, where it otherwise never does",
            mend=mend,
        )


def _work(subject: Subject, changed: Mapping[str, str]) -> Calls:
    """The plugin's functions that run once the plan is made: in a training, in answering, or both."""
    found: Calls = {}
    if trains(subject):
        found |= inside(subject, changed).calls
    if is_a(subject, ANSWERING):
        policy = opened(subject, changed)
        with calls_into(subject.has_method) as calls:
            policy.generate(PROMPTS)
        for function, lines in calls.items():
            found[function] = found.get(function, set()) | lines
    return found


@law("effect", "loss", "sampler", "transform", "surgery", "kv_cache", "decoder")
def effect(subject: Subject) -> None:
    """At its defaults something can be seen of the plugin: samples, numbers, weights, answers or the forward
    passes that they take aren't those without it.
    """
    if trains(subject) and _trains_otherwise(subject):
        return
    if is_a(subject, ANSWERING):
        with forward_calls() as mine:
            one = answers(subject, {})
        with forward_calls() as theirs:
            other = answers(subject, around(subject), subject.baseline)
        if mine != theirs or output_difference(one, other):
            return
    against = f"a run with {subject.baseline[0]}" if subject.baseline else "a run without it"
    raise broken(
        f"at its defaults nothing differs from {against}",
        mend="choose defaults that do something, or set under [conformance.settings] of the card what makes "
        "it show in a few steps on a tiny model",
    )


def _trains_otherwise(subject: Subject) -> bool:
    """Whether the training isn't the baseline's; where none is possible, whether it moves the weights."""
    one = training(subject)
    try:
        other = _baseline(subject)
    except ConflictError as error:
        if error.code != "LOSS-DATA":
            raise
        # without the plugin no loss takes these rows
        untrained = training(subject, {"trainer.max_steps": "0"})
        return weights_difference(one.weights, untrained.weights) is not None
    return one.data != other.data or difference(one, other, names=MAIN) is not None


@law("resume", "loss", "datamodule", "transform", "surgery")
def resume(subject: Subject) -> None:
    """A run that crashes after its second step and is resumed ends as the run that never stopped: samples,
    numbers and weights, bit for bit.
    """
    expect_repeatable(subject)
    settings = {"trainer.max_steps": "4", "checkpoint.every": "2"}
    whole = training(subject, settings)
    found = difference(training(subject, settings, stopped_at="ckpt.after_rename:1"), whole)
    if found:
        raise broken(
            f"a run that was stopped and resumed (here) isn't the whole one (there): {found}",
            mend="keep what changes while training in a callback's state_dict, not in an attribute of the "
            "plugin or in a variable of a module",
        )


@law("accumulation", "loss", "surgery")
def accumulation(subject: Subject) -> None:
    """A step over four samples gives the same loss and gradient norm as one, two or four micro-batches,
    within 1e-5 of their size.
    """
    expect_repeatable(subject)
    if "loss" in subject.kinds:
        from llmfw.testing.loss_calls import parts_apart

        if parts_apart(subject):
            raise NotApplicable("the loss of a batch isn't the sum over its parts (law `unit`)")
    # tiny steps: otherwise a rounding of the first step's gradient shows in the second step's loss
    runs = {
        f"{size} x {count}": training(
            subject,
            {
                "trainer.micro_batch": str(size),
                "trainer.accumulate": str(count),
                "trainer.max_steps": "2",
                "optimizer.lr": "1e-7",
            },
        )
        for size, count in ((4, 1), (2, 2), (1, 4))
    }
    whole = runs.pop("4 x 1")
    for dealt, run in runs.items():
        for name in ("loss", "grad_norm"):
            found = series_difference(name, run.series[name], whole.series[name], tolerance=1e-5)
            if found:
                raise broken(
                    f"with micro-batches of {dealt} (here) and of 4 x 1 (there) {found}",
                    mend="return sums over the declared unit, and let nothing depend on the micro-batch",
                )


@law("state", *TRAINED)
def state(subject: Subject) -> None:
    """What the plugin's callbacks keep after training, and what its instance has noted, is json or tensors;
    a fresh callback that loads the state has it.
    """
    failure = subject.failure
    if isinstance(failure, LlmfwError) and failure.code == "STATE-TYPE":
        raise broken(f"a callback's state can't be kept: {failure}", mend="see there")
    assembled = inside(subject, {}).assembled
    _check_notes(assembled.manager.get_plugin(subject.name))
    fresh = subject.assembled().plan.many("llmfw_callbacks")
    for used, new in zip(assembled.plan.many("llmfw_callbacks"), fresh, strict=True):
        _check_restores(used, new)


def _check_notes(plugin: Any) -> None:
    from llmfw.core.checkpoint.encoding import encode

    for name, value in vars(plugin).items():
        try:
            encode({} if name == "config" else {name: value})
        except LlmfwError:
            raise broken(
                f"self.{name} of the plugin is {type(value).__name__}, neither json nor a tensor",
                mend="build it inside the function that uses it, or offer it as a service",
            ) from None


def _check_restores(used: Any, new: Any) -> None:
    from llmfw.core.checkpoint.encoding import encode

    kept = used.state_dict()
    new.load_state_dict(kept)
    (tree, files), (again, other) = encode(kept), encode(new.state_dict())
    equal = tree == again and all(
        value.equal(other[stem][name]) for stem, named in files.items() for name, value in named.items()
    )
    if not equal:
        raise broken(
            f"{type(used).__name__} that has loaded {_short(tree)} has the state {_short(again)}",
            mend="let load_state_dict take over all that state_dict gives",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
