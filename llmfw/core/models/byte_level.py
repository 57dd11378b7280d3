"""One token a byte: a real fast tokenizer, made here, so that offsets, templates and saving work as with
any other.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmfw.core.models.templates import CHATML

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")
"""Ids 256 to 260, in this order."""


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies, by byte value.

    Printable Latin-1 stands for itself; the 68 others are moved to U+0100 and up in order (the alphabet
    of GPT-2).
    """
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(byte) if byte in kept else chr(next(moved)) for byte in range(256)]


def byte_tokenizer(max_length: int = 8192) -> PreTrainedTokenizerFast:
    """Token id = byte value; special tokens follow. No token is added to a text; ``<|im_end|>`` ends a turn.

    Args:
        max_length: the tokenizer's ``model_max_length``, tokens.
    """
    core = Tokenizer(
        models.BPE(vocab={character: byte for byte, character in enumerate(byte_characters())}, merges=[])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    pad, bos, eos, start, end = SPECIAL_TOKENS
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        additional_special_tokens=[start, end],
        chat_template=CHATML,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    return tokenizer
