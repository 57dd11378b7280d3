"""The door to data: forms of rows, exact masks, batches, and the loader of optimizer steps.

Plugins import from here only. Names are loaded on first use; those that need torch load it then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.core.data.batches import collate as collate
    from llmfw.core.data.batches import shadow as shadow
    from llmfw.core.data.chains.chain import Chain as Chain
    from llmfw.core.data.chains.chain import chain_of as chain_of
    from llmfw.core.data.chains.chain import style_of as style_of
    from llmfw.core.data.chains.steps import STEP_ERRORS as STEP_ERRORS
    from llmfw.core.data.chains.steps import first_wrong_step as first_wrong_step
    from llmfw.core.data.chains.steps import wrong_step as wrong_step
    from llmfw.core.data.checks import Finding as Finding
    from llmfw.core.data.checks import audit as audit
    from llmfw.core.data.corpus import OpenedTokenizer as OpenedTokenizer
    from llmfw.core.data.corpus import open_tokenizer as open_tokenizer
    from llmfw.core.data.encode import Encoder as Encoder
    from llmfw.core.data.encode import bytes_per_token as bytes_per_token
    from llmfw.core.data.encode import length_limit as length_limit
    from llmfw.core.data.encode import pad_id_of as pad_id_of
    from llmfw.core.data.encode import trained_text as trained_text
    from llmfw.core.data.examples import Example as Example
    from llmfw.core.data.examples import TokenSequence as TokenSequence
    from llmfw.core.data.formats import PLACE as PLACE
    from llmfw.core.data.formats import RowError as RowError
    from llmfw.core.data.formats import answer_of as answer_of
    from llmfw.core.data.formats import canonical as canonical
    from llmfw.core.data.formats import content_hash as content_hash
    from llmfw.core.data.formats import form_of as form_of
    from llmfw.core.data.formats import prompt_of as prompt_of
    from llmfw.core.data.loader import StepLoader as StepLoader
    from llmfw.core.data.loader import collate_with as collate_with
    from llmfw.core.data.loader import seeded as seeded
    from llmfw.core.data.loader import source_of as source_of
    from llmfw.core.data.loader import validation_batches as validation_batches
    from llmfw.core.data.module import ConfiguredData as ConfiguredData
    from llmfw.core.data.module import DataModule as DataModule
    from llmfw.core.data.module import RowsData as RowsData
    from llmfw.core.data.module import peek_kind as peek_kind
    from llmfw.core.data.order import stable_hash as stable_hash
    from llmfw.core.data.packing import pack as pack
    from llmfw.core.data.packing import packing_refusal as packing_refusal
    from llmfw.core.data.packing import split_long as split_long
    from llmfw.core.data.pipeline import Prepared as Prepared
    from llmfw.core.data.pipeline import prepare as prepare
    from llmfw.core.data.reader import BadRows as BadRows
    from llmfw.core.data.reader import ReadCounts as ReadCounts
    from llmfw.core.data.reader import read_rows as read_rows
    from llmfw.core.data.report import DataReport as DataReport
    from llmfw.core.data.report import SplitReport as SplitReport
    from llmfw.core.data.report import describe as describe
    from llmfw.core.data.split import split_rows as split_rows
    from llmfw.core.data.stream_loader import Stream as Stream
    from llmfw.core.data.stream_loader import StreamLoader as StreamLoader
    from llmfw.core.data.text import Response as Response
    from llmfw.core.data.text import TextTokenizer as TextTokenizer

_HOME = {
    "checks": ("Finding", "audit"),
    "batches": ("collate", "shadow"),
    "chains.chain": ("Chain", "chain_of", "style_of"),
    "chains.steps": ("STEP_ERRORS", "first_wrong_step", "wrong_step"),
    "corpus": ("OpenedTokenizer", "open_tokenizer"),
    "encode": ("Encoder", "bytes_per_token", "length_limit", "pad_id_of", "trained_text"),
    "examples": ("Example", "TokenSequence"),
    "formats": ("PLACE", "RowError", "answer_of", "canonical", "content_hash", "form_of", "prompt_of"),
    "loader": ("StepLoader", "collate_with", "seeded", "source_of", "validation_batches"),
    "module": ("ConfiguredData", "DataModule", "RowsData", "peek_kind"),
    "order": ("stable_hash",),
    "packing": ("pack", "packing_refusal", "split_long"),
    "pipeline": ("Prepared", "prepare"),
    "reader": ("BadRows", "ReadCounts", "read_rows"),
    "report": ("DataReport", "SplitReport", "describe"),
    "split": ("split_rows",),
    "stream_loader": ("Stream", "StreamLoader"),
    "text": ("Response", "TextTokenizer"),
}

__all__ = sorted(name for names in _HOME.values() for name in names)

__getattr__, __dir__ = door(__name__, _HOME)
