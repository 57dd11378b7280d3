"""llmfw from Python: what the command line does, with typed results.

import llmfw
result = llmfw.fit("trainer.max_steps=20", plugins=["NAME"])
print(result.final, result.validation)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw.core.assemble import Assembled, assemble, settle
from llmfw.core.export import ExportResult
from llmfw.core.fit import FitResult
from llmfw.core.plan import Plan

if TYPE_CHECKING:
    from llmfw.core.claims import Size
    from llmfw.core.evidence.run import Reproduced
    from llmfw.core.models.usage import Format
    from llmfw.core.records import Completion, Estimate
    from llmfw.core.session import Resume

__all__ = [
    "EvaluateResult",
    "ExportResult",
    "FitResult",
    "GenerateResult",
    "evaluate",
    "export",
    "fit",
    "generate",
    "plan",
    "reproduce",
]


@dataclass(frozen=True, kw_only=True)
class GenerateResult:
    """Answers, in the order of the prompts."""

    completions: Sequence[Completion]
    notes: Sequence[str] = ()
    """What was switched on without being asked for."""

    @property
    def texts(self) -> list[str]:
        """The answers' texts."""
        return [completion.text for completion in self.completions]


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What the held-out loss and the run's evaluations say of a model."""

    validation: Mapping[str, float]
    metrics: Mapping[str, float | Estimate] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    kept: Path | None = None
    """The run that keeps it; None: none does."""


def _assembled(
    verb: Any,
    overrides: Sequence[str],
    plugins: Sequence[str],
    no_plugins: Sequence[str],
    config: Sequence[str | Path],
    defaults_from: str | None,
    resume: str = "never",
) -> Assembled:
    settled = settle(
        plugins=tuple(plugins),
        no_plugins=tuple(no_plugins),
        files=tuple(Path(file) for file in config),
        overrides=tuple(overrides),
        defaults_from=defaults_from,
        measuring=verb == "evaluate",
    )
    return assemble(settled, verb, resume=resume)


def plan(
    *overrides: str,
    plugins: Sequence[str] = (),
    no_plugins: Sequence[str] = (),
    config: Sequence[str | Path] = (),
    defaults_from: str | None = None,
) -> Plan:
    """What ``fit`` with the same arguments would do. Reads no weights.

    Args:
        overrides: settings as on the command line, ``"KEY=VALUE"``.
        plugins, no_plugins: plugins to switch on and off.
        config: files of settings, later ones above.
        defaults_from: the plugin whose own defaults hold where two plugins' differ.
    """
    return _assembled("plan", overrides, plugins, no_plugins, config, defaults_from).plan


def fit(
    *overrides: str,
    plugins: Sequence[str] = (),
    no_plugins: Sequence[str] = (),
    config: Sequence[str | Path] = (),
    defaults_from: str | None = None,
    resume: Resume = "never",
) -> FitResult:
    """Train. Arguments as of ``plan``; ``resume``: never, auto (go on where there's something) or must.

    Raises:
        LlmfwError: with code, place and remedy; the run is closed as failed, and its journal says why.
    """
    from llmfw.core.fit import fit as carry_out

    return carry_out(
        _assembled("fit", overrides, plugins, no_plugins, config, defaults_from, resume), resume=resume
    )


def generate(
    prompts: Sequence[Any],
    *overrides: str,
    plugins: Sequence[str] = (),
    no_plugins: Sequence[str] = (),
    config: Sequence[str | Path] = (),
    **sampling: Any,
) -> GenerateResult:
    """Answer prompts (strings or message lists) with ``model=NAME``, or the default model.

    ``sampling`` are settings of ``llmfw.core.generation.Sampling``: max_new_tokens, temperature, samples ...
    """
    from llmfw.core.open import open_policy

    opened = open_policy(_assembled("generate", overrides, plugins, no_plugins, config, None))
    return GenerateResult(
        completions=opened.policy.generate(list(prompts), **sampling), notes=opened.assembled.plan.notes
    )


def evaluate(
    *overrides: str,
    plugins: Sequence[str] = (),
    no_plugins: Sequence[str] = (),
    config: Sequence[str | Path] = (),
    save: bool = False,
) -> EvaluateResult:
    """Held-out loss, ``evaluation.metrics``, tasks of lm-eval and the plugins' evaluations of ``model=NAME``,
    without training; ``save`` keeps them as ``llmfw evaluate`` does.
    """
    from llmfw.core.open import evaluate_model

    assembled = _assembled("evaluate", overrides, plugins, no_plugins, config, None)
    found = evaluate_model(assembled, save=save)
    return EvaluateResult(
        validation=found.validation,
        metrics=found.measured.metrics,
        tables=found.measured.tables,
        notes=assembled.plan.notes,
        kept=found.kept,
    )


def export(
    model: str | Path,
    out: str | Path,
    *,
    format: Format | None = None,
    merge: bool = False,
    dtype: str | None = None,
    gguf_type: str | None = None,
    max_shard_size: str | None = None,
    step: int | None = None,
    base: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> ExportResult:
    """Write the weights of a run, checkpoint or model into a folder for plain transformers, PEFT or
    llama.cpp, load them again without llmfw, and compare. Arguments as of ``llmfw export``.

    Raises:
        LlmfwError: with code, place and remedy; nothing is left at ``out``.
    """
    from llmfw.core.export import ExportOptions
    from llmfw.core.export import export as carry_out

    options = ExportOptions(
        format=format,
        merge=merge,
        dtype=dtype,
        gguf_type=gguf_type,
        max_shard_size=max_shard_size,
        step=step,
        base=base,
        licence=license,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    return carry_out(str(model), out, options)


def reproduce(
    plugin: str,
    *overrides: str,
    size: Size = "small",
    claims: Sequence[str] = (),
    seeds: Sequence[int] = (),
    resume: bool = False,
) -> Reproduced:
    """Run a plugin's claims again, as ``llmfw reproduce`` does; arguments as of the command line.

    Raises:
        LlmfwError: with code, place and remedy; EVIDENCE-FAILED where an arm failed.
    """
    from llmfw.core.evidence.run import run_claims
    from llmfw.core.evidence.schedule import make_schedule
    from llmfw.core.evidence.stated import read_claims

    schedule = make_schedule(read_claims(plugin), size, ids=claims, seeds=seeds, words=overrides)
    return run_claims(schedule, resume=resume)
