from llmfw import NamedMetric, Plugin, hookimpl


def mean():
    from torchmetrics import MeanMetric

    return MeanMetric()


def tokens_per_sample(metric, output, batch):
    """``output`` is the loss's LossOutput for this micro-batch, with its ``details``."""
    metric.update(batch.tokens / len(batch.sample_ids))


class Example(Plugin):
    @hookimpl
    def llmfw_metrics(self, run, stage):
        return [NamedMetric(name="tokens_per_sample", factory=mean, update=tokens_per_sample)]
