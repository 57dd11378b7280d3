"""Weights and batches that the benchmarks of steps share: SmolLM2 with CHAMP's pairs and problems, and made
ones.

Pairs and texts are token ids, so that no side tokenises: a pair has ``prompt``, ``chosen`` and ``rejected``
(answers with their ends), a text has ``ids`` and ``trained``. A task's first steps are its warm-up: the first
step again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Samples = list[dict[str, Any]]
TINY = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 1024,
    "tie_word_embeddings": True, "rope_theta": 10000.0,
}  # fmt: skip
"""A Llama for a look at whether everything runs."""
LOWEST = 16
"""Made tokens are at least this: lower ids may be control tokens."""


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct's converted weights, made on first use."""
    from llmfw.core.models import resolve_model
    from llmfw.core.models.fetch import local_folder

    return local_folder(resolve_model("smollm2-135m"))


def made(folder: Path, config: Mapping[str, Any], *, dtype: str = "float32", seed: int = 0) -> Path:
    """A folder with a model of this config, its weights drawn at random, and a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(seed)
    given = {key: value for key, value in config.items() if key != "model_type"}
    told = AutoConfig.for_model(config["model_type"], **given, bos_token_id=0, eos_token_id=0, pad_token_id=1)
    AutoModelForCausalLM.from_config(told, dtype=getattr(torch, dtype)).save_pretrained(folder)
    words = {word: i for i, word in enumerate(["<eos>", "<pad>", "<unk>", *"abcdefghijkl"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def champ_pairs(count: int, *, longest: int = 384) -> Samples:
    """The first ``count`` pairs of the preset champ-preferences, one a problem, in the order in which they
    come; each side is cut at ``longest`` tokens.
    """
    found = _prepared(
        "data=champ-preferences", "data.options.lengths=natural", "data.options.per_problem=1",
        "data.max_length=1024",
    )  # fmt: skip
    pairs = []
    for example in found[:count]:
        chosen, rejected = (_answered(side)[:longest] for side in example.sequences)
        start = example.extra["prompt_length"][0]
        pairs.append({"prompt": chosen[:start], "chosen": chosen[start:], "rejected": rejected[start:]})
    return pairs


def _answered(side: Any) -> list[int]:
    """A side's tokens up to the last trained one: a template's line break after it is nobody's answer."""
    return list(side.ids[: max(index for index, flag in enumerate(side.trained) if flag) + 1])


def champ_texts(count: int) -> Samples:
    """The first ``count`` problems of the preset champ-problems with their solutions, uncut, in the order in
    which they come; the solution is trained.
    """
    found = _prepared("data=champ-problems", "data.max_length=2048", "data.validation=null")
    return [
        {"ids": list(text.ids), "trained": list(map(int, text.trained))}
        for text in (example.sequences[0] for example in found[:count])
    ]


def _prepared(*settings: str) -> list[Any]:
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.data import prepare

    assembled = assemble(settle(overrides=("model=smollm2-135m", *settings)), "data")
    return prepare(assembled.run.config, assembled.tokenizer).train


def made_pairs(lengths: Sequence[tuple[int, int, int]], vocabulary: int, *, seed: int = 0) -> Samples:
    """Pairs of random tokens; ``lengths``: prompt, chosen and rejected of each."""
    draw = random.Random(seed)
    return [
        {
            name: draw.choices(range(LOWEST, vocabulary), k=length)
            for name, length in zip(("prompt", "chosen", "rejected"), three, strict=True)
        }
        for three in lengths
    ]


def made_texts(lengths: Sequence[int], vocabulary: int, *, seed: int = 0) -> Samples:
    """Texts of random tokens; a third of each is its prompt."""
    draw = random.Random(seed)
    return [
        {
            "ids": draw.choices(range(LOWEST, vocabulary), k=length),
            "trained": [int(index >= max(1, length // 3)) for index in range(length)],
        }
        for length in lengths
    ]


def in_steps(samples: Samples, size: int, *, warmup: int | None = 1) -> list[Samples]:
    """Steps of ``size`` samples in their order; before them the first one again, ``warmup`` times, or all of
    them once (None).
    """
    if len(samples) % size:
        raise ValueError(f"{len(samples)} samples can't be dealt out in steps of {size}")
    steps = [samples[start : start + size] for start in range(0, len(samples), size)]
    return (steps if warmup is None else [steps[0]] * warmup) + steps
