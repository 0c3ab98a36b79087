"""Settings and files of rounds.

A round has nnU-Net's three folders of its own, so that a data set keeps its name and number, and
the user's own folders are only read.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.scoring.voting import write_json

DESIGN = "design.json"
SUPERVISED = "nnUNetTrainerSupervised"
EPOCH = 250
"""nnU-Net's steps of an epoch."""


@dataclass(frozen=True)
class Design:
    """Hold what the rounds are made of; paths are absolute.

    Attributes:
        dataset: ``DatasetXXX_Name``.
        raw, preprocessed: nnU-Net's folders that hold it.
        configuration, plans: of every round.
        folds: numbers in ``splits_final.json``.
        model: folder of the model that labels the first round.
        checkpoint: its files in each fold.
        rounds: at most.
        trainer: of every round.
        steps: of a round's training; ``None``: as the trainer has it.
        fine_tune: steps on the labeled cases alone afterwards; 0: none.
        settings: further settings of the trainer, as ``nnUNet_semisup_set`` takes them.
        drop: part of the scans that is dropped for the greatest disagreement. The winner of FLARE
            2022 dropped 76 of 2,000.
        size_limit: factor by which sizes may lie outside of the labeled cases'; 0: not looked at.
        fragments_limit: part of a class that may be scattered beyond what labeled cases show.
        confidence: voxels that two classes share at less than that are ignored; 0: none.
        labeled_share: of the patches that are drawn from labeled scans.
        converged: mean changed part of the labels below which rounds end.
        device: of training and prediction.
        processes: that preprocess and export.
    """

    dataset: str
    raw: str
    preprocessed: str
    configuration: str
    plans: str
    folds: tuple[int, ...]
    model: str
    checkpoint: str = "checkpoint_final.pth"
    rounds: int = 3
    trainer: str = SUPERVISED
    steps: int | None = None
    fine_tune: int = 0
    settings: str = ""
    drop: float = 0.04
    size_limit: float = 2.0
    fragments_limit: float = 0.2
    confidence: float = 0.8
    labeled_share: float = 0.5
    converged: float = 0.01
    device: str = "cuda"
    processes: int = 3

    @property
    def number(self) -> str:
        """The data set's number, three digits."""
        return self.dataset[7:10]

    @property
    def raw_folder(self) -> Path:
        """The user's raw data set."""
        return Path(self.raw, self.dataset)

    @property
    def preprocessed_folder(self) -> Path:
        """The user's preprocessed data set."""
        return Path(self.preprocessed, self.dataset)

    @property
    def last_trainer(self) -> str:
        """The trainer whose model labels the next round."""
        return SUPERVISED if self.fine_tune else self.trainer


@dataclass(frozen=True)
class RoundFolder:
    """Say where the files of a round are.

    Attributes:
        folder: of the round.
        dataset: ``DatasetXXX_Name``.
    """

    folder: Path
    dataset: str

    @property
    def labels(self) -> Path:
        """Predictions and scores of the unlabeled scans."""
        return self.folder / "labels"

    @property
    def choice(self) -> Path:
        """File with the scans that are kept, and why the others are not."""
        return self.folder / "choice.json"

    @property
    def roots(self) -> dict[str, str]:
        """Return nnU-Net's variables that name the round's three folders."""
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str((self.folder / name).absolute()) for name in names}

    @property
    def raw(self) -> Path:
        """The round's raw data set."""
        return self.folder / "nnUNet_raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        """The round's preprocessed data set."""
        return self.folder / "nnUNet_preprocessed" / self.dataset

    def model(self, design: Design, trainer: str) -> Path:
        """Return the folder of the model that a trainer makes in this round."""
        name = f"{trainer}__{design.plans}__{design.configuration}"
        return self.folder / "nnUNet_results" / self.dataset / name


@dataclass(frozen=True)
class Layout:
    """Say where the files of all rounds are."""

    folder: Path

    @property
    def design(self) -> Path:
        """The file with the design."""
        return self.folder / DESIGN

    def round(self, design: Design, number: int) -> RoundFolder:
        """Return the folder of a round, counted from 1."""
        return RoundFolder(self.folder / f"round_{number}", design.dataset)


def write_design(layout: Layout, design: Design) -> None:
    """Write the design, whole or not at all."""
    write_json(layout.design, dataclasses.asdict(design))


def read_design(layout: Layout) -> Design:
    """Read the design of a folder.

    Raises:
        UserError: it has none that can be read.
    """
    try:
        content: dict[str, Any] = json.loads(layout.design.read_text(encoding="utf-8"))
        return Design(**{**content, "folds": tuple(content["folds"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{layout.folder} has no readable {DESIGN} ({error}). Make it with: "
            "nnUNetv2_semisup_rounds plan"
        ) from error
