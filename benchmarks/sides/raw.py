"""A plain loop in torch over padded batches: transformers' model, its full logits, torch's loss and AdamW.

python -m benchmarks.sides.raw JOB.json
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.sides.clock import Clock, read_job, steps_of


def main(job: dict[str, Any]) -> None:
    """Take the job's steps."""
    dtype = getattr(torch, job["dtype"])
    model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation="sdpa")
    model.train().to(job["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=job["lr"], weight_decay=0.0, fused=True)
    clock = Clock(job)
    clock.begin()
    for samples in steps_of(job):
        size = job["micro_batch"]
        batches = [collate(samples[start : start + size]) for start in range(0, len(samples), size)]
        trained = sum(int((labels != -100).sum()) for _, _, labels in batches)
        total = torch.zeros((), device=job["device"])
        for ids, mask, labels in ([part.to(job["device"]) for part in batch] for batch in batches):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            loss = F.cross_entropy(
                logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
            )
            (loss / trained).backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.end(float(total) / trained, grad_norm=float(norm))


def collate(samples: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """[B, T] ids, mask and labels, padded on the right."""
    width = max(len(sample["ids"]) for sample in samples)
    ids = torch.zeros(len(samples), width, dtype=torch.int64)
    mask = torch.zeros(len(samples), width, dtype=torch.int64)
    labels = torch.full((len(samples), width), -100, dtype=torch.int64)
    for row, sample in enumerate(samples):
        length = len(sample["ids"])
        ids[row, :length] = torch.tensor(sample["ids"])
        mask[row, :length] = 1
        flags = torch.tensor(sample["trained"], dtype=torch.bool)
        labels[row, :length] = torch.where(flags, ids[row, :length], -100)
    return ids, mask, labels


if __name__ == "__main__":
    main(read_job(sys.argv))
