"""What fits together in an export's options."""

from __future__ import annotations

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.export.options import ExportOptions, check_options, dtype_of, form_of
from llmfw.core.models.source import ModelSource
from llmfw.core.schema import ModelConfig

WHOLE = ModelSource(kind="full", model=ModelConfig(dtype="float16"), manifest={"kind": "full"})
ADAPTER = ModelSource(kind="adapter", model=ModelConfig(dtype="float32"), manifest={"kind": "adapter"})


@pytest.mark.parametrize(
    ("source", "options", "form"),
    [
        (WHOLE, ExportOptions(), ("hf", False)),
        (WHOLE, ExportOptions(format="gguf"), ("gguf", False)),
        (ADAPTER, ExportOptions(), ("adapter", False)),
        (ADAPTER, ExportOptions(merge=True), ("hf", True)),
        (ADAPTER, ExportOptions(format="hf"), ("hf", True)),
        (ADAPTER, ExportOptions(format="gguf"), ("gguf", True)),
        (ADAPTER, ExportOptions(format="gguf", merge=True), ("gguf", True)),
    ],
)
def test_the_format_follows_the_weights_unless_one_is_asked_for(source, options, form):
    check_options(options)
    assert form_of(options, source) == form


@pytest.mark.parametrize(
    ("source", "options", "key"),
    [
        (WHOLE, ExportOptions(merge=True), "--merge"),
        (WHOLE, ExportOptions(format="adapter"), "--format"),
        (WHOLE, ExportOptions(base="me/base"), "--base"),
        (ADAPTER, ExportOptions(merge=True, base="me/base"), "--base"),
        (ADAPTER, ExportOptions(dtype="bfloat16"), "--dtype"),
    ],
)
def test_what_the_weights_can_not_become_is_refused(source, options, key):
    with pytest.raises(UsageError) as caught:
        form_of(options, source)
    assert caught.value.key == key


@pytest.mark.parametrize(
    "options",
    [
        {"format": "zip"},
        {"dtype": "int8"},
        {"format": "gguf", "gguf_type": "q4_0"},
        {"gguf_type": "f16"},
        {"format": "adapter", "merge": True},
        {"format": "gguf", "dtype": "float16"},
        {"format": "gguf", "max_shard_size": "1GB"},
        {"format": "hf", "base": "me/base"},
        {"max_shard_size": "5 gigs"},
        {"max_shard_size": "0GB"},
    ],
)
def test_options_without_effect_or_sense_are_refused(options):
    with pytest.raises(UsageError, match=r"error\[EXPORT\] --"):
        check_options(ExportOptions(**options))


def test_the_dtype_is_the_runs_but_16_bit_over_a_quantised_base():
    held = ModelSource(kind="adapter", model=ModelConfig(dtype="float32", quantization="nf4"))
    assert dtype_of(ExportOptions(), WHOLE, False) == "float16"
    assert dtype_of(ExportOptions(), held, True) == "bfloat16"
    assert dtype_of(ExportOptions(), held, False) == "float32"
    assert dtype_of(ExportOptions(dtype="float32"), held, True) == "float32"
