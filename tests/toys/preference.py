"""A toy's loss over pairs that asks for a reference, with two settings and no overlay of its own."""

PREFERENCE = """
    from dataclasses import dataclass
    import llmfw
    from llmfw import Plugin, hookimpl

    class Toy(Plugin):
        @dataclass
        class Config:
            scale: float = 1.0
            twist: float = 0.5

        @hookimpl
        def llmfw_loss(self, run, tokenizer, model_config):
            def call(policy, batch, reference):
                logps = policy.logps(batch)
                total = self.config.scale * (logps.sum() - reference.logps(batch).sum())
                return llmfw.LossOutput(total=-total, metrics={}, details={})
            return llmfw.Loss(name="pref", call=call, batch_kind="preference", unit="pairs", needs_reference=True)
"""  # noqa: E501
