"""Trainers on made-up data: nothing is planned and no loader is started."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunet_semisup.training.settings import VARIABLE
from tests.helpers import nnunet_folders
from tests.unit.trainers.shared import CONFIGURATION, DATASET_JSON, plans, write_cases

DEFAULTS = {"num_epochs": 10, "num_iterations_per_epoch": 2, "seed": 3}


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Make and initialize a trainer of a class with settings; one that continues has no others."""
    write_cases(nnunet_folders(tmp_path, monkeypatch).preprocessed)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def make(cls: Any, continues: bool = False, **settings: Any) -> Any:
        given = settings if continues else {**DEFAULTS, **settings}
        monkeypatch.setenv(VARIABLE, ",".join(f"{name}={value}" for name, value in given.items()))
        trainer = cls(plans(continues), CONFIGURATION, 0, DATASET_JSON, torch.device("cpu"))
        trainer.device, trainer.grad_scaler = torch.device("cpu"), None  # Also if distributed.
        trainer.initialize()
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        trainer.network.train()
        return trainer

    return make
