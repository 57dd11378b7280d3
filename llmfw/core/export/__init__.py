"""Weights given back: written for plain transformers, PEFT or llama.cpp, loaded again by these, compared.

from llmfw.core.export import ExportOptions, export
result = export("runs/NAME", "DIR", ExportOptions(merge=True))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.core.export.carry_out import export
    from llmfw.core.export.options import ExportOptions, ExportResult

__all__ = ["ExportOptions", "ExportResult", "export"]

__getattr__, __dir__ = door(
    __name__, {"carry_out": ("export",), "options": ("ExportOptions", "ExportResult")}
)
