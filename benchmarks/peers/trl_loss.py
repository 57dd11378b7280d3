"""Runs in TRL's own environment: TRL's DPO loss and gradients for the cases in a folder.

    python trl_loss.py FOLDER

FOLDER holds ``MODEL-policy/`` and ``MODEL-reference/`` (config and safetensors), ``batch.json`` (prompt_ids,
chosen_ids, rejected_ids of each pair) and ``cases.json``. Each case gets ``NAME.safetensors`` (gradients by
parameter), and its loss in ``losses.json``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference


class PlainHead:
    """A model whose log-probs come from ``log_softmax`` in the weights' own dtype.

    TRL's fused head computes in float32 whatever the weights' dtype; with this one its loss is a float64 one.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, *, labels: torch.Tensor, fused_lm_head: bool, **inputs: Any) -> SimpleNamespace:
        logits = type(self.model).forward(self.model, **inputs).logits[:, :-1]
        targets = labels[:, 1:]
        trained = targets != -100
        logps = logits.log_softmax(-1)
        picked = logps.gather(2, targets.clamp(min=0)[..., None])[..., 0].masked_fill(~trained, 0.0)
        detached = logps.detach()
        return SimpleNamespace(
            log_probs=picked,
            entropy=-(detached.exp() * detached).sum(-1),
            mean_logits=logits.detach().mean(-1),
            is_top1=logits.detach().argmax(-1) == targets,
        )


def tokenizer() -> PreTrainedTokenizerFast:
    """The trainer wants one; the batch is made of ids."""
    words = {word: i for i, word in enumerate(["<eos>", "<pad>", "<unk>", "a", "b", "c"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def run(folder: Path, case: dict[str, Any], pairs: list[dict[str, list[int]]]) -> float:
    """The case's loss; its gradients are written."""
    dtype = getattr(torch, case["dtype"])
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(
            folder / f"{case['model']}-{role}", dtype=dtype, attn_implementation="sdpa"
        )
        for role in ("policy", "reference")
    )
    arguments = DPOConfig(
        output_dir=str(folder / "trainer"), beta=case["beta"], loss_type=[case["loss"]],
        ld_alpha=case["alpha"], use_cpu=True, bf16=False, fp16=False,
        gradient_checkpointing=False, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(policy, reference, arguments, train_dataset=rows, processing_class=tokenizer())
    inputs = DataCollatorForPreference(pad_token_id=0)(pairs)
    model: Any = policy
    if case["head"] == "plain":
        model, trainer.ref_model = PlainHead(policy), PlainHead(reference)
    policy.train()
    loss = trainer._compute_loss(model, inputs, return_outputs=False)
    loss.backward()
    gradients = {name: p.grad.contiguous() for name, p in policy.named_parameters() if p.grad is not None}
    save_file(gradients, folder / f"{case['name']}.safetensors")
    return float(loss)


def main() -> None:
    torch.set_num_threads(1)
    disable_progress_bar()
    folder = Path(sys.argv[1])
    pairs = json.loads((folder / "batch.json").read_text())
    cases = json.loads((folder / "cases.json").read_text())
    losses = {case["name"]: run(folder, case, pairs) for case in cases}
    (folder / "losses.json").write_text(json.dumps({name: value.hex() for name, value in losses.items()}))


if __name__ == "__main__":
    main()
