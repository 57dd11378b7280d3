"""Tokenizers: the model's own, another folder's or repository's, or one token a byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw.core.errors import UsageError
from llmfw.core.models.configs import check_code
from llmfw.core.models.fetch import hub_folder, local_folder
from llmfw.core.models.source import ModelSource, as_model, read_json, resolve_model
from llmfw.core.models.templates import find_template
from llmfw.core.schema import ModelConfig, TokenizerConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")


def load_tokenizer(
    model: ModelConfig | ModelSource, tokenizer: TokenizerConfig | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a run. A model made from scratch has the byte tokenizer for its own.

    A tokenizer without a padding token pads with its end-of-text token (padding is masked everywhere).

    Raises:
        UsageError: no such tokenizer or template, or one that would run code.
    """
    source = model if isinstance(model, ModelSource) else resolve_model(model)
    asked = tokenizer or TokenizerConfig()
    found = _named(asked.name, source) if asked.name else _own(source)
    if asked.template is not None:
        found.chat_template = find_template(asked.template, found)
    if found.pad_token_id is None:
        if found.eos_token is None:
            raise UsageError(
                "TOKENIZER",
                "the tokenizer has neither a padding nor an end-of-text token",
                mend="choose another with tokenizer.name",
                key="tokenizer.name",
            )
        found.pad_token = found.eos_token
    return found


def limit_positions(tokenizer: Any, model_config: Any) -> None:
    """Lower a tokenizer's ``model_max_length`` to the positions that a decoder-only model has."""
    positions = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < tokenizer.model_max_length:
        tokenizer.model_max_length = positions


def check_vocabulary(tokenizer: Any, model_config: Any) -> None:
    """Refuse a tokenizer whose ids the model's embedding doesn't reach.

    Raises:
        UsageError: the largest id isn't below the model's vocabulary size.
    """
    size = getattr(model_config.get_text_config(), "vocab_size", None)
    largest = max(tokenizer.get_vocab().values())
    if size is not None and largest >= size:
        raise UsageError(
            "VOCABULARY",
            f"the tokenizer's ids reach {largest}, the model has {size} (0 to {size - 1})",
            mend="use the model's own tokenizer (tokenizer.name=null); of a model from scratch leave out "
            "model.config.vocab_size",
            key="tokenizer.name",
        )


def _named(name: str, source: ModelSource) -> PreTrainedTokenizerBase:
    if name == "byte":
        return _bytes(source)
    path = Path(name).expanduser()
    if path.is_dir() and any((path / file).is_file() for file in _FILES):
        return _load(path.absolute(), source.model)
    try:
        named = resolve_model(name)  # a run's folder, a GGUF file, a preset, a hub id
    except UsageError as error:
        if error.code != "MODEL-FOLDER":
            raise
        return _load(path.absolute(), source.model)  # refused in the words of a tokenizer
    if named.kind == "hub":
        return _load(hub_folder(name, None, weights=False, code=source.model.trust_remote_code), source.model)
    return _own(named)


def _own(source: ModelSource) -> PreTrainedTokenizerBase:
    if source.kind == "scratch":
        return _bytes(source)
    if source.kind in ("adapter", "full") and not _has_tokenizer(source):
        assert source.manifest is not None
        base = replace(as_model(source.manifest["model"]), trust_remote_code=source.model.trust_remote_code)
        return _own(resolve_model(base))
    return _load(local_folder(source, weights=False), source.model)


def _has_tokenizer(source: ModelSource) -> bool:
    return source.folder is not None and any((source.folder / name).is_file() for name in _FILES)


def _bytes(source: ModelSource) -> PreTrainedTokenizerBase:
    from llmfw.core.models.byte_level import byte_tokenizer

    return byte_tokenizer(int(source.model.config.get("max_position_embeddings", 8192)))


def _is_plain(folder: Path) -> bool:
    """Whether ``tokenizer.json`` says all there is to say: the folder names no class of its own."""
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    said = read_json(path)
    return said.get("tokenizer_class") in _PLAIN and "auto_map" not in said


def _load(folder: Path, settings: ModelConfig) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_code(folder, settings)
    if not any((folder / name).is_file() for name in _FILES):
        raise UsageError(
            "TOKENIZER",
            "the folder holds no tokenizer",
            file=folder,
            mend="choose one with tokenizer.name",
            key="tokenizer.name",
        )
    # of some model types AutoTokenizer splits words in one way, whatever the folder says
    plain = _is_plain(folder)
    loader: Any = PreTrainedTokenizerFast if plain else AutoTokenizer
    code = {} if plain else {"trust_remote_code": settings.trust_remote_code}
    try:
        loaded: PreTrainedTokenizerBase = loader.from_pretrained(folder, local_files_only=True, **code)
    except Exception as error:  # tokenizers raises bare Exception, transformers many kinds
        said = " ".join(str(error).split())[:300]
        raise UsageError(
            "TOKENIZER",
            f"the tokenizer can't be loaded: {type(error).__name__}: {said}",
            file=folder,
            mend="restore its files, or choose another with tokenizer.name",
            key="tokenizer.name",
        ) from error
    return loaded
