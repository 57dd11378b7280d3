from llmfw import DataModule, Plugin, hookimpl


class Additions(DataModule):
    """Sums of two digits; templates, masks, splits and batches are the core's."""

    kind = "completion"

    def rows(self, split):
        if split == "validation":
            return None  # hold out a share of the training rows
        return [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(10) for b in range(10)]


class Example(Plugin):
    @hookimpl
    def llmfw_datamodule(self, run, tokenizer):
        return Additions()
