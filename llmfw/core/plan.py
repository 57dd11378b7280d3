"""The plan: every plugin's answer to every hook, checked, printed and hashed before any weight is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from llmfw.core import records
from llmfw.core.discovery import cards
from llmfw.core.errors import ConflictError, PluginError, UsageError
from llmfw.core.guard import Guarded
from llmfw.core.guard.answers import fault, guarded
from llmfw.core.manager import DEFAULTS, Answer, PluginManager
from llmfw.core.run import Run
from llmfw.core.schema import Root
from llmfw.core.tracking.record import SPLIT

RECORD_OF: dict[str, type | None] = {
    "llmfw_services": records.Service,
    "llmfw_datamodule": None,
    "llmfw_dataset_transforms": records.DatasetTransform,
    "llmfw_sampler": records.RolloutSampler,
    "llmfw_surgeries": records.Surgery,
    "llmfw_loss": records.Loss,
    "llmfw_evaluations": records.Evaluation,
    "llmfw_metrics": records.NamedMetric,
    "llmfw_callbacks": None,
    "llmfw_kv_cache": records.CacheFactory,
    "llmfw_decoder": records.Decoder,
}
"""Hook -> record that it returns, in the order in which a run calls them; None: an object of Lightning or a
data module.
"""

TRAINING = (
    "llmfw_datamodule",
    "llmfw_dataset_transforms",
    "llmfw_sampler",
    "llmfw_loss",
    "llmfw_evaluations",
    "llmfw_metrics",
    "llmfw_callbacks",
)
_NONE = (None, "0", "0.0")
"""Values of ``data.validation`` that hold nothing out."""
MEASURED = "micro_batch=auto: "
"""Begins the note about a number found by the memory that was free: the number counts, not the note."""
_OUTSIDE = ("run.", "tracking.", "checkpoint.", "trainer.progress", "trainer.max_time", "trainer.log_every")
"""Settings that don't change what is computed: they stay out of the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do. ``answers`` maps a hook (``llmfw_metrics`` per stage: ``llmfw_metrics/train``) to
    its records.
    """

    verb: str
    plugins: tuple[tuple[str, str], ...]
    """(name, "distribution version") in the user's order."""
    settings: Mapping[str, Any]
    """Every setting by dotted key."""
    answers: Mapping[str, tuple[Answer, ...]]
    notes: tuple[str, ...] = ()
    """What was switched on or off without being asked for, and why."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Versions, the model's shape, the data's form."""

    def one(self, hook: str) -> Any:
        """The record of a singular hook, or None."""
        found = self.answers.get(hook, ())
        return found[0].value if found else None

    def owner(self, hook: str) -> str | None:
        """The plugin that answered a singular hook."""
        found = self.answers.get(hook, ())
        return found[0].plugin if found else None

    def many(self, hook: str) -> list[Any]:
        """The records of a plural hook."""
        return [answer.value for answer in self.answers.get(hook, ())]

    def as_dict(self) -> dict[str, Any]:
        """The plan as json holds it: functions by their qualified names."""
        return {
            "verb": self.verb,
            "plugins": [{"name": name, "distribution": origin} for name, origin in self.plugins],
            "settings": dict(self.settings),
            "answers": {
                hook: [{"plugin": answer.plugin, **_plain_record(answer.value)} for answer in found]
                for hook, found in self.answers.items()
                if found
            },
            "notes": list(self.notes),
            "facts": dict(self.facts),
        }

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the plan."""
        return _digest(self.as_dict())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the numbers: the plan without folders, tracking and the length of logs, and
        with the global batch in place of how it is dealt out over processes.
        """
        plain = self.as_dict()
        plain["settings"] = {
            key: value for key, value in plain["settings"].items() if not key.startswith((*_OUTSIDE, *SPLIT))
        }
        plain["notes"] = [note for note in self.notes if not note.startswith(MEASURED)]
        return _digest({**plain, "global_batch": global_batch(self.settings)})


def split_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by dotted key that deal a step's samples out."""
    return {key: settings.get(key) for key in SPLIT}


def global_batch(settings: Mapping[str, Any]) -> int:
    """Samples of one optimizer step over all processes."""
    counts = ("trainer.micro_batch", "trainer.accumulate", "trainer.devices", "trainer.nodes")
    return math.prod(int(settings.get(key) or 1) for key in counts)


def make_plan(
    manager: PluginManager,
    run: Run,
    tokenizer: Any,
    model_config: Any,
    *,
    verb: str,
    settings: Mapping[str, Any],
    data_kind: Callable[[Any], str | None] = lambda datamodule: None,
    notes: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Plan:
    """Ask every hook that the verb needs, in order, and check the answers.

    ``data_kind(datamodule)`` tells the form of the rows where it can be known beforehand.

    Raises:
        ConflictError: two owners, two records of one name, a loss over data or rounds of another form, a
            refusal that is met.
        PluginError: a record of the wrong type, or an error inside a plugin.
    """
    given = {"run": run, "tokenizer": tokenizer, "model_config": model_config}
    answers: dict[str, tuple[Answer, ...]] = {}
    for hook, record in RECORD_OF.items():
        if hook in TRAINING and verb not in ("fit", "evaluate", "validate", "plan"):
            continue
        stages = (
            [("llmfw_metrics/train", "train"), ("llmfw_metrics/validation", "validation")]
            if hook == "llmfw_metrics"
            else [(hook, None)]
        )
        for key, stage in stages:
            arguments = given if stage is None else {**given, "stage": stage}
            answers[key] = _ask(manager, hook, record, arguments)
        if hook == "llmfw_services":
            run._offer(answers[hook])
    made = Plan(
        verb=verb,
        plugins=tuple((name, manager.origins.get(name, "")) for name in run.config.plugins),
        settings=settings, answers=answers, notes=tuple(notes), facts=dict(facts or {}),
    )  # fmt: skip
    _check_order(made, manager)
    _check_settings(made, run, model_config)
    made = _with_layouts(made, run, model_config)
    _check_refusals(made, manager, run)
    if run.config.generation.backend == "vllm":
        _check_vllm(made, manager, run.config, model_config)
    kind = None
    if made.one("llmfw_loss") is not None and made.one("llmfw_sampler") is None:
        kind = data_kind(made.one("llmfw_datamodule"))
        _check_data(made, manager, kind)
    elif made.one("llmfw_loss") is not None:
        _check_rounds(made, manager)
    if getattr(model_config, "is_encoder_decoder", False):
        _check_encoder_decoder(made, manager, model_config, kind)
    if made.owner("llmfw_datamodule") == DEFAULTS:
        _check_evaluations(run, kind)
    if run.config.evaluation.lm_eval and getattr(model_config, "is_encoder_decoder", False):
        raise UsageError(
            "LM-EVAL-MODEL",
            "lm-eval tasks are asked of decoder-only models here, this is an encoder-decoder",
            mend="leave evaluation.lm_eval out; evaluation.metrics work",
            key="evaluation.lm_eval",
        )
    return made


def _ask(
    manager: PluginManager, hook: str, record: type | None, arguments: Mapping[str, Any]
) -> tuple[Answer, ...]:
    from llmfw.core.hookspecs import CARDINALITY

    if CARDINALITY[hook] == "one":
        single = manager.one(hook, **arguments)
        found = [single] if single else []
    else:
        found = manager.many(hook, **arguments)
    return tuple(_checked(manager, hook, record, answer) for answer in found)


def _checked(manager: PluginManager, hook: str, record: type | None, answer: Answer) -> Answer:
    """An answer of the right type, whose functions name the plugin when they fail.

    Raises:
        PluginError: PLUGIN-RECORD, with the hook's file and line.
    """
    if answer.plugin == DEFAULTS:
        return answer
    kind = type(answer.value).__name__
    if record is None:
        wanted, right = _OBJECT[hook]
        wrong = None if right(answer.value) else f"returned {kind} from {hook}"
    elif not isinstance(answer.value, record):
        wanted, wrong = f"return a llmfw.{record.__name__}", f"returned {kind} from {hook}"
    else:
        wrong = fault(answer.value)
        wanted, wrong = "mend the record", wrong and f"returned from {hook} a {kind} whose {wrong}"
    if wrong:
        file, line = manager.place(answer.plugin, hook)
        raise PluginError(
            "PLUGIN-RECORD", f"{manager.title(answer.plugin)} {wrong}", mend=wanted, file=file, line=line
        )
    if record is None:
        return answer
    return Answer(answer.plugin, guarded(answer.value, manager.owner(answer.plugin), hook, Guarded))


def _is_source(value: Any) -> bool:
    from llmfw.core.data import DataModule

    if isinstance(value, DataModule):
        return True
    from lightning.pytorch import LightningDataModule

    return isinstance(value, LightningDataModule)


def _is_callback(value: Any) -> bool:
    from lightning.pytorch import Callback

    return isinstance(value, Callback)


_OBJECT: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "llmfw_datamodule": ("return an llmfw.DataModule or a LightningDataModule", _is_source),
    "llmfw_callbacks": ("return Lightning callbacks", _is_callback),
}
"""Hook that returns an object -> how to mend a wrong one, and what a right one is."""


def _check_order(plan: Plan, manager: PluginManager) -> None:
    orders = [
        answer for answer in plan.answers.get("llmfw_dataset_transforms", ()) if answer.value.stage == "order"
    ]
    if len(orders) > 1:
        owners = " and ".join(manager.title(answer.plugin) for answer in orders)
        raise ConflictError(
            "TWO-ORDERS",
            f"the data can have one order, but {owners} each bring one",
            mend="switch one of them off (--no-plugin NAME)",
            key="plugins",
        )


def _with_layouts(plan: Plan, run: Run, model_config: Any) -> Plan:
    """The plan with the layouts that its batches may have, and a note where the best one is refused."""
    from llmfw.core.training.layout import layouts_of

    if plan.one("llmfw_loss") is None or plan.verb not in ("fit", "plan"):
        return plan
    layouts = layouts_of(plan, run.config, model_config)
    note = layouts.note()
    return replace(
        plan,
        notes=(*plan.notes, *([note] if note else [])),
        facts={**plan.facts, "layouts": list(layouts.allowed)},
    )


def _check_refusals(plan: Plan, manager: PluginManager, run: Run) -> None:
    cache, loss = plan.one("llmfw_kv_cache"), plan.one("llmfw_loss")
    met = {
        "right_padding": _padded(run.config.trainer.micro_batch, loss)
        if plan.facts.get("layouts", ["packed"])[0] == "padded"
        else None,
        "packing": ("packing", "set data.packing=false") if run.config.data.packing else None,
        "compile": ("compiled regions", "set trainer.compile=none")
        if run.config.trainer.compile != "none" and plan.verb in ("fit", "plan")
        else None,
        "quantised": (f"a base in {run.config.model.quantization}", "set model.quantization=none")
        if run.config.model.quantization != "none"
        else None,
        "custom_cache": (f"the key-value cache of {plan.owner('llmfw_kv_cache')}", "leave one of them out")
        if cache
        else None,
        "chunked_prefill": (
            f"the prefill in chunks that {plan.owner('llmfw_kv_cache')} wants",
            "leave one of them out",
        )
        if cache and cache.prefill_chunk
        else None,
    }
    for hook in ("llmfw_surgeries", "llmfw_kv_cache", "llmfw_decoder"):
        for answer in plan.answers.get(hook, ()):
            for refusal in answer.value.refuses:
                found = met.get(refusal)
                if found is not None and not (hook == "llmfw_kv_cache" and refusal == "chunked_prefill"):
                    raise ConflictError(
                        "REFUSED",
                        f"{manager.title(answer.plugin)} can't be right with {found[0]}",
                        mend=f"{found[1]} (--no-plugin {answer.plugin})",
                        key="plugins",
                    )


def _padded(rows: int, loss: Any) -> tuple[str, str] | None:
    """What pads training rows on the right, and how to mend it; None: each row stands alone."""
    if loss is not None and loss.batch_kind == "preference":
        return f"the loss {loss.name}, which lays the two answers of a pair side by side", "leave one out"
    return ("rows padded on the right", "set trainer.micro_batch=1") if rows > 1 else None


def _check_settings(plan: Plan, run: Run, model_config: Any) -> None:
    from llmfw.core.data.refusals import Around, refuse_settings

    owner, loss = plan.owner("llmfw_datamodule"), plan.one("llmfw_loss")
    refuse_settings(
        run.config,
        Around(
            transforms=[
                (answer.plugin, answer.value) for answer in plan.answers.get("llmfw_dataset_transforms", ())
            ],
            source=None if owner == DEFAULTS else owner,
            sampler=plan.owner("llmfw_sampler"),
            needs_reference=loss is not None and loss.needs_reference,
            trains=plan.verb in ("fit", "plan"),
            model_config=model_config,
        ),
    )


def _check_vllm(plan: Plan, manager: PluginManager, root: Root, config: Any) -> None:
    """Refuse what vLLM wouldn't know of: it has the weights and the config alone.

    Raises:
        ConflictError: BACKEND.
        ResourceError: it isn't installed.
    """
    hooks = {"llmfw_kv_cache": "cache", "llmfw_decoder": "decoder", "llmfw_surgeries": "surgery"}
    found = [
        f"the {what} of {manager.title(answer.plugin)}"
        for hook, what in hooks.items()
        for answer in plan.answers.get(hook, ())
        if answer.plugin != DEFAULTS and answer.value is not None
    ]
    if getattr(config, "is_encoder_decoder", False):
        found.append("an encoder-decoder")
    if root.model.quantization != "none":
        found.append(f"weights in {root.model.quantization}")
    if found:
        raise ConflictError(
            "BACKEND",
            f"vLLM can't sample with {found[0]}",
            mend="set generation.backend=transformers",
            key="generation.backend",
        )
    from llmfw.core.generation.vllm import require_vllm

    require_vllm()


def _check_encoder_decoder(plan: Plan, manager: PluginManager, config: Any, kind: str | None) -> None:
    """Refuse what works on one row of tokens, where the model has an encoder's row and a decoder's."""
    model = config.model_type
    for hook, what in (("llmfw_kv_cache", "key-value cache"), ("llmfw_decoder", "decoder")):
        if plan.one(hook) is not None:
            owner = plan.owner(hook) or DEFAULTS
            raise ConflictError(
                "ENCODER-DECODER",
                f"the {what} of {manager.title(owner)} is for decoder-only models, "
                f"{model} is an encoder-decoder",
                mend=f"leave it out (--no-plugin {owner}), or take another model",
                key="plugins",
            )
    if plan.one("llmfw_loss") is not None and getattr(config, "output_router_logits", False):
        raise UsageError(
            "ROUTER-LOSS",
            f"the router loss of {model} isn't known",
            mend="set output_router_logits=false in its config",
            key="model.config",
        )
    if kind == "text":
        raise ConflictError(
            "ENCODER-DECODER",
            f"{model} is an encoder-decoder: text rows give its encoder nothing to read",
            mend="give rows with prompt and completion, or take a decoder-only model",
            key="data.name",
        )


def _check_rounds(plan: Plan, manager: PluginManager) -> None:
    """Refuse a loss over batches of another form than the sampler's records make.

    Raises:
        ConflictError: LOSS-ROUNDS.
    """
    loss, sampler = plan.one("llmfw_loss"), plan.one("llmfw_sampler")
    if loss.batch_kind == sampler.batch_kind:
        return
    owner, source = plan.owner("llmfw_loss") or DEFAULTS, plan.owner("llmfw_sampler") or DEFAULTS
    by = "the default loss" if owner == DEFAULTS else f"the loss of {manager.title(owner)}"
    if owner == source:
        mend = "give the sampler's record the batch_kind of its rows, or the loss another"
    elif owner == DEFAULTS:
        mend = f"switch on a plugin whose loss takes {sampler.batch_kind} batches (llmfw plugins list)"
    else:
        mend = f"leave one of them out (--no-plugin {owner} or --no-plugin {source})"
    raise ConflictError(
        "LOSS-ROUNDS",
        f"{by} ({loss.name}) wants {loss.batch_kind} batches, but the rounds of {manager.title(source)} "
        f"({sampler.name}) make {sampler.batch_kind} batches",
        mend=mend,
        key="plugins",
    )


def _check_data(plan: Plan, manager: PluginManager, kind: str | None) -> None:
    loss = plan.one("llmfw_loss")
    wanted = {
        "preference": ("preference",),
        "text": ("completion", "messages", "text", "problems"),
        "scored": ("scored",),
    }[loss.batch_kind]
    if kind is None or kind in wanted:
        return
    owner = plan.owner("llmfw_loss") or DEFAULTS
    source = plan.owner("llmfw_datamodule") or DEFAULTS
    mixed = any(key.startswith("data.mix.") for key in plan.settings)
    data = "data.mix" if mixed else f"data {plan.settings.get('data.name')!r}"
    data = data if source == DEFAULTS else manager.title(source)
    by = "the default loss" if owner == DEFAULTS else f"{manager.title(owner)}'s loss"
    able = " or ".join(f"--plugin {card.name}" for card in cards().values() if "loss" in card.kinds)
    mend = (
        f"switch on a plugin with a preference loss ({able or 'llmfw plugins list'})"
        if kind == "preference" and owner == DEFAULTS
        else f"give it rows of the form {' or '.join(wanted)} (data=FILE)"
    )
    raise ConflictError(
        "LOSS-DATA",
        f"{by} ({loss.name}) wants {loss.batch_kind} batches, but {data} has {kind} rows",
        mend=mend,
        key="data.name",
    )


def _check_evaluations(run: Run, kind: str | None) -> None:
    from llmfw.core.evaluation.own import check_form

    data = run.config.data
    # a folder or a preset may bring held-out rows of its own: that is seen when they're read
    held_out = data.validation not in _NONE or not Path(data.name).is_file()
    check_form(run.config.evaluation.metrics, kind, held_out=held_out)


def _plain_record(record: Any) -> dict[str, Any]:
    if is_dataclass(record) and not isinstance(record, type):
        return {"record": type(record).__name__} | {
            item.name: _plain(getattr(record, item.name)) for item in fields(record)
        }
    return {"object": f"{type(record).__module__}.{type(record).__qualname__}"}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    function = value
    while (inner := getattr(function, "func", None)) is not None:  # functools.partial: its function names it
        function = inner
    module = getattr(function, "__module__", type(value).__module__)
    return f"{module}.{getattr(function, '__qualname__', type(value).__qualname__)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
