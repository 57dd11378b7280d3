"""How exactly a run can be taken up again after a kill: its class, and the conditions it hangs on.

A: bit for bit. B: the same samples in the same steps, values within rounding. C: lost steps are bounded, and
no more. A class is a promise made at the start; a run that is taken up under other conditions keeps the
weaker one for good.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmfw.core.determinism import thread_count
from llmfw.core.plan import Plan, split_of
from llmfw.core.schema import Root

Grade = Literal["A", "B", "C"]
PROMISES: Mapping[str, str] = {
    "A": "killed and taken up again it ends bit for bit as it would have without",
    "B": "killed and taken up again it sees the same samples in the same steps; numbers differ by rounding",
    "C": "killed and taken up again it loses no more than the steps since its last checkpoint",
}
FLAGS = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "KMP_DETERMINISTIC_REDUCTION",
    "LLMFW_HEAD",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "OMP_SCHEDULE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that change how sums are rounded."""


@dataclass(frozen=True, kw_only=True)
class Exactness:
    """A run's class, and what keeps it from a better one."""

    grade: Grade
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"resume class {self.grade}{why}: {PROMISES[self.grade]}"


def exactness_of(plan: Plan, root: Root, *, stateless: str | None = None) -> Exactness:
    """The class of a run under the present conditions.

    Args:
        stateless: names what keeps no position, such as a plugin's own LightningDataModule.
    """
    if stateless:
        return Exactness(grade="C", reasons=(f"{stateless} keeps no position",))
    trainer = root.trainer
    reasons = []
    if _accelerated(root):
        reasons.append("a GPU's kernels may round otherwise from run to run")
    if not trainer.deterministic:
        reasons.append("trainer.deterministic=false")
    if trainer.compile != "none":
        reasons.append(f"trainer.compile={trainer.compile} compiles anew for the shapes that come first")
    if root.model.quantization != "none":
        reasons.append(f"model.quantization={root.model.quantization}")
    if root.optimizer.name != "adamw":
        reasons.append(f"optimizer.name={root.optimizer.name}")
    return Exactness(grade="B" if reasons else "A", reasons=tuple(reasons))


def recorded(grade: str, reasons: Sequence[str]) -> Exactness | None:
    """The class that ``run.json`` names; None: it names none."""
    found: Grade | None = "A" if grade == "A" else "B" if grade == "B" else "C" if grade == "C" else None
    return Exactness(grade=found, reasons=tuple(reasons)) if found else None


def conditions(root: Root, settings: Mapping[str, Any]) -> dict[str, str]:
    """What moves the rounding of sums and isn't in a run's fingerprint: how the work is dealt out, threads,
    processor, build of torch, switches in the environment.
    """
    import torch

    found = {key.removeprefix("trainer."): str(value) for key, value in split_of(settings).items()}
    found["threads"] = str(thread_count(root.trainer))
    found["processor"] = _processor()
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    build: str = torch.__config__.show()
    found["torch build"] = f"{torch.__version__} {hashlib.sha256(build.encode()).hexdigest()[:12]}"
    if _accelerated(root):
        found["device"] = ", ".join(
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        )
    found |= {name: os.environ[name] for name in FLAGS if name in os.environ}
    return found


def taken_up(
    promised: Exactness, before: Mapping[str, str], now: Mapping[str, str], earlier: Exactness | None = None
) -> Exactness:
    """The class of a run that began under ``before`` and goes on under ``now``; never better than
    ``earlier``, the one it had, and with its reasons. A run that noted no conditions counts as begun under
    the present ones.
    """
    changed = [
        f"{key} {before.get(key, 'unset')} -> {now.get(key, 'unset')}"
        for key in dict.fromkeys((*before, *now))
        if before and before.get(key) != now.get(key)
    ]
    had = earlier or promised
    grade: Grade = max(promised.grade, had.grade, "B" if changed else "A")
    return Exactness(grade=grade, reasons=tuple(dict.fromkeys((*promised.reasons, *had.reasons, *changed))))


def _accelerated(root: Root) -> bool:
    import torch

    return root.trainer.accelerator != "cpu" and torch.cuda.is_available()


def _processor() -> str:
    """The processor's name and a digest of what it can do: libraries choose their kernels by both."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    able = told.get("flags") or told.get("Features") or ""
    digest = hashlib.sha256(" ".join(sorted(able.split())).encode()).hexdigest()[:8]
    return f"{told.get('model name', 'unknown')} {digest}"
