from dataclasses import dataclass

from llmfw import Loss, LossOutput, Plugin, hookimpl


def focal(gamma):
    """Cross entropy in which a token of probability p counts (1 - p) ** gamma."""

    def call(policy, batch, reference):
        logps = policy.logps(batch)  # [N]: the trained tokens, laid end to end
        weights = (1 - logps.exp()) ** gamma
        nll = -logps.detach().sum()
        return LossOutput(total=-(weights * logps).sum(), metrics={"nll": (nll, batch.tokens)})

    return call


class Example(Plugin):
    @dataclass
    class Config:
        gamma: float = 0.0  # neutral: plain cross entropy

    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        return Loss(name="focal", call=focal(self.config.gamma), batch_kind="text", unit="tokens")
