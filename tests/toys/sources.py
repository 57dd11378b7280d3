"""The toys' code by plugin name: each answers one hook in the smallest way that leaves a trace."""

HEAD = """
from dataclasses import dataclass
import llmfw
from llmfw import Plugin, hookimpl
"""

COMMAND = (
    HEAD
    + """
class Toy(Plugin):
    @hookimpl
    def llmfw_commands(self):
        def factory():
            import click
            @click.command("toy-hello")
            @click.argument("name")
            def hello(name):
                print(f"hello {name}")
            return hello
        return [llmfw.Command(name="toy-hello", help="Say hello.", factory=factory)]
"""
)

SERVICE = (
    HEAD
    + """
class Toy(Plugin):
    built = 0

    @hookimpl
    def llmfw_services(self, run):
        def factory():
            Toy.built += 1
            return lambda text: len(text)
        return [llmfw.Service(protocol="Rater", name="length", factory=factory)]

    @hookimpl
    def llmfw_evaluations(self, run):
        def rate(policy, services):
            rater = services("Rater")
            return llmfw.EvaluationResult(metrics={"toy/rating": float(rater("four") + services("Rater")(""))})
        return [llmfw.Evaluation(name="toy_rating", run=rate)]
"""
)

DATAMODULE = (
    HEAD
    + """
class Rows(llmfw.DataModule):
    kind = "completion"

    def rows(self, split):
        n = {"train": 8, "validation": 2}[split]
        return [{"prompt": f"{split} {i}", "completion": f"answer {i}"} for i in range(n)]

class Toy(Plugin):
    @hookimpl
    def llmfw_datamodule(self, run, tokenizer):
        return Rows()
"""
)

BARE_DATAMODULE = (
    HEAD
    + """
from lightning.pytorch import LightningDataModule

class Batches(LightningDataModule):
    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def train_dataloader(self):
        import torch
        from llmfw import Batch
        ids = torch.tensor([self.tokenizer("hello")["input_ids"]])
        n = ids.shape[1] - 1
        batch = Batch(
            kind="text", input_ids=ids, mask=torch.ones_like(ids, dtype=torch.bool),
            position_ids=torch.arange(n + 1)[None], source=torch.arange(n), target=ids[0, 1:],
            segment=torch.zeros(n, dtype=torch.long), position=torch.arange(1, n + 1),
            length=torch.tensor([n]), sample_ids=("toy",))
        return iter(lambda: [batch], None)

class Toy(Plugin):
    @hookimpl
    def llmfw_datamodule(self, run, tokenizer):
        return Batches(tokenizer)
"""
)

TRANSFORMS = (
    HEAD
    + """
from dataclasses import replace

class Toy(Plugin):
    @dataclass
    class Config:
        keep: int = 4

    @hookimpl
    def llmfw_dataset_transforms(self, run, tokenizer):
        keep = self.config.keep
        make = llmfw.DatasetTransform
        return [
            make(name="first", stage="rows", apply=lambda rows: llmfw.Transformed(
                items=rows[:keep], metrics={"kept": keep}, tables={"kept": [{"id": row["id"]} for row in rows[:keep]]})),
            make(name="named", stage="tokens", apply=lambda examples: [replace(e, id=f"toy-{e.id}") for e in examples]),
            make(name="counted", stage="units", apply=lambda units: list(units)),
            make(name="backwards", stage="order", apply=lambda units, epoch: list(range(len(units)))[::-1]),
        ]
"""
)

SAMPLER = (
    HEAD
    + """
class Toy(Plugin):
    @dataclass
    class Config:
        rounds: int = 2

    @hookimpl
    def llmfw_sampler(self, run):
        def next_round(index, rows, policy, services, ledger):
            if index == self.config.rounds:
                return None
            prompts = [row["prompt"] for row in rows[:2]]
            completions = ledger.generate(policy, prompts, purpose="toy", max_new_tokens=4)
            records = [{"prompt": p, "completion": c.text + "!"} for p, c in zip(prompts, completions)]
            return llmfw.Round(records=records, start="last" if index else "base", keep_as="student")
        return llmfw.RolloutSampler(name="toy", next=next_round)
"""
)

SURGERY = (
    HEAD
    + """
class Toy(Plugin):
    @dataclass
    class Config:
        scale: float = 0.1

    @hookimpl
    def llmfw_surgeries(self, run, model_config):
        def apply(model, generator):
            import torch
            norm = model.model.norm
            width = norm.weight.shape[0]
            norm.register_parameter("toy_shift", torch.nn.Parameter(self.config.scale * torch.randn(width, generator=generator)))
            norm.register_forward_hook(lambda module, inputs, output: output + module.toy_shift)
            return llmfw.Report(changed=("model.norm.toy_shift",))
        return [llmfw.Surgery(name="shift", phase="after_load", apply=apply, trainable=("model.norm.toy_shift",),
                              no_weight_decay=("model.norm.toy_shift",))]
"""
)

LOSS = (
    HEAD
    + """
class Toy(Plugin):
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        def call(policy, batch, reference):
            logps = policy.logps(batch)
            return llmfw.LossOutput(total=2 * -logps.sum(), metrics={"toy/logp": (logps.detach().sum(), batch.tokens)},
                                    details={"nll": -logps.detach()})
        return llmfw.Loss(name="toy", call=call, batch_kind="text", unit="tokens")
"""
)

METRICS = LOSS.replace(
    "class Toy(Plugin):",
    """class Toy(Plugin):
    @hookimpl
    def llmfw_metrics(self, run, stage):
        from torchmetrics import MaxMetric
        return [llmfw.NamedMetric(name="toy/worst", factory=MaxMetric,
                                  update=lambda metric, output, batch: metric.update(output.details["nll"]))]
""",
)

CALLBACKS = (
    HEAD
    + """
class Toy(Plugin):
    steps = 0

    @hookimpl
    def llmfw_callbacks(self, run):
        from lightning.pytorch import Callback

        class Count(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, index):
                Toy.steps += 1
        return [Count()]
"""
)

KV_CACHE = (
    HEAD
    + """
class Toy(Plugin):
    calls = 0
    widths = []

    @hookimpl
    def llmfw_kv_cache(self, run, model_config):
        def attention(module, query, key, value, attention_mask, **kwargs):
            from transformers.integrations.sdpa_attention import sdpa_attention_forward
            Toy.calls += 1
            Toy.widths.append(query.shape[2])
            return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

        def build(config):
            from transformers import DynamicCache
            return DynamicCache(config=config)
        return llmfw.CacheFactory(name="toy", build=build, attention=("toy_attention", attention), prefill_chunk=4)
"""
)

DECODER = (
    HEAD
    + """
class Toy(Plugin):
    @hookimpl
    def llmfw_decoder(self, run, model_config):
        def generate(policy, input_ids, sampling, cache):
            return [104, 105][: sampling.max_new_tokens]
        return llmfw.Decoder(name="toy", generate=generate)
"""
)
