"""A plugin with one of each part; every part takes a known time and holds a known number of bytes."""

SLOW = """
    import time
    from dataclasses import dataclass

    import torch
    import llmfw
    from llmfw import Plugin, hookimpl


    class Pause(torch.autograd.Function):
        # the identity; its backward pass takes 15 ms
        @staticmethod
        def forward(ctx, values):
            return values.view_as(values)

        @staticmethod
        def backward(ctx, gradient):
            time.sleep(0.015)
            return gradient


    class Gate(torch.nn.Module):
        # around the base's norm: 10 ms, 3 numbers, and a buffer of 5 that no state holds
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("mask", torch.zeros(5), persistent=False)

        def forward(self, states):
            time.sleep(0.01)
            return self.inner(states) * self.scale.mean()


    class Counts(__import__("torchmetrics").Metric):
        def __init__(self):
            super().__init__()
            self.add_state("sums", torch.zeros(7, dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, value):
            time.sleep(0.004)

        def compute(self):
            time.sleep(0.004)
            return torch.tensor(1.0)


    class Slow(__import__("lightning.pytorch").pytorch.Callback):
        def on_train_start(self, trainer, module):
            time.sleep(0.03)

        def on_before_optimizer_step(self, trainer, module, optimizer):
            time.sleep(0.003)

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            time.sleep(0.003)


    class Toy(Plugin):
        @hookimpl
        def llmfw_loss(self, run, tokenizer, model_config):
            def call(policy, batch, reference):
                with torch.no_grad():
                    reference.logps(batch)
                logps = policy.logps(batch)
                time.sleep(0.02)
                # exp keeps its result, N float32; Pause and sum keep nothing
                return llmfw.LossOutput(total=-Pause.apply(logps).exp().sum(), metrics={}, details={})
            return llmfw.Loss(name="slow", call=call, batch_kind="text", unit="tokens", needs_reference=True)

        @hookimpl
        def llmfw_surgeries(self, run, model_config):
            def apply(model, generator):
                model.model.norm = Gate(model.model.norm)
                return llmfw.Report(changed=("model.norm",))
            return [llmfw.Surgery(name="gate", phase="after_load", apply=apply,
                                  trainable=("model.norm.scale",))]

        @hookimpl
        def llmfw_metrics(self, run, stage):
            return [llmfw.NamedMetric(name="toy/counts", factory=Counts,
                                      update=lambda metric, output, batch: metric.update(1.0))]

        @hookimpl
        def llmfw_callbacks(self, run):
            return [Slow()]

        @hookimpl
        def llmfw_dataset_transforms(self, run, tokenizer):
            def keep(rows):
                time.sleep(0.02)
                return rows
            return [llmfw.DatasetTransform(name="keep", stage="rows", apply=keep)]

        @hookimpl
        def llmfw_services(self, run):
            def build():
                time.sleep(0.02)
                return len
            return [llmfw.Service(protocol="Rater", name="length", factory=build)]

        @hookimpl
        def llmfw_evaluations(self, run):
            def rate(policy, services):
                services("Rater")
                return llmfw.EvaluationResult(metrics={"toy/rating": 1.0})
            return [llmfw.Evaluation(name="rate", run=rate)]
"""
