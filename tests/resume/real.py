"""``llmfw verify resume`` on the tiny model and on the real one, with a plugin and tracking.

python -m tests.resume.real --write     # into tests/resume/outcomes.json; half an hour on two cores
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.resume.outcomes import OUT, write
from tests.resume.trials import write_data

RUNS: dict[str, tuple[str, ...]] = {
    "tiny": ("model=tiny-llama", "trainer.max_steps=20", "checkpoint.every=4", "--kills=10"),
    "real": ("trainer.max_steps=12", "checkpoint.every=3", "evaluation.when=[]", "--kills=4"),
}
"""Beside ``--plugin ld_dpo``, whose own default is SmolLM2-135M-Instruct with LoRA on CHAMP's pairs."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[*RUNS], help="one of the two")
    parser.add_argument("--write", action="store_true", help=f"write the outcome into {OUT.name}")
    asked = parser.parse_args(argv)
    codes = []
    for name in [asked.only] if asked.only else RUNS:
        with tempfile.TemporaryDirectory(prefix="llmfw-verify-") as place:
            words = ["--plugin", "ld_dpo", *RUNS[name]]
            if name == "tiny":
                words.append(f"data={write_data(Path(place))['pairs']}")
            command = [sys.executable, "-m", "llmfw", "verify", "resume", *words, "--json"]
            done = subprocess.run(
                [*command, f"--folder={place}/verify"], stdout=subprocess.PIPE, text=True, check=False
            )
        codes.append(done.returncode)
        print(done.stdout)
        if asked.write and done.stdout:
            told = json.loads(done.stdout)
            del told["folder"]
            write(f"verify {name}", {"words": ["--plugin", "ld_dpo", *RUNS[name]], **told})
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
