"""Hold what a demo run was asked for, and where its files lie."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.demo.dataset import Counts
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS

DATASET_ID = 900
DATASET_NAME = "Phantom"
CONFIGURATION, DIMENSIONS = "2d", 2
PLANS = "nnUNetPlans"
FOLD = "all"
SETTINGS_FILE = "demo.json"
VALIDATION_BATCHES = 2
DEFAULT_COUNTS = Counts()


@dataclass(frozen=True)
class Settings:
    """Hold everything that shapes the result; a folder is continued under the same settings only.

    Attributes:
        trainers: names of registered trainers, in the report's order.
        steps: optimizer steps of each trainer, a multiple of ``steps_per_epoch``.
        steps_per_epoch: steps of one of nnU-Net's epochs.
        counts: labeled, unlabeled and test cases.
        overrides: hyper-parameters of single trainers, as ``(trainer, "name=value,...")``.
        seed: of phantom and training.
        device: ``cpu`` or ``cuda``.
    """

    trainers: tuple[str, ...] = ("nnUNetTrainerSupervised", "nnUNetTrainerPseudoLabel")
    steps: int = 4000
    steps_per_epoch: int = 250
    counts: Counts = DEFAULT_COUNTS
    overrides: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    device: str = "cpu"

    def check(self) -> None:
        """Refuse settings that a stage would fail on.

        Raises:
            UserError: listing all that is wrong.
        """
        faults = []
        known = [method.trainer for method in METHODS if DIMENSIONS in method.dims]
        faults += [
            f"trainer {name}: give one of {', '.join(known)}"
            for name in self.trainers
            if name not in known
        ]
        if not self.trainers or len(set(self.trainers)) < len(self.trainers):
            faults.append("trainers: give one or more, each once")
        if self.steps_per_epoch < 1 or self.steps < 1 or self.steps % self.steps_per_epoch:
            faults.append(
                f"{self.steps} steps: give a positive multiple of {self.steps_per_epoch}, the "
                "steps of an epoch"
            )
        faults += [
            f"--set {trainer}: the trainers of this run are {', '.join(self.trainers)}"
            for trainer, _ in self.overrides
            if trainer not in self.trainers
        ]
        if min(asdict(self.counts).values()) < 1:
            faults.append(f"{self.counts}: give at least 1 case of each group")
        if faults:
            raise UserError("\n".join(faults))

    @property
    def epochs(self) -> int:
        """Return the epochs of each trainer."""
        return self.steps // self.steps_per_epoch


@dataclass(frozen=True)
class Layout:
    """Name the folders below the demo's output folder."""

    output: Path

    @property
    def raw(self) -> Path:
        """Return the demo's own ``nnUNet_raw``."""
        return self.output / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """Return the demo's own ``nnUNet_preprocessed``."""
        return self.output / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """Return the demo's own ``nnUNet_results``."""
        return self.output / "nnUNet_results"

    @property
    def dataset_name(self) -> str:
        """Return the name of the data set's folders."""
        return f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"

    @property
    def raw_dataset(self) -> Path:
        """Return the folder of the phantom in raw form."""
        return self.raw / self.dataset_name

    @property
    def plans_file(self) -> Path:
        """Return the file of nnU-Net's plan of the phantom."""
        return self.preprocessed / self.dataset_name / f"{PLANS}.json"

    @property
    def stages(self) -> Path:
        """Return the folder of the records of finished stages."""
        return self.output / "stages"

    @property
    def report(self) -> Path:
        """Return the folder of the report."""
        return self.output / "report"

    def fold(self, trainer: str) -> Path:
        """Return nnU-Net's folder of a training."""
        name = f"{trainer}__{PLANS}__{CONFIGURATION}"
        return self.results / self.dataset_name / name / f"fold_{FOLD}"

    def predictions(self, trainer: str) -> Path:
        """Return the folder of the predictions of the test cases."""
        return self.output / "predictions" / trainer


def claim(output: Path, settings: Settings) -> None:
    """Make ``output`` the folder of a run with these settings, or find that it already is.

    The trainers may change: each has its own files, so that one can be added to a finished run.

    Raises:
        UserError: the folder holds a run with other settings, or files of something else.
    """
    wanted = json.loads(json.dumps(asdict(settings)))
    path = output / SETTINGS_FILE
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        compared = [key for key in wanted if key != "trainers"]
        different = [key for key in compared if wanted[key] != found.get(key)]
        if different:
            listed = ", ".join(f"{key} {found.get(key)}, not {wanted[key]}" for key in different)
            raise UserError(
                f"{output} holds a demo with other settings ({listed}). Give the same settings to "
                "continue it, another --output, or remove the folder."
            )
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is no demo's folder. Give another --output.")
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2), encoding="utf-8")
