"""A plugin that answers every hook and writes down what it is asked, in order; a test installs it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from llmfw import (
    CacheFactory,
    Command,
    DatasetTransform,
    Decoder,
    Evaluation,
    EvaluationResult,
    Loss,
    LossOutput,
    NamedMetric,
    Plugin,
    Report,
    RolloutSampler,
    Round,
    Service,
    Surgery,
    hookimpl,
)

TRACE: list[str] = []


def note(line: str) -> None:
    """Append to the trace, unless the line before says the same."""
    if TRACE[-1:] != [line]:
        TRACE.append(line)


def hook(function: Any) -> Any:
    """A hook whose call is written down."""

    @hookimpl
    @functools.wraps(function)
    def noted(*arguments: Any, **named: Any) -> Any:
        stage = f"({named.get('stage') or arguments[-1]})" if function.__name__ == "llmfw_metrics" else ""
        note(f"hook {function.__name__}{stage}")
        return function(*arguments, **named)

    return noted


def said(line: str, answer: Any) -> Any:
    """A function that writes a line and hands its first argument, or an answer, back."""

    def call(*arguments: Any) -> Any:
        note(line)
        return answer(*arguments) if callable(answer) else answer

    return call


class Toy(Plugin):
    @dataclass
    class Config:
        rounds: int = 0

    @hook
    def llmfw_commands(self):
        return [Command(name="everywhere", help="Nothing.", factory=lambda: None)]

    @hook
    def llmfw_services(self, run):
        return [Service(protocol="Judge", name="judge", factory=said("service built", lambda: "judge"))]

    @hook
    def llmfw_datamodule(self, run, tokenizer):
        from llmfw import DataModule

        class Sums(DataModule):
            kind = "completion"

            def rows(self, split):
                note(f"rows of {split}")
                return (
                    [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(8)]
                    if split == "train"
                    else None
                )

        return Sums()

    @hook
    def llmfw_dataset_transforms(self, run, tokenizer):
        stages = ("rows", "tokens", "units")
        same = [
            DatasetTransform(name=stage, stage=stage, apply=said(f"transform {stage}", lambda items: items))
            for stage in stages
        ]
        order = said("transform order", lambda items, epoch: range(len(items)))
        return [*same, DatasetTransform(name="order", stage="order", apply=order)]

    @hook
    def llmfw_sampler(self, run):
        def next_round(index, rows, policy, services, ledger):
            note(f"sampler round {index}")
            if index == self.config.rounds:
                return None
            services("Judge")
            return Round(records=[{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])

        return RolloutSampler(name="rounds", next=next_round) if self.config.rounds else None

    @hook
    def llmfw_surgeries(self, run, model_config):
        def on_config(config, generator):
            note("surgery before_load")
            config.attention_dropout = 0.0
            return Report(changed=("attention_dropout",))

        def on_model(phase):
            def apply(model, generator):
                note(f"surgery {phase}")
                return Report(changed=(f"note {phase}",))

            return apply

        return [
            Surgery(name="config", phase="before_load", apply=on_config),
            Surgery(name="after_load", phase="after_load", apply=on_model("after_load")),
            Surgery(name="after_adapters", phase="after_adapters", apply=on_model("after_adapters")),
        ]

    @hook
    def llmfw_loss(self, run, tokenizer, model_config):
        def call(policy, batch, reference):
            note("loss")
            return LossOutput(total=-policy.logps(batch).sum())

        return Loss(
            name="nll",
            call=call,
            batch_kind="text",
            unit="tokens",
            calibrate=said("calibrate", lambda policy, batches: None),
        )

    @hook
    def llmfw_evaluations(self, run):
        def evaluate(policy, services):
            note("evaluation")
            policy.generate(["1+1="], max_new_tokens=2)
            return EvaluationResult(metrics={"everywhere/one": 1.0})

        return [Evaluation(name="everywhere", run=evaluate, when=("start", "end"))]

    @hook
    def llmfw_metrics(self, run, stage):
        def factory():
            from torchmetrics import SumMetric

            return SumMetric()

        def update(metric, output, batch):
            note(f"metric of {stage}")
            metric.update(1.0)

        return [NamedMetric(name=f"everywhere/{stage}", factory=factory, update=update)]

    @hook
    def llmfw_callbacks(self, run):
        from lightning.pytorch import Callback

        class Watch(Callback):
            def on_fit_start(self, trainer, module):
                note("callback fit start")

            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                note("callback step end")

            def on_fit_end(self, trainer, module):
                note("callback fit end")

        return [Watch()]

    @hook
    def llmfw_kv_cache(self, run, model_config):
        def build(config):
            from transformers import DynamicCache

            note("cache built")
            return DynamicCache(config=config)

        return CacheFactory(name="plain", build=build)

    @hook
    def llmfw_decoder(self, run, model_config):
        def generate(policy, input_ids, sampling, cache):
            note("decoder")
            cache()
            return [sampling.stop_ids[0]] if sampling.stop_ids else [1]

        return Decoder(name="stop_at_once", generate=generate)
