"""A folder's tokenizer in the words of GGUF: byte-level BPE as ``gpt2``, with its pre-tokenizer's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.models.talk import quiet
from llmfw.core.models.turns import turn_end

_PROBE = (
    "The 3 quick brown foxes don't jump over 1234567 lazy dogs: 3.14 + 2e-5 = x_1?\n\n  def f(a, b):\n\t"
    "return a**2  # naïve café Größe Ελληνικά 日本語 🙂🙃\r\n <b>MiXeD</b> CASE'S we'll  "
)
"""What the file's tokenizer and the folder's must read alike, beside each special token."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What GGUF holds of a tokenizer."""

    model: str
    pre: str
    tokens: list[str]
    """By id; ids that the model has and the tokenizer lacks are ``[PADid]``."""
    types: list[int]
    """Of ``gguf.TokenType``, by id."""
    merges: list[str]
    special: Mapping[str, int]
    """bos, eos, eot, unk, pad -> id."""
    adds_bos: bool
    adds_eos: bool
    template: str | None
    tokenizer: Any = field(repr=False)
    """The folder's."""
    folder: Path

    def compare(self, file: Path) -> None:
        """Read the tokenizer of the written file and compare what it makes of a text.

        Raises:
            UsageError: it makes other ids of it.
        """
        from transformers import PreTrainedTokenizerFast

        names = [self.tokens[token] for token in sorted(set(self.special.values()))]
        some = range(0, len(self.tokens), 1 + len(self.tokens) // 4096)
        texts = (_PROBE, "a".join(["", *names, ""]), *(f" {self.tokenizer.decode([one])} 12" for one in some))
        wanted = [self.tokenizer(text)["input_ids"] for text in texts]
        with quiet():
            plain: Any = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
        for text, ours in zip(texts, wanted):
            theirs = plain(text)["input_ids"]
            if ours != theirs:
                at = next((n for n, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), len(ours))
                raise _refused(
                    f"the file's tokenizer would read {text[:20]!r}... differently from token {at} on",
                    self.folder,
                )


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The tokenizer of an HF folder for a model with ``size`` ids.

    Raises:
        UsageError: there is none, it isn't byte-level BPE, or its ids reach beyond the model.
    """
    from gguf import SpecialVocab, TokenType
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise _refused("the folder holds no tokenizer.json", folder)
    # AutoTokenizer puts the class of some model types in the place of what tokenizer.json says
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = _pre_tokenizer(made, folder)
    known = {token: text for text, token in tokenizer.get_vocab().items()}
    if max(known) >= size:
        raise UsageError(
            "VOCABULARY", f"the tokenizer's ids reach {max(known)}, the model has {size} (0 to {size - 1})",
            file=folder, mend="use the model's own tokenizer",
        )  # fmt: skip
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for token in range(size):
        tokens.append(known.get(token, f"[PAD{token}]"))
        if token not in known:
            types.append(TokenType.UNUSED)
        elif token in added:
            types.append(TokenType.CONTROL if added[token].special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL)
    said = SpecialVocab(folder, load_merges=True, n_vocab=size)
    special = {name: said.special_token_ids[name] for name in ("unk",) if name in said.special_token_ids}
    for name in ("bos", "eos", "pad"):
        if (token := getattr(tokenizer, f"{name}_token_id")) is not None:
            special[name] = token
    turn = turn_end(tokenizer) if isinstance(tokenizer.chat_template, str) else None
    if turn is not None and turn != special.get("eos"):
        special["eot"] = turn
    plain = tokenizer("a")["input_ids"]
    return Vocabulary(
        model="gpt2",
        pre=pre,
        tokens=tokens,
        types=[int(kind) for kind in types],
        merges=list(said.merges),
        special=special,
        adds_bos=plain[:1] == [tokenizer.bos_token_id],
        adds_eos=plain[-1:] == [tokenizer.eos_token_id],
        template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        tokenizer=tokenizer,
        folder=folder,
    )


def _pre_tokenizer(made: Mapping[str, Any], folder: Path) -> str:
    """GGUF's name for how the text is split before merges."""
    model, steps = made["model"], made.get("pre_tokenizer") or {}
    decoder = (made.get("decoder") or {}).get("type")
    if model["type"] != "BPE" or decoder != "ByteLevel" or model.get("byte_fallback"):
        kind = f"{model['type']}{' with byte fallback' if model.get('byte_fallback') else ''}"
        raise _refused(f"a tokenizer of kind {kind} can't be written as GGUF, byte-level BPE can", folder)
    normalizer = (made.get("normalizer") or {}).get("type")
    for what, is_wrong in {
        f"normaliser {normalizer}": normalizer not in (None, "NFC"),
        "a prefix or suffix inside words": model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix"),
        "dropout": model.get("dropout"),
    }.items():
        if is_wrong:
            raise _refused(f"a tokenizer with {what} can't be written as GGUF", folder)
    name = _split_name(steps.get("pretokenizers", [steps]), bool(model.get("merges")))
    if name is None:
        raise _refused("GGUF has no name for how this tokenizer splits a text into words", folder)
    if model.get("ignore_merges") and name not in ("llama-bpe", "tekken"):
        raise _refused("a tokenizer that ignores merges for whole words can't be written as GGUF", folder)
    return name


def _split_name(steps: list[Mapping[str, Any]], has_merges: bool) -> str | None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    splits, (*before,) = steps[-1].get("use_regex", True), steps[:-1]
    if not before:
        # without merges every byte is a token, however the text is split
        return "gpt-2" if splits or not has_merges else None
    if len(before) > 1:
        return None
    (one,) = before
    if one.get("type") == "Digits" and one.get("individual_digits") and splits:
        return "smollm"
    if (
        one.get("type") == "Split"
        and one.get("behavior") == "Isolated"
        and not splits
        and not one.get("invert")
    ):
        wanted = one["pattern"].get("Regex")
        for name in ("llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o"):
            if GGUF_PRE_TOKENIZER_SPLITS.get(name) == wanted:
                return name
    return None


def _refused(what: str, folder: Path) -> UsageError:
    return UsageError("GGUF-TOKENIZER", what, file=folder, mend="keep the HF folder")
