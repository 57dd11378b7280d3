from llmfw import DatasetTransform, Plugin, Transformed, hookimpl


def without_repeats(rows):
    """One row a prompt; tells how many went."""
    kept = list({row["prompt"]: row for row in rows}.values())
    return Transformed(items=kept, metrics={"repeats": len(rows) - len(kept)})


def short_first(examples, epoch):
    """The order of an epoch: each index exactly once."""
    return sorted(range(len(examples)), key=lambda index: examples[index].length)


class Example(Plugin):
    @hookimpl
    def llmfw_dataset_transforms(self, run, tokenizer):
        return [
            DatasetTransform(name="without_repeats", stage="rows", apply=without_repeats),
            DatasetTransform(name="short_first", stage="order", apply=short_first),
        ]
