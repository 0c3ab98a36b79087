"""What a demo run was asked for, and where its files lie."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.demo.phantom import SHAPES, SMALLEST_AXIS, Counts
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS

DATASET_ID = 900
DATASET_NAME = "Phantom"
CONFIGURATIONS = ("3d_fullres", "2d")
PLANS = "nnUNetPlans"
FOLD = "all"
SETTINGS_FILE = "demo.json"
VALIDATION_BATCHES = 2
DEFAULT_COUNTS = Counts()


@dataclass(frozen=True)
class Settings:
    """Everything that shapes the result; a folder is continued only under the same settings.

    Attributes:
        trainers: names of registered trainers, in the report's order.
        steps: optimizer steps of each trainer, a multiple of ``steps_per_epoch``.
        steps_per_epoch: steps of one of nnU-Net's epochs.
        shape: size of the phantom in voxels.
        counts: labeled, unlabeled and test cases.
        configuration: nnU-Net's, ``3d_fullres`` or ``2d``.
        overrides: hyper-parameters of single trainers, as ``(trainer, "name=value,...")``.
        max_patch: greatest patch size; the plan's is cut to it, in 2D to its last two numbers.
        max_batch: greatest batch size.
        features: channels of the encoder's stages; the plan's are replaced.
        seed: of phantom and training.
        device: ``cpu`` or ``cuda``.
    """

    trainers: tuple[str, ...] = ("nnUNetTrainerSupervised", "nnUNetTrainerVQSeg")
    steps: int = 150
    steps_per_epoch: int = 25
    shape: tuple[int, ...] = SHAPES[3]
    counts: Counts = DEFAULT_COUNTS
    configuration: str = CONFIGURATIONS[0]
    overrides: tuple[tuple[str, str], ...] = ()
    max_patch: tuple[int, ...] = (32, 40, 40)
    max_batch: int = 8
    features: tuple[int, ...] = (8, 16, 32, 64, 64, 64)
    seed: int = 0
    device: str = "cpu"

    def check(self) -> None:
        """Refuses settings that a stage would fail on.

        Raises:
            UserError: listing all that is wrong.
        """
        faults = []
        known = [method.trainer for method in METHODS]
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
        if len(self.shape) != 3 or min(self.shape) < SMALLEST_AXIS:
            faults.append(f"shape {self.shape}: give three numbers of {SMALLEST_AXIS} or more")
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
        """Epochs of each trainer."""
        return self.steps // self.steps_per_epoch


@dataclass(frozen=True)
class Layout:
    """The folders below the demo's output folder."""

    output: Path
    configuration: str = CONFIGURATIONS[0]

    @property
    def raw(self) -> Path:
        """The demo's own ``nnUNet_raw``."""
        return self.output / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """The demo's own ``nnUNet_preprocessed``."""
        return self.output / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """The demo's own ``nnUNet_results``."""
        return self.output / "nnUNet_results"

    @property
    def dataset_name(self) -> str:
        """Name of the data set's folders."""
        return f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"

    @property
    def raw_dataset(self) -> Path:
        """The phantom in raw form."""
        return self.raw / self.dataset_name

    @property
    def plans_file(self) -> Path:
        """nnU-Net's plan of the phantom."""
        return self.preprocessed / self.dataset_name / f"{PLANS}.json"

    @property
    def stages(self) -> Path:
        """Records of finished stages."""
        return self.output / "stages"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.output / "report"

    def fold(self, trainer: str) -> Path:
        """nnU-Net's folder of a training."""
        name = f"{trainer}__{PLANS}__{self.configuration}"
        return self.results / self.dataset_name / name / f"fold_{FOLD}"

    def predictions(self, trainer: str) -> Path:
        """Predictions of the test cases."""
        return self.output / "predictions" / trainer


def claim(output: Path, settings: Settings) -> None:
    """Make ``output`` the folder of a run with these settings, or find that it already is.

    Raises:
        UserError: the folder holds a run with other settings, or files of something else.
    """
    wanted = json.loads(json.dumps(asdict(settings)))
    path = output / SETTINGS_FILE
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key in wanted if wanted[key] != found.get(key)]
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
