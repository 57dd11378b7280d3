"""Runs in LitGPT's own environment: the loop of its full fine-tuning over a job's token ids.

    python litgpt_step.py JOB.json

Its model with the weights converted by its own function, its ``fit``, collator and cross entropy, Lightning's
Fabric, torch's AdamW. It neither clips gradients nor ties the head to the embedding, so its updates differ:
only the first step's loss can be compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "sides"))
import lightning as L
import torch
from clock import Clock, read_job, steps_of
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data.base import get_sft_collate_fn
from litgpt.finetune import full
from litgpt.model import GPT
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from safetensors.torch import load_file
from torch.utils.data import DataLoader


def model_of(folder: Path) -> GPT:
    """LitGPT's model of a Llama's config, with its weights."""
    told = json.loads((folder / "config.json").read_text())
    rope = told.get("rope_theta") or told["rope_parameters"]["rope_theta"]
    config = Config(
        name="given", block_size=told["max_position_embeddings"], vocab_size=told["vocab_size"],
        padded_vocab_size=told["vocab_size"], n_layer=told["num_hidden_layers"],
        n_head=told["num_attention_heads"], n_embd=told["hidden_size"], head_size=told.get("head_dim"),
        n_query_groups=told["num_key_value_heads"], rotary_percentage=1.0, parallel_residual=False,
        bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
        intermediate_size=told["intermediate_size"],
        rope_base=int(rope), norm_eps=told["rms_norm_eps"],
    )  # fmt: skip
    weights: dict[str, torch.Tensor] = {}
    copy_weights_hf_llama(config, {}, weights, load_file(folder / "model.safetensors"))
    model = GPT(config)
    model.load_state_dict(weights)
    return model


def item(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample as LitGPT's collator takes it."""
    ids = torch.tensor(sample["ids"])
    labels = torch.where(torch.tensor(sample["trained"], dtype=torch.bool), ids, -100)
    counts = {"raw": len(ids), "raw_plus_prompt_template": len(ids)}
    return {"input_ids": ids, "labels": labels, "token_counts": counts}


class Told(DataLoader[Any]):
    """A loader that says when the loop takes its first batch."""

    clock: Clock

    def __iter__(self) -> Iterator[Any]:
        self.clock.begin()
        yield from super().__iter__()


def main(job: dict[str, Any]) -> None:
    """Take the job's steps."""
    clock = Clock(job)
    samples = [item(sample) for step in steps_of(job) for sample in step]
    per_step = job["micro_batch"] * job["accumulate"]
    samples += samples[:per_step]  # for the step that isn't reached
    collate = get_sft_collate_fn(pad_id=0)
    loader = Told(samples, batch_size=job["micro_batch"], collate_fn=collate)  # type: ignore[arg-type]
    loader.clock = clock
    held_out = DataLoader(samples[:1], batch_size=1, collate_fn=collate)  # type: ignore[arg-type]
    fabric = L.Fabric(devices=1, accelerator="cpu" if job["device"] == "cpu" else "cuda", precision="32-true")
    fabric.launch()
    model = fabric.setup(model_of(Path(job["model"])))
    optimizer = torch.optim.AdamW(model.parameters(), lr=job["lr"], weight_decay=0.0, fused=True)
    norms: list[float] = []
    losses: list[torch.Tensor] = []

    def look(inner: Any, *arguments: Any) -> None:
        if not norms:  # in the warm-up alone
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))

    optimizer.register_step_pre_hook(look)
    entropy = full.chunked_cross_entropy

    def told(*arguments: Any, **further: Any) -> torch.Tensor:
        loss = entropy(*arguments, **further)
        if loss.requires_grad:
            losses.append(loss.detach())
        return loss

    full.chunked_cross_entropy = told
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    step = scheduler.step

    def end(*arguments: Any) -> None:
        step(*arguments)
        loss = float(torch.stack(losses).mean())
        losses.clear()
        clock.end(loss, grad_norm=norms[0])

    scheduler.step = end  # type: ignore[method-assign]
    full.Tokenizer = lambda folder: None
    full.fit(
        fabric=fabric,
        state={
            "model": model, "optimizer": fabric.setup_optimizers(optimizer), "scheduler": scheduler,
            "iter_num": 0, "step_count": 0,
        },
        train_dataloader=loader, val_dataloader=held_out, devices=1, resume=False,
        checkpoint_dir=Path(job["model"]), out_dir=Path(job["folder"]),
        train=TrainArgs(
            save_interval=None, global_batch_size=per_step, micro_batch_size=job["micro_batch"],
            max_steps=job["warmup"] + job["steps"] + 1, epochs=1, lr_warmup_steps=None,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1), data=None,
    )  # fmt: skip
    raise RuntimeError("the training ended before the job's last step")


if __name__ == "__main__":
    main(read_job(sys.argv))
