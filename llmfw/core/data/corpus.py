"""The raw text of a run's training rows, and the tokenizer that is trained on it before the plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llmfw.core.data.module import ConfiguredData
from llmfw.core.data.parts import Reading, read_part
from llmfw.core.data.reader import BadRows, ReadCounts
from llmfw.core.data.report import DataReport
from llmfw.core.data.sources import Source, open_sources
from llmfw.core.errors import UsageError
from llmfw.core.models.configs import load_model_config
from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.scratch import fitted
from llmfw.core.models.source import ModelSource
from llmfw.core.models.tokenizer import limit_positions, load_tokenizer
from llmfw.core.schema import Root, TokenizerConfig

_KEYS: Final = (
    "text",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "messages",
    "solution",
    "answer",
    "tools",
)


@dataclass(frozen=True, kw_only=True)
class OpenedTokenizer:
    """A run's tokenizer and the source that fits it. ``facts`` go into the plan, ``notes`` are told."""

    tokenizer: Any
    source: ModelSource
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_tokenizer(root: Root, source: ModelSource, brought_by: str | None = None) -> OpenedTokenizer:
    """The tokenizer of a run, trained on its data where ``tokenizer.train`` asks for it; what the config of a
    model from scratch leaves open follows it.

    Args:
        brought_by: the plugin that brings the rows, where one does.

    Raises:
        UsageError: settings that can't be together; a tokenizer that can't be found or trained.
        DataError: rows that can't be read.
    """
    config = root.tokenizer
    notes: list[str] = []
    facts: dict[str, Any] = {}
    if config.train is None:
        if config.vocab_size != TokenizerConfig().vocab_size:
            raise _refused(
                "without tokenizer.train it has no effect", "set tokenizer.train=bpe", "tokenizer.vocab_size"
            )
        tokenizer: Any = load_tokenizer(source, config)
    else:
        _check(root, source, brought_by)
        tokenizer, facts, note = _trained(root, source)
        notes.append(note)
    fitting, more = fitted(source, tokenizer)
    if source.kind != "package":  # its tokenizer knows
        model_config = load_model_config(fitting)
        if not is_encoder_decoder(model_config):
            limit_positions(tokenizer, model_config)
    return OpenedTokenizer(tokenizer=tokenizer, source=fitting, facts=facts, notes=(*notes, *more))


def _trained(root: Root, source: ModelSource) -> tuple[Any, dict[str, Any], str]:
    from llmfw.core.models.tokenizer_training import file_hash, trained_tokenizer

    config = root.tokenizer
    texts = corpus(root)
    folder = trained_tokenizer(config, texts, str(source.model.config.get("model_type")))
    tokenizer: Any = load_tokenizer(source, replace(config, name=str(folder), train=None))
    count = len(tokenizer)
    facts = {"train": config.train, "tokens": count, "tokenizer.json": file_hash(folder)}
    fewer = (
        f" of the {config.vocab_size} asked for: the text yields no more" if count < config.vocab_size else ""
    )
    length = sum(map(len, texts))
    note = f"{config.train} tokenizer trained on {length} characters of {_name(root)}: {count} tokens{fewer}"
    if config.train == "unigram":
        note += (
            "; another training on the same text may give other pieces, so to repeat the run elsewhere name "
            "this run's with tokenizer.name=RUN"
        )
    return tokenizer, facts, note


def _name(root: Root) -> str:
    return ", ".join(root.data.mix) or root.data.name


def _check(root: Root, source: ModelSource, brought_by: str | None) -> None:
    config, key = root.tokenizer, "tokenizer.train"
    if source.kind != "scratch":
        raise _refused(
            f"{source.model.name} brings embeddings of its own tokenizer's tokens",
            "leave tokenizer.train out, or describe a model from scratch with model.config", key,
        )  # fmt: skip
    if config.name is not None:
        raise _refused(f"tokenizer.name={config.name} names one already", "leave one of the two out", key)
    if brought_by is not None:
        raise _refused(
            f"plugin {brought_by!r} makes the rows, and is given the tokenizer for it",
            "train the tokenizer on a file first, and name it with tokenizer.name", key,
        )  # fmt: skip
    if root.data.streaming:
        raise _refused(
            "it reads all of the text before the first step, data.streaming none of it",
            "train it on a part with data.streaming=false, and name it with tokenizer.name", key,
        )  # fmt: skip


def corpus(root: Root) -> list[str]:
    """The text of the training rows that ``data`` names, each piece once, in order; not of those held out.

    Raises:
        UsageError: a preset that chooses its rows by a tokenizer.
        DataError: rows that can't be read.
    """
    data = root.data
    absent = _NoTokenizer(data.name)
    if data.mix:
        sources: Sequence[Source] = open_sources(data, absent)
    else:
        sources = [Source("", ConfiguredData(data, absent))]
    bad = BadRows(skip=data.on_bad_row == "skip", limit=data.max_bad_rows)
    report = DataReport(source=data.name)
    reading = Reading(data, bad, ReadCounts(), report, {} if data.deduplicate else None)
    rows = (row for source in sources for row in read_part(source, reading).rows["train"])
    return list(dict.fromkeys(text for row in rows for text in texts_of(row)))


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Every text of a checked row: texts, prompts, answers, what messages say, tool calls as json."""
    for key in _KEYS:
        yield from _texts(row.get(key))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        if isinstance(value.get("content"), str) and value["content"]:
            yield value["content"]
        calls = value.get("tool_calls") or ([] if "role" in value else [value])
        for call in calls:
            yield json.dumps(call, ensure_ascii=False)


class _NoTokenizer:
    """Stands where a tokenizer will be: whoever asks it anything needs one before there is one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, asked: str) -> Any:
        raise _refused(
            f"data={self._name} chooses its rows by a tokenizer's lengths",
            "train the tokenizer on other data, or name one with tokenizer.name", "tokenizer.train",
        )  # fmt: skip


def _refused(what: str, mend: str, key: str) -> UsageError:
    return UsageError("TOKENIZER-TRAIN", what, mend=mend, key=key)
