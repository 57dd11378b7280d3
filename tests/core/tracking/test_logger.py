"""Lightning's values reach the journal."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from llmfw.core.tracking import Journal, JournalLogger, read_journal


class Toy(LightningModule):
    """One weight; the loss of step n is logged as n."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("loss", float(index))
        return (self.weight * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_writes_its_metrics_into_the_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        logger = JournalLogger(journal, "toy")
        trainer = Trainer(
            max_steps=3,
            logger=logger,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=tmp_path,
        )
        trainer.fit(Toy(), DataLoader(torch.ones(3, 1)))
        assert logger.save_dir == str(tmp_path)
        assert (logger.name, logger.version) == ("toy", tmp_path.name)
    assert read_journal(tmp_path / "journal.jsonl").series == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}


def test_hyperparameters_become_params_without_their_secrets(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        logger = JournalLogger(journal)
        logger.log_hyperparams({"lr": 0.1, "hub": {"token": "abc"}})
        logger.log_hyperparams(Namespace(seed=7))
    assert read_journal(tmp_path / "journal.jsonl").params == {"lr": 0.1, "hub": {"token": "***"}, "seed": 7}


def test_a_logger_without_a_journal_is_silent() -> None:
    logger = JournalLogger(None)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    assert logger.save_dir is None
