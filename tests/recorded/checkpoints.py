"""Record checkpoints, and what a training and a prediction make of them.

    python -m tests.recorded.checkpoints NAME

writes ``NAME_TRAINER.pth`` for each of ``TRAINERS``, as the trainer saves it, and beside it
``NAME_TRAINER_next.pth``: a batch and the loss of the step that follows, an image and its logits.
What a release recorded stays, so that a later one is tested on it.
"""

from __future__ import annotations

import copy
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_semisup.registry import find_method
from nnunet_semisup.safe_files import NUMBERS
from tests.contract.conftest import KINDS, Builder, _make
from tests.contract.course import start_in_second_epoch
from tests.helpers import nnunet_folders

FOLDER = Path(__file__).parent
TRAINERS = ("nnUNetTrainerPseudoLabel", "nnUNetTrainerMCNet")
"""A trainer with a teacher, and one with several decoders."""
KIND = "labels2d"
STEPS = 2
SETTINGS = {"num_epochs": 3, "num_iterations_per_epoch": 4, "initial_lr": 0.02}


def next_step(trainer: Any, batch: dict[str, Any]) -> float:
    """Return the loss of a step on a batch, of which it keeps nothing."""
    return float(trainer.train_step(copy.deepcopy(batch))["loss"])


def logits(trainer: Any, image: torch.Tensor) -> torch.Tensor:
    """Return what the predicting network of a trainer makes of images ``(B, C, *spatial)``."""
    network = trainer.network_that_predicts
    trainer.set_deep_supervision_enabled(False)
    network.eval()
    with torch.inference_mode():
        result: torch.Tensor = network(image)
    network.train()
    trainer.set_deep_supervision_enabled(True)
    return result.clone()


def as_tensors(value: Any) -> Any:
    """Return a batch with its arrays as tensors, which every release reads."""
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_tensors(item) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value) if value.dtype.char in NUMBERS else value.tolist()
    return value


def record(build: Builder, name: str) -> None:
    """Train a little, save, and record what follows."""
    for trainer_name in TRAINERS:
        trainer = build(find_method(trainer_name), KIND, start=False, **SETTINGS)
        start_in_second_epoch(trainer)
        for _ in range(STEPS):
            trainer.train_step(next(trainer.dataloader_train))
            trainer.iteration += 1
        image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        batch = as_tensors(next(trainer.dataloader_train))
        trainer.write_checkpoint(str(FOLDER / f"{name}_{trainer_name}.pth"), 1)
        after = {"image": image, "logits": logits(trainer, image), "batch": batch}
        after["loss"] = next_step(trainer, batch)
        torch.save(after, FOLDER / f"{name}_{trainer_name}_next.pth")


def main() -> None:
    """Record into this folder."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        folders = nnunet_folders(Path(root), patch)
        made = _make(KINDS[KIND], folders.raw, folders.preprocessed)
        record(Builder(lambda _: made, Path(root), patch, itertools.count()), sys.argv[1])


if __name__ == "__main__":
    main()
