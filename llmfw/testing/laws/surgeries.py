"""Laws of surgeries: what one call of ``apply`` may do to a model, and in which layouts it stays right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from llmfw.core.data import collate
from llmfw.core.errors import LlmfwError
from llmfw.core.models.names import plain_name
from llmfw.core.models.rng import generator_of
from llmfw.core.policies import policy_over
from llmfw.testing.distributions import installed, write_plugin
from llmfw.testing.laws import broken, law
from llmfw.testing.layouts import layouts, samples
from llmfw.testing.operations import Operation, operate, planned, state_of, surgeries
from llmfw.testing.subject import Subject
from llmfw.testing.watching import outputs, watched

_CLOSE = 1e-4
"""Largest difference of a sample's log-probs between two layouts, in nats: sums in other orders."""
_MET: Mapping[str, Sequence[Mapping[str, str]]] = {
    "packing": ({"data.packing": "true"}, {"trainer.layout": "packed"}),
    "shared_prompt": ({"trainer.layout": "shared_prompt"},),
    "right_padding": ({"trainer.layout": "padded", "trainer.micro_batch": "2"},),
    "quantised": ({"model.quantization": "int8", "adapter.kind": "lora"},),
}
"""Refusal -> settings each of which meets it."""
_MET_BY_A_CACHE = ("custom_cache", "chunked_prefill")
_CACHE = """
from dataclasses import replace
from llmfw import Plugin, hookimpl
from llmfw.core.generation import FULL_CACHE

class Toy(Plugin):
    @hookimpl
    def llmfw_kv_cache(self, run, model_config):
        return replace(FULL_CACHE, name="kit_cache", prefill_chunk=4)
"""
"""A plugin whose cache meets both: it is the full one, filled four positions at a time."""


@law("untouched-weights", "surgery")
def untouched_weights(subject: Subject) -> None:
    """What neither ``Report.changed`` nor ``Surgery.trainable`` names is bit for bit as before the surgery,
    and frozen weights of the base stay so in a training under LoRA."""
    surgeries(subject)
    for one in operate(subject)[1]:
        for name, value in one.before.items():
            if one.names(name):
                continue
            now = one.after.get(name)
            if now is None:  # moved, under another name
                now = next((v for v in one.after.values() if v is one.held[name]), None)
            if now is None or not torch.equal(now.detach(), value):
                size = "is gone" if now is None else f"moved by {_distance(now, value):.1e}"
                raise broken(
                    f"surgery {one.surgery.name!r} doesn't name {name}, which {size}",
                    mend="name it in Report.changed, or leave it alone",
                )
    if "fit" not in subject.card.verbs:
        return
    run = watched(subject, "lora")
    for name in run.start:
        if name not in run.awake and run.moved(name):
            raise broken(
                f"{name} is frozen, but a training under LoRA moved it by "
                f"{_distance(run.end[name], run.start[name]):.1e}",
                mend="change nothing in a forward pass; what is to be trained stands in Surgery.trainable",
            )


@law("twice-is-once", "surgery")
def twice_is_once(subject: Subject) -> None:
    """Applied to a model that it was applied to already, a surgery refuses, or changes neither tensors nor
    outputs."""
    surgeries(subject)
    assembled = planned(subject)
    built, done = operate(subject)
    policy, batch = (
        policy_over(assembled, built),
        collate(samples(assembled), assembled.tokenizer.pad_token_id),
    )
    for one in done:
        before, told = _content(one.target), outputs(policy, batch)
        with suppress(Exception):  # any refusal will do, if it left the model alone
            one.surgery.apply(one.target, generator_of(1, one.surgery.name))
        same = _same(before, _content(one.target))
        if not same or not torch.equal(told, outputs(policy, batch)):
            what = "outputs" if same else "the config" if one.surgery.phase == "before_load" else "tensors"
            raise broken(
                f"surgery {one.surgery.name!r}, applied once more, changed {what}",
                mend="look first whether it was done: then report the same, and do nothing",
            )


@law("own-generator", "surgery")
def own_generator(subject: Subject) -> None:
    """New weights come from the generator that ``apply`` receives and from nothing else: the global ones are
    left alone, and their states don't matter."""
    surgeries(subject)
    first, second = (operate(subject, around=around)[1] for around in (1, 2))
    for one, other in zip(first, second, strict=True):
        name = one.surgery.name
        if one.global_draws:
            raise broken(
                f"surgery {name!r} draws from a global generator",
                mend="hand generator=generator to torch's functions",
            )
        if one.foreign_draws:
            raise broken(
                f"surgery {name!r} draws from a generator of its own making, not from the one it was given: "
                "another seed of the run gives the same weights",
                mend="draw from the generator that apply receives",
            )
        for tensor, value in one.after.items():
            if not torch.equal(value.detach(), other.after[tensor].detach()):
                raise broken(
                    f"{tensor} after surgery {name!r} depends on the state of the global generators, by "
                    f"{_distance(value, other.after[tensor]):.1e}",
                    mend="draw from the generator that apply receives",
                )


@law("reports-truly", "surgery")
def reports_truly(subject: Subject) -> None:
    """What ``Report.changed`` names is there, and all that was added is named there or in ``trainable``."""
    surgeries(subject)
    for one in operate(subject)[1]:
        who = f"surgery {one.surgery.name!r}"
        for name in one.report.changed:
            if not _is_there(one, name):
                raise broken(
                    f"{who} reports that it changed {name!r}, which isn't there",
                    mend="give plain names of modules, parameters or keys of the config",
                )
        silent = [name for name in one.added if not one.names(name)]
        if silent:
            raise broken(f"{who} added {silent[0]} without a word", mend="name it in Report.changed")


@law("refusals-hold", "surgery")
def refusals_hold(subject: Subject) -> None:
    """The plan stops what a surgery refuses of packing, shared_prompt, right_padding, quantised, custom_cache
    and chunked_prefill (nothing that a plan knows meets static_cache and compile: those aren't tried); of
    packing, right and left padding what it doesn't refuse gives each sample the log-probs that it has alone
    in its row."""
    refused = {refusal for surgery in surgeries(subject) for refusal in surgery.refuses}
    for refusal in sorted(refused & {*_MET, *_MET_BY_A_CACHE}):
        if _plans_with(subject, refusal):
            raise broken(f"it refuses {refusal}, but there is a plan with it", mend="tell llmfw's makers")
    assembled = planned(subject)
    built, _ = operate(subject)
    policy, examples = policy_over(assembled, built), samples(assembled)
    if not _plans_with(subject, "packing"):
        refused.add("packing")
    alone, found = layouts(examples, assembled.tokenizer.pad_token_id, built.module)
    plain = torch.cat([outputs(policy, batch) for batch in alone])
    for layout, batch in found.items():
        if layout in refused:
            continue
        off = float((outputs(policy, batch) - plain).abs().max())
        if not off <= _CLOSE * max(1.0, float(plain.abs().max())):
            other = "" if layout == "left_padding" else f", or refuse {layout!r}"  # generation pads so
            raise broken(
                f"under {layout} a sample's log-probs differ by {off:.1e} from those alone",
                mend=f"go by position_ids and attention_mask, not by columns{other}",
            )


def _distance(left: torch.Tensor, right: torch.Tensor) -> float:
    if left.shape != right.shape:
        return float("inf")
    return float((left.detach().double() - right.detach().double()).abs().max())


def _content(target: Any) -> dict[str, Any]:
    """A model's tensors, copied, or what a config says."""
    if not isinstance(target, nn.Module):
        return dict(target.to_dict())
    return {name: value.detach().clone() for name, value in state_of(target).items()}


def _same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        for name, value in left.items()
    )


def _is_there(one: Operation, name: str) -> bool:
    if one.surgery.phase == "before_load":
        place = one.target
        for part in name.removeprefix("config.").split("."):
            if not hasattr(place, part):
                return False
            place = getattr(place, part)
        return True
    modules = {plain_name(module) for module, _ in one.target.named_modules()}
    return name in modules or name in one.after


def _plans_with(subject: Subject, refusal: str) -> bool:
    """Whether there is a plan of the plugin that meets what is refused."""
    if refusal not in _MET_BY_A_CACHE:
        return any(_plans(subject, settings) for settings in _MET[refusal])
    site = subject.folder / "cache"
    write_plugin(site, "kit_cache", _CACHE, card='kinds = ["kv_cache"]\nverbs = ["generate"]\n')
    with installed(site):
        return _plans(subject, {}, "kit_cache")


def _plans(subject: Subject, settings: Mapping[str, str], *others: str) -> bool:
    try:
        subject.plan(settings, plugins=[subject.name, *others])
    except LlmfwError:
        return False
    return True
