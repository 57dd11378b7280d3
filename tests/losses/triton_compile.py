"""The Triton kernels compiled for GPUs that need not be here.

    python -m tests.losses.triton_compile OUT.json

Catches what the interpreter lets pass. Writes for each kernel, dtype and compute capability whether the
machine code holds tensor-core instructions, and how much of a multiprocessor's shared memory it wants.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llmfw.losses import logps_triton as kernels

POINTERS = {"top": "fp32", "total": "fp32", "chosen": "fp32", "lse": "fp32", "signal": "fp32", "place": "i64"}


def build(kernel: Any, dtype: str, capability: int, **constants: Any) -> Any:
    """A kernel's machine code, with the types of arguments that a launch would find."""
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in ("hidden", "weight", "flow", "bias"):
            types[name] = f"*{dtype}"
        elif name in POINTERS:
            types[name] = f"*{POINTERS[name]}"
        else:
            types[name] = "fp32" if name in ("scale", "softcap") else "i32"
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    return triton.compile(
        ASTSource(kernel, types, constexprs=places), target=GPUTarget("cuda", capability, 32)
    )


def main() -> None:
    results = {}
    for capability, dtype in ((80, "bf16"), (90, "bf16")):
        common: dict[str, Any] = {
            "HAS_BIAS": True, "HAS_CAP": True, "PRECISION": "ieee",
            "BN": kernels.BN, "BV": kernels.BV, "BD": kernels.BD,
        }  # fmt: skip
        for name, extra in (
            ("_scan", {"LOWEST": kernels.LOWEST}),
            ("_flow", {"HAS_SIGNAL": True}),
        ):
            made = build(getattr(kernels, name), dtype, capability, **common, **extra)
            ptx = made.asm["ptx"]
            results[f"{name} {dtype} sm_{capability}"] = {
                "tensor_cores": "mma.sync" in ptx or "wgmma" in ptx,
                "shared": made.metadata.shared,
                "bytes": len(made.asm["cubin"]),
            }
    Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
