"""One rank of a vocabulary over gloo processes: ``python -m tests.losses.shards RANK WORLD FOLDER``.

Every case's results and gradients are saved as FOLDER/RANK.safetensors, names CASE.KIND.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from llmfw.losses.logps import token_logps

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "capped": {"softcap": 2.5, "scale": 1.7},
    "biased": {"bias": True},
    "all": {"softcap": 3.0, "scale": 0.5, "bias": True, "low": True},
    "low rank alone": {"low": True, "frozen": True},
    "frozen": {"frozen": True, "softcap": 2.5},
    "empty": {"tokens": 0, "bias": True},
}
VOCABULARY = 11
CUTS = {1: [0, 11], 2: [0, 3, 11], 3: [0, 6, 6, 11]}
"""Where shards begin and end; the second of three holds no word at all."""


def tensors(tokens: int = 7) -> dict[str, Tensor]:
    """The same on all ranks."""
    draw = torch.Generator().manual_seed(4)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return {
        "hidden": make(tokens, 5), "weight": make(VOCABULARY, 5), "bias": make(VOCABULARY),
        "A": make(2, 5), "B": make(VOCABULARY, 2), "signal": make(tokens),
        "target": torch.randint(VOCABULARY, (tokens,), generator=draw),
    }  # fmt: skip


def solve(case: dict[str, Any], first: int, stop: int, group: Any) -> dict[str, Tensor]:
    """Log-probs and every gradient of the shard [first, stop)."""
    found = tensors(case.get("tokens", 7))
    for name in ("weight", "bias", "B"):
        found[name] = found[name][first:stop].clone()
    wanted = ["hidden"]
    wanted += [] if case.get("frozen") else ["weight"]
    wanted += ["bias"] if case.get("bias") else []
    wanted += ["A", "B"] if case.get("low") else []
    for name in wanted:
        found[name].requires_grad_()
    logps = token_logps(
        found["hidden"], found["weight"], found["target"],
        bias=found["bias"] if case.get("bias") else None,
        low_rank=(found["A"], found["B"], 0.7) if case.get("low") else None,
        softcap=case.get("softcap"), scale=case.get("scale", 1.0), chunk=3, block=2, group=group,
        first=first if group is not None else 0,
    )  # fmt: skip
    grads = torch.autograd.grad(logps, [found[name] for name in wanted], found["signal"])
    return {"logps": logps.detach(), **dict(zip(wanted, grads, strict=True))}


def main() -> None:
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    first, stop = CUTS[world][rank], CUTS[world][rank + 1]
    saved: dict[str, Tensor] = {}
    for name, case in CASES.items():
        found = solve(case, first, stop, distributed.group.WORLD)
        saved |= {f"{name}.{kind}": value.contiguous() for kind, value in found.items()}
    errors = []
    for target in (-1, VOCABULARY):  # no rank's word: all ranks must say so, none may hang
        try:
            token_logps(
                torch.ones(1, 5), torch.ones(stop - first, 5), torch.tensor([target]),
                group=distributed.group.WORLD, first=first,
            )  # fmt: skip
        except RuntimeError as error:
            errors.append(str(error))
    saved["errors"] = torch.tensor(sum("one rank's shard" in error for error in errors))
    save_file(saved, folder / f"{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
