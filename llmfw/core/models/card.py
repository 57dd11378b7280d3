"""The model card of an export: README.md, for the hub and for people. Every number comes from the run's files
or from the export's own check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from llmfw.core.models.card_front import Subject, data_name, front_matter, told
from llmfw.core.models.lineage import public_name
from llmfw.core.models.usage import python_lines, serving_lines, vllm_refuses
from llmfw.core.tracking import redact_text
from llmfw.core.tracking.history import Result

_HIDDEN_SETTINGS = (
    "run.",
    "tracking.",
    "checkpoint.",
    "trainer.progress",
    "trainer.log_every",
    "trainer.threads",
    "plugins",
    "seed",
    "model.config",
    "model.package",
    "data.package",
)
"""Settings that say nothing of the training, or stand elsewhere in the card."""


def card(subject: Subject) -> str:
    """README.md: front matter and text, without secrets and without folders of this machine."""
    front = yaml.safe_dump(front_matter(subject), sort_keys=False, allow_unicode=True, width=100)
    parts = [
        f"# {subject.title}",
        "\n".join(_what(subject)),
        "## Data\n\n" + "\n".join(_data(subject)),
        "## Training\n\n" + "\n".join(_training(subject)),
        "## Results\n\n" + "\n".join(_results(subject)),
        "## Check of this export\n\n" + "\n".join(_check(subject)),
        "## Use\n\n" + "\n".join(_use(subject)),
        "## Limits\n\n" + "\n".join(_limits(subject)),
    ]
    return redact_text(f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n")


def _what(subject: Subject) -> Iterator[str]:
    usage, history = subject.usage, subject.history
    size = f"{subject.parameters / 1e6:,.1f} million parameters"
    kind = "encoder-decoder model" if usage.encoder_decoder else "causal language model"
    if usage.format == "adapter":
        config = usage.adapter or {}
        form = "DoRA" if config.get("use_dora") else "LoRA"
        scale = f"rank {config.get('r')}, alpha {_plain(config.get('lora_alpha'))}"
        yield f"A {form} adapter ({scale}) for a {subject.model_type} {kind} of {size}."
    else:
        held = f"{usage.dtype} in GGUF" if usage.format == "gguf" else usage.dtype
        yield f"A {subject.model_type} {kind} of {size}, {held}."
    yield ""
    for number, origin in enumerate(subject.chain):
        lead = "Trained from" if number == 0 else "that was trained from"
        if history is None and number == 0:
            lead = "The weights are those of"
        yield f"- {lead} {origin.words}" + (
            f" (`{origin.hub}`)." if origin.hub and origin.hub not in origin.words else "."
        )
    if subject.merged:
        yield "- The adapter that was trained is merged into these weights."
    if subject.base is not None and subject.base.written:
        yield f"- Its base lies in `{subject.base.name}/`: {subject.base.why}."
    elif subject.base is not None:
        yield f"- Its base is `{subject.base.name}`" + (
            f" ({subject.base.why})." if subject.base.why else "."
        )
    yield f"- Licence: {subject.licence.name} ({subject.licence.why})."


def _data(subject: Subject) -> Iterator[str]:
    history = subject.history
    if history is None:
        yield "Nothing was trained here; see the model that this was made from."
        return
    settings, report = history.settings, history.data
    licence = settings.get("data.package.licence") or (settings.get("data.package") or {}).get("licence")
    if isinstance(settings.get("data.package"), dict):
        package = settings["data.package"]
    else:
        package = {key: settings.get(f"data.package.{key}") for key in ("distribution", "version")}
    yield f"- Source: {data_name(history)}" + (
        f" (Python package {package['distribution']} {package['version']})."
        if package.get("distribution")
        else "."
    )
    yield f"- Licence of the data: {licence or 'unknown: not stated by the source'}."
    if report.get("form"):
        yield (
            f"- Form: {report['form']} rows; at most {report.get('max_length')} tokens, longer ones: "
            f"{report.get('too_long_policy')}."
        )
    for name, value in (report.get("recipe") or {}).items():
        yield f"- {name}: {_plain(value)}."
    for name, split in (report.get("splits") or {}).items():
        what = "pairs" if report.get("form") == "preference" else "samples"
        yield (
            f"- {name}: {split.get('samples', 0):,} {what}, {split.get('tokens', 0):,} tokens, "
            f"{split.get('trained', 0):,} of them trained on."
        )
    dropped = [
        f"{report[key]:,} {words}"
        for key, words in (
            ("rows_skipped", "rows skipped"),
            ("too_long", "rows too long"),
            ("cut", "rows cut"),
        )
        if report.get(key)
    ]
    if dropped:
        yield f"- Left out or changed: {', '.join(dropped)}."


def _training(subject: Subject) -> Iterator[str]:
    history = subject.history
    if history is None:
        yield "None."
        return
    end = ""
    if history.steps is None:
        end = "; the training had not ended there"
    elif history.stopped_by:
        end = f"; stopped by {history.stopped_by}"
    steps = "1 optimizer step" if history.step == 1 else f"{history.step:,} optimizer steps"
    yield f"{steps}{end}, seed {history.seed}, with llmfw."
    yield ""
    for paper in history.papers:
        source = f": {paper.title}" if paper.title else ""
        source += f" ([arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}))" if paper.arxiv else ""
        yield f"- Plugin `{paper.plugin}` ({paper.distribution}){source}. {paper.summary}".rstrip()
    if not history.papers:
        yield "- No plugin: the cross entropy of the trained tokens."
    yield f"- Plan `{history.plan}`."
    if history.versions:
        yield "- Versions: " + ", ".join(f"{name} {value}" for name, value in history.versions.items()) + "."
    changed = dict(_changed(history.settings, subject.defaults))
    if changed:
        yield ""
        yield "Settings that differ from llmfw's defaults:"
        yield ""
        yield "```yaml"
        yield from (f"{key}: {_plain(value)}" for key, value in changed.items())
        yield "```"


def _results(subject: Subject) -> Iterator[str]:
    history = subject.history
    rows: list[tuple[str, ...]] = []
    if history is not None:
        loss = history.training.get("loss")
        if loss is not None:
            rows.append(("training loss", f"{loss[0]:.4g}", f"{loss[1]:.4g}", "", ""))
        rows += [_row(f"held-out {result.name}", result) for result in told(history.held_out)]
        rows += [_row(result.name, result) for result in history.evaluations]
    if not rows:
        yield "Nothing was measured."
        return
    yield "| metric | before | after | 95% interval | n |"
    yield "|---|---|---|---|---|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    if subject.agreement.difference:
        yield ""
        yield "Measured in the run, before the weights were merged or rounded."


def _row(name: str, result: Result) -> tuple[str, ...]:
    interval = "" if result.low is None or result.high is None else f"{result.low:.4g} to {result.high:.4g}"
    before = "" if result.before is None else f"{result.before:.4g}"
    return name, before, f"{result.value:.4g}", interval, "" if result.n is None else str(result.n)


def _check(subject: Subject) -> Iterator[str]:
    found, usage = subject.agreement, subject.usage
    library = {
        "hf": "plain transformers",
        "adapter": "plain transformers and PEFT",
        "gguf": "transformers' GGUF reader",
    }
    yield (
        f"Loaded again with {library[usage.format]} when it was written, and compared with the model in "
        f"llmfw over {found.prompts} prompts ({subject.asked}), {found.positions} positions:"
    )
    yield ""
    bound = (
        "measured only"
        if found.bound is None
        else "exact"
        if found.bound == 0
        else f"bound {found.bound:.3g}"
    )
    yield f"- max |logit difference|: {found.difference:.3g} ({bound})"
    yield f"- greedy tokens: {'equal' if found.tokens_equal else 'not all equal'}"
    if usage.format == "hf":
        yield "- every weight in the files equals the one in memory"
    if subject.quantized_difference is not None:
        held = "merged into it" if subject.merged else "over it"
        yield (
            f"- the adapter was trained over a base in {subject.quantization}; here the base is in "
            f"{usage.dtype}, with the adapter {held}: max |logit difference| to the model in training "
            f"{subject.quantized_difference:.3g}"
        )


def _use(subject: Subject) -> Iterator[str]:
    usage = subject.usage
    yield "```python"
    yield from python_lines(usage)
    yield "```"
    serving = serving_lines(usage)
    if usage.format == "hf" and usage.chat and not usage.encoder_decoder:
        serving = [*serving, f"llmfw chat model={usage.folder}"]
    if serving:
        yield ""
        yield "```"
        yield from serving
        yield "```"
    refused = vllm_refuses(usage)
    if refused:
        yield ""
        yield f"{refused}."


def _limits(subject: Subject) -> Iterator[str]:
    history = subject.history
    yield "- What was not measured above is not known: safety, bias and languages were not looked at."
    if history is not None and history.steps is None:
        yield "- These weights are a checkpoint of a training that had not ended."
    if subject.sidecars:
        files = ", ".join(f"`{name}`" for name in subject.sidecars)
        owners = " and ".join(f"`{name}`" for name in subject.surgery_plugins)
        yield (
            f"- {files}: trained by plugin {owners}, with the hash of their base in the files' metadata. "
            "Plain transformers doesn't read them: without that plugin the model works without them."
        )
    if not subject.licence.known:
        yield "- The licence is unknown: find out what the base's is before you pass these weights on."
    if subject.usage.format == "gguf":
        yield "- Matrices are in the type above, norms in f32; other runtimes round in ways of their own."


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if key.startswith(_HIDDEN_SETTINGS) or (key in defaults and defaults[key] == value):
            continue
        yield key, value


def _plain(value: Any) -> str:
    """A setting or a count as text; of a path the last part alone."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_plain(part) for part in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return public_name(value) if isinstance(value, str) else str(value)
