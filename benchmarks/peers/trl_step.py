"""Runs in TRL's own environment: its DPOTrainer or SFTTrainer, driven by ``train()``, over a job's token ids.

    python trl_step.py JOB.json

The trainer's own step, collator, optimizer, clipping, scheduler and logging; the samples come as ids in the
file's order, so its tokenisation is left out. ``settings`` are arguments of its config, and ``lora`` (rank).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "sides"))
import torch
from clock import Clock, read_job, steps_of
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer


def tokenizer() -> PreTrainedTokenizerFast:
    """The trainers want one, for its padding id alone."""
    words = {word: i for i, word in enumerate(["<eos>", "<pad>", "<unk>"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


class GivenPairs(DPOTrainer):
    """Takes pairs that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any, **further: Any) -> Dataset:
        return dataset


class Steps(TrainerCallback):
    """Keeps the time; loss and gradient norm are those that the trainer logs."""

    def __init__(self, clock: Clock, losses: list[torch.Tensor]) -> None:
        self.clock, self.losses = clock, losses

    def on_train_begin(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        self.clock.begin()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **further: Any) -> None:
        if "grad_norm" not in logs:
            return
        loss = float(torch.stack(self.losses).sum())
        self.losses.clear()
        self.clock.end(loss, grad_norm=float(logs["grad_norm"]))


def samples_of(job: dict[str, Any]) -> Dataset:
    """The samples under the names that TRL's collators know."""
    rows = []
    for sample in (sample for step in steps_of(job) for sample in step):
        if job["kind"] == "dpo":
            rows.append({f"{name}_ids": sample[name] for name in ("prompt", "chosen", "rejected")})
        else:
            labels = [token if flag else -100 for token, flag in zip(sample["ids"], sample["trained"])]
            rows.append({"input_ids": sample["ids"], "labels": labels})
    return Dataset.from_list(rows)


def main(job: dict[str, Any]) -> None:
    """Take the job's steps."""
    disable_progress_bar()
    clock = Clock(job)
    given = dict(job["settings"])
    lora = given.pop("lora", None)
    dtype = getattr(torch, job["dtype"])
    alike: dict[str, Any] = {
        "output_dir": f"{job['folder']}/trainer", "max_steps": job["warmup"] + job["steps"] + 1,
        "per_device_train_batch_size": job["micro_batch"], "gradient_accumulation_steps": job["accumulate"],
        "learning_rate": job["lr"], "lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused", "weight_decay": 0.0, "train_sampling_strategy": "sequential",
        "use_cpu": job["device"] == "cpu", "bf16": job["dtype"] == "bfloat16", "logging_steps": 1,
        "logging_first_step": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "max_length": None, "gradient_checkpointing": False, **given,
    }  # fmt: skip
    peft_config = None
    if lora is not None:
        from peft import LoraConfig

        peft_config = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation="sdpa")
    common: dict[str, Any] = {
        "train_dataset": samples_of(job), "processing_class": tokenizer(), "peft_config": peft_config,
    }  # fmt: skip
    losses: list[torch.Tensor] = []
    if job["kind"] == "dpo":
        precompute = GivenPairs._precompute_ref_logps

        def timed(self: Any, *arguments: Any) -> Any:
            start = time.perf_counter()
            found = precompute(self, *arguments)
            clock.note(reference_seconds=time.perf_counter() - start)
            return found

        GivenPairs._precompute_ref_logps = timed
        reference = None
        if not given.get("precompute_ref_log_probs") and lora is None:
            reference = AutoModelForCausalLM.from_pretrained(
                job["model"], dtype=dtype, attn_implementation="sdpa"
            )
        trainer: Any = GivenPairs(model, reference, DPOConfig(**alike, beta=0.1), **common)
    else:
        trainer = SFTTrainer(model, SFTConfig(**alike), **common)
    step = trainer.training_step

    def told(*arguments: Any, **further: Any) -> Any:
        loss = step(*arguments, **further)
        losses.append(loss.detach())
        return loss

    trainer.training_step = told
    trainer.add_callback(Steps(clock, losses))
    trainer.train()
    raise RuntimeError("the training ended before the job's last step")


if __name__ == "__main__":
    main(read_job(sys.argv))
