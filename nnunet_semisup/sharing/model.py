"""A trained model that is to be shared, and what of it is missing or does not belong together."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.safe_files import lacking_keys, read_checkpoint_file
from nnunet_semisup.training.checkpoint import KEY
from nnunet_semisup.training.definitions import defining_classes

STOCK = nnUNetTrainer.__name__
NEEDED_FILES = ("dataset.json", "plans.json")
NEEDED_KEYS = ("network_weights", "init_args", "trainer_name")
OWN = "nnunet-semisup"
_OF_NNUNET = {"nnunetv2", "dynamic_network_architectures"}
_DATASET_KEYS = (
    *("channel_names", "modality", "labels", "regions_class_order", "file_ending", "numTraining"),
    *("overwrite_image_reader_writer", "name", "reference", "license", "licence"),
)
"""What predicting takes of a ``dataset.json``, and what it says about the data as a whole."""


@dataclass(frozen=True)
class TrainedModel:
    """Hold a model folder that has been looked at by :func:`read_model`.

    Attributes:
        folder: of the model.
        folds: numbers or ``all``.
        checkpoint: name of the file in each fold.
        plans: content of ``plans.json``.
        dataset: content of ``dataset.json``.
        contents: of the checkpoints, a fold each; tensors stay on the disk.
        trainer: name of the class that trained.
        cls: that class.
    """

    folder: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    plans: dict[str, Any]
    dataset: dict[str, Any]
    contents: tuple[dict[str, Any], ...]
    trainer: str
    cls: Any

    @property
    def configuration(self) -> str:
        """Name of the configuration."""
        return str(self.contents[0]["init_args"]["configuration"])

    @property
    def bare_dataset(self) -> dict[str, Any]:
        """The part of ``dataset.json`` that is shared: nothing that can name a case or a path."""
        return {key: self.dataset[key] for key in _DATASET_KEYS if key in self.dataset}

    @cached_property
    def plan(self) -> PlannedNetwork:
        """The plan of the network that predicts."""
        plans = PlansManager(self.plans)
        configuration = plans.get_configuration(self.configuration)
        channels = determine_num_input_channels(plans, configuration, self.dataset)
        heads = plans.get_label_manager(self.dataset).num_segmentation_heads
        return PlannedNetwork(plans, configuration, channels, heads, False)

    @cached_property
    def needs(self) -> list[str]:
        """Packages besides nnU-Net's that define the network that predicts."""
        network = str(self.plan.configuration_manager.network_arch_class_name)
        modules = [network, *([] if is_plain(self.cls) else [self.cls.__module__])]
        packages = {module.split(".")[0] for module in modules}
        return sorted(OWN if name == "nnunet_semisup" else name for name in packages - _OF_NNUNET)

    @property
    def shared_trainer(self) -> str:
        """The trainer that the zip names: nnU-Net's own wherever it builds the same network."""
        return STOCK if is_plain(self.cls) and not self.needs else self.trainer

    @property
    def name(self) -> str:
        """Path of the shared model's folder below ``nnUNet_results``."""
        parts = self.shared_trainer, self.plans["plans_name"], self.configuration
        return f"{self.plans['dataset_name']}/{'__'.join(parts)}"

    def fold_folder(self, fold: int | str) -> Path:
        """Return the folder of a fold."""
        return self.folder / f"fold_{fold}"


def is_plain(cls: Any) -> bool:
    """Tell whether nnUNetTrainer builds the network that a trainer predicts with."""
    own = getattr(cls, "predicts_with_plan_network", None)
    return own() if own else defining_classes(cls, "build_network_architecture") == [nnUNetTrainer]


def read_model(
    folder: Path, folds: Sequence[int | str], checkpoint: str
) -> tuple[TrainedModel | None, list[str]]:
    """Return a model, or ``None`` and all that keeps it from being shared.

    Args:
        folder: of the model.
        folds: numbers or ``all``.
        checkpoint: name of the file in each fold.
    """
    if not folder.is_dir():
        return None, [
            f"there is no model folder '{folder}': train first, or correct -m or -d, -tr, -p, -c"
        ]
    read: dict[str | int, Any] = {}
    faults: list[str] = []
    for name in NEEDED_FILES:
        _collect(faults, read, name, folder / name, _read_json)
    paths = {fold: folder / f"fold_{fold}" / checkpoint for fold in folds}
    for fold, path in paths.items():
        _collect(faults, read, fold, path, read_checkpoint_file)
    if any(not path.is_file() for path in paths.values()):
        there = sorted(path.parent.name for path in folder.glob(f"fold_*/{checkpoint}"))
        have = ", ".join(there) or "none"
        faults.append(f"folds with a {checkpoint}: {have}; choose with -f and -chk")
    contents = {fold: read[fold] for fold in folds if fold in read}
    faults += _content_faults(contents)
    if faults:
        return None, faults
    trainer = _trainer(contents[folds[0]])
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where it looks for the class
            cls = recursive_find_trainer_class_by_name(trainer)
    except RuntimeError as error:
        return None, [f"the trainer {trainer} is not found here: {error}"]
    model = TrainedModel(
        folder=folder,
        folds=tuple(folds),
        checkpoint=checkpoint,
        plans=read["plans.json"],
        dataset=read["dataset.json"],
        contents=tuple(contents.values()),
        trainer=trainer,
        cls=cls,
    )
    return model, []


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error})") from error


def _collect(
    faults: list[str], read: dict[str | int, Any], key: Any, path: Path, reader: Any
) -> None:
    try:
        read[key] = reader(path)
    except UserError as error:
        faults.append(str(error))


def _trainer(content: dict[str, Any]) -> str:
    return str(content.get(KEY, {}).get("trainer", content["trainer_name"]))


def _content_faults(contents: dict[Any, Any]) -> list[str]:
    """Return what is wrong with checkpoints that could be read, each alone and all together."""
    faults = []
    for fold, content in contents.items():
        if lacking := lacking_keys(content, NEEDED_KEYS):
            faults.append(f"the checkpoint of fold {fold} has no {', '.join(lacking)}")
    if faults or not contents:
        return faults
    told: dict[str, Callable[[dict[str, Any]], Any]] = {
        "trainer": _trainer,
        "configuration": lambda c: str(c["init_args"]["configuration"]),
        "mirroring": lambda c: str(c.get("inference_allowed_mirroring_axes")),
        "tensors": lambda c: {key: tuple(v.shape) for key, v in c["network_weights"].items()},
    }
    for what, of in told.items():
        values = {fold: of(content) for fold, content in contents.items()}
        first = next(iter(values.values()))
        if others := [str(fold) for fold, value in values.items() if value != first]:
            faults.append(
                f"folds {', '.join(others)} have another {what} than the first: nnU-Net predicts "
                "all folds by what the first one says. Share them apart, with -f"
            )
    return faults
