"""A tiny data set with a model, rounds on it, and the stand-in for their commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from nnunet_semisup.rounds import commands
from nnunet_semisup.rounds.design import Design, Layout
from nnunet_semisup.rounds.plan import plan_rounds
from tests.helpers import Labels, make_raw_dataset

STAND_IN = Path(__file__).with_name("stand_in.py")
FOLDS = 2
CHECKPOINT = {"network_weights": {}, "trainer_name": "nnUNetTrainer", "current_epoch": 1}


def make_design(root: Path, folders: Any, labels: Labels | None = None, **changes: Any) -> Design:
    """Make a data set, a preprocessed folder and a model of two folds; return a design on them."""
    given = {} if labels is None else {"labels": labels}
    dataset = make_raw_dataset(folders.raw, 950, "Rounds", (6, 6, 8), 4, 5, **given)
    (dataset.folder / "conversion_report.json").write_text(
        json.dumps({"settings": {"allow_constant_channels": True}})
    )
    lab = list(dataset.labeled)
    splits = [{"train": lab[:3], "val": lab[3:]}, {"train": lab[1:], "val": lab[:1]}]
    preprocessed = folders.preprocessed / dataset.name
    preprocessed.mkdir()
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    plans = json.dumps({"image_reader_writer": "SimpleITKIO"})
    (preprocessed / "nnUNetPlans.json").write_text(plans)
    model = folders.results / dataset.name / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for fold in range(FOLDS):
        (model / f"fold_{fold}" / "validation").mkdir(parents=True)
        torch.save(CHECKPOINT, model / f"fold_{fold}" / "checkpoint_final.pth")
    (model / "dataset.json").write_text((dataset.folder / "dataset.json").read_text())
    (model / "plans.json").write_text(
        json.dumps({"image_reader_writer": "SimpleITKIO", "configurations": {"3d_fullres": {}}})
    )
    values: dict[str, Any] = {
        "dataset": dataset.name,
        "raw": str(folders.raw),
        "preprocessed": str(folders.preprocessed),
        "configuration": "3d_fullres",
        "plans": "nnUNetPlans",
        "folds": tuple(range(FOLDS)),
        "model": str(model),
        "rounds": 2,
        "steps": 6,
        "drop": 0.3,
        "processes": 0,
        "device": "cpu",
    }
    return Design(**{**values, **changes})


def planned(root: Path, folders: Any, **changes: Any) -> Layout:
    """Return the folder of planned rounds."""
    layout = Layout(root / "rounds")
    plan_rounds(layout, make_design(root, folders, **changes))
    return layout


def stand_in() -> Any:
    """Let the stand-in be started in place of commands, inside."""
    start = subprocess.Popen

    def popen(words: list[str], **given: Any) -> Any:
        return start([sys.executable, str(STAND_IN), *words], **given)

    return mock.patch.multiple(
        commands,
        find_command=lambda name: name,
        subprocess=mock.Mock(Popen=popen, STDOUT=subprocess.STDOUT),
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder, by name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
