"""Tokenizers trained on a run's own text: byte-level, so that every text comes back as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.errors import DataError, UsageError
from llmfw.core.models.talk import waiting
from llmfw.core.models.templates import CHATML, control_tokens, read_template
from llmfw.core.schema import TokenizerConfig

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""Ids 0 to 3, in this order; the chat template's control tokens follow."""
_WORD = 64
"""Longest word of wordpiece, bytes: its search takes quadratic time; longer words are cut."""
_FORMAT = 1
"""Raised when training gives something else for the same text and settings."""


def trained_tokenizer(config: TokenizerConfig, texts: Sequence[str], model_type: str) -> Path:
    """The folder of the tokenizer that ``config`` asks for, trained on these texts unless the cache has it.

    Bytes are mapped to characters before anything is counted, so nothing is unknown and nothing normalised.
    bpe: merges of frequent pairs (arXiv 1508.07909). unigram: the likeliest pieces under a model of single
    pieces (arXiv 1804.10959). wordpiece: the longest known piece first (arXiv 2012.15524), its pieces learnt
    by merges.

    Args:
        texts: the training rows' text, in order.
        model_type: transformers' name of the architecture. Of some, its AutoTokenizer splits words in one way
            whatever the folder says; words are then split in that way here, too.

    Raises:
        UsageError: fewer tokens than bytes and special tokens.
        DataError: there is no text.
    """
    template = CHATML if config.template is None else read_template(config.template)
    special = list(dict.fromkeys([*SPECIAL_TOKENS, *control_tokens(template, config.template or "chatml")]))
    least = 256 + len(special)
    if config.vocab_size < least:
        raise UsageError(
            "TOKENIZER-TRAIN",
            f"{config.vocab_size} tokens can't hold 256 bytes and {len(special)} special ones",
            mend=f"set tokenizer.vocab_size to at least {least}", key="tokenizer.vocab_size",
        )  # fmt: skip
    if not any(text.strip() for text in texts):
        raise DataError(
            "TOKENIZER-TRAIN", "the training rows hold no text to train a tokenizer on",
            mend="name a tokenizer with tokenizer.name", key="tokenizer.train",
        )  # fmt: skip
    split = _split_of(model_type)
    digest = hashlib.sha256()
    said = [_FORMAT, config.train, config.vocab_size, special, template, split, version("tokenizers")]
    digest.update(json.dumps(said).encode())
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    target = cache_dir("tokenizers") / f"{config.train}-{config.vocab_size}-{digest.hexdigest()[:24]}"

    def build(folder: Path) -> None:
        with waiting(f"train a {config.train} tokenizer of {config.vocab_size} tokens (once)"):
            _save(_train(config, texts, special, split), template, folder)

    return locked_build(target, build)


def file_hash(folder: Path) -> str:
    """SHA-256 of a tokenizer's ``tokenizer.json``."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def _split_of(model_type: str) -> str | None:
    """The regular expression by which transformers will split words for this architecture; None: GPT-2's."""
    from transformers.models.auto import tokenization_auto as auto

    if model_type not in getattr(auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", ()):
        return None
    name = auto.TOKENIZER_MAPPING_NAMES.get(model_type)
    found = auto.tokenizer_class_from_name(name) if name else None
    if found is None or found.__name__ in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        return None
    import sys

    return getattr(sys.modules[found.__module__], "PRETOKENIZE_REGEX", None)


def _train(config: TokenizerConfig, texts: Sequence[str], special: list[str], split: str | None) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    common: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "special_tokens": special,
        "initial_alphabet": bytes_,
        "show_progress": False,
    }
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(split), behavior="isolated"))
    unknown = SPECIAL_TOKENS[3]
    trainer: Any
    if config.train == "bpe":
        core, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer(**common)
    elif config.train == "unigram":
        core, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(unk_token=unknown, **common)
    else:
        core = Tokenizer(models.WordPiece(unk_token=unknown, max_input_chars_per_word=_WORD))
        trainer = trainers.WordPieceTrainer(continuing_subword_prefix="", **common)
        steps.append(pre_tokenizers.Split(Regex(f".{{1,{_WORD}}}"), behavior="isolated"))
    core.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(iter(texts), trainer, length=len(texts))
    if config.train == "wordpiece":
        core.model.continuing_subword_prefix = ""
        core.model.max_input_chars_per_word = _WORD
    return core


def _save(core: Any, template: str, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos, unknown = SPECIAL_TOKENS
    control = [
        token.content
        for token in core.get_added_tokens_decoder().values()
        if token.content not in SPECIAL_TOKENS
    ]
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
        additional_special_tokens=control,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    tokenizer.save_pretrained(folder)
