"""How others load an export: commands for transformers, PEFT, llmfw, vLLM and llama.cpp."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["hf", "adapter", "gguf"]
_VLLM_RANK = 16
"""Largest rank of an adapter that vLLM takes without being told."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What decides how an export is loaded. ``folder`` is how the commands call it."""

    format: Format
    folder: str
    dtype: str
    base: str | None = None
    """Of an adapter: what its base is loaded by."""
    revision: str | None = None
    """Of a base on the hub: its commit."""
    encoder_decoder: bool = False
    chat: bool = True
    """Whether the tokenizer has a chat template."""
    file: str | None = None
    """The GGUF file's name."""
    adapter: Mapping[str, Any] | None = None
    """Of an adapter: its PEFT config."""


def python_lines(usage: Usage) -> list[str]:
    """A few lines of Python that load the export and answer a prompt, without llmfw."""
    auto = "AutoModelForSeq2SeqLM" if usage.encoder_decoder else "AutoModelForCausalLM"
    folder = usage.folder
    lines = [f"from transformers import {auto}, AutoTokenizer"]
    if usage.format == "adapter":
        lines[0] = f"from peft import PeftModel\n{lines[0]}"
        at = f', revision="{usage.revision}"' if usage.revision else ""
        lines.append(f'base = {auto}.from_pretrained("{usage.base}"{at}, dtype="{usage.dtype}")')
        lines.append(f'model = PeftModel.from_pretrained(base, "{folder}")')
    elif usage.format == "gguf":
        lines.append(f'model = {auto}.from_pretrained("{folder}", gguf_file="{usage.file}")')
    else:
        lines.append(f'model = {auto}.from_pretrained("{folder}", dtype="{usage.dtype}")')
    inside = f', gguf_file="{usage.file}"' if usage.format == "gguf" else ""
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{inside})')
    if usage.chat:
        lines += [
            'messages = [{"role": "user", "content": "Is 91 a prime number?"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    else:
        lines.append('inputs = tokenizer("Is 91 a prime number?", return_tensors="pt")')
    begin = "0" if usage.encoder_decoder else 'inputs["input_ids"].shape[1]'
    lines.append("output = model.generate(**inputs, max_new_tokens=64)")
    lines.append(f"print(tokenizer.decode(output[0, {begin}:], skip_special_tokens=True))")
    return "\n".join(lines).splitlines()


def serving_lines(usage: Usage) -> list[str]:
    """Command lines that serve the export or answer with it; none where a server can't."""
    folder = shlex.quote(usage.folder)
    if usage.format == "gguf":
        file = shlex.quote(f"{usage.folder}/{usage.file}")
        return [f"llama-cli -m {file} -p 'Is 91 a prime number?'", f"llama-server -m {file} --port 8080"]
    if usage.encoder_decoder:
        return []
    if usage.format == "hf":
        return [f"vllm serve {folder} --dtype {usage.dtype}"]
    if not vllm_refuses(usage):
        rank = int((usage.adapter or {}).get("r") or 0)
        more = f" --revision {usage.revision}" if usage.revision else ""
        more += f" --max-lora-rank {_served_rank(rank)}" if rank > _VLLM_RANK else ""
        name = shlex.quote(usage.folder.rstrip("/").rpartition("/")[2])
        return [
            f"vllm serve {shlex.quote(str(usage.base))} --enable-lora --lora-modules {name}={folder}{more}"
        ]
    return []


def vllm_refuses(usage: Usage) -> str:
    """Why vLLM doesn't take an adapter as it is; "" where it does."""
    config = usage.adapter or {}
    if config.get("use_dora"):
        return "vLLM doesn't serve DoRA adapters; export with --merge"
    if config.get("modules_to_save"):
        return "vLLM doesn't serve adapters with modules of their own; export with --merge"
    return ""


def next_lines(usage: Usage) -> list[str]:
    """What a user types next."""
    if usage.format == "gguf":
        return serving_lines(usage)
    auto = "AutoModelForSeq2SeqLM" if usage.encoder_decoder else "AutoModelForCausalLM"
    folder, base = json.dumps(usage.folder), json.dumps(usage.base)
    base += f', revision="{usage.revision}"' if usage.revision else ""
    if usage.format == "adapter":
        code = (
            f"from transformers import {auto} as A; from peft import PeftModel as P; "
            f"print(P.from_pretrained(A.from_pretrained({base}), {folder}))"
        )
    else:
        code = f"from transformers import {auto} as A; print(A.from_pretrained({folder}))"
    here = usage.format == "hf" or str(usage.base).startswith(f"{usage.folder}/")
    own = [f"llmfw chat model={shlex.quote(usage.folder)}"] if here and usage.chat else []
    return [f"python -c {shlex.quote(code)}", *serving_lines(usage), *own]


def _served_rank(rank: int) -> int:
    """The smallest rank of vLLM's list that holds ``rank``."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
