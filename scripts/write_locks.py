"""Join pip-compile's outputs into the three lock files; called by ``scripts/lock.sh``.

Usage: write_locks.py TORCH_VERSION CPU_LOCK CUDA_LOCK ALL_PINS
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CONSTRAINTS = """\
# Every version that llmfw is tested with: `pip install -c constraints.txt -e .[demo]`. Written by
# scripts/lock.sh. Install torch first, from the place that has the build you want; both the CPU and the CUDA
# build satisfy this pin.
"""
LOCK = """\
# The tested tree (package, extras test and docs) with hashes, on the CPU build of torch that the tests use
# (CPython 3.11, x86-64 Linux). Complete, hence --no-deps. Written by scripts/lock.sh.
#   pip install --no-deps --require-hashes -r requirements.lock && pip install --no-deps -e .
"""
CUDA = """\
# torch as the package registry has it (on Linux: for CUDA) and what it needs there, with hashes.
# Written by scripts/lock.sh. Installed first, it takes the place of requirements.lock's torch:
#   pip install --no-deps --require-hashes -r requirements-cuda.lock
#   pip install --no-deps --require-hashes -r requirements.lock && pip install --no-deps -e .
"""


def entries(path: str) -> dict[str, tuple[str, list[str]]]:
    """name -> (version without a local tag, hashes), from a pip-compile output."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in Path(path).read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;+]+)", line):
            name = match[1].lower().replace("_", "-").replace(".", "-")
            found[name] = (match[2], [])
        elif match := re.search(r"--hash=(sha256:[0-9a-f]{64})", line):
            found[name][1].append(match[1])
    return found


def locked(packages: dict[str, tuple[str, list[str]]]) -> str:
    """The packages in pip's hash-checking form."""
    lines = []
    for name, (version, hashes) in sorted(packages.items()):
        lines.append(" \\\n".join([f"{name}=={version}", *(f"    --hash={h}" for h in hashes)]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the three files into the present folder."""
    torch, cpu, cuda, everything = (
        sys.argv[1],
        entries(sys.argv[2]),
        entries(sys.argv[3]),
        entries(sys.argv[4]),
    )
    for packages in (cpu, cuda, everything):
        if packages["torch"][0] != torch:
            sys.exit(f"torch resolved to {packages['torch'][0]}, not {torch}")
    extra = {name: value for name, value in cuda.items() if name not in cpu or name == "torch"}
    clash = [name for name in cuda if name in cpu and cuda[name][0] != cpu[name][0]]
    if clash:
        sys.exit(f"the CPU and the CUDA tree disagree about {', '.join(clash)}")
    pins = {name: version for name, (version, _) in everything.items() if name != "torch"}
    pins |= {name: version for name, (version, _) in extra.items() if name != "torch"}
    body = "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    Path("constraints.txt").write_text(f"{CONSTRAINTS}torch=={torch}\n{body}")
    Path("requirements.lock").write_text(LOCK + locked(cpu))
    Path("requirements-cuda.lock").write_text(CUDA + locked(extra))


if __name__ == "__main__":
    main()
