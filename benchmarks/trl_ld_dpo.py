"""Is our LD-DPO loss TRL's? Loss and gradients of one batch against ``ld_alpha`` of TRL 1.16, in two dtypes.

    python -m benchmarks.trl_ld_dpo    # makes TRL's environment on first use, writes results/trl_ld_dpo.json

Both sides read the same files: weights as safetensors, the batch as json. TRL runs as a process of its own in
its own environment: its trainer, its collator, its loss. The float64 rows replace TRL's LM head, which
computes in float32 whatever the weights' dtype, by ``log_softmax``; the rows that say "own head" don't. TRL
weights policy and reference alike, so the comparison is with ``ref_mode=both``. A row's ``difference`` is
that of the losses, or the largest over all entries of all gradients; at most its ``goal``: met.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks import record
from llmfw.core.models import LocalPolicy
from llmfw.losses.preference import preference_loss
from llmfw.testing import plugin_module
from llmfw.testing.pairs import Pair, lay_out, random_pairs

BETA = 0.1
VOCABULARY = 48
LENGTHS = [(5, 12, 4), (3, 4, 11), (7, 6, 6), (1, 1, 9)]
"""(prompt, chosen, rejected) tokens: chosen longer, rejected longer, equal, a single chosen token."""
GOALS = {"float64": 1e-9, "float32": 1e-4}


def cases() -> list[dict[str, Any]]:
    """Every model, dtype and head with plain DPO, IPO, and LD-DPO at five values of alpha."""
    kinds = [("gpt2", "float64", "plain"), ("gpt2", "float32", "own"), ("llama", "float32", "own")]
    losses = [
        ("sigmoid", None),
        ("ipo", None),
        *(("sigmoid", alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)),
    ]
    return [
        {
            "name": f"{model}, {dtype}, {head} head, {f'dpo {loss}' if a is None else f'ld_dpo alpha={a}'}",
            "model": model, "dtype": dtype, "head": head, "loss": loss, "alpha": a, "beta": BETA,
        }
        for model, dtype, head in kinds
        for loss, a in losses
    ]  # fmt: skip


def tiny(kind: str, seed: int) -> Any:
    """A random model in float64. GPT-2 computes in its weights' dtype throughout; Llama's norms don't."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    if kind == "gpt2":
        config: Any = GPT2Config(
            vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=4, initializer_range=0.5,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return GPT2LMHeadModel(config).double()
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        initializer_range=0.5, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).double()


def ours(folder: Path, case: Mapping[str, Any], pairs: Sequence[Pair]) -> tuple[float, dict[str, Tensor]]:
    """Mean loss over the pairs, and gradients by parameter."""
    from transformers import AutoModelForCausalLM

    policy, reference = (
        LocalPolicy(
            AutoModelForCausalLM.from_pretrained(
                folder / f"{case['model']}-{role}",
                dtype=getattr(torch, case["dtype"]),
                attn_implementation="sdpa",
            ).train()
        )
        for role in ("policy", "reference")
    )
    if case["alpha"] is None:
        objective = plugin_module("dpo", "functional").objective(case["loss"], beta=case["beta"])
    else:
        objective = plugin_module("ld_dpo", "functional").objective(alpha=case["alpha"], beta=case["beta"])
    out = preference_loss(objective)(policy, lay_out(pairs), reference)
    loss = out.total / len(pairs)
    loss.backward()
    named = policy.module.named_parameters()
    return float(loss.detach()), {name: p.grad for name, p in named if p.grad is not None}


def compare(folder: Path, python: Path) -> list[dict[str, Any]]:
    """Two rows a case: loss and gradient."""
    pairs, todo = random_pairs(LENGTHS, vocabulary=VOCABULARY), cases()
    for kind in sorted({case["model"] for case in todo}):
        for seed, role in enumerate(("policy", "reference")):
            tiny(kind, seed).save_pretrained(folder / f"{kind}-{role}")
    batch = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
    (folder / "batch.json").write_text(json.dumps(batch))
    (folder / "cases.json").write_text(json.dumps(todo))
    program = Path(__file__).parent / "peers" / "trl_loss.py"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, program, folder], check=True, env=environment, stdout=subprocess.DEVNULL)
    losses = {
        name: float.fromhex(text) for name, text in json.loads((folder / "losses.json").read_text()).items()
    }
    rows = []
    for case in todo:
        loss, gradients = ours(folder, case, pairs)
        theirs = load_file(folder / f"{case['name']}.safetensors")
        if gradients.keys() != theirs.keys():
            raise RuntimeError(f"{case['name']}: gradients of different parameters")
        worst = max(float((gradients[name] - theirs[name]).abs().max()) for name in theirs)
        norms = [
            float(torch.stack([g.double().norm() for g in side.values()]).norm())
            for side in (gradients, theirs)
        ]
        peer = losses[case["name"]]
        rows.append(_row(case, "loss", loss, peer, abs(loss - peer), "nats"))
        rows.append(_row(case, "gradient norm", *norms, worst, "nats per unit of weight"))
    return rows


def _row(
    case: Mapping[str, Any], what: str, value: float, peer: float, difference: float, unit: str
) -> dict[str, Any]:
    goal = GOALS[case["dtype"]]
    return {
        "case": f"{case['name']}: {what}", "ours": value, "peer": peer, "peer_name": "trl", "unit": unit,
        "ratio": value / peer, "difference": difference, "repetitions": 1, "goal": goal,
        "met": difference <= goal,
    }  # fmt: skip


def main(results: Path = record.RESULTS) -> Path:
    """Compare, write the result, print a line per row."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    python = record.peer_python("trl")
    shown = "from importlib.metadata import version as v; print(v('trl'), v('torch'), v('transformers'))"
    trl, peer_torch, peer_transformers = subprocess.check_output([python, "-c", shown], text=True).split()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder), python)
    versions = {"trl": trl, "trl's torch": peer_torch, "trl's transformers": peer_transformers}
    path = record.write("trl_ld_dpo", rows, versions=versions, folder=results)
    for row in rows:
        said = "met" if row["met"] else "MISSED"
        print(f"{said:6} {row['difference']:.1e} (goal {row['goal']:.0e})  {row['case']}")
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main(*(Path(folder) for folder in sys.argv[1:2]))
