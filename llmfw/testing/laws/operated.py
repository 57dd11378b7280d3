"""Laws of models that surgeries changed: they train, are saved, and come back."""

from __future__ import annotations

from pathlib import Path

import torch

from llmfw.core.errors import LlmfwError
from llmfw.core.models.build import build_model
from llmfw.core.models.names import COMPANIONS
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.models.source import resolve_model
from llmfw.core.models.surgery import all_parameters
from llmfw.core.models.weights import SURGERY_FILE
from llmfw.core.schema import ModelConfig
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.operations import surgeries
from llmfw.testing.subject import Subject
from llmfw.testing.watching import Watched, outputs, watched


@law("gradients-flow", "surgery")
def gradients_flow(subject: Subject) -> None:
    """Each parameter that a surgery trains gets a finite gradient in every step, and one that isn't all zero
    within the kit's few steps: a gate that begins at zero may hold back what stands behind it for one step,
    not for all."""
    run = _trained(subject)
    for name in _trainable(run):
        for step, gradients in enumerate(run.gradients, start=1):
            gradient = gradients.get(name)
            if gradient is None:
                raise broken(
                    f"{name} gets no gradient in step {step}",
                    mend="let the forward pass use the parameter itself: no .data, detach or no_grad",
                )
            if not bool(gradient.isfinite().all()):
                raise broken(f"the gradient of {name} isn't finite in step {step}", mend="look at its start")
        if not any(bool(gradients[name].any()) for gradients in run.gradients):  # type: ignore[union-attr]
            raise broken(
                f"the gradient of {name} is zero in all {len(run.gradients)} steps",
                mend="begin with one of two factors that isn't zero, or exempt it with a reason "
                "([conformance.xfail] gradients-flow)",
            )


@law("trains-under-lora", "surgery")
def trains_under_lora(subject: Subject) -> None:
    """What ``trainable`` names is awake under ``adapter.kind=lora`` too, and moves where it moves without."""
    plain, lora = _trained(subject), _trained(subject, "lora")
    for name in _trainable(lora):
        if name not in lora.awake:
            raise broken(
                f"{name} is asleep under LoRA, though trainable names it",
                mend="freeze nothing after the surgery; the core wakes what trainable names",
            )
        if name in plain.start and plain.moved(name) and not lora.moved(name):
            raise broken(
                f"{name} moves in a training without an adapter, but stands still under LoRA",
                mend="let no code of the surgery look for PEFT's wrapper",
            )


@law("saved-with-adapter", "surgery")
def saved_with_adapter(subject: Subject) -> None:
    """What surgeries added or train lies in ``final/`` and in checkpoints that hold an adapter alone, with
    the values that it had in the end."""
    run = _trained(subject, "lora")
    places = [run.result.final, *sorted((run.result.dir / "checkpoints").glob("step-*"))]
    parameters = all_parameters(run.built.module, run.built.companions, tied=True)
    wanted = {name for name in _trainable(run) if not name.startswith(COMPANIONS)} | set(run.built.own)
    for place in places:
        saved = _saved(place, tuple(run.built.companions))
        names = {*wanted, *(name for name in run.start if name.startswith(COMPANIONS))}
        held = {id(parameters[name]) for name in saved.keys() & parameters.keys()}  # a tied one has two names
        lost = sorted(name for name in names - saved.keys() if id(parameters.get(name)) not in held)
        if lost:
            raise broken(
                f"{lost[0]} is not in {place.name}/ of a run under LoRA",
                mend="let the module's state_dict hold it: a parameter or a persistent buffer",
            )
        for name in sorted(names & run.end.keys()) if place == run.result.final else ():
            if not torch.equal(saved[name], run.end[name]):
                raise broken(f"{name} in final/ isn't what training ended with", mend="save it as it is")


@law("round-trip", "surgery")
def round_trip(subject: Subject) -> None:
    """``final/``, loaded again by llmfw with its companions, gives the outputs of the model that was saved,
    bit for bit."""
    from llmfw.core.open import open_policy

    run = _trained(subject)
    opened = open_policy(subject.assembled({"model": str(run.result.final)}, verb="generate"))
    before, after = outputs(run.policy, run.batch), outputs(opened.policy, run.batch)
    if not torch.equal(before, after):
        off = float((before - after).abs().max())
        raise broken(
            f"the model loaded from final/ gives log-probs that differ by up to {off:.1e}",
            mend="keep all that the forward pass needs in parameters or persistent buffers, and compute "
            "nothing from weights that training moves",
        )


@law("advice-without", "surgery")
def advice_without(subject: Subject) -> None:
    """Loaded without the plugin, weights of a surgery that is ``required_on_load`` are refused in one line
    with the flag that mends it; those of one that isn't give the same outputs."""
    run = _trained(subject)
    required = any(one.surgery.required_on_load for one in run.built.reports)
    source = resolve_model(ModelConfig(name=str(run.result.final)))
    flag = f"--plugin {subject.name}"
    try:
        plain = build_model(source, train=False)
    except LlmfwError as error:
        told = str(error)
        if required and flag in told and "\n" not in told:
            return
        mend = "raise nothing of your own" if required else "leave required_on_load=True"
        raise broken(f"loading without the plugin says {told!r}, not {flag!r}", mend=mend) from error
    if required:
        raise broken("loading without the plugin says nothing", mend="leave the manifest alone")
    off = float((outputs(LocalPolicy(plain.module), run.batch) - outputs(run.policy, run.batch)).abs().max())
    if off:
        raise broken(
            f"without the plugin the saved weights load, but log-probs are off by up to {off:.1e}",
            mend="leave required_on_load=True",
        )


def _trained(subject: Subject, adapter: str | None = None) -> Watched:
    surgeries(subject, adapter)
    return watched(subject, adapter)


def _trainable(run: Watched) -> list[str]:
    if not run.trainable:
        raise NotApplicable("its surgeries train nothing")
    return run.trainable


def _saved(folder: Path, companions: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Tensors of surgeries in a folder, by plain name."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    if (folder / SURGERY_FILE).is_file():
        found |= load_file(folder / SURGERY_FILE)
    for name in companions:
        if (folder / f"{name}.safetensors").is_file():
            state = load_file(folder / f"{name}.safetensors")
            found |= {f"{COMPANIONS}{name}.{key}": value for key, value in state.items()}
    return found
