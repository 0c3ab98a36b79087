"""A small data set to compare on, and nnU-Net's commands in this process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as stock

from nnunet_semisup.benchmark import prepare
from nnunet_semisup.benchmark.design import Design, Layout, Row
from nnunet_semisup.benchmark.prepare import environment
from nnunet_semisup.cli import plan_and_preprocess, plans, preprocess
from nnunet_semisup.errors import UserError
from tests.helpers import RawDataset, make_raw_dataset, nnunet_in_process

ENTRIES = {
    "nnUNetv2_semisup_plan_and_preprocess": plan_and_preprocess.main,
    "nnUNetv2_preprocess": stock.preprocess_entry,
    "nnUNetv2_semisup_preprocess": preprocess.main,
    "nnUNetv2_semisup_plans": plans.main,
}


def make_dataset(raw: Path) -> RawDataset:
    """Write five labeled and two unlabeled cases; the last two labeled ones measure."""
    dataset = make_raw_dataset(raw, 950, "Bench", (20, 20, 20), num_labeled=5, num_unlabeled=2)
    split = [{"train": list(dataset.labeled[:3]), "val": list(dataset.labeled[3:])}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(split))
    return dataset


def make_design(dataset: RawDataset, *rows: Row, **changes: object) -> Design:
    """Return a design of few steps on two of the cases."""
    values = {
        "dataset": dataset.name,
        "raw": str(dataset.folder),
        "configuration": "3d_fullres",
        "rows": (Row("nnUNetTrainerSupervised"), *rows),
        "budgets": (2,),
        "seeds": (0,),
        "steps": 8,
        "steps_per_epoch": 2,
        "pool": dataset.labeled[:3],
        "unlabeled": (),
        "evaluation": dataset.labeled[3:],
        "left_out": (),
        "order": "by name",
        "features": (4, 8, 8, 8),
    }
    return Design(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def commands_in_process() -> Iterator[list[list[str]]]:
    """Run what prepares a budget in this process, and collect the commands."""
    called: list[list[str]] = []

    def call(layout: Layout, budget: int, command: list[str]) -> None:
        called.append(command)
        given = environment(layout, budget)
        if command[0] == "nnUNetv2_semisup_preprocess":
            command = [*command[:-1], "0"]  # No process of its own.
        with (
            mock.patch.dict(os.environ, given),
            mock.patch.object(sys, "argv", command),
            nnunet_in_process(),
        ):
            try:
                ENTRIES[command[0]]()
            except SystemExit as ended:
                if ended.code:
                    raise UserError(f"{command[0]} failed") from ended

    with mock.patch.object(prepare, "_call", call):
        yield called
