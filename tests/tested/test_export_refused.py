"""Exports that are refused, each in one line, and what plugins that change the model leave."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import llmfw
from tests.tested.exports import LORA, QUIET, T5, TINY, Fit, noted, refused
from tests.toys import installed, sources, write_toy

# plugins that change the model

COMPANION = """
from dataclasses import dataclass
import llmfw
from llmfw import Plugin, hookimpl

class Toy(Plugin):
    @hookimpl
    def llmfw_surgeries(self, run, model_config):
        def apply(model, generator):
            import torch
            part = torch.nn.Module()
            part.weight = torch.nn.Parameter(torch.randn(4, 4, generator=generator))
            return llmfw.Report(companions={"drafts": part})
        return [llmfw.Surgery(name="drafts", phase="after_load", apply=apply, required_on_load=False,
                              trainable=("companions.drafts.*",))]
"""


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Path]:
    site = tmp_path / "site"
    site.mkdir()
    write_toy(site, "toy", sources.SURGERY)
    write_toy(site, "beside", COMPANION)
    with installed(site):
        yield site


def test_a_model_that_needs_a_plugin_is_refused_by_name(place: Path, toys: Path, out: Path):
    run = llmfw.fit(*QUIET, *TINY, f"run.dir={place / 'changed'}", plugins=["toy"]).dir
    error = refused("model that a plugin changed", "", lambda: llmfw.export(run, out), RUN=run, DIR=out)
    assert error.code == "EXPORT-SURGERY" and "'toy'" in str(error) and not out.exists()


def test_companions_are_put_beside_the_weights_with_a_warning(place: Path, toys: Path, out: Path):
    run = llmfw.fit(*QUIET, *TINY, f"run.dir={place / 'beside'}", plugins=["beside"]).dir
    result = llmfw.export(run, out)
    noted("companions of a plugin, as a file beside the weights", result)
    assert (
        load_file(out / "drafts.safetensors").keys() == load_file(run / "final" / "drafts.safetensors").keys()
    )
    assert any(line.startswith("warning:") and "'drafts" not in line for line in result.notes)
    assert "`drafts.safetensors`" in (out / "README.md").read_text()
    error = refused(
        "companions of a plugin, as GGUF", "--format gguf",
        lambda: llmfw.export(run, out.with_name("file"), format="gguf"), RUN=run,
    )  # fmt: skip
    assert "'beside'" in str(error)


# refusals


def test_a_damaged_source_is_named_and_nothing_is_written(fit: Fit, place: Path, out: Path):
    run = place / "damaged"
    shutil.copytree(fit(*TINY), run)
    file = run / "final" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    error = refused("one bit of the weights is another", "", lambda: llmfw.export(run, out), RUN=run)
    assert error.exit_code == 5 and not out.exists()


def test_a_folder_that_holds_something_else_is_never_replaced(fit: Fit, out: Path):
    run = fit(*TINY)
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    refused("folder that isn't empty", "", lambda: llmfw.export(run, out), DIR=out)
    refused(
        "folder with other things in it", "--overwrite",
        lambda: llmfw.export(run, out, overwrite=True), DIR=out,
    )  # fmt: skip
    assert (out / "thesis.txt").read_text() == "years of work"
    earlier = out.with_name("earlier")
    llmfw.export(run, earlier)
    (earlier / "left.txt").write_text("left over")
    noted("over an earlier export", llmfw.export(run, earlier, overwrite=True), "--overwrite")
    assert not (earlier / "left.txt").exists()


@pytest.mark.parametrize(
    ("case", "options", "arguments"),
    [
        ("merging whole weights", "--merge", {"merge": True}),
        ("whole weights as an adapter", "--format adapter", {"format": "adapter"}),
        ("GGUF type of a folder", "--gguf-type f16", {"gguf_type": "f16"}),
        ("dtype of a GGUF file", "--format gguf --dtype float16", {"format": "gguf", "dtype": "float16"}),
        ("size that is none", "--max-shard-size big", {"max_shard_size": "big"}),
        ("step that was not kept", "--step 77", {"step": 77}),
        ("base of whole weights", "--base some/model", {"base": "some/model"}),
    ],
)
def test_options_that_can_not_act_are_refused(
    case: str, options: str, arguments: dict[str, Any], fit: Fit, out: Path
):
    run = fit(*TINY)
    refused(case, options, lambda: llmfw.export(run, out, **arguments), RUN=run)
    assert not out.exists()


def test_a_dtype_for_an_adapter_is_refused(fit: Fit, out: Path):
    run = fit(*LORA)
    refused(
        "dtype of an adapter", "--dtype float16", lambda: llmfw.export(run, out, dtype="float16"), RUN=run
    )


def test_an_architecture_that_gguf_lacks_is_refused_before_weights_are_read(
    fit: Fit, out: Path, monkeypatch: pytest.MonkeyPatch
):
    run = fit(*T5)
    monkeypatch.setattr("llmfw.core.models.build_model", lambda *a, **k: pytest.fail("weights were read"))
    error = refused(
        "encoder-decoder as GGUF", "--format gguf", lambda: llmfw.export(run, out, format="gguf"), RUN=run
    )
    assert error.code == "GGUF-ARCHITECTURE"


def test_a_full_disk_is_told_before_anything_is_written(fit: Fit, out: Path, monkeypatch: pytest.MonkeyPatch):
    run = fit(*TINY)
    usage = shutil.disk_usage(out.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    error = refused("too little space", "", lambda: llmfw.export(run, out), DIR=out.parent)
    assert error.exit_code == 6 and list(out.parent.iterdir()) == []


def test_an_export_that_does_not_agree_is_not_kept(fit: Fit, out: Path, monkeypatch: pytest.MonkeyPatch):
    """The file is spoilt between writing and checking, as a wrong conversion would."""
    from llmfw.core.export import writers

    real = writers.load_plain

    def spoilt(folder: Path, **settings: Any) -> Any:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] += 0.001
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return real(folder, **settings)

    monkeypatch.setattr(writers, "load_plain", spoilt)
    run = fit(*TINY)
    error = refused("export that differs from the model", "", lambda: llmfw.export(run, out), DIR=out)
    assert error.code == "EXPORT-CHECK" and list(out.parent.iterdir()) == []
